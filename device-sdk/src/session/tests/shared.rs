//! Groups of two devices on one thread: what one guest sends the other receives.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{DeviceError, Groups, Place, Progress, Queue, SharedThread, SharedWorker, Worker};

/// What makes the worker panic.
const POISON: &[u8] = b"poison";

/// Copies each chain of the queue at place 0 into a chain of the queue at place 1.
struct Crossing {
    left: Arc<AtomicUsize>,
}

impl Crossing {
    fn cross(groups: &mut Groups<'_>) -> Result<bool, (usize, DeviceError)> {
        let of = |place| move |error| (place, DeviceError::from(error));
        let [from] = groups.queues(0) else {
            return Ok(false);
        };
        let Some(sent) = from.pop().map_err(of(0))? else {
            return Ok(false);
        };
        let mut start = [0; POISON.len()];
        sent.reader().read(&mut start);
        assert_ne!(start, POISON, "it panics as it should");
        let [to] = groups.queues(1) else {
            give_back(groups.queues(0), sent);
            return Ok(false);
        };
        let Some(room) = to.pop().map_err(of(1))? else {
            give_back(groups.queues(0), sent);
            return Ok(false);
        };
        let copied = room.writer().copy_from(&mut sent.reader());
        to.complete([(room, copied as u32)]).map_err(of(1))?;
        if let [from] = groups.queues(0) {
            from.complete([(sent, 0)]).map_err(of(0))?;
        }
        Ok(true)
    }
}

fn give_back(queues: &mut [Queue], request: crate::Request) {
    if let [queue] = queues {
        queue.give_back(request);
    }
}

impl SharedWorker for Crossing {
    fn run(&mut self, groups: &mut Groups<'_>) -> Progress {
        match Self::cross(groups) {
            Ok(true) => return Progress::Worked,
            Ok(false) => {}
            Err((place, error)) => groups.fail(place, &error),
        }
        Progress::Idle
    }

    fn left(&mut self, _: usize) {
        self.left.fetch_add(1, Ordering::SeqCst);
    }
}

struct End(Place);

impl crate::Device for End {
    fn device_id(&self) -> u32 {
        42
    }

    fn queue_groups(&self) -> Vec<u16> {
        vec![1]
    }

    fn start(&mut self, _: usize) -> Result<Worker, DeviceError> {
        Ok(Worker::Shared(self.0.clone()))
    }
}

struct Crossed {
    thread: SharedThread,
    left: Arc<AtomicUsize>,
}

impl Crossed {
    fn new() -> Self {
        let left = Arc::new(AtomicUsize::new(0));
        let worker = Crossing {
            left: Arc::clone(&left),
        };
        let thread = SharedThread::new("crossing", 2, worker).unwrap();
        Self { thread, left }
    }

    /// A driver at this place, whose queue runs.
    fn join(&self, place: usize) -> (JoinHandle<Result<(), SessionError>>, Driver) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut device = End(self.thread.place(place));
        let session = std::thread::spawn(move || serve(&mut device, &theirs));
        let mut driver = Driver::new(ours, &Options::default()).unwrap();
        driver.start_queue(0, &QueueOptions::default()).unwrap();
        (session, driver)
    }
}

fn send(driver: &mut Driver, text: &[u8]) {
    let (_, [text, _]) = chain(driver, text);
    driver.queue(0).unwrap().submit(&[text], 1).unwrap();
}

fn post(driver: &mut Driver, len: u32) -> crate::driver::Window {
    let room = driver.allocate(u64::from(len), 1).unwrap();
    let segment = Segment::writable(room.addr(), len);
    driver.queue(0).unwrap().submit(&[segment], 2).unwrap();
    room
}

fn crosses(from: &mut Driver, to: &mut Driver, text: &[u8]) {
    let room = post(to, 64);
    send(from, text);
    let used = to.queue(0).unwrap().wait(LIMIT).unwrap();
    assert_eq!((used.token, used.written), (2, text.len() as u32));
    assert_eq!(room.to_vec(0, text.len()), text);
    from.queue(0).unwrap().wait(LIMIT).unwrap();
}

fn wait_for_breakage(driver: &mut Driver) {
    while driver.connection().status().unwrap() & STATUS_NEEDS_RESET == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn guests_of_one_thread_come_and_go() {
    let crossed = Crossed::new();
    let (one, mut from) = crossed.join(0);
    let (two, mut to) = crossed.join(1);
    crosses(&mut from, &mut to, b"first");
    drop(to);
    two.join().unwrap().unwrap();
    assert_eq!(crossed.left.load(Ordering::SeqCst), 1);
    // Taken from the ring and given back, as long as nobody is there.
    send(&mut from, b"second");
    let (two, mut to) = crossed.join(1);
    let room = post(&mut to, 6);
    to.queue(0).unwrap().wait(LIMIT).unwrap();
    assert_eq!(room.to_vec(0, 6), b"second");
    drop((from, to, crossed));
    one.join().unwrap().unwrap();
    two.join().unwrap().unwrap();
}

#[test]
fn a_group_that_breaks_its_ring_is_alone_with_it() {
    let crossed = Crossed::new();
    let (_one, mut from) = crossed.join(0);
    let (_two, mut to) = crossed.join(1);
    // A chain that lies nowhere.
    let nowhere = Segment::readable(u64::MAX - 4096, 64);
    from.queue(0).unwrap().submit(&[nowhere], 1).unwrap();
    wait_for_breakage(&mut from);
    assert_eq!(to.connection().status().unwrap() & STATUS_NEEDS_RESET, 0);
    drop(from);
    let (_one, mut from) = crossed.join(0);
    crosses(&mut from, &mut to, b"after");
}

#[test]
fn a_worker_that_panics_breaks_all_and_ends_nothing() {
    let crossed = Crossed::new();
    let (one, mut from) = crossed.join(0);
    let (two, mut to) = crossed.join(1);
    post(&mut to, 64);
    send(&mut from, POISON);
    wait_for_breakage(&mut from);
    wait_for_breakage(&mut to);
    // It stops, and is left, as any other.
    from.stop_queue(0).unwrap();
    let (three, mut late) = {
        drop(from);
        one.join().unwrap().unwrap();
        crossed.join(0)
    };
    wait_for_breakage(&mut late);
    drop((late, to, crossed));
    three.join().unwrap().unwrap();
    two.join().unwrap().unwrap();
}
