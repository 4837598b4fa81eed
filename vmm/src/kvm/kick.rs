//! Getting a vCPU thread out of `KVM_RUN`, with no race.
//!
//! `immediate_exit` lies in the page that the vCPU shares with KVM. It is mapped a second time
//! here, so that any thread may set it for as long as it likes, whatever became of the vCPU.
#![allow(unsafe_code)] // mmap of the vCPU's shared page, and one byte in it

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::KvmError;

/// The first page of `kvm_run` is enough: the flag is its second byte.
const LENGTH: usize = 4096;

/// The flag by which KVM does not enter the guest, or leaves it when a signal comes.
#[derive(Debug)]
pub(super) struct ImmediateExit {
    page: NonNull<u8>,
}

// SAFETY: the page is only touched through an atomic.
unsafe impl Send for ImmediateExit {}
// SAFETY: as above.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    pub(super) fn of(vcpu: &VcpuFd) -> Result<Self, KvmError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice touches no memory of
        // ours; the result is checked.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                LENGTH,
                protection,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(page.cast()) {
            Some(address) if page != libc::MAP_FAILED => Ok(Self { page: address }),
            _ => Err(KvmError::Ioctl {
                action: "map a vCPU's shared page",
                error: io::Error::last_os_error(),
            }),
        }
    }

    /// Asks for an exit, or takes the request back.
    pub(super) fn set(&self, on: bool) {
        // SAFETY: the offset lies in the page, which is mapped until drop; KVM and we access the
        // byte by single loads and stores only.
        let flag = unsafe {
            AtomicU8::from_ptr(
                self.page
                    .as_ptr()
                    .add(std::mem::offset_of!(kvm_run, immediate_exit)),
            )
        };
        flag.store(u8::from(on), Ordering::SeqCst);
    }
}

impl Drop for ImmediateExit {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody has a pointer into it any more.
        let unmapped = unsafe { libc::munmap(self.page.as_ptr().cast(), LENGTH) };
        debug_assert_eq!(unmapped, 0);
    }
}

/// The signal that interrupts `KVM_RUN`.
pub(super) fn signal() -> i32 {
    SIGRTMIN()
}

/// Gives [`signal`] a handler that does nothing: its arrival is the message. Once a process.
pub(super) fn install_handler() {
    extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = register_signal_handler(signal(), nothing) {
            tracing::error!(%error, "vCPUs cannot be interrupted");
        }
    });
}
