//! VMs looked at again and again.

use std::thread;
use std::time::{Duration, Instant};

use outboard::api::{Client, ClientError};
use outboard::registry::{self, Running};
use outboard::vm::Info;

use super::super::manage::Error;
use super::sample::{Moment, NO_ANSWER, Progress, Sample};

/// How long one may take at first, and where there is one sample only.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How long any may take otherwise. One that is late, as while it is suspended, is looked at again with the
/// next sample; meanwhile no key is heard.
pub(super) const GLANCE: Duration = Duration::from_millis(300);

/// Every VM that is looked at: the one of a name, or all.
pub(super) struct Watches {
    name: Option<String>,
    all: Vec<Watch>,
    /// Why the last one that was left is not looked at any more.
    why: Option<ClientError>,
}

/// How it is over with the VM that was looked at by its name.
pub(super) enum End<'a> {
    /// It has ended, the one of this name.
    Ended(&'a str),
    /// It cannot be looked at, and may run.
    Unreadable(&'a ClientError),
}

impl Watches {
    pub(super) fn begin(name: Option<String>) -> Result<Self, Error> {
        let all = match &name {
            Some(name) => {
                let mut watch = Watch::unseen(registry::find(name)?);
                watch.look(PATIENCE)?;
                vec![watch]
            }
            None => Vec::new(),
        };
        let mut watches = Self {
            name,
            all,
            why: None,
        };
        watches.meet()?;
        Ok(watches)
    }

    /// Takes in those that have come, where all are looked at.
    pub(super) fn meet(&mut self) -> Result<(), Error> {
        if self.name.is_some() {
            return Ok(());
        }
        let mut vms = registry::running()?;
        vms.retain(|vm| self.all.iter().all(|watch| watch.name != vm.name));
        self.take(at_once(vms, |vm| {
            let mut watch = Watch::unseen(vm);
            watch.look(PATIENCE).map(|()| watch)
        }));
        Ok(())
    }

    /// Goes on with those that could be looked at.
    fn take(&mut self, looked: Vec<Result<Watch, ClientError>>) {
        for watch in looked {
            match watch {
                Ok(watch) => self.all.push(watch),
                Err(error) => self.why = Some(error),
            }
        }
    }

    /// Looks at those whose queues have to be looked at often.
    pub(super) fn keep_up(&mut self) {
        self.all.retain_mut(|watch| {
            if watch.is_late || !watch.is_fast() {
                return true;
            }
            let looked = watch.look(GLANCE);
            looked.map_err(|error| self.why = Some(error)).is_ok()
        });
    }

    /// What each has done since this was last asked; each may take so long to say. Those that are over are
    /// left.
    pub(super) fn samples(&mut self, patience: Duration) -> Vec<Sample> {
        let all = std::mem::take(&mut self.all);
        self.take(at_once(all, |mut watch| {
            watch.look(patience).map(|()| watch)
        }));
        self.all.iter_mut().map(Watch::sample).collect()
    }

    /// Nothing is looked at.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How it is over, if it is, with the VM that was looked at by its name.
    pub(super) fn end(&self) -> Option<End<'_>> {
        let name = self.name.as_deref().filter(|_| self.is_empty())?;
        Some(match &self.why {
            Some(error @ (ClientError::Malformed(_) | ClientError::Refused(_))) => {
                End::Unreadable(error)
            }
            _ => End::Ended(name),
        })
    }
}

/// What comes of each, in their order: one that is late does not have the others wait.
fn at_once<T: Send, U: Send>(all: Vec<T>, look: impl Fn(T) -> U + Sync) -> Vec<U> {
    let look = &look;
    thread::scope(|scope| {
        let spawn = |one| scope.spawn(move || look(one));
        let looks: Vec<_> = all.into_iter().map(spawn).collect();
        let done = looks.into_iter().map(|look| look.join().ok());
        done.flatten().collect()
    })
}

/// A VM, and how far its queues have come since the last sample.
struct Watch {
    client: Client,
    name: String,
    /// Once it has answered.
    seen: Option<Seen>,
    /// It did not answer when last looked at.
    is_late: bool,
}

struct Seen {
    before: Moment,
    now: Moment,
    progress: Progress,
}

impl Watch {
    fn unseen(vm: Running) -> Self {
        Self {
            client: vm.client(),
            name: vm.name,
            seen: None,
            is_late: false,
        }
    }

    fn ask(&self, patience: Duration) -> Result<Info, ClientError> {
        let client = self.client.clone().patient_for(patience);
        client.get("outboard.info")
    }

    fn see(&mut self, info: Info) {
        let moment = |info| Moment::of(info, Instant::now());
        if let Some(seen) = &mut self.seen {
            seen.progress.add(&seen.now.info, &info);
            seen.now = moment(info);
            return;
        }
        let now = moment(info);
        self.seen = Some(Seen {
            before: now.clone(),
            now,
            progress: Progress::default(),
        });
    }

    /// A queue is known by its index alone, which comes round every 65536 requests.
    fn is_fast(&self) -> bool {
        let devices = self.seen.iter().flat_map(|seen| &seen.now.info.devices);
        let mut queues = devices.flat_map(|device| &device.queues);
        queues.any(|queue| queue.counts.is_none() && queue.used.is_some())
    }

    /// Looks once. An error says that it is over, or that what it answers cannot be read.
    fn look(&mut self, patience: Duration) -> Result<(), ClientError> {
        match self.ask(patience) {
            Ok(info) => {
                self.is_late = false;
                self.see(info);
            }
            Err(ClientError::Silent(..)) => self.is_late = true,
            // It may be about to end; until then it runs.
            Err(ClientError::Connect { .. } | ClientError::Broken { .. })
                if registry::find(&self.name).is_ok() =>
            {
                self.is_late = true;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What has happened since this was last asked, as far as the last look saw.
    fn sample(&mut self) -> Sample {
        let Some(seen) = &mut self.seen else {
            return Sample::silent(&self.name);
        };
        let progress = std::mem::take(&mut seen.progress);
        let mut sample = Sample::between(&seen.before, &seen.now, &progress);
        if self.is_late {
            sample.state = NO_ANSWER;
        }
        seen.before = seen.now.clone();
        sample
    }
}
