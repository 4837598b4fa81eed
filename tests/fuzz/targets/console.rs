//! Consoles: what a guest prints arrives as it is, what somebody types arrives in what the guest
//! offers, whatever the buffers are; and the commands that a person types are found however the bytes
//! are cut.
#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use outboard_console::device::{Console, Events};
use outboard_console::escape::{Escape, Typed};
use outboard_console::scrollback::Scrollback;
use outboard_console::size::Size;
use outboard_fuzz::{Buffer, Guest, LIMIT};

const RX: u16 = 0;
const TX: u16 = 1;

#[derive(Debug, Arbitrary)]
enum Life {
    Port(Vec<Op>),
    Typed(Vec<Vec<u8>>),
    Scrollback {
        capacity: u8,
        steps: Vec<(Vec<u8>, u8)>,
    },
}

#[derive(Debug, Arbitrary)]
enum Op {
    Print(Vec<Vec<u8>>),
    Offer(Vec<u8>),
    Type(Vec<u8>),
}

fn port(ops: &[Op]) {
    let (ours, mut far) = UnixStream::pair().unwrap();
    far.set_read_timeout(Some(LIMIT)).unwrap();
    far.set_nonblocking(false).unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut guest = Guest::new(Console::new(ours, Size::default(), Events::default()), 2);
    let (mut typed, mut heard, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for op in ops.iter().take(60) {
        match op {
            Op::Print(parts) => {
                let parts: Vec<_> = parts
                    .iter()
                    .take(8)
                    .cloned()
                    .map(Buffer::Readable)
                    .collect();
                let Some((chain, _)) = guest.chain(&parts).filter(|c| !c.0.is_empty()) else {
                    continue;
                };
                assert_eq!(guest.ask(TX, &chain), 0);
                let printed = parts.iter().flat_map(|part| match part {
                    Buffer::Readable(bytes) => bytes.clone(),
                    Buffer::Writable(_) => Vec::new(),
                });
                let printed: Vec<u8> = printed.collect();
                let mut arrived = vec![0; printed.len()];
                far.read_exact(&mut arrived)
                    .expect("what was printed does not arrive");
                assert_eq!(arrived, printed);
            }
            Op::Offer(lens) => {
                let lens = lens
                    .iter()
                    .take(8)
                    .map(|len| Buffer::Writable((*len).into()));
                let lens: Vec<_> = lens.collect();
                let Some((chain, at)) = guest.chain(&lens).filter(|c| !c.0.is_empty()) else {
                    continue;
                };
                let token = places.len() as u64;
                if guest
                    .driver
                    .queue(RX)
                    .unwrap()
                    .submit(&chain, token)
                    .is_ok()
                {
                    places.push(at);
                }
            }
            Op::Type(bytes) => {
                if typed.len() + bytes.len() < 4096 {
                    far.write_all(bytes).unwrap();
                    typed.extend_from_slice(bytes);
                }
            }
        }
        while let Ok(Some(used)) = guest.driver.queue(RX).unwrap().poll() {
            let all = guest.read(&places[used.token as usize]);
            heard.extend_from_slice(&all[..used.written as usize]);
        }
    }
    assert!(
        typed.starts_with(&heard),
        "the guest hears what nobody typed"
    );
    drop(far);
    guest.end();
}

fn commands(parts: &[Vec<u8>]) {
    let whole = Escape::default().feed(&parts.concat());
    let mut escape = Escape::default();
    let mut cut: Vec<Typed> = Vec::new();
    for part in parts.iter().flat_map(|part| escape.feed(part)) {
        match (cut.last_mut(), part) {
            (Some(Typed::Bytes(before)), Typed::Bytes(more)) => before.extend(more),
            (_, part) => cut.push(part),
        }
    }
    assert_eq!(cut, whole, "what was typed depends on how it arrived");
}

fn scrollback(capacity: usize, steps: &[(Vec<u8>, u8)]) {
    let (mut kept, mut model) = (Scrollback::new(capacity), Vec::new());
    for (bytes, taken) in steps {
        kept.push(bytes);
        model.extend_from_slice(bytes);
        model.drain(..model.len().saturating_sub(capacity));
        assert_eq!(kept.contents(), model);
        assert!(model.starts_with(kept.front()));
        kept.consume((*taken).into());
        model.drain(..model.len().min((*taken).into()));
    }
    assert_eq!(kept.take(), model);
}

fuzz_target!(|life: Life| match life {
    Life::Port(ops) => port(&ops),
    Life::Typed(parts) => commands(&parts),
    Life::Scrollback { capacity, steps } => scrollback(capacity.into(), &steps),
});
