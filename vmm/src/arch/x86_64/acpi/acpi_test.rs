use std::process::Command;

use super::*;

fn machine(cpus: u32) -> Machine {
    Machine {
        apic_ids: (0..cpus).collect(),
        mmio64: 4 << 30..68 << 30,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The table at `address`, with its length and checksum checked.
fn table(area: &[u8], address: u64) -> &[u8] {
    let at = (address - layout::ACPI_TABLES.start) as usize;
    let length = u32_at(area, at + 4) as usize;
    let table = &area[at..at + length];
    assert_eq!(
        sum(table),
        0,
        "checksum of {:?}",
        str::from_utf8(&table[..4])
    );
    table
}

/// The tables that the XSDT lists, and the DSDT.
fn tables(area: &[u8]) -> Vec<&[u8]> {
    let xsdt = table(area, u64_at(area, 24));
    assert_eq!(&xsdt[..4], b"XSDT");
    let mut all: Vec<_> = xsdt[36..]
        .chunks(8)
        .map(|entry| table(area, u64_at(entry, 0)))
        .collect();
    all.push(table(area, u64_at(all[0], 140)));
    all
}

#[test]
fn every_table_is_reached_from_the_rsdp_and_sums_to_zero() {
    let (rsdp, area) = build(&machine(4));
    assert_eq!(rsdp, 0xe_0000);
    assert_eq!(&area[..8], b"RSD PTR ");
    assert_eq!(sum(&area[..20]), 0);
    assert_eq!(sum(&area[..36]), 0);
    let names: Vec<_> = tables(&area)
        .iter()
        .map(|t| str::from_utf8(&t[..4]).unwrap())
        .collect();
    assert_eq!(names, ["FACP", "APIC", "MCFG", "DSDT"]);
}

#[test]
fn fadt_points_at_the_chipsets_registers() {
    let (_, area) = build(&machine(1));
    let fadt = tables(&area)[0];
    let facs = u32_at(fadt, 36);
    assert_eq!(facs % 64, 0);
    assert_eq!(&area[(facs - 0xe_0000) as usize..][..4], b"FACS");
    assert_eq!(u64::from(u32_at(fadt, 40)), u64_at(fadt, 140));
    assert_eq!(fadt[46], 9, "SCI");
    assert_eq!(u32_at(fadt, 48), 0, "no SMI command port");
    assert_eq!(
        [56, 64, 76, 80].map(|at| u32_at(fadt, at)),
        [0x600, 0x604, 0x608, 0x620]
    );
    assert_eq!([88, 89, 91, 92].map(|at| fadt[at]), [4, 2, 4, 4]);
    assert_eq!(fadt[108], 0x32, "century");
    let flags = u32_at(fadt, 112);
    assert_eq!(flags & 1 << 20, 0, "not hardware-reduced");
    assert_ne!(flags & 1 << 10, 0, "reset register");
    assert_eq!((u64_at(fadt, 120), fadt[128]), (0xcf9, 6));
}

#[test]
fn madt_lists_each_cpu_once_and_the_overrides() {
    let (_, area) = build(&Machine {
        apic_ids: vec![0, 1, 300],
        ..machine(0)
    });
    let madt = tables(&area)[1];
    let mut entries = Vec::new();
    let mut rest = &madt[44..];
    while let [kind, length, ..] = *rest {
        entries.push((kind, &rest[..length.into()]));
        rest = &rest[length.into()..];
    }
    let of = |kind| {
        entries
            .iter()
            .filter(move |e| e.0 == kind)
            .map(|e| e.1)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of(0),
        [&[0, 8, 0, 0, 1, 0, 0, 0][..], &[0, 8, 1, 1, 1, 0, 0, 0]]
    );
    assert_eq!(u32_at(of(9)[0], 4), 300);
    assert_eq!(u32_at(of(1)[0], 4), 0xfec0_0000);
    assert_eq!(
        of(2),
        [
            &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0][..],
            &[2, 10, 0, 9, 9, 0, 0, 0, 13, 0]
        ]
    );
}

#[test]
fn mcfg_names_the_ecam() {
    let (_, area) = build(&machine(1));
    let mcfg = tables(&area)[2];
    assert_eq!(u64_at(mcfg, 44), layout::ECAM.start);
    assert_eq!(&mcfg[52..56], [0, 0, 0, 0xff]);
}

#[test]
fn many_cpus_fit_and_too_many_are_an_error() {
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
    assert_eq!(write_tables(&ram, &machine(1024)).unwrap(), 0xe_0000);
    let error = write_tables(&ram, &machine(4000)).unwrap_err();
    assert!(error.to_string().contains("4000 CPUs"), "{error}");
}

/// Disassembles the DSDT with ACPICA's compiler and compiles the result again: both without a
/// warning, and with the objects a kernel looks for in it.
#[test]
fn dsdt_disassembles_and_compiles_without_a_complaint() {
    if Command::new("iasl").arg("-v").output().is_err() {
        eprintln!("SKIPPED: no iasl; install acpica-tools to check the DSDT");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let iasl = |arguments: &[&str]| {
        let output = Command::new("iasl")
            .args(arguments)
            .current_dir(&folder)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "{text}");
        text
    };
    for mmio64 in [4 << 30..68 << 30, 0..0] {
        let (_, area) = build(&Machine {
            mmio64,
            ..machine(2)
        });
        std::fs::write(folder.path().join("dsdt.aml"), tables(&area)[3]).unwrap();
        iasl(&["-d", "dsdt.aml"]);
        let source = std::fs::read_to_string(folder.path().join("dsdt.dsl")).unwrap();
        for object in [
            "_S5",
            "_PRT",
            "_CRS",
            "PNP0A08",
            "_SUN, 0x1F",
            "_EJ0, 1",
            "_E01",
            "PNP0501",
        ] {
            assert!(source.contains(object), "no {object} in {source}");
        }
        let compiled = iasl(&["-ve", "dsdt.dsl"]);
        assert!(
            !compiled.contains("Error ") && !compiled.contains("Warning "),
            "{compiled}"
        );
    }
    for (name, index) in [("facp", 0), ("apic", 1), ("mcfg", 2)] {
        let (_, area) = build(&machine(2));
        std::fs::write(
            folder.path().join(format!("{name}.aml")),
            tables(&area)[index],
        )
        .unwrap();
        iasl(&["-d", &format!("{name}.aml")]);
    }
}
