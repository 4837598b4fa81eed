//! The kit's own test: a sound device passes, and each fault of it fails the check that is there for it.

use super::reference::{Fault, registers};
use super::{Check, accesses, hostile, interrupts, resets};

mod sound {
    use super::*;
    crate::register_conformance!(registers(Fault::None));
}

macro_rules! caught {
    ($($name:ident: $fault:ident by $module:ident::$check:ident, $words:literal;)*) => {
        $(
            #[test]
            fn $name() {
                catches(Fault::$fault, $module::$check, $words);
            }
        )*
    };
}

fn catches(fault: Fault, check: Check, words: &str) {
    let why = check(&registers(fault).unwrap()).expect_err("a broken device passes");
    assert!(why.to_string().contains(words), "{fault:?}: {why}");
}

caught! {
    panics_at_the_end: PanicsAtTheEnd by accesses::answers_every_access, "has failed at a write of [0] at 0xf";
    hangs: Hangs by accesses::answers_every_access, "a read of 2 bytes at 0x0 has not returned";
    takes_any_width: TakesAnyWidth by accesses::drops_writes_of_other_widths, "a write of 2 bytes at 0x8";
    reads_write: ReadsWrite by accesses::reads_change_nothing, "reading made";
    shares: Shares by accesses::shares_nothing_with_another, "by what another device was told";
    speaks_first: SpeaksFirst by interrupts::keeps_quiet_at_first, "was told nothing";
    mute: Mute by interrupts::interrupts_when_told, "no interrupt comes";
    pulses: Pulses by interrupts::holds_its_line, "the line is low before it is lowered";
    sticks: Sticks by interrupts::holds_its_line, "the line is high after it was lowered";
    tires: Tires by interrupts::interrupts_again, "no interrupt comes";
    remembers: Remembers by resets::resets_to_power_on, "after a reset there is";
    goes_on: GoesOn by resets::forgets_what_was_under_way, "an interrupt comes after the reset";
    stays_down: StaysDown by resets::works_after_a_reset, "no interrupt comes";
    lingers: Lingers by resets::ends_at_any_moment, "destroying the device does not return";
    trusts: Trusts by hostile::survives_random_accesses, "has failed at a write of";
    needs: Needs by hostile::survives_without_memory, "has failed at a write of";
}
