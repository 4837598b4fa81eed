//! The host's side of the ABI: a plugin's table, checked, and its devices as [`Device`]s and
//! [`RegisterDevice`]s of this SDK, so that they run on the same engine and session as any other.
//!
//! [`Device`]: crate::Device
//! [`RegisterDevice`]: crate::register::RegisterDevice
#![allow(unsafe_code)] // Reads tables that the plugin made, and calls into it.

mod call;
mod device;
mod queues;
mod registers;
mod services;
mod watchdog;
mod worker;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use device::PluginDevice;
pub use registers::{GuestMemory, Place, PluginRegisters, Space, Wiring};
pub use watchdog::CALL_LIMIT;

use super::error::{PluginError, Problem};
use super::layout::{adopt, adopt_all};
use super::load;
use super::options::{self, HOST_KEYS, OptionKind, OptionSchema, Value};
use super::raw::*;

/// A loaded plugin whose table has been checked. It is never unloaded.
#[derive(Debug, Clone)]
pub struct Plugin {
    path: PathBuf,
    /// The plugin's name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// The minor version of the ABI it was built for; may be above this host's.
    pub abi_minor: u32,
    /// What the sandbox must leave: [`OUTBOARD_NEEDS_NET`].
    pub needs: u64,
    /// What it offers, one at least.
    pub devices: Vec<DeviceType>,
}

/// What a plugin's device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A virtio device of this id.
    Virtio(u32),
    /// Registers and an interrupt line.
    Registers,
}

/// A kind of device that a plugin offers.
#[derive(Debug, Clone)]
pub struct DeviceType {
    /// Its name in the plugin.
    pub name: String,
    /// A line for people.
    pub summary: String,
    /// What it is.
    pub kind: Kind,
    /// The options it takes.
    pub options: Vec<OptionSchema>,
    raw: RawDevice,
}

#[derive(Clone, Copy)]
struct RawDevice {
    create: Create,
    destroy: Destroy,
    virtio: *const OutboardVirtio,
    registers: *const OutboardRegisters,
}

type Create = unsafe extern "C" fn(
    *const OutboardServices,
    *const OutboardValue,
    usize,
    *mut *mut c_void,
) -> i32;
type Destroy = unsafe extern "C" fn(*mut c_void);

// SAFETY: functions and tables that are valid for ever and for every thread.
unsafe impl Send for RawDevice {}
// SAFETY: as above.
unsafe impl Sync for RawDevice {}

impl std::fmt::Debug for RawDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawDevice")
    }
}

/// A library in this process, and the plugin it is, or why it is none.
type Loaded = (load::Copy, Result<Plugin, Arc<Problem>>);

/// What this process has loaded. Not locked while code of a plugin's runs: it may never return.
fn loaded() -> MutexGuard<'static, Vec<Loaded>> {
    static LOADED: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());
    LOADED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plugin {
    /// Loads the plugin at `path`, checks its table, and lets it set itself up. A file that holds the
    /// same bytes as one loaded before is the plugin that is there; or is refused as that was, with what
    /// its `init` said the one time it is called.
    ///
    /// Runs the plugin's code in this process.
    ///
    /// # Errors
    /// The file is no plugin, or not one for this host; see [`Problem`].
    pub fn load(path: &Path) -> Result<Self, PluginError> {
        let refuse = |problem| PluginError {
            path: path.to_owned(),
            problem,
        };
        let bytes = load::read(path).map_err(refuse)?;
        let known =
            (loaded().iter()).find_map(|(copy, found)| copy.is_of(&bytes).then(|| found.clone()));
        let found = if let Some(found) = known {
            found
        } else {
            let (copy, table) = load::load(path, &bytes).map_err(refuse)?;
            let plugin = table.and_then(|table| {
                // SAFETY: the plugin's entry has returned it, so it keeps the ABI.
                unsafe { Self::read(table, path) }
            });
            let found = plugin.map_err(Arc::new);
            loaded().push((copy, found.clone()));
            found
        };
        let path = path.to_owned();
        match found {
            Ok(plugin) => Ok(Self { path, ..plugin }),
            Err(problem) => Err(PluginError {
                path,
                problem: Problem::Loaded(problem),
            }),
        }
    }

    /// Checks the table of a plugin that is part of this program, and lets it set itself up: once for a
    /// table. `name` stands for its path.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    ///
    /// # Safety
    /// The table is what a plugin's entry returns, valid for ever.
    pub unsafe fn adopt(table: *const OutboardPlugin, name: &Path) -> Result<Self, PluginError> {
        // SAFETY: the contract.
        let plugin = unsafe { Self::read(table, name) };
        plugin.map_err(|problem| PluginError {
            path: name.to_owned(),
            problem,
        })
    }

    unsafe fn read(table: *const OutboardPlugin, path: &Path) -> Result<Self, Problem> {
        if table.is_null() {
            return Err(Problem::Table("its entry returns NULL".into()));
        }
        // SAFETY: magic and size come first in a table of any version (contract).
        let magic = unsafe { (&raw const (*table).magic).read_unaligned() };
        if magic != OUTBOARD_MAGIC {
            return Err(Problem::Magic(magic));
        }
        // SAFETY: the major version follows; a table that short is none of ours, but its first
        // sixteen bytes can be read, since the magic was right.
        let major = unsafe { (&raw const (*table).abi_major).read_unaligned() };
        if major != OUTBOARD_ABI_MAJOR {
            return Err(Problem::Major(major));
        }
        // SAFETY: a table of this major version, so it has the size it says.
        let table = unsafe { adopt(table) }?;
        if table.required_minor > OUTBOARD_ABI_MINOR {
            return Err(Problem::Minor(table.required_minor));
        }
        // SAFETY: texts and an array as the ABI says.
        let (name, version, devices) = unsafe {
            (
                table.name.copied(),
                table.version.copied(),
                adopt_all(table.devices, table.device_count)?,
            )
        };
        if let Some(init) = table.init {
            let host = call::host(&name);
            // SAFETY: the first call, with a host table that is valid for ever.
            call::checked(|| unsafe { init(host) })
                .map_err(|failed| Problem::Create(failed.into()))?;
        }
        let devices: Vec<DeviceType> = devices
            .iter()
            // SAFETY: a device of the table.
            .map(|device| unsafe { DeviceType::read(device) })
            .collect::<Result<_, _>>()?;
        if devices.is_empty() {
            return Err(Problem::Table("it offers no device".into()));
        }
        Ok(Self {
            path: path.to_owned(),
            name,
            version,
            abi_minor: table.abi_minor,
            needs: table.needs,
            devices,
        })
    }

    /// The device of this name; without one, the only device there is.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn device(&self, name: Option<&str>) -> Result<&DeviceType, PluginError> {
        let names = || self.devices.iter().map(|d| d.name.clone()).collect();
        let found = match name {
            Some(name) => self.devices.iter().find(|d| d.name == name),
            None => self.devices.first().filter(|_| self.devices.len() == 1),
        };
        found.ok_or_else(|| {
            self.refuse(match name {
                Some(name) => Problem::NoDevice {
                    name: name.to_owned(),
                    names: names(),
                },
                None => Problem::Which(names()),
            })
        })
    }

    /// Makes a virtio device with these options.
    ///
    /// # Errors
    /// It is none, the options are wrong, or the plugin refuses.
    pub fn create(
        &self,
        device: &DeviceType,
        given: &BTreeMap<String, String>,
    ) -> Result<PluginDevice, PluginError> {
        let Kind::Virtio(id) = device.kind else {
            return Err(self.refuse(Problem::Table(format!(
                "'{}' is no virtio device",
                device.name
            ))));
        };
        values(device, given)
            .and_then(|values| PluginDevice::create(device, id, &values))
            .map_err(|problem| self.refuse(problem))
    }

    /// Makes a device of registers with these options; its interrupts go to `line` and what it copies
    /// comes from and goes to `memory`.
    ///
    /// # Errors
    /// It is none, the options are wrong, or the plugin refuses.
    pub fn create_registers(
        &self,
        device: &DeviceType,
        given: &BTreeMap<String, String>,
        wiring: impl FnOnce(&Place) -> Wiring,
    ) -> Result<PluginRegisters, PluginError> {
        if device.kind != Kind::Registers {
            return Err(self.refuse(Problem::Table(format!(
                "'{}' is no device of registers",
                device.name
            ))));
        }
        values(device, given)
            .and_then(|values| PluginRegisters::create(device, &values, wiring))
            .map_err(|problem| self.refuse(problem))
    }

    fn refuse(&self, problem: Problem) -> PluginError {
        PluginError {
            path: self.path.clone(),
            problem,
        }
    }
}

fn values(device: &DeviceType, given: &BTreeMap<String, String>) -> Result<Vec<Value>, Problem> {
    options::check(&device.options, given).map_err(Problem::Options)
}

impl DeviceType {
    unsafe fn read(raw: &OutboardDevice) -> Result<Self, Problem> {
        // SAFETY: texts as the ABI says.
        let (name, summary) = unsafe { (raw.name.copied(), raw.summary.copied()) };
        let wrong = |what: &str| Problem::Table(format!("device '{name}' {what}"));
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(wrong("is called by other than letters, digits and '-'"));
        }
        let kind = match raw.kind {
            OUTBOARD_VIRTIO if raw.virtio.is_null() => return Err(wrong("has no virtio table")),
            OUTBOARD_VIRTIO => Kind::Virtio(raw.virtio_id),
            OUTBOARD_REGISTERS if raw.registers.is_null() => {
                return Err(wrong("has no table of registers"));
            }
            OUTBOARD_REGISTERS => Kind::Registers,
            other => {
                return Err(wrong(&format!(
                    "is of kind {other}, which this host does not know"
                )));
            }
        };
        let (Some(create), Some(destroy)) = (raw.create, raw.destroy) else {
            return Err(wrong("cannot be created and destroyed"));
        };
        // SAFETY: an array as the ABI says.
        let options = unsafe { adopt_all(raw.options, raw.option_count) }?;
        let options = options
            .iter()
            .map(|option| {
                // SAFETY: texts as the ABI says.
                let (key, help, default) = unsafe {
                    (
                        option.name.copied(),
                        option.help.copied(),
                        option.default_value.copied(),
                    )
                };
                if HOST_KEYS.contains(&key.as_str()) || key.is_empty() {
                    return Err(wrong(&format!(
                        "has an option '{key}', which is the host's"
                    )));
                }
                let kind = OptionKind::from_raw(option.kind).ok_or_else(|| {
                    wrong(&format!(
                        "has an option '{key}' of an unknown kind, {}",
                        option.kind
                    ))
                })?;
                Ok(OptionSchema {
                    name: key,
                    kind,
                    required: option.flags & OUTBOARD_REQUIRED != 0,
                    help,
                    default: (!option.default_value.data.is_null()).then_some(default),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            summary,
            kind,
            options,
            raw: RawDevice {
                create,
                destroy,
                virtio: raw.virtio,
                registers: raw.registers,
            },
        })
    }

    /// Has the plugin make a device. `services` lives until the device is destroyed.
    fn create(&self, services: &OutboardServices, values: &[Value]) -> Result<Instance, Problem> {
        let raw: Vec<OutboardValue> = values
            .iter()
            .map(|value| OutboardValue {
                number: value.number,
                text: value
                    .text
                    .as_deref()
                    .map_or(OutboardStr::NONE, OutboardStr::new),
                set: u32::from(value.text.is_some()),
                reserved: 0,
            })
            .collect();
        let mut device = std::ptr::null_mut();
        let create = self.raw.create;
        // SAFETY: a value for each option, valid during the call; services that outlive the device.
        let done =
            call::checked(|| unsafe { create(services, raw.as_ptr(), raw.len(), &raw mut device) });
        done.map_err(|failed| Problem::Create(failed.into()))?;
        Ok(Instance {
            device,
            destroy: self.raw.destroy,
            turn: Mutex::new(()),
        })
    }
}

/// A device that a plugin made; destroyed with this value.
struct Instance {
    device: *mut c_void,
    destroy: Destroy,
    /// Held during calls tagged control and device.
    turn: Mutex<()>,
}

// SAFETY: the ABI allows each call on any thread, one at a time where it says so: `turn`.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

impl Instance {
    /// One call on the device at a time.
    fn call<T>(&self, f: impl FnOnce(*mut c_void) -> T) -> T {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        f(self.device)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: made by `create`, destroyed once, and no worker has it any more.
        unsafe { (self.destroy)(self.device) };
    }
}
