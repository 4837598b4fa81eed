//! Resets and lost connections.

use vhost::vhost_user::VhostUserProtocolFeatures;

use super::{Bench, Endpoint, Outcome, Setup, ensure};
use crate::driver::DriverError;

/// A reset with requests in flight leaves a device as good as new, and it writes nothing more into
/// the rings and buffers it was given before.
pub fn resets_at_any_moment(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    for round in 0..20u16 {
        bench.submit(1 + round)?;
        if round % 3 == 0 {
            bench.collect(1)?;
        }
        let protocol = bench.driver.negotiated().protocol;
        if !protocol.contains(VhostUserProtocolFeatures::RESET_DEVICE) {
            bench.reset()?;
            bench.round_trips(2)?;
            continue;
        }
        bench.add(63).map_err(DriverError::from)?;
        let mut old = bench.driver.take_queue(bench.expected.probe.queue)?;
        bench.driver.connection().reset()?;
        let used = old.ring().split().device_used();
        old.ring_mut().publish();
        old.kick()?;
        let moved = bench.settle(|_| Ok(old.ring().split().device_used() != used))?;
        ensure!(
            !moved,
            "a request was completed after the reset was acknowledged"
        );
        bench.reset()?;
        bench.round_trips(2)?;
    }
    Ok(())
}

/// A connection that ends with requests in flight leaves a device as good as new.
pub fn survives_disconnects_at_any_moment(endpoint: &mut dyn Endpoint) -> Outcome {
    for round in 0..10u16 {
        let mut bench = Bench::start(endpoint, Setup::default())?;
        bench.submit(1 + round * 2)?;
        bench.driver.connection().close();
    }
    Bench::start(endpoint, Setup::default())?.round_trips(5)
}
