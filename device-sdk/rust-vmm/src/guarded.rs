//! Calls into the backend, whose panics become errors.
//!
//! Most backends are behind a lock, which a panic poisons: the next call would panic too, on a thread that
//! has better things to do. So a backend that has panicked is not called again.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use outboard_device::DeviceError;

/// A backend, and whether it has panicked.
#[derive(Debug)]
pub(crate) struct Guarded<B> {
    backend: B,
    panicked: AtomicBool,
}

impl<B> Guarded<B> {
    pub(crate) fn new(backend: B) -> Self {
        Self {
            backend,
            panicked: AtomicBool::new(false),
        }
    }

    pub(crate) fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }

    /// Calls it, unless it has panicked before.
    pub(crate) fn call<T>(&self, f: impl FnOnce(&B) -> T) -> Result<T, DeviceError> {
        if self.has_panicked() {
            return Err(DeviceError::other(
                "the backend has panicked, and is not called again before a reset",
            ));
        }
        catch_unwind(AssertUnwindSafe(|| f(&self.backend))).map_err(|payload| {
            self.panicked.store(true, Ordering::Release);
            DeviceError::other(format!("the backend panicked: {}", text(&*payload)))
        })
    }
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
