//! `outboard doctor`: prints what [`outboard::doctor`] finds.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use outboard::doctor::{Finding, Verdict, examine};
use owo_colors::OwoColorize;

/// Prints PASS, WARN or FAIL for each thing a VM needs of this machine, with the remedy.
///
/// Exits 0 unless something FAILs.
#[derive(Args)]
pub(super) struct Doctor {}

impl Doctor {
    #[allow(clippy::unused_self)] // as the other verbs; options will come
    pub(super) fn execute(self) -> ExitCode {
        let colour = std::io::stdout().is_terminal();
        let mut failed = false;
        for finding in examine() {
            failed |= finding.verdict == Verdict::Fail;
            print(&finding, colour);
        }
        if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

fn print(finding: &Finding, colour: bool) {
    let word = match (finding.verdict, colour) {
        (Verdict::Pass, true) => "PASS".green().to_string(),
        (Verdict::Warn, true) => "WARN".yellow().to_string(),
        (Verdict::Fail, true) => "FAIL".red().to_string(),
        (verdict, false) => verdict.word().to_owned(),
    };
    println!("{word}  {:<14} {}", finding.subject, finding.fact);
    if let Some(remedy) = &finding.remedy {
        println!("{:21}-> {remedy}", "");
    }
}
