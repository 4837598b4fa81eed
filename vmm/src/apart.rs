//! A question that may end whoever answers it, put to a process of this program of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// How often it is looked at meanwhile.
const STEP: Duration = Duration::from_millis(2);
/// The most that is kept of what it says.
const MOST_SAID: usize = 1 << 20;

/// What came of a question.
pub(crate) struct Answer {
    /// How the process ended; `None` for one that was killed, for it took too long or was cancelled.
    pub(crate) status: Option<ExitStatus>,
    /// Its standard output.
    pub(crate) said: String,
    err: String,
}

impl Answer {
    /// What it wrote to standard error, as the end of a message.
    pub(crate) fn last_words(&self) -> String {
        match self.err.trim() {
            "" => String::new(),
            words => format!("; its last words:\n{words}"),
        }
    }

    /// Whether it failed, and says what is wrong itself.
    pub(crate) fn refusal(&self) -> Option<&str> {
        let said = self.said.trim();
        let refused = self.status?.code() == Some(1) && !said.is_empty();
        refused.then_some(said)
    }
}

/// For the process that is asked: it ends with the thread that started it. In a process group of its own it
/// hears no Ctrl-C.
pub(crate) fn asked() {
    let _ = set_pdeathsig(Signal::SIGKILL);
}

/// Asks this program by these arguments, for `limit` at most; gives up when `cancelled` says so.
pub(crate) fn ask(
    args: &[&OsStr],
    limit: Duration,
    cancelled: &dyn Fn() -> bool,
) -> io::Result<Answer> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let listen = || io::Result::Ok((Said::new(out)?, Said::new(err)?));
    let (mut out, mut err) = match listen() {
        Ok(both) => both,
        Err(error) => {
            end(&mut child);
            return Err(error);
        }
    };
    let status = wait(&mut child, [&mut out, &mut err], limit, cancelled);
    Ok(Answer {
        status,
        said: out.text(),
        err: err.text(),
    })
}

/// What comes out of a pipe. Who else may hold its other end is not known: it is never waited for.
struct Said {
    pipe: File,
    bytes: Vec<u8>,
}

impl Said {
    fn new(pipe: Option<impl Into<OwnedFd>>) -> io::Result<Self> {
        let pipe = pipe.ok_or(io::ErrorKind::BrokenPipe)?;
        let pipe = File::from(pipe.into());
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            pipe,
            bytes: Vec::new(),
        })
    }

    /// Takes what is there. It may be more than a pipe holds.
    fn listen(&mut self) {
        let left = MOST_SAID.saturating_sub(self.bytes.len()) as u64;
        let _ = (&self.pipe).take(left).read_to_end(&mut self.bytes);
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Listens until it ends, and kills what takes too long; and whatever it has started, either way.
fn wait(
    child: &mut Child,
    mut said: [&mut Said; 2],
    limit: Duration,
    cancelled: &dyn Fn() -> bool,
) -> Option<ExitStatus> {
    let begin = Instant::now();
    let id = Pid::from_raw(child.id().cast_signed());
    // Not reaped, so that its number stays that of its group.
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let ended = loop {
        for said in &mut said {
            said.listen();
        }
        match waitid(Id::Pid(id), look) {
            Ok(WaitStatus::StillAlive) if begin.elapsed() < limit && !cancelled() => {
                std::thread::sleep(STEP);
            }
            Ok(WaitStatus::StillAlive) | Err(_) => break false,
            Ok(_) => break true,
        }
    };
    let status = end(child);
    for said in said {
        said.listen();
    }
    status.filter(|_| ended)
}

/// Kills it with its group.
fn end(child: &mut Child) -> Option<ExitStatus> {
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    child.wait().ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn who_is_asked_is_killed_when_it_is_cancelled_or_takes_too_long() {
        let asked = Cell::new(0);
        let later = || asked.replace(asked.get() + 1) == 3;
        let (long, none) = (Duration::from_mins(10), Duration::ZERO);
        let cases: [(_, &dyn Fn() -> bool, _); 4] = [
            ("exec sleep 60", &later, long),
            ("exec sleep 60", &|| true, long),
            ("exec sleep 60", &|| false, none),
            ("sleep 60 & wait", &|| true, long),
        ];
        for (script, cancelled, limit) in cases {
            let mut child = Command::new("sh")
                .args(["-c", script])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0)
                .spawn()
                .unwrap();
            let mut out = Said::new(child.stdout.take()).unwrap();
            let mut err = Said::new(child.stderr.take()).unwrap();
            // One that is not killed ends by itself, with a status.
            let status = wait(&mut child, [&mut out, &mut err], limit, cancelled);
            assert_eq!(status, None, "{script}, {limit:?}");
        }
        assert_eq!(asked.get(), 4);
    }
}
