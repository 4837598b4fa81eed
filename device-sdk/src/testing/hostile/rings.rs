//! Rings that claim too much, or are not there.

use super::survive;
use crate::driver::DriverError;
use crate::driver::raw::{self, Header};
use crate::testing::{Bench, Endpoint, Failure, Outcome, Setup, ensure};

/// An available index that claims more chains than the ring holds.
pub fn survives_jumps_of_the_available_index(endpoint: &mut dyn Endpoint) -> Outcome {
    survive(
        endpoint,
        Setup::default(),
        &[
            ("one more than the ring holds", &|ring| {
                ring.publish(ring.size() + 1);
            }),
            ("half of all indices", &|ring| ring.publish(0x8000)),
            ("one step back", &|ring| ring.publish(0xffff)),
            ("the whole ring, of empty descriptors", &|ring| {
                ring.publish(ring.size());
            }),
        ],
    )
}

/// The request's number in the vhost-user specification.
const SET_VRING_ADDR: u32 = 9;

/// A change to the user addresses of descriptors, used ring and available ring, given the end of the
/// region they are in.
type Move = fn(&mut [u64; 3], u64);

/// Rings that are not in guest memory, or not aligned, are refused or never looked at.
pub fn survives_rings_outside_memory(endpoint: &mut dyn Endpoint) -> Outcome {
    let probe = endpoint.expected().probe.queue;
    let moves: [(&str, Move); 6] = [
        ("descriptors outside memory", |ring, _| ring[0] = 0x10),
        ("a used ring outside memory", |ring, _| ring[1] = 0x10),
        ("an available ring outside memory", |ring, _| ring[2] = 0x10),
        ("descriptors over the end of memory", |ring, end| {
            ring[0] = end - 16;
        }),
        ("a used ring over the end of memory", |ring, end| {
            ring[1] = end - 4;
        }),
        ("an odd address", |ring, _| {
            ring[2] += 1;
        }),
    ];
    for (name, change) in moves {
        let mut bench = Bench::start(endpoint, Setup::default())?;
        bench.driver.stop_queue(probe)?;
        let ring = bench.queue()?.ring();
        let (start, layout) = (ring.memory().user_addr(), *ring.layout());
        let region = bench
            .driver
            .memory()
            .window(0, 32 << 20)
            .map_err(DriverError::from)?;
        let end = region.user_addr() + region.len() as u64;
        let mut addrs =
            [layout.descriptors, layout.used, layout.available].map(|at| start + at as u64);
        change(&mut addrs, end);
        let mut payload = u32::from(probe).to_ne_bytes().to_vec();
        payload.extend([0; 4]);
        payload.extend(addrs.iter().flat_map(|addr| addr.to_ne_bytes()));
        payload.extend([0; 8]);
        let flags = raw::VERSION | raw::NEED_REPLY;
        let header = Header {
            request: SET_VRING_ADDR,
            flags,
            size: payload.len() as u32,
        };
        let answer = bench
            .driver
            .connection()
            .exchange("SET_VRING_ADDR", header, &payload);
        let hung = matches!(answer, Err(DriverError::Deadline { .. }));
        ensure!(!hung, "{name}: SET_VRING_ADDR was never answered");
        // Whatever it said, starting the queue now must not bring it down.
        if bench.driver.ready_queue(probe).is_ok() {
            bench.queue()?.kick()?;
            bench.settle(|_| Ok(false))?;
        }
        drop(bench);
        endpoint.check_alive()?;
        Bench::start(endpoint, Setup::default())?
            .round_trips(1)
            .map_err(|failure| Failure::new(format!("{name}: {failure}")))?;
    }
    Ok(())
}
