//! `outboard start`: a defined VM, detached from this terminal.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use nix::fcntl::OFlag;
use outboard::config::Description;
use outboard::definitions::Definitions;
use outboard::history;
use outboard::registry;
use outboard::supervisor::DAEMON_VARIABLE;
use outboard::vm::{Info, State};

use super::manage::{Error, Named, finish};
use super::say::Output;

/// How long a VM may take until its guest runs: longer than its slowest device may.
const START: Duration = Duration::from_secs(30);
/// How long the processes of a VM that has just ended may take to be gone.
const ENDING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);
/// How much of what a VM said that did not start is shown.
const WORDS: usize = 4096;
/// A VM's words are for its owner only.
const OWNERS: u32 = 0o600;

const EXAMPLES: &str = "\
The VM is a process of its own session, outboard run --name NAME, and this command returns when \
its guest runs. A console on the terminal becomes one at a socket: outboard console NAME reaches it.

Example:
  outboard define web.toml && outboard start web && outboard console web";

/// Starts a defined VM in the background.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Start {
    #[command(flatten)]
    vm: Named,
    /// For people, or for programs: all that outboard info tells of it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Start {
    pub(super) fn execute(self) -> ExitCode {
        let text = |info: &Info| format!("{} runs as process {}\n", info.name, info.pid);
        let started = start(&self.vm.name);
        finish(started.and_then(|info| Ok(self.output.of(&info, text)?)))
    }
}

fn start(name: &str) -> Result<Info, Error> {
    let file = Definitions::ours()?.find(name)?;
    not_running(name)?;
    let log = history::log(name);
    let mut child = spawn(name, &file, &log)?;
    let end = Instant::now() + START;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Error::Usage(format!(
                "The VM '{name}' did not start ({status}):\n{}",
                words(&log)
            )));
        }
        let info = registry::find(name).map(|vm| vm.client().get::<Info>("outboard.info"));
        if let Ok(Ok(info)) = info
            && info.pid == child.id()
            && info.state == State::Running
        {
            return Ok(info);
        }
        if Instant::now() >= end {
            return Err(Error::Usage(format!(
                "The VM '{name}' (process {}) is not running after {} s; it says:\n{}",
                child.id(),
                START.as_secs(),
                words(&log)
            )));
        }
        std::thread::sleep(LOOK);
    }
}

fn not_running(name: &str) -> Result<(), Error> {
    match registry::find(name) {
        Ok(vm) => Err(Error::Usage(format!(
            "The VM '{}' runs already; outboard info {} tells about it",
            vm.name, vm.name
        ))),
        Err(_) => Ok(()),
    }
}

/// The log, emptied, and locked for as long as this process or the VM, which inherits it, has it
/// open: of two that start one VM at once, the second leaves the log and the record to the first.
fn take(log: &Path, name: &str) -> Result<std::io::Result<File>, Error> {
    // A FIFO's reader is not waited for.
    let open = || {
        let mut options = File::options();
        let options = options.create(true).append(true).mode(OWNERS);
        let file = options.custom_flags(OFlag::O_NONBLOCK.bits()).open(log)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        // One of an earlier release may be open to others.
        file.set_permissions(Permissions::from_mode(OWNERS))?;
        Ok(file)
    };
    let file = match open() {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let end = Instant::now() + ENDING;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file.set_len(0).map(|()| file)),
            Err(TryLockError::Error(error)) => return Ok(Err(error)),
            Err(TryLockError::WouldBlock) => not_running(name)?,
        }
        if Instant::now() >= end {
            return Err(Error::Usage(format!(
                "The VM '{name}' is being started, or ends; try again when it has"
            )));
        }
        std::thread::sleep(LOOK);
    }
}

/// `outboard run`, in a session of its own, with its words in `log`.
fn spawn(name: &str, file: &Path, log: &Path) -> Result<Child, Error> {
    let failed =
        |what: String| move |error: std::io::Error| Error::Usage(format!("{what}: {error}"));
    let program = std::env::current_exe().map_err(failed("This program's file".into()))?;
    if let Some(folder) = log.parent() {
        let what = format!("The folder {} cannot be made", folder.display());
        history::make_folder().map_err(failed(what))?;
    }
    let what = format!("The log {} cannot be written", log.display());
    let words = take(log, name)?.map_err(failed(what.clone()))?;
    let errors = words.try_clone().map_err(failed(what))?;
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg(file)
        .args(["--name", name, "--record"])
        // Whoever starts it, a daemon of another VM's perhaps, it outlives.
        .env_remove(DAEMON_VARIABLE);
    let vm = Description::from_file(file).map_err(Error::Usage)?;
    if matches!(vm.serial.as_deref(), None | Some("tty")) {
        command.args(["--serial", "socket"]);
    }
    if vm.console.as_deref() == Some("tty") {
        command.args(["--console", "socket"]);
    }
    command
        .stdin(Stdio::null())
        .stdout(words)
        .stderr(errors)
        .current_dir("/");
    leave_session(&mut command);
    let what = "The VM's process cannot be started".to_owned();
    command.spawn().map_err(failed(what))
}

/// A hangup of this terminal, and its Ctrl-C, are nothing to the VM.
#[allow(unsafe_code)]
fn leave_session(command: &mut Command) {
    // SAFETY: setsid(2) is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            Ok(())
        });
    }
}

fn words(log: &PathBuf) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let tail = text
        .get(text.len().saturating_sub(WORDS)..)
        .unwrap_or_default();
    String::from_utf8_lossy(tail).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_no_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("none-such.log");
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (told, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(take(&log, "none-such").map(|log| log.is_err())));
        let refused = answer.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(refused, Ok(true)));
    }

    #[test]
    fn a_log_that_a_vm_holds_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("none-such.log");
        let mut first = take(&log, "none-such").unwrap().unwrap();
        let mode = first.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, OWNERS);
        std::io::Write::write_all(&mut first, b"mine").unwrap();
        assert!(take(&log, "none-such").is_err());
        assert_eq!(std::fs::read(&log).unwrap(), b"mine");
        drop(first);
        take(&log, "none-such").unwrap().unwrap();
        assert!(std::fs::read(&log).unwrap().is_empty());
    }
}
