//! Masking, pending and delivery.

use std::sync::atomic::Ordering;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::super::msix::{CONTROL_ENABLE, CONTROL_MASK, Msix, Source};
use super::super::testing::FakeWiring;
use super::*;
use crate::kvm::MsiMessage;

const VECTORS: u16 = 4;

struct Rig {
    wiring: Arc<FakeWiring>,
    msix: Msix<FakeWiring>,
}

impl Rig {
    fn new() -> Self {
        let wiring = Arc::new(FakeWiring::default());
        Self {
            msix: Msix::new(wiring.clone(), VECTORS),
            wiring,
        }
    }

    fn entry(&mut self, vector: u16, data: u32) -> MsiMessage {
        let at = u64::from(vector) * 16;
        self.msix.write(at, &0xfee0_1000_u64.to_le_bytes());
        self.msix.write(at + 8, &data.to_le_bytes());
        MsiMessage {
            address: 0xfee0_1000,
            data,
        }
    }

    fn mask(&mut self, vector: u16, masked: bool) {
        self.msix.write(
            u64::from(vector) * 16 + 12,
            &u32::from(masked).to_le_bytes(),
        );
    }

    fn source(&mut self, source: Source, vector: u16) -> Arc<EventFd> {
        let call = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        assert!(self.msix.map(source, vector, Some(call.clone())));
        call
    }

    fn pending(&self) -> u64 {
        let mut data = [0; 8];
        self.msix
            .read(Msix::<FakeWiring>::pba_offset(VECTORS), &mut data);
        u64::from_le_bytes(data)
    }
}

#[test]
fn an_unmasked_vector_delivers_its_message() {
    let mut rig = Rig::new();
    let message = rig.entry(1, 0x41);
    let call = rig.source(Source::Queue(0), 1);
    rig.msix.set_control(CONTROL_ENABLE);
    rig.mask(1, false);
    call.write(1).unwrap();
    assert_eq!(rig.wiring.delivered(), [message]);
    assert_eq!(rig.pending(), 0);
}

#[test]
fn a_masked_vector_is_pending_until_unmasked() {
    let mut rig = Rig::new();
    let message = rig.entry(2, 0x42);
    let call = rig.source(Source::Queue(7), 2);
    rig.msix.set_control(CONTROL_ENABLE);
    rig.mask(2, false);
    rig.mask(2, true);
    call.write(1).unwrap();
    assert_eq!((rig.wiring.delivered(), rig.pending()), (vec![], 1 << 2));
    assert_eq!(rig.pending(), 1 << 2, "looking takes nothing");
    rig.mask(2, false);
    assert_eq!((rig.wiring.delivered(), rig.pending()), (vec![message], 0));
    rig.msix.set_control(CONTROL_ENABLE | CONTROL_MASK);
    call.write(1).unwrap();
    assert_eq!((rig.wiring.delivered(), rig.pending()), (vec![], 1 << 2));
    rig.msix.set_control(CONTROL_ENABLE);
    assert_eq!((rig.wiring.delivered(), rig.pending()), (vec![message], 0));
}

#[test]
fn unmasking_the_function_programs_all_vectors_in_one_batch() {
    let mut rig = Rig::new();
    let calls: Vec<_> = (0..VECTORS)
        .map(|v| rig.source(Source::Queue(v), v))
        .collect();
    rig.msix.set_control(CONTROL_ENABLE | CONTROL_MASK);
    let messages: Vec<_> = (0..VECTORS)
        .map(|v| rig.entry(v, 0x40 + u32::from(v)))
        .collect();
    (0..VECTORS).for_each(|v| rig.mask(v, false));
    assert_eq!(rig.wiring.batches(), 0);
    rig.msix.set_control(CONTROL_ENABLE);
    assert_eq!(rig.wiring.batches(), 1);
    for call in &calls {
        call.write(1).unwrap();
    }
    let mut delivered = rig.wiring.delivered();
    delivered.sort_by_key(|message| message.data);
    assert_eq!(delivered, messages);
}

#[test]
fn a_message_changed_while_masked_is_the_one_delivered() {
    let mut rig = Rig::new();
    rig.entry(0, 0x40);
    let call = rig.source(Source::Queue(0), 0);
    rig.msix.set_control(CONTROL_ENABLE);
    rig.mask(0, false);
    rig.mask(0, true);
    call.write(1).unwrap();
    let message = rig.entry(0, 0x50);
    rig.mask(0, false);
    assert_eq!(rig.wiring.delivered(), [message]);
    // Changed while unmasked as well, though drivers should not.
    let message = rig.entry(0, 0x60);
    call.write(1).unwrap();
    assert_eq!(rig.wiring.delivered(), [message]);
}

#[test]
fn sources_share_a_vector_and_free_it_with_the_last() {
    let mut rig = Rig::new();
    let message = rig.entry(3, 1);
    let (a, b) = (
        rig.source(Source::Queue(0), 3),
        rig.source(Source::Config, 3),
    );
    rig.msix.set_control(CONTROL_ENABLE);
    rig.mask(3, false);
    assert_eq!(rig.wiring.counts(), (1, 2));
    a.write(1).unwrap();
    b.write(1).unwrap();
    assert_eq!(rig.wiring.delivered(), [message; 2]);
    rig.msix.unmap(Source::Queue(0));
    assert_eq!(rig.wiring.counts(), (1, 1));
    rig.msix.unmap(Source::Config);
    assert_eq!(rig.wiring.counts(), (0, 0));
}

#[test]
fn vectors_are_allocated_when_mapped_and_there_are_no_others() {
    let mut rig = Rig::new();
    assert_eq!(rig.wiring.counts(), (0, 0));
    assert!(!rig.msix.map(Source::Config, VECTORS, None));
    assert!(!rig.msix.map(Source::Config, 0xffff, None));
    rig.wiring.broken.store(true, Ordering::SeqCst);
    assert!(!rig.msix.map(Source::Config, 0, None));
    assert_eq!(rig.wiring.counts(), (0, 0));
}

#[test]
fn a_message_that_cannot_be_routed_spoils_only_its_vector() {
    let mut rig = Rig::new();
    let good = rig.entry(0, 1);
    let (good_call, bad_call) = (
        rig.source(Source::Queue(0), 0),
        rig.source(Source::Queue(1), 1),
    );
    rig.msix.write(16, &0xffff_ffff_fee0_0000_u64.to_le_bytes());
    rig.msix.set_control(CONTROL_ENABLE | CONTROL_MASK);
    rig.mask(0, false);
    rig.mask(1, false);
    rig.msix.set_control(CONTROL_ENABLE);
    good_call.write(1).unwrap();
    bad_call.write(1).unwrap();
    assert_eq!(rig.wiring.delivered(), [good]);
    assert_eq!(rig.pending(), 1 << 1);
    let repaired = rig.entry(1, 2);
    assert_eq!(rig.wiring.delivered(), [repaired]);
}

#[test]
fn the_table_reads_back_and_starts_masked() {
    let mut rig = Rig::new();
    let mut entry = [0; 4];
    rig.msix.read(12, &mut entry);
    assert_eq!(entry, [1, 0, 0, 0]);
    rig.entry(0, 0xaabb_ccdd);
    let mut half = [0; 8];
    rig.msix.read(0, &mut half);
    assert_eq!(u64::from_le_bytes(half), 0xfee0_1000);
    rig.msix.read(8, &mut half);
    assert_eq!(u64::from_le_bytes(half), 0x0000_0001_aabb_ccdd);
    rig.msix.write(8, &[0; 2]);
    rig.msix.write(9, &[0; 4]);
    rig.msix.read(8, &mut half);
    assert_eq!(
        u64::from_le_bytes(half),
        0x0000_0001_aabb_ccdd,
        "only whole dwords write"
    );
    rig.msix.reset();
    rig.msix.read(8, &mut half);
    assert_eq!(u64::from_le_bytes(half), 1 << 32);
}
