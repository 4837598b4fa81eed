//! Leaf 0xD: what XSAVE saves, kept in step with the features that need it.

use super::Table;
use super::features::bits;
use super::mask::hide;

const LEAF: u32 = 0xd;
/// x87 and SSE are there wherever XSAVE is.
const ALWAYS: u64 = 0b11;
/// The legacy area and the header, which every area has.
const SMALLEST: u32 = 576;

/// State components and the feature that each is for (Intel SDM volume 1, 13.1).
const COMPONENTS: [(&str, &[u32]); 8] = [
    ("avx", &[2]),
    ("mpx", &[3, 4]),
    ("avx512f", &[5, 6, 7]),
    ("intel-pt", &[8]),
    ("pku", &[9]),
    ("shstk", &[11, 12]),
    ("ibt", &[11]),
    ("amx-tile", &[17, 18]),
];

/// Features that a guest cannot use unless XCR0 can hold their state.
const NEED_STATE: [&str; 5] = ["avx", "mpx", "avx512f", "pku", "amx-tile"];

/// Hides features whose state KVM will not keep (AMX, where this process may not use it), and
/// takes out the state components whose feature is not there (all, without XSAVE).
pub(super) fn agree_with_features(table: &mut Table) {
    hide_without_state(table);
    let has = |name| bits(name).any(|bit| table.has(bit));
    if !has("xsave") {
        return table.remove(LEAF);
    }
    let with_feature = COMPONENTS.iter().filter(|(name, _)| has(name));
    let wanted = with_feature
        .flat_map(|(_, components)| components.iter())
        .fold(ALWAYS, |mask, component| mask | 1 << component);
    table.0.retain(|entry| {
        entry.function != LEAF
            || entry.index < 2
            || wanted
                .checked_shr(entry.index)
                .is_some_and(|rest| rest & 1 == 1)
    });
    let (mut user, mut end) = (0, SMALLEST);
    if let Some(leaf) = table.get_mut(LEAF, 0) {
        leaf.eax &= wanted as u32;
        leaf.edx &= (wanted >> 32) as u32;
        user = leaf.eax;
    }
    if let Some(leaf) = table.get_mut(LEAF, 1) {
        leaf.ecx &= wanted as u32;
        leaf.edx &= (wanted >> 32) as u32;
    }
    for component in table.all_mut(LEAF).filter(|entry| entry.index >= 2) {
        if 1u32
            .checked_shl(component.index)
            .is_some_and(|bit| user & bit != 0)
        {
            end = end.max(component.eax.saturating_add(component.ebx));
        }
    }
    if let Some(leaf) = table.get_mut(LEAF, 0) {
        // ECX is for all components; EBX, for those switched on, KVM keeps up to date itself.
        leaf.ecx = end;
        leaf.ebx = end;
    }
}

fn hide_without_state(table: &mut Table) {
    let kept = table
        .get(LEAF, 0)
        .map_or(0, |leaf| u64::from(leaf.edx) << 32 | u64::from(leaf.eax));
    for (name, components) in COMPONENTS
        .iter()
        .filter(|(name, _)| NEED_STATE.contains(name))
    {
        if components
            .iter()
            .any(|component| kept & 1 << component == 0)
        {
            hide(table, name);
        }
    }
}
