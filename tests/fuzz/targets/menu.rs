//! A boot menu of somebody else's, of isolinux or GRUB, in several files. It is read to its end within
//! limits; what it offers has paths from the image's root, can be printed, and can be asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outboard::image::menu::{Files, Menu};

/// The files' texts: those of both menus, and two more, as the input has them one after the other.
struct Texts<'a>(Vec<&'a str>);

const NAMES: [&str; 4] = [
    "/isolinux/isolinux.cfg",
    "/boot/grub/grub.cfg",
    "/isolinux/a.cfg",
    "/a.cfg",
];

impl Files for Texts<'_> {
    fn read(&self, path: &str) -> Option<String> {
        let number = NAMES.iter().position(|name| *name == path)?;
        self.0.get(number).map(|text| (*text).to_owned())
    }

    fn has(&self, path: &str) -> bool {
        self.read(path).is_some() || path == "/isolinux/linux"
    }
}

fuzz_target!(|text: &str| {
    let texts = Texts(text.split("%%\n").collect());
    let Ok(menu) = Menu::read(&texts) else {
        return;
    };
    assert!(menu.default < menu.entries.len() && menu.entries.len() <= 1000);
    assert!(menu.entry(None).is_some());
    for entry in &menu.entries {
        assert!(entry.initrds.len() <= 64 && entry.cmdline.len() <= 4096);
        assert!(menu.entry(Some(entry.word())).is_some());
        for path in entry.initrds.iter().chain([&entry.kernel]) {
            assert!(path.starts_with('/'), "{path}");
            assert!(path.split('/').all(|part| part != ".."), "{path}");
        }
        let words = [entry.path(), entry.cmdline.clone(), entry.kernel.clone()];
        assert!(!words.concat().contains(char::is_control), "{words:?}");
    }
});
