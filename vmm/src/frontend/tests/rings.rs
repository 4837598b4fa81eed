//! Rings as the driver has them started and stopped.

use super::*;

/// A backend may have passed over a kick that came before the ring was enabled.
#[test]
fn queues_are_kicked_once_they_are_known_to_be_enabled() {
    use FrontendReq as R;
    for (reply_ack, last) in [
        (1 << 3, R::SET_VRING_ENABLE),
        // It tells of nothing that is done, so that an answer has to be asked for.
        (0, R::GET_FEATURES),
    ] {
        let fake = Fake::new();
        fake.get().protocol = 1 | 1 << 5 | 1 << 9 | reply_ack;
        let bench = bench(fake);
        let started = start(&[0, 1]);
        let kicks: Vec<_> = started
            .queues
            .iter()
            .map(|queue| queue.kick.try_clone().unwrap())
            .collect();
        bench.device.start(started);
        for kick in kicks {
            until("a kick", || kick.read().is_ok());
        }
        let codes = bench.fake.codes_after_handshake();
        assert_eq!(codes.last().unwrap().0, last);
        assert_eq!(
            codes
                .iter()
                .filter(|(code, _)| *code == R::SET_VRING_ENABLE)
                .count(),
            2
        );
    }
}

#[test]
fn only_the_queues_that_the_driver_readied_are_started() {
    use FrontendReq as R;
    let bench = bench(Fake::new());
    bench.device.start(start(&[1]));
    until("running", || bench.fake.get().status == 0xf);
    let codes: Vec<R> = bench
        .fake
        .codes_after_handshake()
        .iter()
        .map(|(code, _)| *code)
        .collect();
    let vring = [
        R::SET_VRING_NUM,
        R::SET_VRING_ADDR,
        R::SET_VRING_BASE,
        R::SET_VRING_CALL,
        R::SET_VRING_ERR,
        R::SET_VRING_KICK,
    ];
    let mut expected = vec![
        R::SET_FEATURES,
        R::SET_STATUS,
        R::GET_STATUS,
        R::SET_MEM_TABLE,
    ];
    expected.extend(vring);
    expected.extend([R::SET_VRING_ENABLE, R::SET_STATUS]);
    assert_eq!(codes, expected);
    let seen = bench.fake.get().seen.clone();
    for code in [R::SET_VRING_NUM, R::SET_VRING_KICK, R::SET_VRING_ENABLE] {
        assert_eq!(
            seen.iter().find(|seen| seen.code == code).unwrap().queue(),
            1,
            "{code:?}"
        );
    }
    for code in [R::SET_MEM_TABLE, R::SET_VRING_CALL, R::SET_VRING_KICK] {
        assert!(
            seen.iter()
                .find(|seen| seen.code == code)
                .unwrap()
                .with_file,
            "{code:?}"
        );
    }
    let features = &seen
        .iter()
        .find(|seen| seen.code == R::SET_FEATURES)
        .unwrap()
        .body;
    assert_eq!(
        features[..],
        (FEATURES | 1 << 30).to_ne_bytes(),
        "RING_RESET is not the backend's"
    );

    bench.fake.get().seen.clear();
    bench.reset();
    let stop = [
        (R::SET_VRING_ENABLE, 1),
        (R::GET_VRING_BASE, 1),
        (R::RESET_DEVICE, 0),
        (R::SET_STATUS, 0),
    ];
    assert_eq!(bench.fake.codes_after_handshake()[..4], stop);
    assert_eq!(bench.fake.get().status, 0);
    assert_eq!(bench.ear.count("needs reset"), 0);
    bench.device.start(start(&[0, 1]));
    until("running again", || bench.fake.get().status == 0xf);
}

#[test]
fn one_queue_stops_and_starts_anew() {
    let bench = bench(Fake::new());
    bench.device.start(start(&[0, 1]));
    bench.device.stop_queue(1);
    until("stopped", || bench.device.is_queue_stopped(1));
    let stops = |bench: &Bench| {
        let seen = bench.fake.get().seen.clone();
        seen.iter()
            .filter(|seen| seen.code == FrontendReq::GET_VRING_BASE)
            .map(fake::Seen::queue)
            .collect::<Vec<_>>()
    };
    assert_eq!(stops(&bench), [1]);
    bench
        .fake
        .get()
        .seen
        .retain(|seen| seen.code != FrontendReq::SET_VRING_ENABLE);
    bench.device.start_queue(queue(1));
    until("started anew", || {
        bench.has_seen(FrontendReq::SET_VRING_ENABLE)
    });
    bench.reset();
    assert_eq!(stops(&bench), [1, 0, 1]);
}

#[test]
fn a_backend_without_protocol_features_is_served() {
    let fake = Fake::new();
    fake.get().features = FEATURES;
    let bench = bench(fake);
    assert_eq!(
        (
            bench.device.identity().queues,
            bench.device.identity().config_len
        ),
        (1, 0)
    );
    bench.device.start(start(&[0]));
    until("started", || bench.has_seen(FrontendReq::SET_VRING_KICK));
    bench.reset();
    assert!(!bench.has_seen(FrontendReq::SET_VRING_ENABLE));
    assert!(bench.has_seen(FrontendReq::GET_VRING_BASE));
    assert_eq!(bench.ear.count("needs reset"), 0);
}

#[test]
fn a_start_that_is_refused_can_be_tried_again() {
    let bench = bench(Fake::new());
    bench.fake.on(FrontendReq::SET_VRING_CALL, Answer::Refuse);
    bench.device.start(start(&[0]));
    until("needs reset", || bench.ear.count("needs reset") == 1);
    bench.fake.get().script.clear();
    bench.reset();
    bench.device.start(start(&[0]));
    until("running", || bench.fake.get().status == 0xf);
    assert_eq!(
        (bench.ear.count("needs reset"), bench.ear.count("degrade")),
        (1, 0)
    );
}

#[test]
fn queues_outside_memory_are_not_started() {
    let bench = bench(Fake::new());
    let mut bad = start(&[0]);
    bad.queues[0].used = (1 << 20) - 8;
    bench.device.start(bad);
    until("needs reset", || bench.ear.count("needs reset") == 1);
    assert!(!bench.has_seen(FrontendReq::SET_VRING_NUM));
}
