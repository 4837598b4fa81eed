//! What the VMM passes at the PVH entry.

/// `hvm_start_info` of Xen's public headers, as far as it is used.
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
}

const MAGIC: u32 = 0x336e_c578;

/// The kernel command line; empty if there is none.
pub fn command_line(start_info: u64) -> &'static str {
    let info = unsafe { &*(start_info as *const StartInfo) };
    assert!(info.magic == MAGIC, "EBX does not point at a start info");
    if info.command_line == 0 {
        return "";
    }
    let text = unsafe { core::ffi::CStr::from_ptr(info.command_line as *const core::ffi::c_char) };
    text.to_str().unwrap_or("")
}

/// The value of `key=` in a command line.
pub fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// A number on a command line, or its default.
pub fn number(line: &str, key: &str, default: u64) -> u64 {
    value(line, key).and_then(|text| text.parse().ok()).unwrap_or(default)
}
