//! One device in each of its hosts, driven by the bare-metal guest: what a host costs a request.
//!
//! The guest is the same each time, and so is the device's code. What differs is where it runs: in the VMM
//! or in `outboard-plugin-host`, both behind the plugin ABI, or in a daemon, which is linked with it.

use std::path::Path as FilePath;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::affinity::{Affinity, Cpus};
use crate::backend::beside_us;
use crate::bytes::Bytes;
use crate::case::{Case, Format, Op, Path, Pattern, Switch};
use crate::clock::MachineTime;
use crate::error::{Error, Result};
use crate::guest::{self, Requests};
use crate::machine::Noise;
use crate::record::Record;
use crate::run::Conditions;

/// A device in a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosted {
    /// Its name in tables.
    pub name: &'static str,
    /// What kind of requests its are.
    pub path: Path,
    /// How `--device` has it.
    pub device: String,
}

/// The device that does nothing, in each host.
pub fn null() -> Result<Vec<Hosted>> {
    let library = beside_us("liboutboard_bench_null.so");
    if !library.is_absolute() {
        return Err(Error::Unfit(
            "there is no liboutboard_bench_null.so beside this program: cargo build -p outboard-bench-null, \
             in the same profile"
                .into(),
        ));
    }
    let mut hosts = of_plugin(
        &library.display().to_string().replace(',', ",,"),
        Path::Null,
    );
    hosts.push(Hosted {
        name: "daemon",
        path: Path::Null,
        device: guest::null_daemon(),
    });
    Ok(hosts)
}

/// A disk of a plugin's in each host, and as the daemon that this command serves at `{socket}`, if any.
pub fn disk(plugin: &str, daemon: Option<&str>) -> Vec<Hosted> {
    let mut hosts = of_plugin(plugin, Path::Block);
    hosts.extend(daemon.map(|command| Hosted {
        name: "daemon",
        path: Path::Block,
        device: guest::daemon(command),
    }));
    hosts
}

fn of_plugin(plugin: &str, path: Path) -> Vec<Hosted> {
    let host = |name, host| Hosted {
        name,
        path,
        device: format!("plugin={plugin},addr=8,on-exit=stop,name=disk,host={host}"),
    };
    vec![host("host=process", "process"), host("host=vmm", "vmm")]
}

/// One turn: a boot of the guest, in which it reads `count` times in each way.
pub fn turn(hosted: &Hosted, count: u64, round: u32, stop: &AtomicBool) -> Result<Vec<Record>> {
    // Where the threads of the VMM and the daemon run is the kernel's to say.
    let anywhere = Affinity {
        driver: Cpus::default(),
        backend: Cpus::default(),
    };
    anywhere.driver.hold_this_thread()?;
    let (before, ours) = (MachineTime::now(), of_children());
    let all = guest::requests(&hosted.device, count, stop)?;
    let ours = of_children().saturating_sub(ours);
    let noise = Noise::of(MachineTime::now().since(before), ours);
    let record = |requests: Requests| {
        let case = case(hosted.path, &requests);
        let how = Conditions {
            warmup: Duration::ZERO,
            time: Duration::from_secs_f64(requests.figures.seconds),
            affinity: anywhere.clone(),
        };
        Record::new(
            hosted.name,
            &hosted.device,
            round,
            &case,
            &how,
            requests.figures,
            noise,
        )
    };
    Ok(all.into_iter().map(record).collect())
}

fn case(path: Path, requests: &Requests) -> Case {
    Case {
        path,
        op: Op::Read,
        pattern: Pattern::Sequential,
        size: Bytes(guest::REQUEST),
        depth: requests.depth,
        queues: 1,
        wait: requests.wait,
        ring: Format::Split,
        event_idx: Switch::On,
        indirect: Switch::Off,
        rate: None,
    }
}

/// CPU time of the processes that this one, and those it has waited for, have waited for.
fn of_children() -> Duration {
    let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(Duration::ZERO, |usage| {
        Duration::from_micros(micros(usage.user_time()).saturating_add(micros(usage.system_time())))
    })
}

/// Whether a guest can run here; why not.
pub fn missing() -> Option<String> {
    let kvm = FilePath::new("/dev/kvm");
    let opened = std::fs::File::options().read(true).write(true).open(kvm);
    opened.err().map(|error| format!("/dev/kvm: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_differ_in_a_word() {
        let hosts = disk("./x.so,size=1M", Some("mine --at {socket} a,b"));
        let [process, vmm, daemon] = hosts.as_slice() else {
            panic!("{hosts:?}")
        };
        assert_eq!(
            process.device.replace("host=process", "host=vmm"),
            vmm.device
        );
        assert!(process.device.starts_with("plugin=./x.so,size=1M,addr=8,"));
        assert!(daemon.device.ends_with("spawn=mine --at {socket} a,,b"));
        assert_eq!(disk("./x.so", None).len(), 2);
    }
}
