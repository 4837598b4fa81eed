//! How a VM ended.

use std::process::ExitCode;

use crate::frontend::Lost;
use crate::kvm::Fault;

/// How a VM ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset under `--no-reboot`.
    Reset,
    /// A person asked for the end, by Ctrl-A x.
    Quit,
    /// A device with `on-exit=stop` lost its backend.
    DeviceLost(Lost),
    /// KVM reported an internal error or an exit nobody handles.
    Fault(Box<Fault>),
    /// The guest triple-faulted under `--no-reboot`.
    TripleFault,
    /// Somebody ended the VM from outside.
    Destroyed,
    /// The guest triple-faulted again and again, each time right after its boot.
    FaultLoop,
    /// A signal ended the VM.
    Signal(i32),
}

impl End {
    /// What the process ends with; the list is in `outboard --help`.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            Self::PowerOff | Self::Reset | Self::Quit | Self::Destroyed => 0,
            Self::DeviceLost(_) => 3,
            Self::Fault(_) => 4,
            Self::TripleFault | Self::FaultLoop => 5,
            // As a shell reports a process that a signal ended.
            Self::Signal(signal) => 128u8.saturating_add(u8::try_from(*signal).unwrap_or(127)),
        }
    }

    /// In a few words, for a list: `powered off`, `destroyed`, `crashed: ...`.
    pub fn how(&self) -> String {
        match self {
            Self::PowerOff => "powered off".into(),
            Self::Reset => "reset".into(),
            Self::Quit | Self::Destroyed => "destroyed".into(),
            Self::DeviceLost(lost) => format!("crashed: device '{}' lost its backend", lost.id),
            Self::Fault(_) => "crashed: KVM could not go on".into(),
            Self::TripleFault | Self::FaultLoop => "crashed: triple fault".into(),
            Self::Signal(signal) => format!("ended by signal {signal}"),
        }
    }

    /// What a person should read about it; `None` where nothing went wrong.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::PowerOff | Self::Reset | Self::Quit | Self::Destroyed | Self::Signal(_) => None,
            Self::DeviceLost(lost) => Some(format!(
                "Device '{}' lost its backend: {}",
                lost.id, lost.reason
            )),
            Self::Fault(fault) => Some(format!("The VM cannot go on. {fault}")),
            Self::TripleFault => Some("The guest triple-faulted".to_owned()),
            Self::FaultLoop => Some(
                "The guest triple-faulted right after each of its last boots, and would for ever; \
                 its kernel does not run with these options (see --cpu, --memory, --cmdline)"
                    .to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_that_help_lists() {
        let lost = Lost {
            id: "disk0".into(),
            reason: "gone".into(),
            code: None,
            stop: true,
        };
        let ends = [
            End::PowerOff,
            End::Reset,
            End::Quit,
            End::DeviceLost(lost),
            End::TripleFault,
            End::FaultLoop,
        ];
        assert_eq!(ends.map(|end| end.code()), [0, 0, 0, 3, 5, 5]);
        assert_eq!(
            [1, 2, 15].map(|signal| End::Signal(signal).code()),
            [129, 130, 143]
        );
    }
}
