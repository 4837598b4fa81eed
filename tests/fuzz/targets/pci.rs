//! A guest at a virtio device on PCI: config space by both ways, BARs moved anywhere, MSI-X table
//! and pending bits, every register in every width, while the device stops slowly, fails, or changes.
//! The device sees only what its contract allows, no doorbell lies outside the windows, and after
//! a reset of the VM everything is as on the first day.
#![no_main]

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use outboard::bus::Bus;
use outboard::kvm::MsiMessage;
use outboard::pci::{BarWindows, ConfigPorts, Ecam, PciRoot, Wiring, WiringError};
use outboard::transport::{
    Identity, IsRam, QueueStart, Start, TransportEvents, VirtioDevice, VirtioPci,
};
use outboard_fuzz::{Access, Number};
use vmm_sys_util::eventfd::EventFd;

const SLOT: u64 = 5;
const RAM: u64 = 0x10_0000;
const QUEUES: u16 = 3;
const SIZE_MAX: u16 = 256;
const LOW: std::ops::Range<u64> = 0xc000_0000..0xe000_0000;
const ECAM: u64 = 0xe000_0000;
const VERSION_1: u64 = 1 << 32;
const RING_RESET: u64 = 1 << 40;

#[derive(Debug, Arbitrary)]
enum Op {
    Config {
        offset: u8,
        data: Access,
    },
    Ecam {
        slot: u8,
        offset: u16,
        data: Access,
    },
    /// At the address register itself.
    Address(Access),
    Registers {
        offset: u16,
        data: Access,
    },
    Common {
        register: u8,
        value: Number,
    },
    Msix {
        offset: u16,
        data: Access,
    },
    /// To wherever in the window.
    Memory {
        offset: Number,
        data: Access,
    },
    /// A whole driver's start.
    Drive {
        queues: u8,
    },
    Notify(u16),
    ConfigChanged,
    NeedsReset,
    Interrupt(u8),
    HoldReset(bool),
    HostFails(bool),
    VmReset,
}

/// The common registers and their widths.
const COMMON: [(u64, usize); 18] = [
    (0x00, 4),
    (0x08, 4),
    (0x0c, 4),
    (0x10, 2),
    (0x14, 1),
    (0x16, 2),
    (0x18, 2),
    (0x1a, 2),
    (0x1c, 2),
    (0x20, 8),
    (0x28, 8),
    (0x30, 8),
    (0x20, 4),
    (0x24, 4),
    (0x3a, 2),
    (0x3000, 2),
    (0x3004, 4),
    (0x2000, 4),
];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds the transport to its contract.
#[derive(Default)]
struct Fake {
    running: Mutex<Option<Start>>,
    events: Mutex<Option<Arc<dyn TransportEvents>>>,
    hold: AtomicBool,
    resetting: AtomicBool,
}

fn check(queue: &QueueStart) {
    assert!(queue.index < QUEUES && (1..=SIZE_MAX).contains(&queue.size));
    assert!(queue.size.is_power_of_two());
    let size = u64::from(queue.size);
    for (at, len, align) in [
        (queue.desc, 16 * size, 16),
        (queue.avail, 2 * size + 6, 2),
        (queue.used, 8 * size + 6, 4),
    ] {
        assert!(
            at + len <= RAM && at % align == 0,
            "a part of a ring at {at:#x}"
        );
    }
}

impl VirtioDevice for Fake {
    fn identity(&self) -> Identity {
        Identity {
            device_id: 2,
            queues: QUEUES,
            max_queue_size: SIZE_MAX,
            config_len: 8,
        }
    }
    fn features(&self) -> u64 {
        VERSION_1 | RING_RESET | 1 << 29 | 1
    }
    fn read_config(&self, offset: u32, data: &mut [u8]) {
        data.fill(offset as u8);
    }
    fn write_config(&self, _: u32, data: &[u8]) {
        assert!((1..=8).contains(&data.len()));
    }
    fn config_generation(&self) -> u8 {
        0
    }
    fn start(&self, start: Start) {
        assert_eq!(start.features & !self.features(), 0);
        assert_ne!(start.features & VERSION_1, 0);
        start.queues.iter().for_each(check);
        assert!(
            lock(&self.running).replace(start).is_none(),
            "started twice"
        );
    }
    fn start_queue(&self, queue: QueueStart) {
        check(&queue);
        let mut running = lock(&self.running);
        let queues = &mut running.as_mut().expect("started").queues;
        assert!(
            queues.iter().all(|other| other.index != queue.index),
            "started twice"
        );
        queues.push(queue);
    }
    fn stop_queue(&self, index: u16) {
        let mut running = lock(&self.running);
        let start = running.as_mut().expect("started");
        assert_ne!(start.features & RING_RESET, 0);
        start.queues.retain(|queue| queue.index != index);
    }
    fn is_queue_stopped(&self, _: u16) -> bool {
        !self.hold.load(Ordering::SeqCst)
    }
    fn reset(&self) {
        *lock(&self.running) = None;
        self.resetting.store(true, Ordering::SeqCst);
    }
    fn is_reset(&self) -> bool {
        if !self.hold.load(Ordering::SeqCst) {
            self.resetting.store(false, Ordering::SeqCst);
        }
        !self.resetting.load(Ordering::SeqCst)
    }
    fn attach(&self, events: Arc<dyn TransportEvents>) {
        assert!(
            lock(&self.events).replace(events).is_none(),
            "attached twice"
        );
    }
}

/// A hypervisor that keeps account and checks how it is used.
#[derive(Default)]
struct Host {
    shared: Arc<Mutex<Shared>>,
    next: AtomicU32,
    broken: AtomicBool,
}

#[derive(Default)]
struct Shared {
    vectors: BTreeMap<u64, Option<MsiMessage>>,
    /// By the eventfd's number: the vector.
    connections: BTreeMap<u64, u64>,
    doorbells: BTreeMap<u64, i32>,
}

struct Undo(Arc<Mutex<Shared>>, u64, fn(&mut Shared, u64));

impl Drop for Undo {
    fn drop(&mut self) {
        (self.2)(&mut lock(&self.0), self.1);
    }
}

impl Host {
    fn check(&self) -> Result<MutexGuard<'_, Shared>, WiringError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err("broken on purpose".into());
        }
        Ok(lock(&self.shared))
    }

    fn undo(&self, id: u64, revert: fn(&mut Shared, u64)) -> Undo {
        Undo(Arc::clone(&self.shared), id, revert)
    }
}

impl Wiring for Host {
    type Vector = Undo;
    type Connection = Undo;
    type Doorbell = Undo;

    fn vector(&self) -> Result<Undo, WiringError> {
        let id = u64::from(self.next.fetch_add(1, Ordering::SeqCst));
        self.check()?.vectors.insert(id, None);
        Ok(self.undo(id, |shared, id| {
            assert!(
                shared.connections.values().all(|at| *at != id),
                "still connected"
            );
            shared.vectors.remove(&id).expect("freed once");
        }))
    }

    fn program(&self, batch: &[(&Undo, MsiMessage)]) -> Result<(), WiringError> {
        let mut shared = self.check()?;
        // As KVM does with what is no local APIC's.
        if batch.iter().any(|(_, message)| message.address >> 32 != 0) {
            return Err("an address that no local APIC has".into());
        }
        for (vector, message) in batch {
            *shared.vectors.get_mut(&vector.1).expect("allocated") = Some(*message);
        }
        Ok(())
    }

    fn connect(&self, call: &EventFd, vector: &Undo) -> Result<Undo, WiringError> {
        let id = call.as_raw_fd() as u64;
        let mut shared = self.check()?;
        assert!(
            shared.vectors[&vector.1].is_some(),
            "connected before it has a message"
        );
        assert!(
            shared.connections.insert(id, vector.1).is_none(),
            "connected twice"
        );
        Ok(self.undo(id, |shared, id| {
            assert!(shared.connections.remove(&id).is_some(), "once")
        }))
    }

    fn doorbell(&self, kick: &EventFd, address: u64) -> Result<Undo, WiringError> {
        let mut shared = self.check()?;
        let before = shared.doorbells.insert(address, kick.as_raw_fd());
        assert!(before.is_none(), "two doorbells at {address:#x}");
        Ok(self.undo(address, |shared, id| {
            assert!(shared.doorbells.remove(&id).is_some(), "once")
        }))
    }
}

struct Rig {
    device: Arc<Fake>,
    host: Arc<Host>,
    root: Arc<PciRoot>,
    mmio: Arc<Bus>,
    ports: Bus,
}

impl Rig {
    fn new() -> Self {
        let (device, host) = (Arc::<Fake>::default(), Arc::<Host>::default());
        let is_ram: IsRam = Arc::new(|at, len| at.checked_add(len).is_some_and(|end| end <= RAM));
        let mmio = Arc::new(Bus::new());
        let windows = BarWindows {
            low: LOW,
            high: 0x1_0000_0000..0x2_0000_0000,
        };
        let root = PciRoot::new(mmio.clone(), windows).unwrap();
        let function = VirtioPci::new(device.clone(), host.clone(), is_ram).unwrap();
        root.add(SLOT as u8, function).unwrap();
        let ports = Bus::new();
        let config = Arc::new(ConfigPorts::new(root.clone(), None));
        ports.insert(0xcf8, ConfigPorts::LEN, config).unwrap();
        mmio.insert(ECAM, 1 << 28, Arc::new(Ecam::new(root.clone())))
            .unwrap();
        Self {
            device,
            host,
            root,
            mmio,
            ports,
        }
    }

    /// Writes, and reads the same place.
    fn poke(bus: &Bus, address: u64, data: &[u8]) {
        bus.write(address, data);
        bus.read(address, &mut data.to_vec());
    }

    fn config(&self, offset: u8, data: &[u8]) {
        let address = 0x8000_0000 | SLOT << 11 | u64::from(offset & 0xfc);
        self.ports.write(0xcf8, &(address as u32).to_le_bytes());
        Self::poke(&self.ports, 0xcfc + u64::from(offset & 3), data);
    }

    fn config_read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.mmio.read(ECAM + (SLOT << 15) + offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Where a BAR is, or would be were it decoded.
    fn bar(&self, index: u64) -> u64 {
        u64::from(self.config_read(0x10 + 4 * index) & !0xf)
    }

    fn common(&self, offset: u64, data: &[u8]) {
        Self::poke(&self.mmio, self.bar(0) + offset, data);
    }

    fn drive(&self, queues: u8) {
        self.config(4, &[6, 0]);
        self.common(0x14, &[0]);
        self.common(0x14, &[3]);
        for (select, bits) in [(0u32, 1u32 << 29 | 1), (1, 1 | 1 << 8)] {
            self.common(0x08, &select.to_le_bytes());
            self.common(0x0c, &bits.to_le_bytes());
        }
        self.common(0x14, &[0xb]);
        for queue in 0..QUEUES {
            self.common(0x16, &queue.to_le_bytes());
            for (offset, address) in [(0x20, 0x1000u64), (0x28, 0x2000), (0x30, 0x3000)] {
                self.common(offset, &address.to_le_bytes());
            }
            self.common(0x1a, &(queue + 1).to_le_bytes());
            self.common(0x1c, &[(queues >> queue) & 1, 0]);
        }
        self.common(0x14, &[0xf]);
    }

    fn apply(&self, op: &Op) {
        match op {
            Op::Config { offset, data } => self.config(*offset, &data.0),
            Op::Ecam { slot, offset, data } => {
                let slot = if slot & 1 == 0 {
                    SLOT
                } else {
                    u64::from(*slot)
                };
                let at = ECAM + (slot << 15) + u64::from(offset & 0xfff);
                Self::poke(&self.mmio, at, &data.0);
            }
            Op::Address(data) => {
                self.ports.write(0xcf8, &data.0);
                Self::poke(&self.ports, 0xcfc, &data.0);
            }
            Op::Registers { offset, data } => self.common(u64::from(offset & 0x3fff), &data.0),
            Op::Common { register, value } => {
                let (offset, len) = COMMON[usize::from(*register) % COMMON.len()];
                self.common(offset, &value.0.to_le_bytes()[..len]);
            }
            Op::Msix { offset, data } => {
                Self::poke(&self.mmio, self.bar(1) + u64::from(offset & 0xfff), &data.0);
            }
            Op::Memory { offset, data } => {
                Self::poke(&self.mmio, LOW.start.wrapping_add(offset.0), &data.0);
            }
            Op::Drive { queues } => self.drive(*queues),
            Op::Notify(queue) => self.common(0x3000 + 4 * u64::from(queue % 1024), &[1, 0]),
            Op::ConfigChanged => self.events().config_changed(),
            Op::NeedsReset => self.events().needs_reset(),
            Op::Interrupt(index) => {
                let running = lock(&self.device.running);
                let queues = running.iter().flat_map(|start| &start.queues);
                for queue in queues.filter(|queue| queue.index == u16::from(*index)) {
                    let _ = queue.call.write(1);
                }
            }
            Op::HoldReset(hold) => self.device.hold.store(*hold, Ordering::SeqCst),
            Op::HostFails(fails) => self.host.broken.store(*fails, Ordering::SeqCst),
            Op::VmReset => self.root.reset(),
        }
    }

    fn events(&self) -> Arc<dyn TransportEvents> {
        lock(&self.device.events).clone().expect("attached")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // The bus holds the root by this, and the root the bus.
        self.mmio.remove(ECAM);
    }
}

fuzz_target!(|ops: Vec<Op>| {
    let rig = Rig::new();
    rig.drive(3);
    for op in ops.iter().take(200) {
        rig.apply(op);
        assert_eq!(rig.config_read(0), 0x1042_1af4);
        let shared = lock(&rig.host.shared);
        assert!(
            shared.doorbells.keys().all(|at| LOW.contains(at)),
            "a doorbell outside"
        );
        let limit = usize::from(QUEUES) + 1;
        assert!(shared.vectors.len() <= limit && shared.connections.len() <= limit);
    }
    rig.device.hold.store(false, Ordering::SeqCst);
    rig.host.broken.store(false, Ordering::SeqCst);
    rig.root.reset();
    assert!(rig.root.is_reset());
    let left = |shared: &Shared| {
        (
            shared.vectors.len(),
            shared.connections.len(),
            shared.doorbells.len(),
        )
    };
    assert_eq!(
        left(&lock(&rig.host.shared)),
        (0, 0, 0),
        "left behind by a reset"
    );
    rig.drive(3);
    let running = lock(&rig.device.running);
    assert_eq!(running.as_ref().map(|start| start.queues.len()), Some(2));
    assert_eq!(lock(&rig.host.shared).doorbells.len(), 2);
});
