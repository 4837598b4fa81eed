//! virtio-pci (virtio 1.2, section 4.1): a device from reset to `DRIVER_OK`.

use crate::pci::Function;
use crate::ring::Ring;

const VERSION_1: u64 = 1 << 32;
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 64;

/// A device whose registers are found and whose features are agreed on.
#[derive(Clone, Copy)]
pub struct Device {
    common: usize,
    notify: usize,
    multiplier: usize,
    config: usize,
    msix_table: usize,
}

impl Device {
    /// Resets the device in `slot`, which must be of virtio id `id`, and agrees on `features` as
    /// far as they are offered.
    pub fn open(slot: u8, id: u16, features: u64) -> Result<(Self, u64), &'static str> {
        let function = Function::find(slot).ok_or("the slot is empty")?;
        if function.read::<u32>(0) != 0x1040_1af4 + (u32::from(id) << 16) {
            return Err("the device has another id");
        }
        function.enable();
        let device = Self::registers(function)?;
        device.reset()?;
        device.set_status(ACKNOWLEDGE);
        device.set_status(ACKNOWLEDGE | DRIVER);
        let agreed = device.offered() & (features | VERSION_1);
        if agreed & VERSION_1 == 0 {
            return Err("VERSION_1 is not offered");
        }
        for half in 0..2_u32 {
            device.write(0x08, half);
            device.write(0x0c, (agreed >> (32 * half)) as u32);
        }
        device.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        if device.status() & FEATURES_OK == 0 {
            return Err("the features are refused");
        }
        Ok((device, agreed))
    }

    fn registers(function: Function) -> Result<Self, &'static str> {
        let mut device = Self { common: 0, notify: 0, multiplier: 0, config: 0, msix_table: 0 };
        for capability in function.capabilities(0x09) {
            let at = function.bar(function.read(capability + 4)) + function.read::<u32>(capability + 8) as usize;
            match function.read::<u8>(capability + 3) {
                1 => device.common = at,
                2 => {
                    device.notify = at;
                    device.multiplier = function.read::<u32>(capability + 16) as usize;
                }
                4 => device.config = at,
                _ => {}
            }
        }
        let msix = function.capabilities(0x11).next().ok_or("there is no MSI-X capability")?;
        let table: u32 = function.read(msix + 4);
        device.msix_table = function.bar((table & 7) as u8) + (table & !7) as usize;
        function.write(msix + 2, function.read::<u16>(msix + 2) | 0x8000);
        if device.common == 0 || device.notify == 0 {
            return Err("a virtio capability is missing");
        }
        Ok(device)
    }

    fn read<T: Copy>(&self, register: usize) -> T {
        unsafe { ((self.common + register) as *const T).read_volatile() }
    }

    fn write<T>(&self, register: usize, value: T) {
        unsafe { ((self.common + register) as *mut T).write_volatile(value) };
    }

    pub fn status(&self) -> u8 {
        self.read(0x14)
    }

    fn set_status(&self, status: u8) {
        self.write(0x14, status);
    }

    /// Whether the device has asked to be reset.
    pub fn needs_reset(&self) -> bool {
        self.status() & NEEDS_RESET != 0
    }

    /// Writes status 0 and waits until it reads so.
    pub fn reset(&self) -> Result<(), &'static str> {
        self.set_status(0);
        for _ in 0..1_000_000 {
            if self.status() == 0 {
                return Ok(());
            }
        }
        Err("the reset never ends")
    }

    fn offered(&self) -> u64 {
        let half = |n: u32| {
            self.write(0x00, n);
            u64::from(self.read::<u32>(0x04))
        };
        half(0) | half(1) << 32
    }

    /// Bytes of the device configuration.
    pub fn config<T: Copy>(&self, offset: usize) -> T {
        unsafe { ((self.config + offset) as *const T).read_volatile() }
    }

    /// Sets queue `index` up with at most `size` entries, its interrupts to `vector` of CPU `cpu`.
    pub fn queue(&self, index: u16, size: u16, cpu: u32, vector: u8, agreed: u64) -> Result<Ring, &'static str> {
        self.write(0x16, index);
        let size = size.min(self.read(0x18));
        if size == 0 {
            return Err("the queue does not exist");
        }
        self.write(0x18, size);
        // One MSI-X entry per queue, its number the queue's.
        self.route(index, cpu, vector);
        self.write(0x1a, index);
        if self.read::<u16>(0x1a) != index {
            return Err("the queue's vector is refused");
        }
        let kick = self.notify + usize::from(self.read::<u16>(0x1e)) * self.multiplier;
        let ring = Ring::new(size, index, kick, vector, agreed);
        for (register, address) in [(0x20, ring.descriptors()), (0x28, ring.available()), (0x30, ring.used())] {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(0x1c, 1_u16);
        Ok(ring)
    }

    /// Takes an interrupt for each queue there is, also for those that it does not use.
    pub fn take_interrupts(&self) -> Result<(), &'static str> {
        for index in 0..self.read::<u16>(0x12) {
            self.write(0x16, index);
            self.write(0x1a, index);
            if self.read::<u16>(0x1a) != index {
                return Err("a queue's vector is refused");
            }
        }
        Ok(())
    }

    /// Where its registers are.
    pub fn registers_at(&self) -> usize {
        self.common
    }

    /// Fills MSI-X entry `entry`.
    fn route(&self, entry: u16, cpu: u32, vector: u8) {
        let entry = self.msix_table + usize::from(entry) * 16;
        unsafe {
            (entry as *mut u32).write_volatile(0xfee0_0000 | cpu << 12);
            ((entry + 4) as *mut u32).write_volatile(0);
            ((entry + 8) as *mut u32).write_volatile(u32::from(vector));
            ((entry + 12) as *mut u32).write_volatile(0);
        }
    }

    /// Has changes of the device configuration interrupt CPU `cpu` at `vector`, by MSI-X entry `entry`.
    pub fn config_interrupts(&self, entry: u16, cpu: u32, vector: u8) -> Result<(), &'static str> {
        self.route(entry, cpu, vector);
        self.write(0x10, entry);
        if self.read::<u16>(0x10) == entry { Ok(()) } else { Err("the configuration's vector is refused") }
    }

    /// The driver is ready.
    pub fn start(&self) {
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }
}
