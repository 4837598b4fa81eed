//! What one virtio device sees of the host.

use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::call::no_extension;
use crate::abi::layout::Sized32;
use crate::abi::raw::*;
use crate::device::{DeviceError, DeviceEvents};

/// The table a virtio device is created with, and where its calls go. Shared, for its
/// address.
pub(super) struct Services {
    pub(super) table: OutboardServices,
    /// The connection's; what is announced before there is one goes nowhere.
    events: Mutex<Option<DeviceEvents>>,
    name: String,
}

impl Services {
    pub(super) fn new(name: &str) -> Arc<Self> {
        Arc::new_cyclic(|own: &Weak<Self>| Self {
            table: OutboardServices {
                context: own.as_ptr().cast_mut().cast(),
                config_changed: Some(config_changed),
                failed: Some(failed),
                set_line: Some(set_line),
                set_timer: Some(set_timer),
                watch: Some(watch),
                extension: Some(no_extension),
                ..OutboardServices::zeroed()
            },
            events: Mutex::new(None),
            name: name.to_owned(),
        })
    }

    pub(super) fn attach(&self, events: DeviceEvents) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    }

    fn events(&self) -> Option<DeviceEvents> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The device cannot go on until it is reset.
    pub(super) fn fail(&self, reason: &str) {
        let error = DeviceError::other(reason.to_owned());
        if let Some(events) = self.events() {
            events.failed(&error);
        } else {
            tracing::error!(device = self.name, "{reason}");
        }
    }
}

/// # Safety
/// The context is that of a device that has not been destroyed.
unsafe fn services<'a>(context: *mut c_void) -> &'a Services {
    // SAFETY: the contract; it is dropped after the device.
    unsafe { &*context.cast_const().cast::<Services>() }
}

unsafe extern "C" fn config_changed(context: *mut c_void) {
    // SAFETY: the ABI: not after `destroy`.
    if let Some(events) = unsafe { services(context) }.events() {
        events.config_changed();
    }
}

unsafe extern "C" fn failed(context: *mut c_void, reason: OutboardStr) {
    // SAFETY: as above; a text as the ABI says.
    unsafe { services(context).fail(&reason.copied()) };
}

unsafe extern "C" fn set_line(_context: *mut c_void, _high: u32) {}

unsafe extern "C" fn set_timer(_context: *mut c_void, _nanoseconds: u64) {}

unsafe extern "C" fn watch(_context: *mut c_void, _fd: c_int, _events: u32) -> i32 {
    OUTBOARD_UNSUPPORTED
}
