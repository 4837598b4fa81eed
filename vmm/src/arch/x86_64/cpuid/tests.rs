//! Hosts' tables, made into guests'.

use super::features::Register::{Eax, Ebx, Ecx, Edx};
use super::*;

fn parse(text: &str) -> Vec<Entry> {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| {
            let n: Vec<_> = line
                .split_whitespace()
                .map(|n| u32::from_str_radix(n, 16).unwrap())
                .collect();
            let [function, index, flags, eax, ebx, ecx, edx] = n[..] else {
                panic!("{line}")
            };
            Entry {
                function,
                index,
                flags,
                eax,
                ebx,
                ecx,
                edx,
                ..Entry::default()
            }
        })
        .collect()
}

fn intel() -> Vec<Entry> {
    parse(include_str!("testdata/intel-sapphire-rapids-amx.txt"))
}

fn amd() -> Vec<Entry> {
    parse(include_str!("testdata/amd-milan.txt"))
}

fn qemu() -> Vec<Entry> {
    parse(include_str!("testdata/amd-qemu-max.txt"))
}

fn pvm() -> Vec<Entry> {
    parse(include_str!("testdata/intel-granite-rapids-pvm.txt"))
}

fn toggles(text: &str) -> Vec<FeatureToggle> {
    text.split_whitespace()
        .map(|word| FeatureToggle {
            name: word[1..].to_owned(),
            on: word.starts_with('+'),
        })
        .collect()
}

/// The table of vCPU `id` of `count`.
fn guest(host: &[Entry], id: usize, count: u32, cpu: &str) -> Table {
    Table(
        tables(host, count, &toggles(cpu), true)
            .unwrap()
            .swap_remove(id),
    )
}

fn leaf(table: &Table, leaf: u32, index: u32) -> [u32; 4] {
    table
        .get(leaf, index)
        .map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
}

#[test]
fn every_guest_is_told_that_it_is_one() {
    for host in [intel(), amd(), qemu(), pvm()] {
        let table = guest(&host, 0, 1, "");
        let [_, _, ecx, _] = leaf(&table, 1, 0);
        assert_eq!(ecx >> 31, 1, "hypervisor");
        assert_eq!(ecx >> 24 & 1, 1, "TSC deadline");
        assert_eq!(ecx >> 27 & 1, 0, "OSXSAVE is KVM's to set");
        assert_eq!(
            leaf(&table, 0x4000_0000, 0)[1..],
            [0x4b4d_564b, 0x564b_4d56, 0x4d]
        );
        assert_eq!(
            leaf(&table, 0x4000_0001, 0)[0] & 0b1001,
            0b1001,
            "kvm-clock"
        );
    }
}

#[test]
fn a_missing_deadline_timer_is_not_promised() {
    let mut host = amd();
    host.iter_mut().find(|e| e.function == 1).unwrap().ecx &= !features::TSC_DEADLINE;
    let table = Table(tables(&host, 1, &[], false).unwrap().remove(0));
    assert_eq!(leaf(&table, 1, 0)[2] & features::TSC_DEADLINE, 0);
}

#[test]
fn each_vcpu_has_its_apic_id_in_every_leaf() {
    for host in [intel(), amd()] {
        for id in 0..6 {
            let table = guest(&host, id, 6, "");
            let id = id as u32;
            assert_eq!(leaf(&table, 1, 0)[1] >> 24, id);
            assert_eq!(leaf(&table, 1, 0)[1] >> 16 & 0xff, 8, "room for 8 ids");
            for index in 0..3 {
                assert_eq!(leaf(&table, 0xb, index)[3], id);
            }
        }
    }
    assert_eq!(leaf(&guest(&intel(), 5, 6, ""), 0x1f, 1)[3], 5);
    assert_eq!(leaf(&guest(&amd(), 5, 6, ""), 0x8000_001e, 0), [5, 5, 0, 0]);
}

#[test]
fn leaf_b_and_1f_list_threads_then_cores() {
    for n in [0xb, 0x1f] {
        let table = guest(&intel(), 0, 6, "");
        assert_eq!(leaf(&table, n, 0), [0, 1, 0x100, 0]);
        assert_eq!(leaf(&table, n, 1), [3, 6, 0x201, 0]);
        assert_eq!(leaf(&table, n, 2), [0, 0, 2, 0]);
        assert!(table.get(n, 3).is_none());
    }
    let one = guest(&intel(), 0, 1, "");
    assert_eq!(leaf(&one, 0xb, 1), [0, 1, 0x201, 0]);
    assert_eq!(leaf(&one, 1, 0)[3] & features::HTT, 0);
    // AMD's maximum is 0x10: a leaf above it would be an answer nobody may ask for.
    assert!(guest(&amd(), 0, 2, "").get(0x1f, 0).is_none());
}

#[test]
fn caches_are_shared_by_the_guests_cores_and_not_the_hosts() {
    let table = guest(&intel(), 0, 4, "");
    let sharing = |index| leaf(&table, 4, index)[0] >> 14 & 0xfff;
    assert_eq!([0, 1, 2, 3].map(sharing), [0, 0, 0, 3]);
    assert_eq!(leaf(&table, 4, 0)[0] >> 26, 3, "cores less one");
    assert_eq!(
        leaf(&table, 4, 3)[1..],
        [0x0380_003f, 0x0001_bfff, 4],
        "its shape stays"
    );
    assert_eq!(leaf(&table, 4, 4), [0; 4], "the end of the list stays");

    let table = guest(&amd(), 0, 4, "");
    let sharing = |index| leaf(&table, 0x8000_001d, index)[0] >> 14 & 0xfff;
    assert_eq!([0, 1, 2, 3].map(sharing), [0, 0, 0, 3]);
}

#[test]
fn amd_counts_its_cores_in_its_own_leaves() {
    let table = guest(&amd(), 3, 4, "");
    let [eax, _, ecx, _] = leaf(&table, 0x8000_0008, 0);
    assert_eq!((ecx & 0xff, ecx >> 12 & 0xf), (3, 2));
    assert_eq!(eax & 0xff, 48, "address bits are the host's");
    assert_eq!(
        leaf(&table, 0x8000_0001, 0)[2] & features::CMP_LEGACY,
        features::CMP_LEGACY
    );
    let table = guest(&amd(), 0, 1, "");
    assert_eq!(leaf(&table, 0x8000_0001, 0)[2] & features::CMP_LEGACY, 0);
}

#[test]
fn amx_state_is_kept_whole_or_taken_whole() {
    let table = guest(&intel(), 0, 1, "");
    assert_eq!(leaf(&table, 0xd, 0), [0x602e7, 0x2b00, 0x2b00, 0]);
    assert_eq!(leaf(&table, 0xd, 18), [0x2000, 0xb00, 6, 0]);
    assert_eq!(leaf(&table, 0x1d, 1), [0x0400_2000, 0x0008_0040, 0x10, 0]);

    let table = guest(&intel(), 0, 1, "-amx-tile");
    assert_eq!(leaf(&table, 0xd, 0), [0x2e7, 0xa88, 0xa88, 0]);
    for gone in [(0xd, 17), (0xd, 18), (0x1d, 0), (0x1e, 0)] {
        assert!(table.get(gone.0, gone.1).is_none(), "{gone:x?}");
    }
    assert_eq!(
        leaf(&table, 7, 0)[3] >> 22 & 0b1101,
        0,
        "amx-bf16, amx-tile, amx-int8"
    );
}

#[test]
fn amx_without_permission_is_no_amx() {
    // What KVM says to a process that may not use AMX: the feature, but not its state.
    let mut host = intel();
    host.retain(|e| e.function != 0xd || !matches!(e.index, 17 | 18));
    host.iter_mut()
        .find(|e| e.function == 0xd && e.index == 0)
        .unwrap()
        .eax = 0x2e7;
    let table = guest(&host, 0, 1, "");
    assert_eq!(
        leaf(&table, 7, 0)[3] >> 22 & 0b1101,
        0,
        "amx-bf16, amx-tile, amx-int8"
    );
    assert!(table.get(0x1d, 1).is_none());
    assert_eq!(leaf(&table, 0xd, 0)[0], 0x2e7);
}

#[test]
fn no_leaf_lies_beyond_the_maximum_that_is_told() {
    for host in [intel(), amd(), qemu(), pvm()] {
        let table = guest(&host, 1, 2, "");
        for range in [0, 0x4000_0000, 0x8000_0000] {
            let max = leaf(&table, range, 0)[0];
            let beyond = |e: &&Entry| e.function & 0xf000_0000 == range && e.function > max;
            assert_eq!(table.0.iter().find(beyond), None, "{range:x}");
        }
        let mut leaves: Vec<_> = table.0.iter().map(|e| (e.function, e.index)).collect();
        leaves.sort_unstable();
        assert!(
            leaves.windows(2).all(|pair| pair[0] != pair[1]),
            "a leaf twice"
        );
    }
}

#[test]
fn hiding_xsave_hides_all_that_needs_it() {
    for host in [intel(), amd()] {
        let table = guest(&host, 0, 1, "-xsave");
        let has = |name| features::bits(name).any(|bit| table.has(bit));
        for name in [
            "xsave",
            "avx",
            "avx2",
            "fma",
            "avx512f",
            "avx512vbmi",
            "pku",
            "vaes",
            "xsaves",
        ] {
            assert!(!has(name), "{name}");
        }
        assert!(table.get(0xd, 0).is_none());
        assert!(has("sse4.2") && has("aes"));
    }
}

#[test]
fn avx512_goes_and_avx2_stays() {
    let table = guest(&intel(), 0, 1, "-avx512f -smap");
    let has = |name| features::bits(name).any(|bit| table.has(bit));
    assert!(!has("avx512f") && !has("avx512bw") && !has("avx512-fp16") && !has("smap"));
    assert!(has("avx2") && has("smep"));
    // The AVX-512 components go; AMX, whose place is fixed, still ends where it did.
    assert_eq!(leaf(&table, 0xd, 0), [0x60207, 0x2b00, 0x2b00, 0]);
}

#[test]
fn what_amd_says_twice_is_hidden_twice() {
    let mmx = 1 << 23;
    assert_ne!(leaf(&guest(&amd(), 0, 1, ""), 0x8000_0001, 0)[3] & mmx, 0);
    let table = guest(&amd(), 0, 1, "-mmx");
    assert_eq!(
        (leaf(&table, 1, 0)[3] | leaf(&table, 0x8000_0001, 0)[3]) & mmx,
        0
    );
    assert_ne!(
        leaf(&table, 0x8000_0001, 0)[3] & 1 << 29,
        0,
        "long mode has no copy"
    );
}

#[test]
fn sgx_is_never_offered_and_svm_goes_with_its_leaf() {
    let table = guest(&intel(), 0, 1, "");
    assert_eq!(
        (leaf(&table, 7, 0)[1] & features::SGX, leaf(&table, 0x12, 0)),
        (0, [0; 4])
    );
    let table = guest(&amd(), 0, 1, "-svm");
    assert!(table.get(0x8000_000a, 0).is_none());
}

#[test]
fn wrong_names_and_wishes_are_errors_that_help() {
    let unknown = tables(&intel(), 1, &toggles("-smpa"), true).unwrap_err();
    assert!(unknown.to_string().contains("'smpa'"), "{unknown}");
    assert!(
        unknown.to_string().contains("did you mean smap"),
        "{unknown}"
    );
    let unknown = tables(&intel(), 1, &toggles("-warp-drive"), true).unwrap_err();
    assert!(unknown.to_string().contains("QEMU"), "{unknown}");
    let wish = tables(&amd(), 1, &toggles("+avx512f"), true).unwrap_err();
    assert_eq!(
        wish,
        CpuidError::NotSupported {
            name: "avx512f".into()
        }
    );
    assert!(tables(&intel(), 1, &toggles("+avx512f -hle"), true).is_ok());
}

#[test]
fn the_names_table_is_sound() {
    for (word, names) in features::WORDS {
        assert!(names.split_whitespace().count() <= 32, "{word:?}");
    }
    for (needed, dependents) in features::NEEDED_BY {
        for name in dependents.split_whitespace().chain([needed]) {
            assert!(features::bits(name).next().is_some(), "{name}");
        }
    }
    // A few places by the manuals, lest a name has slipped.
    let bit = |name| {
        features::bits(name)
            .next()
            .map(|(word, bit)| (word.leaf, word.register, bit))
    };
    assert_eq!(bit("pbe"), Some((1, Edx, 31)));
    assert_eq!(bit("hypervisor"), Some((1, Ecx, 31)));
    assert_eq!(bit("xsave"), Some((1, Ecx, 26)));
    assert_eq!(bit("smap"), Some((7, Ebx, 20)));
    assert_eq!(bit("avx512vl"), Some((7, Ebx, 31)));
    assert_eq!(bit("pku"), Some((7, Ecx, 3)));
    assert_eq!(bit("la57"), Some((7, Ecx, 16)));
    assert_eq!(bit("rdpid"), Some((7, Ecx, 22)));
    assert_eq!(bit("amx-tile"), Some((7, Edx, 24)));
    assert_eq!(bit("ssbd"), Some((7, Edx, 31)));
    assert_eq!(bit("lam"), Some((7, Eax, 26)));
    assert_eq!(bit("3dnow"), Some((0x8000_0001, Edx, 31)));
    assert_eq!(bit("lm"), Some((0x8000_0001, Edx, 29)));
    assert_eq!(bit("topoext"), Some((0x8000_0001, Ecx, 22)));
    assert_eq!(bit("amd-psfd"), Some((0x8000_0008, Ebx, 28)));
    assert_eq!(bit("vnmi"), Some((0x8000_000a, Edx, 25)));
    assert_eq!(bit("kvmclock-stable-bit"), Some((0x4000_0001, Eax, 24)));
}
