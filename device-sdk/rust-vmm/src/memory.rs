//! What the backend takes for guest memory: a region for each of its threads whose queues run.
//!
//! A region is made when the queues start and is gone when they have stopped, and no address is given
//! twice. An answer that comes after that finds nothing to be written to; the ring that runs by then is
//! elsewhere.

use std::sync::{Arc, PoisonError};

use outboard_device::DeviceError;
use vm_memory::mmap::NewBitmap;
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};

/// Where the first region begins, and at what distance the next.
const GAP: u64 = 1 << 21;

/// What `vhost-user-backend` asks of a backend's bitmap, so that memory can be made for it. (Nothing is
/// logged there: what a request's own memory is dirtied by, the engine knows.)
pub trait MemoryBitmap: NewBitmap + Clone + Send + Sync + 'static {}

impl<B: NewBitmap + Clone + Send + Sync + 'static> MemoryBitmap for B {}

/// The memory of one backend.
pub(crate) struct Memory<B: MemoryBitmap> {
    regions: GuestMemoryAtomic<GuestMemoryMmap<B>>,
    next: u64,
}

impl<B: MemoryBitmap> Memory<B> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            regions: GuestMemoryAtomic::new(GuestMemoryMmap::new()),
            next: GAP,
        }
    }

    /// What the backend is to be given.
    pub(crate) fn shared(&self) -> GuestMemoryAtomic<GuestMemoryMmap<B>> {
        self.regions.clone()
    }

    /// Maps so many bytes more. They cost nothing until they are touched.
    pub(crate) fn map(&mut self, len: u64) -> Result<Arc<GuestRegionMmap<B>>, DeviceError> {
        let at = self.next;
        let next = at
            .checked_add(len)
            .and_then(|end| end.checked_add(GAP))
            .and_then(|end| end.checked_next_multiple_of(GAP));
        let len = usize::try_from(len).map_err(DeviceError::other)?;
        let region = GuestRegionMmap::from_range(GuestAddress(at), len, None);
        let region = Arc::new(region.map_err(DeviceError::other)?);
        let regions = self.regions.memory().insert_region(Arc::clone(&region));
        self.replace(regions.map_err(DeviceError::other)?);
        self.next = next.ok_or_else(|| DeviceError::other("no addresses are left"))?;
        Ok(region)
    }

    /// Takes a region away. Whoever still works with the memory as it was keeps it mapped.
    pub(crate) fn unmap(&mut self, region: &GuestRegionMmap<B>) {
        let regions = self.regions.memory();
        if let Ok((regions, _)) = regions.remove_region(region.start_addr(), region.len()) {
            self.replace(regions);
        }
    }

    fn replace(&self, regions: GuestMemoryMmap<B>) {
        // Nobody else changes it, and a panic cannot leave it half changed.
        let guard = self.regions.lock();
        guard
            .unwrap_or_else(PoisonError::into_inner)
            .replace(regions);
    }
}
