//! Tests of plans: what comes after each outcome.

use super::*;

const OK: Next = Next::Done(Status::Ok);
const FAILED: Next = Next::Done(Status::IoError);

fn errno(errno: i32) -> io::Result<u32> {
    Err(io::Error::from_raw_os_error(errno))
}

fn range(offset: u64, len: u64, unmap: bool) -> Range {
    Range { offset, len, unmap }
}

#[test]
fn a_short_transfer_goes_on_where_it_stopped() {
    let mut plan = Plan::read(1024, 4096);
    assert_eq!(
        plan.next(),
        Next::Io(HostIo::Read {
            offset: 1024,
            done: 0
        })
    );
    assert_eq!(
        plan.advance(Ok(1000)),
        Next::Io(HostIo::Read {
            offset: 2024,
            done: 1000
        })
    );
    assert_eq!(plan.advance(Ok(3096)), OK);

    let mut plan = Plan::write(0, 512, true);
    let rest = HostIo::Write {
        offset: 100,
        done: 100,
        durable: true,
    };
    assert_eq!(plan.advance(Ok(100)), Next::Io(rest));
    assert_eq!(plan.advance(errno(libc::EINTR)), Next::Io(rest));
    assert_eq!(plan.advance(Ok(412)), OK);
}

#[test]
fn the_end_of_the_file_and_errors_are_io_errors() {
    assert_eq!(Plan::read(0, 512).advance(Ok(0)), FAILED);
    assert_eq!(
        Plan::write(0, 512, false).advance(errno(libc::ENOSPC)),
        FAILED
    );
    assert_eq!(Plan::sync().advance(errno(libc::EIO)), FAILED);
    assert_eq!(Plan::sync().advance(Ok(0)), OK);
    assert_eq!(Plan::read(0, 0).next(), OK);
}

#[test]
fn a_kernel_that_never_stops_saying_again_is_given_up() {
    let mut plan = Plan::read(0, 512);
    let rounds = (0..1000)
        .take_while(|_| plan.advance(errno(libc::EAGAIN)) != FAILED)
        .count();
    assert!((1..100).contains(&rounds), "{rounds}");
}

#[test]
fn ranges_are_zeroed_one_by_one_and_written_out_where_they_must() {
    let ranges = vec![
        range(0, 512, true),
        range(9, 0, true),
        range(1024, 2048, false),
    ];
    let mut plan = Plan::write_zeroes(ranges, false);
    assert_eq!(
        plan.next(),
        Next::Io(HostIo::Punch {
            offset: 0,
            len: 512
        })
    );
    assert_eq!(
        plan.advance(Ok(0)),
        Next::Io(HostIo::ZeroRange {
            offset: 1024,
            len: 2048
        })
    );
    let written = |offset, len| Next::Io(HostIo::WriteZeroes { offset, len });
    assert_eq!(plan.advance(errno(libc::EOPNOTSUPP)), written(1024, 2048));
    assert_eq!(plan.advance(Ok(2000)), written(3024, 48));
    assert_eq!(plan.advance(Ok(48)), OK);
    assert_eq!(
        Plan::write_zeroes(vec![range(0, 512, true)], false).advance(errno(5)),
        FAILED
    );
}

#[test]
fn a_discard_is_advice() {
    let two = || vec![range(0, 512, false), range(1024, 512, false)];
    let mut plan = Plan::discard(two(), true, false);
    assert_eq!(
        plan.next(),
        Next::Io(HostIo::Discard {
            offset: 0,
            len: 512
        })
    );
    let second = Next::Io(HostIo::Discard {
        offset: 1024,
        len: 512,
    });
    assert_eq!(plan.advance(errno(libc::EOPNOTSUPP)), second);
    assert_eq!(plan.advance(errno(libc::EIO)), FAILED);
    assert_eq!(
        Plan::discard(two(), false, false).next(),
        Next::Io(HostIo::Punch {
            offset: 0,
            len: 512
        })
    );
}

#[test]
fn without_flushes_every_change_is_synced() {
    let mut plan = Plan::discard(vec![range(0, 512, false)], false, true);
    assert_eq!(plan.advance(Ok(0)), Next::Io(HostIo::Sync));
    assert_eq!(plan.advance(Ok(0)), OK);
    let mut plan = Plan::write_zeroes(vec![range(0, 512, true)], true);
    assert_eq!(plan.advance(Ok(0)), Next::Io(HostIo::Sync));
}
