//! x86-64: the address map, CPUID, boot protocols and ACPI.

pub mod acpi;
pub mod boot;
pub mod cpuid;
pub mod layout;
pub(crate) mod msr;
