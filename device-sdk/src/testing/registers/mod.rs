//! The conformance kit for devices of registers: what each of them must do, whoever wrote it.
//!
//! The device is a plugin's, as the VMM has it: a shared library, or the same table in this program.
//! [`register_conformance!`](crate::register_conformance) turns every check into a `#[test]`:
//!
//! ```ignore
//! outboard_device::register_conformance!(Registers::of::<MyCard>(&[("irq", "5")], expected()));
//! ```
//!
//! What its registers mean, [`Expected`] says in a few words. Nothing here asserts a time: the limit only bounds
//! how long a device that never returns, or never interrupts, is waited for.

pub mod accesses;
mod board;
pub mod hostile;
pub mod interrupts;
#[cfg(test)]
mod mutants;
#[cfg(test)]
mod reference;
pub mod resets;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::{Failure, Outcome};
use crate::abi::export::{self, BoardDevice, FromOptions};
use crate::abi::host::Plugin;
pub use board::Bench;

/// What a device of registers is expected to be, and how to make it interrupt.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The lengths of access that its registers take, in bytes. Writes of another are dropped.
    pub widths: Vec<usize>,
    /// Offsets of registers of the first width that only change when the guest writes to the device, and
    /// that change nothing when they are read.
    pub plain: Vec<u64>,
    /// What the guest does for the device to interrupt, now or in a while. There is guest memory below
    /// [`MEMORY`].
    pub raise: Vec<Access>,
    /// What it does for the line to go low again. Nothing, where the line goes low by itself, as a pulse.
    pub lower: Vec<Access>,
}

/// An access of the guest's.
#[derive(Clone, Debug)]
pub enum Access {
    /// It reads so many bytes from this offset on.
    Read(u64, usize),
    /// It writes these bytes from this offset on.
    Write(u64, Vec<u8>),
}

impl Access {
    /// A write of a byte.
    pub fn byte(offset: u64, value: u8) -> Self {
        Self::Write(offset, vec![value])
    }

    /// A write of four bytes.
    pub fn word(offset: u64, value: u32) -> Self {
        Self::Write(offset, value.to_le_bytes().to_vec())
    }
}

/// The size of the guest's memory, from 0.
pub const MEMORY: u64 = 1 << 20;

/// How long a device that does not return, or does not interrupt, is waited for.
pub const LIMIT: Duration = Duration::from_secs(10);

/// A device of registers under test.
pub struct Registers {
    plugin: Plugin,
    options: BTreeMap<String, String>,
    pub(super) expected: Expected,
    pub(super) limit: Duration,
}

impl Registers {
    /// The only device of the shared library at `path`, with these options.
    ///
    /// # Errors
    /// It does not load, or offers several devices.
    pub fn load(path: &Path, options: &[(&str, &str)], expected: Expected) -> Outcome<Self> {
        let plugin = Plugin::load(path).map_err(|error| Failure::new(error.to_string()))?;
        plugin
            .device(None)
            .map_err(|error| Failure::new(error.to_string()))?;
        Ok(Self::new(plugin, options, expected))
    }

    /// A device of this program, behind the table that a shared library of it would have.
    ///
    /// # Errors
    /// What it says of itself is no valid table.
    pub fn of<D: BoardDevice + FromOptions>(
        options: &[(&str, &str)],
        expected: Expected,
    ) -> Outcome<Self> {
        let plugin = export::built_in(D::NAME, export::register_device::<D>());
        let plugin = plugin.map_err(|error| Failure::new(error.to_string()))?;
        Ok(Self::new(plugin, options, expected))
    }

    /// The only device of a plugin that is there already, with these options.
    pub fn new(plugin: Plugin, options: &[(&str, &str)], expected: Expected) -> Self {
        let options = options.iter();
        let options = options.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Self {
            plugin,
            options: options.collect(),
            expected,
            limit: LIMIT,
        }
    }

    /// The same; waits no longer than this.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }
}

/// A check: see the modules.
pub type Check = fn(&Registers) -> Outcome;

/// Runs one check and panics with its failure: what `register_conformance!` puts in each test.
///
/// # Panics
/// When the check fails, or there is no device.
#[allow(clippy::panic)] // A test fails by panicking.
pub fn run(name: &str, registers: Outcome<Registers>, check: Check) {
    if let Err(failure) = registers.and_then(|registers| check(&registers)) {
        panic!("{name}: {failure}");
    }
}

/// Calls a macro with every check of the kit for registers, as `module::name,`.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_register_check {
    ($callback:ident! { $($prefix:tt)* }) => {
        $crate::$callback! { $($prefix)*
            accesses::answers_every_access,
            accesses::drops_writes_of_other_widths,
            accesses::reads_change_nothing,
            accesses::shares_nothing_with_another,
            interrupts::keeps_quiet_at_first,
            interrupts::interrupts_when_told,
            interrupts::holds_its_line,
            interrupts::interrupts_again,
            resets::resets_to_power_on,
            resets::forgets_what_was_under_way,
            resets::works_after_a_reset,
            resets::ends_at_any_moment,
            hostile::survives_random_accesses,
            hostile::survives_without_memory,
        }
    };
}

/// Makes a `#[test]` of every check of the kit for registers, each over a device of its own: the value of
/// the given expression, an [`Outcome`] of a
/// [`Registers`], evaluated in each test.
#[macro_export]
macro_rules! register_conformance {
    ($registers:expr) => {
        $crate::for_each_register_check!(__register_tests! { $registers; });
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __register_tests {
    ($registers:expr; $($module:ident::$name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                $crate::testing::registers::run(
                    stringify!($name),
                    $registers,
                    $crate::testing::registers::$module::$name,
                );
            }
        )*
    };
}
