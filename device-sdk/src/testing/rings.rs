//! Rings that are right, in every way they can be.

use std::collections::BTreeSet;

use super::{Bench, Endpoint, Failure, Outcome, Setup, ensure};
use crate::driver::{Segment, Window};

/// Enough requests to go round the ring many times.
pub fn answers_many_requests(endpoint: &mut dyn Endpoint) -> Outcome {
    Bench::start(endpoint, Setup::default())?.round_trips(2000)
}

/// Requests published together with one kick all complete, each once.
pub fn completes_batches(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(
        endpoint,
        Setup {
            size: 256,
            ..Setup::default()
        },
    )?;
    for count in [1u16, 2, 31, 128].map(|count| count.min(bench.fits())) {
        bench.submit(count)?;
        let tokens: BTreeSet<u64> = bench.collect(count)?.into_iter().collect();
        ensure!(
            tokens.len() == usize::from(count),
            "{count} requests completed as {tokens:?}"
        );
    }
    bench.round_trips(3)
}

/// Rings from the smallest that holds the probe to the largest the device takes, filled up.
pub fn takes_full_rings_of_every_size(endpoint: &mut dyn Endpoint) -> Outcome {
    let largest = endpoint.expected().max_queue_size;
    for indirect in [0, 4] {
        let mut size = if indirect > 0 { 1 } else { 2 };
        while size <= largest {
            let mut bench = Bench::start(
                endpoint,
                Setup {
                    size,
                    indirect,
                    ..Setup::default()
                },
            )?;
            let each = if indirect > 0 { 1 } else { bench.chain_len() };
            if size >= bench.chain_len() || indirect > 0 {
                let count = (size / each).min(super::bench::SLOTS);
                for _ in 0..3 {
                    bench.submit(count)?;
                    bench.collect(count)?;
                }
            }
            size *= 4;
        }
    }
    Ok(())
}

/// How a request is cut into descriptors has no meaning (virtio 1.2, section 2.7.4).
pub fn makes_no_assumption_about_framing(endpoint: &mut dyn Endpoint) -> Outcome {
    for indirect in [0, 128] {
        let mut bench = Bench::start(
            endpoint,
            Setup {
                size: 256,
                indirect,
                ..Setup::default()
            },
        )?;
        for piece in [1usize, 2, 3, 7, 15] {
            let (readable, writable) = bench.fill(0);
            let mut chain = pieces(&readable, piece, false);
            chain.extend(pieces(&writable, piece, true));
            if chain.len() > usize::from(bench.setup.size.min(100)) {
                continue;
            }
            send(
                &mut bench,
                0,
                &chain,
                &format!("a probe in pieces of {piece} bytes"),
            )?;
        }
    }
    Ok(())
}

/// Indirect tables, full and with one entry, mixed with direct chains.
pub fn follows_indirect_tables(endpoint: &mut dyn Endpoint) -> Outcome {
    for indirect in [2u16, 8, 128] {
        let mut bench = Bench::start(
            endpoint,
            Setup {
                indirect,
                ..Setup::default()
            },
        )?;
        bench.round_trips(100)?;
        let count = 64;
        bench.submit(count)?;
        bench.collect(count)?;
    }
    // Tables that only some chains fit in: the others are direct.
    let mut bench = Bench::start(
        endpoint,
        Setup {
            indirect: 3,
            ..Setup::default()
        },
    )?;
    for piece in [1usize, 64] {
        let (readable, writable) = bench.fill(1);
        let mut chain = pieces(&readable, piece.max(readable.len() / 20), false);
        chain.extend(pieces(&writable, piece.max(writable.len() / 20), true));
        send(
            &mut bench,
            1,
            &chain,
            "a probe that may not fit an indirect table",
        )?;
    }
    Ok(())
}

fn pieces(window: &Window, piece: usize, writable: bool) -> Vec<Segment> {
    let starts = (0..window.len()).step_by(piece.max(1));
    starts
        .map(|at| Segment {
            addr: window.addr() + at as u64,
            len: piece.min(window.len() - at) as u32,
            writable,
        })
        .collect()
}

/// Sends a chain over the buffers of a slot that was filled.
fn send(bench: &mut Bench, slot: u16, chain: &[Segment], what: &str) -> Outcome {
    let limit = bench.limit;
    let queue = bench.queue()?;
    queue.submit(chain, u64::from(slot))?;
    let used = queue.wait(limit)?;
    bench
        .check(used)
        .map_err(|failure| Failure::new(format!("{what}: {failure}")))
}
