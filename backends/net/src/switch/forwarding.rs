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

/// Where a frame goes.
#[derive(Clone, Copy, Debug)]
enum Route {
    To(usize),
    /// To every port that may have it.
    Flood,
    /// It is dropped, and counted.
    Nowhere,
}

/// Addresses of the frame before, in the same turn, and the port it went to. A guest sends several frames to
/// one place, one after another; and what the table has said of the first it would say of each, for only
/// frames from elsewhere change it.
type Before = Option<([[u8; 6]; 2], usize)>;

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
        let mut before = None;
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
            let sender = (from, &**line);
            cost = cost.saturating_add(self.forward(groups, sender, &request, now, &mut before));
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
        before: &mut Before,
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
        let route = match *before {
            Some((same, to)) if same == addresses => Route::To(to),
            _ => self.route((from, line), addresses, now),
        };
        *before = None;
        let frame = Frame { addresses, rest };
        let handed = match route {
            Route::To(to) => {
                *before = Some((addresses, to));
                self.hand(groups, to, &frame)
            }
            Route::Flood => {
                let handed = self.flood(groups, from, line.isolated, &frame);
                counters.flooded.add(handed.is_some().into());
                handed
            }
            Route::Nowhere => return taken,
        };
        if handed.is_none() {
            counters.drops.nowhere.add(1);
        }
        taken.saturating_add(handed.unwrap_or_default())
    }

    /// Hears where the frame comes from, and says where it goes.
    fn route(
        &mut self,
        (from, line): (usize, &Line),
        [destination, source]: [[u8; 6]; 2],
        now: u32,
    ) -> Route {
        let drops = &line.counters.drops;
        if is_group(source) {
            drops.malformed.add(1);
            return Route::Nowhere;
        }
        match self.table.hear(source, from, now) {
            Heard::Here => {}
            Heard::Unlearned => line.counters.unlearned.add(1),
            Heard::Claimed => {
                drops.claimed.add(1);
                return Route::Nowhere;
            }
        }
        if is_group(destination) {
            return Route::Flood;
        }
        match self.table.find(destination, now) {
            None => Route::Flood,
            Some(to) if to == from => {
                drops.local.add(1);
                Route::Nowhere
            }
            Some(to) if line.isolated && self.is_isolated(to) => {
                drops.isolated.add(1);
                Route::Nowhere
            }
            Some(to) => Route::To(to),
        }
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

/// Whether an address is of a group (IEEE 802, the first byte's lowest bit), which no frame comes from.
fn is_group([first, ..]: [u8; 6]) -> bool {
    first & 1 != 0
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
