//! Which format an image has: what the user said, else its suffix; never its content.
//!
//! A guest writes the content of a raw disk, so a format read from there is one the guest chose:
//! it could dress its disk up as a qcow2 image whose backing file is any file of the host.

use std::path::Path;

use clap::ValueEnum;

/// A disk image format, as `--format` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The bytes of the file are the bytes of the disk.
    Raw,
    /// QEMU's format: space as it is used, snapshots, files below.
    Qcow2,
}

impl Format {
    /// The format of the image at `path`: `asked` when given, else by the suffix.
    ///
    /// A suffix that says nothing means raw.
    pub fn of(asked: Option<Self>, path: &Path) -> Self {
        asked.unwrap_or_else(|| match path.extension() {
            Some(suffix) if suffix.eq_ignore_ascii_case("qcow2") => Self::Qcow2,
            _ => Self::Raw,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_decides_unless_told_otherwise() {
        assert_eq!(Format::of(None, Path::new("a.img")), Format::Raw);
        assert_eq!(Format::of(None, Path::new("a")), Format::Raw);
        assert_eq!(Format::of(None, Path::new("qcow2")), Format::Raw);
        assert_eq!(Format::of(None, Path::new("/x/a.qcow2")), Format::Qcow2);
        assert_eq!(Format::of(None, Path::new("a.QCOW2")), Format::Qcow2);
        assert_eq!(
            Format::of(Some(Format::Raw), Path::new("a.qcow2")),
            Format::Raw
        );
        assert_eq!(
            Format::of(Some(Format::Qcow2), Path::new("a.raw")),
            Format::Qcow2
        );
    }
}
