//! What vhost-user does not tell about a device: how long its config space is, how many queues it
//! needs, and how large they may be.

use vhost::vhost_user::message::VHOST_USER_CONFIG_SIZE;

/// Virtio 1.2, section 6: bits 0 to 23 and from 50 on belong to the device's class.
const CLASS_FEATURES: u64 = ((1 << 24) - 1) | !((1 << 50) - 1);
/// `INDIRECT_DESC`, `EVENT_IDX`, `IN_ORDER` and `ORDER_PLATFORM`: between driver and backend alone.
const RING_FEATURES: u64 = 1 << 28 | 1 << 29 | 1 << 35 | 1 << 36;
/// A device that is not of the legacy interface.
pub(super) const VERSION_1: u64 = 1 << 32;
/// One queue can be stopped and started anew. The frontend does it; backends are not asked.
pub(super) const RING_RESET: u64 = 1 << 40;

/// vhost-user numbers the queue of a kick or call in 8 bits.
pub(super) const QUEUES_MAX: u16 = 256;

/// The greatest queue size shown to drivers unless the person says another: vhost-user does not
/// tell it, and most backends in use take this.
pub(super) const QUEUE_SIZE: u16 = 256;

/// The features that a driver may see, of those a backend offers. Left out: what vhost-user uses
/// for itself (bits 26 and 30), legacy ones, and those whose other half is not written here
/// (packed rings, an IOMMU, notification data).
pub(super) fn features(offered: u64) -> u64 {
    offered & (CLASS_FEATURES | RING_FEATURES | VERSION_1) | RING_RESET
}

/// Length of the config space of a device class (virtio 1.2, section 5), as backends in use serve
/// it. A class that is not listed gets what backends that pad their answer can fill; where that is
/// refused, the device has none.
#[allow(clippy::match_same_arms)] // a line for each class
pub(super) fn config_len(device_id: u32) -> u32 {
    match device_id {
        // Net: mac, status, max_virtqueue_pairs, mtu.
        1 => 12,
        // Block, up to write_zeroes_may_unmap and its padding; what came later is not served by
        // all.
        2 => 60,
        // Console, with max_nr_ports and emerg_wr.
        3 => 12,
        // Entropy, I2C: none.
        4 | 34 => 0,
        // SCSI.
        8 => 36,
        // GPU, without the capsets' alignment.
        16 => 16,
        // Input: select, subsel, size and the union.
        18 => 136,
        // Socket, GPIO.
        19 | 41 => 8,
        // Crypto.
        20 => 56,
        // Sound.
        25 => 12,
        // File system: tag, num_request_queues, notify_buf_size.
        26 => 44,
        _ => VHOST_USER_CONFIG_SIZE - 0x100,
    }
}

/// How many queues a backend has that cannot be asked (it lacks the MQ protocol feature).
pub(super) fn queues_without_mq(device_id: u32) -> u16 {
    match device_id {
        // Receive and transmit; crypto has data and control; vsock, sound and input have an event
        // queue beside; so has fs its notification or high-priority queue.
        1 | 3 | 18 | 20 | 26 | 34 => 2,
        8 | 19 => 3,
        25 => 4,
        _ => 1,
    }
}

/// What `GET_QUEUE_NUM` counts, in queues: for net, backends count pairs.
pub(super) fn queues_offered(device_id: u32, answer: u64, asked: Option<u16>) -> u16 {
    let offered = u16::try_from(answer).unwrap_or(QUEUES_MAX).min(QUEUES_MAX);
    match (device_id, asked) {
        (1, Some(asked)) if offered < asked => offered.saturating_mul(2),
        (1, None) if offered == 1 => 2,
        _ => offered,
    }
}

/// The config space of a file system (virtio 1.2, section 5.11.4), for a backend that has none.
pub(super) fn fs_config(tag: &str, request_queues: u16) -> Vec<u8> {
    let mut config: Vec<u8> = tag.bytes().chain(std::iter::repeat(0)).take(36).collect();
    config.extend(u32::from(request_queues).to_le_bytes());
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_feature_passes_without_the_code_for_it() {
        let shown = features(u64::MAX);
        for bit in [24, 26, 27, 30, 31, 33, 34, 37, 38, 39, 41] {
            assert_eq!(shown & 1 << bit, 0, "bit {bit}");
        }
        for bit in [0, 5, 23, 28, 29, 32, 50, 63] {
            assert_ne!(shown & 1 << bit, 0, "bit {bit}");
        }
        assert_eq!(features(0), RING_RESET);
    }

    #[test]
    fn net_backends_may_count_pairs() {
        assert_eq!(queues_offered(1, 1, Some(2)), 2);
        assert_eq!(queues_offered(1, 1, None), 2);
        assert_eq!(queues_offered(1, 2, Some(2)), 2);
        assert_eq!(queues_offered(2, 1, Some(2)), 1);
        assert_eq!(queues_offered(2, u64::MAX, None), QUEUES_MAX);
    }
}
