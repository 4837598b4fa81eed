//! The conformance kit: what every vhost-user device must do, whatever hosts it.
//!
//! A check is a function over an [`Endpoint`], which connects afresh to the device under test and
//! says what to expect of it. [`conformance!`](crate::conformance) turns every check into a `#[test]`:
//!
//! ```ignore
//! outboard_device::conformance!(MyDaemon::start());
//! ```
//!
//! The checks drive the device by one [`Probe`], a request with a known answer; what a device class
//! does beyond that is for its own tests. Devices of registers have a kit of their own, [`registers`]. Nothing here asserts a time: [`Endpoint::limit`] only
//! bounds how long a device that never answers is waited for.

mod bench;
pub mod config;
pub mod hostile;
pub mod lifecycle;
pub mod memory;
pub mod negotiation;
pub mod notification;
pub mod packed;
pub mod protocol;
pub mod registers;
pub mod resets;
pub mod rings;
pub mod state;

#[cfg(test)]
mod mutants;
#[cfg(test)]
mod reference;

use std::error::Error;
use std::fmt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub use bench::{Bench, Setup};

use crate::driver::DriverError;

/// A device under test.
pub trait Endpoint {
    /// A fresh connection to the device. The one before was closed by the caller; a device that
    /// serves one frontend at a time is to be reachable again.
    fn connect(&mut self) -> Outcome<UnixStream>;

    /// What the device is expected to be.
    fn expected(&self) -> Expected;

    /// Fails when the process behind the device ended that should not have. Called at each end.
    fn check_alive(&mut self) -> Outcome {
        Ok(())
    }

    /// How long a device that answers nothing is waited for before it counts as hung.
    fn limit(&self) -> Duration {
        crate::driver::connection::DEFAULT_LIMIT
    }
}

/// What a device is expected to be, and how to make it do something.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Feature bits of its class that it must offer.
    pub features: u64,
    /// The length of its config space in bytes.
    pub config_len: u32,
    /// How many queues it has at least.
    pub queues: u16,
    /// The largest ring it takes.
    pub max_queue_size: u16,
    /// The queues that must run for the probe to be answered, the probe's among them.
    pub running: Vec<u16>,
    /// The request that is sent again and again.
    pub probe: Probe,
}

/// A request with a known answer.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The queue it is sent on.
    pub queue: u16,
    /// What the device reads.
    pub readable: Vec<u8>,
    /// How many bytes the device may write.
    pub writable: u32,
    /// Whether a completed probe was answered rightly: given what the device says it wrote, and
    /// the writable bytes, which were [`CANARY`] before.
    pub check: fn(written: u32, data: &[u8]) -> Result<(), String>,
}

/// What writable bytes hold before the device writes them.
pub const CANARY: u8 = 0xa5;

/// Why a check failed.
pub struct Failure(String);

impl Failure {
    /// A failure in words.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        let mut words = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            words.push_str(": ");
            words.push_str(&cause.to_string());
            source = cause.source();
        }
        Self(words)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// How a check ended.
pub type Outcome<T = ()> = Result<T, Failure>;

/// A check: see the modules.
pub type Check = fn(&mut dyn Endpoint) -> Outcome;

/// Fails a check with a formatted reason unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err($crate::testing::Failure::new(format!($($reason)+)));
        }
    };
}
pub(crate) use ensure;

/// Runs one check and panics with its failure: what `conformance!` puts in each test.
///
/// # Panics
/// When the check fails.
#[allow(clippy::panic)] // A test fails by panicking.
pub fn run(name: &str, endpoint: &mut dyn Endpoint, check: Check) {
    if let Err(failure) = check(endpoint).and_then(|()| endpoint.check_alive()) {
        panic!("{name}: {failure}");
    }
}

/// Calls a macro with every check of the kit, as `module::name,`.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_conformance_check {
    ($callback:ident! { $($prefix:tt)* }) => {
        $crate::$callback! { $($prefix)*
            negotiation::offers_what_every_device_must,
            negotiation::works_with_every_subset_of_ring_features,
            negotiation::works_with_fewer_protocol_features,
            negotiation::refuses_features_it_did_not_offer,
            negotiation::does_what_its_protocol_features_say,
            protocol::answers_unknown_requests_with_a_refusal,
            protocol::survives_malformed_messages,
            protocol::survives_half_a_message,
            protocol::survives_nonsense_about_queues,
            protocol::serves_one_connection_after_another,
            config::reads_the_same_in_every_size,
            config::has_bounds,
            lifecycle::stops_at_the_index_it_would_go_on_at,
            lifecycle::loses_nothing_when_stopped_with_requests_in_flight,
            lifecycle::stops_one_queue_while_others_run,
            lifecycle::gives_back_buffers_it_has_no_use_for_yet,
            lifecycle::starts_at_any_index,
            lifecycle::starts_again_with_another_ring,
            lifecycle::does_nothing_before_enable,
            lifecycle::pauses_while_disabled,
            lifecycle::leaves_queues_alone_that_were_not_started,
            resets::resets_at_any_moment,
            resets::survives_disconnects_at_any_moment,
            state::goes_on_from_what_was_saved,
            state::survives_damaged_state,
            memory::follows_memory_that_changes,
            memory::forgets_memory_that_is_taken_away,
            rings::answers_many_requests,
            rings::completes_batches,
            rings::takes_full_rings_of_every_size,
            rings::makes_no_assumption_about_framing,
            rings::follows_indirect_tables,
            memory::crosses_memory_regions,
            notification::calls_when_asked_by_flags,
            notification::calls_when_asked_by_event_index,
            notification::keeps_quiet_when_asked,
            notification::never_sleeps_over_a_request,
            notification::calls_a_replaced_eventfd,
            hostile::survives_loops,
            hostile::survives_indices_out_of_range,
            hostile::survives_lengths_of_nothing_and_of_everything,
            hostile::survives_addresses_outside_memory,
            hostile::survives_bad_indirect_tables,
            hostile::survives_jumps_of_the_available_index,
            hostile::survives_rings_outside_memory,
            hostile::survives_random_rings,
            packed::serves_packed_rings,
            packed::survives_packed_rings_of_nonsense,
        }
    };
}

/// Makes a `#[test]` of every check of the kit, each over an endpoint of its own: the value of the
/// given expression, evaluated in each test.
///
/// `conformance!(if available EXPRESSION)` takes an `Option`: where it is `None`, the expression has
/// said why on stderr, and the tests pass.
#[macro_export]
macro_rules! conformance {
    (if available $endpoint:expr) => {
        $crate::for_each_conformance_check!(__conformance_tests! { available $endpoint; });
    };
    ($endpoint:expr) => {
        $crate::for_each_conformance_check!(__conformance_tests! { $endpoint; });
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    (available $endpoint:expr; $($module:ident::$name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                let Some(mut endpoint) = $endpoint else { return };
                $crate::testing::run(
                    stringify!($name),
                    &mut endpoint,
                    $crate::testing::$module::$name,
                );
            }
        )*
    };
    ($endpoint:expr; $($module:ident::$name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                let mut endpoint = $endpoint;
                $crate::testing::run(
                    stringify!($name),
                    &mut endpoint,
                    $crate::testing::$module::$name,
                );
            }
        )*
    };
}
