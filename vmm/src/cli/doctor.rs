//! `outboard doctor`: prints what [`outboard::doctor`] finds.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use outboard::doctor::{Finding, Verdict, examine};
use owo_colors::OwoColorize;

use super::say;

/// Prints PASS, WARN or FAIL for each thing a VM needs of this machine, with the remedy.
///
/// Exits 0 unless something FAILs.
#[derive(Args)]
pub(super) struct Doctor {}

impl Doctor {
    #[allow(clippy::unused_self)] // as the other verbs; options will come
    pub(super) fn execute(self) -> ExitCode {
        let colour = std::io::stdout().is_terminal();
        let findings = examine();
        let failed = findings
            .iter()
            .any(|finding| finding.verdict == Verdict::Fail);
        let text: String = findings
            .iter()
            .map(|finding| lines(finding, colour))
            .collect();
        let code = if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
        say::answer(&text, code)
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
