//! The options a device declares, and the values it is made from.

use std::path::Path;

use crate::abi::options::{OptionKind, OptionSchema, Value};
use crate::abi::raw::*;
use crate::device::DeviceError;

/// How a device is made: what a plugin or a daemon needs to offer it.
pub trait FromOptions: Sized {
    /// Letters, digits and '-'.
    const NAME: &'static str;
    /// A line for people.
    const SUMMARY: &'static str;
    /// The options it takes, none unless it says so.
    const OPTIONS: &'static [OptionSpec] = &[];

    /// Makes a device. Options are there in the types declared, required ones always.
    fn from_options(options: &Options<'_>) -> Result<Self, DeviceError>;
}

/// One option: its key, its type, and what people are told of it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct OptionSpec(OutboardOption);

impl OptionSpec {
    const fn new(kind: u32, name: &'static str, help: &'static str) -> Self {
        Self(OutboardOption {
            size: size_of::<OutboardOption>() as u32,
            kind,
            flags: 0,
            reserved: 0,
            name: OutboardStr::new(name),
            help: OutboardStr::new(help),
            default_value: OutboardStr::NONE,
        })
    }

    /// Any text.
    pub const fn text(name: &'static str, help: &'static str) -> Self {
        Self::new(OUTBOARD_TEXT, name, help)
    }

    /// `on` or `off`.
    pub const fn bool(name: &'static str, help: &'static str) -> Self {
        Self::new(OUTBOARD_BOOL, name, help)
    }

    /// A whole number.
    pub const fn number(name: &'static str, help: &'static str) -> Self {
        Self::new(OUTBOARD_NUMBER, name, help)
    }

    /// A number of bytes, as people write it: `64K`, `16M`.
    pub const fn size(name: &'static str, help: &'static str) -> Self {
        Self::new(OUTBOARD_SIZE, name, help)
    }

    /// A path.
    pub const fn path(name: &'static str, help: &'static str) -> Self {
        Self::new(OUTBOARD_PATH, name, help)
    }

    /// The device cannot be made without it.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.0.flags |= OUTBOARD_REQUIRED;
        self
    }

    /// What it is when nobody gives it, as a person would write it.
    #[must_use]
    pub const fn default(mut self, value: &'static str) -> Self {
        self.0.default_value = OutboardStr::new(value);
        self
    }

    /// The option as a host knows it.
    pub fn schema(&self) -> OptionSchema {
        // SAFETY: texts that this type was made from.
        let (name, help, default) = unsafe {
            (
                self.0.name.copied(),
                self.0.help.copied(),
                self.0.default_value.copied(),
            )
        };
        OptionSchema {
            name,
            // Made by the constructors above, so it is known.
            kind: OptionKind::from_raw(self.0.kind).unwrap_or(OptionKind::Text),
            required: self.0.flags & OUTBOARD_REQUIRED != 0,
            help,
            default: (!self.0.default_value.data.is_null()).then_some(default),
        }
    }
}

/// The values a device is made from.
#[derive(Debug)]
pub struct Options<'a> {
    schema: Vec<OptionSchema>,
    values: &'a [Value],
}

impl<'a> Options<'a> {
    /// Values in the order of `specs`.
    pub fn new(specs: &[OptionSpec], values: &'a [Value]) -> Self {
        Self {
            schema: specs.iter().map(OptionSpec::schema).collect(),
            values,
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        let place = self.schema.iter().position(|option| option.name == name);
        debug_assert!(place.is_some(), "the option {name} is not declared");
        let value = self.values.get(place?)?;
        value.text.is_some().then_some(value)
    }

    /// The text of an option, of whatever type.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name)?.text.as_deref()
    }

    /// The value of a path.
    pub fn path(&self, name: &str) -> Option<&'a Path> {
        self.text(name).map(Path::new)
    }

    /// The value of a number or size.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name).map(|value| value.number)
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.number(name) == Some(1)
    }
}

/// The values of a call of `create`.
///
/// # Safety
/// `count` values at `values`, with texts as the ABI says.
pub(super) unsafe fn values(values: *const OutboardValue, count: usize) -> Vec<Value> {
    if values.is_null() || count == 0 {
        return Vec::new();
    }
    // SAFETY: the contract.
    let raw = unsafe { std::slice::from_raw_parts(values, count) };
    raw.iter()
        .map(|value| Value {
            // SAFETY: the contract.
            text: (value.set != 0).then(|| unsafe { value.text.copied() }),
            number: value.number,
        })
        .collect()
}
