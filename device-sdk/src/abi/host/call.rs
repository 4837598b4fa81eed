//! What every plugin sees of the host, and how its calls fail.

use std::cell::RefCell;
use std::ffi::c_void;

use tracing::{debug, error, info, trace, warn};

use crate::abi::layout::Sized32;
use crate::abi::raw::*;
use crate::device::DeviceError;

thread_local! {
    /// What the plugin last said of the call this thread is in.
    static REASON: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Longer lines are cut: a plugin may log what a guest made it.
const LINE_MAX: usize = 4096;

/// A call of the plugin's that came to nothing.
#[derive(Debug)]
pub(super) struct Failed(String);

impl From<Failed> for String {
    fn from(failed: Failed) -> Self {
        failed.0
    }
}

impl From<Failed> for DeviceError {
    fn from(failed: Failed) -> Self {
        Self::other(failed.0)
    }
}

/// Makes a call that returns a status.
pub(super) fn checked(f: impl FnOnce() -> i32) -> Result<i32, Failed> {
    REASON.take();
    let status = f();
    if status >= 0 {
        return Ok(status);
    }
    let reason = REASON.take();
    Err(Failed(match (status, reason) {
        (OUTBOARD_PANIC, Some(reason)) => format!("the plugin panicked: {reason}"),
        (OUTBOARD_PANIC, None) => "the plugin panicked".into(),
        (_, Some(reason)) => reason,
        (OUTBOARD_UNSUPPORTED, None) => "the plugin does not support it".into(),
        (other, None) => format!("the plugin returned the error {other} and no reason"),
    }))
}

/// The host table of one plugin, valid for ever.
pub(super) fn host(plugin: &str) -> &'static OutboardHost {
    let name: &'static mut String = Box::leak(Box::new(plugin.to_owned()));
    Box::leak(Box::new(OutboardHost {
        abi_minor: OUTBOARD_ABI_MINOR,
        context: (&raw mut *name).cast(),
        log: Some(log),
        error: Some(say),
        extension: Some(no_extension),
        ..OutboardHost::zeroed()
    }))
}

unsafe extern "C" fn log(
    context: *mut c_void,
    level: u32,
    target: OutboardStr,
    message: OutboardStr,
) {
    // SAFETY: the context is the leaked name; the texts are as the ABI says.
    let (plugin, target, mut message) = unsafe {
        let plugin: &String = &*context.cast();
        (plugin.as_str(), target.copied(), message.copied())
    };
    if message.len() > LINE_MAX {
        let end = (0..=LINE_MAX)
            .rev()
            .find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
    }
    let from = if target.is_empty() { plugin } else { &target };
    match level {
        OUTBOARD_LOG_ERROR => error!(plugin, from, "{message}"),
        OUTBOARD_LOG_WARN => warn!(plugin, from, "{message}"),
        OUTBOARD_LOG_INFO => info!(plugin, from, "{message}"),
        OUTBOARD_LOG_DEBUG => debug!(plugin, from, "{message}"),
        _ => trace!(plugin, from, "{message}"),
    }
}

unsafe extern "C" fn say(_context: *mut c_void, message: OutboardStr) {
    // SAFETY: a text as the ABI says.
    let message = unsafe { message.copied() };
    REASON.set(Some(message));
}

pub(super) unsafe extern "C" fn no_extension(
    _context: *mut c_void,
    _name: OutboardStr,
) -> *const c_void {
    std::ptr::null()
}
