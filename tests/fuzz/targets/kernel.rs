//! What somebody calls a kernel, with an initrd and a command line: ELF by PVH or the 64-bit entry,
//! or a bzImage. It loads or is refused; nothing is read beyond the files or written outside memory.
#![no_main]

use std::io::Cursor;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use outboard::arch::x86_64::boot::{Boot, load, memory_map};
use vm_memory::{GuestAddress, GuestMemoryMmap};

static RAM: LazyLock<GuestMemoryMmap> = LazyLock::new(|| {
    let ranges = [(GuestAddress(0), 4 << 20), (GuestAddress(1 << 32), 1 << 20)];
    GuestMemoryMmap::from_ranges(&ranges).unwrap()
});

// The last bytes cut the rest into the kernel and the initrd, or give it a command line.
fuzz_target!(|data: &[u8]| {
    let Some((rest, [kind, cut])) = data.split_last_chunk::<2>() else {
        return;
    };
    let at = rest.len() * usize::from(*cut) / 256;
    let (kernel, initrd) = match kind % 3 {
        0 => (rest, None),
        _ => (&rest[at..], Some(&rest[..at])),
    };
    let cmdline = if kind % 3 == 2 {
        String::from_utf8_lossy(&rest[..at]).repeat(usize::from(*kind) + 1)
    } else {
        "console=ttyS0".into()
    };
    let mut initrd = initrd.map(Cursor::new);
    let boot = Boot {
        kernel: &mut Cursor::new(kernel),
        initrd: initrd.as_mut(),
        cmdline: &cmdline,
        rsdp: 0xe_0000,
    };
    match load(&RAM, boot) {
        Ok(entry) => {
            assert!(entry.rip != 0);
            let mut sregs = Default::default();
            entry.apply(&mut sregs);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    assert!(!memory_map(&RAM).is_empty());
});
