//! Standard input and output, each on a thread of its own: they cannot be made non-blocking, since
//! the shell shares them.

use std::io::{Read, Write};

use tokio::sync::{mpsc, oneshot};

/// Chunks that wait for a slow terminal before the guest is held back.
const QUEUED: usize = 16;

/// What is read from standard input.
pub(super) fn read_typed() -> mpsc::Receiver<Vec<u8>> {
    let (to, from) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        let mut stdin = std::io::stdin().lock();
        while let Ok(got @ 1..) = stdin.read(&mut bytes) {
            if to
                .blocking_send(bytes.get(..got).unwrap_or_default().to_vec())
                .is_err()
            {
                break;
            }
        }
    });
    from
}

/// Writes what is sent to standard output. The receiver hears when all of it is written.
pub(super) fn show() -> (mpsc::Sender<Vec<u8>>, oneshot::Receiver<()>) {
    let (to, mut from) = mpsc::channel::<Vec<u8>>(QUEUED);
    let (done, all_shown) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stdout = std::io::stdout().lock();
        while let Some(bytes) = from.blocking_recv() {
            if stdout
                .write_all(&bytes)
                .and_then(|()| stdout.flush())
                .is_err()
            {
                break;
            }
        }
        let _ = done.send(());
    });
    (to, all_shown)
}
