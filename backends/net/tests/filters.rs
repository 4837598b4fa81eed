//! The daemon itself, told on its control queue which frames the guest wants: those come, others do not.
//!
//! Every list of what passes is the proof that the others can fail: the same frames are sent each time.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

mod host;
mod wire;

use std::os::unix::net::UnixListener;
use std::time::Instant;

use outboard_device::driver::net::{RX, Receive, TX};
use outboard_device::driver::{QueueOptions, Segment};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use wire::{F_CTRL_RX, GUEST, Guest, HOST, LIMIT, Peer, frame, listener};

/// The queue after the only pair.
const CONTROL: u16 = 2;
const F_CTRL_VQ: u64 = 1 << 17;
const F_CTRL_VLAN: u64 = 1 << 19;
const F_CTRL_RX_EXTRA: u64 = 1 << 20;
const F_CTRL_MAC_ADDR: u64 = 1 << 23;

/// `VIRTIO_NET_OK` and `VIRTIO_NET_ERR`, and commands (virtio 1.2, section 5.1.6.5).
const OK: u8 = 0;
const ERR: u8 = 1;
const PROMISC: [u8; 2] = [0, 0];
const ALLMULTI: [u8; 2] = [0, 1];
const NOUNI: [u8; 2] = [0, 4];
const NOBCAST: [u8; 2] = [0, 5];
const TABLES: [u8; 2] = [1, 0];
const ADDRESS: [u8; 2] = [1, 1];
const VLAN_ADD: [u8; 2] = [2, 0];
const VLAN_DEL: [u8; 2] = [2, 1];

const OTHER: [u8; 6] = [0x52, 0x54, 0, 7, 7, 7];
const GROUP: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 1];
const ALL: [u8; 6] = [0xff; 6];

struct Bench {
    guest: Guest,
    peer: Peer,
    /// Tells the frames of one round from those of another.
    round: u8,
    _place: (tempfile::TempDir, UnixListener),
}

impl Bench {
    fn new(features: u64) -> Self {
        let (folder, path, listener) = listener();
        let mut guest = Guest::with(&["--stream", &path], features);
        let peer = Peer::accept(&listener);
        start_control(&mut guest);
        Self {
            guest,
            peer,
            round: 0,
            _place: (folder, listener),
        }
    }

    fn command(&mut self, command: [u8; 2], data: &[u8]) -> u8 {
        raw_command(&mut self.guest, &[&command, data].concat())
    }

    /// Sends one frame of each kind, `len` bytes long; returns the kinds that have come.
    fn passing(&mut self, len: usize) -> Vec<&'static str> {
        self.round += 1;
        let tagged = |to: [u8; 6], vlan| {
            let mut frame = frame(to, HOST, len, self.round);
            frame[12..16].copy_from_slice(&[0x81, 0, 0, vlan]);
            frame
        };
        let sent = [
            ("own", frame(GUEST, HOST, len, self.round)),
            ("other", frame(OTHER, HOST, len, self.round)),
            ("group", frame(GROUP, HOST, len, self.round)),
            ("all", frame(ALL, HOST, len, self.round)),
            ("own, VLAN 0", tagged(GUEST, 0)),
            ("own, VLAN 5", tagged(GUEST, 5)),
            ("other, VLAN 5", tagged(OTHER, 5)),
            // One of these passes whatever was asked for; each is shorter than all of the above.
            ("end", frame(GUEST, HOST, 60, self.round)),
            ("end", frame(ALL, HOST, 60, self.round)),
            ("end", frame(OTHER, HOST, 60, self.round)),
        ];
        for (_, frame) in &sent {
            self.peer.send(frame);
        }
        let mut passed = Vec::new();
        loop {
            let got = self.guest.next().data;
            match sent.iter().find(|(_, frame)| *frame == got) {
                Some(("end", _)) => return passed,
                Some((name, _)) => passed.push(*name),
                // Of the round before.
                None => assert_eq!(got.len(), 60),
            }
        }
    }
}

fn start_control(guest: &mut Guest) {
    if guest.driver.has(F_CTRL_VQ) {
        let options = QueueOptions::default();
        guest.driver.start_queue(CONTROL, &options).unwrap();
    }
}

fn raw_command(guest: &mut Guest, bytes: &[u8]) -> u8 {
    let memory = guest.driver.allocate(bytes.len() as u64 + 1, 1).unwrap();
    memory.write(0, bytes);
    memory.write(bytes.len(), &[0xaa]);
    let (at, len) = (memory.addr(), bytes.len() as u32);
    let mut chain = vec![Segment::readable(at, len)];
    chain.retain(|segment| segment.len > 0);
    chain.push(Segment::writable(at + u64::from(len), 1));
    let queue = guest.driver.queue(CONTROL).unwrap();
    queue.submit(&chain, 1).unwrap();
    assert_eq!(queue.wait(LIMIT).unwrap().written, 1);
    memory.to_vec(bytes.len(), 1)[0]
}

fn table(addresses: &[[u8; 6]]) -> Vec<u8> {
    let count = (addresses.len() as u32).to_le_bytes();
    [&count[..], &addresses.concat()].concat()
}

const EVERYTHING: [&str; 7] = [
    "own",
    "other",
    "group",
    "all",
    "own, VLAN 0",
    "own, VLAN 5",
    "other, VLAN 5",
];
const OWN_ONLY: [&str; 3] = ["own", "all", "own, VLAN 0"];

#[test]
fn a_driver_that_cannot_ask_gets_everything() {
    let mut bench = Bench::new(!(F_CTRL_RX | F_CTRL_VLAN));
    assert_eq!(bench.passing(100), EVERYTHING);
    assert_eq!(Bench::new(!F_CTRL_VQ).passing(100), EVERYTHING);
}

#[test]
fn a_driver_gets_what_it_asks_for() {
    let mut bench = Bench::new(u64::MAX);
    let all = F_CTRL_VQ | F_CTRL_RX | F_CTRL_VLAN | F_CTRL_RX_EXTRA | F_CTRL_MAC_ADDR;
    assert!(bench.guest.driver.has(all));
    assert_eq!(bench.passing(100), OWN_ONLY, "before it asks");
    for (command, data, expected) in [
        (PROMISC, vec![1], &EVERYTHING[..]),
        (PROMISC, vec![0], &OWN_ONLY),
        (ALLMULTI, vec![1], &["own", "group", "all", "own, VLAN 0"]),
        (ALLMULTI, vec![0], &OWN_ONLY),
        (NOBCAST, vec![1], &["own", "own, VLAN 0"]),
        (NOBCAST, vec![0], &OWN_ONLY),
        (NOUNI, vec![1], &["all"]),
        (NOUNI, vec![0], &OWN_ONLY),
        (
            VLAN_ADD,
            vec![5, 0],
            &["own", "all", "own, VLAN 0", "own, VLAN 5"],
        ),
        (
            TABLES,
            [table(&[OTHER]), table(&[GROUP])].concat(),
            &EVERYTHING,
        ),
        (
            TABLES,
            [table(&[]), table(&[HOST, GROUP])].concat(),
            &["own", "group", "all", "own, VLAN 0", "own, VLAN 5"],
        ),
        (
            VLAN_DEL,
            vec![5, 0],
            &["own", "group", "all", "own, VLAN 0"],
        ),
        // More than is kept: all of the kind.
        (
            TABLES,
            [table(&[[2; 6]; 300]), table(&[])].concat(),
            &["own", "other", "all", "own, VLAN 0"],
        ),
        (TABLES, [table(&[]), table(&[])].concat(), &OWN_ONLY),
    ] {
        assert_eq!(bench.command(command, &data), OK, "{command:?} {data:?}");
        assert_eq!(bench.passing(100), expected, "{command:?} {data:?}");
    }
}

#[test]
fn commands_that_make_no_sense_change_nothing() {
    let mut bench = Bench::new(u64::MAX);
    let mut short = [table(&[OTHER]), table(&[GROUP])].concat();
    let long = [&short[..], &[0]].concat();
    short.pop();
    for (command, data) in [
        (PROMISC, vec![]),
        (PROMISC, vec![2]),
        (PROMISC, vec![1, 0]),
        ([0, 6], vec![1]),
        ([0, 200], vec![1]),
        (TABLES, vec![]),
        (TABLES, table(&[OTHER])),
        (TABLES, short),
        (TABLES, long),
        (TABLES, vec![0xff; 4]),
        (TABLES, [&[0xff, 0xff, 0xff, 0x7f][..], &[2; 5000]].concat()),
        (ADDRESS, OTHER[..5].to_vec()),
        (ADDRESS, GROUP.to_vec()),
        (ADDRESS, vec![0; 6]),
        (VLAN_ADD, vec![5]),
        (VLAN_ADD, vec![0, 0x10]),
        ([2, 2], vec![5, 0]),
    ] {
        assert_eq!(bench.command(command, &data), ERR, "{command:?} {data:?}");
    }
    assert_eq!(bench.passing(100), OWN_ONLY);
    // Nor do those whose feature was not agreed on.
    for (without, command, data) in [
        (F_CTRL_RX, ALLMULTI, vec![1]),
        (F_CTRL_RX, TABLES, vec![0; 8]),
        (F_CTRL_RX_EXTRA, NOUNI, vec![1]),
        (F_CTRL_MAC_ADDR, ADDRESS, OTHER.to_vec()),
        (F_CTRL_VLAN, VLAN_ADD, vec![5, 0]),
    ] {
        let mut bench = Bench::new(!without);
        assert_eq!(bench.command(command, &data), ERR, "{command:?}");
    }
}

#[test]
fn a_card_takes_another_address_until_it_is_reset() {
    let mut bench = Bench::new(u64::MAX);
    let address = |bench: &mut Bench| {
        let mut address = [0; 6];
        bench.guest.driver.read_config(0, &mut address).unwrap();
        address
    };
    let changes = bench.guest.driver.connection().config_changes();
    assert_eq!(bench.command(ADDRESS, &OTHER), OK);
    assert_eq!(address(&mut bench), OTHER);
    assert_eq!(bench.passing(100), ["other", "all"]);
    let end = Instant::now() + LIMIT;
    while bench.guest.driver.connection().config_changes() == changes {
        assert!(Instant::now() < end, "nobody is told");
    }
    bench.guest.driver.reset().unwrap();
    assert_eq!(address(&mut bench), GUEST);
}

/// Frames that do not fit the buffers at hand begin in one buffer and go on in others, or in memory of
/// the card.
#[test]
fn frames_are_judged_wherever_they_lie() {
    for (ring, each, len, expected) in [
        (128, 13, 200, &OWN_ONLY[..]),
        // No frame of this length fits the whole ring; what is to come after them does.
        (8, 12, 200, &[]),
    ] {
        let mut bench = Bench::new(u64::MAX);
        let guest = &mut bench.guest;
        guest.driver.stop_queue(RX).unwrap();
        let options = QueueOptions {
            size: ring,
            ..QueueOptions::default()
        };
        guest.driver.start_queue(RX, &options).unwrap();
        guest.receive = Receive::new(&mut guest.driver, RX, ring, each).unwrap();
        assert_eq!(bench.passing(len), expected, "{ring} buffers of {each}");
        assert_eq!(bench.command(ADDRESS, &OTHER), OK);
        let expected: &[&str] = if expected.is_empty() {
            &[]
        } else {
            &["other", "all"]
        };
        assert_eq!(bench.passing(len), expected, "{ring} buffers of {each}");
    }
}

#[test]
fn a_tap_is_filtered_like_a_stream() {
    let Some(tap) = host::Tap::up(format!("ob{}f", std::process::id()), &[]) else {
        return;
    };
    let mut guest = Guest::with(&["--tap", &tap.0], u64::MAX);
    start_control(&mut guest);
    let network = host::PacketSocket::on(&tap.0, host::ETHERTYPE).unwrap();
    let (unwanted, wanted) = (frame(OTHER, HOST, 900, 1), frame(GUEST, HOST, 300, 2));
    for promiscuous in [false, true, false] {
        let on = [u8::from(promiscuous)];
        assert_eq!(raw_command(&mut guest, &[&PROMISC[..], &on].concat()), OK);
        network.send(&unwanted);
        network.send(&wanted);
        if promiscuous {
            assert!(guest.next().data == unwanted);
        }
        assert!(guest.next().data == wanted, "promiscuous {promiscuous}");
    }
}

#[test]
fn no_command_is_harmful() {
    let mut bench = Bench::new(u64::MAX);
    let command = (
        0..6u8,
        0..7u8,
        prop::collection::vec(any::<u8>(), 0..100),
        0..4u8,
    );
    let mut runner = TestRunner::default();
    let guest = std::cell::RefCell::new(&mut bench.guest);
    runner
        .run(&command, |(class, command, mut data, count)| {
            // Counts that some of the data bear out.
            if let (1, Some(bytes)) = (class, data.first_chunk_mut()) {
                *bytes = u32::from(count).to_le_bytes();
            }
            let answer = raw_command(
                *guest.borrow_mut(),
                &[&[class, command], &data[..]].concat(),
            );
            prop_assert!(answer == OK || answer == ERR);
            Ok(())
        })
        .unwrap();
    assert!(bench.guest.daemon.is_alive());
    bench.guest.driver.reset().unwrap();
    for queue in [RX, TX, CONTROL] {
        let options = QueueOptions::default();
        bench.guest.driver.start_queue(queue, &options).unwrap();
    }
    bench.guest.receive = Receive::new(&mut bench.guest.driver, RX, 64, 2048).unwrap();
    assert_eq!(bench.passing(100), OWN_ONLY);
}
