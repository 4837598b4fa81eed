//! Fork and exec, with what a daemon inherits and what follows it.
#![allow(unsafe_code)] // pre_exec

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use outboard_device::daemon::{COUNTERS, UNTIMED_LOG};

use super::Error;
use super::command::Command;
use super::pidfd::PidFd;
use super::strays::{self, Mark};
use crate::logs;

/// A child as the supervisor's thread holds it.
pub(super) struct Spawned {
    pub(super) child: Child,
    /// Readable once the child has ended.
    pub(super) pidfd: PidFd,
    /// Its standard error, and its standard output unless it owns the terminal. Non-blocking.
    pub(super) stderr: File,
}

/// Spawns `command`, marked. The calling thread must live as long as the VMM.
pub(super) fn spawn(command: &Command, mark: &Mark) -> Result<Spawned, Error> {
    let failed = |source| Error::Spawn {
        program: command.program.clone(),
        source,
    };
    let (reader, writer) = io::pipe().map_err(failed)?;
    let mut std = std::process::Command::new(&command.program);
    std.args(&command.args).env(UNTIMED_LOG, "1");
    std.env(strays::VARIABLE, mark.value());
    // Those of another VMM, which has started this one, name nothing here.
    std.env_remove(COUNTERS)
        .envs(command.variables.iter().cloned());
    if let Some(filter) = logs::daemon_filter() {
        std.env("RUST_LOG", filter);
    }
    if command.terminal {
        std.stdin(Stdio::inherit()).stdout(Stdio::inherit());
    } else {
        std.stdin(Stdio::null())
            .stdout(writer.try_clone().map_err(failed)?)
            .process_group(0);
    }
    std.stderr(writer);
    let inherited = command.inherited_numbers();
    let parent = std::process::id();
    // SAFETY: between fork and exec `in_child` makes plain system calls on integers prepared
    // here; it takes no lock and allocates nothing.
    unsafe { std.pre_exec(move || in_child(parent, &inherited)) };
    let mut child = std.spawn().map_err(failed)?;
    let opened = PidFd::open(child.id().cast_signed()).and_then(|pidfd| {
        let stderr = File::from(OwnedFd::from(reader));
        set_nonblocking(&stderr)?;
        Ok((pidfd, stderr))
    });
    match opened {
        Ok((pidfd, stderr)) => Ok(Spawned {
            child,
            pidfd,
            stderr,
        }),
        Err(source) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(failed(source))
        }
    }
}

/// Runs in the child, between fork and exec.
fn in_child(parent: u32, inherited: &[RawFd]) -> io::Result<()> {
    // SAFETY: prctl with integers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) })?;
    // A parent that died before the line above has left no signal behind.
    // SAFETY: getppid has no preconditions.
    if unsafe { libc::getppid() }.cast_unsigned() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // The VMM takes signals from a descriptor and blocks them; a daemon does not.
    // SAFETY: all zeros are a valid set, made empty before its use; both calls only touch it.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        check(libc::sigemptyset(&raw mut none))?;
        check(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null_mut(),
        ))?;
    }
    // The VMM ignores it, which an exec keeps; a daemon decides for itself.
    // SAFETY: the default disposition runs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
    // Everything the VMM opens is close-on-exec; this holds it to that, whatever a library did.
    // Kernels before 5.11 do not know the flag: then the first line is all there is.
    // SAFETY: close_range with integers; with this flag it closes nothing before exec.
    let closed = unsafe {
        libc::close_range(
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC.cast_signed(),
        )
    };
    if closed != 0 && !matches!(last_errno(), Some(libc::EINVAL | libc::ENOSYS)) {
        return Err(io::Error::last_os_error());
    }
    for &fd in inherited {
        // SAFETY: fcntl with integers; the descriptor came through the fork.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
    }
    Ok(())
}

fn set_nonblocking(file: &File) -> io::Result<()> {
    // SAFETY: fcntl with integers on a descriptor that `file` owns.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn last_errno() -> Option<i32> {
    io::Error::last_os_error().raw_os_error()
}
