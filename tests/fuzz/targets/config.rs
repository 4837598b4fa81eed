//! What people write: the TOML file, the keys of a flag, and the command of a daemon. It is taken, or
//! refused in words; and what `--dry-run` prints means the same as what was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outboard::config::{Description, Disk, Net, Ram, RawDevice, from_keyvals};

fn described(text: &str) -> Option<Description> {
    match text.split_once('\n') {
        // A flag: its name, then its keys.
        Some(("--disk", keys)) => {
            let disks = vec![from_keyvals::<Disk>(keys, Some("path")).ok()?];
            Some(Description {
                disks,
                ..Description::default()
            })
        }
        Some(("--net", keys)) => {
            let nets = vec![from_keyvals::<Net>(keys, None).ok()?];
            Some(Description {
                nets,
                ..Description::default()
            })
        }
        Some(("--memory", keys)) => {
            let memory = Some(from_keyvals::<Ram>(keys, Some("size")).ok()?);
            Some(Description {
                memory,
                ..Description::default()
            })
        }
        Some(("--device", keys)) => {
            let devices = vec![from_keyvals::<RawDevice>(keys, Some("kind")).ok()?];
            Some(Description {
                devices,
                ..Description::default()
            })
        }
        _ => toml::from_str(text).ok(),
    }
}

fuzz_target!(|text: &str| {
    let Some(mut description) = described(text) else {
        return;
    };
    description.kernel.get_or_insert_with(|| "/vmlinuz".into());
    let config = match description.resolve() {
        Ok(config) => config,
        Err(why) => return assert!(!why.is_empty()),
    };
    assert!((1..=254).contains(&config.cpus.count));
    assert!(config.memory.size >= 32 << 20 && config.memory.size.is_multiple_of(2 << 20));
    let mut slots: Vec<u8> = config.devices.iter().map(|device| device.slot).collect();
    slots.sort_unstable();
    assert!(slots.iter().all(|slot| (1..32).contains(slot)));
    assert!(
        slots.windows(2).all(|pair| pair[0] != pair[1]),
        "two devices in one slot"
    );
    // The VM's folder is a name, not a path.
    assert!(!config.name.contains('/') && config.name != "..");
    let printed = toml::to_string(&description).expect("a description can be printed");
    let mut again: Description = toml::from_str(&printed).expect("what was printed can be read");
    assert_eq!(again, description);
    let resolved = again.resolve().expect("what was resolved resolves");
    assert_eq!(again, description);
    assert_eq!(format!("{resolved:?}"), format!("{config:?}"));
});
