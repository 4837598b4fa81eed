//! Linux's `boot_params`, the "zero page" (Documentation/arch/x86/zero-page.rst and boot.rst).

use linux_loader::loader::bootparam;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::error::BootError;
use super::initrd::Initrd;
use super::memory_map::memory_map;
use crate::arch::x86_64::layout;

const SIZE: usize = 4096;

// Offsets in the zero page; those from 0x1f1 on are those of the setup header in a bzImage too.
const ACPI_RSDP_ADDR: usize = 0x070;
const EXT_RAMDISK_SIZE: usize = 0x0c4;
const E820_ENTRIES: usize = 0x1e8;
pub(super) const SETUP_HEADER: usize = 0x1f1;
const VID_MODE: usize = 0x1fa;
const BOOT_FLAG: usize = 0x1fe;
const HEADER: usize = 0x202;
const TYPE_OF_LOADER: usize = 0x210;
const LOADFLAGS: usize = 0x211;
const CODE32_START: usize = 0x214;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CMD_LINE_PTR: usize = 0x228;
const KERNEL_ALIGNMENT: usize = 0x230;
/// End of the room for a setup header: what follows belongs to other fields.
pub(super) const SETUP_HEADER_END: usize = 0x290;
const E820_TABLE: usize = 0x2d0;
const E820_ENTRY: usize = 20;

/// "No loader with a number of its own".
const LOADER_UNDEFINED: u8 = 0xff;
/// "Normal" video mode: leave it as it is.
const VID_MODE_NORMAL: u16 = 0xffff;
const LOADED_HIGH: u8 = 1 << 0;

/// A zero page being filled in.
pub(super) struct ZeroPage {
    bytes: Vec<u8>,
}

impl ZeroPage {
    /// For a bzImage: takes over the setup header, which begins at [`SETUP_HEADER`] in the image.
    pub(super) fn from_setup_header(header: &[u8]) -> Self {
        let mut page = Self {
            bytes: vec![0; SIZE],
        };
        let length = header.len().min(SETUP_HEADER_END - SETUP_HEADER);
        page.put(SETUP_HEADER, header.get(..length).unwrap_or_default());
        page
    }

    /// For an ELF kernel entered in long mode, which brings no setup header: the fields it reads.
    pub(super) fn for_elf() -> Self {
        let mut page = Self {
            bytes: vec![0; SIZE],
        };
        page.put(BOOT_FLAG, &0xaa55u16.to_le_bytes());
        page.put(HEADER, b"HdrS");
        page.put(KERNEL_ALIGNMENT, &0x100_0000u32.to_le_bytes());
        page
    }

    /// Fills in what the loader must tell and writes the page to [`layout::ZERO_PAGE`].
    ///
    /// `code` is where the kernel was loaded, below 4 GiB as is the initrd.
    pub(super) fn write(
        mut self,
        ram: &GuestMemoryMmap,
        code: u64,
        initrd: Option<Initrd>,
        rsdp: u64,
    ) -> Result<(), BootError> {
        let loadflags = self.bytes.get(LOADFLAGS).copied().unwrap_or(0) | LOADED_HIGH;
        self.put(TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
        self.put(LOADFLAGS, &[loadflags]);
        self.put(VID_MODE, &VID_MODE_NORMAL.to_le_bytes());
        self.put(CODE32_START, &(code as u32).to_le_bytes());
        self.put(CMD_LINE_PTR, &(layout::CMDLINE as u32).to_le_bytes());
        let Initrd { address, size } = initrd.unwrap_or(Initrd {
            address: 0,
            size: 0,
        });
        self.put(RAMDISK_IMAGE, &(address as u32).to_le_bytes());
        self.put(RAMDISK_SIZE, &(size as u32).to_le_bytes());
        self.put(EXT_RAMDISK_SIZE, &((size >> 32) as u32).to_le_bytes());
        self.put(ACPI_RSDP_ADDR, &rsdp.to_le_bytes());

        let map = memory_map(ram);
        let entries = map.len().min(bootparam::E820_MAX_ENTRIES_ZEROPAGE);
        self.put(E820_ENTRIES, &[entries as u8]);
        for (n, entry) in map.iter().take(entries).enumerate() {
            let at = E820_TABLE + n * E820_ENTRY;
            self.put(at, &entry.start.to_le_bytes());
            self.put(at + 8, &entry.size.to_le_bytes());
            self.put(at + 16, &(entry.kind as u32).to_le_bytes());
        }
        ram.write_slice(&self.bytes, GuestAddress(layout::ZERO_PAGE))
            .map_err(BootError::write("the zero page"))
    }

    /// Writes `value` at `offset`, both fixed in this file and inside the page.
    fn put(&mut self, offset: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(offset..offset + value.len()) {
            place.copy_from_slice(value);
        }
    }
}
