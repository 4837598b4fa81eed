//! Measures a virtio path end to end: a vhost-user backend, ours or anyone's, driven as a guest's
//! driver would, without a VM; and by a guest, where the VMM is part of what is measured.
//!
//! A [`case::Case`] is one point of a sweep. [`backend::Backend`] starts or finds the process to be
//! measured, [`drive`] keeps a number of requests outstanding in its rings for a given time, and a
//! [`record::Record`] says what came of it and under what conditions.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // Figures are rounded, and never negative.

pub mod affinity;
pub mod backend;
pub mod bytes;
pub mod case;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod document;
pub mod drive;
pub mod engine;
pub mod error;
pub mod faulty;
pub mod figures;
pub mod floor;
pub mod guest;
pub mod hosts;
pub mod image;
pub mod interrupts;
pub mod load;
pub mod machine;
pub mod notifications;
pub mod record;
pub mod report;
pub mod rest;
pub mod run;
pub mod stats;
pub mod summary;
pub mod table;
pub mod verify;
pub mod wire;

pub use error::{Error, Result};
