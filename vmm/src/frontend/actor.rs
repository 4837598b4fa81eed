//! The device's own thread: the only one that talks to the backend.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outboard_device::ratelimit::RateLimit;

use super::burial::bury;
use super::class;
use super::device::{Lost, Owner, Spec};
use super::error::{CallError, ConnectError, chain};
use super::host::{self, Wire};
use super::inbox::{Command, Inbox};
use super::link::{Link, Offer};
use super::rings::MemoryTable;
use super::state::State;
use super::watch::Watch;
use crate::config::{Behind, Host, OnExit};
use crate::plugin::serve;
use crate::supervisor::{Error, Process, Supervisor};
use crate::transport::Identity;

/// A daemon whose stream has ended is about to exit; its last words are worth this wait.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
/// What stands behind a daemon is looked at for so long: it finds a port in use, say, at once.
const TRIAL: Duration = Duration::from_millis(300);
/// What stands behind a daemon that ends does so too, and may be the first to be seen.
const TOGETHER: Duration = Duration::from_millis(100);

/// A driver can try to start again and again.
static REFUSED: RateLimit = RateLimit::new();

/// The actor. Built by the VM's thread, run by its own.
pub(super) struct Actor {
    pub(super) spec: Spec,
    pub(super) memory: MemoryTable,
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) owner: Arc<dyn Owner>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) state: Arc<State>,
    pub(super) watch: Arc<Watch>,
    /// `None` once the backend is lost.
    pub(super) link: Option<Link>,
    /// The daemon, if we spawned it.
    pub(super) process: Option<Process>,
    /// What stands behind it, until it has ended.
    pub(super) behind: Option<Process>,
}

/// What a device turned out to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) identity: Identity,
    pub(super) features: u64,
}

impl Actor {
    /// Brings the backend up and through the handshake.
    pub(super) fn connect(&mut self) -> Result<Ready, ConnectError> {
        let offer = match self.spec.config.host.clone() {
            Host::Process { program, args } => self.spawn(&program, &args, Vec::new())?,
            Host::Given {
                program,
                args,
                flag,
                fds,
            } => {
                let wires = host::given(&flag, &fds).map_err(|source| ConnectError::Spawn {
                    id: self.id(),
                    source: Error::Supervisor(source),
                })?;
                self.spawn(&program, &args, wires)?
            }
            Host::Backed {
                program,
                args,
                behind,
            } => self.spawn_backed(&program, &args, &behind)?,
            Host::Foreign {
                program,
                args,
                socket,
            } => self.spawn_foreign(&program, &args, socket.as_deref())?,
            Host::Socket { path } => self.connect_to(&path, None)?,
            Host::Plugin {
                path,
                device,
                options,
            } => self.serve_plugin(path, device, options)?,
        };
        let mut offer = offer;
        if let Some(tag) = self
            .spec
            .config
            .tag
            .as_deref()
            .filter(|_| offer.config.is_empty())
        {
            let queues = self.spec.config.queues.unwrap_or(2).saturating_sub(1);
            offer.config = class::fs_config(tag, queues);
        }
        let id = self.id();
        if offer.features & class::VERSION_1 == 0 {
            return Err(ConnectError::Legacy { id });
        }
        let (device_id, asked) = (self.spec.config.virtio_id.get(), self.spec.config.queues);
        let queues = match offer.queues {
            Some(answer) => {
                let offered = class::queues_offered(device_id, answer, asked);
                if offered == 0 {
                    return Err(ConnectError::NoQueues { id });
                }
                match asked {
                    Some(asked) if asked > offered => {
                        return Err(ConnectError::Queues { id, asked, offered });
                    }
                    asked => asked.unwrap_or(offered),
                }
            }
            None => asked.unwrap_or(class::queues_without_mq(device_id)),
        };
        let identity = Identity {
            device_id,
            queues: queues.min(class::QUEUES_MAX),
            max_queue_size: self.spec.config.queue_size.unwrap_or(class::QUEUE_SIZE),
            config_len: offer.config.len() as u32,
        };
        self.state.fill(offer.config);
        Ok(Ready {
            identity,
            features: class::features(offer.features),
        })
    }

    /// Spawns a daemon and what stands behind it. That one does not say when it is ready, only,
    /// soon, what it finds wrong: so it is on trial for a moment.
    fn spawn_backed(
        &mut self,
        program: &str,
        args: &[String],
        behind: &Behind,
    ) -> Result<Offer, ConnectError> {
        let (id, begin) = (self.id(), Instant::now());
        let (wire, process) =
            host::spawn_behind(&self.supervisor, &id, behind).map_err(|source| {
                ConnectError::Spawn {
                    id: id.clone(),
                    source,
                }
            })?;
        let offer = self.spawn(program, args, vec![wire]);
        let trial = match offer {
            Ok(_) => TRIAL.saturating_sub(begin.elapsed()),
            Err(_) => Duration::ZERO,
        };
        match process.wait(trial) {
            None => {
                let inbox = Arc::clone(&self.inbox);
                process.at_end(move || inbox.alone());
                self.behind = Some(process);
                offer
            }
            // It ends with the daemon, and then the daemon's end is what matters.
            Some(status) if status.success() && offer.is_err() => offer,
            Some(status) => Err(ConnectError::Ended {
                id,
                program: behind.program.clone().into(),
                how: status.to_string(),
                words: process.last_words().to_string(),
            }),
        }
    }

    /// Serves the device of a plugin in this process.
    fn serve_plugin(
        &mut self,
        path: PathBuf,
        device: String,
        options: BTreeMap<String, String>,
    ) -> Result<Offer, ConnectError> {
        let (id, time) = (self.id(), self.spec.deadlines.start);
        let spec = serve::Spec {
            id: id.clone(),
            path,
            device,
            options,
        };
        let (stream, page) = serve::serve(spec, time).map_err(|source| ConnectError::Plugin {
            id: id.clone(),
            source,
        })?;
        self.state.counts(page);
        self.handshake(stream, time).map_err(|source| {
            self.watch.cut();
            ConnectError::PluginHandshake { id, source }
        })
    }

    fn spawn(
        &mut self,
        program: &str,
        args: &[String],
        wires: Vec<Wire>,
    ) -> Result<Offer, ConnectError> {
        let (id, terminal) = (self.id(), self.spec.terminal);
        let spawned = host::spawn(&self.supervisor, &id, program, args, wires, terminal);
        let (stream, process, page) =
            spawned.map_err(|source| ConnectError::Spawn { id, source })?;
        self.state.counts(page);
        self.meet(stream, program, &process)
    }

    /// The handshake with a daemon to which there is but this stream.
    pub(super) fn meet(
        &mut self,
        stream: std::os::unix::net::UnixStream,
        program: &str,
        process: &Process,
    ) -> Result<Offer, ConnectError> {
        self.process = Some(process.clone());
        self.state.spawned(process.clone());
        let (id, seconds) = (self.id(), self.spec.deadlines.start.as_secs());
        match self.handshake(stream, self.spec.deadlines.start) {
            Ok(offer) => Ok(offer),
            Err(_) if self.inbox.is_closing() => Err(ConnectError::Cancelled { id }),
            Err(source) => {
                let expired = self.watch.expired();
                self.watch.cut();
                let ended = if expired {
                    process.exited()
                } else {
                    process.wait(LAST_WORDS)
                };
                let words = process.last_words().to_string();
                process.signal(libc::SIGKILL);
                Err(match ended {
                    // What it says of itself is the reason.
                    Some(status) if !status.success() && source.is_disconnect() => {
                        ConnectError::Ended {
                            id,
                            program: program.into(),
                            how: status.to_string(),
                            words,
                        }
                    }
                    None if expired => ConnectError::Silent { id, seconds, words },
                    ended => ConnectError::Handshake {
                        id,
                        cause: source,
                        then: ended.map_or_else(String::new, |status| {
                            format!("; {program} then ended ({status})")
                        }),
                        words,
                    },
                })
            }
        }
    }

    pub(super) fn handshake(
        &mut self,
        stream: std::os::unix::net::UnixStream,
        time: Duration,
    ) -> Result<Offer, CallError> {
        let _deadline = self.watch.within(time);
        let (link, offer) = Link::open(stream, self.spec.config.virtio_id.get(), &self.watch)?;
        self.link = Some(link);
        Ok(offer)
    }

    /// Serves the inbox until the device goes.
    pub(super) fn run(mut self) {
        loop {
            match self.inbox.take() {
                Command::Start(start) => {
                    let started = self.call(|link, memory| link.start(memory, start));
                    self.started(started);
                }
                Command::StartQueue(queue) => {
                    let started = self.call(|link, memory| link.start_queue(memory, queue));
                    self.started(started);
                }
                Command::StopQueue(index) => {
                    let stopped = self.call(|link, _| link.stop_queue(index));
                    self.stopped(stopped);
                    self.state.queue_stopped(index);
                }
                Command::Reset(number) => self.reset(number),
                Command::Pause(done) => {
                    if let Some(link) = &mut self.link {
                        let paused = link.pause().map(Some);
                        self.stopped(paused);
                    }
                    // Nobody may be waiting for it any more.
                    let _ = done.send(());
                }
                Command::Resume(done) => {
                    let resumed = self.call(Link::resume);
                    // A loss meanwhile was told when it happened.
                    if !matches!(resumed, Ok(None)) {
                        self.started(resumed);
                    }
                    let _ = done.send(());
                }
                Command::WriteConfig { offset, data } => self.write_config(offset, &data),
                Command::ConfigChanged => self.config_changed(),
                Command::Broken => self.broken(),
                Command::Lost(epoch) => {
                    if self.link.as_ref().is_some_and(|link| link.epoch == epoch) {
                        self.lose("the connection to its backend ended");
                    }
                }
                Command::Alone => self.cut_off(),
                Command::Close => return self.watch.cut(),
            }
        }
    }

    /// Calls the backend within a deadline. `Ok(None)`: there is none.
    fn call<T>(
        &mut self,
        request: impl FnOnce(&mut Link, &MemoryTable) -> Result<T, CallError>,
    ) -> Result<Option<T>, CallError> {
        let Some(link) = &mut self.link else {
            return Ok(None);
        };
        let _deadline = self.watch.within(self.spec.deadlines.call);
        request(link, &self.memory).map(Some)
    }

    /// The driver is told when a start came to nothing.
    fn started(&mut self, result: Result<Option<()>, CallError>) {
        match result {
            Ok(Some(())) => {}
            Ok(None) => self.needs_reset(),
            Err(error) if error.is_fatal() => self.lose(&chain(&error)),
            Err(error) => {
                if let Some(unseen) = REFUSED.pass() {
                    let (id, error) = (&self.spec.config.id, chain(&error));
                    tracing::warn!(device = id, "The device cannot start: {error}{unseen}");
                }
                self.needs_reset();
            }
        }
    }

    /// What does not stop is cut off.
    fn stopped(&mut self, result: Result<Option<()>, CallError>) {
        if let Err(error) = result {
            self.lose(&chain(&error));
        }
    }

    fn reset(&mut self, number: u64) {
        if let Some(link) = &mut self.link {
            // Its deadline runs since the driver asked for it.
            let stopped = link.reset().map(Some);
            self.stopped(stopped);
        }
        // The next driver sees what the device is like when new, not what the last one made of it.
        if let Some(link) = &mut self.link {
            let config = link.read_config().map(Some);
            if let Some(bytes) = self.config(config) {
                self.state.fill(bytes);
            }
        }
        self.state.queues_stopped();
        self.inbox.reset_done(number, &self.watch);
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let result = self.call(|link, _| {
            let written = link.write_config(offset, data);
            if written.as_ref().is_err_and(CallError::is_fatal) {
                return written.map(|()| Vec::new());
            }
            link.read_config()
        });
        if let Some(bytes) = self.config(result) {
            self.state.fill(bytes);
        }
        self.state.write_done();
    }

    fn config_changed(&mut self) {
        let result = self.call(|link, _| link.read_config());
        if let Some(bytes) = self.config(result) {
            self.state.change(bytes);
            if let Some(events) = self.state.events() {
                events.config_changed();
            }
        }
    }

    /// The backend has marked the device as broken, and said why in its own log.
    fn broken(&mut self) {
        if let Some(unseen) = REFUSED.pass() {
            let id = &self.spec.config.id;
            tracing::warn!(
                device = id,
                "The device has failed; its driver is asked for a reset{unseen}"
            );
        }
        self.needs_reset();
    }

    fn config(&mut self, result: Result<Option<Vec<u8>>, CallError>) -> Option<Vec<u8>> {
        match result {
            Ok(bytes) => bytes.filter(|bytes| !bytes.is_empty()),
            Err(error) => {
                if error.is_fatal() {
                    self.lose(&chain(&error));
                }
                None
            }
        }
    }

    /// The backend is gone, or has to go: cuts the connection and, if the daemon is ours, sees it
    /// dead, so that nothing writes to guest memory for this device any more.
    ///
    /// This is the one place where a backend is given up. Restart without loss begins here: spawn
    /// or connect again from `spec`, and resume the rings that `link.rings` names.
    fn lose(&mut self, why: &str) {
        let expired = self.watch.expired();
        self.watch.cut();
        if self.link.take().is_none() || self.inbox.is_closing() {
            return;
        }
        self.state.lose();
        let why = if expired {
            "its backend did not answer in time and was cut off"
        } else {
            why
        };
        let (mut reason, mut code) = (why.to_owned(), None);
        if let Some(process) = self.process.take() {
            let status = bury(&process, expired, &self.inbox);
            if let Some(status) = status.filter(|_| !expired) {
                reason = format!("its daemon ended ({status})");
                code = status.code();
            }
            reason.push_str(&process.last_words().to_string());
        }
        self.needs_reset();
        let stop = self.spec.config.on_exit == OnExit::Stop;
        self.owner.device_lost(&Lost {
            id: self.id(),
            reason,
            code,
            stop,
        });
    }

    /// What stood behind the daemon has ended: the daemon goes on, with nobody to talk to.
    fn cut_off(&mut self) {
        let (Some(behind), Some(daemon)) = (self.behind.take(), &self.process) else {
            return;
        };
        if daemon.wait(TOGETHER).is_some() || self.inbox.is_closing() {
            return;
        }
        self.state.cut_off();
        let id = self.id();
        let name = behind.id().strip_prefix(&format!("{id}: "));
        let name = name.unwrap_or_else(|| behind.id());
        let status = behind.exited();
        let how = status.map_or_else(String::new, |status| format!(" ({status})"));
        let mut words = behind.last_words();
        if status.is_some_and(|status| status.code().is_none()) {
            // Who is killed has not said why.
            words.lines.clear();
        }
        self.owner.device_cut_off(&Lost {
            reason: format!("{name} ended{how}{words}"),
            code: status.and_then(|status| status.code()),
            stop: self.spec.config.on_exit == OnExit::Stop,
            id,
        });
    }

    fn needs_reset(&self) {
        if let Some(events) = self.state.events() {
            events.needs_reset();
        }
    }

    pub(super) fn id(&self) -> String {
        self.spec.config.id.clone()
    }
}
