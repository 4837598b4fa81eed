//! What a daemon gives up before it serves its first request.
//!
//! By then everything it needs is open: its image, tap or terminal, and the frontend's stream.
//! So no daemon has a reason to run another program, to look into another process, or to change
//! what the machine is. Those system calls fail from here on, in every thread, with EPERM. The
//! list names what is refused and not what is allowed, so that it holds for every device; a
//! device that knows its own needs may add a filter of its own in [`Device::start`], which is
//! where the first thread that meets the guest's data comes from.
//!
//! [`Device::start`]: crate::Device::start

use std::collections::BTreeMap;
use std::io;

use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};
use tracing::warn;

/// Refused whatever their arguments.
const REFUSED: &[libc::c_long] = &[
    // Other programs, other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_open_by_handle_at,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
];

/// What a daemon has to reach that others do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Sockets of the network, opened while it serves.
    pub net: bool,
}

/// Takes privileges from this process for good. Kernels without seccomp are served all the same,
/// with a warning: the filter is a second wall, not the first.
pub(super) fn confine(reach: Reach) -> io::Result<()> {
    prctl::set_no_new_privs()?;
    match filter(reach) {
        Ok(program) => {
            if let Err(error) = apply_filter_all_threads(&program) {
                warn!(%error, "this kernel takes no seccomp filter; serving without one");
            }
        }
        Err(error) => warn!(%error, "no seccomp filter for this machine; serving without one"),
    }
    Ok(())
}

fn filter(reach: Reach) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    // Sockets of any kind but local ones.
    let not_unix = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Ne,
        libc::AF_UNIX as u64,
    )?;
    if !reach.net {
        rules.insert(libc::SYS_socket, vec![SeccompRule::new(vec![not_unix])?]);
    }
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let machine = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, machine)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::thread;

    use super::*;

    /// In a thread of its own: the filter stays with the thread.
    #[test]
    fn programs_and_networks_are_out_of_reach() {
        let program = filter(Reach::default()).unwrap();
        thread::spawn(move || {
            prctl::set_no_new_privs().unwrap();
            seccompiler::apply_filter(&program).unwrap();
            let refused = Command::new("true").status().unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            let refused = UdpSocket::bind("127.0.0.1:0").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            UnixStream::pair().unwrap();
            thread::spawn(|| ()).join().unwrap();
        })
        .join()
        .unwrap();
    }
}
