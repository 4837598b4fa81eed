//! Samples on a terminal, which is as it was whatever ends this: a key, a signal or a panic.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Stylize;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use ratatui::{DefaultTerminal, Frame};

use super::super::complain;
use super::super::say::answer;
use super::watch::{self, GLANCE, Watches};
use super::{PACE, ended, text};

const KEYS: &str = "q leaves, the arrows scroll";
const FIRST: &str = "The first sample is being taken";
const NOBODY: &str = "No VM runs";

/// Why the view ends.
enum End {
    /// A person has typed so.
    Key,
    /// A signal.
    Signal(u32),
    /// There is nothing to show any more.
    Over,
}

/// Shows samples until a person ends it, or the VM of this name does.
pub(super) fn run(watches: &mut Watches, interval: Duration) -> ExitCode {
    // Before the terminal is changed: from then on none of them ends the process as it is.
    let shown = signals().and_then(|mut signals| {
        // Also puts the terminal back when something panics.
        let mut terminal = ratatui::try_init()?;
        let mut view = View {
            lines: vec![FIRST.to_owned()],
            scroll: 0,
        };
        view.show(&mut terminal, &mut signals, watches, interval)
    });
    let restored = ratatui::try_restore();
    match shown.and_then(|end| restored.map(|()| end)) {
        Ok(End::Key) => ExitCode::SUCCESS,
        Ok(End::Signal(signal)) => {
            let signal = u8::try_from(signal).unwrap_or(u8::MAX);
            ExitCode::from(signal.saturating_add(128))
        }
        Ok(End::Over) => match watches.end() {
            Some(watch::End::Ended(name)) => {
                answer(&format!("{}\n", ended(name)), ExitCode::SUCCESS)
            }
            Some(watch::End::Unreadable(error)) => {
                complain(error);
                ExitCode::FAILURE
            }
            None => ExitCode::SUCCESS,
        },
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Those that would end the process with the terminal as it is.
fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        set.add(signal);
    }
    set.thread_block()?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    Ok(SignalFd::with_flags(&set, flags)?)
}

/// What is on the screen.
struct View {
    lines: Vec<String>,
    /// The first line that is seen.
    scroll: u16,
}

impl View {
    fn show(
        &mut self,
        terminal: &mut DefaultTerminal,
        signals: &mut SignalFd,
        watches: &mut Watches,
        interval: Duration,
    ) -> io::Result<End> {
        let mut next = Instant::now() + interval;
        loop {
            // In the size that the terminal has by now.
            terminal.draw(|frame| self.draw(frame))?;
            // Until there is something new to draw.
            loop {
                if let Some(signal) = signals.read_signal()? {
                    return Ok(End::Signal(signal.ssi_signo));
                }
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                if event::poll(PACE.min(left))? {
                    match event::read()? {
                        Event::Key(key) if leaves(key) => return Ok(End::Key),
                        Event::Key(key) => self.scroll(key.code),
                        _ => {}
                    }
                    break;
                }
                watches.keep_up();
            }
            if Instant::now() >= next {
                next = Instant::now() + interval;
                self.take(watches);
                if watches.end().is_some() {
                    return Ok(End::Over);
                }
            }
        }
    }

    /// Takes the next sample of each.
    fn take(&mut self, watches: &mut Watches) {
        let texts: Vec<_> = watches.samples(GLANCE).iter().map(text::of).collect();
        self.lines = texts.join("\n").lines().map(str::to_owned).collect();
        // One that has just come is met; what cannot be read now can be a second later.
        let _ = watches.meet();
        if self.lines.is_empty() {
            let none = watches.is_empty();
            self.lines.push(if none { NOBODY } else { FIRST }.into());
        }
    }

    fn scroll(&mut self, key: KeyCode) {
        let last = self.lines.len().saturating_sub(1);
        let last = u16::try_from(last).unwrap_or(u16::MAX);
        self.scroll = match key {
            KeyCode::Down => self.scroll.saturating_add(1).min(last),
            KeyCode::Up => self.scroll.saturating_sub(1),
            _ => self.scroll,
        };
    }

    /// Headings are those lines that are not indented.
    fn draw(&self, frame: &mut Frame) {
        let line = |line: &String| match line.strip_prefix(' ') {
            Some(_) => Line::from(line.clone()),
            None => Line::from(line.clone()).bold(),
        };
        let lines: Vec<_> = self.lines.iter().map(line).collect();
        let parts = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]);
        let [body, foot] = parts.areas(frame.area());
        frame.render_widget(Paragraph::new(lines).scroll((self.scroll, 0)), body);
        frame.render_widget(Line::from(KEYS).dim(), foot);
    }
}

fn leaves(key: KeyEvent) -> bool {
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    key.code == KeyCode::Char('q') || (ctrl && key.code == KeyCode::Char('c'))
}
