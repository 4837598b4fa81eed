//! What the tests that run several pieces together share: where the built programs are.

pub mod api;
pub mod daemons;
pub mod echo;
pub mod grid;
pub mod guest;
pub mod hosts;
pub mod kernel;
pub mod kvm_stats;
pub mod listening;
pub mod plugins;
pub mod refusal;
pub mod screen;
pub mod tap;
pub mod traces;
pub mod verbs;
pub mod wire;
