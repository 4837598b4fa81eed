//! Verbs that ask a running VM for something, by its name.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use outboard::api::{Client, ClientError};
use outboard::config::{Disk, Net, NewDevice, from_keyvals};
use outboard::definitions::DefinitionError;
use outboard::registry::{self, RegistryError};
use outboard::vm::{Info, Plugged};

use super::run::AnyDevice;
use super::say::{self, Output};

/// How long a guest is waited for, to end or to let go of a device.
const GUEST: Duration = Duration::from_mins(1);
/// How long of that without a word.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Why a verb did not do what it says.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Usage(String),
    #[error(
        "The guest has not let go of '{0}' yet; it may be in use, or the guest may not listen to ACPI. \
         The request stands: the device goes when the guest lets go of it, or is reset"
    )]
    Held(String),
    #[error(
        "The guest of '{0}' still runs; it may not heed the power button: outboard destroy {0}"
    )]
    Awake(String),
    #[error("A log cannot be shown")]
    Log(#[source] std::io::Error),
    #[error("The manual pages cannot be written to {}", folder.display())]
    Man {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("The completions cannot be made")]
    Completions(#[source] std::io::Error),
    #[error("The answer cannot be printed")]
    Json(#[from] serde_json::Error),
}

/// Which VM.
#[derive(Args)]
pub(super) struct Named {
    /// The VM's name, as outboard list shows it
    pub(super) name: String,
}

impl Named {
    fn client(&self) -> Result<Client, Error> {
        Ok(registry::find(&self.name)?.client())
    }

    /// Has the VM do something that takes no words.
    pub(super) fn ask(&self, what: &str) -> ExitCode {
        finish(self.client().and_then(|vm| {
            vm.put(what, &())?;
            Ok(String::new())
        }))
    }
}

/// Prints the answer, or what went wrong.
pub(super) fn finish(result: Result<String, Error>) -> ExitCode {
    match result {
        Ok(text) => say::answer(&text, ExitCode::SUCCESS),
        Err(error) => {
            super::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Asks the guest to shut down, by the power button.
#[derive(Args)]
pub(super) struct Shutdown {
    #[command(flatten)]
    vm: Named,
    /// Return when the VM has ended; fails when it has not within a minute
    #[arg(long)]
    wait: bool,
}

impl Shutdown {
    pub(super) fn execute(self) -> ExitCode {
        finish(self.run())
    }

    fn run(self) -> Result<String, Error> {
        self.vm.client()?.put("vm.power-button", &())?;
        let end = Instant::now() + GUEST;
        while self.wait && registry::find(&self.vm.name).is_ok() {
            if Instant::now() >= end {
                return Err(Error::Awake(self.vm.name));
            }
            std::thread::sleep(LOOK);
        }
        Ok(String::new())
    }
}

const ATTACH: &str = "\
Examples:
  outboard attach web --disk path=data.img
  outboard attach web --net tap=tap1,id=backup
  outboard attach web --device plugin=./libramdisk.so,size=64M,host=vmm
  outboard detach web disk1";

/// Plugs one device into a running VM.
#[derive(Args)]
#[command(after_help = ATTACH)]
pub(super) struct Attach {
    #[command(flatten)]
    vm: Named,
    #[command(flatten)]
    device: One,
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Exactly one device.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct One {
    /// A disk, in the words of outboard run
    #[arg(long, value_name = "KEYS", value_parser = |text: &str| from_keyvals::<Disk>(text, Some("path")))]
    disk: Option<Disk>,
    /// A network card
    #[arg(long, value_name = "KEYS", value_parser = |text: &str| from_keyvals::<Net>(text, None))]
    net: Option<Net>,
    /// A device that somebody's daemon serves, or that of a plugin
    #[arg(long, value_name = "KEYS", value_parser = AnyDevice::from_keyvals)]
    device: Option<AnyDevice>,
}

impl Attach {
    pub(super) fn execute(self) -> ExitCode {
        finish(self.run())
    }

    fn run(self) -> Result<String, Error> {
        let One { disk, net, device } = self.device;
        let new = disk.map(NewDevice::Disk).or(net.map(NewDevice::Net));
        let any = |device| match device {
            AnyDevice::Raw(raw) => NewDevice::Raw(*raw),
            AnyDevice::Plugin(plugin) => NewDevice::Plugin(*plugin),
        };
        let Some(mut new) = new.or(device.map(any)) else {
            return Err(Error::Usage("No device is given".into()));
        };
        // The VM's own folder is not where this command was started.
        new.make_absolute();
        let answer = self.vm.client()?.put("outboard.add-device", &new)?;
        let plugged: Plugged = serde_json::from_slice(&answer)?;
        let text = |new: &Plugged| format!("{} is at {}\n", new.id, new.bdf);
        Ok(self.output.of(&plugged, text)?)
    }
}

const DETACH: &str = "\
Waits for the guest, a minute at most. What was asked stands also when this command gives up or is ended before: the device goes when the guest lets go of it, or is reset.";

/// Takes one device out of a running VM, when its guest has let go of it.
#[derive(Args)]
#[command(after_help = DETACH)]
pub(super) struct Detach {
    #[command(flatten)]
    vm: Named,
    /// The device, as outboard info shows it
    id: String,
    /// Do not wait for the guest
    #[arg(long)]
    no_wait: bool,
}

impl Detach {
    pub(super) fn execute(self) -> ExitCode {
        finish(self.run())
    }

    fn run(self) -> Result<String, Error> {
        let vm = self.vm.client()?;
        vm.put("vm.remove-device", &serde_json::json!({ "id": self.id }))?;
        if self.no_wait {
            return Ok(String::new());
        }
        let begin = Instant::now();
        let mut told = false;
        loop {
            let info: Info = vm.get("outboard.info")?;
            if !info.devices.iter().any(|device| device.id == self.id) {
                return Ok(String::new());
            }
            if begin.elapsed() >= GUEST {
                return Err(Error::Held(self.id));
            }
            if begin.elapsed() >= PATIENCE && !told {
                told = true;
                say::complain(&format!(
                    "outboard: Waiting for the guest to let go of '{}', {} s at most; Ctrl-C ends the \
                     wait, and the request stands",
                    self.id,
                    GUEST.as_secs()
                ));
            }
            std::thread::sleep(LOOK);
        }
    }
}
