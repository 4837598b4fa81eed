//! `outboard-net` against the conformance kit, by frames sent to a tap that nobody listens on.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use outboard_device::driver::connection::F_RING_PACKED;
use outboard_device::driver::net::{F_MAC, F_MRG_RXBUF, HEADER_LEN, RX, TX};
use outboard_device::testing::{Expected, Probe};
use outboard_tests::listening::Listening;

/// Endpoints made so far: each has a tap of its own.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// `None` where no tap can be made, which needs the right to do so.
fn endpoint() -> Option<Listening> {
    if let Err(reason) = can_make_taps() {
        let _ = writeln!(io::stderr(), "SKIPPED: no tap can be made here: {reason}");
        return None;
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let tap = format!("ob{}c{count}", std::process::id());
    let args = ["--tap", &tap, "--create", "--mac", "52:54:00:01:02:03"];
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
        queues: 3,
        max_queue_size: 1024,
        running: vec![RX, TX],
        probe: Probe {
            queue: TX,
            readable: frame,
            writable: 0,
            check,
        },
    };
    let dir = tempfile::tempdir().unwrap();
    Some(Listening::start("outboard-net", args, dir, expected))
}

/// Whether the kernel lets us make one; it goes again with the file.
fn can_make_taps() -> io::Result<()> {
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // IFF_TAP | IFF_NO_PI, with a name of the kernel's choice (an `ifreq`).
    let mut request = [0u8; 40];
    request[16..18].copy_from_slice(&0x1002u16.to_ne_bytes());
    set_interface(&file, &mut request)
}

#[allow(unsafe_code)] // The ioctl has no safe form.
fn set_interface(file: &File, request: &mut [u8; 40]) -> io::Result<()> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which is 40 bytes long.
    match unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

outboard_device::conformance!(if available endpoint());
