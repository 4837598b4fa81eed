#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs;
use std::process::Command;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const MIB: usize = 1 << 20;

/// A filesystem of `size` bytes with these files in it; `None`, said aloud, where no mke2fs is.
fn filesystem(kind: &str, size: usize, files: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    for (name, content) in files {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let image = folder.path().join("image");
    File::create(&image).unwrap().set_len(size as u64).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let made = Command::new("mke2fs")
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .args(["-q", "-t", kind, "-d"])
        .arg(&tree)
        .arg(&image)
        .status();
    match made {
        Ok(status) => assert!(status.success(), "mke2fs: {status}"),
        Err(error) => {
            println!("SKIPPED: no mke2fs here ({error}); install e2fsprogs");
            return None;
        }
    }
    Some(fs::read(&image).unwrap())
}

/// A disk of `size` bytes with an MBR; entries are type, first sector and sectors.
fn mbr(size: usize, entries: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut disk = vec![0; size];
    link(&mut disk, 0, entries);
    disk
}

/// Writes an MBR, or a link of an extended partition, to a sector.
fn link(disk: &mut [u8], sector: usize, entries: &[(u8, u32, u32)]) {
    let disk = &mut disk[sector * 512..][..512];
    for (n, (kind, first, sectors)) in entries.iter().enumerate() {
        let entry = &mut disk[446 + n * 16..][..16];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..].copy_from_slice(&sectors.to_le_bytes());
    }
    disk[510..].copy_from_slice(&[0x55, 0xaa]);
}

/// A disk with a GPT of sectors of `sector` bytes; partitions are number, first and last sector.
fn gpt(size: usize, sector: usize, partitions: &[(usize, u64, u64)]) -> Vec<u8> {
    let mut disk = mbr(size, &[(0xee, 1, u32::MAX)]);
    disk[sector..][..8].copy_from_slice(b"EFI PART");
    disk[sector + 72..][..8].copy_from_slice(&2u64.to_le_bytes());
    disk[sector + 80..][..4].copy_from_slice(&128u32.to_le_bytes());
    disk[sector + 84..][..4].copy_from_slice(&128u32.to_le_bytes());
    for (number, first, last) in partitions {
        let entry = &mut disk[2 * sector + (number - 1) * 128..][..128];
        entry[..16].fill(7);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
    }
    disk
}

fn put(disk: &mut [u8], at: usize, content: &[u8]) {
    disk[at..at + content.len()].copy_from_slice(content);
}

/// A folder with the disk in it, and what was taken out of it.
fn take(disk: &[u8]) -> (TempDir, Result<Taken, DiskImageError>) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    fs::write(&image, disk).unwrap();
    let taken = take_kernel_here(&image, &folder.path().join("out/new"));
    (folder, taken)
}

fn partitions_of(disk: &[u8]) -> Result<Vec<Partition>, DiskImageError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), disk).unwrap();
    let size = disk.len() as u64;
    let mut found = partitions::find(file.as_file(), size, file.path())?;
    found.retain(|partition| partition.is_within(size));
    Ok(found)
}

#[test]
fn the_newest_kernel_and_its_initrd_come_out_of_a_gpt_disk_whole() {
    let kernel: Vec<u8> = (0..300_001u32).map(|n| (n * 7) as u8).collect();
    let Some(root) = filesystem(
        "ext4",
        8 * MIB,
        &[
            ("etc/fstab", b""),
            ("boot/vmlinuz-6.1.0-9-amd64", b"older"),
            ("boot/initrd.img-6.1.0-9-amd64", b"older"),
            ("boot/vmlinuz-6.1.0-10-amd64", &kernel),
            ("boot/initrd.img-6.1.0-10-amd64", b"initrd"),
            ("boot/config-6.1.0-11-amd64", b""),
            ("boot/vmlinuz-9-evil\x1b[2J", b"never"),
        ],
    ) else {
        return;
    };
    for sector in [512, 4096] {
        let first = 2 * MIB / sector;
        let last = first + root.len() / sector - 1;
        let partitions = [(14, 1024, 1025), (1, first as u64, last as u64)];
        let mut disk = gpt(11 * MIB, sector, &partitions);
        put(&mut disk, 2 * MIB, &root);
        let (folder, taken) = take(&disk);
        let taken = taken.unwrap();
        let out = folder.path().join("out/new");
        assert_eq!(taken.kernel, out.join("vmlinuz-6.1.0-10-amd64"));
        assert_eq!(taken.root.as_deref(), Some("/dev/vda1"));
        assert_eq!(fs::read(&taken.kernel).unwrap(), kernel);
        assert_eq!(fs::read(taken.initrd.unwrap()).unwrap(), b"initrd");
        assert_eq!(fs::read_dir(out).unwrap().count(), 2);
    }
}

#[test]
fn a_boot_partition_of_its_own_leaves_the_root_to_another() {
    let files: [(&str, &[u8]); 2] = [
        ("vmlinuz-6.13.4-200.fc41.x86_64", b"kernel"),
        ("initramfs-6.13.4-200.fc41.x86_64.img", b"initrd"),
    ];
    let Some(boot) = filesystem("ext2", MIB, &files) else {
        return;
    };
    let Some(root) = filesystem("ext4", 4 * MIB, &[("etc/fstab", b"")]) else {
        return;
    };
    // The root is a logical partition, in the second link of the chain.
    let entries = [(0x83, 2048, 2048), (0x05, 4096, 16384)];
    let mut disk = mbr(12 * MIB, &entries);
    link(&mut disk, 4096, &[(0x82, 8, 8), (0x05, 4096, 10240)]);
    link(&mut disk, 8192, &[(0x83, 2048, 8192)]);
    put(&mut disk, MIB, &boot);
    put(&mut disk, 5 * MIB, &root);
    let taken = take(&disk).1.unwrap();
    assert_eq!(taken.root.as_deref(), Some("/dev/vda6"));
    assert!(taken.kernel.ends_with("vmlinuz-6.13.4-200.fc41.x86_64"));
    assert!(taken.initrd.is_some());

    // Without the root there is still a kernel.
    put(&mut disk, 5 * MIB, &vec![0; MIB]);
    assert_eq!(take(&disk).1.unwrap().root, None);
}

#[test]
fn a_filesystem_over_the_whole_disk_needs_no_table() {
    let files: [(&str, &[u8]); 3] = [
        ("vmlinuz", b"kernel"),
        ("initrd.img", b"initrd"),
        ("sbin/init", b""),
    ];
    let Some(mut disk) = filesystem("ext3", 4 * MIB, &files) else {
        return;
    };
    let taken = take(&disk).1.unwrap();
    assert_eq!(taken.root.as_deref(), Some("/dev/vda"));
    assert!(taken.initrd.unwrap().ends_with("initrd.img"));
    // A boot loader's first sector is no table.
    put(&mut disk, 510, &[0x55, 0xaa]);
    assert!(take(&disk).1.is_ok());
    // What is damaged is named.
    disk[0x400 + 0x58..0x400 + 0x60].fill(0xff);
    disk[0x400 + 0x60..0x400 + 0x64].fill(0xff);
    let error = take(&disk).1.unwrap_err().to_string();
    assert!(
        error.starts_with("Cannot look for a kernel in /dev/vda of "),
        "{error}"
    );
}

#[test]
fn images_without_a_kernel_say_what_they_lack() {
    let error = |disk: &[u8]| take(disk).1.unwrap_err().to_string();
    assert!(error(&vec![0; MIB]).contains("No filesystem"));
    assert!(error(b"").contains("No filesystem"));
    assert!(error(b"QFI\xfb\0\0\0\x03").contains("qemu-img convert"));
    let no_header = mbr(MIB, &[(0xee, 1, 100)]);
    assert!(error(&no_header).contains("no header"));
    let mut sizes = gpt(MIB, 512, &[]);
    sizes[512 + 84] = 1;
    assert!(error(&sizes).contains("size"));
    if let Some(empty) = filesystem("ext4", 4 * MIB, &[("boot/memtest", b"")]) {
        assert!(error(&empty).contains("none of its 1 ext2"));
    }
    let missing = take_kernel_here(Path::new("/no/such"), Path::new("/tmp")).unwrap_err();
    assert_eq!(missing.to_string(), "Cannot read the disk image /no/such");
    let folder = take_kernel_here(Path::new("/"), Path::new("/tmp")).unwrap_err();
    assert!(folder.to_string().contains("neither a file"));
}

#[test]
fn an_image_cut_short_is_called_so_and_leaves_nothing() {
    let kernel: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7) as u8).collect();
    let files: [(&str, &[u8]); 2] = [("boot/vmlinuz-1", b"small"), ("boot/initrd.img-1", &kernel)];
    let Some(whole) = filesystem("ext4", 8 * MIB, &files) else {
        return;
    };
    let mut table = gpt(11 * MIB, 512, &[(1, 4096, 4096 + 16383)]);
    put(&mut table, 2 * MIB, &whole);
    let ends = [
        (whole, 8 * MIB, "filesystem on /dev/vda "),
        (table, 10 * MIB, "partition /dev/vda1 "),
    ];
    for (disk, end, what) in ends {
        let mut cuts = 0;
        for len in (1..end / MIB).map(|n| n * MIB).rev() {
            let (folder, taken) = take(&disk[..len]);
            // The end of a filesystem may be free.
            let Err(error) = taken else {
                continue;
            };
            let error = error.to_string();
            for part in [
                what,
                &len.to_string(),
                &end.to_string(),
                "cut short",
                "disk.raw",
            ] {
                assert!(error.contains(part), "{len}: {part} in {error}");
            }
            assert!(!folder.path().join("out").exists(), "{len}");
            cuts += 1;
        }
        assert!(cuts > 0, "{what}");
    }
    // A folder that was there stays.
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    fs::write(&image, gpt(MIB, 512, &[(1, 40, 9000)])).unwrap();
    let error = take_kernel_here(&image, folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cut short") && folder.path().exists(),
        "{error}"
    );
}

#[test]
fn partitions_beyond_the_disk_and_chains_without_end_are_left_out() {
    let disk = mbr(MIB, &[(0x83, 1, 10), (0x83, 1, 4096), (0, 5, 5)]);
    let found = partitions_of(&disk).unwrap();
    assert_eq!((found.len(), found[0].number), (1, Some(1)));
    assert_eq!((found[0].start, found[0].size), (512, 5120));
    let huge = gpt(
        MIB,
        512,
        &[(1, u64::MAX / 2, u64::MAX), (2, 9, 8), (3, 40, 40)],
    );
    let found = partitions_of(&huge).unwrap();
    assert_eq!((found.len(), found[0].number), (1, Some(3)));
    let mut ring = mbr(MIB, &[(0x05, 8, 100)]);
    link(&mut ring, 8, &[(0x83, 1, 1), (0x05, 0, 100)]);
    assert!(partitions_of(&ring).unwrap().len() < 200);
}

proptest! {
    #[test]
    fn any_first_sectors_give_partitions_on_the_disk(
        bytes in prop::collection::vec(any::<u8>(), 0..2048),
        magic in any::<bool>(),
    ) {
        let mut disk = bytes;
        disk.resize(8192, 0);
        put(&mut disk, 510, &[0x55, 0xaa]);
        if magic {
            disk[450] = 0xee;
            put(&mut disk, 512, b"EFI PART");
        }
        for partition in partitions_of(&disk).unwrap_or_default() {
            prop_assert!(partition.start + partition.size <= 8192);
        }
    }
}

/// Damage anywhere in a filesystem's tables ends in a kernel or an error.
#[test]
fn any_damage_to_a_filesystem_ends_in_a_kernel_or_an_error() {
    let files: [(&str, &[u8]); 2] = [("boot/vmlinuz-1", b"kernel"), ("boot/initrd-1", b"initrd")];
    let Some(sound) = filesystem("ext4", MIB, &files) else {
        return;
    };
    proptest!(ProptestConfig::with_cases(64), |(
        damage in prop::collection::vec((0x400usize..0x2_0000, any::<u8>()), 1..40),
    )| {
        let mut disk = sound.clone();
        for (at, value) in damage {
            disk[at] = value;
        }
        let _ = take(&disk);
    });
}

#[test]
fn a_file_where_the_folder_was_to_be_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let (image, plain) = (folder.path().join("disk.raw"), folder.path().join("plain"));
    fs::write(&image, [0; 512]).unwrap();
    fs::write(&plain, "mine").unwrap();
    let why = take_kernel(&image, &plain).unwrap_err().to_string();
    assert!(why.contains("plain is no folder; give"), "{why}");
    assert_eq!(fs::read(&plain).unwrap(), b"mine");
}
