//! The device, by `vhost-user-backend` alone.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VringRwLock, VringT};
use virtio_queue::{DescriptorChain, QueueOwnedT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

/// The console's queues (virtio 1.2, section 5.3.2): what it says, and what it is told.
pub(crate) const RX: u16 = 0;
const TX: u16 = 1;

/// Bytes kept of what could not be said yet.
const KEPT: usize = 1 << 16;

/// `VIRTIO_F_VERSION_1` and vhost-user's `PROTOCOL_FEATURES`.
const FEATURES: u64 = 1 << 32 | 1 << 30;

/// A console that says what it is told.
#[derive(Default)]
pub struct EchoBackend {
    memory: Option<GuestMemoryAtomic<GuestMemoryMmap>>,
    kept: VecDeque<u8>,
}

type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

impl EchoBackend {
    fn next(&self, vring: &VringRwLock) -> io::Result<Option<Chain>> {
        let memory = self.memory.as_ref();
        let memory = memory.ok_or_else(|| io::Error::other("no guest memory is known"))?;
        let mut vring = vring.get_mut();
        let mut chains = (vring.get_queue_mut().iter(memory.memory())).map_err(io::Error::other)?;
        Ok(chains.next())
    }

    /// Takes what is told, as long as there is room for it.
    fn hear(&mut self, vring: &VringRwLock) -> io::Result<bool> {
        let mut took = false;
        while self.kept.len() < KEPT {
            let Some(chain) = self.next(vring)? else {
                break;
            };
            let head = chain.head_index();
            let memory = chain.memory().clone();
            let mut reader = chain.reader(&memory).map_err(io::Error::other)?;
            let mut told = Vec::new();
            reader.read_to_end(&mut told)?;
            self.kept.extend(told);
            vring.add_used(head, 0).map_err(io::Error::other)?;
            took = true;
        }
        if took {
            vring.signal_used_queue()?;
        }
        Ok(took)
    }

    /// Says what is kept, as long as there are buffers for it.
    fn say(&mut self, vring: &VringRwLock) -> io::Result<bool> {
        let mut said = false;
        while !self.kept.is_empty() {
            let Some(chain) = self.next(vring)? else {
                break;
            };
            let head = chain.head_index();
            let memory = chain.memory().clone();
            let mut writer = chain.writer(&memory).map_err(io::Error::other)?;
            let (bytes, _) = self.kept.as_slices();
            let count = writer.write(bytes)?;
            self.kept.drain(..count);
            (vring.add_used(head, count as u32)).map_err(io::Error::other)?;
            said = true;
        }
        if said {
            vring.signal_used_queue()?;
        }
        Ok(said)
    }
}

impl VhostUserBackendMut for EchoBackend {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        256
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn reset_device(&mut self) {
        self.kept.clear();
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // struct virtio_console_config: no size is told, and there is one port.
        let config = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        let bytes = config.iter().copied().skip(offset as usize);
        bytes.take(size as usize).collect()
    }

    fn update_memory(&mut self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn handle_event(
        &mut self,
        event: u16,
        _events: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        let [rx, tx] = vrings else {
            return Err(io::Error::other("a console has two queues"));
        };
        if event != RX && event != TX {
            return Err(io::Error::other(format!("event {event} is none of ours")));
        }
        // What is said makes room for what is told, and the reverse.
        while self.hear(tx)? | self.say(rx)? {}
        Ok(())
    }
}
