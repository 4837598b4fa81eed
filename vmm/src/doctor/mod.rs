//! What a VM needs of this machine: each thing examined, with the remedy where it is wanting.

mod host;
mod kvm;

pub use kvm::kvm_kind;

use serde::Serialize;

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// VMs run, but something is slower or missing.
    Warn,
    /// No VM can run.
    Fail,
}

impl Verdict {
    /// The word printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing examined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub fact: String,
    /// What to do about it; `None` when it passes.
    pub remedy: Option<String>,
}

impl Finding {
    fn pass(subject: &'static str, fact: impl Into<String>) -> Self {
        Self {
            subject,
            verdict: Verdict::Pass,
            fact: fact.into(),
            remedy: None,
        }
    }

    fn warn(subject: &'static str, fact: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            subject,
            verdict: Verdict::Warn,
            fact: fact.into(),
            remedy: Some(remedy.into()),
        }
    }

    fn fail(subject: &'static str, fact: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(subject, fact, remedy)
        }
    }
}

/// Looks at everything. Changes nothing, and leaves nothing behind.
pub fn examine() -> Vec<Finding> {
    let mut findings = kvm::examine();
    findings.extend(host::examine());
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_does_not_pass_has_a_remedy() {
        let findings = examine();
        assert!(findings.len() >= 7, "{findings:?}");
        for finding in findings {
            assert_eq!(
                finding.remedy.is_none(),
                finding.verdict == Verdict::Pass,
                "{finding:?}"
            );
        }
    }
}
