//! Devices at both levels, served over a socketpair and driven by the SDK's own driver, whose
//! session side is the `vhost` crate's frontend.
#![allow(clippy::arithmetic_side_effects)]

mod device;
mod fuzz;
mod shared;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use proptest::collection::vec;
use proptest::prelude::*;

use device::{CONFIG, Inverter, Told, Way};

use super::*;
use crate::device::DeviceEvents;
use crate::driver::connection::F_VERSION_1;
use crate::driver::{Driver, Options, QueueOptions, Segment, raw as wire};
use crate::testing::{Endpoint, Expected, Failure, Outcome, Probe};

const LIMIT: Duration = Duration::from_secs(20);

/// A served device and the driver's end of its stream.
struct Served {
    thread: JoinHandle<Result<(), SessionError>>,
    log: Receiver<Told>,
    events: Receiver<DeviceEvents>,
    tick: Arc<EventFd>,
}

impl Served {
    fn start(way: Way) -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (log, told) = channel();
        let (events, handle) = channel();
        let tick = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
        let mut device = Inverter {
            way,
            log,
            events,
            tick: Arc::clone(&tick),
        };
        let thread = std::thread::spawn(move || serve(&mut device, &theirs));
        let served = Self {
            thread,
            log: told,
            events: handle,
            tick,
        };
        (served, ours)
    }

    /// With a driver that has negotiated.
    fn driven(way: Way) -> (Self, Driver) {
        let (served, stream) = Self::start(way);
        let driver = Driver::new(stream, &Options::default()).unwrap();
        (served, driver)
    }

    /// The session after its stream has ended, and all that the device was told.
    fn end(self) -> Vec<Told> {
        self.thread.join().unwrap().unwrap();
        self.log.try_iter().collect()
    }
}

/// A readable and a writable buffer with a known content, and their chain.
fn chain(driver: &mut Driver, text: &[u8]) -> (crate::driver::Window, [Segment; 2]) {
    let len = text.len() as u32;
    let question = driver.allocate(u64::from(len), 1).unwrap();
    let answer = driver.allocate(u64::from(len), 1).unwrap();
    question.write(0, text);
    let segments = [
        Segment::readable(question.addr(), len),
        Segment::writable(answer.addr(), len),
    ];
    (answer, segments)
}

fn round_trip(driver: &mut Driver, queue: u16, text: &[u8]) {
    let (answer, segments) = chain(driver, text);
    driver.queue(queue).unwrap().submit(&segments, 7).unwrap();
    let used = driver.queue(queue).unwrap().wait(LIMIT).unwrap();
    assert_eq!((used.token, used.written), (7, text.len() as u32));
    let inverted: Vec<u8> = text.iter().map(|byte| !byte).collect();
    assert_eq!(answer.to_vec(0, text.len()), inverted);
}

#[test]
fn each_level_answers_on_each_queue() {
    for way in [Way::Fast, Way::Simple, Way::Spawned] {
        let (served, mut driver) = Served::driven(way);
        for queue in 0..3 {
            let options = QueueOptions::default();
            driver.start_queue(queue, &options).unwrap();
        }
        for round in 0..200u16 {
            round_trip(
                &mut driver,
                round % 3,
                format!("request {round}").as_bytes(),
            );
        }
        assert_eq!(driver.stop_queue(2).unwrap(), 66, "{way:?}");
        // The other queue of the group goes on.
        round_trip(&mut driver, 1, b"still here");
        drop(driver);
        let told = served.end();
        assert!(matches!(told.first(), Some(Told::Features(_))), "{told:?}");
        let count = |what: &Told| told.iter().filter(|t| *t == what).count();
        for group in 0..2 {
            let starts = count(&Told::Started(group));
            assert_eq!(starts, 1 + group, "{told:?}");
            assert_eq!(count(&Told::Stopped(group)), starts, "{told:?}");
        }
        assert_eq!(told.last(), Some(&Told::Reset));
    }
}

#[test]
fn requests_given_back_are_left_to_the_next() {
    let (served, mut driver) = Served::driven(Way::Hoarding);
    driver.start_queue(0, &QueueOptions::default()).unwrap();
    let (_, segments) = chain(&mut driver, b"abc");
    for token in 0..5 {
        driver.queue(0).unwrap().submit(&segments, token).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(driver.stop_queue(0).unwrap(), 0);
        driver.resume_queue(0, 0).unwrap();
    }
    assert!(driver.queue(0).unwrap().poll().unwrap().is_none());
    drop(driver);
    served.end();
}

#[test]
fn a_worker_is_woken_by_its_own_descriptors() {
    let (served, mut driver) = Served::driven(Way::Ticking);
    driver.start_queue(0, &QueueOptions::default()).unwrap();
    let (_, segments) = chain(&mut driver, b"abc");
    for token in 0..4 {
        driver.queue(0).unwrap().submit(&segments, token).unwrap();
    }
    // A tick that comes before the requests are taken is lost, so there may be several.
    while driver.queue(0).unwrap().poll().unwrap().is_none() {
        served.tick.write(1).unwrap();
        std::thread::yield_now();
    }
    // Stopping waits for what only the descriptor will end.
    let tick = Arc::clone(&served.tick);
    let ticking = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        tick.write(4).unwrap();
    });
    assert_eq!(driver.stop_queue(0).unwrap(), 4);
    ticking.join().unwrap();
    drop(driver);
    served.end();
}

#[test]
fn a_failed_worker_gives_back_what_it_held() {
    let (served, mut driver) = Served::driven(Way::Failing);
    driver.start_queue(0, &QueueOptions::default()).unwrap();
    let (_, segments) = chain(&mut driver, b"abc");
    driver.queue(0).unwrap().submit(&segments, 1).unwrap();
    while driver.connection().status().unwrap() & STATUS_NEEDS_RESET == 0 {
        std::thread::yield_now();
    }
    assert_eq!(driver.stop_queue(0).unwrap(), 0);
    drop(driver);
    let told = served.end();
    assert!(told.contains(&Told::Stopped(0)), "{told:?}");
}

#[test]
fn a_worker_that_watches_too_much_breaks_the_device() {
    let (served, mut driver) = Served::driven(Way::Crowding);
    driver.start_queue(0, &QueueOptions::default()).unwrap();
    let end = std::time::Instant::now() + LIMIT;
    while driver.connection().status().unwrap() & STATUS_NEEDS_RESET == 0 {
        assert!(std::time::Instant::now() < end, "it serves");
        std::thread::yield_now();
    }
    drop(driver);
    served.end();
}

#[test]
fn a_panic_breaks_the_device_until_it_is_reset() {
    for way in [Way::Panicking, Way::SimplyPanicking] {
        let (served, mut driver) = Served::driven(way);
        let (_, segments) = chain(&mut driver, b"abc");
        for _ in 0..2 {
            driver.start_queue(0, &QueueOptions::default()).unwrap();
            assert_eq!(
                driver.connection().status().unwrap() & STATUS_NEEDS_RESET,
                0
            );
            driver.queue(0).unwrap().submit(&segments, 1).unwrap();
            while driver.connection().status().unwrap() & STATUS_NEEDS_RESET == 0 {
                std::thread::yield_now();
            }
            // The status tells a moment before the eventfd.
            let end = std::time::Instant::now() + LIMIT;
            let mut errors = 0;
            while errors == 0 && std::time::Instant::now() < end {
                errors = driver.queue(0).unwrap().take_errors().unwrap();
            }
            assert_eq!(errors, 1);
            let mut config = [0; 8];
            driver.read_config(0, &mut config).unwrap();
            assert_eq!(config, CONFIG);
            driver.reset().unwrap();
        }
        drop(driver);
        let told = served.end();
        assert!(
            !told.contains(&Told::Stopped(0)),
            "a panicked worker came back"
        );
    }
}

#[test]
fn a_dropped_request_is_answered_with_nothing() {
    let (served, mut driver) = Served::driven(Way::Dropping);
    driver.start_queue(0, &QueueOptions::default()).unwrap();
    let (_, segments) = chain(&mut driver, b"abc");
    driver.queue(0).unwrap().submit(&segments, 9).unwrap();
    let used = driver.queue(0).unwrap().wait(LIMIT).unwrap();
    assert_eq!((used.token, used.written), (9, 0));
    drop(driver);
    served.end();
}

#[test]
fn config_changes_reach_the_frontend() {
    let (served, mut driver) = Served::driven(Way::Fast);
    let events = served.events.recv().unwrap();
    assert_eq!(driver.connection().config_changes(), 0);
    for _ in 0..3 {
        events.config_changed();
    }
    while driver.connection().config_changes() < 3 {
        std::thread::yield_now();
    }
    driver.write_config(6, b"er").unwrap();
    drop(driver);
    let told = served.end();
    assert!(told.contains(&Told::Wrote(6, b"er".to_vec())), "{told:?}");
    // Nobody listens any more.
    events.config_changed();
}

#[test]
fn the_device_hears_only_of_its_own_features() {
    let (served, driver) = Served::driven(Way::Fast);
    drop(driver);
    assert_eq!(served.end().first(), Some(&Told::Features(0b101)));
}

#[test]
fn features_ok_does_not_stand_after_a_refusal() {
    let (served, mut driver) = Served::driven(Way::Fast);
    let offered = driver.negotiated().features;
    let frontend = driver.connection();
    assert!(frontend.set_features(offered | 1 << 49).is_err());
    frontend.set_status(11).unwrap();
    assert_eq!(frontend.status().unwrap(), 3);
    frontend.set_features(offered).unwrap();
    assert_eq!(frontend.status().unwrap(), 11);
    drop(driver);
    served.end();
}

#[test]
fn a_driver_of_before_virtio_1_is_refused_and_its_rings_do_not_start() {
    let (served, mut driver) = Served::driven(Way::Fast);
    let offered = driver.negotiated().features;
    let frontend = driver.connection();
    assert!(frontend.set_features(offered & !F_VERSION_1).is_err());
    frontend.set_status(11).unwrap();
    assert_eq!(frontend.status().unwrap(), 3);
    assert!(driver.start_queue(0, &QueueOptions::default()).is_err());
    driver.connection().set_features(offered).unwrap();
    driver.connection().set_status(0).unwrap();
    driver.connection().set_features(offered).unwrap();
    driver.start_queue(0, &QueueOptions::default()).unwrap();
    drop(driver);
    let told = served.end();
    let started = told.iter().filter(|told| matches!(told, Told::Started(_)));
    assert_eq!(started.count(), 1, "{told:?}");
}

#[test]
fn a_status_of_zero_resets() {
    let (served, mut driver) = Served::driven(Way::Fast);
    driver.start_queue(0, &QueueOptions::default()).unwrap();
    driver.driver_ok().unwrap();
    assert_eq!(driver.connection().status().unwrap(), 15);
    driver.connection().set_status(0).unwrap();
    assert_eq!(driver.connection().status().unwrap(), 0);
    let told: Vec<_> = served.log.try_iter().collect();
    assert_eq!(told[told.len() - 2..], [Told::Stopped(0), Told::Reset]);
    drop(driver);
    served.end();
}

/// The kit's view of a device.
struct UnderTest(Way, Option<Served>);

impl Endpoint for UnderTest {
    fn connect(&mut self) -> Outcome<UnixStream> {
        if let Some(before) = self.1.take()
            && before.thread.join().is_err()
        {
            return Err(Failure::new("the session panicked"));
        }
        let (served, stream) = Served::start(self.0);
        self.1 = Some(served);
        Ok(stream)
    }

    fn expected(&self) -> Expected {
        Expected {
            features: 0b101,
            config_len: CONFIG.len() as u32,
            queues: 3,
            max_queue_size: 256,
            running: vec![1, 2],
            probe: Probe {
                queue: 2,
                readable: (0..40).collect(),
                writable: 40,
                check: |written, data| {
                    let expected: Vec<u8> = (0..40u8).map(|byte| !byte).collect();
                    if written == 40 && data == expected {
                        Ok(())
                    } else {
                        Err(format!("{written} bytes written: {data:x?}"))
                    }
                },
            },
        }
    }
}

mod fast {
    crate::conformance!(super::UnderTest(super::Way::Fast, None));
}

mod simple {
    crate::conformance!(super::UnderTest(super::Way::Simple, None));
}

mod spawned {
    crate::conformance!(super::UnderTest(super::Way::Spawned, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any messages, well-formed in header or not: the session answers or ends, and never panics.
    #[test]
    fn any_messages_are_survived(
        messages in vec(
            (0u32..48, prop_oneof![Just(1u32), Just(9), any::<u32>()], vec(any::<u8>(), 0..64)),
            0..40,
        ),
        lie in proptest::option::of(any::<u32>()),
    ) {
        let (served, mut stream) = Served::start(Way::Fast);
        // All features, so that more than refusals is reached.
        let set = |request: u32, value: u64| {
            let header = wire::Header { request, flags: 1, size: 8 };
            wire::send(&stream, header, &value.to_ne_bytes())
        };
        let _ = set(2, 1 << 30).and_then(|()| set(16, 0x1a229));
        for (request, flags, payload) in messages {
            let size = payload.len() as u32;
            let header = wire::Header { request, flags, size };
            if wire::send(&stream, header, &payload).is_err() {
                break;
            }
        }
        if let Some(size) = lie {
            let header = wire::Header { request: 5, flags: 1, size };
            let _ = wire::send(&stream, header, b"short");
        }
        let _ = stream.flush();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
        drop(stream);
        prop_assert!(served.thread.join().is_ok(), "the session panicked");
    }
}
