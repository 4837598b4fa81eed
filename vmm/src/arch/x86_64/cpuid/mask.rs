//! `--cpu host,-smap,+avx2`.

use super::features::{AMD_ALIASES, bits, dependents};
use super::{CpuidError, Table, names};
use crate::config::FeatureToggle;

/// Hides and demands features, with what cannot be without them.
pub(super) fn apply(table: &mut Table, toggles: &[FeatureToggle]) -> Result<(), CpuidError> {
    for toggle in toggles {
        let name = names::known(&toggle.name).ok_or_else(|| CpuidError::Unknown {
            name: toggle.name.clone(),
            near: names::near(&toggle.name),
        })?;
        if !toggle.on {
            hide(table, name);
        } else if !bits(name).any(|bit| table.has(bit)) {
            return Err(CpuidError::NotSupported {
                name: toggle.name.clone(),
            });
        }
    }
    if table.is_amd() {
        repeat_for_amd(table);
    }
    Ok(())
}

pub(super) fn hide(table: &mut Table, name: &str) {
    bits(name).for_each(|bit| table.clear(bit));
    dependents(name).for_each(|dependent| hide(table, dependent));
    // Leaves that describe nothing but the feature.
    match name {
        "svm" => table.remove(0x8000_000a),
        "intel-pt" => table.remove(0x14),
        "amx-tile" => [0x1d, 0x1e].into_iter().for_each(|leaf| table.remove(leaf)),
        _ => {}
    }
}

/// What is hidden in leaf 1 is hidden in its copy.
fn repeat_for_amd(table: &mut Table) {
    let basic = table.get(1, 0).map_or(u32::MAX, |leaf| leaf.edx);
    if let Some(extended) = table.get_mut(0x8000_0001, 0) {
        extended.edx &= basic | !AMD_ALIASES;
    }
}
