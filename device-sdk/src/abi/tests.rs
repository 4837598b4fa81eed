//! Devices through both halves of the ABI, in one process: what a plugin exports, adopted by a host.
#![allow(unsafe_code)] // Adopts tables.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::export::{FromOptions, OptionSpec, Options, plugin, virtio_device};
use super::host::Plugin;
use super::raw::{OutboardDevice, OutboardPlugin};
use crate::device::{LocalFuture, Progress, QueueWorker, Ready};
use crate::driver::connection::DEFAULT_LIMIT;
use crate::driver::{Driver, Options as DriverOptions, QueueOptions, Segment};
use crate::queue::RequestStream;
use crate::testing::{Endpoint, Expected, Outcome, Probe};
use crate::{AsyncDevice, Device, DeviceError, Queue, Worker, session};

const CONFIG: [u8; 12] = *b"configspace!";

/// Answers a request with its bytes inverted: by calls, or asynchronously.
struct Invert {
    asynchronous: bool,
    /// A byte of state, of no use but to be saved.
    mood: u8,
}

impl FromOptions for Invert {
    const NAME: &'static str = "invert";
    const SUMMARY: &'static str = "Answers with the bytes inverted";
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::bool("async", "be an async device").default("off"),
        OptionSpec::size("room", "of no use"),
    ];

    fn from_options(options: &Options<'_>) -> Result<Self, DeviceError> {
        if options.number("room") == Some(7) {
            return Err(DeviceError::other("seven bytes are no room"));
        }
        assert_ne!(options.number("room"), Some(8), "eight is right out");
        Ok(Self {
            asynchronous: options.is_on("async"),
            mood: b'g',
        })
    }
}

impl Device for Invert {
    fn device_id(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        1 << 3
    }

    fn queue_groups(&self) -> Vec<u16> {
        vec![2, 1]
    }

    fn config_len(&self) -> u32 {
        CONFIG.len() as u32
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        for (byte, value) in data.iter_mut().zip(&CONFIG[offset as usize..]) {
            *byte = *value;
        }
    }

    fn set_features(&mut self, _acked: u64) -> Result<(), DeviceError> {
        Ok(())
    }

    fn start(&mut self, _group: usize) -> Result<Worker, DeviceError> {
        Ok(if self.asynchronous {
            Worker::asynchronous(Inverter)
        } else {
            Worker::queues(Inverter)
        })
    }

    fn reset(&mut self) {}

    fn save(&mut self) -> Result<Vec<u8>, DeviceError> {
        assert_ne!(self.mood, b'p', "as asked");
        Ok(vec![self.mood; 3])
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        let [a, b, c] = *state else {
            return Err(DeviceError::other("moods are three bytes"));
        };
        assert_eq!((a, a), (b, c), "a mixed mood");
        self.mood = a;
        Ok(())
    }
}

struct Inverter;

impl Inverter {
    fn answer(request: &crate::Request) -> u32 {
        let mut bytes = vec![0; request.reader().len()];
        request.reader().read(&mut bytes);
        assert_ne!(bytes, b"panic", "as asked");
        for byte in &mut bytes {
            *byte = !*byte;
        }
        request.writer().write(&bytes) as u32
    }
}

impl QueueWorker for Inverter {
    fn run(&mut self, queues: &mut [Queue], _ready: Ready) -> Result<Progress, DeviceError> {
        let mut progress = Progress::Idle;
        for queue in queues {
            let mut done = Vec::new();
            while let Some(request) = queue.pop()? {
                let written = Self::answer(&request);
                done.push((request, written));
                progress = Progress::Worked;
            }
            queue.complete(done)?;
        }
        Ok(progress)
    }
}

impl AsyncDevice for Inverter {
    fn run(&mut self, queues: Vec<RequestStream>) -> LocalFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            let serve = |mut queue: RequestStream| async move {
                while let Some(request) = queue.next().await? {
                    let written = Self::answer(&request);
                    request.complete(written)?;
                }
                Ok::<_, DeviceError>(())
            };
            let tasks: Vec<_> = queues
                .into_iter()
                .map(|queue| tokio::task::spawn_local(serve(queue)))
                .collect();
            for task in tasks {
                task.await.map_err(DeviceError::other)??;
            }
            Ok(())
        })
    }
}

static DEVICES: &[OutboardDevice] = &[virtio_device::<Invert>(42)];
static PLUGIN: OutboardPlugin = plugin("inverter", "1.2.3", 0, DEVICES);

fn adopted() -> Plugin {
    // SAFETY: a plugin's table, valid for ever.
    unsafe { Plugin::adopt(&raw const PLUGIN, Path::new("built in")) }.unwrap()
}

fn given(text: &str) -> BTreeMap<String, String> {
    super::options::from_keyvals(text).unwrap()
}

/// Serves a connection after another, a thread each.
struct Adopted(&'static str, Option<thread::JoinHandle<()>>);

impl Endpoint for Adopted {
    fn connect(&mut self) -> Outcome<UnixStream> {
        if let Some(last) = self.1.take() {
            let _ = last.join();
        }
        let plugin = adopted();
        let device = plugin.device(None).unwrap();
        let mut device = plugin.create(device, &given(self.0)).unwrap();
        let (ours, theirs) = UnixStream::pair()?;
        self.1 = Some(thread::spawn(move || {
            let _ = session::serve(&mut device, &theirs);
        }));
        Ok(ours)
    }

    fn expected(&self) -> Expected {
        let check = |written: u32, data: &[u8]| {
            let right = written == 4 && data.starts_with(&[!1, !2, !3, !4]);
            right
                .then_some(())
                .ok_or_else(|| format!("{written} bytes, {data:?}"))
        };
        Expected {
            features: 1 << 3,
            config_len: 12,
            queues: 3,
            max_queue_size: 1024,
            running: vec![0],
            probe: Probe {
                queue: 0,
                readable: vec![1, 2, 3, 4],
                writable: 8,
                check,
            },
        }
    }
}

mod called {
    use super::Adopted;
    crate::conformance!(Adopted("async=off", None));
}

mod serving {
    use super::Adopted;
    crate::conformance!(Adopted("async=on", None));
}

/// A panic in either kind of worker fails the device, until a reset.
#[test]
fn a_panic_fails_the_device_and_nothing_else() {
    for options in ["async=off", "async=on"] {
        let mut endpoint = Adopted(options, None);
        let mut driver =
            Driver::new(endpoint.connect().unwrap(), &DriverOptions::default()).unwrap();
        for (text, broken) in [(b"panic", true), (b"calm!", false)] {
            driver.start_queue(0, &QueueOptions::default()).unwrap();
            driver.connection().set_status(0xf).unwrap();
            let buffer = driver.allocate(16, 16).unwrap();
            buffer.write(0, text);
            let queue = driver.queue(0).unwrap();
            let chain = [
                Segment::readable(buffer.addr(), 5),
                Segment::writable(buffer.addr() + 8, 5),
            ];
            queue.add(&chain, 0).unwrap();
            queue.flush().unwrap();
            // A request that a panicking task drops ends empty.
            let answer = queue.wait(Duration::from_millis(500));
            let written = answer.map_or(0, |used| used.written);
            assert_eq!(written, if broken { 0 } else { 5 }, "{options}");
            let end = Instant::now() + DEFAULT_LIMIT;
            while broken && driver.connection().status().unwrap() & 64 == 0 {
                assert!(Instant::now() < end, "{options}: the device goes on");
            }
            assert!(broken || driver.connection().status().unwrap() & 64 == 0);
            driver.reset().unwrap();
        }
    }
}

#[test]
fn a_table_says_what_the_device_is() {
    let plugin = adopted();
    assert_eq!((&*plugin.name, &*plugin.version), ("inverter", "1.2.3"));
    let device = plugin.device(Some("invert")).unwrap();
    let options: Vec<_> = device
        .options
        .iter()
        .map(|o| (&*o.name, o.default.as_deref()))
        .collect();
    assert_eq!(options, [("async", Some("off")), ("room", None)]);
    let why = plugin.device(Some("revert")).unwrap_err().to_string();
    assert!(why.contains("no device 'revert'; it has invert"), "{why}");
}

#[test]
fn state_crosses_and_what_is_wrong_with_it_is_said() {
    let plugin = adopted();
    let device = plugin.device(None).unwrap();
    let made = || plugin.create(device, &given("")).unwrap();
    let (mut one, mut other) = (made(), made());
    assert_eq!(one.save().unwrap(), b"ggg");
    other.restore(b"bbb").unwrap();
    one.restore(&other.save().unwrap()).unwrap();
    assert_eq!(one.save().unwrap(), b"bbb");
    for (state, words) in [
        (&b""[..], "moods are three bytes"),
        (b"bbbb", "moods are three bytes"),
        (b"bad", "panicked: assertion"),
    ] {
        let why = one.restore(state).unwrap_err().to_string();
        assert!(why.contains(words), "{why}");
        assert_eq!(one.save().unwrap(), b"bbb");
    }
    one.restore(b"ppp").unwrap();
    assert!(one.save().unwrap_err().to_string().contains("as asked"));
}

#[test]
fn what_the_plugin_has_against_its_options_is_said() {
    let plugin = adopted();
    let device = plugin.device(None).unwrap();
    for (options, words) in [
        ("room=7", "cannot make the device: seven bytes are no room"),
        ("room=8", "panicked: assertion"),
        ("colour=red", "no option 'colour'"),
    ] {
        let why = plugin
            .create(device, &given(options))
            .unwrap_err()
            .to_string();
        assert!(why.contains(words), "{options}: {why}");
    }
}

#[test]
fn tables_of_other_hosts_are_refused_with_the_reason() {
    let refuse = |change: &dyn Fn(&mut OutboardPlugin)| {
        let mut table = PLUGIN;
        change(&mut table);
        // SAFETY: a plugin's table but for what makes it be refused.
        let plugin = unsafe { Plugin::adopt(&raw const table, Path::new("p.so")) };
        plugin.unwrap_err().to_string()
    };
    for (change, words) in [
        (
            &(|t: &mut OutboardPlugin| t.magic = 1) as &dyn Fn(&mut OutboardPlugin),
            "magic 0x00000001",
        ),
        (&|t| t.abi_major = 2, "is for version 2 of the plugin ABI"),
        (
            &|t| t.size = 40,
            "says it is 40 bytes; version 1.0 of it is 96",
        ),
        (&|t| t.required_minor = 3, "needs version 1.3"),
        (&|t| t.device_count = 0, "offers no device"),
    ] {
        let why = refuse(change);
        assert!(why.contains(words), "{why}");
    }
    // Built for a later minor version, and content with this one.
    let mut later = PLUGIN;
    later.abi_minor = 9;
    // SAFETY: a plugin's table.
    let plugin = unsafe { Plugin::adopt(&raw const later, Path::new("p.so")) };
    assert_eq!(plugin.unwrap().abi_minor, 9);
}
