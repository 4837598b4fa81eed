//! An ISO image of somebody else's: volume descriptors, folders, names of three kinds, links, and the menu
//! among them. What is found lies in the image, and reading comes to an end.
#![no_main]

use std::fs::File;
use std::io::Write;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use nix::sys::memfd::{MFdFlags, memfd_create};
use outboard::image::iso::{Iso, Texts};
use outboard::image::menu::Menu;
use outboard_fuzz::Number;

/// A menu in two files and a kernel behind a link, made by tests/fuzz/seed-disk.
const IMAGE: &[u8] = include_bytes!("../seeds/small.iso");
const SECTOR: usize = 2048;
/// Nothing before is looked at.
const SYSTEM_AREA: usize = 16;

#[derive(Debug, Arbitrary)]
struct Edits {
    edits: Vec<Edit>,
    cut: Option<u16>,
    path: String,
}

#[derive(Debug, Arbitrary)]
struct Edit {
    sector: u8,
    at: Number,
    bytes: Vec<u8>,
}

fuzz_target!(|input: Edits| {
    let mut image = IMAGE.to_vec();
    let sectors = image.len() / SECTOR - SYSTEM_AREA;
    for edit in input.edits.iter().take(32) {
        let sector = SYSTEM_AREA + usize::from(edit.sector) % sectors;
        let at = sector * SECTOR + edit.at.0 as usize % SECTOR;
        let len = edit.bytes.len().min(image.len() - at);
        image[at..at + len].copy_from_slice(&edit.bytes[..len]);
    }
    if let Some(cut) = input.cut {
        image.truncate(SYSTEM_AREA * SECTOR + usize::from(cut));
    }
    let mut file = File::from(memfd_create("iso", MFdFlags::empty()).unwrap());
    file.write_all(&image).unwrap();
    let iso = match Iso::new(file) {
        Ok(iso) => iso,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut paths = vec![input.path, "/vmlinuz".into(), "/boot/core.gz".into()];
    if let Ok(menu) = Menu::read(&Texts::new(&iso)) {
        paths.extend(menu.entries.into_iter().take(3).map(|entry| entry.kernel));
    }
    for path in paths {
        if let Ok(Some(found)) = iso.find(&path) {
            assert!(
                found.start + found.len <= image.len() as u64,
                "beyond the image"
            );
        }
    }
});
