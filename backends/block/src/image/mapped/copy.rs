//! A copy that survives the loss of the page it is at.
//!
//! The kernel tells a process of a page of a file that is no more, or that there is no memory for, by
//! SIGBUS: the file was cut, its file system is full, the memory is broken. The whole copy is one
//! instruction, `rep movsb`, whose state lies in registers: where it reads, where it writes, and how
//! much is left. So the handler needs no tables: it knows the instruction by its address and the copy
//! by its registers, and goes on behind the instruction. What is left then says how far it came.
//!
//! Any other SIGBUS ends the process, as it would without this.
#![allow(unsafe_code)] // An instruction, and a signal's handler.

use std::arch::naked_asm;
use std::arch::x86_64::__cpuid_count;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

use nix::errno::Errno;

/// Length of `rep movsb` in bytes.
const REP_MOVSB: i64 = 2;

/// CPUID leaf 7, EBX: the instruction copies by more than bytes (Intel SDM volume 2, CPUID, "ERMS").
const ERMS: u32 = 1 << 9;

/// The unit that the kernel loses memory in, in bytes.
const PAGE: u64 = 4096;

/// What happened at SIGBUS before the handler was there. Set once it is about to be.
static EARLIER: OnceLock<libc::sigaction> = OnceLock::new();

/// Has lost pages end a copy and not the process, from now on and in all threads. For a program's `main`:
/// a library does not take a signal. May be called again.
///
/// # Errors
/// The kernel refuses.
pub fn arm() -> io::Result<()> {
    if EARLIER.get().is_some() {
        return Ok(());
    }
    let mut earlier = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action this only writes the present one, to a place for one.
    Errno::result(unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), earlier.as_mut_ptr()) })?;
    // SAFETY: the call has succeeded, so it was written.
    let earlier = unsafe { earlier.assume_init() };
    if EARLIER.set(earlier).is_err() {
        return Ok(());
    }
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
    // SAFETY: all zeroes is an action without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the form that SA_SIGINFO asks for, and calls nothing but sigaction(2) and
    // raise(3), which a handler may.
    Errno::result(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) })?;
    Ok(())
}

/// Whether a lost page ends no more than the copy, and copying is quick on this processor.
pub(super) fn is_armed() -> bool {
    EARLIER.get().is_some() && __cpuid_count(7, 0).ebx & ERMS != 0
}

/// Copies `len` bytes; returns how many are left because a page of either side is lost. The two may
/// overlap: then what comes later is read as what came before has left it.
///
/// # Safety
/// Both must lie in mappings of this process, `from` readable and `to` writable, that hold nothing
/// Rust has a reference to and stay for the length of the call. Their pages may be lost where
/// [`is_armed`].
#[inline]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) -> usize {
    // SAFETY: as for this function. The direction flag is clear between functions (System V ABI).
    unsafe { rep_movsb(to, from, 0, len) }
}

/// The arguments are where the instruction has its operands: RDI, RSI, and as the fourth RCX. It is the
/// first, so its address is the function's.
#[unsafe(naked)]
unsafe extern "sysv64" fn rep_movsb(
    to: *mut u8,
    from: *const u8,
    unused: usize,
    len: usize,
) -> usize {
    naked_asm!("rep movsb", "mov rax, rcx", "ret")
}

/// SIGBUS. In a copy: goes on behind it. Else: has the process end as it would have.
extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel calls a handler with SA_SIGINFO with pointers to both, valid while it runs.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    let fault = matches!(info.si_code, libc::BUS_ADRERR | libc::BUS_MCEERR_AR);
    if fault {
        // SAFETY: of these two kinds, the address is a part.
        let at = unsafe { info.si_addr() }.addr() as u64;
        if leave_copy(&mut context.uc_mcontext.gregs, at) {
            return;
        }
    }
    // At a fault the instruction is tried again, and whoever was there before hears of it; of a signal
    // that was sent, nobody would.
    // SAFETY: as zeroes, the default action.
    let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    let action = EARLIER.get().filter(|_| fault).unwrap_or(&default);
    // SAFETY: an action that the process had, or the default. Both calls may be made here.
    unsafe {
        libc::sigaction(signal, action, ptr::null_mut());
        if !fault {
            libc::raise(signal);
        }
    }
}

/// If these are the registers of a copy that the page at `fault` is part of: has it be over.
fn leave_copy(registers: &mut [libc::greg_t; 23], fault: u64) -> bool {
    let register = |name: c_int| {
        let place = usize::try_from(name).ok()?;
        registers.get(place).copied().map(i64::cast_unsigned)
    };
    let instruction = rep_movsb as *const () as usize;
    if register(libc::REG_RIP) != Some(instruction as u64) {
        return false;
    }
    let left = register(libc::REG_RCX).unwrap_or_default();
    // By pages: the address need not be that of the first byte which is missing.
    let touches = |start: u64| fault.wrapping_sub(start & !(PAGE - 1)) < left.saturating_add(PAGE);
    if !register(libc::REG_RSI).is_some_and(touches)
        && !register(libc::REG_RDI).is_some_and(touches)
    {
        return false;
    }
    if let Some(next) = usize::try_from(libc::REG_RIP)
        .ok()
        .and_then(|place| registers.get_mut(place))
    {
        *next = next.wrapping_add(REP_MOVSB);
    }
    true
}

#[cfg(test)]
mod tests;
