//! `outboard completions`: what makes a shell complete this program's words, names of VMs among them.
//!
//! What is printed has the shell ask this program at each Tab, by an environment variable: what is offered
//! is of the version that is installed, and of the VMs that are there.

use std::ffi::OsStr;
use std::io;
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{self, EnvCompleter};
use outboard::definitions::Definitions;
use outboard::registry;

use super::Cli;
use super::manage::{Error, finish};

/// By which a shell asks.
const VARIABLE: &str = "OUTBOARD_COMPLETE";
const PROGRAM: &str = "outboard";

const EXAMPLES: &str = "\
Names of VMs are completed too: each verb is offered those that it is for.

Examples:
  . <(outboard completions bash)
  outboard completions bash >/etc/bash_completion.d/outboard
  outboard completions zsh >\"${fpath[1]}/_outboard\"
  outboard completions fish >~/.config/fish/completions/outboard.fish";

/// Prints what makes a shell complete the words of this command.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Completions {
    /// Which shell
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

impl Completions {
    pub(super) fn execute(self) -> ExitCode {
        finish(self.shell.script().map_err(Error::Completions))
    }
}

impl Shell {
    fn script(self) -> io::Result<String> {
        let shell: &dyn EnvCompleter = match self {
            Self::Bash => &env::Bash,
            Self::Elvish => &env::Elvish,
            Self::Fish => &env::Fish,
            Self::Powershell => &env::Powershell,
            Self::Zsh => &env::Zsh,
        };
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
        String::from_utf8(script).map_err(io::Error::other)
    }
}

/// Answers a shell that asks what the words of its line may become. Whether one did.
pub(super) fn answered() -> bool {
    let folder = std::env::current_dir().ok();
    let answered = CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .try_complete(std::env::args_os(), folder.as_deref());
    // Nobody sees what goes wrong between two keys.
    answered.unwrap_or(true)
}

/// The command line, with the names of VMs where a VM is meant.
fn command() -> Command {
    let verbs = Cli::command();
    let names: Vec<String> = verbs
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    names.iter().fold(verbs, |verbs, name| {
        let completer = vms(name);
        verbs.mut_subcommand(name, |verb| {
            verb.mut_args(|arg| {
                if arg.get_id() == "name" && arg.is_positional() {
                    arg.add(completer.clone())
                } else {
                    arg
                }
            })
        })
    })
}

/// Which VMs a verb is for.
fn vms(verb: &str) -> ArgValueCompleter {
    match verb {
        "undefine" | "show" | "edit" => {
            ArgValueCompleter::new(|typed: &OsStr| offer(typed, defined()))
        }
        "start" => ArgValueCompleter::new(|typed: &OsStr| {
            let running = running();
            let off = defined().into_iter().filter(|name| !running.contains(name));
            offer(typed, off.collect())
        }),
        "log" => ArgValueCompleter::new(|typed: &OsStr| {
            let mut all = defined();
            all.extend(running());
            offer(typed, all)
        }),
        _ => ArgValueCompleter::new(|typed: &OsStr| offer(typed, running())),
    }
}

fn offer(typed: &OsStr, mut names: Vec<String>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    names.sort();
    names.dedup();
    names.retain(|name| name.starts_with(&*typed));
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn defined() -> Vec<String> {
    let names = Definitions::ours().and_then(|all| all.names());
    names.unwrap_or_default()
}

fn running() -> Vec<String> {
    let vms = registry::running().unwrap_or_default();
    vms.into_iter().map(|vm| vm.name).collect()
}
