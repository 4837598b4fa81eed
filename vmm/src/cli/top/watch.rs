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
    watches: Vec<Watch>,
}

impl Watches {
    pub(super) fn begin(name: Option<String>) -> Result<Self, Error> {
        let watches = match &name {
            Some(name) => vec![Watch::of(registry::find(name)?)?],
            None => Vec::new(),
        };
        let mut watches = Self { name, watches };
        watches.meet()?;
        Ok(watches)
    }

    /// Takes in those that have come, where all are looked at.
    pub(super) fn meet(&mut self) -> Result<(), Error> {
        if self.name.is_some() {
            return Ok(());
        }
        let mut vms = registry::running()?;
        vms.retain(|vm| self.watches.iter().all(|watch| watch.name != vm.name));
        self.watches.extend(at_once(vms, |vm| {
            let mut watch = Watch::unseen(vm);
            watch.look(PATIENCE).ok().map(|()| watch)
        }));
        Ok(())
    }

    /// Looks at those whose queues have to be looked at often.
    pub(super) fn keep_up(&mut self) {
        self.watches
            .retain_mut(|watch| watch.is_late || !watch.is_fast() || watch.look(GLANCE).is_ok());
    }

    /// What each has done since this was last asked; each may take so long to say. Those that are over are
    /// left.
    pub(super) fn samples(&mut self, patience: Duration) -> Vec<Sample> {
        let watches = std::mem::take(&mut self.watches);
        self.watches = at_once(watches, |mut watch| {
            watch.look(patience).ok().map(|()| watch)
        });
        self.watches.iter_mut().map(Watch::sample).collect()
    }

    /// Nothing is looked at.
    pub(super) fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// The name of the VM that was looked at by its name and has ended.
    pub(super) fn ended(&self) -> Option<&str> {
        let name = self.name.as_deref();
        name.filter(|_| self.is_empty())
    }
}

/// What comes of each, in their order: one that is late does not have the others wait.
fn at_once<T: Send, U: Send>(all: Vec<T>, look: impl Fn(T) -> Option<U> + Sync) -> Vec<U> {
    let look = &look;
    thread::scope(|scope| {
        let spawn = |one| scope.spawn(move || look(one));
        let looks: Vec<_> = all.into_iter().map(spawn).collect();
        let done = looks.into_iter().map(|look| look.join().ok().flatten());
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

    /// One that has to answer.
    fn of(vm: Running) -> Result<Self, ClientError> {
        let mut watch = Self::unseen(vm);
        let info = watch.ask(PATIENCE)?;
        watch.see(info);
        Ok(watch)
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

    /// Looks once. An error says that it is over.
    fn look(&mut self, patience: Duration) -> Result<(), ClientError> {
        match self.ask(patience) {
            Ok(info) => {
                self.is_late = false;
                self.see(info);
            }
            Err(ClientError::Silent(..)) => self.is_late = true,
            // It may be about to end; until then it runs.
            Err(_) if registry::find(&self.name).is_ok() => self.is_late = true,
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
