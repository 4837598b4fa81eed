//! One stay in the guest, and what its end asks of us.
#![allow(unsafe_code)] // the size of a port access lies in a union of kvm_run
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use kvm_bindings::{KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{VcpuExit, VcpuFd};
use outboard_device::ratelimit::RateLimit;

use super::Fault;
use super::exits::{Exit, Exits};
use crate::bus::Bus;
use crate::memory::GuestRam;

/// A guest can fault as often as it is reset.
static TRIPLE_FAULTS: RateLimit = RateLimit::new();

/// Where a vCPU begins after INIT (Intel SDM 3A, table 10-1). With SVM, a triple fault leaves it there.
const RIP_AFTER_INIT: u64 = 0xfff0;

/// What a vCPU's accesses reach.
#[derive(Debug, Clone)]
pub struct Platform {
    /// Ports.
    pub ports: Arc<Bus>,
    /// Memory addresses that are not RAM.
    pub mmio: Arc<Bus>,
    /// For reports.
    pub ram: Arc<GuestRam>,
}

/// Why a vCPU does not go on.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    /// A third exception while the second was delivered: the machine resets.
    TripleFault,
    /// The guest asked KVM to end the machine.
    PowerOff,
    /// The guest asked KVM to reset the machine.
    Reset,
    /// KVM cannot go on, or tells us something we do not know.
    Fault(Box<Fault>),
}

/// What came of one stay in the guest.
#[derive(Debug)]
pub(super) enum Step {
    /// It needed something and has been given it. KVM hands a read's answer over at the *next*
    /// `KVM_RUN`: until then the vCPU is in the middle of an instruction.
    Served,
    /// It was interrupted, between two instructions.
    Interrupted,
    /// It does not go on.
    Stopped(Stop),
}

/// Runs the guest until it needs something, and gives it that.
pub(super) fn step(index: u32, fd: &mut VcpuFd, platform: &Platform, exits: &Exits) -> Step {
    // The exit borrows `fd`, and a report needs it: so say what happened first.
    let what = match fd.run() {
        Ok(VcpuExit::IoOut(_, data)) => {
            let (data, length) = (data.as_ptr(), data.len());
            let (port, size) = port_access(fd);
            // SAFETY: `data` lies in the mapping of kvm_run, which lives as long as `fd`, and KVM
            // does not touch it before the next KVM_RUN.
            let data = unsafe { std::slice::from_raw_parts(data, length) };
            for item in data.chunks_exact(size) {
                platform.ports.write(port, item);
            }
            exits.count(Exit::PortWrite);
            return Step::Served;
        }
        Ok(VcpuExit::IoIn(_, data)) => {
            let (data, length) = (data.as_mut_ptr(), data.len());
            let (port, size) = port_access(fd);
            // SAFETY: as above, and no other reference to these bytes exists.
            let data = unsafe { std::slice::from_raw_parts_mut(data, length) };
            for item in data.chunks_exact_mut(size) {
                platform.ports.read(port, item);
            }
            exits.count(Exit::PortRead);
            return Step::Served;
        }
        Ok(VcpuExit::MmioRead(address, data)) => {
            platform.mmio.read(address, data);
            exits.count(Exit::MemoryRead);
            return Step::Served;
        }
        Ok(VcpuExit::MmioWrite(address, data)) => {
            platform.mmio.write(address, data);
            exits.count(Exit::MemoryWrite);
            return Step::Served;
        }
        // Nothing to do: KVM has done it, or wants to be called again.
        Ok(
            VcpuExit::Hlt
            | VcpuExit::Intr
            | VcpuExit::IrqWindowOpen
            | VcpuExit::Nmi
            | VcpuExit::SetTpr
            | VcpuExit::TprAccess
            | VcpuExit::IoapicEoi(_),
        ) => {
            exits.count(Exit::Other);
            return Step::Served;
        }
        // A signal came, or a waiting vCPU got its INIT or SIPI.
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
            exits.count(Exit::Interrupted);
            return Step::Interrupted;
        }
        Ok(VcpuExit::X86Rdmsr(access)) => {
            *access.error = 1;
            exits.count(Exit::Msr);
            return Step::Served;
        }
        Ok(VcpuExit::X86Wrmsr(access)) => {
            *access.error = 1;
            exits.count(Exit::Msr);
            return Step::Served;
        }
        Ok(VcpuExit::Shutdown) => {
            warn_of_triple_fault(index, fd);
            return Step::Stopped(Stop::TripleFault);
        }
        Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => {
            return Step::Stopped(Stop::PowerOff);
        }
        Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _)) => {
            return Step::Stopped(Stop::Reset);
        }
        Ok(VcpuExit::InternalError) => {
            let fault = Fault::internal_error(index, fd, &platform.ram);
            return Step::Stopped(Stop::Fault(Box::new(fault)));
        }
        Ok(VcpuExit::FailEntry(reason, cpu)) => {
            format!("the processor refused to enter the guest: reason {reason:#x} on CPU {cpu}")
        }
        Ok(VcpuExit::MemoryFault { flags, gpa, size }) => format!(
            "guest memory at {gpa:#x} ({size:#x} bytes, flags {flags:#x}) cannot be had from the host"
        ),
        Ok(VcpuExit::SystemEvent(kind, data)) => format!("system event {kind} with data {data:x?}"),
        Ok(VcpuExit::Unsupported(reason)) => format!("exit reason {reason} is not known"),
        Ok(exit) => format!("the exit {exit:?} is not one that this VM asked for"),
        Err(error) => format!("KVM_RUN failed: {error}"),
    };
    Step::Stopped(Stop::Fault(Box::new(Fault::of(
        index,
        fd,
        &platform.ram,
        what,
    ))))
}

fn warn_of_triple_fault(vcpu: u32, fd: &VcpuFd) {
    let Some(unseen) = TRIPLE_FAULTS.pass() else {
        return;
    };
    match fd.get_regs() {
        Ok(regs) if regs.rip != RIP_AFTER_INIT => {
            let rip = regs.rip;
            tracing::warn!("The guest triple-faulted on vCPU {vcpu} at RIP {rip:#x}{unseen}");
        }
        _ => tracing::warn!("The guest triple-faulted on vCPU {vcpu}{unseen}"),
    }
}

/// Port and size in bytes of the access that ended `KVM_RUN`. A string instruction brings several
/// items of that size at once.
fn port_access(fd: &mut VcpuFd) -> (u64, usize) {
    // SAFETY: called for KVM_EXIT_IO only, for which this is the field in use; plain integers.
    let io = unsafe { fd.get_kvm_run().__bindgen_anon_1.io };
    (io.port.into(), usize::from(io.size).max(1))
}
