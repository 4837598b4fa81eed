//! This terminal, or standard input and output when they are none.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::threads::{read_typed, show};
use super::{EndError, RawMode};
use crate::escape::{Command, Escape, Typed};
use crate::hub::{End, Event};
use crate::scrollback::Scrollback;
use crate::size::Size;

/// How long the end waits for a slow terminal when the guest is gone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A person at standard input and output.
pub struct Stdio {
    name: String,
    way_out: WayOut,
    typed: mpsc::Receiver<Vec<u8>>,
    /// `None` once standard output is closed.
    shown: Option<mpsc::Sender<Vec<u8>>>,
    all_shown: Option<oneshot::Receiver<()>>,
    escape: Escape,
    events: VecDeque<Typed>,
    /// Standard input has ended; the guest goes on.
    ended: bool,
    other: Option<PathBuf>,
    connecting: Option<Connecting>,
    view: View,
    resized: Option<Resize>,
    raw: Option<RawMode>,
    full: bool,
    /// What did not fit when the view changed, to be shown next.
    late: Vec<u8>,
}

/// On the way to the other console. Kept from one wait to the next: output of the guest ends those.
type Connecting = Pin<Box<dyn Future<Output = io::Result<UnixStream>>>>;

/// What Ctrl-A x is to the person who types it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut {
    /// The end of what is behind the console: a VM's own terminal.
    Ends,
    /// Of no consequence: somebody looks at a console that another process serves.
    Leaves,
}

/// Watches the terminal's size.
struct Resize {
    signal: Signal,
    size: Size,
    tell: Box<dyn Fn() + Send>,
}

/// Which console the terminal shows.
enum View {
    Own,
    Other {
        from: OwnedReadHalf,
        to: OwnedWriteHalf,
        missed: Scrollback,
    },
}

impl Stdio {
    /// Takes standard input and output for the console called `name`. Ctrl-A x is the `way_out`, of
    /// which a person at a terminal is told; Ctrl-A c leads to the
    /// console that listens at `other`. `resized` is called when the terminal's size changes.
    ///
    /// # Errors
    /// The terminal cannot be set to raw mode.
    pub fn open(
        name: &str,
        way_out: WayOut,
        other: Option<&Path>,
        size: Size,
        resized: impl Fn() + Send + 'static,
    ) -> Result<Self, EndError> {
        let raw = RawMode::enter()?;
        let watch = signal(SignalKind::window_change()).map_err(EndError::Terminal)?;
        measure(&size);
        let (shown, all_shown) = show();
        let end = Self {
            name: name.to_owned(),
            way_out,
            typed: read_typed(),
            shown: Some(shown),
            all_shown: Some(all_shown),
            escape: Escape::default(),
            events: VecDeque::new(),
            ended: false,
            other: other.map(Path::to_path_buf),
            connecting: None,
            view: View::Own,
            resized: raw.is_some().then(|| Resize {
                signal: watch,
                size,
                tell: Box::new(resized),
            }),
            raw,
            full: false,
            late: Vec::new(),
        };
        if end.raw.is_some() {
            let here = match way_out {
                WayOut::Ends => " is on this terminal",
                WayOut::Leaves => "",
            };
            end.say(&format!("{name}{here}; {}", end.commands()));
        }
        Ok(end)
    }

    fn commands(&self) -> String {
        let switch = if self.other.is_some() {
            "Ctrl-A c switches, "
        } else {
            ""
        };
        let out = match self.way_out {
            WayOut::Ends => "quits",
            WayOut::Leaves => "leaves, and the VM goes on",
        };
        format!("Ctrl-A x {out}, {switch}Ctrl-A Ctrl-A sends Ctrl-A")
    }

    /// A line of our own, never on standard output, which is the guest's. It goes to the terminal
    /// itself: standard error may be a pipe into the VMM's log.
    fn say(&self, line: &str) {
        let text = format!("[{line}]\r\n");
        if self.raw.is_none() || nix::unistd::write(std::io::stdin(), text.as_bytes()).is_err() {
            let _ = writeln!(std::io::stderr(), "[{line}]");
        }
    }

    fn show(&mut self, bytes: Vec<u8>) {
        let Some(shown) = &self.shown else { return };
        match shown.try_send(bytes) {
            Ok(()) => self.full = shown.capacity() == 0,
            // Reached only where the view changes while the terminal is behind.
            Err(mpsc::error::TrySendError::Full(bytes)) => {
                self.late.extend(bytes);
                self.full = true;
            }
            Err(mpsc::error::TrySendError::Closed(_)) => self.shown = None,
        }
    }

    fn switch(&mut self) {
        match std::mem::replace(&mut self.view, View::Own) {
            View::Other { mut missed, .. } => {
                self.say(&format!("now {}", self.name));
                self.show(missed.take());
            }
            View::Own => match self.other.clone() {
                Some(path) => self.connecting = Some(Box::pin(UnixStream::connect(path))),
                None => {
                    self.say("there is no other console to switch to; give it --console socket");
                }
            },
        }
    }

    fn show_other(&mut self, connected: io::Result<UnixStream>) {
        self.connecting = None;
        match connected {
            Ok(stream) => {
                self.say("now the other console; Ctrl-A c leads back");
                let (from, to) = stream.into_split();
                self.view = View::Other {
                    from,
                    to,
                    missed: Scrollback::new(Scrollback::CAPACITY),
                };
            }
            Err(e) => {
                let path = self.other.as_deref().unwrap_or(Path::new(""));
                self.say(&format!("{} cannot be reached: {e}", path.display()));
            }
        }
    }

    /// Acts on what was typed; what is left of it is for the guest, or ends the hub.
    fn act(&mut self, typed: Typed) -> Option<Event> {
        match (typed, &mut self.view) {
            (Typed::Bytes(bytes), View::Own) => return Some(Event::Input(bytes)),
            (Typed::Bytes(bytes), View::Other { to, .. }) => {
                // A console that does not take its input loses it; this one must stay alive.
                let _ = to.try_write(&bytes);
            }
            (Typed::Command(Command::Quit), _) => return Some(Event::Quit),
            (Typed::Command(Command::Switch), _) => self.switch(),
            (Typed::Command(Command::Help), _) => self.say(&self.commands()),
        }
        None
    }
}

impl End for Stdio {
    fn output(&mut self, bytes: &[u8]) -> bool {
        match &mut self.view {
            View::Own => self.show(bytes.to_vec()),
            View::Other { missed, .. } => missed.push(bytes),
        }
        !self.full
    }

    async fn event(&mut self, typing: bool) -> Event {
        loop {
            if let Some(typed) = self.events.pop_front() {
                if !typing && matches!((&typed, &self.view), (Typed::Bytes(_), View::Own)) {
                    continue;
                }
                match self.act(typed) {
                    Some(event) => return event,
                    None => continue,
                }
            }
            let mut other = vec![0; 4096];
            let (full, piped) = (self.full, self.raw.is_none());
            tokio::select! {
                typed = self.typed.recv(), if !self.ended && (typing || !piped) => match typed {
                    // In a pipe Ctrl-A is a byte like any other.
                    Some(bytes) if piped => return Event::Input(bytes),
                    Some(bytes) => self.events.extend(self.escape.feed(&bytes)),
                    None => self.ended = true,
                },
                () = room(self.shown.as_ref()), if full => {
                    self.full = false;
                    if !self.late.is_empty() {
                        let late = std::mem::take(&mut self.late);
                        self.show(late);
                    }
                    if !self.full {
                        return Event::Room;
                    }
                }
                connected = other_console(&mut self.connecting) => self.show_other(connected),
                got = from_other(&mut self.view, &mut other), if !full => {
                    if let Some(got) = got {
                        self.show(other.get(..got).unwrap_or_default().to_vec());
                    } else {
                        self.say("the other console has closed");
                        self.switch();
                    }
                }
                () = resize(&mut self.resized) => {}
            }
        }
    }

    async fn finish(&mut self) {
        if let View::Other { missed, .. } = &mut self.view {
            let missed = missed.take();
            self.view = View::Own;
            self.show(missed);
        }
        let late = std::mem::take(&mut self.late);
        let (shown, all_shown) = (self.shown.take(), self.all_shown.take());
        let rest = async {
            if let Some(shown) = shown {
                let _ = shown.send(late).await;
            }
            if let Some(all_shown) = all_shown {
                let _ = all_shown.await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    }
}

async fn room(shown: Option<&mpsc::Sender<Vec<u8>>>) {
    if let Some(shown) = shown {
        let _ = shown.reserve().await;
    }
}

/// The connection to the other console, once it is there.
async fn other_console(connecting: &mut Option<Connecting>) -> io::Result<UnixStream> {
    match connecting {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}

/// Output of the other console; `None` when it has closed. Waits for ever while it is not shown.
async fn from_other(view: &mut View, bytes: &mut [u8]) -> Option<usize> {
    match view {
        View::Own => std::future::pending().await,
        View::Other { from, .. } => from.read(bytes).await.ok().filter(|got| *got > 0),
    }
}

async fn resize(resized: &mut Option<Resize>) {
    let Some(Resize { signal, size, tell }) = resized else {
        return std::future::pending().await;
    };
    signal.recv().await;
    if measure(size) {
        tell();
    }
}

/// Asks the terminal for its size; `true` if it has changed.
#[allow(unsafe_code)]
fn measure(size: &Size) -> bool {
    nix::ioctl_read_bad!(winsize, libc::TIOCGWINSZ, libc::winsize);
    let mut window = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one `winsize`, and does so on a terminal only.
    let asked = unsafe { winsize(libc::STDIN_FILENO, &raw mut window) };
    asked.is_ok() && size.set(window.ws_col, window.ws_row)
}
