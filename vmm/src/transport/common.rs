//! The common configuration structure: which register an access means (virtio 1.2, 4.1.4.3).

/// One register. Addresses of 64 bits are two registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    NumQueues,
    DeviceStatus,
    ConfigGeneration,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOff,
    QueueDesc(Half),
    QueueDriver(Half),
    QueueDevice(Half),
    QueueNotifyData,
    QueueReset,
}

/// Half of an address of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Low,
    High,
}

/// Bytes of the structure.
pub(super) const LEN: u32 = 0x3c;

impl Register {
    /// The register that begins at `offset` and is `len` bytes long. Drivers access each register with its own
    /// width; any other access means nothing.
    pub(super) fn at(offset: u64, len: usize) -> Option<Self> {
        Some(match (offset, len) {
            (0x00, 4) => Self::DeviceFeatureSelect,
            (0x04, 4) => Self::DeviceFeature,
            (0x08, 4) => Self::DriverFeatureSelect,
            (0x0c, 4) => Self::DriverFeature,
            (0x10, 2) => Self::ConfigVector,
            (0x12, 2) => Self::NumQueues,
            (0x14, 1) => Self::DeviceStatus,
            (0x15, 1) => Self::ConfigGeneration,
            (0x16, 2) => Self::QueueSelect,
            (0x18, 2) => Self::QueueSize,
            (0x1a, 2) => Self::QueueVector,
            (0x1c, 2) => Self::QueueEnable,
            (0x1e, 2) => Self::QueueNotifyOff,
            (0x20, 4) => Self::QueueDesc(Half::Low),
            (0x24, 4) => Self::QueueDesc(Half::High),
            (0x28, 4) => Self::QueueDriver(Half::Low),
            (0x2c, 4) => Self::QueueDriver(Half::High),
            (0x30, 4) => Self::QueueDevice(Half::Low),
            (0x34, 4) => Self::QueueDevice(Half::High),
            (0x38, 2) => Self::QueueNotifyData,
            (0x3a, 2) => Self::QueueReset,
            _ => return None,
        })
    }
}

impl Half {
    /// This half of an address.
    pub(super) fn of(self, address: u64) -> u32 {
        match self {
            Self::Low => address as u32,
            Self::High => (address >> 32) as u32,
        }
    }

    /// Replaces this half of an address.
    pub(super) fn set(self, address: &mut u64, value: u32) {
        *address = match self {
            Self::Low => *address & !0xffff_ffff | u64::from(value),
            Self::High => *address & 0xffff_ffff | u64::from(value) << 32,
        };
    }
}
