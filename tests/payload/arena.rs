//! Memory for rings and buffers: taken once, never given back.

use core::sync::atomic::{AtomicUsize, Ordering};

/// From 16 MiB on; the image ends well before.
static NEXT: AtomicUsize = AtomicUsize::new(16 << 20);
/// The smallest machine that tests run on has this much.
const END: usize = 60 << 20;

/// `len` zeroed bytes, aligned to a page. Physical and virtual addresses are the same.
pub fn pages(len: usize) -> *mut u8 {
    let len = len.next_multiple_of(4096);
    let at = NEXT.fetch_add(len, Ordering::Relaxed);
    assert!(at + len <= END, "out of memory");
    let at = at as *mut u8;
    unsafe { at.write_bytes(0, len) };
    at
}
