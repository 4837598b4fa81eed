//! One image or one tap for two devices: found before their daemons come upon each other.

use std::path::{Path, PathBuf};

use super::{Description, Disk};

impl Description {
    /// Checks that no two devices use one thing that only one may. An image that both only read may be
    /// the same; which file a path leads to in the end is not looked at.
    ///
    /// # Errors
    /// A sentence that names both, the thing and the remedy.
    pub(crate) fn check_shared(&self) -> Result<(), String> {
        let cdrom = self.cdrom.as_deref();
        let disks = self.disks.iter().filter_map(image);
        let images: Vec<_> = disks
            .chain(cdrom.map(|path| ("cdrom0", path, false)))
            .collect();
        let shared = |(_, path, writes): &(_, &Path, bool), (_, other, also): &(_, &Path, bool)| {
            (*writes || *also) && absolute(path) == absolute(other)
        };
        if let Some(((first, ..), (second, path, _))) = pair(&images, shared) {
            return Err(format!(
                "{first} and {second} are both {}; give each an image of its own, or let both only \
                 read (readonly=on)",
                path.display()
            ));
        }
        let taps = self.nets.iter().filter_map(|net| {
            let id = net.id.as_deref().unwrap_or_default();
            Some((id, net.tap.as_deref()?))
        });
        let taps: Vec<_> = taps.collect();
        if let Some(((first, _), (second, tap))) = pair(&taps, |(_, a), (_, b)| a == b) {
            return Err(format!(
                "{first} and {second} are both on the tap {tap}; give each a tap of its own"
            ));
        }
        Ok(())
    }
}

/// What a disk is called, its image, and whether the guest may write to it.
fn image(disk: &Disk) -> Option<(&str, &Path, bool)> {
    let id = disk.id.as_deref().unwrap_or_default();
    Some((id, disk.path.as_deref()?, !disk.readonly.0))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The first two of `all` that are the `same`.
fn pair<T: Copy>(all: &[T], same: impl Fn(&T, &T) -> bool) -> Option<(T, T)> {
    all.iter().enumerate().find_map(|(at, second)| {
        let mut before = all.iter().take(at);
        let first = before.find(|first| same(first, second))?;
        Some((*first, *second))
    })
}

#[cfg(test)]
mod tests {
    use super::super::from_keyvals;
    use super::*;

    fn checked(disks: &[&str], taps: &[&str], cdrom: Option<&str>) -> Result<(), String> {
        let mut vm = Description {
            kernel: Some("k".into()),
            cdrom: cdrom.map(Into::into),
            ..Description::default()
        };
        for disk in disks {
            vm.disks.push(from_keyvals(disk, Some("path")).unwrap());
        }
        for tap in taps {
            vm.nets
                .push(from_keyvals(&format!("tap={tap}"), None).unwrap());
        }
        vm.resolve().map(drop)
    }

    #[test]
    fn what_two_devices_use_is_named_with_both() {
        for (disks, taps, cdrom, told) in [
            (
                &["a", "b", "./a"][..],
                &[][..],
                None,
                "disk0 and disk2 are both ./a;",
            ),
            (
                &["a,readonly", "a,id=root"],
                &[],
                None,
                "disk0 and root are both a;",
            ),
            (
                &["x.iso"],
                &[],
                Some("x.iso"),
                "disk0 and cdrom0 are both x.iso;",
            ),
            (
                &[],
                &["t0", "t1", "t0"],
                None,
                "net0 and net2 are both on the tap t0;",
            ),
        ] {
            let why = checked(disks, taps, cdrom).unwrap_err();
            assert!(why.starts_with(told), "{why}");
        }
        let read = ["a,readonly", "a,readonly=on", "b", "x.iso,readonly"];
        assert_eq!(checked(&read, &["t0", "t1"], Some("x.iso")), Ok(()));
    }
}
