//! The wall at each entry: errors and panics become a status, with their reason.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::host;
use crate::abi::raw::*;
use crate::device::{DeviceError, chain};
use crate::worker::Failure;

/// Runs `f` and says why it came to nothing, if it did.
pub(super) fn status(f: impl FnOnce() -> Result<i32, DeviceError>) -> i32 {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            host::say(&chain(&error));
            OUTBOARD_ERROR
        }
        Err(payload) => {
            host::say(&text(&*payload));
            OUTBOARD_PANIC
        }
    }
}

/// Runs `f`; the text of its panic, if it does.
pub(super) fn quietly(f: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| text(&*payload))
}

fn text(payload: &(dyn std::any::Any + Send)) -> String {
    match Failure::panicked(payload) {
        Failure::Panic(text) => text,
        Failure::Error(error) => chain(&error),
    }
}
