//! Several backends, and the machine's own floors, by turns.

mod limits;

use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::Deserialize;

use crate::backend::Target;
use crate::case::{Case, Path, Sweep, Switch};
use crate::error::{Error, Result};
use crate::floor::Floor;
use crate::record::Record;
use crate::run::{self, Conditions, Subject};

pub use limits::limits;

/// A backend as a file describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Description {
    /// Its name in tables.
    pub name: String,
    /// The kind of device it is.
    pub path: Path,
    /// The command that starts it.
    spawn: Option<String>,
    /// The socket it listens on.
    socket: Option<PathBuf>,
    /// Off: it does not offer it, and is driven by flags.
    event_idx: Option<Switch>,
    /// What to measure of it, where the command line does not say.
    #[serde(default)]
    pub sweep: Sweep,
}

impl Description {
    /// Reads a file.
    pub fn read(path: &FilePath) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
        toml::from_str(&text).map_err(|e| Error::Content {
            path: path.to_owned(),
            reason: e.to_string().trim_end().to_owned(),
        })
    }

    /// Whether its command names an image.
    pub fn wants_file(&self) -> bool {
        self.spawn
            .as_ref()
            .is_some_and(|command| command.contains("{file}"))
    }

    /// The backend, on that image or tap.
    pub fn subject(&self, file: Option<&FilePath>, tap: Option<&str>) -> Result<Subject> {
        let target = match (&self.spawn, &self.socket) {
            (Some(command), None) => Target::Spawn(command.clone()),
            (None, Some(socket)) => Target::Socket(socket.clone()),
            _ => {
                let name = &self.name;
                return Err(Error::Unfit(format!("{name} needs either spawn or socket")));
            }
        };
        Ok(Subject {
            name: self.name.clone(),
            target,
            file: file.map(FilePath::to_owned),
            tap: tap.map(str::to_owned),
            by_flags: self.event_idx == Some(Switch::Off),
        })
    }
}

/// Who takes part.
#[derive(Clone, Debug)]
pub enum Contestant {
    /// A backend.
    Backend(Subject),
    /// The machine.
    Floor(Floor),
}

impl Contestant {
    /// Its name in tables.
    pub fn name(&self) -> &str {
        match self {
            Self::Backend(subject) => &subject.name,
            Self::Floor(floor) => floor.name(),
        }
    }

    fn fits(&self, case: &Case) -> bool {
        match self {
            Self::Backend(_) => true,
            Self::Floor(floor) => floor.fits(case),
        }
    }
}

/// The turns of all rounds: in each, every case, and in each case everybody, forwards in one round and
/// backwards in the next, so that a machine that slows down is nobody's advantage.
pub fn turns<'a>(
    contestants: &'a [Contestant],
    cases: &'a [Case],
    rounds: u32,
) -> impl Iterator<Item = (u32, &'a Case, &'a Contestant)> {
    (1..=rounds).flat_map(move |round| {
        cases.iter().flat_map(move |case| {
            let mut order: Vec<_> = contestants.iter().filter(|who| who.fits(case)).collect();
            if round % 2 == 0 {
                order.reverse();
            }
            order.into_iter().map(move |who| (round, case, who))
        })
    })
}

/// One turn.
pub fn turn(
    who: &Contestant,
    case: &Case,
    how: &Conditions,
    round: u32,
    stop: &AtomicBool,
) -> Result<Record> {
    match who {
        Contestant::Backend(subject) => run::run(subject, case, how, round, stop),
        Contestant::Floor(floor) => floor.run(case, how, round, stop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::{Engine, Fio};

    #[test]
    fn everybody_is_first_in_every_other_round() {
        let text = "name = 'ours'\npath = 'block'\nspawn = 'x {socket}'\n[sweep]\ndepth = [1, 32]";
        let ours: Description = toml::from_str(text).unwrap();
        let backend = Contestant::Backend(ours.subject(None, None).unwrap());
        let fio = Fio {
            engine: Engine::Psync,
            file: "f".into(),
            direct: false,
        };
        let contestants = [backend, Contestant::Floor(Floor::Fio(fio))];
        let cases = ours.sweep.cases(ours.path);
        let order: Vec<_> = turns(&contestants, &cases, 2)
            .map(|(round, case, who)| (round, case.depth, who.name()))
            .collect();
        let wanted = [
            (1, 1, "ours"),
            (1, 1, "fio psync"),
            (1, 32, "ours"),
            (2, 1, "fio psync"),
            (2, 1, "ours"),
            (2, 32, "ours"),
        ];
        assert_eq!(order, wanted);
    }

    #[test]
    fn a_description_names_one_backend() {
        for text in [
            "name = 'a'\npath = 'null'",
            "name = 'a'\npath = 'null'\nspawn = 'a'\nsocket = 'b'",
        ] {
            let description: Description = toml::from_str(text).unwrap();
            assert!(description.subject(None, None).is_err());
        }
        assert!(toml::from_str::<Description>("name = 'a'\npath = 'null'\nspwan = 'a'").is_err());
    }
}
