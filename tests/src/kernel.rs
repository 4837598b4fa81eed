//! Kernels of a few bytes.

/// Where [`pvh`] puts the code.
const LOAD: u32 = 0x10_0000;

/// An ELF file with a PVH note that enters `code` in 32-bit protected mode, without paging.
pub fn pvh(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    let mut note = Vec::new();
    for word in [4u32, 4, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(LOAD.to_le_bytes());
    let (note_len, code_len) = (note.len() as u64, code.len() as u64);

    let mut file = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let halves = |file: &mut Vec<u8>, halves: &[u16]| {
        file.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
    };
    let longs = |file: &mut Vec<u8>, longs: &[u64]| {
        file.extend(longs.iter().flat_map(|long| long.to_le_bytes()));
    };
    // Executable, x86-64, version 1; entry, program headers, no sections; flags; sizes and counts.
    halves(&mut file, &[2, 62, 1, 0]);
    longs(&mut file, &[LOAD.into(), 64, 0]);
    halves(&mut file, &[0, 0, 64, 56, 2, 64, 0, 0]);
    // PT_LOAD and PT_NOTE: type and flags, offset, addresses, sizes, alignment.
    halves(&mut file, &[1, 0, 5, 0]);
    longs(
        &mut file,
        &[
            HEADERS + note_len,
            LOAD.into(),
            LOAD.into(),
            code_len,
            code_len,
            4,
        ],
    );
    halves(&mut file, &[4, 0, 4, 0]);
    longs(&mut file, &[HEADERS, 0, 0, note_len, note_len, 4]);
    file.extend(&note);
    file.extend(code);
    file
}
