//! `outboard console`: a VM's console on this terminal.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Args;
use outboard::registry;
use outboard::supervisor::locate;
use outboard::vm::{ConsoleInfo, Info};

use super::manage::{Error, Named, finish};

const EXAMPLES: &str = "\
What was printed while nobody looked is shown first. Several people may look at once, and the \
first of them types: when that one leaves, the next. Ctrl-A x leaves, and the VM goes on.

Examples:
  outboard console web
  outboard console web --port console0";

/// Attaches this terminal to a console that is at a socket.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Console {
    #[command(flatten)]
    vm: Named,
    /// ttyS0, or console0 (which the guest calls hvc0) [default: the first that can be reached]
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
}

impl Console {
    pub(super) fn execute(self) -> ExitCode {
        finish(self.run())
    }

    fn run(self) -> Result<String, Error> {
        let info: Info = registry::find(&self.vm.name)?
            .client()
            .get("outboard.info")?;
        let wanted = self.port.as_deref().map(|port| match port {
            "hvc0" => "console0",
            other => other,
        });
        let (ptys, sockets): (Vec<_>, Vec<_>) = info.consoles.iter().partition(|c| c.pty);
        let is_wanted = |console: &&&ConsoleInfo| wanted.is_none_or(|port| console.port == port);
        let Some(console) = sockets.iter().find(is_wanted) else {
            if let Some(pty) = ptys.iter().find(is_wanted) {
                return Err(Error::Usage(format!(
                    "{} of the VM '{}' is on the pseudo-terminal {}; open that with screen or \
                     the like",
                    pty.port,
                    self.vm.name,
                    pty.path.display(),
                )));
            }
            let all: Vec<_> = sockets.iter().map(|c| c.port.as_str()).collect();
            return Err(Error::Usage(format!(
                "The VM '{}' has no {} that can be reached from here; there is {}. Give it one by \
                 --serial socket or --console socket",
                self.vm.name,
                wanted.unwrap_or("console"),
                if all.is_empty() {
                    "none".into()
                } else {
                    all.join(", ")
                },
            )));
        };
        let program =
            locate("outboard-console").map_err(|error| Error::Usage(error.to_string()))?;
        let error = Command::new(program)
            .arg(format!("--name={} of {}", console.port, self.vm.name))
            .arg("--connect")
            .arg(&console.path)
            .exec();
        Err(Error::Usage(format!(
            "outboard-console cannot be started: {error}"
        )))
    }
}
