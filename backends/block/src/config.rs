//! The device's configuration space (virtio 1.2, section 5.2.4) and the features it goes with.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ,
    VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};

use crate::image::{Image, SECTOR};

/// Length of the configuration space: to the end of the write-zeroes fields.
pub const CONFIG_LEN: usize = 60;

/// Data segments a request may have. With header and status that fits a ring of 128, the size
/// QEMU gives by default: a driver must not make a chain longer than its ring.
pub const SEG_MAX: u32 = 126;

/// Longest discard or write-zeroes range, in sectors (1 GiB): one request stays bounded even where
/// zeroes must be written out.
pub const MAX_RANGE_SECTORS: u32 = 1 << 21;

/// Ranges in one discard or write-zeroes request.
pub const MAX_RANGES: u32 = 16;

// Offsets in `struct virtio_blk_config`.
const CAPACITY: usize = 0;
const SEG_MAX_AT: usize = 12;
const BLK_SIZE: usize = 20;
const PHYSICAL_BLOCK_EXP: usize = 24;
const MIN_IO_SIZE: usize = 26;
const OPT_IO_SIZE: usize = 28;
const NUM_QUEUES: usize = 34;
const MAX_DISCARD_SECTORS: usize = 36;
const MAX_DISCARD_SEG: usize = 40;
const DISCARD_SECTOR_ALIGNMENT: usize = 44;
const MAX_WRITE_ZEROES_SECTORS: usize = 48;
const MAX_WRITE_ZEROES_SEG: usize = 52;
const WRITE_ZEROES_MAY_UNMAP: usize = 56;

/// The configuration space of a disk.
#[derive(Clone, Debug)]
pub struct Config([u8; CONFIG_LEN]);

impl Config {
    /// Describes `image` served by `queues` queues.
    pub fn new(image: &Image, queues: u16) -> Self {
        let blocks = image.blocks();
        let in_blocks = |bytes: u32| bytes / blocks.logical.max(1);
        let alignment = (u64::from(blocks.discard) / SECTOR) as u32;
        let mut config = Self([0; CONFIG_LEN]);
        config.put(CAPACITY, &(image.size() / SECTOR).to_le_bytes());
        config.put(SEG_MAX_AT, &SEG_MAX.to_le_bytes());
        config.put(BLK_SIZE, &blocks.logical.to_le_bytes());
        // log2 of the logical blocks in a physical one; the first logical block begins one.
        let physical = in_blocks(blocks.physical).max(1);
        config.put(PHYSICAL_BLOCK_EXP, &[physical.ilog2() as u8]);
        let least = u16::try_from(physical).unwrap_or(u16::MAX);
        config.put(MIN_IO_SIZE, &least.to_le_bytes());
        config.put(OPT_IO_SIZE, &in_blocks(blocks.optimal).to_le_bytes());
        config.put(NUM_QUEUES, &queues.to_le_bytes());
        if image.can_discard() {
            config.put(MAX_DISCARD_SECTORS, &MAX_RANGE_SECTORS.to_le_bytes());
            config.put(MAX_DISCARD_SEG, &MAX_RANGES.to_le_bytes());
            config.put(DISCARD_SECTOR_ALIGNMENT, &alignment.to_le_bytes());
        }
        if !image.readonly() {
            config.put(MAX_WRITE_ZEROES_SECTORS, &MAX_RANGE_SECTORS.to_le_bytes());
            config.put(MAX_WRITE_ZEROES_SEG, &MAX_RANGES.to_le_bytes());
            config.put(WRITE_ZEROES_MAY_UNMAP, &[u8::from(image.can_discard())]);
        }
        config
    }

    /// Copies what lies at `offset` into `data`; beyond the end are zeroes.
    pub fn read(&self, offset: u32, data: &mut [u8]) {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = rest.get(i).copied().unwrap_or(0);
        }
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

/// The feature bits offered for `image` on `queues` queues.
pub fn features(image: &Image, queues: u16) -> u64 {
    let mut features = bit(VIRTIO_BLK_F_SEG_MAX)
        | bit(VIRTIO_BLK_F_BLK_SIZE)
        | bit(VIRTIO_BLK_F_TOPOLOGY)
        | bit(VIRTIO_BLK_F_FLUSH);
    if queues > 1 {
        features |= bit(VIRTIO_BLK_F_MQ);
    }
    if image.readonly() {
        features |= bit(VIRTIO_BLK_F_RO);
    } else {
        features |= bit(VIRTIO_BLK_F_WRITE_ZEROES);
    }
    if image.can_discard() {
        features |= bit(VIRTIO_BLK_F_DISCARD);
    }
    features
}

/// The mask of a feature bit.
pub const fn bit(number: u32) -> u64 {
    1 << number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Options;

    fn image(readonly: bool) -> Image {
        image_with(&Options {
            readonly,
            ..Options::default()
        })
    }

    fn image_with(options: &Options) -> Image {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        Image::open(file.path(), options).unwrap()
    }

    fn read_u32(config: &Config, offset: u32) -> u32 {
        let mut bytes = [0; 4];
        config.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn the_fields_lie_where_the_standard_has_them() {
        let config = Config::new(&image(false), 3);
        let mut capacity = [0; 8];
        config.read(0, &mut capacity);
        assert_eq!(u64::from_le_bytes(capacity), 2048);
        assert_eq!(read_u32(&config, 12), SEG_MAX);
        assert_eq!(read_u32(&config, 20), 512);
        assert_eq!(read_u32(&config, 32) >> 16, 3);
        assert_eq!(read_u32(&config, 48), MAX_RANGE_SECTORS);
    }

    #[test]
    fn a_disk_that_keeps_its_space_offers_none_back() {
        for keep_space in [false, true] {
            let image = image_with(&Options {
                keep_space,
                ..Options::default()
            });
            let offers = features(&image, 1) & bit(VIRTIO_BLK_F_DISCARD) != 0;
            assert_eq!(offers, !keep_space);
            assert_ne!(features(&image, 1) & bit(VIRTIO_BLK_F_WRITE_ZEROES), 0);
            let config = Config::new(&image, 1);
            let may_unmap = read_u32(&config, WRITE_ZEROES_MAY_UNMAP as u32) & 0xff;
            assert_eq!(may_unmap, u32::from(!keep_space));
        }
    }

    #[test]
    fn reads_anywhere_are_harmless() {
        let config = Config::new(&image(false), 1);
        let mut data = [0xff; 8];
        config.read(56, &mut data);
        assert_eq!(data[4..], [0; 4]);
        config.read(u32::MAX, &mut data);
        assert_eq!(data, [0; 8]);
    }

    #[test]
    fn a_readonly_disk_offers_nothing_that_writes() {
        let image = image(true);
        let offered = features(&image, 1);
        assert_ne!(offered & bit(VIRTIO_BLK_F_RO), 0);
        assert_eq!(
            offered & (bit(VIRTIO_BLK_F_DISCARD) | bit(VIRTIO_BLK_F_WRITE_ZEROES)),
            0
        );
        assert_eq!(offered & bit(VIRTIO_BLK_F_MQ), 0);
        assert_ne!(features(&image, 2) & bit(VIRTIO_BLK_F_MQ), 0);
        assert_eq!(read_u32(&Config::new(&image, 1), 48), 0);
    }
}
