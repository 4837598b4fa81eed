//! A VMM that begins without a VM: one is described to it, booted, ended and booted again.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use super::events::Event;
use super::plug::answer;
use super::request::{Plugged, Refusal, Reply, Request};
use super::told::Told;
use super::{Door, End, Life, Process, State, VmError};
use crate::api::{Place, Server};
use crate::config::{Description, NewDevice};
use crate::monitor;

/// Runs an empty VMM to its end, on this thread. A guest that powers off ends it, as do `vmm.shutdown`
/// and the signals that end a VM. A VM has no logs unless `log_dir` says where.
///
/// As [`run`](super::run), call it once in a process, before other threads start.
///
/// # Errors
/// It cannot listen, or the host failed a VM while it ran.
pub fn serve(place: Place, defaults: Description) -> Result<End, VmError> {
    let process = Process::begin()?;
    monitor::event("vmm", "starting", &[]);
    let path = match &place {
        Place::Path(path) => Some(path.clone()),
        Place::Inherited(_) => None,
    };
    let server = Server::listen(place, process.control()).map_err(|source| deaf(path, source))?;
    let path = server.path().map(ToOwned::to_owned);
    let mut empty = Empty {
        process,
        door: Door::Elsewhere(path),
        defaults,
        vm: None,
    };
    let end = empty.live();
    monitor::event("vmm", "shutdown", &[]);
    // What is still asked has no answer.
    drop(empty);
    drop(server);
    end
}

/// Why nobody can be heard.
fn deaf(path: Option<PathBuf>, source: io::Error) -> VmError {
    let Some(path) = path else {
        return VmError::Host {
            what: "Listening for requests",
            source,
        };
    };
    let remedy = match source.kind() {
        ErrorKind::InvalidFilename => "choose a shorter path",
        ErrorKind::AddrInUse => "choose another path, or end what is there first",
        _ => "check that the folder exists and is writable",
    };
    VmError::Listen {
        path,
        remedy,
        source,
    }
}

struct Empty {
    process: Process,
    door: Door,
    /// What a VM is called, and where it keeps its logs.
    defaults: Description,
    vm: Option<Description>,
}

/// Whether the VMM goes on.
type Goes = Result<Option<End>, VmError>;

impl Empty {
    fn live(&mut self) -> Result<End, VmError> {
        loop {
            let end = match self.process.next() {
                Event::Signal(libc::SIGPWR) => None,
                Event::Signal(signal) => Some(End::Signal(signal)),
                Event::Asked(request) => self.asked(request)?,
                // Of a VM that is no more.
                _ => None,
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    fn asked(&mut self, request: Request) -> Goes {
        match request {
            Request::Create(vm, reply) => {
                let created = self.create(*vm);
                answer(reply, created);
            }
            Request::Boot(reply) => return self.boot(reply),
            Request::Delete(reply) => {
                self.forget();
                answer(reply, Ok(()));
            }
            Request::End(reply) => {
                self.forget();
                answer(reply, Ok(()));
                return Ok(Some(End::Destroyed));
            }
            request => match &mut self.vm {
                Some(vm) => described(vm, request),
                None => request.refuse(Refusal::NotCreated),
            },
        }
        Ok(None)
    }

    fn create(&mut self, mut vm: Description) -> Result<(), Refusal> {
        if self.vm.is_some() {
            return Err(Refusal::Created);
        }
        vm.name.clone_from(&self.defaults.name);
        vm.log_dir.clone_from(&self.defaults.log_dir);
        vm.resolve().map_err(Refusal::Description)?;
        self.vm = Some(vm);
        Ok(())
    }

    fn boot(&mut self, reply: Reply<()>) -> Goes {
        let Some(vm) = &mut self.vm else {
            answer(reply, Err(Refusal::NotCreated));
            return Ok(None);
        };
        let config = match vm.resolve() {
            Ok(config) => config,
            Err(why) => {
                answer(reply, Err(Refusal::Description(why)));
                return Ok(None);
            }
        };
        let life = Life {
            door: &self.door,
            booted: Some(reply),
        };
        let over = self.process.one(&config, life)?;
        self.vm = Some(over.description);
        let Some(asked) = over.asked else {
            if over.end.is_some() {
                self.forget();
            }
            return Ok(over.end);
        };
        match asked {
            Request::Shutdown(reply) => answer(reply, Ok(())),
            request => return self.asked(request),
        }
        Ok(None)
    }

    fn forget(&mut self) {
        if self.vm.take().is_some() {
            monitor::event("vm", "deleted", &[]);
        }
    }
}

/// Asked of a VM that is not booted.
fn described(vm: &mut Description, request: Request) {
    match request {
        Request::Tell(reply) => {
            let told = Told {
                description: vm.clone(),
                state: State::Created,
                devices: None,
                ptys: Vec::new(),
            };
            answer(reply, Ok(told));
        }
        Request::Add(device, reply) => {
            let added = add(vm, *device);
            answer(reply, added);
        }
        Request::Remove(id, reply) => {
            let removed = remove(vm, id);
            answer(reply, removed);
        }
        request => request.refuse(Refusal::NotBooted),
    }
}

fn add(vm: &mut Description, device: NewDevice) -> Result<Option<Plugged>, Refusal> {
    if let Some(id) = device.id().filter(|id| vm.ids().any(|other| other == *id)) {
        return Err(Refusal::Taken(id.to_owned()));
    }
    let mut with = vm.clone();
    with.push(device);
    with.resolve().map_err(Refusal::Description)?;
    *vm = with;
    Ok(None)
}

fn remove(vm: &mut Description, id: String) -> Result<(), Refusal> {
    if vm.take_out(&id) {
        return Ok(());
    }
    let known: Vec<_> = vm.ids().collect();
    let known = match known.as_slice() {
        [] => "none".to_owned(),
        known => known.join(", "),
    };
    Err(Refusal::NoDevice { id, known })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_keyvals;

    #[test]
    fn a_described_vm_gains_and_loses_devices() {
        let mut vm = Description {
            kernel: Some("k".into()),
            ..Description::default()
        };
        vm.resolve().unwrap();
        let disk = |keys: &str| NewDevice::Disk(from_keyvals(keys, Some("path")).unwrap());
        assert_eq!(add(&mut vm, disk("a")).unwrap(), None);
        add(&mut vm, disk("b,id=x")).unwrap();
        assert_eq!(vm.ids().collect::<Vec<_>>(), ["disk0", "x"]);
        assert!(matches!(
            add(&mut vm, disk("c,id=x")),
            Err(Refusal::Taken(_))
        ));
        assert!(matches!(
            add(&mut vm, disk("c,addr=99")),
            Err(Refusal::Description(_))
        ));
        assert_eq!(vm.ids().count(), 2, "what is refused leaves nothing");
        remove(&mut vm, "disk0".into()).unwrap();
        let why = remove(&mut vm, "disk0".into()).unwrap_err();
        assert!(why.to_string().contains("it has x"), "{why}");
    }
}
