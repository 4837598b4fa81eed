//! Whatever a guest writes wherever, at whatever time, is harmless.

use proptest::prelude::*;

use super::*;

/// One thing that a guest, the device or the host does.
#[derive(Debug, Clone)]
enum Op {
    Config { offset: u16, data: Vec<u8> },
    Ecam { offset: u64, data: Vec<u8> },
    Memory { address: u64, data: Vec<u8> },
    Register { offset: u64, value: u64, len: usize },
    Drive,
    ConfigChanged,
    NeedsReset,
    Interrupt(u16),
    HoldReset(bool),
    HostFails(bool),
    VmReset,
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let len = prop::sample::select(vec![1_usize, 2, 4, 8]);
    let filled = (prop::sample::select(vec![0_u8, 1, 0x80, 0xff]), len.clone());
    prop_oneof![
        len.prop_flat_map(|len| prop::collection::vec(any::<u8>(), len)),
        filled.prop_map(|(byte, len)| vec![byte; len]),
    ]
}

/// The registers with their own widths, and values that mean something to some of them.
fn register() -> impl Strategy<Value = Op> {
    let registers = prop::sample::select(vec![
        (0x00, 4),
        (0x08, 4),
        (0x0c, 4),
        (0x10, 2),
        (0x14, 1),
        (0x14, 1),
        (0x16, 2),
        (0x18, 2),
        (0x1a, 2),
        (0x1c, 2),
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
    ]);
    let values = prop_oneof![
        prop::sample::select(vec![
            0,
            1,
            2,
            3,
            4,
            8,
            0xb,
            0xf,
            64,
            128,
            0x1000,
            0x2000,
            RAM - 4096,
            u64::MAX
        ]),
        any::<u64>(),
    ];
    (registers, values).prop_map(|((offset, len), value)| Op::Register { offset, value, len })
}

fn op() -> impl Strategy<Value = Op> {
    let offset = prop_oneof![
        0..0x100_u16,
        prop::sample::select(vec![4, 0x10, 0x14, 0x42, 0x43])
    ];
    prop_oneof![
        8 => register(),
        4 => (offset, data()).prop_map(|(offset, data)| Op::Config { offset, data }),
        1 => (0..0x1000_0000_u64, data()).prop_map(|(offset, data)| Op::Ecam { offset, data }),
        4 => (0..0x5000_u64, data()).prop_map(|(at, data)| Op::Memory { address: BAR0 + at, data }),
        4 => (0..0x1000_u64, data()).prop_map(|(at, data)| Op::Memory { address: BAR1 + at, data }),
        2 => Just(Op::Drive),
        1 => Just(Op::ConfigChanged),
        1 => Just(Op::NeedsReset),
        2 => (0..QUEUES).prop_map(Op::Interrupt),
        1 => any::<bool>().prop_map(Op::HoldReset),
        1 => any::<bool>().prop_map(Op::HostFails),
        1 => Just(Op::VmReset),
    ]
}

impl Rig {
    /// Writes, and reads the same place.
    fn poke(bus: &Bus, address: u64, data: &[u8]) {
        bus.write(address, data);
        let mut data = data.to_vec();
        bus.read(address, &mut data);
    }

    fn apply(&self, op: Op) {
        match op {
            Op::Config { offset, data } => Self::poke(&self.ports, self.aim(offset), &data),
            Op::Ecam { offset, data } => {
                let ecam = Bus::new();
                let skin = crate::pci::Ecam::new(self.root.clone());
                ecam.insert(0, 1 << 28, Arc::new(skin)).unwrap();
                Self::poke(&ecam, u64::from(SLOT) << 15 | offset & 0xfff, &data);
                Self::poke(&ecam, offset, &data);
            }
            Op::Memory { address, data } => Self::poke(&self.mmio, address, &data),
            Op::Register { offset, value, len } => {
                Self::poke(&self.mmio, BAR0 + offset, &value.to_le_bytes()[..len]);
            }
            Op::Drive => self.try_to_drive(),
            Op::ConfigChanged => self.device.events().config_changed(),
            Op::NeedsReset => self.device.events().needs_reset(),
            Op::Interrupt(queue) => self.device.interrupt(queue),
            Op::HoldReset(hold) => self.device.hold.store(hold, Ordering::SeqCst),
            Op::HostFails(fails) => self.wiring.broken.store(fails, Ordering::SeqCst),
            Op::VmReset => self.root.reset(),
        }
    }

    /// What a driver does, wherever the device is and whatever it answers.
    fn try_to_drive(&self) {
        let write = |offset, data: &[u8]| {
            self.mmio.write(BAR0 + offset, data);
        };
        self.config_write(0x10, &(BAR0 as u32).to_le_bytes());
        self.config_write(4, &[6, 0]);
        self.config_write(self.msix_capability() + 2, &[0, 0x80]);
        write(0x14, &[0]);
        write(0x14, &[3]);
        for select in [0_u32, 1] {
            write(0x08, &select.to_le_bytes());
            write(
                0x0c,
                &((VERSION_1 | RING_RESET) >> (select * 32)).to_le_bytes()[..4],
            );
        }
        write(0x14, &[0xb]);
        for queue in 0..2_u16 {
            write(0x16, &queue.to_le_bytes());
            for (offset, address) in [(0x20, 0x1000_u64), (0x28, 0x2000), (0x30, 0x3000)] {
                write(offset, &address.to_le_bytes());
            }
            write(0x1a, &queue.to_le_bytes());
            write(0x1c, &[1, 0]);
        }
        write(0x14, &[0xf]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn guest_writes_are_harmless(ops in prop::collection::vec(op(), 1..80)) {
        let rig = Rig::running();
        for op in ops {
            rig.apply(op);
            rig.wiring.delivered();
            prop_assert_eq!(rig.config_read(0), 0x1042_1af4);
            for address in rig.wiring.doorbells() {
                prop_assert!(LOW.contains(&address));
            }
            let (vectors, connections) = rig.wiring.counts();
            prop_assert!(vectors <= usize::from(QUEUES) + 1 && connections <= usize::from(QUEUES) + 1);
        }
        // After a reset everything works as on the first day.
        rig.device.hold.store(false, Ordering::SeqCst);
        rig.wiring.broken.store(false, Ordering::SeqCst);
        rig.root.reset();
        prop_assert!(rig.root.is_reset());
        prop_assert_eq!(rig.wiring.counts(), (0, 0));
        prop_assert_eq!(rig.wiring.doorbells(), Vec::<u64>::new());
        rig.config_write(4, &[6, 0]);
        rig.enable_msix();
        rig.drive();
        rig.device.interrupt(0);
        prop_assert_eq!(rig.wiring.delivered(), [message(1)]);
        prop_assert!(rig.wiring.ring(BAR0 + notify(1)));
        prop_assert_eq!(rig.device.kicks(1), 1);
    }
}
