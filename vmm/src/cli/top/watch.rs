//! VMs looked at again and again.

use std::time::{Duration, Instant};

use outboard::api::{Client, ClientError};
use outboard::registry;
use outboard::vm::Info;

use super::super::manage::Error;
use super::sample::{Moment, NO_ANSWER, Progress, Sample};

/// How long the VM that a person has named may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long any may take later. One that is late, as while it is suspended, is looked at again with the next
/// sample; meanwhile no key is heard.
const GLANCE: Duration = Duration::from_millis(300);

/// Every VM that is looked at: the one of a name, or all.
pub(super) struct Watches {
    name: Option<String>,
    watches: Vec<Watch>,
}

impl Watches {
    pub(super) fn begin(name: Option<String>) -> Result<Self, Error> {
        let watches = match &name {
            Some(name) => vec![Watch::begin(registry::find(name)?.client(), PATIENCE)?],
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
        for vm in registry::running()? {
            if self.watches.iter().all(|watch| watch.name() != vm.name) {
                // One that has just ended, or hangs, does not keep the others from being shown.
                self.watches.extend(Watch::begin(vm.client(), GLANCE));
            }
        }
        Ok(())
    }

    /// Looks at those whose queues have to be looked at often.
    pub(super) fn keep_up(&mut self) {
        self.watches
            .retain_mut(|watch| watch.is_late || !watch.is_fast() || watch.look().is_ok());
    }

    /// What each has done since this was last asked. Those that are over are left.
    pub(super) fn samples(&mut self) -> Vec<Sample> {
        self.watches.retain_mut(|watch| watch.look().is_ok());
        self.watches.iter_mut().map(Watch::sample).collect()
    }

    /// The name of the VM that was looked at by its name and has ended.
    pub(super) fn ended(&self) -> Option<&str> {
        let name = self.name.as_deref();
        name.filter(|_| self.watches.is_empty())
    }
}

/// A VM, and how far its queues have come since the last sample.
struct Watch {
    client: Client,
    before: Moment,
    now: Moment,
    progress: Progress,
    /// It did not answer when last looked at.
    is_late: bool,
}

impl Watch {
    fn begin(client: Client, patience: Duration) -> Result<Self, ClientError> {
        let client = client.patient_for(patience);
        let now = Moment::of(client.get("outboard.info")?, Instant::now());
        Ok(Self {
            client: client.patient_for(GLANCE),
            before: now.clone(),
            now,
            progress: Progress::default(),
            is_late: false,
        })
    }

    fn name(&self) -> &str {
        &self.now.info.name
    }

    /// A queue is known by its index alone, which comes round every 65536 requests.
    fn is_fast(&self) -> bool {
        let mut queues = self.now.info.devices.iter().flat_map(|d| &d.queues);
        queues.any(|queue| queue.counts.is_none() && queue.used.is_some())
    }

    /// Looks once. An error says that it is over.
    fn look(&mut self) -> Result<(), ClientError> {
        let info: Info = match self.client.get("outboard.info") {
            Err(ClientError::Silent(..)) => {
                self.is_late = true;
                return Ok(());
            }
            answer => answer?,
        };
        self.is_late = false;
        self.progress.add(&self.now.info, &info);
        self.now = Moment::of(info, Instant::now());
        Ok(())
    }

    /// What has happened since this was last asked, as far as the last look saw.
    fn sample(&mut self) -> Sample {
        let progress = std::mem::take(&mut self.progress);
        let mut sample = Sample::between(&self.before, &self.now, &progress);
        if self.is_late {
            sample.state = NO_ANSWER;
        }
        self.before = self.now.clone();
        sample
    }
}
