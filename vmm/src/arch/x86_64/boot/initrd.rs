//! The initrd and the command line: what every protocol hands over besides the kernel.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::error::BootError;
use super::{Image, image_size};
use crate::arch::x86_64::layout;

/// An initrd in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Initrd {
    pub(super) address: u64,
    pub(super) size: u64,
}

/// Puts the initrd at the top of `floor..ceiling`, on a page boundary. `None` if there is none, or
/// if it is empty.
pub(super) fn load_initrd<I: Image>(
    ram: &GuestMemoryMmap,
    initrd: Option<&mut I>,
    floor: u64,
    ceiling: u64,
) -> Result<Option<Initrd>, BootError> {
    let Some(initrd) = initrd else {
        return Ok(None);
    };
    let size = image_size(initrd).map_err(|error| match error {
        BootError::ReadKernel(source) => BootError::ReadInitrd(source),
        other => other,
    })?;
    if size == 0 {
        return Ok(None);
    }
    let address = ceiling
        .checked_sub(size)
        .map(|address| address & !0xfff)
        .filter(|&address| address >= floor)
        .ok_or(BootError::InitrdTooLarge {
            size,
            available: ceiling.saturating_sub(floor),
        })?;
    ram.read_exact_volatile_from(GuestAddress(address), initrd, size as usize)
        .map_err(BootError::write("the initrd"))?;
    Ok(Some(Initrd { address, size }))
}

/// Puts the zero-terminated command line at [`layout::CMDLINE`]. `kernel_max` is the most bytes the
/// kernel takes, without the terminating zero.
pub(super) fn write_cmdline(
    ram: &GuestMemoryMmap,
    cmdline: &str,
    kernel_max: usize,
) -> Result<(), BootError> {
    let max = kernel_max.min(layout::CMDLINE_MAX - 1);
    if cmdline.len() > max {
        return Err(BootError::CmdlineTooLong {
            length: cmdline.len(),
            max,
        });
    }
    if cmdline.contains('\0') {
        return Err(BootError::CmdlineZero);
    }
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    ram.write_slice(&bytes, GuestAddress(layout::CMDLINE))
        .map_err(BootError::write("the command line"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn ram() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap()
    }

    #[test]
    fn initrd_ends_at_the_last_page_below_the_ceiling() {
        let ram = ram();
        let mut image = Cursor::new(vec![7u8; 5000]);
        let initrd = load_initrd(&ram, Some(&mut image), 1 << 20, 4 << 20)
            .unwrap()
            .unwrap();
        assert_eq!(
            initrd,
            Initrd {
                address: (4 << 20) - 8192,
                size: 5000
            }
        );
        assert_eq!(
            ram.read_obj::<u8>(GuestAddress(initrd.address + 4999))
                .unwrap(),
            7
        );
        assert_eq!(
            ram.read_obj::<u8>(GuestAddress(initrd.address + 5000))
                .unwrap(),
            0
        );
    }

    #[test]
    fn initrd_that_does_not_fit_is_an_error_with_both_sizes() {
        let mut image = Cursor::new(vec![0u8; 8193]);
        let error = load_initrd(&ram(), Some(&mut image), (4 << 20) - 8192, 4 << 20).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("8193 bytes do not fit: 8192 bytes"),
            "{error}"
        );
    }

    #[test]
    fn empty_initrd_counts_as_none() {
        let mut image = Cursor::new(vec![]);
        assert_eq!(
            load_initrd(&ram(), Some(&mut image), 0, 4 << 20).unwrap(),
            None
        );
    }

    #[test]
    fn cmdline_limits() {
        let ram = ram();
        write_cmdline(&ram, "quiet", 5).unwrap();
        assert_eq!(
            ram.read_obj::<[u8; 6]>(GuestAddress(layout::CMDLINE))
                .unwrap(),
            *b"quiet\0"
        );
        assert!(matches!(
            write_cmdline(&ram, "quiet", 4),
            Err(BootError::CmdlineTooLong { length: 5, max: 4 })
        ));
        assert!(matches!(
            write_cmdline(&ram, "a\0b", 100),
            Err(BootError::CmdlineZero)
        ));
    }
}
