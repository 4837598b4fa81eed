//! The shape of the machine: one package, one thread a core, no more.

use super::Table;
use super::features::{CMP_LEGACY, HTT};

/// Level types of leaves 0xB and 0x1F (Intel SDM volume 2, CPUID), in ECX bits 15 to 8.
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

/// The table of the vCPU with APIC id `id` in a machine of `count`.
pub(super) fn describe(table: &Table, id: u32, count: u32) -> Table {
    let mut table = table.clone();
    let width = id_width(count);
    basic(&mut table, id, count, width);
    for leaf in [0xb, 0x1f] {
        if table.max_leaf() >= leaf {
            levels(&mut table, leaf, id, count, width);
        }
    }
    caches(&mut table, 4, width);
    // Intel keeps the core count with the caches; AMD's cache leaf has zeros there.
    for cache in table.all_mut(4).filter(|cache| cache.eax & 0x1f != 0) {
        cache.eax = cache.eax & !(0x3f << 26) | (((1 << width) - 1) & 0x3f) << 26;
    }
    if table.is_amd() {
        amd(&mut table, id, count, width);
    }
    table
}

/// How many bits of an APIC id tell `count` cores apart.
fn id_width(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

/// Leaf 1: the APIC id, and how many there can be in the package.
fn basic(table: &mut Table, id: u32, count: u32, width: u32) {
    if let Some(leaf) = table.get_mut(1, 0) {
        let ids = (1u32 << width).min(0xff);
        leaf.ebx = leaf.ebx & 0xffff | ids << 16 | id << 24;
        leaf.edx = if count > 1 {
            leaf.edx | HTT
        } else {
            leaf.edx & !HTT
        };
    }
}

/// Leaves 0xB and 0x1F: threads, then cores, then the end of the list.
fn levels(table: &mut Table, leaf: u32, id: u32, count: u32, width: u32) {
    table.remove(leaf);
    table.push(leaf, 0, [0, 1, LEVEL_THREAD, id]);
    table.push(leaf, 1, [width, count, 1 | LEVEL_CORE, id]);
    table.push(leaf, 2, [0, 0, 2, id]);
}

/// Leaves 4 and `0x8000_001D`: the first two levels are a core's own, the others everybody's.
fn caches(table: &mut Table, leaf: u32, width: u32) {
    for cache in table.all_mut(leaf).filter(|cache| cache.eax & 0x1f != 0) {
        let level = cache.eax >> 5 & 7;
        let sharing = if level >= 3 { (1 << width) - 1 } else { 0 };
        cache.eax = cache.eax & !(0xfff << 14) | sharing << 14;
    }
}

/// AMD's own leaves (AMD APM volume 3, appendix E.4).
fn amd(table: &mut Table, id: u32, count: u32, width: u32) {
    if let Some(leaf) = table.get_mut(0x8000_0001, 0) {
        leaf.ecx = if count > 1 {
            leaf.ecx | CMP_LEGACY
        } else {
            leaf.ecx & !CMP_LEGACY
        };
    }
    if let Some(leaf) = table.get_mut(0x8000_0008, 0) {
        // Bits 15 to 12: width of the core's id; 7 to 0: cores less one.
        leaf.ecx = leaf.ecx & !0xf0ff | width << 12 | count.saturating_sub(1) & 0xff;
    }
    caches(table, 0x8000_001d, width);
    if let Some(leaf) = table.get_mut(0x8000_001e, 0) {
        // APIC id; core id, one thread a core; node 0 of one.
        (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (id, id & 0xff, 0, 0);
    }
    // Says the same as leaf 0xB in more detail; without it, guests read leaf 0xB.
    table.remove(0x8000_0026);
}
