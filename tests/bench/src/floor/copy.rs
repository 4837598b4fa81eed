//! One copy of the data, and nothing else.

use std::hint::black_box;
use std::sync::atomic::AtomicBool;

use super::repeat;
use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::run::Conditions;

/// Copied from: more than caches hold.
const SOURCE: usize = 256 << 20;

/// Measures copies of `size`, each from another place.
pub fn run(size: Bytes, how: &Conditions, stop: &AtomicBool) -> Result<Figures> {
    how.affinity.backend.hold_this_thread()?;
    let Bytes(bytes) = size;
    let len = bytes as usize;
    let places = SOURCE / len.max(1);
    if len == 0 || places == 0 {
        return Err(Error::Unfit(format!("no copy of {size} can be measured")));
    }
    // Written to, so that each page is its own.
    let source = vec![1u8; SOURCE];
    let mut target = vec![0u8; len];
    let mut random = fastrand::Rng::with_seed(1);
    repeat(how, stop, bytes, || {
        let at = random.usize(..places) * len;
        if let Some(from) = source.get(at..at + len) {
            target.copy_from_slice(from);
            black_box(&mut target);
        }
        Ok(())
    })
}
