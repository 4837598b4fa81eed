use proptest::prelude::*;

use super::*;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VLAN};

const OWN: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];
const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

const CTRL: u64 = bit(VIRTIO_NET_F_CTRL_VQ) | bit(VIRTIO_NET_F_CTRL_RX) | bit(VIRTIO_NET_F_MAC);
const VLAN: u64 = bit(VIRTIO_NET_F_CTRL_VQ) | bit(VIRTIO_NET_F_CTRL_VLAN);

fn own() -> Option<Mac> {
    "52:54:00:01:02:03".parse().ok()
}

fn plain(to: [u8; 6]) -> Vec<u8> {
    [&to[..], &OTHER, &[8, 0, 0x45, 0]].concat()
}

fn tagged(to: [u8; 6], tag: u16) -> Vec<u8> {
    [&to[..], &OTHER, &[0x81, 0], &tag.to_be_bytes()].concat()
}

/// Which of the card's own address, another one, a group and all pass.
fn passes(rules: &Rules) -> [bool; 4] {
    [OWN, OTHER, GROUP, BROADCAST].map(|to| rules.pass(&plain(to)))
}

#[test]
fn a_driver_that_cannot_ask_gets_everything() {
    for acked in [0, bit(VIRTIO_NET_F_MAC), CTRL & !bit(VIRTIO_NET_F_CTRL_VQ)] {
        let rules = Rules::agreed(acked, own());
        assert_eq!(passes(&rules), [true; 4]);
        assert!(rules.pass_all() && rules.pass(&tagged(OWN, 7)));
    }
}

#[test]
fn one_that_can_gets_what_is_its_own_until_it_asks() {
    let rules = Rules::agreed(CTRL, own());
    assert_eq!(passes(&rules), [true, false, false, true]);
    assert!(!rules.pass_all());
    // Which address it made up nobody has told.
    for rules in [
        Rules::agreed(CTRL, None),
        Rules::agreed(CTRL & !bit(VIRTIO_NET_F_MAC), own()),
    ] {
        assert_eq!(passes(&rules), [true, true, false, true]);
    }
}

#[test]
fn each_mode_does_what_its_name_says() {
    for (command, expected) in [
        (VIRTIO_NET_CTRL_RX_PROMISC, [true; 4]),
        (VIRTIO_NET_CTRL_RX_ALLMULTI, [true, false, true, true]),
        (VIRTIO_NET_CTRL_RX_ALLUNI, [true, true, false, true]),
        (VIRTIO_NET_CTRL_RX_NOMULTI, [true, false, false, true]),
        (VIRTIO_NET_CTRL_RX_NOUNI, [false, false, false, true]),
        (VIRTIO_NET_CTRL_RX_NOBCAST, [true, false, false, false]),
    ] {
        let mut rules = Rules::agreed(CTRL, own());
        rules.set_mode(command, true);
        assert_eq!(passes(&rules), expected, "{command}");
        rules.set_mode(command, false);
        assert_eq!(passes(&rules), [true, false, false, true], "{command} off");
    }
    let mut rules = Rules::agreed(CTRL, own());
    rules.set_mode(VIRTIO_NET_CTRL_RX_ALLMULTI, true);
    rules.set_mode(VIRTIO_NET_CTRL_RX_NOMULTI, true);
    assert_eq!(passes(&rules), [true, false, false, true], "no beats all");
}

#[test]
fn an_address_that_is_set_takes_the_place_of_the_cards() {
    let mut rules = Rules::agreed(CTRL, own());
    rules.assign("52:54:00:09:09:09".parse().unwrap());
    assert_eq!(passes(&rules), [false, true, false, true]);
}

#[test]
fn vlans_are_let_through_one_by_one() {
    let mut rules = Rules::agreed(VLAN, own());
    assert_eq!(passes(&rules), [true; 4], "what has no tag");
    assert!(rules.pass(&tagged(OWN, 0xe000)), "a priority, and no VLAN");
    assert!(!rules.pass(&tagged(OWN, 5)));
    assert!(rules.set_vlan(5, true) && rules.set_vlan(4095, true));
    assert!(rules.pass(&tagged(OWN, 0xf005)) && rules.pass(&tagged(OWN, 4095)));
    assert!(!rules.pass(&tagged(OWN, 6)) && !rules.pass(&tagged(OWN, 4094)));
    assert!(rules.set_vlan(5, false));
    assert!(!rules.pass(&tagged(OWN, 5)));
    assert!(!rules.set_vlan(4096, true) && !rules.set_vlan(u16::MAX, true));
    assert!(
        !Rules::agreed(CTRL, None).set_vlan(5, true),
        "not agreed on"
    );

    let mut rules = Rules::agreed(VLAN | CTRL, own());
    assert!(rules.set_vlan(5, true));
    assert!(rules.pass(&tagged(OWN, 5)) && !rules.pass(&tagged(OTHER, 5)));
}

proptest! {
    #[test]
    fn tables_hold_what_was_put_in(
        unicast: Vec<[u8; 6]>,
        multicast: Vec<[u8; 6]>,
        others: Vec<[u8; 6]>,
    ) {
        let mut rules = Rules::agreed(CTRL, own());
        rules.set_addresses(Addresses::new(unicast.clone()), Addresses::new(multicast.clone()));
        for to in unicast.iter().chain(&multicast).chain(&others) {
            let table = if to[0] & 1 == 0 { &unicast } else { &multicast };
            let expected = *to == OWN || *to == BROADCAST || table.contains(to);
            prop_assert_eq!(rules.pass(&plain(*to)), expected);
        }
        rules.set_addresses(Addresses::All, Addresses::All);
        prop_assert!(others.iter().all(|to| rules.pass(&plain(*to))));
    }

    #[test]
    fn any_head_is_harmless(acked: u64, modes: u8, head: Vec<u8>) {
        let mut rules = Rules::agreed(acked, own());
        for command in 0..40 {
            rules.set_mode(command, modes.rotate_left(command) & 1 != 0);
        }
        let _ = rules.pass(&head);
    }
}
