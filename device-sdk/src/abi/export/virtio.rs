//! A [`Device`] behind the table of a virtio device.

use std::ffi::c_void;

use super::options::{FromOptions, Options, values};
use super::worker::ExportedWorker;
use super::{guard, worker};
use crate::abi::layout::adopt;
use crate::abi::raw::*;
use crate::device::{Device, DeviceError, DeviceEvents};

/// What the host's pointer points to.
pub(super) struct Exported<D> {
    device: D,
    groups: Vec<u16>,
    services: OutboardServices,
}

/// The table of a type of device.
pub(super) trait Table {
    const TABLE: OutboardVirtio;
}

impl<D: Device> Table for Exported<D> {
    const TABLE: OutboardVirtio = OutboardVirtio {
        size: size_of::<OutboardVirtio>() as u32,
        reserved: 0,
        describe: Some(describe::<D>),
        read_config: Some(read_config::<D>),
        write_config: Some(write_config::<D>),
        set_features: Some(set_features::<D>),
        start: Some(start::<D>),
        stop: Some(stop::<D>),
        reset: Some(reset::<D>),
        save: Some(save::<D>),
        restore: Some(restore::<D>),
    };
}

pub(super) unsafe extern "C" fn create<D: Device + FromOptions>(
    services: *const OutboardServices,
    given: *const OutboardValue,
    count: usize,
    device: *mut *mut c_void,
) -> i32 {
    guard::status(|| {
        // SAFETY: the ABI: the host's services and values.
        let (services, given) = unsafe {
            (
                adopt(services).map_err(DeviceError::other)?,
                values(given, count),
            )
        };
        let mut made = D::from_options(&Options::new(D::OPTIONS, &given))?;
        made.attach(events(services));
        let exported = Box::new(Exported {
            groups: made.queue_groups(),
            device: made,
            services,
        });
        // SAFETY: the ABI: a place for it.
        unsafe { *device = Box::into_raw(exported).cast() };
        Ok(OUTBOARD_OK)
    })
}

pub(super) unsafe extern "C" fn destroy<D: Device>(device: *mut c_void) {
    // SAFETY: made by `create`, destroyed once.
    let exported = unsafe { Box::from_raw(device.cast::<Exported<D>>()) };
    let _ = guard::quietly(|| drop(exported));
}

/// The device's way to announce things: the host's services, which live as long as the device.
fn events(services: OutboardServices) -> DeviceEvents {
    let services = std::sync::Arc::new(services);
    let own = services.clone();
    let changed = move || {
        let services = &*own;
        if let Some(changed) = services.config_changed {
            // SAFETY: the device is there, so its services are; any thread may call.
            unsafe { changed(services.context) };
        }
    };
    DeviceEvents::new(changed)
        .on_failure(move |error| fail(&services, &crate::device::chain(error)))
}

pub(super) fn fail(services: &OutboardServices, reason: &str) {
    if let Some(failed) = services.failed {
        // SAFETY: as above.
        unsafe { failed(services.context, OutboardStr::new(reason)) };
    }
}

/// # Safety
/// A device of `create::<D>`, not destroyed, and no other control call on it is in progress.
unsafe fn exported<'a, D>(device: *mut c_void) -> &'a mut Exported<D> {
    // SAFETY: the contract.
    unsafe { &mut *device.cast() }
}

/// Makes a call that returns nothing: a panic fails the device.
unsafe fn plainly<D>(device: *mut c_void, f: impl FnOnce(&mut D)) {
    // SAFETY: the ABI, as for `exported`.
    let exported = unsafe { exported::<D>(device) };
    let own = &mut exported.device;
    if let Err(text) = guard::quietly(|| f(own)) {
        fail(&exported.services, &format!("the plugin panicked: {text}"));
    }
}

unsafe extern "C" fn describe<D: Device>(
    device: *mut c_void,
    info: *mut OutboardVirtioInfo,
) -> i32 {
    guard::status(|| {
        // SAFETY: the ABI: a device of this table, and a struct of version 1.0 at least.
        let (exported, info) = unsafe { (exported::<D>(device), &mut *info) };
        info.config_len = exported.device.config_len();
        info.features = exported.device.features();
        info.groups = exported.groups.as_ptr();
        info.group_count = exported.groups.len();
        info.max_queue_size = u32::from(exported.device.max_queue_size());
        Ok(OUTBOARD_OK)
    })
}

unsafe extern "C" fn read_config<D: Device>(
    device: *mut c_void,
    offset: u32,
    data: *mut u8,
    len: usize,
) {
    // SAFETY: the ABI: a device of this table, and `len` bytes.
    unsafe {
        let data = std::slice::from_raw_parts_mut(data, len);
        plainly::<D>(device, |device| device.read_config(offset, data));
    }
}

unsafe extern "C" fn write_config<D: Device>(
    device: *mut c_void,
    offset: u32,
    data: *const u8,
    len: usize,
) {
    // SAFETY: as above.
    unsafe {
        let data = std::slice::from_raw_parts(data, len);
        plainly::<D>(device, |device| device.write_config(offset, data));
    }
}

unsafe extern "C" fn set_features<D: Device>(device: *mut c_void, features: u64) -> i32 {
    guard::status(|| {
        // SAFETY: as above.
        unsafe { exported::<D>(device) }
            .device
            .set_features(features)?;
        Ok(OUTBOARD_OK)
    })
}

unsafe extern "C" fn start<D: Device>(
    device: *mut c_void,
    group: u32,
    into: *mut OutboardWorker,
) -> i32 {
    guard::status(|| {
        // SAFETY: as above, and a struct of version 1.0 at least.
        let (exported, into) = unsafe { (exported::<D>(device), &mut *into) };
        worker::fill(into, exported.device.start(group as usize)?)?;
        Ok(OUTBOARD_OK)
    })
}

unsafe extern "C" fn stop<D: Device>(device: *mut c_void, group: u32, worker: *mut c_void) {
    // SAFETY: made by `start`, and its thread has ended.
    let worker = unsafe { Box::from_raw(worker.cast::<ExportedWorker>()) };
    let stop = |device: &mut D| {
        if let Some(worker) = worker.take() {
            device.stop(group as usize, worker);
        }
    };
    // SAFETY: as above.
    unsafe { plainly::<D>(device, stop) };
}

unsafe extern "C" fn reset<D: Device>(device: *mut c_void) {
    // SAFETY: as above.
    unsafe { plainly::<D>(device, D::reset) };
}

unsafe extern "C" fn save<D: Device>(device: *mut c_void, sink: *const OutboardSink) -> i32 {
    guard::status(|| {
        // SAFETY: as above, and the host's sink.
        let (exported, sink) = unsafe { (exported::<D>(device), adopt(sink)) };
        let sink = sink.map_err(DeviceError::other)?;
        let state = exported.device.save()?;
        let Some(write) = sink.write else {
            return Ok(OUTBOARD_UNSUPPORTED);
        };
        // SAFETY: the ABI: the sink is valid during this call; a slice.
        Ok(unsafe { write(sink.context, state.as_ptr(), state.len()) })
    })
}

unsafe extern "C" fn restore<D: Device>(device: *mut c_void, data: *const u8, len: usize) -> i32 {
    guard::status(|| {
        let state = match len {
            0 => &[][..],
            // SAFETY: the ABI: `len` bytes.
            len => unsafe { std::slice::from_raw_parts(data, len) },
        };
        // SAFETY: as above.
        unsafe { exported::<D>(device) }.device.restore(state)?;
        Ok(OUTBOARD_OK)
    })
}
