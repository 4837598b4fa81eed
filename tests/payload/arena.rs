//! Memory for rings and buffers: taken once, never given back.

use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

/// From 16 MiB on; the image ends well before.
static NEXT: AtomicUsize = AtomicUsize::new(16 << 20);
/// The smallest machine that tests run on has this much.
static END: AtomicUsize = AtomicUsize::new(60 << 20);

/// Takes memory from here from now on: from below 6 GiB, and where there is some.
pub fn move_to(range: Range<usize>) {
    NEXT.store(range.start, Ordering::Relaxed);
    END.store(range.end, Ordering::Relaxed);
}

/// `len` zeroed bytes, aligned to a page. Physical and virtual addresses are the same.
pub fn pages(len: usize) -> *mut u8 {
    let len = len.next_multiple_of(4096);
    let at = NEXT.fetch_add(len, Ordering::Relaxed);
    assert!(at + len <= END.load(Ordering::Relaxed), "out of memory");
    let at = at as *mut u8;
    unsafe { at.write_bytes(0, len) };
    at
}
