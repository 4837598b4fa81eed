//! A port of `outboard-net switch` against the conformance kit, by frames for a port where nobody is.
#![allow(clippy::unwrap_used)] // Tests fail by panicking, their helpers too.

use outboard_device::driver::connection::F_RING_PACKED;
use outboard_device::driver::net::{F_MAC, F_MRG_RXBUF, HEADER_LEN, RX, TX};
use outboard_device::testing::{Expected, Probe};
use outboard_tests::listening::{Listening, SOCKET};

fn endpoint() -> Listening {
    let dir = tempfile::tempdir().unwrap();
    let port = |name: &str| dir.path().join(name).display().to_string();
    let ports = [
        format!("a={},mac=52:54:00:01:02:03", port(SOCKET)),
        format!("b={}", port("b.sock")),
    ];
    let args = ["switch", "--port", &ports[0], "--port", &ports[1]];
    let mut frame = vec![0; HEADER_LEN];
    frame.extend([0xff; 6]);
    frame.extend([0x52, 0x54, 0, 1, 2, 3, 0x88, 0xb5]);
    frame.extend([0x5a; 50]);
    let check = |written: u32, _: &[u8]| match written {
        0 => Ok(()),
        some => Err(format!("{some} bytes written of a frame that is sent")),
    };
    let expected = Expected {
        features: F_RING_PACKED | F_MAC | F_MRG_RXBUF,
        config_len: 12,
        queues: 2,
        max_queue_size: 1024,
        running: vec![RX, TX],
        probe: Probe {
            queue: TX,
            readable: frame,
            writable: 0,
            check,
        },
    };
    Listening::with_socket("outboard-net", args, dir, expected)
}

outboard_device::conformance!(endpoint());
