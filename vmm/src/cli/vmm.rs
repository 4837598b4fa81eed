//! `outboard vmm`, and the same called as `cloud-hypervisor`: a VMM without a VM, steered by its API.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Parser};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use outboard::api::Place;
use outboard::config::{Description, check_name};
use outboard::{logs, monitor, vm};
use tracing::level_filters::LevelFilter;

use super::{complain, finished, say};

/// The name by which clients of Cloud Hypervisor start us.
const NAME: &str = "cloud-hypervisor";

/// The version of Cloud Hypervisor whose requests we know, as it prints it: clients read what they may
/// ask from it.
const VERSION: &str = "cloud-hypervisor v54.0.0";

const EXAMPLES: &str = "\
The API is Cloud Hypervisor's; docs/api.md says which part. Called as cloud-hypervisor, outboard is \
this verb, with -v for more words and --version for Cloud Hypervisor's.

Example:
  outboard vmm --api-socket /tmp/vm.sock &
  curl --unix-socket /tmp/vm.sock -X PUT \\
      http://localhost/api/v1/vm.create \\
      -H 'Content-Type: application/json' \\
      -d '{\"payload\":{\"kernel\":\"/boot/vmlinuz\"}}'
  curl --unix-socket /tmp/vm.sock -X PUT http://localhost/api/v1/vm.boot";

/// Starts a VMM without a VM, and stays with it until it ends.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Vmm {
    #[command(flatten)]
    doors: Doors,
    /// What its VM is called [default: vmm-PID]
    #[arg(long, value_parser = vm_name)]
    name: Option<String>,
    /// Where the VM's logs are kept, in DIR/NAME [default: off]
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
}

/// How others reach it, and hear of it.
#[derive(Args)]
struct Doors {
    /// Where to listen for requests: PATH, path=PATH, or fd=N for an inherited socket
    #[arg(long, value_name = "PATH|fd=N")]
    api_socket: Doorway,
    /// Where to write what happens, as JSON: path=PATH or fd=N
    #[arg(long, value_name = "path=PATH|fd=N", value_parser = Doorway::with_key)]
    event_monitor: Option<Doorway>,
    /// Where to say what would else be said on standard error
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
}

/// The command line that Cloud Hypervisor's clients write.
#[derive(Parser)]
#[command(name = NAME, disable_version_flag = true)]
struct CloudHypervisor {
    /// Print the version
    #[arg(short = 'V', long, exclusive = true)]
    version: bool,
    #[command(flatten)]
    doors: Option<Doors>,
    /// Say more; twice: everything
    #[arg(short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Changes nothing: the VMM has no filter, and the devices' processes always have theirs
    #[arg(long, value_name = "true|false", value_parser = ["true", "false"])]
    seccomp: Option<String>,
}

/// A path, or an inherited descriptor.
#[derive(Debug, Clone, PartialEq)]
enum Doorway {
    Path(PathBuf),
    Fd(i32),
}

impl Doorway {
    /// One whose key is written, as no other is taken for a path.
    fn with_key(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("path" | "fd", _)) => text.parse(),
            _ => Err("write path=PATH or fd=N".into()),
        }
    }
}

fn vm_name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

impl FromStr for Doorway {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("path", path)) if !path.is_empty() => Ok(Self::Path(path.into())),
            Some(("fd", number)) => match number.parse() {
                Ok(fd) if fd > 2 => Ok(Self::Fd(fd)),
                _ => Err(format!(
                    "'{number}' is no inherited descriptor; write 3 or more"
                )),
            },
            Some(("path", _)) => Err("a path is missing".into()),
            _ if text.is_empty() => Err("a path is missing".into()),
            _ => Ok(Self::Path(text.into())),
        }
    }
}

/// Whether we have been called as Cloud Hypervisor.
pub(super) fn is_cloud_hypervisor() -> bool {
    let called = std::env::args_os().next();
    called.is_some_and(|called| Path::new(&called).file_name() == Some(NAME.as_ref()))
}

/// Does what a client of Cloud Hypervisor asks for on the command line.
pub(super) fn as_cloud_hypervisor() -> ExitCode {
    let cli = CloudHypervisor::parse();
    if cli.version {
        return say::answer(&format!("{VERSION}\n"), ExitCode::SUCCESS);
    }
    let level = match cli.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    logs::start(Some(level));
    let Some(doors) = cli.doors else {
        say::complain(
            "cloud-hypervisor: --api-socket is missing; VMs are described by the API only",
        );
        return ExitCode::from(2);
    };
    doors.serve(None, None)
}

impl Vmm {
    pub(super) fn execute(self) -> ExitCode {
        self.doors.serve(self.name, self.log_dir)
    }
}

impl Doors {
    fn serve(self, name: Option<String>, log_dir: Option<PathBuf>) -> ExitCode {
        let place = match self.open() {
            Ok(place) => place,
            Err(why) => {
                say::complain(&format!("outboard: {why}"));
                return ExitCode::FAILURE;
            }
        };
        let defaults = Description {
            name: Some(name.unwrap_or_else(|| format!("vmm-{}", std::process::id()))),
            log_dir: Some(log_dir.unwrap_or_else(|| "off".into())),
            ..Description::default()
        };
        tracing::info!("The API is open; there is no VM yet");
        match vm::serve(place, defaults) {
            Ok(end) => finished(&end),
            Err(error) => {
                complain(&error);
                ExitCode::FAILURE
            }
        }
    }

    fn open(self) -> Result<Place, String> {
        if let Some(path) = self.log_file {
            speak_into(&path).map_err(|error| format!("--log-file {}: {error}", path.display()))?;
        }
        match self.event_monitor {
            None => {}
            Some(Doorway::Path(path)) => {
                // A pipe's other end is waited for.
                let file = File::options()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(&path);
                let started = file.and_then(monitor::start);
                started.map_err(|error| format!("--event-monitor {}: {error}", path.display()))?;
            }
            Some(Doorway::Fd(number)) => {
                monitor::start_on(number)
                    .map_err(|error| format!("--event-monitor fd={number}: {error}"))?;
            }
        }
        match self.api_socket {
            Doorway::Path(path) => Ok(Place::Path(path)),
            Doorway::Fd(number) => Place::inherited(number)
                .map_err(|error| format!("--api-socket fd={number}: {error}")),
        }
    }
}

/// Has standard error be this file, ours and the daemons'.
fn speak_into(path: &Path) -> io::Result<()> {
    // A FIFO's reader is not waited for: without one this fails.
    let file = File::options()
        .append(true)
        .create(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(
            |error| match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                Errno::ENXIO => io::Error::other(
                    "nobody reads this FIFO; start its reader first, or name a file",
                ),
                _ => error,
            },
        )?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(nix::unistd::dup2_stderr(file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_that_nobody_reads_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (told, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(speak_into(&path)));
        let refused = answer.recv_timeout(std::time::Duration::from_secs(20));
        let why = refused.unwrap().unwrap_err().to_string();
        assert!(why.contains("nobody reads"), "{why}");
    }

    #[test]
    fn a_doorway_is_a_path_or_a_number() {
        for (text, path) in [("/a", "/a"), ("path=/a", "/a"), ("a=b", "a=b")] {
            assert_eq!(text.parse(), Ok(Doorway::Path(path.into())));
        }
        assert_eq!("fd=3".parse(), Ok(Doorway::Fd(3)));
        assert_eq!(Doorway::with_key("fd=3"), Ok(Doorway::Fd(3)));
        assert!(Doorway::with_key("path=/a").is_ok());
        for text in ["/a", "foo=x", "path=", ""] {
            assert!(Doorway::with_key(text).is_err(), "{text}");
        }
        for text in ["", "path=", "fd=", "fd=1", "fd=x", "fd=-1"] {
            assert!(text.parse::<Doorway>().is_err(), "{text}");
        }
    }
}
