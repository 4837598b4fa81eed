//! A virtio driver in user space: the guest's side of a device, with no guest and no VM.
//!
//! A [`Driver`] takes one connected vhost-user stream, negotiates, makes guest memory of memfds,
//! and runs its rings in it, split ones or, where asked to, packed ones. On top of its [`Queue`]s, [`block`], [`net`] and [`console`] speak the
//! requests of their device class. Tests use it to drive a device, and to break every rule; since
//! submitting and polling neither allocate nor enter the kernel unless the device asked for a
//! kick, it measures a device just as well.
//!
//! A driver belongs to one thread. Queues can be taken out of it ([`Driver::take_queue`]) to be driven
//! by a thread each.

pub mod block;
pub mod connection;
pub mod console;
mod daemon;
mod deadline;
mod descriptor;
mod error;
pub mod layout;
pub mod memory;
mod negotiate;
pub mod net;
mod notices;
mod packed;
mod queue;
pub mod raw;
pub mod ring;
#[cfg(test)]
mod ring_tests;
mod split;
mod window;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost::vhost_user::VhostUserProtocolFeatures;

pub use connection::{Connection, Negotiated};
pub use daemon::Daemon;
pub use error::{DriverError, Result};
pub use memory::{GuestMemory, Window};
pub use queue::Queue;
pub use ring::{Segment, Used};

use connection::{F_EVENT_IDX, F_INDIRECT_DESC, F_PROTOCOL_FEATURES, F_RING_PACKED};
use layout::{Arena, DESCRIPTOR_SIZE, RING_ALIGN, RingLayout};
use ring::{IndirectTables, PackedRing, Ring, SplitRing};

/// `ACKNOWLEDGE`, `DRIVER`, `FEATURES_OK` and `DRIVER_OK` (virtio 1.2, section 2.1).
const STATUS_DRIVER_OK: u8 = 1 | 2 | 8 | 4;

/// How to set a device up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The guest's memory: `(guest physical address, size in bytes)` of each region.
    pub memory: Vec<(u64, u64)>,
    /// The virtio features wanted, of those offered.
    pub features: u64,
    /// Packed rings are wanted, if they are offered; split ones otherwise.
    pub packed: bool,
    /// The protocol features wanted, of those offered and known to the driver. With none wanted,
    /// this is a frontend that knows no protocol features.
    pub protocol: VhostUserProtocolFeatures,
    /// The device is told of each region by itself (`ADD_MEM_REG`) where `CONFIGURE_MEM_SLOTS` is agreed, as
    /// QEMU does; otherwise of all in a table.
    pub by_region: bool,
    /// How long the device may take to answer a vhost-user request.
    pub limit: Duration,
}

impl Default for Options {
    /// Everything the device and this driver can do on split rings, and 64 MiB in two regions with a hole between.
    fn default() -> Self {
        Self {
            memory: vec![(0, 32 << 20), (4 << 30, 32 << 20)],
            features: u64::MAX,
            packed: false,
            protocol: VhostUserProtocolFeatures::all(),
            by_region: false,
            limit: connection::DEFAULT_LIMIT,
        }
    }
}

/// How to set one queue up.
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions {
    /// Entries, a power of two.
    pub size: u16,
    /// The index the rings begin at; how many slots of a packed one have been passed.
    pub base: u16,
    /// Entries in the indirect table of each chain; below 2, none is used. Without effect unless
    /// indirect descriptors were negotiated.
    pub indirect: u16,
}

impl Default for QueueOptions {
    /// 128 entries from index 0, with no indirect tables.
    fn default() -> Self {
        Self {
            size: 128,
            base: 0,
            indirect: 0,
        }
    }
}

/// A device set up and driven.
pub struct Driver {
    connection: Connection,
    negotiated: Negotiated,
    memory: GuestMemory,
    arena: Arena,
    queues: Vec<Option<Queue>>,
}

impl Driver {
    /// Negotiates on a connected stream and hands the device its memory table.
    pub fn new(stream: UnixStream, options: &Options) -> Result<Self> {
        Self::over(Connection::new(stream, options.limit)?, options)
    }

    /// Negotiates on a connection on which nothing was negotiated yet.
    pub fn over(mut connection: Connection, options: &Options) -> Result<Self> {
        let packed = if options.packed { F_RING_PACKED } else { 0 };
        let features = options.features & !F_RING_PACKED | packed;
        let negotiated = connection.negotiate(features, options.protocol)?;
        let memory = GuestMemory::new(&options.memory)?;
        let slots = VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
        if options.by_region && negotiated.protocol.contains(slots) {
            for region in memory.table() {
                connection.add_region(&region)?;
            }
        } else {
            connection.set_memory(&memory)?;
        }
        let arena = Arena::new(&memory);
        Ok(Self {
            connection,
            negotiated,
            memory,
            arena,
            queues: Vec::new(),
        })
    }

    /// What was agreed.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Whether every bit of `feature` was agreed.
    pub fn has(&self, feature: u64) -> bool {
        self.negotiated.features & feature == feature
    }

    /// The connection, for requests beyond the usual.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// The guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Takes `len` bytes of guest memory, at a boundary of `align` (a power of two) bytes, for good.
    pub fn allocate(&mut self, len: u64, align: u64) -> Result<Window> {
        Ok(self.arena.take(&self.memory, len, align)?)
    }

    /// Adds a region of memory and hands the device the new table, while it runs.
    pub fn add_memory(&mut self, addr: u64, size: u64) -> Result<()> {
        self.memory.add(addr, size)?;
        self.connection.set_memory(&self.memory)?;
        self.arena.add(addr, size);
        Ok(())
    }

    /// Takes a region away and hands the device the new table, while it runs. Nothing the driver
    /// still uses may lie in it.
    pub fn remove_memory(&mut self, addr: u64) -> Result<()> {
        self.memory.remove(addr);
        self.arena.remove(&self.memory);
        self.connection.set_memory(&self.memory)
    }

    /// Adds a region of memory and tells the device of it alone, while it runs: needs
    /// `CONFIGURE_MEM_SLOTS`. A device that refuses it knows the regions it knew before.
    pub fn plug_memory(&mut self, addr: u64, size: u64) -> Result<()> {
        self.memory.add(addr, size)?;
        let region = self.memory.region(addr);
        let told = region.map_or(Ok(()), |region| self.connection.add_region(&region));
        match told {
            Ok(()) => self.arena.add(addr, size),
            Err(_) => self.memory.remove(addr),
        }
        told
    }

    /// Takes a region away and tells the device of it alone, while it runs. Nothing the driver
    /// still uses may lie in it.
    pub fn unplug_memory(&mut self, addr: u64) -> Result<()> {
        if let Some(region) = self.memory.region(addr) {
            self.connection.remove_region(&region)?;
        }
        self.memory.remove(addr);
        self.arena.remove(&self.memory);
        Ok(())
    }

    /// Makes the rings of a queue and tells the device all but the kick eventfd: not started.
    pub fn describe_queue(&mut self, index: u16, options: &QueueOptions) -> Result<&mut Queue> {
        let packed = self.has(F_RING_PACKED);
        let layout = if packed {
            RingLayout::packed(options.size)
        } else {
            RingLayout::new(options.size)
        };
        let memory = self.allocate(layout.len as u64, RING_ALIGN as u64)?;
        let indirect = if self.has(F_INDIRECT_DESC) && options.indirect > 1 {
            let entries = u64::from(options.size) * u64::from(options.indirect);
            let window = self.allocate(entries * DESCRIPTOR_SIZE as u64, RING_ALIGN as u64)?;
            Some(IndirectTables {
                window,
                entries: options.indirect,
            })
        } else {
            None
        };
        let event_idx = self.has(F_EVENT_IDX);
        let base = options.base;
        let ring = if packed {
            Ring::Packed(PackedRing::new(memory, layout, event_idx, indirect, base))
        } else {
            Ring::Split(SplitRing::new(memory, layout, event_idx, indirect, base))
        };
        let queue = Queue::new(index, ring)?;
        let base = queue.ring().wire_base(base);
        self.connection.describe_queue(&queue, base)?;
        let slot = usize::from(index);
        if self.queues.len() <= slot {
            self.queues.resize_with(slot + 1, || None);
        }
        Ok(self.queues[slot].insert(queue))
    }

    /// Makes a queue and starts and enables it.
    pub fn start_queue(&mut self, index: u16, options: &QueueOptions) -> Result<&mut Queue> {
        self.describe_queue(index, options)?;
        self.ready_queue(index)?;
        self.queue(index)
    }

    /// Starts and enables a queue that was described.
    pub fn ready_queue(&mut self, index: u16) -> Result<()> {
        let queue = slot(&mut self.queues, index)?;
        self.connection.start_queue(queue)?;
        if self.negotiated.features & F_PROTOCOL_FEATURES == 0 {
            return Ok(());
        }
        self.connection.enable_queue(index, true)
    }

    /// Tells the device that all is set up (`DRIVER_OK`), where `STATUS` was agreed. Some devices wait for
    /// that before they look at any queue, and take no queue that is started later.
    pub fn driver_ok(&mut self) -> Result<()> {
        self.set_status_where_agreed(STATUS_DRIVER_OK)
    }

    /// `SET_STATUS`, to devices that are to be told.
    fn set_status_where_agreed(&mut self, status: u8) -> Result<()> {
        let needed = VhostUserProtocolFeatures::STATUS | VhostUserProtocolFeatures::REPLY_ACK;
        if self.negotiated.protocol.contains(needed) {
            self.connection.set_status(status)?;
        }
        Ok(())
    }

    /// A queue that was described or started.
    pub fn queue(&mut self, index: u16) -> Result<&mut Queue> {
        slot(&mut self.queues, index)
    }

    /// Takes a queue out, to be driven elsewhere; put it back before it is stopped or resumed.
    pub fn take_queue(&mut self, index: u16) -> Result<Queue> {
        let queue = self
            .queues
            .get_mut(usize::from(index))
            .and_then(Option::take);
        queue.ok_or(DriverError::NoQueue(index))
    }

    /// Puts a queue back.
    pub fn put_queue(&mut self, queue: Queue) {
        let slot = usize::from(queue.index());
        if self.queues.len() <= slot {
            self.queues.resize_with(slot + 1, || None);
        }
        self.queues[slot] = Some(queue);
    }

    /// Gives a queue a new call eventfd, while it runs.
    pub fn replace_call(&mut self, index: u16) -> Result<()> {
        let queue = slot(&mut self.queues, index)?;
        // The old one is closed only after the device has heard of the new one.
        let old = queue.replace_call()?;
        self.connection.set_call(queue)?;
        drop(old);
        Ok(())
    }

    /// Stops a queue; where the device would have gone on, as `GET_VRING_BASE` has it: of a split ring the
    /// available index. Its rings are left as they are.
    pub fn stop_queue(&mut self, index: u16) -> Result<u32> {
        self.connection.stop_queue(index)
    }

    /// Starts a stopped queue again on the same rings, at `base`.
    pub fn resume_queue(&mut self, index: u16, base: u32) -> Result<()> {
        let queue = slot(&mut self.queues, index)?;
        self.connection.describe_queue(queue, base)?;
        self.ready_queue(index)?;
        // What was added while it was stopped had no one to see its kick.
        self.queue(index)?.kick()
    }

    /// Resets the device as a guest's driver does, and readies it to be set up again: features are
    /// agreed, the memory table is known, no queue runs. Queues made before are gone.
    ///
    /// By `RESET_DEVICE` where that is offered, else by stopping every queue, and by a status
    /// of 0 where that is offered too.
    pub fn reset(&mut self) -> Result<()> {
        let protocol = self.negotiated.protocol;
        if protocol.contains(VhostUserProtocolFeatures::RESET_DEVICE) {
            self.connection.reset()?;
        } else {
            for queue in self.queues.iter().flatten() {
                self.connection.stop_queue(queue.index())?;
            }
        }
        self.set_status_where_agreed(0)?;
        self.queues.clear();
        self.connection.set_features(self.negotiated.features)?;
        self.connection.set_memory(&self.memory)?;
        self.arena = Arena::new(&self.memory);
        Ok(())
    }

    /// Reads config space.
    pub fn read_config(&mut self, offset: u32, data: &mut [u8]) -> Result<()> {
        self.connection.read_config(offset, data)
    }

    /// Writes config space.
    pub fn write_config(&mut self, offset: u32, data: &[u8]) -> Result<()> {
        self.connection.write_config(offset, data)
    }
}

fn slot(queues: &mut [Option<Queue>], index: u16) -> Result<&mut Queue> {
    let queue = queues.get_mut(usize::from(index)).and_then(Option::as_mut);
    queue.ok_or(DriverError::NoQueue(index))
}
