//! Tests of a virtio device as a guest sees it: through config space, BARs and interrupts.

mod concurrent;
mod config;
mod interrupts;
mod kvm;
mod negotiation;
mod property;
mod queues;
mod reset;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::capabilities::{COMMON, DEVICE, ISR, NOTIFY};
use super::features::{RING_RESET, VERSION_1};
use super::machine::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};
use super::*;
use crate::bus::Bus;
use crate::kvm::MsiMessage;
use crate::pci::testing::FakeWiring;
use crate::pci::{BarWindows, ConfigPorts, PciRoot, Wiring, lock};

/// The slot where the device under test is.
const SLOT: u32 = 5;
/// Guest RAM, for the check of queues.
const RAM: u64 = 0x10_0000;
/// How many queues the device has, and their greatest size.
const QUEUES: u16 = 3;
const MAX_SIZE: u16 = 256;
/// The BARs, where the VMM assigns them: the first window address, and the next.
const LOW: std::ops::Range<u64> = 0xc000_0000..0xe000_0000;
const BAR0: u64 = LOW.start;
const BAR1: u64 = LOW.start + 0x4000;

/// What the device was told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Start { features: u64, queues: Vec<u16> },
    StartQueue(u16),
    StopQueue(u16),
    Reset,
    WriteConfig(u32, Vec<u8>),
}

/// A device that notes what it is told, and checks that the transport keeps its contract.
struct FakeDevice {
    features: AtomicU64,
    config: Mutex<Vec<u8>>,
    generation: AtomicU8,
    calls: Mutex<Vec<Call>>,
    running: Mutex<Option<Start>>,
    events: Mutex<Option<Arc<dyn TransportEvents>>>,
    /// Resets do not end until this is cleared.
    hold: AtomicBool,
    resetting: AtomicBool,
}

impl FakeDevice {
    fn new(features: u64) -> Arc<Self> {
        Arc::new(Self {
            features: AtomicU64::new(features),
            config: Mutex::new((1..=8).collect()),
            generation: AtomicU8::new(0),
            calls: Mutex::default(),
            running: Mutex::default(),
            events: Mutex::default(),
            hold: AtomicBool::new(false),
            resetting: AtomicBool::new(false),
        })
    }

    /// The calls since the last time.
    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut lock(&self.calls))
    }

    fn events(&self) -> Arc<dyn TransportEvents> {
        lock(&self.events).clone().expect("attached")
    }

    /// Interrupts the driver for a queue that runs.
    fn interrupt(&self, index: u16) {
        let running = lock(&self.running);
        let queues = running.as_ref().map_or(&[][..], |start| &start.queues);
        for queue in queues.iter().filter(|queue| queue.index == index) {
            queue.call.write(1).unwrap();
        }
    }

    /// How often a queue that runs was notified since the last time.
    fn kicks(&self, index: u16) -> u64 {
        let running = lock(&self.running);
        let queues = &running.as_ref().expect("runs").queues;
        let queue = queues
            .iter()
            .find(|queue| queue.index == index)
            .expect("runs");
        queue.kick.read().unwrap_or(0)
    }

    fn check(queue: &QueueStart) {
        assert!(queue.index < QUEUES && (1..=MAX_SIZE).contains(&queue.size));
        assert!(queue.size.is_power_of_two());
        for address in [queue.desc, queue.avail, queue.used] {
            assert!(address < RAM);
        }
    }
}

impl VirtioDevice for FakeDevice {
    fn identity(&self) -> Identity {
        Identity {
            device_id: 2,
            queues: QUEUES,
            max_queue_size: MAX_SIZE,
            config_len: 8,
        }
    }

    fn features(&self) -> u64 {
        self.features.load(Ordering::SeqCst)
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        data.fill(0);
        let config = lock(&self.config);
        let from = config.iter().skip(offset as usize);
        data.iter_mut()
            .zip(from)
            .for_each(|(byte, value)| *byte = *value);
    }

    fn write_config(&self, offset: u32, data: &[u8]) {
        lock(&self.calls).push(Call::WriteConfig(offset, data.to_vec()));
    }

    fn config_generation(&self) -> u8 {
        self.generation.load(Ordering::SeqCst)
    }

    fn start(&self, start: Start) {
        assert_eq!(start.features & !self.features(), 0);
        assert_ne!(start.features & VERSION_1, 0);
        start.queues.iter().for_each(Self::check);
        assert!(start.queues.is_sorted_by_key(|queue| queue.index));
        let queues = start.queues.iter().map(|queue| queue.index).collect();
        lock(&self.calls).push(Call::Start {
            features: start.features,
            queues,
        });
        assert!(
            lock(&self.running).replace(start).is_none(),
            "started twice"
        );
    }

    fn start_queue(&self, queue: QueueStart) {
        Self::check(&queue);
        lock(&self.calls).push(Call::StartQueue(queue.index));
        let mut running = lock(&self.running);
        let queues = &mut running.as_mut().expect("started").queues;
        assert!(
            queues.iter().all(|other| other.index != queue.index),
            "started twice"
        );
        queues.push(queue);
    }

    fn stop_queue(&self, index: u16) {
        lock(&self.calls).push(Call::StopQueue(index));
        let mut running = lock(&self.running);
        let start = running.as_mut().expect("started");
        assert_ne!(start.features & RING_RESET, 0);
        start.queues.retain(|queue| queue.index != index);
    }

    fn is_queue_stopped(&self, _index: u16) -> bool {
        !self.hold.load(Ordering::SeqCst)
    }

    fn reset(&self) {
        lock(&self.calls).push(Call::Reset);
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

/// A device on a PCI bus, and a driver's way to it.
struct Rig<W: Wiring = FakeWiring> {
    device: Arc<FakeDevice>,
    wiring: Arc<W>,
    root: Arc<PciRoot>,
    mmio: Arc<Bus>,
    ports: Bus,
}

impl Rig {
    /// The device offers `features`; its memory decode and bus mastering are on.
    fn new(features: u64) -> Self {
        let in_ram: IsRam = Arc::new(|at, len| at.checked_add(len).is_some_and(|end| end <= RAM));
        Self::with(
            FakeDevice::new(features),
            Arc::new(FakeWiring::default()),
            in_ram,
        )
    }

    /// As [`new`](Self::new), driven up to `DRIVER_OK` with queues 0 and 1, MSI-X on, the vector
    /// of queue n being n + 1 and the config's 0.
    fn running() -> Self {
        let rig = Self::new(VERSION_1 | RING_RESET | 1);
        rig.enable_msix();
        rig.drive();
        rig.device.calls();
        rig
    }
}

impl<W: Wiring> Rig<W> {
    fn with(device: Arc<FakeDevice>, wiring: Arc<W>, is_ram: IsRam) -> Self {
        let mmio = Arc::new(Bus::new());
        let root = PciRoot::new(
            mmio.clone(),
            BarWindows {
                low: LOW,
                high: 0..0,
            },
        )
        .unwrap();
        let function = VirtioPci::new(device.clone(), wiring.clone(), is_ram).unwrap();
        root.add(SLOT as u8, function).unwrap();
        let ports = Bus::new();
        ports
            .insert(0xcf8, 8, Arc::new(ConfigPorts::new(root.clone(), None)))
            .unwrap();
        let rig = Self {
            device,
            wiring,
            root,
            mmio,
            ports,
        };
        rig.config_write(4, &[6, 0]);
        rig
    }

    fn aim(&self, offset: u16) -> u64 {
        let address = 0x8000_0000 | SLOT << 11 | u32::from(offset & 0xfc);
        self.ports.write(0xcf8, &address.to_le_bytes());
        0xcfc + u64::from(offset & 3)
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        self.ports.write(self.aim(offset), data);
    }

    fn config_read(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.ports.read(self.aim(offset), &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u64, data: &[u8]) {
        assert!(self.mmio.write(BAR0 + offset, data));
    }

    fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        assert!(self.mmio.read(BAR0 + offset, &mut data));
        data
    }

    fn status(&self) -> u8 {
        self.read::<1>(COMMON.start + 0x14)[0]
    }

    fn set_status(&self, status: u8) {
        self.write(COMMON.start + 0x14, &[status]);
    }

    fn word(&self, offset: u64) -> u16 {
        u16::from_le_bytes(self.read(offset))
    }

    fn isr(&self) -> u8 {
        self.read::<1>(ISR.start)[0]
    }

    fn take_features(&self, features: u64) {
        for (select, part) in [(0_u32, features as u32), (1, (features >> 32) as u32)] {
            self.write(0x08, &select.to_le_bytes());
            self.write(0x0c, &part.to_le_bytes());
        }
    }

    fn offered(&self) -> u64 {
        let part = |select: u32| {
            self.write(0x00, &select.to_le_bytes());
            u64::from(u32::from_le_bytes(self.read(0x04)))
        };
        part(0) | part(1) << 32
    }

    fn select(&self, queue: u16) {
        self.write(0x16, &queue.to_le_bytes());
    }

    /// Sets a queue's size and addresses.
    fn set_up(&self, queue: u16, size: u16, desc: u64, avail: u64, used: u64) {
        self.select(queue);
        self.write(0x18, &size.to_le_bytes());
        for (offset, address) in [(0x20, desc), (0x28, avail), (0x30, used)] {
            self.write(offset, &(address as u32).to_le_bytes());
            self.write(offset + 4, &((address >> 32) as u32).to_le_bytes());
        }
    }

    /// Enables the selected queue; whether that took.
    fn enable(&self) -> bool {
        self.write(0x1c, &1_u16.to_le_bytes());
        self.word(0x1c) == 1
    }

    /// Sets up a queue soundly, with vector `queue + 1`, and enables it.
    fn run_queue(&self, queue: u16) {
        let base = 0x1_0000 * (u64::from(queue) + 1);
        self.set_up(queue, 128, base, base + 0x1000, base + 0x2000);
        self.write(0x1a, &(queue + 1).to_le_bytes());
        assert!(self.enable());
    }

    fn negotiate(&self) {
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | DRIVER);
        self.take_features(self.offered());
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_ne!(self.status() & FEATURES_OK, 0);
    }

    /// From reset to `DRIVER_OK`, as a driver does it.
    fn drive(&self) {
        self.set_status(0);
        assert_eq!(self.status(), 0);
        self.negotiate();
        self.write(0x10, &0_u16.to_le_bytes());
        self.run_queue(0);
        self.run_queue(1);
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        assert_eq!(
            self.status(),
            ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
        );
    }

    /// The offset of the MSI-X capability.
    fn msix_capability(&self) -> u16 {
        let mut at = self.config_read(0x34) as u16 & 0xff;
        while self.config_read(at) & 0xff != 0x11 {
            at = (self.config_read(at) >> 8) as u16 & 0xff;
            assert_ne!(at, 0, "no MSI-X");
        }
        at
    }

    /// Turns MSI-X on, with data 0x40 + vector in each entry.
    fn enable_msix(&self) {
        for vector in 0..=u64::from(QUEUES) {
            self.write_entry(vector, 0, &0xfee0_0000_u64.to_le_bytes());
            self.write_entry(vector, 8, &(0x40 + vector as u32).to_le_bytes());
            self.mask(vector, false);
        }
        self.config_write(self.msix_capability() + 2, &0x8000_u16.to_le_bytes());
    }

    fn mask(&self, vector: u64, masked: bool) {
        self.write_entry(vector, 12, &u32::from(masked).to_le_bytes());
    }

    fn write_entry(&self, vector: u64, offset: u64, data: &[u8]) {
        assert!(self.mmio.write(BAR1 + vector * 16 + offset, data));
    }

    fn pending(&self) -> u64 {
        let mut data = [0; 8];
        assert!(self.mmio.read(BAR1 + 2048, &mut data));
        u64::from_le_bytes(data)
    }
}

/// The message of a vector after [`Rig::enable_msix`].
fn message(vector: u32) -> MsiMessage {
    MsiMessage {
        address: 0xfee0_0000,
        data: 0x40 + vector,
    }
}

/// Where a queue is notified.
fn notify(queue: u16) -> u64 {
    NOTIFY.start + u64::from(queue) * 4
}
