//! A person at a terminal: a shell whose controlling terminal is a pty, and the command it runs.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)] // a test fails by panicking

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::ttyname;

/// Reached only by a failing test.
const LONG: Duration = Duration::from_mins(1);

/// Runs its arguments, says how they ended, and stays, so that the terminal does not hang up.
const SHELL: &str = r#"trap : INT; "$@"; echo "code $?"; read -r stay"#;

/// The terminal and its shell. Dropped, the shell is killed, and the terminal hangs up.
pub struct Screen {
    shell: Child,
    keyboard: File,
    shown: Arc<Mutex<Vec<u8>>>,
    terminal: OwnedFd,
    before: Termios,
}

impl Screen {
    /// Begins to run `command` at a terminal of 24 rows of 80: its program, arguments, folder and
    /// environment.
    pub fn run(command: &Command) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let stdio = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut shell = Command::new("setsid");
        shell
            .args(["--ctty", "sh", "-c", SHELL, "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio());
        if let Some(folder) = command.get_current_dir() {
            shell.current_dir(folder);
        }
        let shell = shell.spawn().unwrap();
        let mut screen = File::from(pty.master.try_clone().unwrap());
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let seen = shown.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                seen.lock().unwrap().extend(&bytes[..count]);
            }
        });
        Self {
            shell,
            keyboard: pty.master.into(),
            shown,
            terminal: pty.slave,
            before,
        }
    }

    /// All that was shown so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until `text` has been shown.
    pub fn expect(&self, text: &str) {
        self.until(text, || self.shown().contains(text));
    }

    /// Waits for something else.
    pub fn until(&self, what: &str, mut met: impl FnMut() -> bool) {
        let end = Instant::now() + LONG;
        while !met() {
            assert!(Instant::now() < end, "never: {what}\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Makes the terminal another size, which those in front of it are told.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = [rows, columns].map(|size| size.to_string());
        let [rows, columns] = &size;
        let mut stty = Command::new("stty");
        stty.arg("-F").arg(ttyname(&self.terminal).unwrap());
        stty.args(["rows", rows, "cols", columns]);
        assert!(stty.status().unwrap().success());
    }

    /// Whether the terminal's settings are those of before the command.
    pub fn is_as_before(&self) -> bool {
        tcgetattr(&self.terminal).unwrap() == self.before
    }

    /// Waits for the command's end; the terminal must be as it was before. Returns what was shown.
    pub fn ends(mut self, code: i32) -> String {
        self.expect("code ");
        self.expect(&format!("code {code}\r\n"));
        assert!(self.is_as_before(), "the terminal's settings are others");
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        self.shown()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
