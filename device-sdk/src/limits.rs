//! The limits under which the host lets a process run.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets the process open as many files as it may. In a VMM each queue takes four and each vCPU three, in a
/// daemon each port a dozen; the usual limit of 1024 is low for the sake of `select(2)`, which nobody here
/// calls.
pub fn raise_open_files() {
    let file = Resource::RLIMIT_NOFILE;
    if let Ok((soft, hard)) = getrlimit(file)
        && soft < hard
        && let Err(error) = setrlimit(file, hard, hard)
    {
        tracing::debug!(%error, soft, "the limit of open files stays");
    }
}
