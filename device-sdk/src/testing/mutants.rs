//! The kit's own test: each fault of the reference device fails the check that is there for it.

use super::reference::{Fault, Reference};
use super::{
    Check, config, hostile, lifecycle, memory, negotiation, notification, packed, protocol, resets,
    rings, state,
};

macro_rules! caught {
    ($($name:ident: $fault:ident by $module:ident::$check:ident,)*) => {
        $(
            #[test]
            fn $name() {
                catches(Fault::$fault, $module::$check);
            }
        )*
    };
}

fn catches(fault: Fault, check: Check) {
    let mut device = Reference::new(fault);
    let outcome = check(&mut device).and_then(|()| super::Endpoint::check_alive(&mut device));
    assert!(outcome.is_err(), "a device with the fault {fault:?} passed");
}

caught! {
    offers_less: OffersLess by negotiation::offers_what_every_device_must,
    needs_event_idx: NeedsEventIdx by negotiation::works_with_every_subset_of_ring_features,
    waits_for_enable: WaitsForEnable by negotiation::works_with_fewer_protocol_features,
    takes_any_feature: TakesAnyFeature by negotiation::refuses_features_it_did_not_offer,
    refuses_reset: RefusesReset by negotiation::does_what_its_protocol_features_say,
    hangs_up: HangsUpOnUnknown by protocol::answers_unknown_requests_with_a_refusal,
    dies_on_malformed: DiesOnError by protocol::survives_malformed_messages,
    dies_on_half: DiesOnError by protocol::survives_half_a_message,
    panics_on_queue: PanicsOnQueue by protocol::survives_nonsense_about_queues,
    serves_once: ServesOnce by protocol::serves_one_connection_after_another,
    dies_with_connection: ServesOnce by resets::survives_disconnects_at_any_moment,
    config_ignores_offset: ConfigIgnoresOffset by config::reads_the_same_in_every_size,
    config_leaks: ConfigLeaks by config::has_bounds,
    stops_at_zero: StopsAtZero by lifecycle::stops_at_the_index_it_would_go_on_at,
    takes_one_more: TakesOneMore by lifecycle::loses_nothing_when_stopped_with_requests_in_flight,
    stops_all: StopsAll by lifecycle::stops_one_queue_while_others_run,
    loses_posted: TakesOneMore by lifecycle::gives_back_buffers_it_has_no_use_for_yet,
    keeps_all_memory: KeepsAllMemory by memory::forgets_memory_that_is_taken_away,
    starts_at_zero: StartsAtZero by lifecycle::starts_at_any_index,
    keeps_first_ring: KeepsFirstRing by lifecycle::starts_again_with_another_ring,
    ignores_enable: IgnoresEnable by lifecycle::does_nothing_before_enable,
    ignores_disable: IgnoresDisable by lifecycle::pauses_while_disabled,
    ignores_start: IgnoresStart by lifecycle::leaves_queues_alone_that_were_not_started,
    ignores_reset: IgnoresReset by resets::resets_at_any_moment,
    refuses_own_state: RefusesOwnState by state::goes_on_from_what_was_saved,
    tells_too_early: TellsTooEarly by state::goes_on_from_what_was_saved,
    panics_on_state: PanicsOnState by state::survives_damaged_state,
    keeps_first_memory: KeepsFirstMemory by memory::follows_memory_that_changes,
    tires: Tires by rings::answers_many_requests,
    one_each_kick: OneEachKick by rings::completes_batches,
    loses_last_slot: LosesLastSlot by rings::takes_full_rings_of_every_size,
    at_most_two: AtMostTwo by rings::makes_no_assumption_about_framing,
    no_indirect: NoIndirect by rings::follows_indirect_tables,
    one_region: OneRegion by memory::crosses_memory_regions,
    says_too_much: SaysTooMuch by rings::answers_many_requests,
    never_calls: NeverCalls by notification::calls_when_asked_by_flags,
    ignores_used_event: IgnoresUsedEvent by notification::calls_when_asked_by_event_index,
    always_calls: AlwaysCalls by notification::keeps_quiet_when_asked,
    asks_once: AsksOnce by notification::never_sleeps_over_a_request,
    keeps_first_call: KeepsFirstCall by notification::calls_a_replaced_eventfd,
    follows_loops: FollowsLoops by hostile::survives_loops,
    panics_on_index: PanicsOnIndex by hostile::survives_indices_out_of_range,
    panics_on_length: PanicsOnLength by hostile::survives_lengths_of_nothing_and_of_everything,
    panics_on_address: PanicsOnAddress by hostile::survives_addresses_outside_memory,
    panics_on_table: PanicsOnTable by hostile::survives_bad_indirect_tables,
    panics_on_jump: PanicsOnJump by hostile::survives_jumps_of_the_available_index,
    panics_on_ring: PanicsOnRing by hostile::survives_rings_outside_memory,
    panics_on_random: PanicsOnIndex by hostile::survives_random_rings,
    keeps_wrap: KeepsWrap by packed::serves_packed_rings,
    panics_on_packed: PanicsOnAddress by packed::survives_packed_rings_of_nonsense,
}
