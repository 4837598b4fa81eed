//! A disk image of somebody else's: partition tables, filesystems, names in them. A kernel is found
//! in it, or not; what is written lies in the folder that was given, under names that are no paths,
//! and is no larger than the image.
#![no_main]

use std::fs;
use std::io::Write;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use outboard::image::disk::take_kernel_here;
use outboard_fuzz::Number;

/// A small filesystem with a kernel and an initrd in `/boot`, made by tests/fuzz/seed-disk.
const FILESYSTEM: &[u8] = include_bytes!("../seeds/ext4.img");
/// Where the first partition begins.
const START: usize = 34 * 512;

#[derive(Debug, Arbitrary)]
struct Image {
    table: Table,
    edits: Vec<Edit>,
    cut: Option<Number>,
}

#[derive(Debug, Arbitrary)]
enum Table {
    None,
    Mbr([[u8; 16]; 4]),
    /// One entry in good order, then these bytes over it.
    Gpt,
    Bytes(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
struct Edit {
    at: Number,
    bytes: Vec<u8>,
}

fn gpt(image: &mut [u8], len: usize) {
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image[446 + 4] = 0xee;
    image[446 + 8] = 1;
    image[446 + 12..446 + 16].copy_from_slice(&[0xff; 4]);
    let header = &mut image[512..1024];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
    header[24] = 1;
    header[72] = 2;
    header[80] = 4;
    header[84] = 128;
    let entry = &mut image[1024..1152];
    entry[..16].copy_from_slice(&[0xaf; 16]);
    entry[32..40].copy_from_slice(&34u64.to_le_bytes());
    let last = 34 + (len as u64).div_ceil(512) - 1;
    entry[40..48].copy_from_slice(&last.to_le_bytes());
}

fuzz_target!(|image: Image| {
    let mut bytes = match image.table {
        Table::None => FILESYSTEM.to_vec(),
        _ => [&vec![0; START], FILESYSTEM].concat(),
    };
    match &image.table {
        Table::None => {}
        Table::Mbr(entries) => {
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
            bytes[446..510].copy_from_slice(entries.as_flattened());
            if bytes[446 + 4] % 4 == 1 {
                bytes[446 + 8..446 + 16].copy_from_slice(&[34, 0, 0, 0, 0, 16, 0, 0]);
            }
        }
        Table::Gpt => gpt(&mut bytes, FILESYSTEM.len()),
        Table::Bytes(table) => {
            let len = table.len().min(START);
            bytes[..len].copy_from_slice(&table[..len]);
        }
    }
    for edit in image.edits.iter().take(32) {
        let at = edit.at.0 as usize % bytes.len();
        let len = edit.bytes.len().min(bytes.len() - at);
        bytes[at..at + len].copy_from_slice(&edit.bytes[..len]);
    }
    if let Some(cut) = image.cut {
        bytes.truncate(cut.0 as usize % bytes.len());
    }
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let disk = folder.path().join("disk");
    fs::File::create(&disk).unwrap().write_all(&bytes).unwrap();
    let out = folder.path().join("out");
    let taken = take_kernel_here(&disk, &out);
    if let Ok(taken) = &taken {
        assert_eq!(taken.kernel.parent(), Some(&*out));
    }
    let entries: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(entries.len() <= 2, "files beside the folder: {entries:?}");
    for file in fs::read_dir(&out).into_iter().flatten() {
        let meta = file.unwrap().metadata().unwrap();
        assert!(
            meta.is_file() && meta.len() <= bytes.len() as u64,
            "more than there was"
        );
    }
});
