//! What a device offers, and that it means it.

use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;

use super::{Bench, Endpoint, Failure, Outcome, Setup, ensure};
use crate::driver::DriverError;
use crate::driver::connection::{
    F_EVENT_IDX, F_INDIRECT_DESC, F_PROTOCOL_FEATURES, F_RING_PACKED, F_VERSION_1,
};

/// `VERSION_1`, `PROTOCOL_FEATURES`, the features of its class, and as many queues as it should have.
pub fn offers_what_every_device_must(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    let negotiated = *bench.driver.negotiated();
    let wanted = F_VERSION_1 | F_PROTOCOL_FEATURES | bench.expected.features;
    let missing = wanted & !negotiated.offered;
    ensure!(missing == 0, "feature bits {missing:#x} are not offered");
    let must = Protocol::REPLY_ACK | Protocol::CONFIG | Protocol::MQ;
    let missing = must - negotiated.offered_protocol;
    ensure!(
        missing.is_empty(),
        "protocol features {missing:?} are not offered"
    );
    let expected = bench.expected.queues;
    ensure!(
        negotiated.queues >= expected,
        "{} queues, not {expected}",
        negotiated.queues
    );
    bench.round_trips(1)
}

/// It can be used with indirect descriptors or without, with event indices or without, and with
/// no feature at all.
pub fn works_with_every_subset_of_ring_features(endpoint: &mut dyn Endpoint) -> Outcome {
    let none = Setup::plain().features;
    for features in [none, none | F_EVENT_IDX, none | F_INDIRECT_DESC, u64::MAX] {
        Bench::start(
            endpoint,
            Setup {
                features,
                indirect: 4,
                ..Setup::default()
            },
        )?
        .round_trips(20)?;
    }
    Bench::start(endpoint, Setup::bare())?.round_trips(20)
}

/// It can be used by a frontend that takes only some protocol features, and by one that knows
/// none, whose rings are enabled from their start.
pub fn works_with_fewer_protocol_features(endpoint: &mut dyn Endpoint) -> Outcome {
    let all = Protocol::all();
    for protocol in [
        all - Protocol::REPLY_ACK,
        all - Protocol::BACKEND_REQ - Protocol::STATUS,
        Protocol::REPLY_ACK,
        Protocol::CONFIG,
        Protocol::empty(),
    ] {
        let mut bench = Bench::start(
            endpoint,
            Setup {
                protocol,
                ..Setup::default()
            },
        )?;
        let trips = bench.round_trips(20).and_then(|()| bench.reset());
        let again = trips.and_then(|()| bench.round_trips(20));
        again.map_err(|failure| Failure::new(format!("with {protocol:?}: {failure}")))?;
    }
    Ok(())
}

/// Accepting a feature that is not offered is an error, and costs no more than the connection.
pub fn refuses_features_it_did_not_offer(endpoint: &mut dyn Endpoint) -> Outcome {
    let candidates = [F_RING_PACKED, 1 << 60, 1 << 63];
    for bit in candidates {
        let mut bench = Bench::negotiate(endpoint, Setup::default())?;
        let negotiated = *bench.driver.negotiated();
        if negotiated.offered & bit != 0 {
            continue;
        }
        let answer = bench
            .driver
            .connection()
            .set_features(negotiated.features | bit);
        ensure!(
            answer.is_err(),
            "feature bit {bit:#x} was accepted but is not offered"
        );
    }
    Bench::start(endpoint, Setup::default())?.round_trips(1)
}

/// Each protocol feature offered can be used.
pub fn does_what_its_protocol_features_say(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    bench.round_trips(1)?;
    let protocol = bench.driver.negotiated().protocol;
    if protocol.contains(Protocol::STATUS) {
        // ACKNOWLEDGE, DRIVER, FEATURES_OK and DRIVER_OK (virtio 1.2, section 2.1).
        for status in [1, 3, 11, 15] {
            bench.driver.connection().set_status(status)?;
            let now = bench.driver.connection().status()?;
            // The device may add DEVICE_NEEDS_RESET, which a sound device has no reason for.
            ensure!(
                now == status,
                "status {now:#x} was read after {status:#x} was written"
            );
        }
    }
    if protocol.contains(Protocol::RESET_DEVICE) {
        bench.reset()?;
        bench.round_trips(1)?;
        // Twice is the same as once.
        bench.driver.connection().reset()?;
        bench.reset()?;
        bench.round_trips(1)?;
    }
    if protocol.contains(Protocol::MQ) {
        let queues = bench.driver.negotiated().queues;
        let beyond = bench.driver.connection().stop_queue(queues);
        let refused = matches!(
            beyond,
            Err(DriverError::Refused { .. } | DriverError::Request { .. })
        );
        ensure!(refused, "a queue past the last one was stopped");
    }
    Ok(())
}
