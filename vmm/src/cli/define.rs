//! Verbs for definitions: the VMs that can be started by name.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;
use outboard::config::Description;
use outboard::definitions::{DefinitionError, Definitions};
use outboard::history;
use serde::Serialize;

use super::manage::{Error, Named, finish};
use super::say::Output;

const EXAMPLES: &str = "\
A definition is a copy of the file, with its paths made absolute; nothing of the VM is started.

Examples:
  outboard run --kernel vmlinuz --disk path=root.img --dry-run >web.toml
  outboard define web.toml
  outboard start web";

/// Keeps a VM's description, so that it can be started by name.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Define {
    /// The description, as outboard run takes it
    file: PathBuf,
    /// Under this name [default: the file's]
    #[arg(long)]
    name: Option<String>,
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What has been defined.
#[derive(Serialize)]
struct Defined {
    name: String,
}

impl Define {
    pub(super) fn execute(self) -> ExitCode {
        match self.run() {
            // As outboard run ends with it.
            Err(Error::Definition(error @ DefinitionError::Description(_))) => {
                super::complain(&error);
                ExitCode::from(super::USAGE)
            }
            defined => finish(defined),
        }
    }

    fn run(self) -> Result<String, Error> {
        let name = Definitions::ours()?.define(&self.file, self.name.as_deref())?;
        let text = |defined: &Defined| format!("{} is defined\n", defined.name);
        Ok(self.output.of(&Defined { name }, text)?)
    }
}

/// Forgets a definition, and how its VM last ended.
pub(super) fn undefine(vm: &Named) -> ExitCode {
    let gone = Definitions::ours().and_then(|all| all.undefine(&vm.name));
    finish(gone.map_err(Error::from).map(|()| {
        history::forget(&vm.name);
        String::new()
    }))
}

/// Prints a definition.
#[derive(Args)]
pub(super) struct Show {
    #[command(flatten)]
    vm: Named,
    /// As the file has it, or its keys as JSON
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Show {
    pub(super) fn execute(self) -> ExitCode {
        finish(self.run())
    }

    fn run(self) -> Result<String, Error> {
        if self.output == Output::Text {
            return read(&self.vm.name);
        }
        let path = Definitions::ours()?.find(&self.vm.name)?;
        let vm = Description::from_file(&path).map_err(Error::Usage)?;
        Ok(self.output.of(&vm, |_| String::new())?)
    }
}

/// Opens a definition in the editor, and keeps what comes back if it is a VM's.
pub(super) fn edit(vm: &Named) -> ExitCode {
    finish(change(&vm.name))
}

fn read(name: &str) -> Result<String, Error> {
    let path = Definitions::ours()?.find(name)?;
    let text = std::fs::read_to_string(&path).map_err(|source| DefinitionError::System {
        what: "read",
        path,
        source,
    })?;
    Ok(text)
}

fn change(name: &str) -> Result<String, Error> {
    let failed = |what: &'static str| move |error| Error::Usage(format!("{what}: {error}"));
    let before = read(name)?;
    let mut copy = tempfile::Builder::new()
        .prefix(name)
        .suffix(".toml")
        .tempfile()
        .map_err(failed("A copy to edit cannot be made"))?;
    copy.write_all(before.as_bytes())
        .map_err(failed("A copy to edit cannot be written"))?;
    let editor = ["VISUAL", "EDITOR"].into_iter().find_map(|variable| {
        let value = std::env::var(variable).ok()?;
        (!value.trim().is_empty()).then_some(value)
    });
    // It may have arguments, as in "code --wait".
    let words = editor.as_deref().and_then(shlex::split);
    let words = words.unwrap_or_else(|| vec!["vi".into()]);
    let Some((program, args)) = words.split_first() else {
        return Err(Error::Usage("EDITOR names no program".into()));
    };
    let status = Command::new(program).args(args).arg(copy.path()).status();
    let status = status.map_err(|error| {
        Error::Usage(format!(
            "The editor '{program}' cannot be started: {error}; set EDITOR"
        ))
    })?;
    if !status.success() {
        return Err(Error::Usage(format!(
            "The editor '{program}' ended with {status}; nothing is changed"
        )));
    }
    let after = std::fs::read_to_string(copy.path()).map_err(failed("The copy cannot be read"))?;
    if after == before {
        return Ok(format!("{name} is unchanged\n"));
    }
    if let Err(error) = Definitions::ours()?.replace(name, &after) {
        // The person's work is not thrown away.
        let kept = copy.into_temp_path().keep();
        let kept = kept.map(|path| format!("; your text is in {}", path.display()));
        return Err(Error::Usage(format!("{error}{}", kept.unwrap_or_default())));
    }
    Ok(format!("{name} is changed, from its next start on\n"))
}
