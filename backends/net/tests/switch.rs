//! `outboard-net switch` between guests that are the SDK's driver.
//!
//! That a guest does not get a frame is seen without a clock: the switch keeps a sender's order, so a
//! frame for everybody that was sent later comes first. What is verified so has a twin in which the
//! switch, or the guest, is not as it should be, and which has to fail.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_device::driver::connection::F_EVENT_IDX;
use outboard_device::driver::net::{F_MAC, F_MRG_RXBUF, Frame, Header, RX, Receive, TX, Transmit};
use outboard_device::driver::{Daemon, Driver, Options, QueueOptions, Segment};

const LIMIT: Duration = Duration::from_secs(20);
const EVERYBODY: [u8; 6] = [0xff; 6];
/// `DEVICE_NEEDS_RESET` (virtio 1.2, section 2.1).
const NEEDS_RESET: u8 = 64;
/// The longest frame without a tag.
const LONGEST: usize = 65535 + 14;

/// The address of the n-th guest.
fn mac(n: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, n]
}

fn frame(to: [u8; 6], from: [u8; 6], len: usize, seed: u8) -> Vec<u8> {
    let mut frame = [&to[..], &from, &[0x88, 0xb5]].concat();
    frame.extend((frame.len()..len).map(|i| (i % 241) as u8 ^ seed));
    frame
}

/// A switch in a process, its sockets in a folder.
struct Switch {
    daemon: Daemon,
    folder: tempfile::TempDir,
}

impl Switch {
    /// With these ports, each a name and what it is besides.
    fn new(ports: &[&str], more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut args = vec!["switch".to_owned(), "--counters".into(), path("counters")];
        for port in ports {
            let (name, rest) = port.split_once(',').unwrap_or((port, ""));
            let comma = if rest.is_empty() { "" } else { "," };
            args.push(format!("--port={name}={}{comma}{rest}", path(name)));
        }
        args.extend(more.iter().map(ToString::to_string));
        let program = Path::new(env!("CARGO_BIN_EXE_outboard-net"));
        let daemon = Daemon::listen(program, args).unwrap();
        Self { daemon, folder }
    }

    fn connect(&mut self, port: &str) -> UnixStream {
        let end = Instant::now() + LIMIT;
        loop {
            match UnixStream::connect(self.folder.path().join(port)) {
                Ok(stream) => return stream,
                Err(error) => assert!(
                    Instant::now() < end && self.daemon.is_alive(),
                    "{error}; the switch says: {}",
                    self.daemon.words()
                ),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A usual guest, with this address, at a port.
    fn join(&mut self, port: &str, n: u8) -> Guest {
        self.join_with(port, n, &Options::default(), 64)
    }

    fn join_with(&mut self, port: &str, n: u8, options: &Options, buffers: u16) -> Guest {
        let mut driver = Driver::new(self.connect(port), options).unwrap();
        for (queue, indirect) in [(RX, 256), (TX, 0)] {
            let options = QueueOptions {
                indirect,
                ..QueueOptions::default()
            };
            driver.start_queue(queue, &options).unwrap();
        }
        let receive = Receive::new(&mut driver, RX, buffers, 2048).unwrap();
        let transmit = Transmit::new(&mut driver, 32, LONGEST + 100).unwrap();
        Guest {
            mac: mac(n),
            driver,
            receive,
            transmit,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.daemon.id().cast_signed());
        kill(pid, signal).unwrap();
    }

    /// The lines of JSON that SIGUSR1 asks for, of all ports.
    fn counters(&self) -> String {
        let path = self.folder.path().join("counters");
        let before = fs::read_to_string(&path).unwrap().len();
        self.signal(Signal::SIGUSR1);
        let end = Instant::now() + LIMIT;
        loop {
            let text = fs::read_to_string(&path).unwrap();
            if text.len() > before {
                return text.split_at(before).1.to_owned();
            }
            assert!(Instant::now() < end, "{}", self.daemon.words());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// One number of one port's.
    fn count(&self, port: &str, word: &str) -> u64 {
        count(&self.counters(), port, word)
    }
}

fn count(lines: &str, port: &str, word: &str) -> u64 {
    let start = format!("{{\"port\":\"{port}\"");
    let line = lines.lines().find(|line| line.starts_with(&start)).unwrap();
    let (_, rest) = line.split_once(&format!("\"{word}\":")).unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

struct Guest {
    mac: [u8; 6],
    driver: Driver,
    receive: Receive,
    transmit: Transmit,
}

impl Guest {
    fn send(&mut self, frame: &[u8]) {
        let end = Instant::now() + LIMIT;
        while !self.try_send(frame) {
            assert!(Instant::now() < end, "nothing is sent");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn try_send(&mut self, frame: &[u8]) -> bool {
        let queue = self.driver.queue(TX).unwrap();
        self.transmit.reap(queue).unwrap();
        let sent = self.transmit.add(queue, Header::default(), frame).is_ok();
        queue.flush().unwrap();
        sent
    }

    fn next(&mut self) -> Frame {
        let queue = self.driver.queue(RX).unwrap();
        self.receive.wait(queue, LIMIT).unwrap()
    }

    /// Whether the next frame is this one.
    fn gets(&mut self, frame: &[u8]) -> Result<(), String> {
        let next = self.next().data;
        if next == frame {
            return Ok(());
        }
        let start = |frame: &[u8]| format!("{} bytes {:02x?}", frame.len(), &frame[..16]);
        Err(format!("{} came, not {}", start(&next), start(frame)))
    }

    /// Tells the switch, and all others, that it is there.
    fn announce(&mut self, others: &mut [&mut Self]) {
        let hello = frame(EVERYBODY, self.mac, 60, 0x77);
        self.send(&hello);
        for other in others {
            other.gets(&hello).unwrap();
        }
    }

    fn is_broken(&mut self) -> bool {
        self.driver.connection().status().unwrap() & NEEDS_RESET != 0
    }

    fn wait_for_breakage(&mut self) {
        let end = Instant::now() + LIMIT;
        while !self.is_broken() {
            assert!(Instant::now() < end, "nothing breaks");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn frames_pass_whole_in_every_length() {
    let mut switch = Switch::new(&["a,mac=52:54:00:00:00:01", "b"], &[]);
    let (mut a, mut b) = (switch.join("a", 1), switch.join("b", 2));
    assert!(a.driver.has(F_MAC | F_MRG_RXBUF) && !b.driver.has(F_MAC));
    let mut config = [0; 8];
    a.driver.read_config(0, &mut config).unwrap();
    assert_eq!(config, [0x52, 0x54, 0, 0, 0, 1, 1, 0]);
    for (round, len) in [14, 60, 1514, 2036, 2037, 9014, LONGEST, 61]
        .into_iter()
        .enumerate()
    {
        let out = frame(b.mac, a.mac, len, round as u8);
        a.send(&out);
        let got = b.next();
        assert!(got.data == out, "{len}");
        let header = Header {
            num_buffers: (12 + len).div_ceil(2048) as u16,
            ..Header::default()
        };
        assert_eq!(got.header, header);
        let back = frame(a.mac, b.mac, len, !(round as u8));
        b.send(&back);
        a.gets(&back).unwrap();
    }
}

/// `b` has spoken or not; then `c` must not get what is for it.
fn only_the_addressee_gets_it(spoken: bool) -> Result<(), String> {
    let mut switch = Switch::new(&["a", "b", "c"], &[]);
    let (mut a, mut b, mut c) = (
        switch.join("a", 1),
        switch.join("b", 2),
        switch.join("c", 3),
    );
    if spoken {
        b.announce(&mut [&mut a, &mut c]);
    }
    let (secret, marker) = (frame(b.mac, a.mac, 100, 1), frame(EVERYBODY, a.mac, 100, 2));
    a.send(&secret);
    a.send(&marker);
    b.gets(&secret)?;
    b.gets(&marker)?;
    c.gets(&marker)
}

#[test]
fn a_frame_goes_where_its_address_was_heard() {
    only_the_addressee_gets_it(true).unwrap();
}

#[test]
fn and_to_everybody_before() {
    only_the_addressee_gets_it(false).unwrap_err();
}

fn isolated_ports_do_not_meet(ports: &[&str]) -> Result<(), String> {
    let mut switch = Switch::new(ports, &[]);
    let (mut a, mut b, mut c) = (
        switch.join("a", 1),
        switch.join("b", 2),
        switch.join("c", 3),
    );
    // To everybody, which is the third.
    let hello = frame(EVERYBODY, a.mac, 60, 1);
    a.send(&hello);
    c.gets(&hello)?;
    // Of the third both get everything.
    let hello = frame(EVERYBODY, c.mac, 60, 2);
    c.send(&hello);
    a.gets(&hello)?;
    b.gets(&hello)?;
    // Also when the address is known.
    b.send(&frame(a.mac, b.mac, 60, 3));
    let answer = frame(c.mac, b.mac, 60, 4);
    b.send(&answer);
    c.gets(&answer)?;
    let marker = frame(a.mac, c.mac, 60, 5);
    c.send(&marker);
    a.gets(&marker)?;
    let counters = switch.counters();
    assert_eq!(count(&counters, "b", "isolated"), 1);
    assert_eq!(count(&counters, "a", "isolated"), 0);
    Ok(())
}

#[test]
fn isolated_ports_reach_only_the_others() {
    isolated_ports_do_not_meet(&["a,isolated", "b,isolated", "c"]).unwrap();
}

#[test]
fn one_isolated_port_is_isolated_from_nobody() {
    isolated_ports_do_not_meet(&["a", "b,isolated", "c"]).unwrap_err();
}

/// A thief at `c` says that it is `a`, while `a` is there or not; then `b` speaks to `a`.
fn the_thief_gets_nothing(there: bool) -> Result<(), String> {
    /// Fewer than anybody has buffers for.
    const CLAIMS: u8 = 32;
    let mut switch = Switch::new(&["a", "b", "c"], &[]);
    let (mut b, mut c) = (switch.join("b", 2), switch.join("c", 3));
    let mut a = switch.join("a", 1);
    a.announce(&mut [&mut b, &mut c]);
    if !there {
        // Another sits down in its place: by then the switch knows that it is gone.
        drop(a);
        a = switch.join("a", 4);
    }
    for seed in 0..CLAIMS {
        c.send(&frame(EVERYBODY, mac(1), 60, seed));
    }
    // In the sender's order: the claims have been heard when this one has.
    let honest = frame(EVERYBODY, c.mac, 60, 0xee);
    c.send(&honest);
    let mut claims = 0;
    while b.gets(&honest).is_err() {
        claims += 1;
    }
    while a.gets(&honest).is_err() {}
    let secret = frame(mac(1), b.mac, 60, 0xaa);
    let marker = frame(EVERYBODY, b.mac, 60, 0xbb);
    b.send(&secret);
    b.send(&marker);
    c.gets(&marker)?;
    a.gets(&secret)?;
    let claimed = switch.count("c", "claimed");
    assert_eq!((claims, claimed), (0, u64::from(CLAIMS)));
    Ok(())
}

#[test]
fn an_address_in_use_is_not_taken() {
    the_thief_gets_nothing(true).unwrap();
}

#[test]
fn an_address_moves_with_its_guest() {
    the_thief_gets_nothing(false).unwrap_err();
}

#[test]
fn a_silent_address_is_heard_elsewhere_and_comes_home() {
    let mut switch = Switch::new(&["a", "b", "c"], &["--ageing=1"]);
    let (mut a, mut b, mut c) = (
        switch.join("a", 1),
        switch.join("b", 2),
        switch.join("c", 3),
    );
    a.announce(&mut [&mut b, &mut c]);
    std::thread::sleep(Duration::from_millis(2100));
    let moved = frame(EVERYBODY, mac(1), 60, 1);
    c.send(&moved);
    b.gets(&moved).unwrap();
    a.gets(&moved).unwrap();
    let reply = frame(mac(1), b.mac, 60, 2);
    b.send(&reply);
    c.gets(&reply).unwrap();
}

#[test]
fn a_stuck_receiver_holds_nobody_up() {
    const COUNT: u64 = 1000;
    let mut switch = Switch::new(&["a", "b", "stuck"], &[]);
    let (mut a, mut b) = (switch.join("a", 1), switch.join("b", 2));
    let stuck = switch.join_with("stuck", 3, &Options::default(), 16);
    for seed in 0..COUNT {
        let frame = frame(EVERYBODY, a.mac, 200, seed as u8);
        a.send(&frame);
        b.gets(&frame).unwrap();
    }
    let counters = switch.counters();
    assert_eq!(count(&counters, "stuck", "no-buffer"), COUNT - 16);
    assert_eq!(count(&counters, "b", "no-buffer"), 0);
    drop(stuck);
}

#[test]
fn what_does_not_fit_is_dropped_and_the_next_is_not() {
    let mut switch = Switch::new(&["a", "b", "c"], &[]);
    let simple = Options {
        features: !F_MRG_RXBUF,
        ..Options::default()
    };
    let mut a = switch.join("a", 1);
    let mut b = switch.join_with("b", 2, &simple, 64);
    let mut c = switch.join_with("c", 3, &Options::default(), 8);
    for round in 0..100 {
        // Longer than one buffer of b's, and than all of c's eight.
        let (long, longer) = (
            frame(b.mac, a.mac, 2037, round),
            frame(c.mac, a.mac, 20_000, round),
        );
        let fits = frame(EVERYBODY, a.mac, 2036, round);
        if round == 0 {
            b.announce(&mut [&mut a, &mut c]);
            c.announce(&mut [&mut a, &mut b]);
        }
        a.send(&long);
        a.send(&longer);
        a.send(&fits);
        b.gets(&fits).unwrap();
        c.gets(&fits).unwrap();
    }
    let counters = switch.counters();
    assert_eq!(count(&counters, "b", "too-long"), 100);
    assert_eq!(count(&counters, "c", "no-buffer"), 100);
}

#[test]
fn what_is_no_frame_is_dropped() {
    let mut switch = Switch::new(&["a", "b"], &[]);
    let (mut a, mut b) = (switch.join("a", 1), switch.join("b", 2));
    a.send(&frame(EVERYBODY, a.mac, 14, 0)[..13]);
    a.send(&frame(EVERYBODY, EVERYBODY, 60, 0));
    a.send(&frame(EVERYBODY, a.mac, LONGEST + 5, 0));
    a.send(&frame(a.mac, a.mac, 60, 0));
    let queue = a.driver.queue(TX).unwrap();
    // No header, and nothing to be read at all.
    for segment in [Segment::readable(0, 11), Segment::writable(0, 100)] {
        queue.submit(&[segment], 31).unwrap();
    }
    let good = frame(EVERYBODY, a.mac, 60, 1);
    a.send(&good);
    b.gets(&good).unwrap();
    let counters = switch.counters();
    assert_eq!(count(&counters, "a", "malformed"), 5);
    assert_eq!(count(&counters, "a", "local"), 1);
}

#[test]
fn guests_vanish_and_come_back_while_others_talk() {
    let mut switch = Switch::new(&["a", "b", "c"], &[]);
    let (mut a, mut b) = (switch.join("a", 1), switch.join("b", 2));
    a.announce(&mut [&mut b]);
    for round in 0..40u8 {
        let mut c = switch.join("c", 3);
        // Its ring is full of frames, and a's are on their way to it, when it goes.
        for _ in 0..32 {
            c.try_send(&frame(a.mac, c.mac, 9000, round));
        }
        for seed in 0..10 {
            let frame = frame(EVERYBODY, a.mac, 1500, seed);
            a.send(&frame);
            b.gets(&frame).unwrap();
        }
        drop(c);
        let last = frame(EVERYBODY, b.mac, 60, round);
        b.send(&last);
        while a.next().data != last {}
    }
    assert!(switch.daemon.is_alive());
    let mut c = switch.join("c", 3);
    c.announce(&mut [&mut a, &mut b]);
}

/// What a hostile guest does to its own rings.
fn sabotage(guest: &mut Guest, queue: u16, segments: &[Segment]) {
    let queue = guest.driver.queue(queue).unwrap();
    queue.submit(segments, 31).unwrap();
}

#[test]
fn a_guest_that_breaks_its_rings_breaks_nothing_else() {
    let nowhere = u64::MAX - (1 << 20);
    let cases = [
        (TX, Segment::readable(nowhere, 100)),
        (RX, Segment::writable(nowhere, 2048)),
        (RX, Segment::writable(0, u32::MAX)),
    ];
    let mut switch = Switch::new(&["a", "b", "evil"], &[]);
    let (mut a, mut b) = (switch.join("a", 1), switch.join("b", 2));
    for (round, (queue, segment)) in cases.into_iter().enumerate() {
        let mut evil = switch.join_with("evil", 3, &Options::default(), 1);
        sabotage(&mut evil, queue, &[segment]);
        for seed in 0..3 {
            let frame = frame(EVERYBODY, a.mac, 300, seed ^ round as u8);
            a.send(&frame);
            b.gets(&frame).unwrap();
        }
        evil.wait_for_breakage();
        assert!(!a.is_broken() && !b.is_broken());
        drop(evil);
        let mut good = switch.join("evil", 3);
        good.announce(&mut [&mut a, &mut b]);
    }
    // Buffers in which there is room for nothing.
    let mut evil = switch.join_with("evil", 3, &Options::default(), 1);
    for _ in 0..100 {
        sabotage(&mut evil, RX, &[Segment::writable(0, 11)]);
    }
    for seed in 0..30 {
        let frame = frame(EVERYBODY, a.mac, 300, seed);
        a.send(&frame);
        b.gets(&frame).unwrap();
    }
    assert!(!evil.is_broken());
}

/// A guest's buffers are in so many pieces, all but one of them of no bytes; what it got of one frame.
fn pieces_of_nothing(pieces: usize) -> [u64; 2] {
    let mut switch = Switch::new(&["a", "b"], &[]);
    let (mut a, mut b) = (
        switch.join("a", 1),
        switch.join_with("b", 2, &Options::default(), 1),
    );
    a.announce(&mut [&mut b]);
    // The usual buffer is the next frame's.
    let place = b.driver.allocate(13, 1).unwrap();
    let mut chain = vec![Segment::writable(place.addr(), 0); pieces - 1];
    chain.push(Segment::writable(place.addr(), 13));
    for _ in 0..20 {
        sabotage(&mut b, RX, &chain);
    }
    for seed in 0..2 {
        a.send(&frame(EVERYBODY, a.mac, 60, seed));
    }
    loop {
        let counters = switch.counters();
        let [got, lost] =
            ["to-guest\":{\"frames", "too-long"].map(|word| count(&counters, "b", word));
        if got + lost == 3 {
            return [got, lost];
        }
    }
}

#[test]
fn one_frame_is_not_worth_any_number_of_descriptors() {
    assert_eq!(pieces_of_nothing(200), [2, 1]);
    assert_eq!(pieces_of_nothing(1), [3, 0]);
}

#[test]
fn addresses_made_up_fill_the_liars_share_only() {
    let mut switch = Switch::new(&["a", "b", "liar"], &[]);
    let (mut a, mut b) = (switch.join("a", 1), switch.join("b", 2));
    let mut liar = switch.join("liar", 3);
    a.announce(&mut [&mut b, &mut liar]);
    for n in 0..=3000u16 {
        let [high, low] = n.to_be_bytes();
        let lie = frame(a.mac, [2, 0, 0, 1, high, low], 60, 0);
        liar.send(&lie);
        a.gets(&lie).unwrap();
    }
    assert_eq!(switch.count("liar", "unlearned"), 3001 - 1024);
    b.announce(&mut [&mut a, &mut liar]);
    let before = switch.count("a", "flooded");
    let known = frame(b.mac, a.mac, 60, 2);
    a.send(&known);
    b.gets(&known).unwrap();
    assert_eq!(switch.count("a", "flooded"), before);
}

#[test]
fn the_end_is_orderly_and_the_counters_are_told() {
    let mut switch = Switch::new(&["a", "b"], &[]);
    // Without the event index, for once.
    let plain = Options {
        features: !F_EVENT_IDX,
        ..Options::default()
    };
    let (mut a, mut b) = (
        switch.join_with("a", 1, &plain, 64),
        switch.join_with("b", 2, &plain, 64),
    );
    a.announce(&mut [&mut b]);
    switch.signal(Signal::SIGTERM);
    let status = switch.daemon.wait(LIMIT).unwrap();
    let words = switch.daemon.words();
    assert!(status.success(), "{words}");
    assert!(
        words.contains("port a: 1 frames (60 bytes) from the guest"),
        "{words}"
    );
    let lines = fs::read_to_string(switch.folder.path().join("counters")).unwrap();
    assert_eq!(count(&lines, "a", "bytes"), 60);
    assert_eq!(count(&lines, "a", "flooded"), 1);
    assert!(
        !switch.folder.path().join("a").exists(),
        "its socket is left"
    );
}

#[test]
fn an_idle_switch_sleeps() {
    let mut switch = Switch::new(&["a", "b"], &[]);
    let (mut a, mut b) = (switch.join("a", 1), switch.join("b", 2));
    a.announce(&mut [&mut b]);
    std::thread::sleep(Duration::from_millis(100));
    // Whoever works wakes up first (proc_pid_status(5)).
    let wakes = || -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", switch.daemon.id())).unwrap();
        let of_one = |task: std::io::Result<fs::DirEntry>| -> u64 {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let mut lines = status.lines();
            let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            count.unwrap().trim().parse().unwrap()
        };
        tasks.map(of_one).sum()
    };
    let before = wakes();
    std::thread::sleep(Duration::from_secs(2));
    let woken = wakes() - before;
    assert!(woken <= 10, "woken {woken} times in two seconds");
}
