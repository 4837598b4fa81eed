//! Which work the guest and the host leave to each other: virtio's features on one side, the
//! tap's flags on the other.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO,
};

/// Features of receiving, each with the tap's flag for it.
const RECEIVE: [(u32, u32); 7] = [
    (VIRTIO_NET_F_GUEST_CSUM, libc::TUN_F_CSUM),
    (VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
    (VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
    (VIRTIO_NET_F_GUEST_ECN, libc::TUN_F_TSO_ECN),
    (VIRTIO_NET_F_GUEST_UFO, libc::TUN_F_UFO),
    (VIRTIO_NET_F_GUEST_USO4, libc::TUN_F_USO4),
    (VIRTIO_NET_F_GUEST_USO6, libc::TUN_F_USO6),
];

/// What every tap of the last fifteen years can do.
const BASE: u32 =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN | libc::TUN_F_UFO;

/// UDP segmentation, since Linux 6.2; the kernel takes both or neither.
const USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// Sets of flags to try on a tap, the fullest first.
pub const CANDIDATES: [u32; 3] = [BASE | USO, BASE, 0];

/// The mask of a feature bit.
pub const fn bit(number: u32) -> u64 {
    1 << number
}

/// The features to offer when the tap takes the flags `able`.
pub fn offered(able: u32) -> u64 {
    // What a guest sends is between it and the kernel, which cuts packets up and sums them
    // wherever it has to.
    let mut features = bit(VIRTIO_NET_F_CSUM)
        | bit(VIRTIO_NET_F_HOST_TSO4)
        | bit(VIRTIO_NET_F_HOST_TSO6)
        | bit(VIRTIO_NET_F_HOST_ECN)
        | bit(VIRTIO_NET_F_HOST_UFO);
    if able & USO == USO {
        features |= bit(VIRTIO_NET_F_HOST_USO);
    }
    for (feature, flag) in RECEIVE {
        if able & flag != 0 {
            features |= bit(feature);
        }
    }
    features
}

/// The tap's flags for the features a driver took.
///
/// The kernel refuses segmentation without checksumming, so a driver that took one without the
/// other (virtio 1.2, section 5.1.3.1, forbids it) gets neither; of UDP segmentation it gets both
/// kinds or neither.
pub fn flags(acked: u64) -> u32 {
    if acked & bit(VIRTIO_NET_F_GUEST_CSUM) == 0 {
        return 0;
    }
    let mut flags = RECEIVE
        .iter()
        .filter(|(feature, _)| acked & bit(*feature) != 0)
        .fold(0, |flags, (_, flag)| flags | flag);
    if flags & USO != USO {
        flags &= !USO;
    }
    if flags & (libc::TUN_F_TSO4 | libc::TUN_F_TSO6) == 0 {
        flags &= !libc::TUN_F_TSO_ECN;
    }
    flags
}

/// Whether packets longer than the link's MTU may be received with these flags.
pub fn segments(flags: u32) -> bool {
    flags & !(libc::TUN_F_CSUM | libc::TUN_F_TSO_ECN) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn segmentation_goes_with_checksumming() {
        let tso = bit(VIRTIO_NET_F_GUEST_TSO4) | bit(VIRTIO_NET_F_GUEST_ECN);
        assert_eq!(flags(tso), 0);
        assert_eq!(
            flags(tso | bit(VIRTIO_NET_F_GUEST_CSUM)),
            libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO_ECN
        );
        let one_uso = bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_USO4);
        assert_eq!(flags(one_uso), libc::TUN_F_CSUM);
    }

    #[test]
    fn what_the_tap_cannot_is_not_offered() {
        let uso = bit(VIRTIO_NET_F_GUEST_USO4) | bit(VIRTIO_NET_F_HOST_USO);
        assert_eq!(offered(CANDIDATES[0]) & uso, uso);
        assert_eq!(offered(CANDIDATES[1]) & uso, 0);
        assert_eq!(offered(0) & bit(VIRTIO_NET_F_GUEST_CSUM), 0);
    }

    proptest! {
        #[test]
        fn a_driver_gets_no_more_than_it_took(acked: u64) {
            let flags = flags(acked);
            for (feature, flag) in RECEIVE {
                prop_assert!(flags & flag == 0 || acked & bit(feature) != 0);
            }
            prop_assert!(flags & libc::TUN_F_CSUM != 0 || flags == 0);
        }
    }
}
