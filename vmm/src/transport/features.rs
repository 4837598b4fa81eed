//! Feature bits, as far as the transport has a say (virtio 1.2, chapter 6).

/// The driver and the device follow virtio 1.0 and later.
pub(super) const VERSION_1: u64 = 1 << 32;
/// The queues are packed rings.
pub(super) const RING_PACKED: u64 = 1 << 34;
/// A queue can be reset alone.
pub(super) const RING_RESET: u64 = 1 << 40;

/// Bits 0 to 23 and 50 to 63: their meaning is the device class's.
const CLASS: u64 = 0x00ff_ffff | !0 << 50;
/// What lies between device and driver, and needs nothing of a transport: indirect descriptors,
/// the event index, in-order use, memory barriers of real devices.
const RINGS: u64 = 1 << 28 | 1 << 29 | 1 << 35 | 1 << 36;

/// What the transport shows of a device's features: everything but bits that mean something to the
/// transport which it does not carry out (notification data, shared memory behind an IOMMU,
/// admin queues), bits of legacy virtio, and vhost's own.
pub(super) fn offered(device: u64) -> u64 {
    device & (CLASS | RINGS | VERSION_1 | RING_PACKED | RING_RESET)
}

/// Whether `FEATURES_OK` may stand: nothing taken that was not offered, and no legacy driver.
pub(super) fn acceptable(offered: u64, taken: u64) -> bool {
    taken & !offered == 0 && taken & VERSION_1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_vhost_and_of_notification_data_do_not_pass() {
        let all = offered(!0);
        for hidden in [24, 26, 27, 30, 31, 33, 37, 38, 39, 41, 49] {
            assert_eq!(all & 1 << hidden, 0, "bit {hidden}");
        }
        for shown in [0, 23, 28, 29, 32, 34, 35, 36, 40, 50, 63] {
            assert_ne!(all & 1 << shown, 0, "bit {shown}");
        }
    }

    #[test]
    fn version_1_is_a_must_and_nothing_more_than_offered() {
        assert!(acceptable(VERSION_1 | 3, VERSION_1 | 1));
        assert!(!acceptable(VERSION_1 | 3, 1));
        assert!(!acceptable(VERSION_1 | 3, VERSION_1 | 4));
    }
}
