//! The config space.

use super::{Bench, Endpoint, Outcome, Setup, ensure};
use crate::driver::DriverError;

/// The whole of it read at once is what its bytes are one by one, at every offset.
pub fn reads_the_same_in_every_size(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::negotiate(endpoint, Setup::default())?;
    let len = bench.expected.config_len as usize;
    let mut whole = vec![0; len];
    if len > 0 {
        bench.driver.read_config(0, &mut whole)?;
    }
    for width in [1, 2, 4, 8] {
        for at in 0..len.saturating_sub(width - 1) {
            let mut part = vec![0; width];
            bench.driver.read_config(at as u32, &mut part)?;
            ensure!(
                part == whole[at..at + width],
                "{width} bytes at {at} read {part:x?}, of {whole:x?}"
            );
        }
    }
    Ok(())
}

/// Reads beyond its end give zeroes or an error; writes there do no harm.
pub fn has_bounds(endpoint: &mut dyn Endpoint) -> Outcome {
    let len = endpoint.expected().config_len;
    // The message carries at most 4096 bytes of config space.
    for offset in [len, len + 1, 0x800, 0xfff] {
        let mut bench = Bench::start(endpoint, Setup::default())?;
        let mut byte = [0xff];
        match bench.driver.read_config(offset, &mut byte) {
            Ok(()) => ensure!(byte == [0], "{byte:x?} was read at {offset}, past the end"),
            Err(error @ DriverError::Deadline { .. }) => return Err(error.into()),
            Err(_) => {}
        }
    }
    let mut bench = Bench::start(endpoint, Setup::default())?;
    let mut across = vec![0xff; len as usize + 64];
    if bench.driver.read_config(0, &mut across).is_ok() {
        let beyond = &across[len as usize..];
        ensure!(
            beyond.iter().all(|&byte| byte == 0),
            "{beyond:x?} follows the last byte"
        );
    }
    drop(bench);
    for offset in [0, len.saturating_sub(1), len, 0x800, 0xff0] {
        let mut bench = Bench::start(endpoint, Setup::default())?;
        if let Err(error @ DriverError::Deadline { .. }) =
            bench.driver.write_config(offset, &[0xff; 16])
        {
            return Err(error.into());
        }
    }
    Bench::start(endpoint, Setup::default())?.round_trips(1)
}
