//! A VMM that is asked over its Unix socket, as others' programs do it: by curl, and by hand where
//! descriptors go with a request.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc
)] // a test fails by panicking

use std::fs;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::Value;

use crate::daemons::daemon;
use crate::traces::Home;

/// Reached only by a failing test.
const LONG: Duration = Duration::from_mins(1);

/// The program as its clients call it.
pub fn cloud_hypervisor(home: &Home) -> Command {
    for package in ["outboard-block", "outboard-net", "outboard-console"] {
        daemon(package);
    }
    let link = home.path().join("cloud-hypervisor");
    if !link.exists() {
        symlink(daemon("outboard"), &link).unwrap();
    }
    let mut command = Command::new(link);
    home.adopt(&mut command);
    command
}

/// One without a VM, called so.
pub fn vmm(home: &Home) -> Vmm {
    let socket = home.path().join("api.sock");
    let mut command = cloud_hypervisor(home);
    command.arg("--api-socket").arg(&socket);
    Vmm::start(command, &socket)
}

/// A VMM with an API. Dropped, it is killed.
pub struct Vmm {
    child: Child,
    socket: PathBuf,
}

impl Vmm {
    /// Starts it, and waits until it answers at `socket`.
    pub fn start(mut command: Command, socket: &Path) -> Self {
        command.stdin(Stdio::null());
        let child = command.spawn().expect("the VMM starts");
        let mut vmm = Self {
            child,
            socket: socket.to_owned(),
        };
        let end = Instant::now() + LONG;
        while UnixStream::connect(socket).is_err() {
            assert_eq!(vmm.child.try_wait().unwrap(), None, "it has ended");
            assert!(Instant::now() < end, "it does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        vmm
    }

    /// Starts one as its clients do, at `api.sock` in this folder.
    pub fn called_cloud_hypervisor(home: &Home) -> Self {
        let socket = home.path().join("api.sock");
        let mut command = cloud_hypervisor(home);
        command.arg("--api-socket").arg(&socket);
        Self::start(command, &socket)
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// A request without a body.
    pub fn ask(&self, method: &str, what: &str) -> (u16, Value) {
        self.curl(method, what, &[])
    }

    /// A PUT with a JSON body.
    pub fn put(&self, what: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        self.curl("PUT", what, &["-d", &body])
    }

    /// A request that is answered with 204.
    pub fn does(&self, what: &str) {
        assert_eq!(self.ask("PUT", what), (204, Value::Null), "{what}");
    }

    fn curl(&self, method: &str, what: &str, more: &[&str]) -> (u16, Value) {
        let output = Command::new("curl")
            .args(["-s", "-S", "--max-time", "60", "-w", "\n%{http_code}"])
            .arg("--unix-socket")
            .arg(&self.socket)
            .args(["-X", method])
            .arg(format!("http://localhost/api/v1/{what}"))
            .args(["-H", "Content-Type: application/json"])
            .args(more)
            .output()
            .expect("curl is installed");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), json(body))
    }

    /// A request whose bytes bring descriptors, all at once.
    pub fn pass(&self, method: &str, what: &str, body: &Value, fds: &[OwnedFd]) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = format!(
            "{method} /api/v1/{what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let bytes = [IoSlice::new(request.as_bytes())];
        let sent = sendmsg::<()>(stream.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None);
        assert_eq!(sent.unwrap(), request.len());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, json(body))
    }

    /// Waits until it holds so many descriptors of this test's own program, which are those that it
    /// was passed.
    pub fn settles_at(&self, count: usize) {
        let end = Instant::now() + Duration::from_secs(10);
        let ours = std::env::current_exe().unwrap();
        let held = || {
            let fds = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
            fds.flatten()
                .filter(|fd| fs::read_link(fd.path()).is_ok_and(|file| file == ours))
                .count()
        };
        while held() != count {
            assert!(Instant::now() < end, "it holds {}, not {count}", held());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end.
    pub fn end(mut self) -> ExitStatus {
        let end = Instant::now() + LONG;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn json(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

/// Lets the child have descriptor `number`.
#[allow(unsafe_code)] // between fork and exec
pub fn inherit(command: &mut Command, number: i32) {
    // SAFETY: fcntl with integers is all that the child does before exec.
    unsafe {
        command.pre_exec(move || match libc::fcntl(number, libc::F_SETFD, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}
