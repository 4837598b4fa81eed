//! A device of registers behind its table.

use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::guard;
use super::options::{FromOptions, Options, values};
use super::virtio::fail;
use crate::abi::host::{Place, Space};
use crate::abi::layout::adopt;
use crate::abi::raw::*;
use crate::device::DeviceError;
use crate::register::{InterruptLine, RegisterDevice};

/// Registers that a host puts on its board: where they lie, and what they are wired to.
///
/// All calls come one at a time, on any thread; a vCPU may be waiting, so none may block.
pub trait BoardDevice: RegisterDevice + 'static {
    /// Where the registers lie. Called once, after [`wire`](Self::wire).
    fn place(&self) -> Place;

    /// The machine this device is put into. Called once, first.
    fn wire(&mut self, board: Board);

    /// The time set by [`Board::set_timer`] has come.
    fn timer(&mut self) {}

    /// A descriptor given to [`Board::watch`] has become readable or writable.
    fn ready(&mut self, fd: RawFd) {
        let _ = fd;
    }
}

/// The machine as a device of registers sees it. Any thread may use it, as long as the device is there.
#[derive(Clone)]
pub struct Board(Arc<OutboardServices>);

impl Board {
    /// The device's interrupt line.
    pub fn line(&self) -> Arc<dyn InterruptLine> {
        Arc::new(self.clone())
    }

    /// [`BoardDevice::timer`] is called once, after this time, in place of any set before; zero takes
    /// the timer back.
    pub fn set_timer(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(f) = self.0.set_timer {
            // SAFETY: the device is there, so its services are; any thread may call.
            unsafe { f(self.0.context, nanoseconds) };
        }
    }

    /// [`BoardDevice::ready`] is called when `fd` becomes readable or writable, edge-triggered. Neither:
    /// no longer, to be said before it is closed. False: it cannot be watched.
    pub fn watch(&self, fd: RawFd, readable: bool, writable: bool) -> bool {
        let events = if readable { OUTBOARD_READABLE } else { 0 }
            | if writable { OUTBOARD_WRITABLE } else { 0 };
        // SAFETY: as above.
        let watched = self
            .0
            .watch
            .map(|f| unsafe { f(self.0.context, fd, events) });
        watched == Some(OUTBOARD_OK)
    }

    /// Copies from guest physical memory; false when any of it is not the guest's memory.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) -> bool {
        let Some(memory) = self.memory() else {
            return false;
        };
        // SAFETY: as above, and a slice.
        let read = memory
            .read
            .map(|f| unsafe { f(memory.context, address, data.as_mut_ptr(), data.len()) });
        read == Some(OUTBOARD_OK)
    }

    /// Copies to guest physical memory; false when any of it is not the guest's memory.
    pub fn write_memory(&self, address: u64, data: &[u8]) -> bool {
        let Some(memory) = self.memory() else {
            return false;
        };
        // SAFETY: as above.
        let written = memory
            .write
            .map(|f| unsafe { f(memory.context, address, data.as_ptr(), data.len()) });
        written == Some(OUTBOARD_OK)
    }

    fn memory(&self) -> Option<OutboardGuestMemory> {
        let extension = self.0.extension?;
        let name = OutboardStr::new("outboard.guest-memory/1");
        // SAFETY: as above; the table is the host's, of the kind that belongs to the name.
        unsafe { adopt(extension(self.0.context, name).cast::<OutboardGuestMemory>()) }.ok()
    }

    /// The device cannot go on until the machine resets, for this reason.
    pub fn fail(&self, reason: &str) {
        fail(&self.0, reason);
    }
}

impl InterruptLine for Board {
    fn set(&self, high: bool) {
        if let Some(f) = self.0.set_line {
            // SAFETY: as above.
            unsafe { f(self.0.context, u32::from(high)) };
        }
    }
}

/// What the host's pointer points to.
pub(super) struct Exported<D> {
    device: D,
    services: OutboardServices,
}

/// The table of a type of device.
pub(super) trait Table {
    const TABLE: OutboardRegisters;
}

impl<D: BoardDevice> Table for Exported<D> {
    const TABLE: OutboardRegisters = OutboardRegisters {
        size: size_of::<OutboardRegisters>() as u32,
        reserved: 0,
        describe: Some(describe::<D>),
        read: Some(read::<D>),
        write: Some(write::<D>),
        reset: Some(reset::<D>),
        timer: Some(timer::<D>),
        ready: Some(ready::<D>),
    };
}

pub(super) unsafe extern "C" fn create<D: BoardDevice + FromOptions>(
    services: *const OutboardServices,
    given: *const OutboardValue,
    count: usize,
    device: *mut *mut c_void,
) -> i32 {
    guard::status(|| {
        // SAFETY: the ABI: the host's services and values.
        let (services, given) = unsafe {
            (
                adopt(services).map_err(DeviceError::other)?,
                values(given, count),
            )
        };
        let mut made = D::from_options(&Options::new(D::OPTIONS, &given))?;
        made.wire(Board(Arc::new(services)));
        let exported = Box::new(Exported {
            device: made,
            services,
        });
        // SAFETY: the ABI: a place for it.
        unsafe { *device = Box::into_raw(exported).cast() };
        Ok(OUTBOARD_OK)
    })
}

pub(super) unsafe extern "C" fn destroy<D: BoardDevice>(device: *mut c_void) {
    // SAFETY: made by `create`, destroyed once.
    let exported = unsafe { Box::from_raw(device.cast::<Exported<D>>()) };
    let _ = guard::quietly(|| drop(exported));
}

/// Makes a call that returns nothing: a panic fails the device.
unsafe fn plainly<D>(device: *mut c_void, f: impl FnOnce(&mut D)) {
    // SAFETY: the ABI: a device of this table, one call at a time.
    let exported = unsafe { &mut *device.cast::<Exported<D>>() };
    let own = &mut exported.device;
    if let Err(text) = guard::quietly(|| f(own)) {
        fail(&exported.services, &format!("the plugin panicked: {text}"));
    }
}

unsafe extern "C" fn describe<D: BoardDevice>(
    device: *mut c_void,
    info: *mut OutboardRegistersInfo,
) -> i32 {
    guard::status(|| {
        // SAFETY: as above, and a struct of version 1.0 at least.
        let (exported, info) = unsafe { (&mut *device.cast::<Exported<D>>(), &mut *info) };
        let place = exported.device.place();
        info.space = match place.space {
            Space::Ports => OUTBOARD_PORTS,
            Space::Mmio => OUTBOARD_MMIO,
        };
        info.base = place.base;
        info.len = place.len;
        info.line = place.line.unwrap_or(OUTBOARD_NO_LINE);
        Ok(OUTBOARD_OK)
    })
}

unsafe extern "C" fn read<D: BoardDevice>(
    device: *mut c_void,
    offset: u64,
    data: *mut u8,
    len: usize,
) {
    // SAFETY: as above, and `len` bytes.
    unsafe {
        let data = std::slice::from_raw_parts_mut(data, len);
        plainly::<D>(device, |device| device.read(offset, data));
    }
}

unsafe extern "C" fn write<D: BoardDevice>(
    device: *mut c_void,
    offset: u64,
    data: *const u8,
    len: usize,
) {
    // SAFETY: as above.
    unsafe {
        let data = std::slice::from_raw_parts(data, len);
        plainly::<D>(device, |device| device.write(offset, data));
    }
}

unsafe extern "C" fn reset<D: BoardDevice>(device: *mut c_void) {
    // SAFETY: as above.
    unsafe { plainly::<D>(device, D::reset) };
}

unsafe extern "C" fn timer<D: BoardDevice>(device: *mut c_void) {
    // SAFETY: as above.
    unsafe { plainly::<D>(device, D::timer) };
}

unsafe extern "C" fn ready<D: BoardDevice>(device: *mut c_void, fd: c_int, _events: u32) {
    // SAFETY: as above.
    unsafe { plainly::<D>(device, |device| device.ready(fd)) };
}
