//! `outboard info`: what a running VM is and has.

mod text;

use std::process::ExitCode;

use clap::Args;
use outboard::registry;
use outboard::vm::Info;

use super::manage::{Error, Named, finish};
use super::say::Output;

/// Tells what a running VM is and has.
#[derive(Args)]
pub(super) struct Tell {
    #[command(flatten)]
    vm: Named,
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Tell {
    pub(super) fn execute(self) -> ExitCode {
        finish(self.run())
    }

    fn run(self) -> Result<String, Error> {
        let vm = registry::find(&self.vm.name)?;
        let info: Info = vm.client().get("outboard.info")?;
        Ok(self.output.of(&info, text::text)?)
    }
}
