//! Guest memory as the frontend describes it: a table of regions, each a part of a file, mapped
//! into this process.
//!
//! A [`Memory`] never changes. When the frontend changes its table a new one is built (regions
//! that stay are shared), the queues go over to it, and the old one is unmapped when the last
//! request that points into it is done. No reference to guest memory is ever made, only raw
//! pointers: the guest writes to it at any time.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod region;

use std::io;
use std::ptr;
use std::sync::Arc;

pub use region::{Region, RegionLayout};

/// A memory table that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The sizes or addresses make no sense, or lie outside the file.
    #[error("the memory region {region:x?} is not usable: {why}")]
    Layout {
        /// What was asked for.
        region: RegionLayout,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two regions of one table share guest addresses.
    #[error("the memory region at guest address {0:#x} overlaps another")]
    Overlap(u64),
    /// No such region to remove.
    #[error("no memory region like {0:x?} is mapped")]
    Unknown(RegionLayout),
    /// The kernel refused.
    #[error("cannot map the memory region {region:x?}")]
    Map {
        /// What was asked for.
        region: RegionLayout,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A run of addresses (guest's or frontend's) that lies contiguous in this process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    start: u64,
    len: u64,
    host: usize,
}

impl Window {
    /// Host address of `addr` if the `len` bytes there are all in this window.
    #[inline]
    pub(crate) fn translate(&self, addr: u64, len: u64) -> Option<*mut u8> {
        let offset = addr.wrapping_sub(self.start);
        // One comparison for "below" and "behind": below wraps to a huge offset.
        if offset < self.len && len <= self.len.wrapping_sub(offset) {
            Some(ptr::with_exposed_provenance_mut(
                self.host.wrapping_add(offset as usize),
            ))
        } else {
            None
        }
    }

    /// Bytes from `addr` to the window's end; 0 when `addr` is not inside.
    fn room(&self, addr: u64) -> u64 {
        self.len.saturating_sub(addr.wrapping_sub(self.start))
    }
}

/// An immutable table of mapped regions, sorted by guest address.
#[derive(Debug, Default)]
pub struct Memory {
    regions: Vec<Arc<Region>>,
    /// The guest addresses of `regions`, apart, so that a search touches few cache lines.
    windows: Vec<Window>,
}

impl Memory {
    /// A table of these regions. Fails when two of them overlap.
    pub fn new(mut regions: Vec<Arc<Region>>) -> Result<Self, MemoryError> {
        regions.sort_by_key(|region| region.layout().guest_addr);
        let windows: Vec<Window> = regions
            .iter()
            .map(|region| Window {
                start: region.layout().guest_addr,
                len: region.layout().size,
                host: region.host().expose_provenance(),
            })
            .collect();
        for (low, high) in windows.iter().zip(windows.iter().skip(1)) {
            if low.room(high.start) != 0 {
                return Err(MemoryError::Overlap(high.start));
            }
        }
        Ok(Self { regions, windows })
    }

    /// This table with one more region.
    pub fn with(&self, region: Region) -> Result<Self, MemoryError> {
        let mut regions = self.regions.clone();
        regions.push(Arc::new(region));
        Self::new(regions)
    }

    /// This table without the region of the same addresses and size (the file offset is not
    /// compared: the protocol leaves it out of a removal).
    pub fn without(&self, layout: RegionLayout) -> Result<Self, MemoryError> {
        let same = |region: &Arc<Region>| {
            let have = region.layout();
            (have.guest_addr, have.user_addr, have.size)
                == (layout.guest_addr, layout.user_addr, layout.size)
        };
        let mut regions = self.regions.clone();
        regions.retain(|region| !same(region));
        if regions.len() == self.regions.len() {
            return Err(MemoryError::Unknown(layout));
        }
        Self::new(regions)
    }

    /// The regions, by guest address.
    pub fn regions(&self) -> impl ExactSizeIterator<Item = RegionLayout> {
        self.regions.iter().map(|region| region.layout())
    }

    /// The regions themselves, for another table to share.
    #[cfg(test)]
    pub(crate) fn shared_regions(&self) -> Vec<Arc<Region>> {
        self.regions.clone()
    }

    /// Host address of `len` bytes at the guest physical address, if they are contiguous in one
    /// region. Valid while this table lives.
    pub fn guest(&self, addr: u64, len: u64) -> Option<*mut u8> {
        self.window(addr)?.translate(addr, len)
    }

    /// Host address of `len` bytes at the frontend's own address `addr`, as above.
    pub fn user(&self, addr: u64, len: u64) -> Option<*mut u8> {
        self.regions.iter().find_map(|region| {
            Window {
                start: region.layout().user_addr,
                len: region.layout().size,
                host: region.host().expose_provenance(),
            }
            .translate(addr, len)
        })
    }

    /// The window that holds the guest address.
    pub(crate) fn window(&self, addr: u64) -> Option<Window> {
        let after = self.windows.partition_point(|w| w.start <= addr);
        let window = *self.windows.get(after.checked_sub(1)?)?;
        (window.room(addr) != 0).then_some(window)
    }

    /// Calls `each` with the contiguous parts of `len` bytes at the guest address, in order;
    /// false when some of them are in no region. `cache` is the caller's memory of the last
    /// window used: most descriptors hit it.
    #[inline]
    pub(crate) fn parts(
        &self,
        cache: &mut Window,
        addr: u64,
        len: u32,
        mut each: impl FnMut(*mut u8, usize),
    ) -> bool {
        if let Some(host) = cache.translate(addr, u64::from(len)) {
            each(host, len as usize);
            return true;
        }
        self.parts_slow(cache, addr, len, &mut each)
    }

    #[cold]
    fn parts_slow(
        &self,
        cache: &mut Window,
        mut addr: u64,
        len: u32,
        each: &mut dyn FnMut(*mut u8, usize),
    ) -> bool {
        let mut left = u64::from(len);
        while left != 0 {
            let Some(window) = self.window(addr) else {
                return false;
            };
            let part = window.room(addr).min(left);
            let Some(host) = window.translate(addr, part) else {
                return false;
            };
            each(host, part as usize);
            *cache = window;
            left = left.wrapping_sub(part);
            // Regions end at or below 2^64 - 1 (checked when mapped), so this cannot wrap.
            addr = addr.wrapping_add(part);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects)]

    use super::region::tests::{file, layout};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn translation_keeps_inside_the_regions() {
        let file = file(0x4000);
        let map = |guest, user, offset| {
            Arc::new(Region::map(layout(guest, user, 0x2000, offset), &file).unwrap())
        };
        // The first two are adjacent for the guest, not for the frontend.
        let memory = Memory::new(vec![
            map(0x12000, 0xa_0000, 0x2000),
            map(0x10000, 0xb_0000, 0),
            map(0x40000, 0xc_0000, 0),
        ])
        .unwrap();
        assert!(memory.guest(0x10000, 0x2000).is_some());
        assert!(memory.guest(0x11fff, 2).is_none());
        assert!(memory.guest(0xffff, 1).is_none());
        assert!(memory.guest(0x14000, 1).is_none());
        assert!(memory.guest(u64::MAX, 2).is_none());
        assert!(memory.user(0xb_1fff, 1).is_some());
        assert!(memory.user(0xb_1fff, 2).is_none());

        let mut cache = Window::default();
        let mut lens = Vec::new();
        assert!(memory.parts(&mut cache, 0x11000, 0x2000, |_, len| lens.push(len)));
        assert_eq!(lens, [0x1000, 0x1000]);
        assert!(!memory.parts(&mut cache, 0x13000, 0x2000, |_, _| ()));
        assert!(!memory.parts(&mut cache, u64::MAX, 2, |_, _| ()));
    }

    proptest! {
        #[test]
        fn many_regions_are_searched_as_one_by_one(
            pages in prop::collection::btree_set(0..1500u64, 1..509),
            asked in prop::collection::vec((0..0x5e0_000u64, 0..0x3000u64), 40),
        ) {
            let file = file(0x1000);
            let region = |page: &u64| Region::map(layout(page << 12, page << 20, 0x1000, 0), &file);
            let regions: Result<Vec<_>, _> =
                pages.iter().rev().map(|page| region(page).map(Arc::new)).collect();
            let memory = Memory::new(regions?)?;
            let mut cache = Window::default();
            for (addr, len) in asked {
                // Each part where its page is mapped, up to the first that is not.
                let mut expected = Vec::new();
                let (mut at, mut left) = (addr, len);
                while left > 0 && pages.contains(&(at >> 12)) {
                    let part = left.min(0x1000 - (at & 0xfff));
                    expected.push((memory.user((at >> 12 << 20) + (at & 0xfff), part), part as usize));
                    (at, left) = (at + part, left - part);
                }
                let mut parts = Vec::new();
                let whole =
                    memory.parts(&mut cache, addr, len as u32, |host, len| parts.push((Some(host), len)));
                // Nothing to copy is nowhere, and everywhere.
                prop_assert!(len == 0 || whole == (left == 0));
                prop_assert!(len == 0 || parts == expected);
            }
        }
    }

    #[test]
    fn tables_grow_and_shrink_but_never_overlap() {
        let file = file(0x4000);
        let low = layout(0, 0x1000, 0x2000, 0);
        let memory = Memory::default()
            .with(Region::map(low, &file).unwrap())
            .unwrap();
        let clash = Region::map(layout(0x1fff, 0x8000, 0x1000, 0), &file).unwrap();
        assert!(matches!(
            memory.with(clash),
            Err(MemoryError::Overlap(0x1fff))
        ));
        let high = Region::map(layout(0x2000, 0x8000, 0x1000, 0x2000), &file).unwrap();
        let memory = memory.with(high).unwrap();
        assert_eq!(memory.regions().len(), 2);
        assert!(memory.without(layout(0, 0x1001, 0x2000, 0)).is_err());
        assert_eq!(memory.without(low).unwrap().regions().len(), 1);
    }
}
