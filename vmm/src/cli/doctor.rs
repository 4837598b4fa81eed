//! `outboard doctor`: prints what [`outboard::doctor`] finds.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use outboard::doctor::{Finding, Verdict, examine};
use owo_colors::OwoColorize;

use super::say::{self, Output};

/// Prints PASS, WARN or FAIL for each thing a VM needs of this machine, with the remedy.
///
/// Exits 0 unless something FAILs.
#[derive(Args)]
pub(super) struct Doctor {
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Doctor {
    pub(super) fn execute(self) -> ExitCode {
        let colour = std::io::stdout().is_terminal();
        let findings = examine();
        let failed = findings
            .iter()
            .any(|finding| finding.verdict == Verdict::Fail);
        let text = |findings: &[Finding]| findings.iter().map(|one| lines(one, colour)).collect();
        let code = if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
        match self.output.of(findings.as_slice(), text) {
            Ok(text) => say::answer(&text, code),
            Err(error) => {
                super::complain(&error);
                ExitCode::FAILURE
            }
        }
    }
}

fn lines(finding: &Finding, colour: bool) -> String {
    let word = match (finding.verdict, colour) {
        (Verdict::Pass, true) => "PASS".green().to_string(),
        (Verdict::Warn, true) => "WARN".yellow().to_string(),
        (Verdict::Fail, true) => "FAIL".red().to_string(),
        (verdict, false) => verdict.word().to_owned(),
    };
    let mut text = format!("{word}  {:<14} {}\n", finding.subject, finding.fact);
    if let Some(remedy) = &finding.remedy {
        text = format!("{text}{:21}-> {remedy}\n", "");
    }
    text
}
