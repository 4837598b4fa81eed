//! How a struct of the other side is taken in: by its size.
#![allow(unsafe_code)] // Copies structs from the other side of the ABI.

use std::mem::{MaybeUninit, offset_of, size_of};

use super::raw::*;

/// No struct of version 1 comes near this: a larger size is garbage.
const SIZE_MAX: u32 = 1 << 16;

/// A struct that begins with its size.
///
/// # Safety
/// `repr(C)`, a `u32` size first, and all zeroes is a valid value.
pub(crate) unsafe trait Sized32: Copy {
    /// Its size in version 1.0.
    const FIRST: u32;
    /// Its name in the header.
    const NAME: &'static str;

    /// All zeroes but for the size, which is this side's.
    fn zeroed() -> Self {
        // SAFETY: all zeroes is a valid value (the trait's contract).
        let mut value: Self = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: the size comes first and is a `u32`.
        unsafe {
            (&raw mut value)
                .cast::<u32>()
                .write(size_of::<Self>() as u32);
        };
        value
    }
}

/// A struct that is not what it says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// There is none.
    #[error("{0} is NULL")]
    Null(&'static str),
    /// It is too small for version 1.0, or too large for anything.
    #[error("{name} says it is {size} bytes; version 1.0 of it is {first}")]
    Size {
        /// The struct.
        name: &'static str,
        /// Its size as it says.
        size: u32,
        /// Its size in version 1.0.
        first: u32,
    },
}

/// Copies a struct of the other side: what it lacks is zero, what only it knows is left out.
///
/// # Safety
/// `from` is NULL, or points to at least as many readable bytes as its first four say.
pub(crate) unsafe fn adopt<T: Sized32>(from: *const T) -> Result<T, LayoutError> {
    if from.is_null() {
        return Err(LayoutError::Null(T::NAME));
    }
    // SAFETY: the size is there (contract).
    let size = unsafe { from.cast::<u32>().read_unaligned() };
    if size < T::FIRST || size > SIZE_MAX {
        return Err(LayoutError::Size {
            name: T::NAME,
            size,
            first: T::FIRST,
        });
    }
    let mut value = T::zeroed();
    let known = (size as usize).min(size_of::<T>());
    // SAFETY: `known` bytes are readable (contract) and fit; any bytes make a valid value, as far as
    // the other side keeps the ABI.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut value).cast(), known) };
    // SAFETY: the size comes first and is a `u32`.
    unsafe { (&raw mut value).cast::<u32>().write(known as u32) };
    Ok(value)
}

/// Copies an array of such structs, stepping by the size of the first.
///
/// # Safety
/// As for [`adopt`], for each of `count` elements.
pub(crate) unsafe fn adopt_all<T: Sized32>(
    first: *const T,
    count: usize,
) -> Result<Vec<T>, LayoutError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the first element is there (contract).
    let head = unsafe { adopt(first) }?;
    // SAFETY: as above; `adopt` has read the same size and found it sound.
    let step = unsafe { first.cast::<u32>().read_unaligned() } as usize;
    let mut all = vec![head];
    for n in 1..count {
        // SAFETY: within the array of `count` elements (contract).
        let element = unsafe { first.byte_add(n.wrapping_mul(step)) };
        // SAFETY: as above.
        all.push(unsafe { adopt(element) }?);
    }
    Ok(all)
}

/// The layout of version 1.0, for ever: where each field lies, and where the struct ended. The build
/// fails when one has moved. Appending fields is allowed; changing a line here is not.
macro_rules! frozen {
    ($($name:ident: $size:literal { $($field:ident: $offset:literal),* $(,)? })*) => {
        $(
            $(const _: () = assert!(offset_of!($name, $field) == $offset);)*
            const _: () = assert!(size_of::<$name>() >= $size);
        )*

        /// The same as C sees to it, for the end of the header.
        pub fn static_asserts() -> String {
            use std::fmt::Write;
            let mut text = String::new();
            $(
                let _ = writeln!(text, "_Static_assert(sizeof({0}) >= {1}, \"{0}\");", stringify!($name), $size);
                $(
                    let _ = writeln!(
                        text,
                        "_Static_assert(offsetof({0}, {1}) == {2}, \"{0}.{1}\");",
                        stringify!($name), stringify!($field), $offset,
                    );
                )*
            )*
            text
        }
    };
}

/// Those that begin with a size.
macro_rules! sized {
    ($($name:ident: $size:literal,)*) => {
        $(
            // SAFETY: `repr(C)` in `raw.rs`, the size first (asserted above), all else integers and
            // pointers.
            unsafe impl Sized32 for $name {
                const FIRST: u32 = $size;
                const NAME: &'static str = stringify!($name);
            }
        )*
    };
}

frozen! {
    OutboardStr: 16 { data: 0, len: 8 }
    OutboardSegment: 16 { base: 0, len: 8 }
    OutboardRequest: 32 { token: 0, segments: 8, readable: 16, writable: 20, queue: 24, head: 28 }
    OutboardCompletion: 16 { token: 0, written: 8, reserved: 12 }
    OutboardWatch: 8 { fd: 0, events: 4 }
    OutboardValue: 32 { number: 0, text: 8, set: 24, reserved: 28 }
    OutboardPlugin: 96 {
        size: 0, magic: 4, abi_major: 8, abi_minor: 12, required_minor: 16, reserved: 20, needs: 24,
        name: 32, version: 48, devices: 64, device_count: 72, init: 80, extension: 88,
    }
    OutboardHost: 40 { size: 0, abi_minor: 4, context: 8, log: 16, error: 24, extension: 32 }
    OutboardDevice: 104 {
        size: 0, kind: 4, virtio_id: 8, reserved: 12, name: 16, summary: 32, options: 48,
        option_count: 56, create: 64, destroy: 72, virtio: 80, registers: 88, extension: 96,
    }
    OutboardOption: 64 {
        size: 0, kind: 4, flags: 8, reserved: 12, name: 16, help: 32, default_value: 48,
    }
    OutboardServices: 64 {
        size: 0, reserved: 4, context: 8, config_changed: 16, failed: 24, set_line: 32,
        set_timer: 40, watch: 48, extension: 56,
    }
    OutboardVirtio: 80 {
        size: 0, reserved: 4, describe: 8, read_config: 16, write_config: 24, set_features: 32,
        start: 40, stop: 48, reset: 56, save: 64, restore: 72,
    }
    OutboardVirtioInfo: 40 {
        size: 0, config_len: 4, features: 8, groups: 16, group_count: 24, max_queue_size: 32,
        reserved: 36,
    }
    OutboardSink: 24 { size: 0, reserved: 4, context: 8, write: 16 }
    OutboardWorker: 64 {
        size: 0, reserved: 4, context: 8, watches: 16, watch_count: 24, run: 32, poll: 40,
        drain: 48, serve: 56,
    }
    OutboardReady: 24 { size: 0, flags: 4, queues: 8, watches: 16 }
    OutboardQueues: 72 {
        size: 0, count: 4, context: 8, take: 16, complete: 24, give_back: 32, set_kicks: 40,
        ring_size: 48, attend: 56, fd: 64, first: 68,
    }
    OutboardRegisters: 56 {
        size: 0, reserved: 4, describe: 8, read: 16, write: 24, reset: 32, timer: 40, ready: 48,
    }
    OutboardRegistersInfo: 32 { size: 0, space: 4, base: 8, len: 16, line: 24, reserved: 28 }
    OutboardGuestMemory: 32 { size: 0, reserved: 4, context: 8, read: 16, write: 24 }
}

sized! {
    OutboardPlugin: 96,
    OutboardHost: 40,
    OutboardDevice: 104,
    OutboardOption: 64,
    OutboardServices: 64,
    OutboardVirtio: 80,
    OutboardVirtioInfo: 40,
    OutboardSink: 24,
    OutboardWorker: 64,
    OutboardReady: 24,
    OutboardQueues: 72,
    OutboardRegisters: 56,
    OutboardRegistersInfo: 32,
    OutboardGuestMemory: 32,
}

/// Tables of a plugin are constant, so that every thread may read them.
macro_rules! shared {
    ($($name:ident)*) => {
        $(
            // SAFETY: integers and pointers; what may be done with those is said at each.
            unsafe impl Send for $name {}
            // SAFETY: as above.
            unsafe impl Sync for $name {}
        )*
    };
}

shared! {
    OutboardStr OutboardSegment OutboardRequest OutboardPlugin OutboardHost OutboardDevice OutboardOption OutboardServices
    OutboardVirtio OutboardWorker OutboardQueues OutboardRegisters OutboardGuestMemory
}

impl OutboardStr {
    /// No text.
    pub const NONE: Self = Self {
        data: std::ptr::null(),
        len: 0,
    };

    /// A Rust text, for as long as that lives.
    pub const fn new(text: &str) -> Self {
        Self {
            data: text.as_ptr().cast(),
            len: text.len(),
        }
    }

    /// A copy of the text, what is no UTF-8 in it replaced.
    ///
    /// # Safety
    /// It is as the ABI says: `len` bytes at `data`, or none.
    pub(crate) unsafe fn copied(self) -> String {
        if self.data.is_null() || self.len == 0 {
            return String::new();
        }
        // SAFETY: the contract.
        let bytes = unsafe { std::slice::from_raw_parts(self.data.cast::<u8>(), self.len) };
        String::from_utf8_lossy(bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    struct Later {
        first: OutboardHost,
        appended: [u64; 3],
    }

    #[test]
    fn a_smaller_struct_is_filled_up_and_a_larger_one_cut() {
        let mut host = OutboardHost::zeroed();
        host.abi_minor = 7;
        let later = Later {
            first: OutboardHost {
                size: size_of::<Later>() as u32,
                ..host
            },
            appended: [u64::MAX; 3],
        };
        // SAFETY: as large as it says.
        let cut = unsafe { adopt((&raw const later).cast::<OutboardHost>()) }.unwrap();
        assert_eq!((cut.size, cut.abi_minor), (40, 7));
        for size in [0, 8, 39, SIZE_MAX + 1] {
            let wrong = OutboardHost { size, ..host };
            // SAFETY: only the size is read of what is refused.
            let refused = unsafe { adopt(&raw const wrong) }.err();
            assert!(matches!(refused, Some(LayoutError::Size { .. })), "{size}");
        }
        // SAFETY: NULL is allowed.
        let none = unsafe { adopt::<OutboardHost>(std::ptr::null()) }.err();
        assert_eq!(none, Some(LayoutError::Null("OutboardHost")));
        assert!(later.appended[0] != 0);
    }

    #[test]
    fn an_array_is_stepped_through_by_its_own_size() {
        #[repr(C)]
        struct LaterOption(OutboardOption, u64);
        let option = |kind| {
            let mut option = OutboardOption::zeroed();
            option.kind = kind;
            option.size = size_of::<LaterOption>() as u32;
            LaterOption(option, u64::MAX)
        };
        let array = [option(1), option(2), option(3)];
        // SAFETY: three of their size.
        let all = unsafe { adopt_all(array.as_ptr().cast::<OutboardOption>(), 3) }.unwrap();
        let kinds: Vec<_> = all.iter().map(|option| option.kind).collect();
        assert_eq!(kinds, [1, 2, 3]);
        assert_eq!(array[2].1, u64::MAX);
    }
}
