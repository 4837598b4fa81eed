//! The device's state, saved and restored by devices that offer it (`DEVICE_STATE`).

use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;

use super::{Bench, Endpoint, Failure, Outcome, Setup, ensure};
use crate::driver::DriverError;

/// Saved state; `None` of a device that does not offer it.
fn saved(endpoint: &mut dyn Endpoint) -> Outcome<Option<Vec<u8>>> {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    let protocol = bench.driver.negotiated().protocol;
    if !protocol.contains(Protocol::DEVICE_STATE) {
        return Ok(None);
    }
    bench.round_trips(20)?;
    let early = bench.driver.connection().save();
    ensure!(
        matches!(
            early,
            Err(DriverError::Refused { .. } | DriverError::Request { .. })
        ),
        "the state was told while queues ran"
    );
    for index in bench.expected.running.clone() {
        bench.driver.stop_queue(index)?;
    }
    Ok(Some(bench.driver.connection().save()?))
}

/// Another connection takes what one has saved, and goes on; so it does once more.
pub fn goes_on_from_what_was_saved(endpoint: &mut dyn Endpoint) -> Outcome {
    let Some(state) = saved(endpoint)? else {
        return Ok(());
    };
    for _ in 0..2 {
        let mut bench = Bench::negotiate(endpoint, Setup::default())?;
        let taken = bench.driver.connection().restore(&state);
        taken.map_err(|error| {
            let Failure(why) = error.into();
            Failure::new(format!("its own state is refused: {why}"))
        })?;
        bench.start_queues()?;
        bench.round_trips(20)?;
    }
    Ok(())
}

/// State that is cut, or longer, or of other bytes, is taken or refused; the device goes on.
pub fn survives_damaged_state(endpoint: &mut dyn Endpoint) -> Outcome {
    let Some(state) = saved(endpoint)? else {
        return Ok(());
    };
    let cut = state.get(..state.len() / 2).unwrap_or_default().to_vec();
    let longer = [state.as_slice(), &vec![0xff; 100_000]].concat();
    let other: Vec<u8> = state.iter().map(|byte| !byte).collect();
    for damaged in [cut, longer, other, vec![0; 9], vec![0xff; 9], Vec::new()] {
        let mut bench = Bench::negotiate(endpoint, Setup::default())?;
        match bench.driver.connection().restore(&damaged) {
            Ok(())
            | Err(
                DriverError::Refused { .. }
                | DriverError::Request { .. }
                // It did not read to the end.
                | DriverError::Socket { .. },
            ) => {}
            Err(error) => return Err(error.into()),
        }
        drop(bench);
        endpoint.check_alive()?;
        Bench::start(endpoint, Setup::default())?.round_trips(2)?;
    }
    Ok(())
}
