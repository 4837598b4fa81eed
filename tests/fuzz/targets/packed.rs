//! The ring engine on packed rings of nonsense, beside a plain reading of the specification: what one
//! accepts the other reads the same way, what one refuses the other does, all of it is guest memory, and
//! nothing is written but descriptors and what was the device's to write.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use outboard_device::queue::{RingAddresses, RingStart};
use outboard_device::{Queue, Request};
use outboard_fuzz::Number;
use outboard_fuzz::ring::{
    AVAILABLE, DESCRIPTORS, Desc, GUEST, SIZE_MAX, TABLES, USED, USER, complete, joined,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// More buffers than this no chain may have.
const MOST: usize = 1024;

#[derive(Debug, Arbitrary)]
struct Ring {
    size: u8,
    /// Slots passed before.
    base: u8,
    event_idx: bool,
    indirect: bool,
    descriptors: [Desc; 16],
    /// Behind each other at `TABLES`.
    tables: Vec<Desc>,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Pop,
    Complete {
        which: u8,
        write: u8,
        says: Number,
    },
    GiveBack {
        which: u8,
    },
    /// The driver makes a slot available again, whosever it is.
    Refill {
        slot: u8,
        desc: Desc,
        wrap: bool,
    },
    Rest,
    Poke {
        addr: u16,
        value: u8,
    },
}

/// A plain reader of packed rings.
struct Reader {
    size: u16,
    slot: u16,
    wrap: bool,
    indirect: bool,
    /// Slots of chains that have not been used.
    taken: u16,
}

type Ranges = Vec<(u64, u64)>;

/// A chain that was read.
struct Chain {
    readable: Ranges,
    writable: Ranges,
    id: u16,
    slots: u16,
}

fn descriptor(addr: u64) -> (u64, u32, u16, u16) {
    let mut bytes = [0; 16];
    GUEST
        .reference
        .read_slice(&mut bytes, GuestAddress(addr))
        .unwrap();
    (
        u64::from_le_bytes(bytes[..8].try_into().unwrap()),
        u32::from_le_bytes(bytes[8..12].try_into().unwrap()),
        u16::from_le_bytes(bytes[12..14].try_into().unwrap()),
        u16::from_le_bytes(bytes[14..].try_into().unwrap()),
    )
}

fn is_memory(addr: u64, len: u64) -> bool {
    GUEST
        .reference
        .check_range(GuestAddress(addr), len as usize)
}

impl Chain {
    /// Takes a buffer; `None` when it may not be.
    fn take(&mut self, count: &mut usize, addr: u64, len: u32, flags: u16) -> Option<()> {
        *count += 1;
        if *count > MOST || len > 0 && !is_memory(addr, len.into()) {
            return None;
        }
        if flags & WRITE != 0 {
            self.writable.push((addr, len.into()));
        } else if self.writable.is_empty() {
            self.readable.push((addr, len.into()));
        } else {
            return None;
        }
        Some(())
    }
}

impl Reader {
    /// The next chain: `None` when there is none, and then `None` when it is broken.
    fn next(&mut self) -> Option<Option<Chain>> {
        let (_, _, _, flags) = descriptor(DESCRIPTORS + 16 * u64::from(self.slot));
        let available = (flags & 0x80 != 0) == self.wrap && (flags & 0x8000 != 0) != self.wrap;
        if self.taken == self.size || !available {
            return None;
        }
        let mut chain = Chain {
            readable: Vec::new(),
            writable: Vec::new(),
            id: 0,
            slots: 0,
        };
        Some(self.walk(&mut chain).map(|()| {
            self.taken += chain.slots;
            self.slot += chain.slots;
            if self.slot >= self.size {
                self.slot -= self.size;
                self.wrap = !self.wrap;
            }
            chain
        }))
    }

    fn walk(&self, chain: &mut Chain) -> Option<()> {
        let mut count = 0;
        loop {
            if chain.slots == self.size - self.taken {
                return None;
            }
            let slot = (self.slot + chain.slots) % self.size;
            let (addr, len, id, flags) = descriptor(DESCRIPTORS + 16 * u64::from(slot));
            chain.slots += 1;
            if flags & INDIRECT == 0 {
                chain.take(&mut count, addr, len, flags)?;
            } else {
                let in_one = GUEST.memory.guest(addr, len.into()).is_some();
                let whole = len > 0 && len % 16 == 0 && len / 16 <= MOST as u32;
                if !self.indirect || !whole || flags & NEXT != 0 || !in_one {
                    return None;
                }
                for at in (addr..addr + u64::from(len)).step_by(16) {
                    let (addr, len, _, flags) = descriptor(at);
                    if flags & INDIRECT != 0 {
                        return None;
                    }
                    chain.take(&mut count, addr, len, flags)?;
                }
            }
            if flags & NEXT == 0 {
                chain.id = id;
                return (id < self.size).then_some(());
            }
        }
    }
}

fuzz_target!(|ring: Ring| {
    let guest = &*GUEST;
    guest.clear();
    // No power of two is needed.
    let size = u16::from(ring.size) % SIZE_MAX + 1;
    let base = u16::from(ring.base) % (2 * size);
    let (slot, wrap) = (base % size, base < size);
    for (at, descriptor) in (0..size).zip(&ring.descriptors) {
        // As they are met first: before the base only in the next lap.
        let bytes = descriptor.packed(wrap == (at >= slot));
        guest.put(DESCRIPTORS + 16 * u64::from(at), &bytes);
    }
    for (at, descriptor) in (0..0x100).zip(&ring.tables) {
        guest.put(TABLES + 16 * at, &descriptor.packed(true));
    }
    let position = u32::from(slot) | u32::from(wrap) << 15;
    let start = RingStart {
        size,
        addresses: RingAddresses {
            descriptors: DESCRIPTORS + USER,
            available: AVAILABLE + USER,
            used: USED + USER,
        },
        base: position | position << 16,
        packed: true,
        event_idx: ring.event_idx,
        indirect: ring.indirect,
    };
    let mut queue = Queue::on_ring(Arc::clone(&guest.memory), start).unwrap();
    // Until the guest changes what the engine has looked at already, and the reader has not.
    let mut reader = Some(Reader {
        size,
        slot,
        wrap,
        indirect: ring.indirect,
        taken: 0,
    });
    let mut held: Vec<(Request, u16)> = Vec::new();
    let mut returned: Vec<u16> = Vec::new();
    let pick = |held: &mut Vec<(Request, u16)>, which: u8| {
        (!held.is_empty()).then(|| held.remove(usize::from(which) % held.len()))
    };
    for step in &ring.steps {
        match *step {
            Step::Pop if returned.is_empty() => {
                let expected = reader.as_mut().map(Reader::next);
                let popped = queue.pop();
                let mut slots = 0;
                match (expected, &popped) {
                    (None, _) => {}
                    (Some(None), popped) => assert!(matches!(popped, Ok(None)), "nothing is there"),
                    (Some(Some(None)), popped) => assert!(popped.is_err(), "it was to be refused"),
                    (Some(Some(Some(chain))), popped) => {
                        let popped = popped.as_ref().expect("a chain that is right");
                        let request = popped.as_ref().expect("a chain that is there");
                        assert_eq!(request.head(), chain.id);
                        assert_eq!(
                            guest.ranges(request.readable()),
                            joined(chain.readable.into_iter())
                        );
                        assert_eq!(
                            guest.ranges(request.writable()),
                            joined(chain.writable.into_iter())
                        );
                        slots = chain.slots;
                    }
                }
                match popped {
                    Ok(Some(request)) => held.push((request, slots)),
                    Ok(None) => {}
                    Err(_) => break,
                }
                assert!(held.len() <= usize::from(size), "more than fit the ring");
            }
            Step::Pop => {
                // What was given back comes again, and says nothing new.
                let request = queue.pop().unwrap().unwrap();
                let slots = returned.remove(0);
                held.push((request, slots));
            }
            Step::Complete { which, write, says } => {
                if let Some((request, slots)) = pick(&mut held, which) {
                    let ours = DESCRIPTORS..DESCRIPTORS + 16 * u64::from(size);
                    complete(&mut queue, request, write, says.0, ours);
                    if let Some(reader) = &mut reader {
                        reader.taken -= slots;
                    }
                    // What a device has written it may have written into the ring.
                    if write > 0 {
                        reader = None;
                    }
                }
            }
            Step::GiveBack { which } => {
                // One at a time: then the order is plain.
                if returned.is_empty()
                    && let Some((request, slots)) = pick(&mut held, which)
                {
                    queue.give_back(request);
                    returned.push(slots);
                }
            }
            Step::Refill { slot, desc, wrap } => {
                reader = None;
                let slot = u64::from(u16::from(slot) % size);
                guest.put(DESCRIPTORS + 16 * slot, &desc.packed(wrap));
            }
            Step::Rest => {
                queue.rest();
            }
            Step::Poke { addr, value } => {
                reader = None;
                guest.put(u64::from(addr % 0x4000), &[value]);
            }
        }
    }
    for (request, _) in held {
        queue.give_back(request);
    }
});
