#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::boot_menu;
use super::*;
use crate::config::{BootConfig, BootFrom};
use crate::image::BootFiles;

const MENU: &str = "default linux\nlabel linux\nkernel /boot/vmlinuz\ninitrd core.gz\nappend quiet\n\
                    label gone\nkernel gone\nlabel half\nkernel /boot/vmlinuz\ninitrd no.gz\n";

/// An image with these files in it, made with these options of mkisofs; `None`, said aloud, where no
/// xorriso is. A content that begins with `->` makes a link.
fn made(options: &[&str], files: &[(&str, &str)]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let (root, image) = (folder.path().join("root"), folder.path().join("x.iso"));
    for (name, content) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match content.strip_prefix("->") {
            Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            None => fs::write(path, content).unwrap(),
        }
    }
    let made = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-no-pad"])
        .args(options)
        .arg("-o")
        .args([&image, &root])
        .output();
    match made {
        Ok(made) => assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        ),
        Err(error) => {
            println!("SKIPPED: no xorriso here ({error}); install xorriso");
            return None;
        }
    }
    Some(fs::read(image).unwrap())
}

fn usual(options: &[&str]) -> Option<Vec<u8>> {
    made(
        options,
        &[
            ("boot/isolinux/isolinux.cfg", MENU),
            ("boot/isolinux/core.gz", "initrd"),
            ("boot/vmlinuz", "kernel"),
        ],
    )
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn opened(bytes: &[u8]) -> Result<Iso, IsoError> {
    Iso::new(file(bytes))
}

fn content(iso: &Iso, path: &str) -> Option<String> {
    let extent = iso.find(path).unwrap()?;
    Some(String::from_utf8(iso.bytes(extent).unwrap()).unwrap())
}

/// What the image in this folder boots, or the whole message of why not.
fn boot(folder: &TempDir, bytes: &[u8], entry: Option<&str>) -> Result<BootFiles, String> {
    let image = folder.path().join("x.iso");
    fs::write(&image, bytes).unwrap();
    let config = BootConfig {
        from: BootFrom::Iso {
            image,
            entry: entry.map(Into::into),
        },
        initrd: None,
        cmdline: None,
        append: None,
    };
    BootFiles::open(&config).map_err(|error| {
        let source = std::error::Error::source(&error);
        format!(
            "{error}: {}",
            source.map(ToString::to_string).unwrap_or_default()
        )
    })
}

#[test]
fn files_are_found_by_each_kind_of_name() {
    let kinds: [(&[&str], Names); 4] = [
        (&["-R"], Names::RockRidge { skip: 0 }),
        (&["--norock", "-J"], Names::Joliet),
        (&["-R", "-J"], Names::RockRidge { skip: 0 }),
        (&["--norock"], Names::Plain),
    ];
    for (options, names) in kinds {
        let Some(image) = usual(options) else {
            return;
        };
        let iso = opened(&image).unwrap();
        assert_eq!(iso.names, names, "{options:?}");
        assert_eq!(
            content(&iso, "/boot/vmlinuz").as_deref(),
            Some("kernel"),
            "{options:?}"
        );
        assert_eq!(
            content(&iso, "boot//./isolinux/../VMLINUZ").as_deref(),
            Some("kernel")
        );
        assert_eq!(content(&iso, "/boot"), None);
        assert_eq!(content(&iso, "/boot/vmlinuz/x"), None);
        assert_eq!(content(&iso, "/boot/vmlinu"), None);
    }
}

#[test]
fn long_names_and_links_are_those_of_rock_ridge() {
    let long = "a".repeat(240);
    let target = format!("../{}/{long}", "b".repeat(200));
    let path = format!("{}/{long}", "b".repeat(200));
    let many: Vec<String> = (0..500).map(|n| format!("many/file-number-{n}")).collect();
    let mut files = vec![
        (path.as_str(), "far"),
        ("x/near", "near"),
        ("x/link", "->near"),
        ("link", "->/x/./link"),
        ("round", "->round"),
    ];
    let link = format!("->{target}");
    files.push(("x/long", &link));
    files.extend(many.iter().map(|name| (name.as_str(), name.as_str())));
    let Some(image) = made(&["-R"], &files) else {
        return;
    };
    let iso = opened(&image).unwrap();
    assert_eq!(content(&iso, &path).as_deref(), Some("far"));
    assert_eq!(content(&iso, "/x/long").as_deref(), Some("far"));
    assert_eq!(content(&iso, "link").as_deref(), Some("near"));
    assert_eq!(content(&iso, "round"), None);
    for name in many {
        assert_eq!(content(&iso, &name), Some(name));
    }
}

#[test]
fn the_entrys_files_are_booted_and_consoles_are_added() {
    let Some(image) = usual(&["-R"]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let files = boot(&folder, &image, None).unwrap();
    let notice = files.notice().unwrap();
    assert!(notice.starts_with("Booting 'linux' of /"), "{notice}");
    assert!(
        notice.ends_with("console=tty0 console=ttyS0 is appended"),
        "{notice}"
    );
    let menu = boot_menu(&folder.path().join("x.iso")).unwrap();
    assert_eq!(
        (menu.file.as_str(), menu.default),
        ("/boot/isolinux/isolinux.cfg", 0)
    );
}

#[test]
fn what_a_person_says_of_the_command_line_comes_before_the_menus_word() {
    let Some(image) = usual(&["-R"]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.iso");
    fs::write(&path, image).unwrap();
    for (cmdline, append, whole) in [
        (None, None, "quiet console=tty0 console=ttyS0"),
        (
            None,
            Some("debug"),
            "quiet debug console=tty0 console=ttyS0",
        ),
        (None, Some("console=hvc0"), "quiet console=hvc0"),
        (Some("mine"), None, "mine"),
        (Some(""), Some("more"), "more"),
    ] {
        let config = BootConfig {
            from: BootFrom::Iso {
                image: path.clone(),
                entry: None,
            },
            initrd: None,
            cmdline: cmdline.map(Into::into),
            append: append.map(Into::into),
        };
        let files = BootFiles::open(&config).unwrap();
        assert_eq!(files.cmdline, whole);
        let said = files.notice().unwrap().contains("appended");
        assert_eq!(said, whole.ends_with("console=ttyS0"));
    }
}

#[test]
fn each_thing_that_is_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let not = boot(&folder, &vec![0; 1 << 20], None).unwrap_err();
    assert!(
        not.starts_with("Cannot boot from /") && not.contains("no ISO 9660 image"),
        "{not}"
    );
    assert!(
        boot(&folder, b"", None)
            .unwrap_err()
            .contains("no ISO 9660 image")
    );
    let missing = boot_menu(Path::new("/no/such.iso"))
        .unwrap_err()
        .to_string();
    assert_eq!(missing, "Cannot open the ISO image /no/such.iso");
    let Some(image) = usual(&["-R"]) else {
        return;
    };
    for (entry, parts) in [
        ("no", ["no entry 'no'", "'linux', 'gone', 'half'"]),
        (
            "gone",
            ["entry 'gone' wants the kernel", "/boot/isolinux/gone"],
        ),
        (
            "half",
            ["entry 'half' wants the initrd", "/boot/isolinux/no.gz"],
        ),
    ] {
        let why = boot(&folder, &image, Some(entry)).unwrap_err();
        assert!(parts.iter().all(|part| why.contains(part)), "{why}");
    }
    let none = made(&["-R"], &[("README", "hello")]).unwrap();
    assert!(
        boot(&folder, &none, None)
            .unwrap_err()
            .contains("no boot menu")
    );
    let other = made(&["-R"], &[("isolinux.cfg", "label x\nlocalboot 0")]).unwrap();
    let why = boot(&folder, &other, None).unwrap_err();
    assert!(why.contains("/isolinux.cfg starts a Linux"), "{why}");
    // Files come behind all folders: a download that stopped loses them first.
    let cut = &image[..image.len() - 2048];
    let why = boot(&folder, cut, None).unwrap_err();
    assert!(
        why.contains("cut short") && why.contains("download it again"),
        "{why}"
    );
    let why = boot(&folder, &image[..18 * 2048], None).unwrap_err();
    assert!(why.contains("cut short"), "{why}");
}

#[test]
fn folders_without_end_come_to_one() {
    let Some(image) = made(&["-R"], &[("x/y", "z")]) else {
        return;
    };
    let iso = opened(&image).unwrap();
    let why = loop {
        if let Err(why) = iso.find("x/y") {
            break why.to_string();
        }
    };
    assert!(why.contains("no end"), "{why}");
}

/// Damage anywhere ends in a menu or an error, and what is found lies in the image.
#[test]
fn any_damage_ends_in_a_menu_or_an_error() {
    let Some(sound) = usual(&["-R", "-J"]) else {
        return;
    };
    let used = 0x8000..sound.len();
    proptest!(ProptestConfig::with_cases(300), |(
        damage in prop::collection::vec((used, any::<u8>()), 1..40),
        cut in prop::option::weighted(0.2, 0x8000..sound.len()),
    )| {
        let mut image = sound.clone();
        for (at, value) in damage {
            image[at] = value;
        }
        image.truncate(cut.unwrap_or(image.len()));
        let size = image.len() as u64;
        let Ok(iso) = opened(&image) else {
            return Ok(());
        };
        let _ = super::super::menu::Menu::read(&Texts::new(&iso));
        for path in ["/boot/vmlinuz", "/boot/isolinux/core.gz"] {
            if let Ok(Some(extent)) = iso.find(path) {
                prop_assert!(extent.start + extent.len <= size);
            }
        }
    });
}
