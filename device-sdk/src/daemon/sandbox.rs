//! What a daemon gives up before it serves its first request.
//!
//! By then everything it needs is open: its image, tap or terminal, and the frontend's stream.
//! So no daemon has a reason to run another program, to look into another process, or to change
//! what the machine is: [capabilities] and [files] are gone from
//! here on, and those system calls fail, in every thread, with EPERM. The list names what is refused
//! and not what is allowed, so that it holds for every device; a device that knows its own needs may
//! add a filter of its own in [`Device::start`], which is where the first thread that meets the
//! guest's data comes from.
//!
//! [`Device::start`]: crate::Device::start

use std::collections::BTreeMap;
use std::io;

use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads, sock_filter,
};
use tracing::{debug, warn};

use super::{capabilities, files};

/// Refused whatever their arguments.
const REFUSED: &[libc::c_long] = &[
    // Other programs, other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
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
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
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
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Refused to a daemon that does not need them: what a ring is asked for passes no filter.
const RINGS: &[libc::c_long] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// For this process only, by their first argument.
const OURSELVES: &[libc::c_long] = &[
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
];

/// From this number on, x86 has a second set of system calls, under numbers of their own (x32). No
/// other machine has so many.
const X32: u32 = 0x4000_0000;

/// What a daemon has to reach that others do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Sockets of the network, opened while it serves.
    pub net: bool,
    /// Files, opened while it serves.
    pub files: bool,
    /// Rings of `io_uring`; it is its affair what they may be asked for.
    pub io_uring: bool,
}

/// Takes privileges from this process for good. Kernels without seccomp are served all the same,
/// with a warning: the filter is a second wall, not the first.
pub(super) fn confine(reach: Reach) -> io::Result<()> {
    prctl::set_no_new_privs()?;
    capabilities::give_up()?;
    match files::close_off(reach) {
        Ok(true) => {}
        Ok(false) => debug!("this kernel has no Landlock; serving without"),
        Err(error) => warn!(%error, "files cannot be closed off by Landlock; serving without"),
    }
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
    let rings = if reach.io_uring { &[] } else { RINGS };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED
        .iter()
        .chain(rings)
        .map(|&call| (call, Vec::new()))
        .collect();
    // Also what a negative or a zero stands for.
    let us = u64::from(std::process::id());
    for &call in OURSELVES {
        let others = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, us)?;
        rules.insert(call, vec![SeccompRule::new(vec![others])?]);
    }
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
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, machine)?;
    let mut program = refuse_x32().to_vec();
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

/// Refuses calls from [`X32`] on, and passes others to what comes behind it; the crate knows them by
/// their numbers only, one by one.
fn refuse_x32() -> [sock_filter; 3] {
    let code = |code: u32| code as u16;
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    [
        // The call's number is the first field of `seccomp_data`.
        sock_filter {
            code: code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS),
            jt: 0,
            jf: 0,
            k: 0,
        },
        sock_filter {
            code: code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K),
            jt: 0,
            jf: 1,
            k: X32,
        },
        sock_filter {
            code: code(libc::BPF_RET | libc::BPF_K),
            jt: 0,
            jf: 0,
            k: refuse,
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::thread;

    use nix::errno::Errno;
    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn rings_are_for_those_who_need_them() {
        let allows = |reach| {
            let program = filter(reach).unwrap();
            let ring = move || {
                prctl::set_no_new_privs().unwrap();
                seccompiler::apply_filter(&program).unwrap();
                // SAFETY: without parameters no ring is made.
                let made = unsafe { libc::syscall(libc::SYS_io_uring_setup, 0, 0) };
                Errno::result(made)
            };
            thread::spawn(ring).join().unwrap() != Err(Errno::EPERM)
        };
        // A host may refuse them to everybody.
        // SAFETY: as above.
        let made = unsafe { libc::syscall(libc::SYS_io_uring_setup, 0, 0) };
        let host = Errno::result(made) != Err(Errno::EPERM);
        assert_eq!(
            allows(Reach {
                io_uring: true,
                ..Reach::default()
            }),
            host
        );
        assert!(!allows(Reach::default()));
    }

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
            let (us, parent) = (Pid::this(), Pid::parent());
            assert_eq!(kill(us, None), Ok(()));
            for other in [parent, Pid::from_raw(0), Pid::from_raw(-1)] {
                assert_eq!(kill(other, None), Err(Errno::EPERM), "{other}");
            }
            for call in [
                libc::SYS_getpid | i64::from(X32),
                libc::SYS_io_uring_setup,
                libc::SYS_mount_setattr,
                libc::SYS_pidfd_send_signal,
            ] {
                // SAFETY: calls that are refused, and that would do nothing with these arguments.
                let refused = Errno::result(unsafe { libc::syscall(call, 0, 0, 0, 0, 0) });
                assert_eq!(refused, Err(Errno::EPERM), "{call:#x}");
            }
        })
        .join()
        .unwrap();
    }
}
