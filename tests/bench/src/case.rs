//! What is measured: points of a sweep.

use std::fmt;

use clap::ValueEnum;
use outboard_device::daemon;
use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// The kind of device, and so of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// The bare ring: a block request of four descriptors that the device answers without doing it.
    Null,
    /// A block device.
    Block,
    /// A network card.
    Net,
    /// A console's port 0.
    Console,
    /// An entropy source.
    Rng,
    /// A switch: frames from one port to another.
    Switch,
}

/// What is asked of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Data from the device.
    Read,
    /// Data to the device.
    Write,
    /// Seven reads to three writes.
    Mixed,
    /// Flushes: what was written before is put on the medium.
    Flush,
    /// Frames sent that come back: a round trip.
    Echo,
}

/// In which order a block device's addresses come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Any block next.
    Random,
    /// One after another.
    Sequential,
}

/// How the driver waits for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// It looks at the ring all the time, and wants no interrupts.
    Poll,
    /// It sleeps until interrupted, as a guest does.
    Sleep,
}

/// How the ring is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Descriptors and two rings of indices (virtio 1.2, section 2.7).
    #[default]
    Split,
    /// One ring of descriptors; the backend must offer it (virtio 1.2, section 2.8).
    Packed,
}

/// A feature of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// Used; the backend must offer it.
    On,
    /// Not negotiated.
    Off,
}

/// One point of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Case {
    /// The kind of device.
    pub path: Path,
    /// What is asked of it.
    pub op: Op,
    /// The order of addresses; of block devices only.
    pub pattern: Pattern,
    /// Bytes of data in a request.
    pub size: Bytes,
    /// Requests outstanding on each queue.
    pub depth: u16,
    /// How many queues, all driven by one thread.
    pub queues: u16,
    /// How the driver waits.
    pub wait: Wait,
    /// How the rings are laid out.
    #[serde(default)]
    pub ring: Format,
    /// `EVENT_IDX`.
    pub event_idx: Switch,
    /// Indirect descriptors.
    pub indirect: Switch,
    /// Requests a second over all queues, evenly spaced; as fast as they come back without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
}

impl fmt::Display for Case {
    /// In few words: `read random 4k, depth 32`, and what is not as usual.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = name(&self.path);
        match (self.path, self.op) {
            (Path::Null, _) => write!(f, "{path}")?,
            (Path::Block, Op::Flush) => write!(f, "flush")?,
            (Path::Block, op) => {
                write!(f, "{} {} {}", name(&op), name(&self.pattern), self.size)?;
            }
            (Path::Switch, _) => write!(f, "{path} {}", self.size)?,
            (_, op) => write!(f, "{path} {} {}", name(&op), self.size)?,
        }
        write!(f, ", depth {}", self.depth)?;
        if self.queues != 1 {
            write!(f, ", {} queues", self.queues)?;
        }
        if self.wait == Wait::Sleep {
            write!(f, ", sleeping")?;
        }
        if self.ring == Format::Packed {
            write!(f, ", packed")?;
        }
        if self.event_idx == Switch::Off {
            write!(f, ", no event index")?;
        }
        if self.indirect == Switch::On {
            write!(f, ", indirect")?;
        }
        if let Some(rate) = self.rate {
            write!(f, ", {rate} a second")?;
        }
        Ok(())
    }
}

/// The name of a value as the command line has it.
fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Several values of each dimension; every combination is a [`Case`]. What is not given is as the path
/// has it by default.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sweep {
    /// What is asked of the device [default: read; write for net, which knows write, read and echo.
    /// console and rng know one way only]
    #[arg(long, value_delimiter = ',', value_name = "OP")]
    pub op: Vec<Op>,
    /// Order of a block device's addresses [default: random]
    #[arg(long, value_delimiter = ',', value_name = "ORDER")]
    pub pattern: Vec<Pattern>,
    /// Bytes in a request: 512, 4k, 1M [default: 4k; 64 for rng]
    #[arg(long, value_delimiter = ',', value_name = "BYTES")]
    pub size: Vec<Bytes>,
    /// Requests outstanding on each queue [default: 1,32,128]
    #[arg(long, value_delimiter = ',', value_name = "N",
        value_parser = daemon::number(1..=1024u16))]
    pub depth: Vec<u16>,
    /// Queues, all driven by one thread [default: 1]
    #[arg(long, value_delimiter = ',', value_name = "N",
        value_parser = daemon::number(1..=64u16))]
    pub queues: Vec<u16>,
    /// How the driver waits for completions [default: poll]
    #[arg(long, value_delimiter = ',', value_name = "HOW")]
    pub wait: Vec<Wait>,
    /// Layout of the rings [default: split]
    #[arg(long, value_delimiter = ',', value_name = "FORMAT")]
    pub ring: Vec<Format>,
    /// Notifications by `EVENT_IDX` [default: on]
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "on|off",
        hide_possible_values = true
    )]
    pub event_idx: Vec<Switch>,
    /// Indirect descriptors [default: off]
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "on|off",
        hide_possible_values = true
    )]
    pub indirect: Vec<Switch>,
    /// Requests a second, evenly spaced; latencies then count from when each was due
    #[arg(long, value_delimiter = ',', value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Vec<u64>,
}

/// What is given, or else the usual.
fn or<T: Copy>(given: &[T], usual: &[T]) -> Vec<T> {
    if given.is_empty() { usual } else { given }.to_vec()
}

impl Sweep {
    /// Every combination, the last dimension fastest.
    pub fn cases(&self, path: Path) -> Vec<Case> {
        let ops = match path {
            Path::Null | Path::Rng => vec![Op::Read],
            Path::Console | Path::Switch => vec![Op::Write],
            Path::Net => or(&self.op, &[Op::Write]),
            Path::Block => or(&self.op, &[Op::Read]),
        };
        let usual_size = match path {
            Path::Rng | Path::Net | Path::Switch => 64,
            Path::Console | Path::Null | Path::Block => 4096,
        };
        let rates = match self.rate.as_slice() {
            [] => vec![None],
            rates => rates.iter().copied().map(Some).collect(),
        };
        let mut cases = vec![Case {
            path,
            op: Op::Read,
            pattern: Pattern::Random,
            size: Bytes(usual_size),
            depth: 1,
            queues: 1,
            wait: Wait::Poll,
            ring: Format::Split,
            event_idx: Switch::On,
            indirect: Switch::Off,
            rate: None,
        }];
        times(&mut cases, &ops, |case, op| case.op = op);
        times(
            &mut cases,
            &or(&self.pattern, &[Pattern::Random]),
            |case, to| case.pattern = to,
        );
        times(
            &mut cases,
            &or(&self.size, &[Bytes(usual_size)]),
            |case, to| case.size = to,
        );
        times(&mut cases, &or(&self.wait, &[Wait::Poll]), |case, to| {
            case.wait = to;
        });
        times(&mut cases, &or(&self.queues, &[1]), |case, to| {
            case.queues = to;
        });
        times(&mut cases, &or(&self.ring, &[Format::Split]), |case, to| {
            case.ring = to;
        });
        times(
            &mut cases,
            &or(&self.event_idx, &[Switch::On]),
            |case, to| case.event_idx = to,
        );
        times(
            &mut cases,
            &or(&self.indirect, &[Switch::Off]),
            |case, to| case.indirect = to,
        );
        times(&mut cases, &rates, |case, to| case.rate = to);
        times(&mut cases, &or(&self.depth, &[1, 32, 128]), |case, to| {
            case.depth = to;
        });
        cases
    }
}

/// Every case with every value.
fn times<T: Copy>(cases: &mut Vec<Case>, values: &[T], set: impl Fn(&mut Case, T)) {
    *cases = cases
        .iter()
        .flat_map(|case| {
            values.iter().map(|&value| {
                let mut case = case.clone();
                set(&mut case, value);
                case
            })
        })
        .collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_is_every_combination() {
        let sweep: Sweep = toml::from_str(
            "op = ['read', 'flush']\nsize = ['4k', 512]\ndepth = [1, 32]\nwait = ['sleep']",
        )
        .unwrap();
        let cases = sweep.cases(Path::Block);
        let words: Vec<_> = cases.iter().map(ToString::to_string).collect();
        assert_eq!(words.len(), 8);
        assert_eq!(words[0], "read random 4k, depth 1, sleeping");
        assert_eq!(words[3], "read random 512, depth 32, sleeping");
        assert_eq!(words[7], "flush, depth 32, sleeping");
        let again: Vec<Case> =
            serde_json::from_str(&serde_json::to_string(&cases).unwrap()).unwrap();
        assert_eq!(again, cases);
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(toml::from_str::<Sweep>("depths = [1]").is_err());
    }
}
