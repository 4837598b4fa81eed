//! Rings that the VM's owner stops where they are, and lets go on.

use super::*;

fn bases(bench: &Bench) -> Vec<(u32, u32)> {
    let seen = bench.fake.get().seen.clone();
    let bases = seen.iter();
    bases
        .filter(|seen| seen.code == FrontendReq::SET_VRING_BASE)
        .map(|seen| (seen.queue(), crate::frontend::raw::word(&seen.body, 1)))
        .collect()
}

/// What a backend says whose ring 1 stops at 7.
fn at_7() -> Vec<u8> {
    let code = u32::from(FrontendReq::GET_VRING_BASE);
    let body: Vec<u8> = [1u32, 7].into_iter().flat_map(u32::to_ne_bytes).collect();
    message(code, 5, &body)
}

fn stops_at_7(fake: &Fake) {
    fake.on(FrontendReq::GET_VRING_BASE, Answer::Bytes(at_7()));
}

#[test]
fn rings_go_on_where_they_were_stopped() {
    let bench = bench(Fake::new());
    bench.device.start(start(&[1]));
    stops_at_7(&bench.fake);
    bench.device.pause().recv().unwrap();
    assert!(bench.has_seen(FrontendReq::GET_VRING_BASE));
    bench.fake.get().seen.clear();
    bench.device.resume().recv().unwrap();
    assert_eq!(bases(&bench), [(1, 7)]);
    assert!(bench.has_seen(FrontendReq::SET_VRING_ENABLE));
    // What nobody has stopped goes on as it was.
    bench.fake.get().seen.clear();
    bench.device.resume().recv().unwrap();
    assert_eq!(bench.fake.get().seen.len(), 0);
    assert_eq!(bench.ear.count("needs reset"), 0);
}

#[test]
fn a_reset_of_what_is_stopped_begins_anew() {
    let bench = bench(Fake::new());
    bench.device.start(start(&[1]));
    stops_at_7(&bench.fake);
    bench.device.pause().recv().unwrap();
    bench.fake.get().seen.clear();
    bench.reset();
    assert!(
        !bench.has_seen(FrontendReq::GET_VRING_BASE),
        "it has stopped already"
    );
    bench.device.resume().recv().unwrap();
    assert!(bases(&bench).is_empty());
    bench.device.start(start(&[1]));
    until("started", || bases(&bench) == [(1, 0)]);
}

/// A disk may take its time. Whoever waited has gone, and nothing is lost.
#[test]
fn a_backend_that_stops_late_goes_on_from_there() {
    let bench = bench(Fake::new());
    bench.device.start(start(&[1]));
    let silence = Answer::Bytes(Vec::new());
    bench.fake.on(FrontendReq::GET_VRING_BASE, silence);
    let paused = bench.device.pause();
    assert!(paused.recv_timeout(SHORT).is_err());
    let resumed = bench.device.resume();
    assert!(resumed.recv_timeout(SHORT).is_err());
    bench.fake.say(&at_7());
    paused.recv().unwrap();
    resumed.recv().unwrap();
    assert_eq!(bases(&bench), [(1, 0), (1, 7)]);
    assert!(!bench.device.is_lost());
    assert_eq!(bench.ear.count("needs reset"), 0);
}

#[test]
fn a_reset_ends_the_wait_for_a_backend_that_does_not_stop() {
    let bench = bench_with(Fake::new(), |spec| spec.deadlines.reset = SHORT).unwrap();
    bench.device.start(start(&[0]));
    bench.fake.on(FrontendReq::GET_VRING_BASE, Answer::Hang);
    let paused = bench.device.pause();
    until("asked", || bench.has_seen(FrontendReq::GET_VRING_BASE));
    bench.reset();
    paused.recv().unwrap();
    assert!(bench.device.is_lost());
    bench.device.resume().recv().unwrap();
    bench.is_degraded();
}
