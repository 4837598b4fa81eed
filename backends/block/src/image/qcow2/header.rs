//! The header of a qcow2 image, as far as it decides whether the image is one to open at all
//! (QEMU's docs/interop/qcow2.txt, "Header").
//!
//! It is read before anything else of the image is touched. What the library behind the format
//! takes for granted or does not look at is refused here.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The first four bytes: "QFI" and 0xfb.
const MAGIC: u32 = 0x5146_49fb;
/// Length of the header of version 3, without what may follow.
const LEN: usize = 104;
/// Longest name of a backing file.
const MAX_NAME: u32 = 1023;
/// The most that the first-level table and the refcount table may take: QEMU's limits.
const MAX_L1: u64 = 32 << 20;
const MAX_REFTABLE: u64 = 8 << 20;

// Incompatible features.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;

/// Why an image is not opened, as the end of a sentence that begins with its name.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// No magic number.
    #[error("is not in qcow2 format: pass --format raw (format=raw) if its name misleads")]
    Magic,
    /// A version nobody has heard of.
    #[error("is of qcow2 version {0}; versions 2 and 3 are understood")]
    Version(u32),
    /// Data is encrypted.
    #[error(
        "is encrypted, which is not supported: convert it with `qemu-img convert`, and encrypt in \
         the guest"
    )]
    Encrypted,
    /// Whoever wrote last did not end in good order.
    #[error("was not closed in good order: repair it with `qemu-img check -r all`")]
    Dirty,
    /// Somebody has found it broken.
    #[error(
        "is marked corrupt: repair it with `qemu-img check -r all`, or take a copy that is well"
    )]
    Corrupt,
    /// Its data lies in another file.
    #[error(
        "keeps its data in a file of its own, which is not supported: convert it with `qemu-img \
         convert -O qcow2`"
    )]
    ExternalData,
    /// A feature bit that changes the format.
    #[error(
        "uses features that are not supported (bits {0:#x}): convert it with `qemu-img convert -O \
         qcow2 -o compression_type=zlib,extended_l2=off`"
    )]
    Features(u64),
    /// A number that cannot be.
    #[error("is not a sound qcow2 image: its header's {0} cannot be")]
    Field(&'static str),
}

/// Whether a file begins as a qcow2 image does. That never decides its format, see
/// [`Format`](super::super::Format).
pub(in super::super) fn has_magic(file: &File) -> bool {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 0).is_ok() && u32::from_be_bytes(bytes) == MAGIC
}

/// What is known of an image from its header.
#[derive(Debug)]
pub(super) struct Header {
    /// Length of a cluster in bytes, a power of two.
    pub(super) cluster: u32,
    /// The file that lies below it, as the header spells it.
    pub(super) backing: Option<String>,
}

impl Header {
    /// Reads and checks the header of the image in `file`, which has `len` bytes. Writes nothing.
    pub(super) fn read(file: &File, len: u64) -> Result<Self, HeaderError> {
        let mut bytes = [0; LEN];
        let mut have = 0usize;
        while let Some(rest @ [_, ..]) = bytes.get_mut(have..) {
            match file.read_at(rest, have as u64).map_err(HeaderError::Read)? {
                0 => break,
                count => have = have.saturating_add(count),
            }
        }
        let fields = Fields(&bytes);
        if fields.u32(0) != MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = fields.u32(4);
        if !(2..=3).contains(&version) {
            return Err(HeaderError::Version(version));
        }
        if fields.u32(32) != 0 {
            return Err(HeaderError::Encrypted);
        }
        if version == 3 {
            check_features(fields.u64(72))?;
        }
        let bits = fields.u32(20);
        if !(9..=21).contains(&bits) {
            return Err(HeaderError::Field("cluster size"));
        }
        let cluster = 1u32 << bits;
        check_tables(&fields, u64::from(cluster), len)?;
        Ok(Self {
            cluster,
            backing: backing(file, &fields, cluster)?,
        })
    }
}

fn check_features(bits: u64) -> Result<(), HeaderError> {
    if bits & CORRUPT != 0 {
        Err(HeaderError::Corrupt)
    } else if bits & DIRTY != 0 {
        Err(HeaderError::Dirty)
    } else if bits & EXTERNAL_DATA != 0 {
        Err(HeaderError::ExternalData)
    } else if bits != 0 {
        Err(HeaderError::Features(bits))
    } else {
        Ok(())
    }
}

/// The disk's size, and the tables that must lie in the file's `len` bytes.
fn check_tables(fields: &Fields<'_>, cluster: u64, len: u64) -> Result<(), HeaderError> {
    let size = fields.u64(24);
    if size > i64::MAX as u64 {
        return Err(HeaderError::Field("disk size"));
    }
    let inside = |offset: u64, bytes: u64| {
        offset.is_multiple_of(cluster) && offset.checked_add(bytes).is_some_and(|end| end <= len)
    };
    let l1 = u64::from(fields.u32(36)).saturating_mul(8);
    // An entry leads to a table of one cluster, whose entries lead to one cluster each.
    let reach = (l1 / 8).saturating_mul(cluster / 8).saturating_mul(cluster);
    if l1 > MAX_L1 || !inside(fields.u64(40), l1) || reach < size {
        return Err(HeaderError::Field("first-level table"));
    }
    let reftable = u64::from(fields.u32(56)).saturating_mul(cluster);
    if reftable == 0 || reftable > MAX_REFTABLE || !inside(fields.u64(48), reftable) {
        return Err(HeaderError::Field("refcount table"));
    }
    Ok(())
}

fn backing(file: &File, fields: &Fields<'_>, cluster: u32) -> Result<Option<String>, HeaderError> {
    let (offset, len) = (fields.u64(8), fields.u32(16));
    if offset == 0 {
        return Ok(None);
    }
    let end = offset.checked_add(u64::from(len));
    let inside = end.is_some_and(|end| end <= u64::from(cluster));
    if len == 0 || len > MAX_NAME || !inside {
        return Err(HeaderError::Field("backing file name"));
    }
    let mut name = vec![0; len as usize];
    file.read_exact_at(&mut name, offset)
        .map_err(HeaderError::Read)?;
    match String::from_utf8(name) {
        Ok(name) if !name.contains('\0') => Ok(Some(name)),
        _ => Err(HeaderError::Field("backing file name")),
    }
}

/// Big-endian fields at offsets within the header; 0 beyond it.
struct Fields<'a>(&'a [u8; LEN]);

impl Fields<'_> {
    fn u32(&self, at: usize) -> u32 {
        let rest = self.0.get(at..).unwrap_or_default();
        rest.first_chunk().map_or(0, |b| u32::from_be_bytes(*b))
    }

    fn u64(&self, at: usize) -> u64 {
        let rest = self.0.get(at..).unwrap_or_default();
        rest.first_chunk().map_or(0, |b| u64::from_be_bytes(*b))
    }
}
