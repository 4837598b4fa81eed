//! The adapter around backends that are slow, late, wrong or broken, driven without a VM.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use outboard_device::driver::connection::DEFAULT_LIMIT;
use outboard_device::driver::{Driver, Options, QueueOptions, Segment, Used};
use outboard_device::{DeviceError, session};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VringRwLock, VringT};
use virtio_queue::{DescriptorChain, QueueOwnedT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use crate::{Adapted, Listener, RustVmmDevice};

/// `DEVICE_NEEDS_RESET` (virtio 1.2, section 2.1).
const NEEDS_RESET: u8 = 64;
/// The event of the backend's own descriptor.
const BELL: u16 = 7;

type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// What a backend does with a request; all of them answer with what they were sent, in capitals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Answers at once.
    Prompt,
    /// Answers on a thread of its own.
    Late,
    /// Never answers by itself; the test does.
    Never,
    /// Answers twice.
    Twice,
    /// Says it wrote all there is, the readable part too.
    Boasts,
    /// Writes to the end, and says that it wrote a byte.
    Modest,
    /// Panics with its lock held, on the first request.
    Panics,
    /// Returns an error.
    Fails,
    /// Takes a request, and answers it when its bell rings.
    Holds,
    /// Answers a request each second time that its bell rings.
    Rings,
    /// Lets its bell ring, and answers nothing.
    Deaf,
}

struct Backend {
    habit: Habit,
    memory: Option<GuestMemoryAtomic<GuestMemoryMmap>>,
    late: Sender<(Chain, VringRwLock)>,
    bell: Arc<File>,
    rung: u32,
    /// How often its bell was heard in vain.
    told: Arc<AtomicUsize>,
    held: Option<Chain>,
}

/// Answers a chain: what the driver may see of it is written, and how much was.
fn answer(chain: &Chain, vring: &VringRwLock, habit: Habit) -> io::Result<()> {
    let memory = chain.memory();
    let mut reader = chain.clone().reader(memory).map_err(io::Error::other)?;
    let mut text = Vec::new();
    reader.read_to_end(&mut text)?;
    text.make_ascii_uppercase();
    let mut writer = chain.clone().writer(memory).map_err(io::Error::other)?;
    let mut written = writer.write(&text)?;
    match habit {
        Habit::Boasts => written += text.len(),
        Habit::Modest => {
            let rest = writer.available_bytes();
            let mut status = writer.split_at(rest - 1).map_err(io::Error::other)?;
            status.write_all(b"!")?;
            written = 1;
        }
        _ => {}
    }
    let used = vring.add_used(chain.head_index(), written as u32);
    used.map_err(io::Error::other)?;
    vring.signal_used_queue()
}

impl Backend {
    fn next(&self, vring: &VringRwLock) -> Option<Chain> {
        let memory = self.memory.as_ref().unwrap().memory();
        let mut vring = vring.get_mut();
        vring.get_queue_mut().iter(memory).unwrap().next()
    }
}

impl VhostUserBackendMut for Backend {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        1
    }

    fn max_queue_size(&self) -> usize {
        128
    }

    fn features(&self) -> u64 {
        !0
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::empty()
    }

    fn set_event_idx(&mut self, enabled: bool) {
        assert!(!enabled);
    }

    fn update_memory(&mut self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn handle_event(
        &mut self,
        event: u16,
        events: EventSet,
        vrings: &[VringRwLock],
        thread: usize,
    ) -> io::Result<()> {
        assert_eq!((events, thread), (EventSet::IN, 0));
        let vring = &vrings[0];
        if self.habit == Habit::Rings {
            if event == BELL {
                (&*self.bell).read_exact(&mut [0; 8])?;
                self.rung += 1;
                if self.rung.is_multiple_of(2)
                    && let Some(chain) = self.next(vring)
                {
                    answer(&chain, vring, self.habit)?;
                }
            }
            return Ok(());
        }
        if event == BELL && self.habit == Habit::Deaf {
            self.told.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        if event == BELL {
            (&*self.bell).read_exact(&mut [0; 8])?;
            return match self.held.take() {
                Some(chain) => answer(&chain, vring, self.habit),
                None => Ok(()),
            };
        }
        assert_eq!(event, 0);
        while let Some(chain) = self.next(vring) {
            match self.habit {
                Habit::Panics => panic!("not this one"),
                Habit::Fails => return Err(io::Error::other("not this one")),
                Habit::Holds => {
                    // That it has it.
                    self.late.send((chain.clone(), vring.clone())).unwrap();
                    self.held = Some(chain);
                }
                Habit::Late | Habit::Never | Habit::Deaf => {
                    self.late.send((chain, vring.clone())).unwrap();
                }
                habit => answer(&chain, vring, habit)?,
            }
            if self.habit == Habit::Twice {
                vring.add_used(0, 0).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }
}

/// Makes backends; those that panic do so once.
struct Maker {
    habit: Habit,
    made: Arc<AtomicUsize>,
    told: Arc<AtomicUsize>,
    late: Sender<(Chain, VringRwLock)>,
    bell: Arc<File>,
}

impl RustVmmDevice for Maker {
    const DEVICE_ID: u32 = 42;
    type Backend = RwLock<Backend>;

    fn backend(&self) -> Result<Self::Backend, DeviceError> {
        let first = self.made.fetch_add(1, Ordering::Relaxed) == 0;
        let habit = match self.habit {
            Habit::Panics if !first => Habit::Prompt,
            habit => habit,
        };
        Ok(RwLock::new(Backend {
            habit,
            memory: None,
            late: self.late.clone(),
            bell: Arc::clone(&self.bell),
            rung: 0,
            told: Arc::clone(&self.told),
            held: None,
        }))
    }

    fn posts_buffers(&self, queue: u32) -> bool {
        assert_eq!(queue, 0);
        self.habit == Habit::Never
    }

    fn listeners(&self, _: &Self::Backend, thread: usize) -> io::Result<Vec<Listener>> {
        assert_eq!(thread, 0);
        Ok(vec![Listener::new(&*self.bell, EventSet::IN, BELL)?])
    }
}

/// A driver of a device that serves on another thread.
struct Rig {
    driver: Option<Driver>,
    serving: Option<JoinHandle<()>>,
    late: Mutex<Receiver<(Chain, VringRwLock)>>,
    bell: Arc<File>,
    made: Arc<AtomicUsize>,
    told: Arc<AtomicUsize>,
}

impl Rig {
    fn new(habit: Habit) -> Self {
        let (late, taken) = channel();
        let bell = File::from(std::os::fd::OwnedFd::from(
            EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_SEMAPHORE).unwrap(),
        ));
        let bell = Arc::new(bell);
        let (made, told) = (Arc::default(), Arc::default());
        let maker = Maker {
            habit,
            made: Arc::clone(&made),
            told: Arc::clone(&told),
            late,
            bell: Arc::clone(&bell),
        };
        let (front, back) = UnixStream::pair().unwrap();
        let serving = thread::spawn(move || {
            let mut device = Adapted::new(maker).unwrap();
            session::serve(&mut device, &back).unwrap();
        });
        let mut driver = Driver::new(front, &Options::default()).unwrap();
        driver.start_queue(0, &QueueOptions::default()).unwrap();
        Self {
            driver: Some(driver),
            serving: Some(serving),
            late: Mutex::new(taken),
            bell,
            made,
            told,
        }
    }

    fn driver(&mut self) -> &mut Driver {
        self.driver.as_mut().unwrap()
    }

    /// Sends `text` in two buffers, with room for so many bytes in two. Where the answer will be.
    fn send(&mut self, text: &[u8], room: u32) -> u64 {
        let driver = self.driver();
        let window = driver.allocate(8192, 4096).unwrap();
        window.fill(b'.');
        window.write(0, text);
        let (at, half) = (window.addr(), text.len() as u32 / 2);
        let chain = [
            Segment::readable(at, half),
            Segment::readable(at + u64::from(half), text.len() as u32 - half),
            Segment::writable(at + 4096, room / 2),
            Segment::writable(at + 4096 + u64::from(room / 2), room - room / 2),
        ];
        driver.queue(0).unwrap().submit(&chain, at + 4096).unwrap();
        at + 4096
    }

    fn wait(&mut self) -> Used {
        let queue = self.driver().queue(0).unwrap();
        queue.wait(DEFAULT_LIMIT).unwrap()
    }

    fn read(&mut self, at: u64, len: usize) -> Vec<u8> {
        let memory = self.driver().memory();
        memory.window(at, len as u64).unwrap().to_vec(0, len)
    }

    /// Whether the device asks for a reset, which takes it a moment.
    fn breaks(&mut self) -> bool {
        (0..500).any(|_| {
            thread::sleep(Duration::from_millis(10));
            self.driver().connection().status().unwrap() & NEEDS_RESET != 0
        })
    }

    fn taken(&self) -> (Chain, VringRwLock) {
        let late = self.late.lock().unwrap();
        late.recv_timeout(DEFAULT_LIMIT).unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.driver.take());
        let ended = self.serving.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

#[test]
fn an_answer_comes_back() {
    let mut rig = Rig::new(Habit::Prompt);
    for len in [2, 3, 1000, 4096] {
        let text = vec![b'a'; len];
        let at = rig.send(&text, 4096);
        let used = rig.wait();
        assert_eq!((used.token, used.written as usize), (at, len));
        let mut expected = vec![b'.'; 4096];
        expected[..len].fill(b'A');
        assert_eq!(rig.read(at, 4096), expected);
    }
}

#[test]
fn an_answer_may_come_from_any_thread_and_in_any_order() {
    let mut rig = Rig::new(Habit::Late);
    for round in 0..20 {
        let mut sent: Vec<u64> = (0..8).map(|_| rig.send(b"abcd", 10)).collect();
        let mut taken: Vec<_> = (0..8).map(|_| rig.taken()).collect();
        if round % 2 == 0 {
            taken.reverse();
            sent.reverse();
        }
        thread::spawn(move || {
            for (chain, vring) in taken {
                answer(&chain, &vring, Habit::Late).unwrap();
            }
        });
        for at in sent {
            assert_eq!(rig.wait().token, at);
            assert_eq!(rig.read(at, 5), b"ABCD.");
        }
    }
}

#[test]
fn a_request_without_an_answer_goes_back_and_a_late_answer_nowhere() {
    let mut rig = Rig::new(Habit::Never);
    let at = rig.send(b"abcd", 10);
    let (chain, vring) = rig.taken();
    let base = rig.driver().stop_queue(0).unwrap();
    assert_eq!(base, 0, "it is as if it had never been taken");
    assert!(answer(&chain, &vring, Habit::Never).is_err());
    rig.driver().resume_queue(0, base).unwrap();
    let (again, anew) = rig.taken();
    assert!(answer(&chain, &vring, Habit::Never).is_err());
    assert!(rig.driver().queue(0).unwrap().poll().unwrap().is_none());
    answer(&again, &anew, Habit::Never).unwrap();
    assert_eq!(rig.wait().token, at);
    assert_eq!(rig.read(at, 4), b"ABCD");
}

/// Longer than posted buffers are waited for.
const WORK: Duration = Duration::from_millis(500);

#[test]
fn a_request_that_is_worked_on_is_waited_for() {
    let mut rig = Rig::new(Habit::Late);
    let at = rig.send(b"abcd", 10);
    let (chain, vring) = rig.taken();
    let works = thread::spawn(move || {
        thread::sleep(WORK);
        answer(&chain, &vring, Habit::Late).unwrap();
    });
    assert_eq!(rig.driver().stop_queue(0).unwrap(), 1);
    works.join().unwrap();
    assert_eq!(rig.wait().token, at);
    assert_eq!(rig.read(at, 5), b"ABCD.");
}

#[test]
fn what_a_backend_works_with_is_heard_while_it_is_waited_for() {
    let mut rig = Rig::new(Habit::Holds);
    let at = rig.send(b"abcd", 10);
    drop(rig.taken());
    let bell = Arc::clone(&rig.bell);
    let rings = thread::spawn(move || {
        thread::sleep(WORK);
        (&*bell).write_all(&1_u64.to_ne_bytes()).unwrap();
    });
    assert_eq!(rig.driver().stop_queue(0).unwrap(), 1);
    rings.join().unwrap();
    assert_eq!(rig.wait().token, at);
    assert_eq!(rig.read(at, 5), b"ABCD.");
}

/// Its bell rings all the time, and it does not care.
#[test]
fn what_a_backend_does_not_care_for_is_told_in_measure_while_it_is_waited_for() {
    let mut rig = Rig::new(Habit::Deaf);
    rig.send(b"abcd", 10);
    let (chain, vring) = rig.taken();
    let (bell, told) = (Arc::clone(&rig.bell), Arc::clone(&rig.told));
    let works = thread::spawn(move || {
        // Once the queue stops.
        thread::sleep(WORK / 2);
        (&*bell).write_all(&1_u64.to_ne_bytes()).unwrap();
        thread::sleep(WORK);
        let told = told.load(Ordering::Relaxed);
        answer(&chain, &vring, Habit::Late).unwrap();
        told
    });
    assert_eq!(rig.driver().stop_queue(0).unwrap(), 1);
    let told = works.join().unwrap();
    assert!((1..2000).contains(&told), "{told} times");
}

#[test]
fn all_that_was_written_is_seen_however_little_is_said() {
    let mut rig = Rig::new(Habit::Modest);
    let at = rig.send(b"ab", 10);
    assert_eq!(rig.wait().written, 1);
    assert_eq!(rig.read(at, 11), b"AB.......!.");
}

#[test]
fn more_is_not_said_than_there_is_room() {
    let mut rig = Rig::new(Habit::Boasts);
    rig.send(b"abcdef", 8);
    assert_eq!(rig.wait().written, 8);
}

#[test]
fn a_request_answered_twice_breaks_the_device() {
    let mut rig = Rig::new(Habit::Twice);
    rig.send(b"ab", 8);
    assert!(rig.breaks());
}

#[test]
fn an_error_breaks_the_device() {
    let mut rig = Rig::new(Habit::Fails);
    rig.send(b"ab", 8);
    assert!(rig.breaks());
    assert_eq!(rig.made.load(Ordering::Relaxed), 1);
}

#[test]
fn after_a_panic_a_reset_makes_a_new_backend() {
    let mut rig = Rig::new(Habit::Panics);
    rig.send(b"ab", 8);
    assert!(rig.breaks());
    // Its lock is poisoned; nothing may touch it.
    rig.driver().read_config(0, &mut [0; 4]).ok();
    rig.driver().reset().unwrap();
    assert_eq!(rig.made.load(Ordering::Relaxed), 2);
    let options = QueueOptions::default();
    rig.driver().start_queue(0, &options).unwrap();
    let at = rig.send(b"ab", 8);
    rig.wait();
    assert_eq!(rig.read(at, 2), b"AB");
}

#[test]
fn a_listener_is_told_as_long_as_it_is_ready() {
    let mut rig = Rig::new(Habit::Rings);
    let sent: Vec<u64> = (0..3).map(|_| rig.send(b"ab", 8)).collect();
    let quiet = Duration::from_millis(50);
    assert!(rig.driver().queue(0).unwrap().wait(quiet).is_err());
    // One edge, six times ready.
    (&*rig.bell).write_all(&6_u64.to_ne_bytes()).unwrap();
    for at in sent {
        assert_eq!(rig.wait().token, at);
    }
}

/// More than the room of the adapter in one request: pieces of guest memory that lie over each other.
#[test]
fn a_request_that_is_too_long_breaks_the_device() {
    let mut rig = Rig::new(Habit::Prompt);
    let chain = [Segment::writable(4 << 30, 32 << 20); 3];
    rig.driver().queue(0).unwrap().submit(&chain, 0).unwrap();
    assert!(rig.breaks());
}

/// Five requests of a third of the room each are answered, two or three at a time.
#[test]
fn requests_wait_for_room() {
    let mut rig = Rig::new(Habit::Late);
    let chain = [Segment::writable(4 << 30, 21 << 20)];
    let queue = rig.driver().queue(0).unwrap();
    for token in 0..5 {
        queue.add(&chain, token).unwrap();
    }
    queue.flush().unwrap();
    let held = [rig.taken(), rig.taken(), rig.taken()];
    let late = rig.late.lock().unwrap();
    assert!(late.recv_timeout(Duration::from_millis(50)).is_err());
    drop(late);
    for (chain, vring) in held {
        answer(&chain, &vring, Habit::Late).unwrap();
    }
    for _ in 3..5 {
        let (chain, vring) = rig.taken();
        answer(&chain, &vring, Habit::Late).unwrap();
    }
    for token in 0..5 {
        assert_eq!(rig.wait().token, token);
    }
}
