//! All that knows the processor architecture.

pub mod x86_64;
