//! The reference device's side of a ring: plain and slow, each check beside the fault of not
//! making it.

use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::Fault;
use crate::driver::connection::{F_EVENT_IDX, F_INDIRECT_DESC, F_RING_PACKED};
use crate::driver::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, crosses};

/// The ring cannot be believed any more.
#[derive(Debug)]
pub(super) struct Broken;

#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

/// Where a ring is, and how far it has got.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    pub(super) size: u16,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    pub(super) next: u16,
    pub(super) fault: Fault,
    pub(super) features: u64,
    pub(super) answered: u64,
}

impl Ring {
    pub(super) fn event_idx(&self) -> bool {
        self.features & F_EVENT_IDX != 0
    }

    fn is_packed(&self) -> bool {
        self.features & F_RING_PACKED != 0
    }

    /// Whether all of it is in memory; a packed ring's event suppression is shorter than what is looked at.
    pub(super) fn is_valid(&self, memory: &GuestMemoryMmap) -> bool {
        let size = usize::from(self.size);
        let valid = size > 0
            && memory.check_range(GuestAddress(self.descriptors), size * 16)
            && memory.check_range(GuestAddress(self.available), size * 2 + 6)
            && memory.check_range(GuestAddress(self.used), size * 8 + 6)
            && self.descriptors.is_multiple_of(16)
            && self.available.is_multiple_of(2)
            && self.used.is_multiple_of(4);
        assert!(
            valid || self.fault != Fault::PanicsOnRing,
            "a ring outside memory"
        );
        valid
    }

    /// Answers the next request, if there is one. `Some(call)` says whether the driver wants a call.
    pub(super) fn serve(&mut self, memory: &GuestMemoryMmap) -> Result<Option<bool>, Broken> {
        if self.is_packed() {
            return self.serve_packed(memory);
        }
        let index: u16 = load(memory, self.available + 2)?;
        fence(Ordering::Acquire);
        let waiting = index.wrapping_sub(self.next);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.size {
            assert!(
                self.fault != Fault::PanicsOnJump,
                "{waiting} chains in {}",
                self.size
            );
            return Err(Broken);
        }
        let slot = u64::from(self.next % self.size);
        let head: u16 = load(memory, self.available + 4 + 2 * slot)?;
        let chain = self.walk(memory, head)?;
        let written = self.carry_out(memory, chain)?;
        self.next = self.next.wrapping_add(1);
        self.answered += 1;
        if self.fault == Fault::LosesLastSlot && slot + 1 == u64::from(self.size) {
            return Ok(Some(false));
        }
        let used: u16 = load(memory, self.used + 2)?;
        let element = self.used + 4 + 8 * u64::from(used % self.size);
        store(memory, element, u32::from(head))?;
        store(memory, element + 4, written)?;
        fence(Ordering::Release);
        store(memory, self.used + 2, used.wrapping_add(1))?;
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx() && self.fault != Fault::IgnoresUsedEvent {
            let event: u16 = load(memory, self.available + 4 + 2 * u64::from(self.size))?;
            crosses(event, used.wrapping_add(1), used)
        } else {
            let flags: u16 = load(memory, self.available)?;
            flags & 1 == 0 && self.fault != Fault::NeverCalls
        };
        Ok(Some(
            wanted && self.fault != Fault::IgnoresUsedEvent || self.fault == Fault::AlwaysCalls,
        ))
    }

    /// Asks to be kicked for the next chain. True if one is there already.
    pub(super) fn arm(&self, memory: &GuestMemoryMmap) -> Result<bool, Broken> {
        if self.is_packed() {
            return self.arm_packed(memory);
        }
        if self.event_idx() && self.fault != Fault::AsksOnce {
            store(memory, self.used + 4 + 8 * u64::from(self.size), self.next)?;
        }
        fence(Ordering::SeqCst);
        let index: u16 = load(memory, self.available + 2)?;
        Ok(index != self.next)
    }

    pub(super) fn carry_out(
        &self,
        memory: &GuestMemoryMmap,
        chain: Vec<Descriptor>,
    ) -> Result<u32, Broken> {
        let (mut input, mut written) = (Vec::new(), 0usize);
        for descriptor in chain {
            let len = self.check(memory, &descriptor)?;
            if descriptor.flags & DESC_WRITE != 0 {
                let rest: Vec<u8> = input
                    .iter()
                    .skip(written)
                    .take(len)
                    .map(|byte: &u8| !byte)
                    .collect();
                memory
                    .write_slice(&rest, GuestAddress(descriptor.addr))
                    .map_err(|_| Broken)?;
                written += rest.len();
            } else {
                let start = input.len();
                input.resize(start + len, 0);
                let bytes = &mut input[start..];
                memory
                    .read_slice(bytes, GuestAddress(descriptor.addr))
                    .map_err(|_| Broken)?;
            }
        }
        Ok(match self.fault {
            Fault::SaysTooMuch => written as u32 + 1000,
            Fault::Tires if self.answered > 100 => 0,
            _ => written as u32,
        })
    }

    /// How many bytes of a buffer to use.
    fn check(&self, memory: &GuestMemoryMmap, descriptor: &Descriptor) -> Result<usize, Broken> {
        let (at, len) = (GuestAddress(descriptor.addr), descriptor.len as usize);
        if len == 0 || len > 1 << 24 {
            assert!(self.fault != Fault::PanicsOnLength, "{len} bytes");
            return Err(Broken);
        }
        if !memory.check_range(at, len) {
            assert!(
                self.fault != Fault::PanicsOnAddress,
                "{at:?} is outside memory"
            );
            return Err(Broken);
        }
        if self.fault == Fault::OneRegion {
            let region = memory.find_region(at).ok_or(Broken)?;
            let left = region.len() - (at.0 - region.start_addr().0);
            return Ok(len.min(left as usize));
        }
        Ok(len)
    }

    fn walk(&self, memory: &GuestMemoryMmap, head: u16) -> Result<Vec<Descriptor>, Broken> {
        let mut chain = Vec::new();
        let (mut table, mut entries) = (self.descriptors, u32::from(self.size));
        let (mut index, mut inside) = (head, false);
        loop {
            if u32::from(index) >= entries {
                assert!(
                    self.fault != Fault::PanicsOnIndex,
                    "descriptor {index} of {entries}"
                );
                return Err(Broken);
            }
            let descriptor = fetch(memory, table + 16 * u64::from(index))?;
            if descriptor.flags & DESC_INDIRECT != 0 && self.fault != Fault::NoIndirect {
                let whole = descriptor.len > 0 && descriptor.len % 16 == 0;
                let lone = descriptor.flags & DESC_NEXT == 0;
                let fits = descriptor.len <= 16 * 0x1_0000;
                if inside || !whole || !lone || !fits || self.features & F_INDIRECT_DESC == 0 {
                    assert!(self.fault != Fault::PanicsOnTable, "{descriptor:?}");
                    return Err(Broken);
                }
                (table, entries) = (descriptor.addr, descriptor.len / 16);
                (index, inside) = (0, true);
                continue;
            }
            chain.push(descriptor);
            if chain.len() > usize::from(SIZE_LIMIT) {
                return Err(Broken);
            }
            let loops = descriptor.flags & DESC_NEXT != 0 && descriptor.next == index;
            if loops && self.fault == Fault::FollowsLoops {
                loop {
                    std::thread::park();
                }
            }
            if descriptor.flags & DESC_NEXT == 0 {
                return Ok(chain);
            }
            if self.fault == Fault::AtMostTwo && chain.len() == 2 {
                return Ok(chain);
            }
            index = descriptor.next;
        }
    }
}

/// The longest chain followed: a longer one is a loop, or near enough.
pub(super) const SIZE_LIMIT: u16 = 256;

fn fetch(memory: &GuestMemoryMmap, at: u64) -> Result<Descriptor, Broken> {
    Ok(Descriptor {
        addr: load(memory, at)?,
        len: load(memory, at + 8)?,
        flags: load(memory, at + 12)?,
        next: load(memory, at + 14)?,
    })
}

pub(super) fn load<T: vm_memory::ByteValued>(
    memory: &GuestMemoryMmap,
    at: u64,
) -> Result<T, Broken> {
    memory.read_obj(GuestAddress(at)).map_err(|_| Broken)
}

pub(super) fn store<T: vm_memory::ByteValued>(
    memory: &GuestMemoryMmap,
    at: u64,
    value: T,
) -> Result<(), Broken> {
    memory
        .write_obj(value, GuestAddress(at))
        .map_err(|_| Broken)
}
