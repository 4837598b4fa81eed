//! The parts of a VM: put together, reset, and taken apart.

use std::io::Write;
use std::iter;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvm_ioctls::{Cap, Kvm};

use super::devices::{Connecting, Devices, Parts};
use super::events::Events;
use super::info::{self, Info, Layout};
use super::serial::{SerialPort, Transcript};
use super::terminal::Terminal;
use super::{State, VmError, serial};
use crate::arch::x86_64::{acpi, cpuid, layout};
use crate::bus::Bus;
use crate::chipset::Chipset;
use crate::chipset::hotplug::SlotHotplug;
use crate::config::{CpuConfig, VmConfig};
use crate::image::BootFiles;
use crate::kvm::{self, IrqLine, KvmError, Platform, Routes, Vcpus, Vm};
use crate::logs::{self, Logs};
use crate::memory::{self, GuestRam};
use crate::pci::{BarWindows, ConfigPorts, Ecam, KvmWiring, PciRoot};
use crate::plugin::registers::Registers;
use crate::plugin::settle::RegistersConfig;
use crate::stderr::Stderr;
use crate::supervisor::{Grace, Process, Supervisor};

/// How long a vCPU may take to come out of the guest.
const PARK: Duration = Duration::from_secs(5);
/// How long devices may take to let go of guest memory: longer than any device's own deadline,
/// after which it is cut off.
const RESET: Duration = Duration::from_secs(8);
/// How long a vCPU may take to end.
const STOP: Duration = Duration::from_secs(2);

/// Where the guest's physical addresses end where the processor does not say.
const LEAST_PHYSICAL_BITS: u8 = 36;

/// Everything a VM is made of.
pub(super) struct Machine {
    vcpus: Vcpus,
    vm: Arc<Vm>,
    ram: Arc<GuestRam>,
    mmio: Arc<Bus>,
    pci: Arc<PciRoot>,
    pci_ports: Arc<ConfigPorts>,
    chipset: Chipset,
    /// Those of plugins, ttyS0 first.
    registers: Registers,
    /// Ends after ttyS0.
    transcript: Option<Transcript>,
    devices: Devices,
    /// The daemon of ttyS0.
    console: Option<Process>,
    supervisor: Arc<Supervisor>,
    files: BootFiles,
    acpi: acpi::Machine,
}

impl Machine {
    /// Makes everything and connects every device. What does not need daemons comes first, so
    /// that a wrong kernel or a missing KVM is known before any of them is spawned. Gives up when
    /// `cancelled` says so.
    pub(super) fn assemble(
        config: &VmConfig,
        registers: &[RegistersConfig],
        events: &Events,
        terminal: &Terminal,
        logs: &Logs,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, VmError> {
        let mut files = BootFiles::open(&config.boot)?;
        if let Some(notice) = files.notice() {
            let _ = writeln!(Stderr, "outboard: {notice}");
            logs::note(notice);
        }
        let kvm = kvm::open()?;
        let cpuids = cpuids(&kvm, &config.cpus)?;
        let bits = physical_bits(&cpuids);
        memory::reached_by(bits, config.memory.size)?;
        let ram = Arc::new(GuestRam::unless(cancelled, &config.memory)?);
        // Loaded once for its errors; `boot` does it again with all in place.
        files.load(ram.mmap(), layout::ACPI_TABLES.start)?;
        let vm = Vm::new(&kvm, &ram, !config.no_ioeventfd)?;
        let routes = Routes::new(&vm)?;

        let supervisor = Arc::new(Supervisor::keeping(logs.clone())?);
        let kit = Parts::new(config, &ram, &supervisor, events, terminal);
        let connecting = Connecting::begin(config, kit)?;
        let (stream, opening) = serial::spawn(config, &supervisor, terminal)?.unzip();

        let (ports, mmio) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
        let line = |gsi| Arc::new(IrqLine::new(&vm, gsi));
        let chipset = Chipset::new(line(layout::IRQ_SCI), &events.chipset_sink());
        chipset.attach(&ports)?;
        let (port, transcript) =
            SerialPort::new(stream, logs.log(logs::SERIAL)).map_err(|source| VmError::Host {
                what: "Starting the log of ttyS0",
                source,
            })?;
        let all: Vec<_> = iter::once(port.registers())
            .chain(registers.iter().cloned())
            .collect();
        let registers = Registers::attach(&all, &ports, &mmio, ram.mmap(), |n| line(n))?;
        drop(port);

        let (low, high) = layout::ram_ranges(config.memory.size);
        let mmio64 = layout::mmio64(high.unwrap_or(low).end, bits);
        let windows = BarWindows {
            low: layout::MMIO32,
            high: mmio64.clone(),
        };
        let pci = PciRoot::new(mmio.clone(), windows).map_err(VmError::PciRoot)?;
        let pci_ports = Arc::new(ConfigPorts::new(pci.clone(), Some(chipset.reset_control())));
        ports.insert(
            layout::PCI_CONFIG_ADDRESS.into(),
            ConfigPorts::LEN,
            pci_ports.clone(),
        )?;
        let ecam = layout::ECAM;
        mmio.insert(
            ecam.start,
            ecam.end - ecam.start,
            Arc::new(Ecam::new(pci.clone())),
        )?;

        let platform = Platform {
            ports,
            mmio: mmio.clone(),
            ram: ram.clone(),
        };
        let vcpus = Vcpus::new(&kvm, &vm, &cpuids, &platform, &events.vcpu_sink())?;
        let wiring = Arc::new(KvmWiring::new(vm.clone(), routes));
        let console = opening
            .map(|opening| opening.wait(cancelled, events))
            .transpose()?;
        let devices = connecting.plug(cancelled, &pci, &wiring)?;
        let acpi = acpi::Machine {
            apic_ids: (0..config.cpus.count).collect(),
            mmio64,
        };
        Ok(Self {
            vcpus,
            vm,
            ram,
            mmio,
            pci,
            pci_ports,
            chipset,
            registers,
            transcript,
            devices,
            console,
            supervisor,
            files,
            acpi,
        })
    }

    /// Loads tables and kernel, and puts every vCPU at its beginning. All are parked.
    pub(super) fn boot(&mut self) -> Result<(), VmError> {
        let rsdp = acpi::write_tables(self.ram.mmap(), &self.acpi)?;
        let entry = self.files.load(self.ram.mmap(), rsdp)?;
        Ok(self.vcpus.reset(&entry)?)
    }

    /// Lets the vCPUs run.
    pub(super) fn resume(&self) {
        self.vcpus.resume();
    }

    /// Takes every vCPU out of the guest.
    pub(super) fn pause(&self) -> Result<(), KvmError> {
        self.vcpus.park(PARK)
    }

    /// Lets vCPUs go on that were paused for a while.
    pub(super) fn resume_late(&self) {
        self.vcpus.excuse_pause();
        self.vcpus.resume();
    }

    /// What a person is told of it.
    pub(super) fn info(&self, config: &VmConfig, state: State) -> Info {
        let map = Layout {
            memory: config.memory.size,
            mmio64: self.acpi.mmio64.clone(),
            bars: self.pci.mapped(),
        };
        let consoles = info::consoles(config, |port| self.place(port));
        let info = Info::new(
            config,
            state,
            self.vcpus.info(),
            self.devices.info(),
            self.registers.places(),
            &self.supervisor.processes(),
            &map,
        );
        Info { consoles, ..info }
    }

    /// Where people find the console called `port`, if its daemon has said so.
    pub(super) fn place(&self, port: &str) -> Option<PathBuf> {
        match port {
            "ttyS0" => self.console.as_ref()?.place(),
            port => self.devices.place(port),
        }
    }

    /// Its virtio devices.
    pub(super) fn devices(&mut self) -> &mut Devices {
        &mut self.devices
    }

    /// Tells the guest of the device that a slot has gained.
    pub(super) fn announce(&self, slot: u8) {
        self.hotplug().plugged(slot);
    }

    /// Asks the guest to let go of the device in a slot.
    pub(super) fn ask_out(&mut self, slot: u8) {
        self.devices.set_leaving(slot);
        self.hotplug().request_unplug(slot);
    }

    /// Takes out what the guest has ejected.
    pub(super) fn take_ejected(&mut self) {
        let slots = self.hotplug().take_ejected();
        slots.for_each(|slot| self.devices.take_out(slot));
    }

    fn hotplug(&self) -> MutexGuard<'_, SlotHotplug> {
        let hotplug = self.chipset.hotplug();
        hotplug.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts devices, chipset and interrupt controllers back to power-on. All vCPUs are parked; when
    /// this returns no device touches guest memory any more.
    pub(super) fn reset(&self) -> Result<(), VmError> {
        self.pci.reset();
        self.pci_ports.reset();
        self.chipset.reset();
        self.registers.reset();
        self.vm.reset_chips()?;
        let end = Instant::now() + RESET;
        while !self.pci.is_reset() {
            if Instant::now() >= end {
                return Err(VmError::NotReset);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Asks the guest to shut down.
    pub(super) fn press_power_button(&self) {
        self.chipset.press_power_button();
    }

    /// Ends vCPUs, devices and daemons, in this order, each within its deadline.
    pub(super) fn take_apart(mut self) {
        self.vcpus.stop(STOP);
        // ECAM's owner has the bus that has ECAM.
        self.mmio.remove(layout::ECAM.start);
        // The console of ttyS0 shows what there is and then sees the end of its stream.
        drop(self.registers);
        drop(self.transcript);
        self.devices.close();
        self.supervisor.stop(Grace::default());
    }
}

/// What each vCPU says it is.
fn cpuids(kvm: &Kvm, cpus: &CpuConfig) -> Result<Vec<Vec<cpuid::Entry>>, VmError> {
    let supported = kvm
        .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(KvmError::ioctl("list its CPUID leaves"))?;
    let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
    Ok(cpuid::tables(
        supported.as_slice(),
        cpus.count,
        &cpus.features,
        deadline,
    )?)
}

/// How many address bits the guest's processors have.
fn physical_bits(cpuids: &[Vec<cpuid::Entry>]) -> u8 {
    let first = cpuids.first().into_iter().flatten();
    let leaf = first.into_iter().find(|leaf| leaf.function == 0x8000_0008);
    leaf.map_or(LEAST_PHYSICAL_BITS, |leaf| leaf.eax as u8)
}
