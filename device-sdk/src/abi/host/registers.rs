//! A plugin's device of registers, as a [`RegisterDevice`].

use std::convert::Infallible;
use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

use super::call::checked;
use super::{DeviceType, Instance};
use crate::abi::error::Problem;
use crate::abi::layout::{Sized32, adopt};
use crate::abi::options::Value;
use crate::abi::raw::*;
use crate::register::{InterruptLine, RegisterDevice};

/// The extension by which a device reaches guest memory.
const GUEST_MEMORY: &str = "outboard.guest-memory/1";

/// The greatest interrupt line there is.
const LINE_MAX: u32 = 23;

/// Where registers lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// I/O ports.
    Ports,
    /// Memory-mapped.
    Mmio,
}

/// What a device of registers occupies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Of which addresses.
    pub space: Space,
    /// The first.
    pub base: u64,
    /// How many, at least one.
    pub len: u64,
    /// The interrupt line, 0 to 23, if any.
    pub line: Option<u32>,
}

/// Guest memory, for devices that are told addresses in registers. Any thread may call.
pub trait GuestMemory: Send + Sync {
    /// Copies from guest physical memory; false when any byte lies outside.
    fn read(&self, address: u64, data: &mut [u8]) -> bool;
    /// Copies to guest physical memory; false when any byte lies outside.
    fn write(&self, address: u64, data: &[u8]) -> bool;
}

/// What a device of registers is wired to.
pub struct Wiring {
    /// Its interrupt line.
    pub line: Option<Arc<dyn InterruptLine>>,
    /// The guest's memory.
    pub memory: Option<Arc<dyn GuestMemory>>,
}

/// A device of registers that a plugin has made. Dropped, it is destroyed.
pub struct PluginRegisters {
    place: Place,
    operations: OutboardRegisters,
    thread: Option<Attendant>,
    // In this order: the device is destroyed before what it was created with goes.
    device: Arc<Instance>,
    services: Arc<Services>,
}

/// What the device sees of the host. Shared, for its address.
struct Services {
    table: OutboardServices,
    memory_table: OutboardGuestMemory,
    wiring: Mutex<Wiring>,
    name: String,
    failed: AtomicBool,
    /// What the plugin asked to be woken by.
    epoll: Epoll,
    /// When its timer ends.
    deadline: Mutex<Option<Instant>>,
    /// Rung when the deadline has changed, and at the end.
    bell: EventFd,
    over: AtomicBool,
}

/// The device's own thread, and what is disconnected when it ends.
struct Attendant {
    thread: JoinHandle<()>,
    over: Receiver<Infallible>,
}

/// How long the device's thread may take to end; one that is stuck in the plugin is left behind.
const END: Duration = Duration::from_millis(500);

impl PluginRegisters {
    pub(super) fn create(
        device: &DeviceType,
        values: &[Value],
        wiring: impl FnOnce(&Place) -> Wiring,
    ) -> Result<Self, Problem> {
        // SAFETY: a table of the plugin's, checked not to be NULL.
        let operations: OutboardRegisters = unsafe { adopt(device.raw.registers) }?;
        let wrong = |what: &str| Problem::Table(format!("device '{}' {what}", device.name));
        if operations.read.is_none() || operations.write.is_none() {
            return Err(wrong("lacks read or write"));
        }
        let describe = operations.describe.ok_or_else(|| wrong("lacks describe"))?;
        let services = Services::new(&device.name).map_err(|errno| Problem::Read(errno.into()))?;
        let instance = Arc::new(device.create(&services.table, values)?);
        let mut info = OutboardRegistersInfo::zeroed();
        let described = instance.call(|device| {
            // SAFETY: a device of this table.
            checked(|| unsafe { describe(device, &raw mut info) })
        });
        described.map_err(|failed| Problem::Create(failed.into()))?;
        let place = place(&info).map_err(|what| wrong(&what))?;
        *lock(&services.wiring) = wiring(&place);
        let thread = if operations.timer.is_some() || operations.ready.is_some() {
            let (device, services) = (Arc::clone(&instance), Arc::clone(&services));
            let (alive, over) = sync_channel(0);
            let run = move || {
                let _alive = alive;
                attend(&operations, &device, &services);
            };
            let thread = Builder::new().name("plugin-registers".into()).spawn(run);
            let thread = thread.map_err(Problem::Read)?;
            Some(Attendant { thread, over })
        } else {
            None
        };
        Ok(Self {
            place,
            operations,
            thread,
            device: instance,
            services,
        })
    }

    /// Where its registers lie.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Whether it has failed since it was made, or reset: its registers read as ones.
    pub fn has_failed(&self) -> bool {
        self.services.failed.load(Ordering::Relaxed)
    }
}

fn place(info: &OutboardRegistersInfo) -> Result<Place, String> {
    let (space, end) = match info.space {
        OUTBOARD_PORTS => (Space::Ports, 1 << 16),
        OUTBOARD_MMIO => (Space::Mmio, 1 << 52),
        other => {
            return Err(format!(
                "lies in space {other}, which this host does not know"
            ));
        }
    };
    if info.len == 0
        || info
            .base
            .checked_add(info.len)
            .is_none_or(|last| last > end)
    {
        return Err(format!(
            "has {:#x} bytes of registers at {:#x}, which is no range of {space:?}",
            info.len, info.base
        ));
    }
    let line = match info.line {
        OUTBOARD_NO_LINE => None,
        line if line <= LINE_MAX => Some(line),
        line => {
            return Err(format!(
                "has the interrupt line {line}; 0 to {LINE_MAX}, or none"
            ));
        }
    };
    Ok(Place {
        space,
        base: info.base,
        len: info.len,
        line,
    })
}

/// After a failure the registers read as ones, and writes are dropped, until the machine resets.
impl RegisterDevice for PluginRegisters {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(read) = self.operations.read.filter(|_| !self.has_failed()) {
            self.device.call(|device| {
                // SAFETY: a device of this table, and its length of bytes.
                unsafe { read(device, offset, data.as_mut_ptr(), data.len()) }
            });
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(write) = self.operations.write.filter(|_| !self.has_failed()) {
            self.device.call(|device| {
                // SAFETY: as above.
                unsafe { write(device, offset, data.as_ptr(), data.len()) }
            });
        }
    }

    fn reset(&mut self) {
        *lock(&self.services.deadline) = None;
        if let Some(reset) = self.operations.reset {
            // SAFETY: a device of this table.
            self.device.call(|device| unsafe { reset(device) });
        }
        if let Some(line) = &lock(&self.services.wiring).line {
            line.set(false);
        }
        self.services.failed.store(false, Ordering::Relaxed);
    }
}

impl Drop for PluginRegisters {
    fn drop(&mut self) {
        self.services.over.store(true, Ordering::Relaxed);
        self.services.ring();
        let Some(Attendant { thread, over }) = self.thread.take() else {
            return;
        };
        if over.recv_timeout(END) == Err(RecvTimeoutError::Disconnected) {
            // A panic in it has been reported by its hook.
            let _ = thread.join();
        } else {
            tracing::warn!(
                device = self.services.name,
                "the plugin does not return; its thread is left behind"
            );
        }
    }
}

/// The device's own thread: its timer, and its descriptors.
fn attend(operations: &OutboardRegisters, device: &Instance, services: &Services) {
    let mut events = [EpollEvent::empty(); 16];
    while !services.over.load(Ordering::Relaxed) {
        // In one step: a vCPU may set the timer anew at any moment.
        let expired = lock(&services.deadline).take_if(|end| *end <= Instant::now());
        if expired.is_some() {
            if let Some(timer) = operations.timer {
                // SAFETY: a device of this table.
                device.call(|device| unsafe { timer(device) });
            }
            continue;
        }
        let mut fds = [
            PollFd::new(services.epoll.0.as_fd(), PollFlags::POLLIN),
            PollFd::new(services.bell.as_fd(), PollFlags::POLLIN),
        ];
        let left =
            lock(&services.deadline).map(|end| end.saturating_duration_since(Instant::now()));
        // EINTR is as good as a wake-up.
        let _ = ppoll(&mut fds, left.map(TimeSpec::from_duration), None);
        let _ = services.bell.read();
        let ready = services
            .epoll
            .wait(&mut events, EpollTimeout::ZERO)
            .unwrap_or(0);
        for event in events.iter().take(ready) {
            let Some(call) = operations.ready else {
                continue;
            };
            let flags = event.events();
            let mut what = 0;
            if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                what |= OUTBOARD_READABLE;
            }
            if flags.contains(EpollFlags::EPOLLOUT) {
                what |= OUTBOARD_WRITABLE;
            }
            // SAFETY: a device of this table.
            device.call(|device| unsafe { call(device, event.data() as c_int, what) });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Services {
    fn new(name: &str) -> nix::Result<Arc<Self>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Arc::new_cyclic(|own: &Weak<Self>| {
            let context: *mut c_void = own.as_ptr().cast_mut().cast();
            Self {
                table: OutboardServices {
                    context,
                    config_changed: Some(config_changed),
                    failed: Some(failed),
                    set_line: Some(set_line),
                    set_timer: Some(set_timer),
                    watch: Some(watch),
                    extension: Some(extension),
                    ..OutboardServices::zeroed()
                },
                memory_table: OutboardGuestMemory {
                    context,
                    read: Some(read_memory),
                    write: Some(write_memory),
                    ..OutboardGuestMemory::zeroed()
                },
                wiring: Mutex::new(Wiring {
                    line: None,
                    memory: None,
                }),
                name: name.to_owned(),
                failed: AtomicBool::new(false),
                epoll,
                deadline: Mutex::new(None),
                bell,
                over: AtomicBool::new(false),
            }
        }))
    }

    fn ring(&self) {
        let _ = self.bell.write(1);
    }

    fn fail(&self, reason: &str) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            tracing::error!(
                device = self.name,
                "the device has failed, its registers read as ones until the machine resets: {reason}"
            );
        }
    }

    fn memory(&self) -> Option<Arc<dyn GuestMemory>> {
        lock(&self.wiring).memory.clone()
    }
}

/// # Safety
/// The context is that of a device that has not been destroyed.
unsafe fn services<'a>(context: *mut c_void) -> &'a Services {
    // SAFETY: the contract; it is dropped after the device.
    unsafe { &*context.cast_const().cast::<Services>() }
}

unsafe extern "C" fn config_changed(_context: *mut c_void) {}

unsafe extern "C" fn failed(context: *mut c_void, reason: OutboardStr) {
    // SAFETY: the ABI: not after `destroy`; a text as the ABI says.
    unsafe { services(context).fail(&reason.copied()) };
}

unsafe extern "C" fn set_line(context: *mut c_void, high: u32) {
    // SAFETY: as above.
    let line = lock(&unsafe { services(context) }.wiring).line.clone();
    if let Some(line) = line {
        line.set(high != 0);
    }
}

unsafe extern "C" fn set_timer(context: *mut c_void, nanoseconds: u64) {
    // SAFETY: as above.
    let services = unsafe { services(context) };
    let end = Instant::now().checked_add(Duration::from_nanos(nanoseconds));
    *lock(&services.deadline) = end.filter(|_| nanoseconds != 0);
    services.ring();
}

unsafe extern "C" fn watch(context: *mut c_void, fd: c_int, events: u32) -> i32 {
    // SAFETY: as above.
    let services = unsafe { services(context) };
    if fd < 0 {
        return OUTBOARD_ERROR;
    }
    // SAFETY: the plugin's, open; one that is not is refused by epoll.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut flags = EpollFlags::EPOLLET;
    flags.set(EpollFlags::EPOLLIN, events & OUTBOARD_READABLE != 0);
    flags.set(EpollFlags::EPOLLOUT, events & OUTBOARD_WRITABLE != 0);
    let mut event = EpollEvent::new(flags, u64::from(fd.as_raw_fd().cast_unsigned()));
    let done = match events {
        0 => services.epoll.delete(fd),
        _ => match services.epoll.add(fd, event) {
            Err(Errno::EEXIST) => services.epoll.modify(fd, &mut event),
            added => added,
        },
    };
    done.map_or(OUTBOARD_ERROR, |()| OUTBOARD_OK)
}

unsafe extern "C" fn extension(context: *mut c_void, name: OutboardStr) -> *const c_void {
    // SAFETY: as above; a text as the ABI says.
    let (services, name) = unsafe { (services(context), name.copied()) };
    match name.as_str() {
        GUEST_MEMORY => (&raw const services.memory_table).cast(),
        _ => std::ptr::null(),
    }
}

unsafe extern "C" fn read_memory(
    context: *mut c_void,
    address: u64,
    data: *mut u8,
    len: usize,
) -> i32 {
    if len == 0 {
        return OUTBOARD_OK;
    }
    // SAFETY: as above, and `len` bytes of the plugin's.
    let (services, data) =
        unsafe { (services(context), std::slice::from_raw_parts_mut(data, len)) };
    let read = services
        .memory()
        .is_some_and(|memory| memory.read(address, data));
    outcome(read)
}

unsafe extern "C" fn write_memory(
    context: *mut c_void,
    address: u64,
    data: *const u8,
    len: usize,
) -> i32 {
    if len == 0 {
        return OUTBOARD_OK;
    }
    // SAFETY: as above.
    let (services, data) = unsafe { (services(context), std::slice::from_raw_parts(data, len)) };
    let written = services
        .memory()
        .is_some_and(|memory| memory.write(address, data));
    outcome(written)
}

fn outcome(done: bool) -> i32 {
    if done { OUTBOARD_OK } else { OUTBOARD_ERROR }
}
