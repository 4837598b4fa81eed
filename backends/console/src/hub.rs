//! Between the guest's bytes and the people's end: one loop on one thread.

use std::future::Future;
use std::os::unix::net::UnixStream as StdStream;

use tokio::net::UnixStream;

/// What the guest has not taken yet of what people typed; more is not read, or dropped.
const TYPED_MAX: usize = 4096;
/// One read of the guest's output.
const CHUNK: usize = 8192;

/// Why a hub ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The guest's side of the stream closed, or the hub was asked to stop.
    Closed,
    /// A person asked to quit.
    Quit,
}

/// What people's end tells the hub.
#[derive(Debug)]
pub enum Event {
    /// Bytes for the guest.
    Input(Vec<u8>),
    /// Output may go on after [`End::output`] said that the end is full.
    Room,
    /// A person asked to quit.
    Quit,
}

/// Where people are. Called by the hub on its own thread.
pub trait End {
    /// Takes output of the guest, all of it, and never blocks. `false`: full; the hub gives no
    /// more until [`Event::Room`].
    fn output(&mut self, bytes: &[u8]) -> bool;

    /// The next event. Cancel-safe. With `typing` false the guest is not taking input: an end
    /// that can hold its people back does, another drops what they type.
    fn event(&mut self, typing: bool) -> impl Future<Output = Event>;

    /// The guest is gone: what was printed should reach people. Bounded.
    fn finish(&mut self) -> impl Future<Output = ()>;
}

/// Carries bytes until one side ends, or `stop` does. The end is finished, but not dropped, on return.
///
/// # Errors
/// The stream or the signals cannot be watched.
pub async fn run(
    guest: StdStream,
    end: &mut impl End,
    stop: impl Future<Output = std::io::Result<()>>,
) -> std::io::Result<Outcome> {
    tokio::pin!(stop);
    guest.set_nonblocking(true)?;
    let guest = UnixStream::from_std(guest)?;
    let mut typed: Vec<u8> = Vec::new();
    let mut full = false;
    // A guest that takes nothing more may still have printed something.
    let mut hears = true;
    let mut bytes = vec![0; CHUNK];
    let outcome = loop {
        tokio::select! {
            asked = &mut stop => {
                asked?;
                break Outcome::Closed;
            }
            event = end.event(hears && typed.len() < TYPED_MAX) => match event {
                Event::Input(more) if hears => typed.extend(more),
                Event::Input(_) => {}
                Event::Room => full = false,
                Event::Quit => break Outcome::Quit,
            },
            ready = guest.readable(), if !full => {
                ready?;
                match guest.try_read(&mut bytes) {
                    Ok(0) => break Outcome::Closed,
                    Ok(got) => full = !end.output(bytes.get(..got).unwrap_or_default()),
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => break Outcome::Closed,
                }
            }
            ready = guest.writable(), if !typed.is_empty() => {
                ready?;
                match guest.try_write(&typed) {
                    Ok(taken) => drop(typed.drain(..taken)),
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => {
                        hears = false;
                        typed.clear();
                    }
                }
            }
        }
    };
    end.finish().await;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Somebody who types before anything is printed, and keeps what is.
    struct Eager {
        typed: bool,
        seen: Vec<u8>,
    }

    impl End for Eager {
        fn output(&mut self, bytes: &[u8]) -> bool {
            self.seen.extend(bytes);
            true
        }

        async fn event(&mut self, _typing: bool) -> Event {
            if std::mem::replace(&mut self.typed, true) {
                return std::future::pending().await;
            }
            Event::Input(b"x".to_vec())
        }

        async fn finish(&mut self) {}
    }

    #[tokio::test]
    async fn a_guest_that_hears_no_more_is_read_to_its_end() {
        for _ in 0..100 {
            let (mut guest, ours) = StdStream::pair().unwrap();
            guest.write_all(&vec![b'.'; 3 * CHUNK]).unwrap();
            drop(guest);
            let (typed, seen) = (false, Vec::new());
            let mut end = Eager { typed, seen };
            let outcome = run(ours, &mut end, std::future::pending()).await.unwrap();
            assert_eq!(outcome, Outcome::Closed);
            assert_eq!(end.seen.len(), 3 * CHUNK);
        }
    }
}
