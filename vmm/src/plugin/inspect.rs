//! What a plugin offers, asked in a process of its own: loading a plugin runs its code.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use outboard_device::abi::host::{Kind, Plugin};
use outboard_device::abi::options::OptionSchema;
use serde::{Deserialize, Serialize};

/// How long a plugin may take to be loaded.
const LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const STEP: Duration = Duration::from_millis(2);
/// The most that is kept of what it says.
const MOST_SAID: usize = 1 << 20;

/// The hidden verb by which this program asks itself.
pub const VERB: &str = "inspect-here";

/// A plugin, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The minor version of the ABI it was built for.
    pub abi_minor: u32,
    /// It asks for the network.
    pub needs_net: bool,
    /// Its devices.
    pub devices: Vec<InspectedDevice>,
}

/// A device of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedDevice {
    /// Its name.
    pub name: String,
    /// A line for people.
    pub summary: String,
    /// What it is.
    pub kind: InspectedKind,
    /// The options it takes.
    pub options: Vec<InspectedOption>,
}

/// What a plugin's device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InspectedKind {
    /// A virtio device of this id.
    Virtio(u32),
    /// Registers and an interrupt line.
    Registers,
}

/// An option of a plugin's device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedOption {
    /// The key.
    pub name: String,
    /// How a value is written: `SIZE`.
    pub value: String,
    /// It must be given.
    pub required: bool,
    /// A line for people.
    pub help: String,
    /// What it is when nobody gives it.
    pub default: Option<String>,
}

impl From<&OptionSchema> for InspectedOption {
    fn from(option: &OptionSchema) -> Self {
        Self {
            name: option.name.clone(),
            value: option.kind.metavar().to_owned(),
            required: option.required,
            help: option.help.clone(),
            default: option.default.clone(),
        }
    }
}

impl From<&Plugin> for Inspected {
    fn from(plugin: &Plugin) -> Self {
        let devices = plugin.devices.iter().map(|device| InspectedDevice {
            name: device.name.clone(),
            summary: device.summary.clone(),
            kind: match device.kind {
                Kind::Virtio(id) => InspectedKind::Virtio(id),
                Kind::Registers => InspectedKind::Registers,
            },
            options: device.options.iter().map(InspectedOption::from).collect(),
        });
        Self {
            name: plugin.name.clone(),
            version: plugin.version.clone(),
            abi_minor: plugin.abi_minor,
            needs_net: plugin.needs & outboard_device::abi::raw::OUTBOARD_NEEDS_NET != 0,
            devices: devices.collect(),
        }
    }
}

/// Loads the plugin into this process and describes it; see [`inspect`] for one that may do harm. The process
/// ends with the thread that started it.
///
/// # Errors
/// Why it does not load here, as a sentence.
pub fn inspect_here(path: &Path) -> Result<Inspected, String> {
    // In a process group of its own it hears no Ctrl-C.
    let _ = set_pdeathsig(Signal::SIGKILL);
    let plugin = Plugin::load(path).map_err(|error| error.to_string())?;
    Ok(Inspected::from(&plugin))
}

/// Asks a process of this program what the plugin offers.
///
/// # Errors
/// Why it does not load here, as a sentence.
pub fn inspect(path: &Path) -> Result<Inspected, String> {
    inspect_unless(path, &|| false)
}

/// The same; gives up when `cancelled` says so.
///
/// # Errors
/// As for [`inspect`].
pub fn inspect_unless(path: &Path, cancelled: &dyn Fn() -> bool) -> Result<Inspected, String> {
    let what = |why: String| format!("the plugin {} {why}", path.display());
    let own = std::env::current_exe().map_err(|e| what(format!("cannot be inspected: {e}")))?;
    let child = Command::new(own)
        .args(["plugin", VERB, "--"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let failed = |e: io::Error| what(format!("cannot be inspected: {e}"));
    let mut child = child.map_err(failed)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let listen = || io::Result::Ok((Said::new(out)?, Said::new(err)?));
    let (status, said) = match listen() {
        Ok((mut out, mut err)) => {
            let status = wait(&mut child, [&mut out, &mut err], cancelled);
            (status, Ok((out.text(), err.text())))
        }
        Err(error) => (end(&mut child), Err(error)),
    };
    let (out, err) = said.map_err(failed)?;
    match status {
        Some(status) if status.success() => serde_json::from_str(&out).map_err(|e| {
            what(format!(
                "describes itself in a way that cannot be read: {e}"
            ))
        }),
        // It says what is wrong, itself.
        Some(status) if status.code() == Some(1) && !out.trim().is_empty() => {
            Err(out.trim().to_owned())
        }
        Some(status) => Err(what(format!(
            "ends the process it is loaded into ({status}){}",
            quoted(&err)
        ))),
        None => Err(what(format!(
            "has not finished loading after {} s{}",
            LIMIT.as_secs(),
            quoted(&err)
        ))),
    }
}

fn quoted(words: &str) -> String {
    match words.trim() {
        "" => String::new(),
        words => format!("; its last words:\n{words}"),
    }
}

/// What comes out of a pipe. Who else may hold its other end is not known: it is never waited for.
struct Said {
    pipe: File,
    bytes: Vec<u8>,
}

impl Said {
    fn new(pipe: Option<impl Into<OwnedFd>>) -> io::Result<Self> {
        let pipe = pipe.ok_or(io::ErrorKind::BrokenPipe)?;
        let pipe = File::from(pipe.into());
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            pipe,
            bytes: Vec::new(),
        })
    }

    /// Takes what is there. A plugin may say more than a pipe holds.
    fn listen(&mut self) {
        let left = MOST_SAID.saturating_sub(self.bytes.len()) as u64;
        let _ = (&self.pipe).take(left).read_to_end(&mut self.bytes);
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Listens until it ends, and kills what takes too long; and whatever it has started, either way.
fn wait(
    child: &mut Child,
    mut said: [&mut Said; 2],
    cancelled: &dyn Fn() -> bool,
) -> Option<ExitStatus> {
    let begin = Instant::now();
    let id = Pid::from_raw(child.id().cast_signed());
    // Not reaped, so that its number stays that of its group.
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let ended = loop {
        for said in &mut said {
            said.listen();
        }
        match waitid(Id::Pid(id), look) {
            Ok(WaitStatus::StillAlive) if begin.elapsed() < LIMIT && !cancelled() => {
                std::thread::sleep(STEP);
            }
            Ok(WaitStatus::StillAlive) | Err(_) => break false,
            Ok(_) => break true,
        }
    };
    let status = end(child);
    for said in said {
        said.listen();
    }
    status.filter(|_| ended)
}

/// Kills it with its group.
fn end(child: &mut Child) -> Option<ExitStatus> {
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    child.wait().ok()
}
