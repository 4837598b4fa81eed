//! Virtio devices: a frontend each, and a PCI function that shows it to the guest.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::VmError;
use super::events::{Event, Events};
use super::info::DeviceInfo;
use super::plug::Arrival;
use super::request::{Plugged, Refusal, Reply};
use super::terminal::Terminal;
use crate::config::{DeviceConfig, Host, NewConfig, NewDevice, Port, Taken, VmConfig};
use crate::frontend::{ConnectError, Deadlines, Device, Lost, Owner, Pending, Spec};
use crate::logs;
use crate::memory::GuestRam;
use crate::pci::{KvmWiring, PciFunction, PciRoot};
use crate::plugin::settle_one;
use crate::stderr::Stderr;
use crate::supervisor::Supervisor;
use crate::transport::{VirtioPci, in_ram};

/// How long a device that is taken out may take to stop: longer than its own deadline, after which
/// its backend is cut off.
const STOP: Duration = Duration::from_secs(8);

/// How long all devices together may take to stop or start their rings: requests under way end first.
const PAUSE: Duration = Duration::from_secs(20);

/// How long devices may take to come up without a word about it.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// What every device of a VM is made with.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) ram: Arc<GuestRam>,
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) events: Events,
    /// The terminal, where the virtio console is on it.
    terminal: Option<Terminal>,
}

impl Parts {
    pub(super) fn new(
        config: &VmConfig,
        ram: &Arc<GuestRam>,
        supervisor: &Arc<Supervisor>,
        events: &Events,
        terminal: &Terminal,
    ) -> Self {
        let on_terminal = config.console == Some(Port::Tty);
        Self {
            ram: ram.clone(),
            supervisor: supervisor.clone(),
            events: events.clone(),
            terminal: on_terminal.then(|| terminal.clone()),
        }
    }

    /// Sets out for a device's backend.
    fn begin(&self, config: &DeviceConfig) -> Result<Pending, ConnectError> {
        let terminal = self.terminal.clone().filter(|_| config.id == "console0");
        let spec = Spec {
            config: config.clone(),
            terminal: terminal.is_some(),
            deadlines: Deadlines::default(),
        };
        let owner = Arc::new(DeviceOwner {
            events: self.events.clone(),
            terminal,
        });
        Device::begin(spec, self.ram.regions(), &self.supervisor, owner)
    }

    /// Waits for the backend of a device that comes while the VM runs. A plugin is asked first what it
    /// is.
    fn await_new(
        &self,
        config: NewConfig,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(DeviceConfig, Arc<Device>), Refusal> {
        let config = match config {
            NewConfig::Device(config) => config,
            NewConfig::Plugin(plugin) => settle_one(&plugin, cancelled)
                .map_err(|error| Refusal::Description(error.to_string()))?,
        };
        let device = self
            .begin(&config)
            .and_then(|pending| pending.wait_unless(cancelled));
        let device = device.map_err(|error| Refusal::Connect(Box::new(error)))?;
        Ok((config, device))
    }
}

/// Devices on their way to their backends, all at once.
pub(super) struct Connecting {
    parts: Parts,
    pending: Vec<(DeviceConfig, Pending)>,
}

impl Connecting {
    /// Begins with every device.
    pub(super) fn begin(config: &VmConfig, parts: Parts) -> Result<Self, VmError> {
        let begin = |device: &DeviceConfig| Ok((device.clone(), parts.begin(device)?));
        let devices = config.devices.iter().map(begin);
        let pending = devices.collect::<Result<_, VmError>>()?;
        Ok(Self { parts, pending })
    }

    /// Waits for every device, then plugs each into its slot. Gives up when `cancelled` says so. Where
    /// it takes its time, a person is told once what is waited for.
    pub(super) fn plug(
        self,
        cancelled: &dyn Fn() -> bool,
        pci: &Arc<PciRoot>,
        wiring: &Arc<KvmWiring>,
    ) -> Result<Devices, VmError> {
        let mut devices = Devices {
            parts: self.parts,
            pci: pci.clone(),
            wiring: wiring.clone(),
            seats: BTreeMap::new(),
            over: Arc::default(),
            threads: Vec::new(),
        };
        let (begin, told) = (Instant::now(), Cell::new(false));
        for (config, pending) in self.pending {
            let device = pending.wait_unless(|| {
                if begin.elapsed() >= PATIENCE && !told.replace(true) {
                    tell_of_wait(&config);
                }
                cancelled()
            })?;
            devices.seat(config, device)?;
        }
        Ok(devices)
    }
}

/// Tells a person which device is on its way, and who is to answer for it.
fn tell_of_wait(config: &DeviceConfig) {
    let who = match &config.host {
        Host::Socket { path } => format!("somebody is to listen at {}", path.display()),
        Host::Plugin { path, .. } => format!("its plugin {} starts", path.display()),
        Host::Process { program, .. }
        | Host::Given { program, .. }
        | Host::Backed { program, .. }
        | Host::Foreign { program, .. } => format!("{program} starts"),
    };
    let most = Deadlines::default().start.as_secs();
    let line = format!(
        "Waiting for device '{}', {most} s at most: {who}",
        config.id
    );
    let _ = writeln!(Stderr, "outboard: {line}");
    logs::note(&line);
}

/// The virtio devices of a VM, by PCI slot.
pub(super) struct Devices {
    parts: Parts,
    pci: Arc<PciRoot>,
    wiring: Arc<KvmWiring>,
    seats: BTreeMap<u8, Seat>,
    /// The VM is: who waits for a device gives up.
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Who has a slot.
enum Seat {
    /// A device whose backend is on its way.
    Arriving(String),
    Seated {
        config: Box<DeviceConfig>,
        device: Arc<Device>,
        function: Arc<VirtioPci<KvmWiring>>,
        /// The guest has been asked to let go of it.
        leaving: bool,
    },
    /// A device that has been taken out and is not yet gone.
    Going(String),
}

impl Seat {
    fn id(&self) -> &str {
        match self {
            Self::Arriving(id) | Self::Going(id) => id,
            Self::Seated { config, .. } => &config.id,
        }
    }
}

impl Devices {
    /// Shows a device that has come up in its slot.
    pub(super) fn seat(
        &mut self,
        config: DeviceConfig,
        device: Arc<Device>,
    ) -> Result<(), VmError> {
        let slot = config.slot;
        let is_ram = in_ram(self.parts.ram.mmap());
        let function = VirtioPci::new(device.clone(), self.wiring.clone(), is_ram);
        let added = function
            .map_err(|source| VmError::Transport {
                id: config.id.clone(),
                source,
            })
            .and_then(|function| {
                let added = self.pci.add(slot, function.clone());
                added.map_err(|source| VmError::Pci {
                    id: config.id.clone(),
                    source,
                })?;
                Ok(function)
            });
        let function = match added {
            Ok(function) => function,
            Err(error) => {
                self.seats.remove(&slot);
                return Err(error);
            }
        };
        let seat = Seat::Seated {
            config: Box::new(config),
            device,
            function,
            leaving: false,
        };
        self.seats.insert(slot, seat);
        Ok(())
    }

    /// Who has which slot.
    pub(super) fn taken(&self) -> Taken {
        let seats = self.seats.iter();
        seats
            .map(|(slot, seat)| (*slot, seat.id().to_owned()))
            .collect()
    }

    /// The slot of the device of this name that the guest has, and whether it has been asked to go.
    pub(super) fn find(&self, id: &str) -> Option<(u8, bool)> {
        self.seats.iter().find_map(|(slot, seat)| match seat {
            Seat::Seated {
                config, leaving, ..
            } if config.id == id => Some((*slot, *leaving)),
            _ => None,
        })
    }

    /// Whether a device of this name is on its way out.
    pub(super) fn is_leaving(&self, id: &str) -> bool {
        self.seats.values().any(|seat| {
            seat.id() == id && matches!(seat, Seat::Going(_) | Seat::Seated { leaving: true, .. })
        })
    }

    /// Notes that the guest has been asked to let go of a device.
    pub(super) fn set_leaving(&mut self, slot: u8) {
        if let Some(Seat::Seated { leaving, .. }) = self.seats.get_mut(&slot) {
            *leaving = true;
        }
    }

    /// The slots of the devices that have been asked to go.
    pub(super) fn leaving(&self) -> Vec<u8> {
        let leaving = |seat: &Seat| matches!(seat, Seat::Seated { leaving: true, .. });
        let seats = self.seats.iter().filter(|(_, seat)| leaving(seat));
        seats.map(|(slot, _)| *slot).collect()
    }

    /// Sets out for the backend of one more device, whose slot must be free. `Event::Arrived` is
    /// posted when it has come up, or has not.
    pub(super) fn invite(
        &mut self,
        config: NewConfig,
        described: NewDevice,
        reply: Reply<Option<Plugged>>,
    ) {
        let (id, slot, over) = (config.id().to_owned(), config.slot(), self.over.clone());
        let parts = self.parts.clone();
        self.seats.insert(slot, Seat::Arriving(id.clone()));
        let wait = move || {
            let device = parts.await_new(config, &|| over.load(Ordering::Relaxed));
            parts.events.post(Event::Arrived(Box::new(Arrival {
                slot,
                described,
                device,
                reply,
            })));
        };
        if let Err(error) = self.spawn(&id, "plug", wait) {
            tracing::warn!(device = id, %error, "the device cannot be awaited");
            self.free(slot);
        }
    }

    /// Frees the slot of a device that has not come up, or is gone. Its name, if it was so.
    pub(super) fn free(&mut self, slot: u8) -> Option<String> {
        match self.seats.get(&slot)? {
            Seat::Seated { .. } => None,
            Seat::Arriving(id) | Seat::Going(id) => {
                let id = id.clone();
                self.seats.remove(&slot);
                Some(id)
            }
        }
    }

    /// Takes a device out of its slot: the guest has it no more. Its rings stop, its backend is
    /// disconnected and its daemon ends, after which `Event::Gone` is posted. Does nothing where the
    /// guest has no device.
    pub(super) fn take_out(&mut self, slot: u8) {
        let Some(Seat::Seated { config, device, .. }) = self.seats.get(&slot) else {
            return;
        };
        let (config, device) = (config.clone(), device.clone());
        let function = self.pci.remove(slot);
        if let Some(function) = &function {
            function.reset();
        }
        let id = config.id.clone();
        tracing::info!(device = id, "The device is taken out");
        self.seats.insert(slot, Seat::Going(id.clone()));
        let (events, over) = (self.parts.events.clone(), self.over.clone());
        let gone = {
            let device = device.clone();
            move || {
                retire(function.as_deref(), &device, &over);
                drop((function, device));
                if let Host::Foreign {
                    socket: Some(path), ..
                } = &config.host
                {
                    // Not every daemon removes what it has made.
                    let _ = std::fs::remove_file(path);
                }
                events.post(Event::Gone(slot));
            }
        };
        if let Err(error) = self.spawn(&id, "out", gone) {
            // Without a thread its end is not waited for.
            tracing::warn!(device = id, %error, "the device's end cannot be awaited");
            device.close();
            self.free(slot);
        }
    }

    /// Stops every ring where it is; all vCPUs are parked. The names of the devices that have not
    /// stopped: they did not in time, or the VM is to end.
    pub(super) fn pause(&self) -> Vec<String> {
        self.all(Device::pause)
    }

    /// Lets the rings go on. The names of the devices that have not yet.
    pub(super) fn resume(&self) -> Vec<String> {
        self.all(Device::resume)
    }

    /// Lets the rings go on, those too that are yet to stop. Nothing is waited for.
    pub(super) fn undo_pause(&self) {
        for (_, device, _) in self.seated() {
            drop(device.resume());
        }
    }

    /// Has every device do something, all at once, and waits until all have.
    fn all(&self, what: impl Fn(&Device) -> Receiver<()>) -> Vec<String> {
        let all = self.seated();
        let asked: Vec<_> = all
            .map(|(config, device, _)| (&config.id, what(device)))
            .collect();
        let end = Instant::now() + PAUSE;
        let waited = |done: Receiver<()>| loop {
            match done.recv_timeout(LOOK) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Timeout)
                    if Instant::now() < end && !self.parts.events.is_urgent() => {}
                Err(_) => return false,
            }
        };
        let late = asked
            .into_iter()
            .filter_map(|(id, done)| (!waited(done)).then_some(id));
        late.cloned().collect()
    }

    /// What a person is told of each.
    pub(super) fn info(&self) -> Vec<DeviceInfo> {
        let seats = self.seats.values().filter_map(|seat| match seat {
            Seat::Seated {
                config,
                device,
                function,
                leaving,
            } => {
                let info = DeviceInfo::new(config, device, *leaving);
                Some(info.driven(
                    config.virtio_id.get(),
                    &function.snapshot(),
                    self.parts.ram.mmap(),
                    device.page().as_deref(),
                ))
            }
            _ => None,
        });
        seats.collect()
    }

    /// Where the console called `id` is, if its daemon has said so.
    pub(super) fn place(&self, id: &str) -> Option<PathBuf> {
        let mut seated = self.seated();
        seated.find(|(config, ..)| config.id == id)?.1.place()
    }

    fn seated(&self) -> impl Iterator<Item = (&DeviceConfig, &Arc<Device>, bool)> {
        self.seats.values().filter_map(|seat| match seat {
            Seat::Seated {
                config,
                device,
                leaving,
                ..
            } => Some((&**config, device, *leaving)),
            _ => None,
        })
    }

    /// Closes every device; their daemons then end by themselves.
    pub(super) fn close(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for (_, device, _) in self.seated() {
            device.close();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    fn spawn(
        &mut self,
        id: &str,
        what: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.threads.retain(|thread| !thread.is_finished());
        let name = format!("{id}-{what}");
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        self.threads.push(thread);
        Ok(())
    }
}

/// Waits until a device that was reset has stopped, then ends its backend. Once the VM is over, its own
/// end takes care of that.
fn retire(function: Option<&dyn PciFunction>, device: &Device, over: &AtomicBool) {
    let end = Instant::now() + STOP;
    let waits = || function.is_some_and(|function| !function.is_reset());
    while waits() && Instant::now() < end && !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
    device.retire(over);
}

/// Who hears that a device is lost.
struct DeviceOwner {
    events: Events,
    /// The terminal, for the device whose daemon owns it.
    terminal: Option<Terminal>,
}

/// A device that may be lost is only said to be, the others end the VM.
impl Owner for DeviceOwner {
    fn device_lost(&self, lost: &Lost) {
        if let Some(terminal) = &self.terminal {
            terminal.restore();
        }
        if lost.id == "console0" && lost.code == Some(super::serial::QUIT) {
            self.events.post(Event::Quit);
        } else if lost.stop {
            self.events.post(Event::DeviceLost(lost.clone()));
        } else {
            tracing::warn!(
                device = lost.id,
                "The device has lost its backend; the VM goes on without it: {}",
                lost.reason
            );
        }
    }

    fn device_cut_off(&self, lost: &Lost) {
        if lost.stop {
            if let Some(terminal) = &self.terminal {
                terminal.restore();
            }
            self.events.post(Event::DeviceLost(lost.clone()));
        } else {
            tracing::warn!(
                "Device '{}': the guest's link is down until the VM is started again: {}",
                lost.id,
                lost.reason
            );
        }
    }
}
