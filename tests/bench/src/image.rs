//! The image that block backends serve.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// Makes a file of that size and fills it, so that reads find data and writes need no space; one that is
/// there is taken as it is.
pub fn ensure(path: &Path, size: Bytes) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut file = File::create_new(path).map_err(Error::file("create", path))?;
    let mut piece = vec![0; 1 << 20];
    fastrand::Rng::with_seed(1).fill(&mut piece);
    let mut left = size.0;
    while left > 0 {
        let len = left.min(piece.len() as u64);
        let written = file.write_all(piece.get(..len as usize).unwrap_or(&piece));
        if let Err(source) = written {
            // Half an image would be taken for a whole one.
            let _ = std::fs::remove_file(path);
            return Err(Error::file("fill", path)(source));
        }
        left -= len;
    }
    file.sync_all().map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        ensure(&path, Bytes(3_000_000)).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 3_000_000);
        ensure(&path, Bytes(1)).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 3_000_000);
        assert!(ensure(Path::new("/proc/none"), Bytes(1)).is_err());
    }
}
