//! VMs looked at again and again.

use std::time::{Duration, Instant};

use outboard::api::{Client, ClientError};
use outboard::registry;
use outboard::vm::Info;

use super::super::manage::Error;
use super::sample::{Moment, Progress, Sample};

/// How long a VM may take to answer. One that hangs is shown no more.
const PATIENCE: Duration = Duration::from_secs(2);

/// Every VM that is looked at: the one of a name, or all.
pub(super) struct Watches {
    name: Option<String>,
    watches: Vec<Watch>,
}

impl Watches {
    pub(super) fn begin(name: Option<String>) -> Result<Self, Error> {
        let watches = match &name {
            Some(name) => vec![Watch::begin(registry::find(name)?.client())?],
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
                self.watches.extend(Watch::begin(vm.client()));
            }
        }
        Ok(())
    }

    /// Looks at those whose queues have to be looked at often.
    pub(super) fn keep_up(&mut self) {
        self.watches
            .retain_mut(|watch| !watch.is_fast() || watch.look().is_ok());
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
}

impl Watch {
    fn begin(client: Client) -> Result<Self, ClientError> {
        let client = client.patient_for(PATIENCE);
        let now = Moment::of(client.get("outboard.info")?, Instant::now());
        Ok(Self {
            client,
            before: now.clone(),
            now,
            progress: Progress::default(),
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

    /// Looks once.
    fn look(&mut self) -> Result<(), ClientError> {
        let info: Info = self.client.get("outboard.info")?;
        self.progress.add(&self.now.info, &info);
        self.now = Moment::of(info, Instant::now());
        Ok(())
    }

    /// What has happened since this was last asked, as far as the last look saw.
    fn sample(&mut self) -> Sample {
        let progress = std::mem::take(&mut self.progress);
        let sample = Sample::between(&self.before, &self.now, &progress);
        self.before = self.now.clone();
        sample
    }
}
