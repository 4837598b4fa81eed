//! Frames through a tap's descriptor and no ring: what a card on a tap costs at least.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::AtomicBool;

use super::repeat;
use crate::case::{Case, Op};
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::load::frame;
use crate::run::Conditions;
use crate::wire::{Peer, Tap};

/// Writes frames, or reads what the other end sends, one at a time where the backend would run.
pub(super) fn run(name: &str, case: &Case, how: &Conditions, stop: &AtomicBool) -> Result<Figures> {
    let tap = Tap::up(name)?;
    let mut queue = tap.attach()?;
    how.affinity.backend.hold_this_thread()?;
    let size = case.size.0;
    let sent = frame(size as usize, 0);
    if case.op == Op::Write {
        return repeat(how, stop, size, || {
            let written = queue.write(&sent).map(drop);
            written.map_err(Error::system("write to a tap"))
        });
    }
    let _peer = Peer::flood(&tap, &how.affinity.backend, sent)?;
    let mut frame = vec![0; 1 << 16];
    repeat(how, stop, size, || match queue.read(&mut frame) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        Err(error) => Err(Error::system("read from a tap")(error)),
    })
}
