//! Tests of the settling of an image: nobody waits for it who need not, and its panic ends nothing.

use std::process::Command;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use super::*;
use crate::image::Options;

/// Long enough for a thread that is free to go on to have done so.
const A_WHILE: Duration = Duration::from_millis(200);

fn pool() -> (tempfile::TempDir, Pool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .args([path.as_os_str(), "1M".as_ref()])
        .status();
    assert!(made.unwrap().success(), "qemu-img: install qemu-utils");
    let image = Image::open(&path, &Options::default()).unwrap();
    (dir, Pool::new(Arc::new(image)))
}

#[test]
fn an_image_whose_code_panics_as_it_settles_is_given_up() {
    let (_dir, pool) = pool();
    let image = Arc::clone(&pool.0.image);
    pool.settle();
    image.settle().unwrap();
    pool.settle_by(|_| panic!("a panic that a test wants"));
    // The end of the pool waits for its threads, which live on.
    drop(pool);
    let error = image.settle().unwrap_err().to_string();
    assert!(error.contains("given up"), "{error}");
}

#[test]
fn who_has_an_image_settled_does_not_wait_and_the_pools_end_does() {
    static GATE: Barrier = Barrier::new(2);
    let (_dir, pool) = pool();
    // Did whoever asks wait, nobody would come to the gate.
    pool.settle_by(|_| {
        GATE.wait();
        Ok(())
    });
    while pool.0.lock().settle.is_some() {
        thread::yield_now();
    }
    for _ in 0..1000 {
        pool.settle();
    }
    assert!(pool.0.lock().threads.len() <= MAX_THREADS);
    let (ended, end) = mpsc::channel();
    let ending = thread::spawn(move || {
        drop(pool);
        ended.send(()).unwrap();
    });
    assert!(end.recv_timeout(A_WHILE).is_err());
    GATE.wait();
    end.recv().unwrap();
    ending.join().unwrap();
}

#[test]
fn a_raw_image_has_nothing_to_settle() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4096).unwrap();
    let image = Image::open(file.path(), &Options::default()).unwrap();
    let pool = Pool::new(Arc::new(image));
    pool.settle();
    assert!(pool.0.lock().threads.is_empty());
}
