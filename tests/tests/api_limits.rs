//! What clients of the API cannot do: fill the VMM's log.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use outboard_tests::api::{Vmm, cloud_hypervisor};
use outboard_tests::traces::Home;

/// Reached only by a failing test.
const LONG: Duration = Duration::from_mins(1);

/// Ten lines at once, and then one in five seconds; the VMM tries ten times a second.
#[test]
fn clients_for_whom_no_descriptor_is_left_are_told_of_now_and_then() {
    let home = Home::new();
    let (socket, log) = (home.path().join("api.sock"), home.path().join("log"));
    let mut command = cloud_hypervisor(&home);
    command.arg("--api-socket").arg(&socket);
    command.arg("--log-file").arg(&log);
    let vmm = Vmm::start(command, &socket);
    let limit = |count: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &vmm.pid().to_string()]);
        let set = prlimit.arg(format!("--nofile={count}:")).status().unwrap();
        assert!(set.success());
    };
    let lines = || {
        let said = fs::read_to_string(&log).unwrap();
        said.matches("a client of the API is not taken").count()
    };
    limit("3");
    let _waiting = UnixStream::connect(&socket).unwrap();
    let begin = Instant::now();
    while lines() < 10 {
        assert!(
            begin.elapsed() < LONG,
            "{}",
            fs::read_to_string(&log).unwrap()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(2));
    let most = 10 + usize::try_from(begin.elapsed().as_secs() / 5).unwrap() + 1;
    assert!(lines() <= most, "{} lines", lines());
    // It was held up, and no more.
    limit("1024");
    assert_eq!(vmm.ask("GET", "vmm.ping").0, 200);
    vmm.does("vmm.shutdown");
    assert_eq!(vmm.end().code(), Some(0));
    home.assert_left_clean();
}
