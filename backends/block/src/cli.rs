//! The command line of `outboard-block`.

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use outboard_device::daemon::{self, Endpoint, LogArgs};

use crate::disk::{Disk, Settings};
use crate::engine::Kind;
use crate::image::{Format, Image, Options};

/// Serves a disk image to a virtual machine as a virtio block device, over vhost-user.
#[derive(Debug, Parser)]
#[command(
    name = "outboard-block",
    version,
    after_help = "Example, with any vhost-user frontend:\n  \
        truncate -s 10G disk.img\n  \
        outboard-block --socket /tmp/disk.sock --path disk.img --serial data-1"
)]
#[allow(clippy::struct_excessive_bools)] // switches are
pub struct Cli {
    /// Where the frontend comes from.
    #[command(flatten)]
    pub endpoint: Endpoint,

    /// The image: a regular file or a block device, locked while in use.
    #[arg(long, value_name = "FILE")]
    pub path: PathBuf,

    /// The image's format, raw or qcow2; by default from its suffix, never from its content.
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    pub format: Option<Format>,

    /// Refuse to write; other readers may share the image.
    #[arg(long)]
    pub readonly: bool,

    /// Open the files that a qcow2 image names as lying below it.
    #[arg(long)]
    pub backing: bool,

    /// Go past the host's page cache (`O_DIRECT`).
    #[arg(long)]
    pub direct: bool,

    /// Keep the space that the guest no longer needs: it cannot discard.
    #[arg(long)]
    pub no_discard: bool,

    /// The block size the guest is told to use, in bytes: 512 or 4096; by default the medium's.
    #[arg(long, value_name = "BYTES", value_parser = block_size)]
    pub block_size: Option<u32>,

    /// Serial number shown to the guest, at most 20 characters.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub serial: String,

    /// Number of request queues, each with a thread of its own.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = daemon::number(1..=64u16))]
    pub queues: u16,

    /// How what has to wait is run.
    #[arg(long, value_name = "KIND", default_value = "auto", hide = true)]
    pub engine: Kind,

    /// How much to say.
    #[command(flatten)]
    pub log: LogArgs,
}

impl Cli {
    /// Opens the image and makes the disk.
    pub fn disk(&self) -> Result<Disk, Box<dyn Error>> {
        let options = Options {
            format: self.format,
            readonly: self.readonly,
            direct: self.direct,
            backing: self.backing,
            block_size: self.block_size,
            keep_space: self.no_discard,
        };
        let image = Image::open(&self.path, &options)?;
        let settings = Settings {
            serial: &self.serial,
            queues: self.queues,
            engine: self.engine,
        };
        Ok(Disk::new(image, &settings)?)
    }
}

fn block_size(text: &str) -> Result<u32, &'static str> {
    match text {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err("choose 512 or 4096"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
