//! A few bytes of machine code on this machine's KVM.
//!
//! Where `/dev/kvm` cannot be used these tests say so on standard error and pass.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvm_ioctls::Kvm;
use vm_memory::{Bytes, GuestAddress};

use super::{OnStop, Platform, Routes, Stop, Vcpus, Vm, open};
use crate::arch::x86_64::boot::{EntryMode, EntryState};
use crate::bus::{Bus, BusDevice};
use crate::config::MemoryConfig;
use crate::memory::GuestRam;

/// Where the code of the first vCPU is.
const CODE: u64 = 0x1000;
/// Where a started vCPU begins: page 8 of SIPI.
const AP_CODE: u64 = 0x8000;
const WAIT: Duration = Duration::from_secs(20);

/// A port that passes on what is written to it.
struct Port(Mutex<Sender<u8>>);

impl BusDevice for Port {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(b'r');
    }

    fn write(&self, _: u64, data: &[u8]) {
        for &byte in data {
            assert_ne!(byte, b'!', "as the test wants");
            self.0.lock().unwrap().send(byte).unwrap();
        }
    }
}

/// A register that takes its time, so that a vCPU is nearly always in the middle of a read.
struct Slow;

impl BusDevice for Slow {
    fn read(&self, _: u64, data: &mut [u8]) {
        std::thread::sleep(Duration::from_millis(2));
        data.fill(0x5a);
    }

    fn write(&self, _: u64, _: &[u8]) {}
}

struct Guest {
    vcpus: Vcpus,
    output: Receiver<u8>,
    stops: Receiver<(u32, Stop)>,
    _vm: Arc<Vm>,
}

impl Guest {
    /// A guest at `code` in 32-bit protected mode, or `None` where there is no KVM.
    fn start(cpus: u32, code: &[u8], ap_code: &[u8]) -> Option<Self> {
        let kvm = kvm()?;
        let config = MemoryConfig {
            size: 32 << 20,
            hugepages: false,
            prefault: false,
        };
        let ram = Arc::new(GuestRam::new(&config).unwrap());
        ram.mmap().write_slice(code, GuestAddress(CODE)).unwrap();
        ram.mmap()
            .write_slice(ap_code, GuestAddress(AP_CODE))
            .unwrap();
        ram.mmap()
            .write_slice(b"hello", GuestAddress(0x2000))
            .unwrap();
        let vm = Vm::new(&kvm, &ram, true).unwrap();
        Routes::new(&vm).unwrap();

        let (ports, mmio) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
        let (written, output) = channel();
        ports
            .insert(0x3f8, 8, Arc::new(Port(Mutex::new(written))))
            .unwrap();
        mmio.insert(0xd000_0000, 4, Arc::new(Slow)).unwrap();
        let (stopped, stops) = channel();
        let stopped = Mutex::new(stopped);
        let on_stop: OnStop =
            Arc::new(move |vcpu, stop| stopped.lock().unwrap().send((vcpu, stop)).unwrap());
        let supported = kvm
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .unwrap();
        let cpuids = vec![supported.as_slice().to_vec(); cpus as usize];
        let vcpus =
            Vcpus::new(&kvm, &vm, &cpuids, &Platform { ports, mmio, ram }, &on_stop).unwrap();
        vcpus.reset(&entry()).unwrap();
        vcpus.resume();
        Some(Self {
            vcpus,
            output,
            stops,
            _vm: vm,
        })
    }

    fn expect_output(&self, wanted: &[u8]) {
        let next = || self.output.recv_timeout(WAIT).ok();
        let seen: Vec<_> = std::iter::from_fn(next).take(wanted.len()).collect();
        assert_eq!(
            String::from_utf8_lossy(&seen),
            String::from_utf8_lossy(wanted)
        );
    }

    fn expect_stop(&self) -> (u32, Stop) {
        self.stops.recv_timeout(WAIT).unwrap()
    }
}

fn entry() -> EntryState {
    EntryState {
        mode: EntryMode::Protected,
        rip: CODE,
        rsp: 0x8ff0,
        rbx: 0,
        rsi: 0x2000,
    }
}

fn kvm() -> Option<Kvm> {
    match open() {
        Ok(kvm) => Some(kvm),
        Err(why) => {
            eprintln!("SKIPPED, nothing was tested: {why}");
            None
        }
    }
}

/// Writes the five bytes at RSI to port 0x3f8 by a string instruction, and halts.
const HELLO: [u8; 15] = [
    0xba, 0xf8, 0x03, 0x00, 0x00, // mov edx, 0x3f8
    0xb9, 0x05, 0x00, 0x00, 0x00, // mov ecx, 5
    0xf3, 0x6e, // rep outsb
    0xf4, // hlt
    0xeb, 0xfd, // jmp to the hlt
];

#[test]
fn hello_and_again_after_a_reset() {
    let Some(mut guest) = Guest::start(1, &HELLO, &[]) else {
        return;
    };
    guest.expect_output(b"hello");
    guest.vcpus.park(WAIT).unwrap();
    guest.vcpus.park(WAIT).unwrap();
    guest.vcpus.reset(&entry()).unwrap();
    guest.vcpus.resume();
    guest.expect_output(b"hello");
    guest.vcpus.stop(WAIT);
    assert!(guest.output.try_recv().is_err());
}

#[test]
fn a_spinning_guest_is_parked_and_goes_on() {
    // in al, dx; out dx, al; jmp: exits without end.
    let code = [0xba, 0xf8, 0x03, 0x00, 0x00, 0xec, 0xee, 0xeb, 0xfc];
    let Some(guest) = Guest::start(1, &code, &[]) else {
        return;
    };
    for _ in 0..50 {
        guest.expect_output(b"r");
        guest.vcpus.park(WAIT).unwrap();
        while guest.output.try_recv().is_ok() {}
        guest.vcpus.resume();
    }
}

#[test]
fn a_parked_vcpu_has_ended_its_read() {
    // mov al, 'h'; out dx, al; then mov eax, [0xd0000000] for ever.
    let code = [
        0xba, 0xf8, 0x03, 0x00, 0x00, 0xb0, b'h', 0xee, // once
        0xa1, 0x00, 0x00, 0x00, 0xd0, 0xeb, 0xf9, // for ever
    ];
    let Some(guest) = Guest::start(1, &code, &[]) else {
        return;
    };
    // On an idle machine it is in the middle of the read nearly always, on a busy one often between two;
    // if reads were left unended this would count next to none.
    let (enough, rounds) = (10, 200);
    let mut ended = 0;
    for _ in 0..rounds {
        if ended == enough {
            break;
        }
        guest.expect_output(b"h");
        guest.vcpus.park(WAIT).unwrap();
        let registers = guest.vcpus.registers(0);
        let behind_the_read = registers.rip == CODE + 13 && registers.rax == 0x5a5a_5a5a;
        ended += u32::from(behind_the_read);
        guest.vcpus.reset(&entry()).unwrap();
        guest.vcpus.resume();
    }
    assert_eq!(ended, enough, "of {rounds}");
}

#[test]
fn a_second_vcpu_starts_by_init_and_sipi() {
    let bsp = [
        0xc7, 0x05, 0x10, 0x03, 0xe0, 0xfe, 0x00, 0x00, 0x00, 0x01, // ICR high: APIC id 1
        0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x00, 0x00, // ICR low: INIT
        0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x00, 0x00, // ICR low: SIPI, page 8
        0xf4, 0xeb, 0xfd, // hlt
    ];
    // Real mode: mov al, 'A'; mov dx, 0x3f8; out dx, al; hlt.
    let ap = [0xb0, b'A', 0xba, 0xf8, 0x03, 0xee, 0xf4, 0xeb, 0xfd];
    let Some(guest) = Guest::start(2, &bsp, &ap) else {
        return;
    };
    guest.expect_output(b"A");
    // After a reset it waits again, and starts again.
    guest.vcpus.park(WAIT).unwrap();
    guest.vcpus.reset(&entry()).unwrap();
    guest.vcpus.resume();
    guest.expect_output(b"A");
}

#[test]
fn a_triple_fault_stops_the_vcpu_until_it_is_reset() {
    // lidt of an empty table at 0x3000, then ud2.
    let code = [0x0f, 0x01, 0x1d, 0x00, 0x30, 0x00, 0x00, 0x0f, 0x0b];
    let Some(guest) = Guest::start(1, &code, &[]) else {
        return;
    };
    assert_eq!(guest.expect_stop(), (0, Stop::TripleFault));
    guest.vcpus.park(WAIT).unwrap();
    guest.vcpus.reset(&entry()).unwrap();
    guest.vcpus.resume();
    assert_eq!(guest.expect_stop(), (0, Stop::TripleFault));
}

#[test]
fn an_internal_error_is_reported_with_its_instruction() {
    // mov eax, 0xd0000000; jmp eax: there is no memory to take an instruction from.
    let code = [0xb8, 0x00, 0x00, 0x00, 0xd0, 0xff, 0xe0];
    let Some(guest) = Guest::start(1, &code, &[]) else {
        return;
    };
    let (_, Stop::Fault(fault)) = guest.expect_stop() else {
        panic!("no fault")
    };
    let report = fault.to_string();
    assert!(report.contains("suberror 1"), "{report}");
    assert!(report.contains("RIP 00000000d0000000"), "{report}");
    assert!(report.contains("RAX 00000000d0000000"), "{report}");
}

#[test]
fn a_device_that_panics_is_a_fault_and_not_a_hang() {
    // mov edx, 0x3f8; mov al, '!'; out dx, al
    let code = [0xba, 0xf8, 0x03, 0x00, 0x00, 0xb0, b'!', 0xee, 0xf4];
    let Some(mut guest) = Guest::start(1, &code, &[]) else {
        return;
    };
    let (0, Stop::Fault(fault)) = guest.expect_stop() else {
        panic!("no fault")
    };
    assert!(fault.to_string().contains("panicked"), "{fault}");
    guest.vcpus.stop(WAIT);
}

#[test]
fn a_vm_that_is_dropped_leaves_no_thread() {
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
        tasks
            .flatten()
            .filter_map(name)
            .filter(|name| name.trim() == "vcpu7")
            .count()
    };
    let Some(guest) = Guest::start(8, &HELLO, &[]) else {
        return;
    };
    guest.expect_output(b"hello");
    assert_eq!(threads(), 1);
    drop(guest);
    assert_eq!(threads(), 0);
}

/// Prints the table that this host supports, one leaf a line, as `arch/x86_64/cpuid/testdata`
/// keeps it: `cargo test -p outboard --lib record_cpuid -- --ignored --nocapture`.
#[test]
#[ignore = "a tool, not a test"]
fn record_cpuid() {
    let Some(kvm) = kvm() else { return };
    let supported = kvm
        .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .unwrap();
    for e in supported.as_slice() {
        println!(
            "{:08x} {:x} {:x} {:08x} {:08x} {:08x} {:08x}",
            e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx
        );
    }
}
