//! Backends that die, hang or refuse.

use super::*;

#[test]
fn a_backend_that_dies_degrades_its_device() {
    let bench = bench(Fake::new());
    bench.device.start(start(&[0]));
    until("running", || bench.fake.get().status == 0xf);
    bench.fake.die();
    bench.is_degraded();
}

#[test]
fn a_backend_that_dies_may_stop_the_vm() {
    let bench = bench_with(Fake::new(), |spec| spec.config.on_exit = OnExit::Stop).unwrap();
    bench.fake.die();
    until("stop", || bench.ear.count("stop") == 1);
}

#[test]
fn a_backend_that_fails_in_any_request_degrades_its_device() {
    use FrontendReq as R;
    let codes = [
        R::SET_FEATURES,
        R::GET_STATUS,
        R::SET_STATUS,
        R::SET_MEM_TABLE,
        R::SET_VRING_ADDR,
        R::SET_VRING_ENABLE,
    ];
    std::thread::scope(|scope| {
        for code in codes {
            let nonsense = Answer::Bytes(vec![0xff; 32]);
            let short = Answer::Bytes(message(code.into(), 5, &[0]));
            for answer in [Answer::Hang, Answer::Die, nonsense, short] {
                scope.spawn(move || {
                    let bench =
                        bench_with(Fake::new(), |spec| spec.deadlines.call = SHORT).unwrap();
                    bench.fake.on(code, answer);
                    bench.device.start(start(&[0]));
                    bench.is_degraded();
                });
            }
        }
    });
}

#[test]
fn a_reset_that_hangs_cuts_the_backend_off() {
    use FrontendReq as R;
    for code in [R::GET_VRING_BASE, R::RESET_DEVICE, R::SET_STATUS] {
        let bench = bench_with(Fake::new(), |spec| spec.deadlines.reset = SHORT).unwrap();
        bench.device.start(start(&[0]));
        until("running", || bench.fake.get().status == 0xf);
        bench.fake.on(code, Answer::Hang);
        bench.device.reset();
        assert!(!bench.device.is_reset(), "{code:?}");
        until("reset", || bench.device.is_reset());
        until("cut", || bench.fake.get().ended == 1);
        bench.is_degraded();
    }
}

#[test]
fn a_reset_does_not_wait_for_a_start_that_hangs() {
    let bench = bench_with(Fake::new(), |spec| spec.deadlines.reset = SHORT).unwrap();
    bench.fake.on(FrontendReq::SET_MEM_TABLE, Answer::Hang);
    bench.device.start(start(&[0]));
    until("hanging", || bench.has_seen(FrontendReq::SET_MEM_TABLE));
    bench.reset();
    bench.is_degraded();
}

#[test]
fn a_status_that_never_becomes_0_is_no_reset() {
    let bench = bench_with(Fake::new(), |spec| spec.deadlines.reset = SHORT).unwrap();
    bench.fake.on(
        FrontendReq::GET_STATUS,
        Answer::Bytes(message(40, 5, &1_u64.to_ne_bytes())),
    );
    bench.reset();
    bench.is_degraded();
}

#[test]
fn closing_does_not_wait_for_a_backend_that_hangs() {
    let bench = bench(Fake::new());
    bench.fake.on(FrontendReq::SET_FEATURES, Answer::Hang);
    bench.device.start(start(&[0]));
    until("hanging", || bench.has_seen(FrontendReq::SET_FEATURES));
    bench.device.close();
    assert_eq!(
        bench.ear.count("degrade"),
        0,
        "a device that goes is not lost"
    );
    until("cut", || bench.fake.get().ended == 1);
}
