//! The plugin's side: [`export_plugin!`](crate::export_plugin) makes a plugin of devices written
//! against this SDK.
//!
//! A device is offered by what it needs to be made: [`FromOptions`]. That is all a plugin adds to a
//! [`Device`](crate::Device); [`daemon::main`](crate::daemon::main()) makes a stand-alone daemon of the
//! same. Registers are offered as a [`BoardDevice`].
//!
//! Each entry catches panics: the device fails, the host goes on. That is why a plugin built with
//! `panic=abort` is refused.
#![allow(unsafe_code)] // Functions that C calls.

mod asynchronous;
mod guard;
mod host;
mod options;
mod registers;
mod virtio;
mod worker;

pub use host::init;
pub use options::{FromOptions, OptionSpec, Options};
pub use registers::{Board, BoardDevice};

use std::path::Path;

use super::error::PluginError;
use super::host::Plugin;
use super::raw::*;

/// The entry of a virtio device in a plugin's table.
pub const fn virtio_device<D: crate::Device + FromOptions>(virtio_id: u32) -> OutboardDevice {
    OutboardDevice {
        virtio_id,
        kind: OUTBOARD_VIRTIO,
        create: Some(virtio::create::<D>),
        destroy: Some(virtio::destroy::<D>),
        virtio: &<virtio::Exported<D> as virtio::Table>::TABLE,
        ..described::<D>()
    }
}

/// The entry of a device of registers in a plugin's table.
pub const fn register_device<D: BoardDevice + FromOptions>() -> OutboardDevice {
    OutboardDevice {
        kind: OUTBOARD_REGISTERS,
        create: Some(registers::create::<D>),
        destroy: Some(registers::destroy::<D>),
        registers: &<registers::Exported<D> as registers::Table>::TABLE,
        ..described::<D>()
    }
}

const fn described<D: FromOptions>() -> OutboardDevice {
    OutboardDevice {
        size: size_of::<OutboardDevice>() as u32,
        kind: 0,
        virtio_id: 0,
        reserved: 0,
        name: OutboardStr::new(D::NAME),
        summary: OutboardStr::new(D::SUMMARY),
        options: D::OPTIONS.as_ptr().cast(),
        option_count: D::OPTIONS.len(),
        create: None,
        destroy: None,
        virtio: std::ptr::null(),
        registers: std::ptr::null(),
        extension: None,
    }
}

/// A plugin's table, of devices that are valid for ever.
pub const fn plugin(
    name: &'static str,
    version: &'static str,
    needs: u64,
    devices: &'static [OutboardDevice],
) -> OutboardPlugin {
    OutboardPlugin {
        size: size_of::<OutboardPlugin>() as u32,
        magic: OUTBOARD_MAGIC,
        abi_major: OUTBOARD_ABI_MAJOR,
        abi_minor: OUTBOARD_ABI_MINOR,
        required_minor: 0,
        reserved: 0,
        needs,
        name: OutboardStr::new(name),
        version: OutboardStr::new(version),
        devices: devices.as_ptr(),
        device_count: devices.len(),
        init: Some(host::init),
        extension: None,
    }
}

/// The plugin that offers this device alone, in this program: loaded as a shared library's table is, and never
/// unloaded.
///
/// # Errors
/// What the device says of itself is no valid table.
pub fn built_in(name: &'static str, device: OutboardDevice) -> Result<Plugin, PluginError> {
    let devices: &'static [OutboardDevice] = Box::leak(Box::new([device]));
    let table = plugin(name, env!("CARGO_PKG_VERSION"), 0, devices);
    let table: &'static OutboardPlugin = Box::leak(Box::new(table));
    // SAFETY: a table that is valid for ever, as `plugin` makes it of entries of this program.
    unsafe { Plugin::adopt(table, Path::new(name)) }
}

/// Makes the crate a plugin that offers these devices; for a crate of type `cdylib`, once.
///
/// A virtio device is a [`Device`](crate::Device) and [`FromOptions`], named with its virtio device id;
/// registers are a [`BoardDevice`] and `FromOptions`. The plugin has the name and version of the crate.
/// `needs(net)` in front asks `outboard-plugin-host` to leave the network within reach.
///
/// ```ignore
/// outboard_device::export_plugin! { virtio 4: Entropy }
/// outboard_device::export_plugin! { needs(net), virtio 1: Card, registers: Uart }
/// ```
#[macro_export]
macro_rules! export_plugin {
    (needs(net), $($devices:tt)*) => {
        $crate::__export_plugin!($crate::abi::raw::OUTBOARD_NEEDS_NET; []; $($devices)*);
    };
    ($($devices:tt)*) => {
        $crate::__export_plugin!(0; []; $($devices)*);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_plugin {
    ($needs:expr; [$($done:expr,)*]; virtio $id:literal: $device:ty $(, $($rest:tt)*)?) => {
        $crate::__export_plugin!(
            $needs; [$($done,)* $crate::abi::export::virtio_device::<$device>($id),]; $($($rest)*)?
        );
    };
    ($needs:expr; [$($done:expr,)*]; registers: $device:ty $(, $($rest:tt)*)?) => {
        $crate::__export_plugin!(
            $needs; [$($done,)* $crate::abi::export::register_device::<$device>(),]; $($($rest)*)?
        );
    };
    ($needs:expr; [$($done:expr,)*];) => {
        #[cfg(panic = "abort")]
        compile_error!(
            "a plugin must be built with panic=unwind: with panic=abort, a panic in the device would end the VM"
        );

        /// The plugin's table, as the entry returns it.
        pub static OUTBOARD_PLUGIN: $crate::abi::raw::OutboardPlugin = {
            static DEVICES: &[$crate::abi::raw::OutboardDevice] = &[$($done,)*];
            $crate::abi::export::plugin(
                env!("CARGO_PKG_NAME"),
                env!("CARGO_PKG_VERSION"),
                $needs,
                DEVICES,
            )
        };

        /// The plugin's entry, by the name that hosts look for.
        #[unsafe(no_mangle)]
        pub extern "C" fn outboard_plugin_entry_v1() -> *const $crate::abi::raw::OutboardPlugin {
            &raw const OUTBOARD_PLUGIN
        }
    };
}
