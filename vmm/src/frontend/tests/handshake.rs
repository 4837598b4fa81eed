//! What both sides take from each other before a device is ready.

use super::*;

#[test]
fn the_handshake_takes_what_both_sides_have() {
    let bench = bench(Fake::new());
    let identity = bench.device.identity();
    assert_eq!(
        (identity.device_id, identity.queues, identity.config_len),
        (2, 2, 60)
    );
    assert_eq!(bench.device.features(), FEATURES | 1 << 40);
    assert_eq!(bench.read(59), 59);
    let seen = bench.fake.get().seen.clone();
    let set = seen
        .iter()
        .find(|seen| seen.code == FrontendReq::SET_PROTOCOL_FEATURES)
        .unwrap();
    // MQ, REPLY_ACK, BACKEND_REQ, CONFIG, RESET_DEVICE, STATUS, by the specification's numbers.
    let bits = [0, 3, 5, 9, 13, 16]
        .iter()
        .fold(0_u64, |bits, bit| bits | 1 << bit);
    assert_eq!(set.body, bits.to_ne_bytes());
}

#[test]
fn unfit_backends_are_refused_by_name() {
    let legacy = Fake::new();
    legacy.get().features &= !(1 << 32);
    let error = bench_with(legacy, |_| ()).err().unwrap();
    assert!(matches!(error, ConnectError::Legacy { .. }), "{error}");
    let error = bench_with(Fake::new(), |spec| spec.config.queues = Some(4))
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "Device 'disk0': queues=4 is more than the 2 its backend offers"
    );
    let none = Fake::new();
    none.get().queues = 0;
    assert!(matches!(
        bench_with(none, |_| ()),
        Err(ConnectError::NoQueues { .. })
    ));
}

#[test]
fn the_whole_handshake_is_retried() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let (fake, ear) = (Fake::new(), Arc::<Ear>::default());
    fake.on(FrontendReq::GET_FEATURES, Answer::Die);
    let spec = spec(Host::Socket { path: path.clone() });
    std::thread::scope(|scope| {
        let device = scope.spawn(|| connect(spec, &ear));
        std::thread::sleep(Duration::from_millis(20));
        fake.listen(&path);
        until("an attempt that fails half-way", || fake.get().ended > 0);
        fake.get().script.clear();
        device.join().unwrap().unwrap();
    });
    assert!(fake.get().connections > 1);
}

#[test]
fn a_socket_where_nobody_listens_is_named() {
    let mut spec = spec(Host::Socket {
        path: "/no/such/socket".into(),
    });
    spec.deadlines.start = SHORT;
    let error = connect(spec, &Arc::default()).err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("/no/such/socket") && text.contains("disk0"),
        "{text}"
    );
}

#[test]
fn a_backend_that_serves_another_is_not_called_absent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let connecting = || {
        let mut spec = spec(Host::Socket { path: path.clone() });
        spec.deadlines.start = SHORT;
        connect(spec, &Arc::default()).err().unwrap()
    };
    // Connections wait in its queue for as long as it does not take them.
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = connecting();
    assert!(matches!(error, ConnectError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("another frontend"), "{error}");
    drop(listener);
    let error = connecting();
    assert!(matches!(error, ConnectError::Socket { .. }), "{error}");
}

#[test]
fn a_backend_that_answers_nonsense_is_not_called_absent() {
    use FrontendReq as R;
    for (code, answer) in [
        (R::GET_FEATURES, Answer::Bytes(vec![0xff; 64])),
        (
            R::GET_CONFIG,
            Answer::Bytes(message(u32::from(R::GET_CONFIG) + 1, 5, &[0; 8])),
        ),
    ] {
        let fake = Fake::new();
        fake.on(code, answer);
        let bench = bench_with(fake, |spec| spec.deadlines.start = Duration::from_secs(1));
        let error = bench.err().unwrap();
        assert!(matches!(error, ConnectError::Nonsense { .. }), "{error}");
    }
}

#[test]
fn a_path_where_nobody_can_ever_listen_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (path, why) in [
        (dir.path().to_owned(), "is a folder"),
        (file, "no socket"),
        (dir.path().join("x".repeat(108)), "may have 107"),
    ] {
        let mut spec = spec(Host::Socket { path });
        spec.deadlines.start = Duration::from_mins(1);
        let error = connect(spec, &Arc::default()).err().unwrap();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn no_answer_in_the_handshake_hurts() {
    use FrontendReq as R;
    let codes = [
        R::GET_FEATURES,
        R::GET_PROTOCOL_FEATURES,
        R::GET_QUEUE_NUM,
        R::GET_CONFIG,
        R::SET_BACKEND_REQ_FD,
    ];
    // Every attempt that fails is tried again until the deadline: all of them side by side.
    std::thread::scope(|scope| {
        for code in codes {
            let number = u32::from(code);
            let answers = [
                Answer::Hang,
                Answer::Die,
                Answer::Bytes(message(number, 5, &[])),
                Answer::Bytes([number.to_ne_bytes(), [5, 0, 0, 0], [0xff; 4]].concat()),
                Answer::Bytes(message(number + 1, 5, &[0; 8])),
                Answer::Bytes(message(number, 1, &[0; 8])),
                Answer::Bytes(vec![0xff; 64]),
            ];
            for (which, answer) in answers.into_iter().enumerate() {
                scope.spawn(move || {
                    let fake = Fake::new();
                    fake.on(code, answer);
                    match bench_with(fake, |spec| spec.deadlines.start = Duration::from_secs(1)) {
                        Err(
                            ConnectError::Socket { .. }
                            | ConnectError::Busy { .. }
                            | ConnectError::Nonsense { .. },
                        ) => {}
                        // A config space that is refused costs the config space.
                        Ok(bench) if code == R::GET_CONFIG => {
                            assert_eq!(bench.device.identity().config_len, 0);
                        }
                        other => panic!("{code:?}, answer {which}: {:?}", other.err()),
                    }
                });
            }
        }
    });
}

/// The crate does not look at the length of a number: what follows it is noticed by the next one
/// who reads.
#[test]
fn an_answer_that_is_too_long_is_noticed_later() {
    use FrontendReq as R;
    for code in [R::GET_PROTOCOL_FEATURES, R::SET_BACKEND_REQ_FD] {
        let fake = Fake::new();
        fake.on(code, Answer::Bytes(message(code.into(), 5, &[0; 4000])));
        let bench = bench_with(fake, |spec| spec.deadlines.reset = SHORT).unwrap();
        bench.device.start(start(&[0]));
        until("started", || {
            bench.has_seen(R::SET_VRING_KICK) || bench.ear.count("degrade") == 1
        });
        bench.reset();
        until("noticed", || bench.ear.count("degrade") == 1);
    }
}

#[test]
fn giving_up_does_not_wait_for_the_deadline() {
    let mut spec = spec(Host::Socket {
        path: "/no/such/socket".into(),
    });
    spec.deadlines.start = 10 * LONG;
    let supervisor = Arc::new(Supervisor::start().unwrap());
    drop(Device::begin(spec, &memory(), &supervisor, Arc::new(Ear::default())).unwrap());
}
