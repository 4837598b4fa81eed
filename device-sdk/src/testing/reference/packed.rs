//! The reference device's side of a packed ring (virtio 1.2, section 2.8). It answers one chain after the
//! other, so that one position, with its wrap counter in bit 15, says all.

use std::sync::atomic::{Ordering, fence};

use vm_memory::GuestMemoryMmap;

use super::Fault;
use super::ring::{Broken, Descriptor, Ring, SIZE_LIMIT, load, store};
use crate::driver::connection::F_INDIRECT_DESC;
use crate::driver::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE};

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
const WRAP: u16 = 1 << 15;
/// Event suppression: never, and at a position.
const DISABLE: u16 = 1;
const DESC: u16 = 2;

impl Ring {
    /// Answers the next request, if there is one. `Some(call)` says whether the driver wants a call.
    pub(super) fn serve_packed(
        &mut self,
        memory: &GuestMemoryMmap,
    ) -> Result<Option<bool>, Broken> {
        if !self.is_there(memory)? {
            return Ok(None);
        }
        let first = self.next;
        let flags: u16 = load(memory, self.available + 2)?;
        let event: u16 = load(memory, self.available)?;
        let (mut chain, mut slots, mut passed) = (Vec::new(), 0, false);
        let id = loop {
            if slots == self.size {
                return Err(Broken);
            }
            passed |= event == self.next;
            let descriptor = fetch(memory, self.slot())?;
            slots += 1;
            self.pass();
            if descriptor.flags & DESC_INDIRECT == 0 {
                chain.push(descriptor);
            } else {
                self.table(memory, &descriptor, &mut chain)?;
            }
            if descriptor.flags & DESC_NEXT == 0 {
                break descriptor.next;
            }
        };
        let written = self.carry_out(memory, chain)?;
        self.answered += 1;
        let at = self.descriptors + 16 * u64::from(first & !WRAP);
        store(memory, at + 8, written)?;
        store(memory, at + 12, id)?;
        fence(Ordering::Release);
        let wrap = if first & WRAP == 0 { 0 } else { AVAIL | USED };
        let write = if written == 0 { 0 } else { DESC_WRITE };
        store(memory, at + 14, wrap | write)?;
        fence(Ordering::SeqCst);
        Ok(Some(match flags & 3 {
            DISABLE => false,
            DESC if self.event_idx() => passed,
            _ => true,
        }))
    }

    /// Asks to be kicked for the next chain. True if one is there already.
    pub(super) fn arm_packed(&self, memory: &GuestMemoryMmap) -> Result<bool, Broken> {
        if self.event_idx() {
            store(memory, self.used, self.next)?;
            fence(Ordering::Release);
            store(memory, self.used + 2, DESC)?;
        }
        fence(Ordering::SeqCst);
        self.is_there(memory)
    }

    fn is_there(&self, memory: &GuestMemoryMmap) -> Result<bool, Broken> {
        let flags: u16 = load(memory, self.slot() + 14)?;
        fence(Ordering::Acquire);
        let wrap = self.next & WRAP != 0;
        Ok((flags & AVAIL != 0) == wrap && (flags & USED != 0) != wrap)
    }

    /// Where the next descriptor is.
    fn slot(&self) -> u64 {
        self.descriptors + 16 * u64::from(self.next & !WRAP)
    }

    fn pass(&mut self) {
        self.next += 1;
        if self.next & !WRAP == self.size {
            self.next &= WRAP;
            if self.fault != Fault::KeepsWrap {
                self.next ^= WRAP;
            }
        }
    }

    /// All of an indirect table.
    fn table(
        &self,
        memory: &GuestMemoryMmap,
        of: &Descriptor,
        chain: &mut Vec<Descriptor>,
    ) -> Result<(), Broken> {
        let whole = of.len > 0 && of.len.is_multiple_of(16) && of.len <= 16 * u32::from(SIZE_LIMIT);
        let lone = of.flags & DESC_NEXT == 0;
        if !whole || !lone || self.features & F_INDIRECT_DESC == 0 {
            return Err(Broken);
        }
        for at in (0..u64::from(of.len)).step_by(16) {
            let descriptor = fetch(memory, of.addr.checked_add(at).ok_or(Broken)?)?;
            if descriptor.flags & DESC_INDIRECT != 0 {
                return Err(Broken);
            }
            chain.push(descriptor);
        }
        Ok(())
    }
}

/// A descriptor; its `next` is the buffer's id.
fn fetch(memory: &GuestMemoryMmap, at: u64) -> Result<Descriptor, Broken> {
    Ok(Descriptor {
        addr: load(memory, at)?,
        len: load(memory, at + 8)?,
        next: load(memory, at + 12)?,
        flags: load(memory, at + 14)?,
    })
}
