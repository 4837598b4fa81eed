//! Feature bits by name (virtio 1.2, chapter 6, and each device's section of chapter 5).

/// Of every device.
const COMMON: &[(u32, &str)] = &[
    (28, "indirect-desc"),
    (29, "event-idx"),
    (32, "version-1"),
    (33, "access-platform"),
    (34, "ring-packed"),
    (35, "in-order"),
    (36, "order-platform"),
    (37, "sr-iov"),
    (38, "notification-data"),
    (40, "ring-reset"),
];

const NET: &[(u32, &str)] = &[
    (0, "csum"),
    (1, "guest-csum"),
    (2, "ctrl-guest-offloads"),
    (3, "mtu"),
    (5, "mac"),
    (7, "guest-tso4"),
    (8, "guest-tso6"),
    (9, "guest-ecn"),
    (10, "guest-ufo"),
    (11, "host-tso4"),
    (12, "host-tso6"),
    (13, "host-ecn"),
    (14, "host-ufo"),
    (15, "mrg-rxbuf"),
    (16, "status"),
    (17, "ctrl-vq"),
    (18, "ctrl-rx"),
    (19, "ctrl-vlan"),
    (21, "guest-announce"),
    (22, "mq"),
    (23, "ctrl-mac-addr"),
    (54, "guest-uso4"),
    (55, "guest-uso6"),
    (56, "host-uso"),
    (57, "hash-report"),
    (59, "guest-hdrlen"),
    (60, "rss"),
    (61, "rsc-ext"),
    (62, "standby"),
    (63, "speed-duplex"),
];

const BLOCK: &[(u32, &str)] = &[
    (1, "size-max"),
    (2, "seg-max"),
    (4, "geometry"),
    (5, "ro"),
    (6, "blk-size"),
    (9, "flush"),
    (10, "topology"),
    (11, "config-wce"),
    (12, "mq"),
    (13, "discard"),
    (14, "write-zeroes"),
    (15, "lifetime"),
    (16, "secure-erase"),
    (17, "zoned"),
];

const CONSOLE: &[(u32, &str)] = &[(0, "size"), (1, "multiport"), (2, "emerg-write")];

const BALLOON: &[(u32, &str)] = &[
    (0, "must-tell-host"),
    (1, "stats-vq"),
    (2, "deflate-on-oom"),
    (3, "free-page-hint"),
    (4, "page-poison"),
    (5, "page-reporting"),
];

const SCSI: &[(u32, &str)] = &[(0, "inout"), (1, "hotplug"), (2, "change"), (3, "t10-pi")];

const GPU: &[(u32, &str)] = &[
    (0, "virgl"),
    (1, "edid"),
    (2, "resource-uuid"),
    (3, "resource-blob"),
    (4, "context-init"),
];

const VSOCK: &[(u32, &str)] = &[(0, "stream"), (1, "seqpacket")];

const CRYPTO: &[(u32, &str)] = &[
    (0, "revision-1"),
    (1, "cipher-stateless"),
    (2, "hash-stateless"),
    (3, "mac-stateless"),
    (4, "aead-stateless"),
    (5, "akcipher-stateless"),
];

const SOUND: &[(u32, &str)] = &[(0, "ctls")];

const FS: &[(u32, &str)] = &[(0, "notification")];

const GPIO: &[(u32, &str)] = &[(0, "irq")];

const I2C: &[(u32, &str)] = &[(0, "zero-length-request")];

/// Of the devices of one virtio id.
fn class(device_id: u32) -> &'static [(u32, &'static str)] {
    match device_id {
        1 => NET,
        2 => BLOCK,
        3 => CONSOLE,
        5 => BALLOON,
        8 => SCSI,
        16 => GPU,
        19 => VSOCK,
        20 => CRYPTO,
        25 => SOUND,
        26 => FS,
        34 => I2C,
        41 => GPIO,
        _ => &[],
    }
}

/// The names of the bits that are set, for a device of this virtio id, in rising order of bit; one
/// that has no name here is `bit-N`.
pub fn of(device_id: u32, features: u64) -> Vec<String> {
    let class = class(device_id);
    let name = |bit: u32| {
        let known = COMMON.iter().chain(class).find(|(known, _)| *known == bit);
        known.map_or_else(|| format!("bit-{bit}"), |(_, name)| (*name).to_owned())
    };
    let bits = (0..u64::BITS).filter(|bit| features & 1 << bit != 0);
    bits.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_called_by_its_devices_name_for_it() {
        let features = 1 << 5 | 1 << 29 | 1 << 32 | 1 << 45;
        let of = |id| of(id, features).join(" ");
        assert_eq!(of(1), "mac event-idx version-1 bit-45");
        assert_eq!(of(2), "ro event-idx version-1 bit-45");
        assert_eq!(of(4), "bit-5 event-idx version-1 bit-45");
    }

    #[test]
    fn no_class_has_two_names_for_a_bit_or_one_of_the_common_bits() {
        for class in (0..64).map(class) {
            let bits: Vec<u32> = class.iter().map(|(bit, _)| *bit).collect();
            assert!(bits.is_sorted_by(|a, b| a < b), "{class:?}");
            let common = |bit: &u32| COMMON.iter().any(|(known, _)| known == bit);
            assert!(!bits.iter().any(common), "{class:?}");
        }
    }
}
