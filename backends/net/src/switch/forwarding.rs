//! From one port to others.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;
use std::time::Instant;

use outboard_device::{Groups, Progress, QueueError, Request, SharedWorker};

use super::MAX_FRAME;
use super::deliver::{Delivered, Delivery, Frame, deliver};
use super::port::Line;
use super::table::{Heard, Table};
use crate::tap::HEADER_LEN;

/// Frames of one port taken in its turn.
const BURST: usize = 64;

/// A turn ends at this cost, in bytes copied. A guest's frames can be long, in many pieces, for
/// everybody, and for others whose buffers are in many pieces: it costs the rest no more time than one that
/// sends short ones does.
const TURN_COST: usize = 128 * 1024;

/// What a frame costs besides its bytes, at its sender and at each receiver.
const FRAME_COST: usize = 256;

/// What each descriptor costs that is read for it, on either side.
const DESCRIPTOR_COST: usize = 64;

/// Bytes of an Ethernet header.
const ETHERNET_LEN: usize = 14;

/// The switch's worker.
#[derive(Debug)]
pub struct Forwarding {
    /// Of each port. Shared, so that a turn may hold on to them.
    lines: Arc<[Arc<Line>]>,
    /// For each port, buffers with frames for it, to be shown to its driver together.
    filled: Vec<Vec<(Request, u32)>>,
    table: Table,
    began: Instant,
    /// Frames of the port whose turn it is, done with.
    sent: Vec<(Request, u32)>,
}

impl Forwarding {
    /// Between these ports, each at its place; what is not heard for `ageing` seconds is forgotten.
    pub fn new(lines: impl IntoIterator<Item = Arc<Line>>, ageing: u32) -> Self {
        let lines: Arc<[_]> = lines.into_iter().collect();
        let mut table = Table::new(lines.len(), ageing);
        for (port, line) in lines.iter().enumerate() {
            if let Some(mac) = line.mac {
                table.fix(mac.octets(), port);
            }
        }
        Self {
            filled: lines.iter().map(|_| Vec::new()).collect(),
            lines,
            table,
            began: Instant::now(),
            sent: Vec::with_capacity(BURST),
        }
    }

    /// Forwards what a port sends, for a while. True if it sent anything.
    fn turn(&mut self, groups: &mut Groups<'_>, from: usize) -> bool {
        let lines = Arc::clone(&self.lines);
        let Some(line) = lines.get(from) else {
            return false;
        };
        let mut cost = 0usize;
        let mut now = None;
        let mut broken = None;
        while self.sent.len() < BURST && cost < TURN_COST {
            let [rx, tx] = groups.queues(from) else {
                break;
            };
            // A receiver that lacks buffers is waited for by nobody.
            rx.set_kicks(false);
            let request = match tx.pop() {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            };
            let now = *now.get_or_insert_with(|| self.began.elapsed().as_secs() as u32);
            cost = cost.saturating_add(self.forward(groups, (from, line), &request, now));
            self.sent.push((request, 0));
        }
        let worked = !self.sent.is_empty();
        if worked {
            self.publish(groups);
            if let [_, tx] = groups.queues(from) {
                // Nothing here is another queue's.
                let _ = tx.complete(self.sent.drain(..));
            }
            self.sent.clear();
        }
        if let Some(error) = broken {
            groups.fail(from, &error.into());
        }
        worked
    }

    /// Shows each guest what has come for it.
    fn publish(&mut self, groups: &mut Groups<'_>) {
        for (port, filled) in self.filled.iter_mut().enumerate() {
            if !filled.is_empty() {
                if let [rx, _] = groups.queues(port) {
                    let _ = rx.complete(filled.drain(..));
                }
                filled.clear();
            }
        }
    }

    /// Forwards one frame that came from a port; returns what it cost.
    fn forward(
        &mut self,
        groups: &mut Groups<'_>,
        (from, line): (usize, &Line),
        request: &Request,
        now: u32,
    ) -> usize {
        let counters = &line.counters;
        let taken = cost(request.buffers().into(), 0);
        let mut rest = request.reader();
        let len = rest.len().saturating_sub(HEADER_LEN);
        counters.from_frames.add(1);
        counters.from_bytes.add(len as u64);
        let mut addresses = [[0; 6]; 2];
        if !(ETHERNET_LEN..=MAX_FRAME).contains(&len)
            || rest.skip(HEADER_LEN).is_err()
            || rest.read_exact(addresses.as_flattened_mut()).is_err()
        {
            counters.drops.malformed.add(1);
            return taken;
        }
        let frame = Frame { addresses, rest };
        let [destination, source] = addresses;
        if source[0] & 1 != 0 {
            counters.drops.malformed.add(1);
            return taken;
        }
        match self.table.hear(source, from, now) {
            Heard::Here => {}
            Heard::Unlearned => counters.unlearned.add(1),
            Heard::Claimed => {
                counters.drops.claimed.add(1);
                return taken;
            }
        }
        let known = match destination[0] & 1 {
            0 => self.table.find(destination, now),
            _ => None,
        };
        let handed = match known {
            Some(to) if to == from => {
                counters.drops.local.add(1);
                return taken;
            }
            Some(to) if line.isolated && self.is_isolated(to) => {
                counters.drops.isolated.add(1);
                return taken;
            }
            Some(to) => self.hand(groups, to, &frame),
            None => self.flood(groups, from, line.isolated, &frame),
        };
        match (handed, known) {
            (None, _) => counters.drops.nowhere.add(1),
            (Some(_), None) => counters.flooded.add(1),
            (Some(_), Some(_)) => {}
        }
        taken.saturating_add(handed.unwrap_or_default())
    }

    fn is_isolated(&self, port: usize) -> bool {
        self.lines.get(port).is_some_and(|line| line.isolated)
    }

    /// Hands the frame to every port that may have it; returns what it cost, if there is any.
    fn flood(
        &mut self,
        groups: &mut Groups<'_>,
        from: usize,
        isolated: bool,
        frame: &Frame<'_>,
    ) -> Option<usize> {
        let mut cost = None;
        for to in 0..self.lines.len() {
            if to != from && !(isolated && self.is_isolated(to)) {
                let one = self.hand(groups, to, frame);
                cost = one.map_or(cost, |one| {
                    Some(one.saturating_add(cost.unwrap_or_default()))
                });
            }
        }
        cost
    }

    /// Hands the frame to a port: into its guest's buffers, or to be counted there. Returns what it cost;
    /// `None` when no guest is there.
    fn hand(&mut self, groups: &mut Groups<'_>, to: usize, frame: &Frame<'_>) -> Option<usize> {
        let (Some(line), Some(filled)) = (self.lines.get(to), self.filled.get_mut(to)) else {
            return None;
        };
        let [rx, _] = groups.queues(to) else {
            return None;
        };
        if !rx.enabled() {
            return None;
        }
        let counters = &line.counters;
        match deliver(rx, frame, line.is_mergeable(), filled) {
            Ok(Delivery {
                delivered,
                descriptors,
            }) => {
                match delivered {
                    Delivered::Whole => {
                        counters.to_frames.add(1);
                        counters.to_bytes.add(frame.size() as u64);
                    }
                    Delivered::NoBuffer => counters.drops.no_buffer.add(1),
                    Delivered::TooLong => counters.drops.too_long.add(1),
                }
                Some(cost(descriptors, frame.size()))
            }
            Err(error) => {
                // Those before are good, and must not stay behind.
                let _: Result<(), QueueError> = rx.complete(filled.drain(..));
                groups.fail(to, &error.into());
                None
            }
        }
    }
}

/// What it costs to read so many descriptors for a frame, and to copy so many bytes.
fn cost(descriptors: usize, bytes: usize) -> usize {
    let read = descriptors.saturating_mul(DESCRIPTOR_COST);
    read.saturating_add(bytes).saturating_add(FRAME_COST)
}

impl SharedWorker for Forwarding {
    fn run(&mut self, groups: &mut Groups<'_>) -> Progress {
        let mut worked = false;
        for from in 0..self.lines.len() {
            worked |= self.turn(groups, from);
        }
        if worked {
            Progress::Worked
        } else {
            Progress::Idle
        }
    }

    fn left(&mut self, place: usize) {
        self.table.leave(place);
    }
}
