//! The ACPI tables.
