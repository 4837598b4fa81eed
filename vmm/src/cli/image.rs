//! `outboard image`: what is in a disk image.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use outboard::image::disk::{Taken, answer, take_kernel};

use super::manage::{Error, finish};
use super::say::{self, Output};

const EXAMPLES: &str = "\
Looks into / and /boot of every ext2, ext3 and ext4 filesystem of the image, on the whole disk or in \
GPT or MBR partitions, for vmlinuz-RELEASE with the highest release, and the initrd that goes with \
it. The image must be raw; qemu-img makes others so.

Example:
  qemu-img convert -O raw debian.qcow2 debian.raw
  outboard image kernel debian.raw --out boot
  outboard run --kernel boot/vmlinuz-6.1.0-50-amd64 \\
      --initrd boot/initrd.img-6.1.0-50-amd64 \\
      --cmdline 'console=ttyS0 root=/dev/vda1 rw' --disk path=debian.raw";

/// Takes what is needed out of disk images.
#[derive(Args)]
pub(super) struct Image {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Copy the newest kernel and its initrd into a folder, and print how to run them
    #[command(after_help = EXAMPLES)]
    Kernel {
        /// The raw disk image; it is only read
        image: PathBuf,
        /// The folder; it is made if it is missing, and files of the same names are replaced
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// For people, or for programs
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// The same in this process, with an answer in JSON
    #[command(hide = true)]
    KernelHere {
        /// The raw disk image
        image: PathBuf,
        /// The folder
        out: PathBuf,
    },
}

impl Image {
    pub(super) fn execute(self) -> ExitCode {
        let (image, out, output) = match self.verb {
            Verb::Kernel { image, out, output } => (image, out, output),
            Verb::KernelHere { image, out } => return here(&image, &out),
        };
        match take_kernel(&image, &out) {
            Ok(taken) => {
                if taken.root.is_none() {
                    say::complain(
                        "outboard: the root filesystem is none of those that can be read: put its \
                         partition in the place of ROOT (fdisk -l shows them)",
                    );
                }
                let line = |taken: &Taken| format!("{}\n", run_line(&image, taken));
                finish(output.of(&taken, line).map_err(Error::from))
            }
            Err(error) => {
                super::complain(&error);
                ExitCode::FAILURE
            }
        }
    }
}

/// Read by [`take_kernel`]: an answer on standard output, whatever it is.
fn here(image: &Path, out: &Path) -> ExitCode {
    match answer(image, out) {
        Ok(taken) => {
            let none = |_: &Taken| String::new();
            finish(Output::Json.of(&taken, none).map_err(Error::from))
        }
        Err(error) => say::answer(&super::chained(&error), ExitCode::FAILURE),
    }
}

/// The command that runs what was taken, for a shell.
fn run_line(image: &Path, taken: &Taken) -> String {
    let initrd = taken.initrd.as_ref();
    let initrd = initrd.map(|path| format!(" --initrd {}", quoted(&path.display().to_string())));
    let root = taken.root.as_deref().unwrap_or("/dev/vdaROOT");
    format!(
        "outboard run --kernel {}{} --cmdline 'console=ttyS0 root={root} rw' --disk {}",
        quoted(&taken.kernel.display().to_string()),
        initrd.unwrap_or_default(),
        // A comma in a value is written twice.
        quoted(&format!("path={}", image.display()).replace(',', ",,")),
    )
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:~,@%".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_survives_a_shell() {
        let taken = Taken {
            kernel: "my boot/vmlinuz-1".into(),
            initrd: Some("b/initrd-1".into()),
            root: Some("/dev/vda1".into()),
        };
        assert_eq!(
            run_line(Path::new("it's,mine.raw"), &taken),
            r"outboard run --kernel 'my boot/vmlinuz-1' --initrd b/initrd-1 --cmdline 'console=ttyS0 root=/dev/vda1 rw' --disk 'path=it'\''s,,mine.raw'"
        );
    }
}
