//! All vCPUs of a VM, on a thread each: running, or parked while others look at them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::Kvm;
use vmm_sys_util::signal::Killable;

use super::info::{self, Activity, VcpuInfo};
use super::run::{Platform, Step, Stop, step};
use super::vcpu::Vcpu;
use super::{Fault, KvmError, Vm, kick, stats};
use crate::arch::x86_64::boot::EntryState;

/// Called on a vCPU's thread when that vCPU cannot go on. It then waits for the next
/// [`Vcpus::resume`]. Must not call back into [`Vcpus`].
pub type OnStop = Arc<dyn Fn(u32, Stop) + Send + Sync>;

/// All vCPUs of a VM. Made parked.
///
/// Dropping it without [`stop`](Self::stop) does the same with a short deadline.
#[derive(Debug)]
pub struct Vcpus {
    all: Vec<Arc<Vcpu>>,
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
}

impl Vcpus {
    /// Makes `cpuids.len()` vCPUs, each with its CPUID, and a thread `vcpuN` for each.
    pub fn new(
        kvm: &Kvm,
        vm: &Arc<Vm>,
        cpuids: &[Vec<kvm_cpuid_entry2>],
        platform: &Platform,
        on_stop: &OnStop,
    ) -> Result<Self, KvmError> {
        let most = kvm.get_max_vcpus() as u32;
        let asked = cpuids.len() as u32;
        if asked > most {
            return Err(KvmError::TooManyCpus { asked, most });
        }
        kick::install_handler();
        let vcpus = (0..)
            .zip(cpuids)
            .map(|(index, cpuid)| Vcpu::new(kvm, vm, index, cpuid).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let mut this = Self {
            all: vcpus,
            gate: Arc::default(),
            threads: Vec::new(),
        };
        for vcpu in &this.all {
            let (vcpu, gate) = (vcpu.clone(), this.gate.clone());
            let (platform, on_stop) = (platform.clone(), on_stop.clone());
            let thread = std::thread::Builder::new()
                .name(format!("vcpu{}", vcpu.index))
                .spawn(move || run(&vcpu, &gate, &platform, &on_stop))
                .map_err(KvmError::Thread)?;
            this.threads.push(thread);
        }
        Ok(this)
    }

    /// Lets every vCPU run, also those that stopped by themselves.
    pub fn resume(&self) {
        let mut state = self.gate.lock();
        state.wanted = Wanted::Run;
        state.round += 1;
        self.gate.open.store(true, Ordering::SeqCst);
        self.gate.changed.notify_all();
    }

    /// Tells every guest processor that has a kvm-clock that its time stood still: its watchdogs
    /// then do not take the pause for a hang. All must be parked.
    pub fn excuse_pause(&self) {
        for vcpu in &self.all {
            // A guest without a kvm-clock has nothing to be told by.
            if let Err(error) = vcpu.fd().kvmclock_ctrl() {
                tracing::debug!(vcpu = vcpu.index, %error, "no kvm-clock");
            }
        }
    }

    /// Takes every vCPU out of the guest and returns when all are. Does nothing where they are.
    ///
    /// # Errors
    /// One did not come within `deadline`: it hangs in a device, or in the host's kernel.
    pub fn park(&self, deadline: Duration) -> Result<(), KvmError> {
        self.want(Wanted::Park);
        let end = Instant::now() + deadline;
        let mut state = self.gate.lock();
        while state.parked < self.threads.len() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(KvmError::Stuck(self.threads.len() - state.parked));
            }
            let waited = self.gate.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Puts every vCPU back to power-on, the first one at `entry`. All must be parked.
    pub fn reset(&self, entry: &EntryState) -> Result<(), KvmError> {
        self.all.iter().try_for_each(|vcpu| vcpu.reset(entry))
    }

    /// What KVM counts of each vCPU, by KVM's names. Empty on a host that does not.
    pub fn counters(&self) -> Vec<BTreeMap<String, u64>> {
        let counters = |vcpu: &Arc<Vcpu>| vcpu.stats.as_ref().map(stats::read).unwrap_or_default();
        self.all.iter().map(counters).collect()
    }

    /// What each vCPU does and has done.
    pub fn info(&self) -> Vec<VcpuInfo> {
        let held = self.gate.lock().wanted != Wanted::Run;
        let all = self.all.iter().zip(self.counters());
        all.map(|(vcpu, counters)| {
            let thread = vcpu.thread.load(Ordering::Relaxed);
            let activity = if held {
                Activity::Paused
            } else if info::is_blocked(&counters, thread) {
                Activity::Halted
            } else {
                Activity::Running
            };
            VcpuInfo {
                index: vcpu.index,
                thread: Some(thread).filter(|thread| *thread != 0),
                state: activity,
                exits: vcpu.exits.read(),
                counters,
            }
        })
        .collect()
    }

    /// The registers of a parked vCPU.
    #[cfg(test)]
    pub(super) fn registers(&self, index: usize) -> kvm_bindings::kvm_regs {
        self.all[index].fd().get_regs().unwrap()
    }

    /// Ends the threads. Those that do not come out within `deadline` are left behind, for the
    /// end of the process to take.
    pub fn stop(&mut self, deadline: Duration) {
        self.want(Wanted::Exit);
        let end = Instant::now() + deadline;
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        for thread in self.threads.drain(..) {
            if !thread.is_finished() {
                tracing::error!(thread = thread.thread().name(), "a vCPU does not stop");
            } else if thread.join().is_err() {
                tracing::error!("a vCPU's thread has panicked");
            }
        }
    }

    fn want(&self, wanted: Wanted) {
        {
            let mut state = self.gate.lock();
            state.wanted = wanted;
            // Before the kick: a vCPU that takes the kick back then looks at this.
            self.gate.open.store(false, Ordering::SeqCst);
            self.gate.changed.notify_all();
        }
        for (vcpu, thread) in self.all.iter().zip(&self.threads) {
            vcpu.immediate_exit.set(true);
            if let Err(error) = thread.kill(kick::signal()) {
                tracing::debug!(vcpu = vcpu.index, %error, "a vCPU's thread is gone");
            }
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(2));
    }
}

/// Where vCPU threads wait until they may run.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
    /// `wanted` is `Run`: for the look between two exits.
    open: AtomicBool,
}

#[derive(Debug, Default)]
struct GateState {
    wanted: Wanted,
    /// How often vCPUs were let run. One that stopped by itself waits for the next.
    round: u64,
    parked: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Run,
    #[default]
    Park,
    Exit,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the vCPU may run, in a round other than `held`. `None`: the thread shall end.
    fn pass(&self, held: Option<u64>) -> Option<u64> {
        let mut state = self.lock();
        state.parked += 1;
        self.changed.notify_all();
        let waits = |state: &mut GateState| match state.wanted {
            Wanted::Run => held == Some(state.round),
            Wanted::Park => true,
            Wanted::Exit => false,
        };
        state = self
            .changed
            .wait_while(state, waits)
            .unwrap_or_else(PoisonError::into_inner);
        state.parked -= 1;
        (state.wanted == Wanted::Run).then_some(state.round)
    }
}

/// Tells the VM when a vCPU's thread unwinds: a device of ours panicked, and the guest would wait
/// for this vCPU for ever.
struct Unwinding<'a>(u32, &'a OnStop);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what = "its thread panicked in the VMM; this is a bug, please report it".to_owned();
            (self.1)(
                self.0,
                Stop::Fault(Box::new(Fault::without_registers(self.0, what))),
            );
        }
    }
}

/// A vCPU's thread.
fn run(vcpu: &Vcpu, gate: &Gate, platform: &Platform, on_stop: &OnStop) {
    let _unwinding = Unwinding(vcpu.index, on_stop);
    vcpu.thread
        .store(nix::unistd::gettid().as_raw(), Ordering::Relaxed);
    let mut held = None;
    while let Some(round) = gate.pass(held) {
        let stop = {
            let mut fd = vcpu.fd();
            loop {
                // Whoever closes the gate kicks afterwards. So a kick taken back here is seen in
                // the next line, and one that comes later is seen by KVM_RUN.
                vcpu.immediate_exit.set(false);
                let open = gate.open.load(Ordering::SeqCst);
                if !open {
                    // KVM_RUN then only ends the instruction that the last exit was in the middle
                    // of. Left for later, it would end after a reset, over the new registers.
                    vcpu.immediate_exit.set(true);
                }
                match step(vcpu.index, &mut fd, platform, &vcpu.exits) {
                    Step::Interrupted if !open => break None,
                    Step::Stopped(stop) => break Some(stop),
                    Step::Served | Step::Interrupted => {}
                }
            }
        };
        held = stop.is_some().then_some(round);
        if let Some(stop) = stop {
            on_stop(vcpu.index, stop);
        }
    }
}
