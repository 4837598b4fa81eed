//! The frontend against a fake backend, well-behaved and not.

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;
use vhost::vhost_user::message::FrontendReq;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::fake::{Answer, Fake, message};
use super::*;
use crate::config::{Behind, DeviceConfig, Host, OnExit};
use crate::memory::RamRegion;
use crate::supervisor::Supervisor;
use crate::transport::{QueueStart, Start, TransportEvents, VirtioDevice};

const FEATURES: u64 = 1 << 32 | 1 << 9;
/// Reached only by a failing test.
const LONG: Duration = Duration::from_secs(20);
/// For deadlines that a test reaches.
const SHORT: Duration = Duration::from_millis(300);

/// What the VM and the transport heard.
#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl Ear {
    fn hear(&self, what: &str) {
        self.0.lock().unwrap().push(what.into());
    }

    fn count(&self, what: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|heard| *heard == what)
            .count()
    }
}

impl TransportEvents for Ear {
    fn config_changed(&self) {
        self.hear("config changed");
    }

    fn needs_reset(&self) {
        self.hear("needs reset");
    }
}

impl Owner for Ear {
    fn device_lost(&self, lost: &Lost) {
        self.hear(if lost.stop { "stop" } else { "degrade" });
    }
}

/// A device in front of a fake.
struct Bench {
    device: Arc<Device>,
    fake: Fake,
    ear: Arc<Ear>,
    _dir: tempfile::TempDir,
}

fn config(host: Host) -> DeviceConfig {
    DeviceConfig {
        id: "disk0".into(),
        virtio_id: crate::config::VirtioId::BLOCK,
        slot: 4,
        host,
        queues: None,
        queue_size: None,
        on_exit: OnExit::Degrade,
    }
}

fn spec(host: Host) -> Spec {
    let deadlines = Deadlines {
        start: LONG,
        call: LONG,
        pause: LONG,
        reset: LONG,
    };
    Spec {
        config: config(host),
        terminal: false,
        deadlines,
    }
}

fn memory() -> Vec<RamRegion> {
    let file = File::from(memfd_create("ram", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(1 << 20).unwrap();
    vec![RamRegion {
        guest_addr: 0,
        size: 1 << 20,
        host_addr: 0,
        fd: Arc::new(file),
        offset: 0,
    }]
}

fn connect(spec: Spec, ear: &Arc<Ear>) -> Result<Arc<Device>, ConnectError> {
    let supervisor = Arc::new(Supervisor::start().unwrap());
    Device::begin(spec, &memory(), &supervisor, Arc::clone(ear) as _)?.wait()
}

fn bench_with(fake: Fake, change: impl FnOnce(&mut Spec)) -> Result<Bench, ConnectError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    fake.listen(&path);
    let ear = Arc::<Ear>::default();
    let mut spec = spec(Host::Socket { path });
    change(&mut spec);
    let device = connect(spec, &ear)?;
    device.attach(Arc::clone(&ear) as _);
    Ok(Bench {
        device,
        fake,
        ear,
        _dir: dir,
    })
}

fn bench(fake: Fake) -> Bench {
    bench_with(fake, |_| ()).unwrap()
}

fn queue(index: u16) -> QueueStart {
    let eventfd = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap();
    QueueStart {
        index,
        size: 8,
        desc: 0x1000,
        avail: 0x2000,
        used: 0x3000,
        kick: eventfd(),
        call: eventfd(),
    }
}

fn start(queues: &[u16]) -> Start {
    Start {
        features: FEATURES,
        queues: queues.iter().copied().map(queue).collect(),
    }
}

#[track_caller]
fn until(what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !met() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Bench {
    fn read(&self, offset: u32) -> u8 {
        let mut byte = [0xee];
        self.device.read_config(offset, &mut byte);
        byte[0]
    }

    fn has_seen(&self, code: FrontendReq) -> bool {
        self.fake.get().seen.iter().any(|seen| seen.code == code)
    }

    #[track_caller]
    fn reset(&self) {
        self.device.reset();
        until("reset", || self.device.is_reset());
    }

    /// Whatever happened, the VM goes on: this is what the driver sees of a device that is lost.
    #[track_caller]
    fn is_degraded(&self) {
        until("needs reset", || self.ear.count("needs reset") >= 1);
        until("the owner knows", || self.ear.count("degrade") == 1);
        assert_eq!(self.read(5), 5, "config reads keep answering");
        self.reset();
        let before = self.ear.count("needs reset");
        self.device.start(start(&[0]));
        until("needs reset again", || {
            self.ear.count("needs reset") > before
        });
        self.device.write_config(0, &[1]);
        assert_eq!(self.read(0), 0);
        self.device.stop_queue(0);
        until("stopped", || self.device.is_queue_stopped(0));
        self.reset();
        assert_eq!(self.ear.count("degrade"), 1);
    }
}

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
                        Err(ConnectError::Socket { .. } | ConnectError::Busy { .. }) => {}
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
fn a_config_change_is_taken_while_the_backend_is_being_called() {
    let bench = bench(Fake::new());
    bench
        .fake
        .on(FrontendReq::SET_VRING_KICK, Answer::ConfigChangeFirst);
    bench.fake.get().config[7] = 77;
    bench.device.start(start(&[0]));
    until("config changed", || bench.ear.count("config changed") == 1);
    assert_eq!((bench.read(7), bench.device.config_generation()), (77, 1));
    until("running", || bench.fake.get().status == 0xf);
    bench.fake.change_config();
    until("config changed", || bench.ear.count("config changed") == 2);
    assert_eq!(bench.ear.count("needs reset"), 0);
}

#[test]
fn a_config_write_is_read_back_from_the_backend() {
    let bench = bench_with(Fake::new(), |spec| spec.deadlines.call = 4 * SHORT).unwrap();
    bench.device.write_config(32, &[0xaa]);
    assert_eq!(bench.read(32), 0xaa);
    assert_eq!(bench.device.config_generation(), 0);
    bench.device.write_config(59, &[1, 2, 3, 4]);
    assert_eq!((bench.read(59), bench.read(60)), (1, 0), "cut at the end");
    bench.device.write_config(60, &[1]);
    bench.device.write_config(u32::MAX, &[1]);
    bench.fake.on(FrontendReq::SET_CONFIG, Answer::Refuse);
    bench.device.write_config(32, &[0xbb]);
    assert_eq!(bench.read(32), 0xaa, "refused");
    bench.fake.on(FrontendReq::SET_CONFIG, Answer::Hang);
    bench.device.write_config(32, &[0xcc]);
    assert_eq!(bench.read(32), 0xaa);
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

#[test]
fn giving_up_does_not_wait_for_the_deadline() {
    let mut spec = spec(Host::Socket {
        path: "/no/such/socket".into(),
    });
    spec.deadlines.start = 10 * LONG;
    let supervisor = Arc::new(Supervisor::start().unwrap());
    drop(Device::begin(spec, &memory(), &supervisor, Arc::new(Ear::default())).unwrap());
}

fn process(script: &str, deadline: Duration) -> Result<Arc<Device>, ConnectError> {
    shell("/bin/sh", script, deadline)
}

fn shell(program: &str, script: &str, deadline: Duration) -> Result<Arc<Device>, ConnectError> {
    let args = ["-c", script].map(String::from).to_vec();
    let mut spec = spec(Host::Process {
        program: program.into(),
        args,
    });
    spec.deadlines.start = deadline;
    connect(spec, &Arc::default())
}

#[test]
fn a_daemon_that_fails_to_start_says_so_itself() {
    let text = process("echo 'error: cannot open disk.img' >&2; exit 1", LONG)
        .err()
        .unwrap()
        .to_string();
    for part in [
        "disk0",
        "/bin/sh",
        "exit status: 1",
        "error: cannot open disk.img",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = process("echo thinking >&2; sleep 1000", 4 * SHORT)
        .err()
        .unwrap()
        .to_string();
    assert!(
        text.contains("does not answer") && text.contains("thinking"),
        "{text}"
    );
}

#[test]
fn a_daemon_that_ends_after_a_wrong_answer_is_told_of_by_the_answer() {
    // Answers SET_OWNER and GET_FEATURES with what is no message, and leaves. The name of the flag
    // for its stream is $0, the number $1; sh takes no number of two digits.
    let script = "head -c 24 <&$1 >/dev/null; printf '%064d' 0 >&$1; exit 0";
    let text = shell("/bin/bash", script, LONG).err().unwrap().to_string();
    for part in ["GET_FEATURES", "then ended (exit status: 0)"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = process("exit 0", LONG).err().unwrap().to_string();
    for part in ["handshake", "then ended (exit status: 0)"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_daemon_that_is_not_installed_is_named() {
    let host = Host::Process {
        program: "outboard-nonesuch".into(),
        args: Vec::new(),
    };
    let error = connect(spec(host), &Arc::default()).err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        error.to_string().contains("disk0") && cause.contains("outboard-nonesuch"),
        "{error}: {cause}"
    );
}

#[test]
fn what_stands_behind_a_daemon_is_missed_or_quoted() {
    let backed = |program: &str, script: &str| {
        let host = Host::Backed {
            program: "/bin/sh".into(),
            // Says nothing; that the other one ends is what is told.
            args: ["-c", "sleep 1000"].map(String::from).to_vec(),
            behind: Behind {
                wire: "--stream-fd".into(),
                program: program.into(),
                package: "passt".into(),
                args: ["-c", script].map(String::from).to_vec(),
                fd: "--fd".into(),
            },
        };
        let mut spec = spec(host);
        spec.deadlines.start = 4 * SHORT;
        connect(spec, &Arc::default()).err().unwrap()
    };
    let text = backed("/bin/sh", "echo 'port 22 is in use' >&2; exit 1").to_string();
    assert!(
        text.contains("/bin/sh ended") && text.contains("port 22 is in use"),
        "{text}"
    );
    let error = backed("passt-nonesuch", "");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.contains("'passt-nonesuch'") && cause.contains("package passt"),
        "{error}: {cause}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any bytes in place of any answer, at any point of a device's life.
    #[test]
    fn no_answer_is_harmful(code in 1..44_u32, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let bench = bench_with(Fake::new(), |spec| {
            let short = Duration::from_millis(20);
            spec.deadlines = Deadlines { start: LONG, call: short, pause: short, reset: short };
        }).unwrap();
        bench.fake.get().script.insert(code, Answer::Bytes(bytes));
        bench.device.start(start(&[0, 1]));
        bench.device.write_config(0, &[1]);
        bench.device.stop_queue(1);
        bench.device.start_queue(queue(1));
        bench.read(0);
        bench.reset();
        bench.device.start(start(&[0]));
        bench.reset();
    }
}
