//! Nobody listens to what the programs say: their exit codes are the same.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use outboard_tests::daemons::daemon;

/// Takes no byte: "No space left on device".
fn full() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

/// A pipe whose reader has left.
fn deaf() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn dry_run() -> Command {
    let mut command = Command::new(daemon("outboard"));
    command.args(["run", "--kernel", "k", "--dry-run"]);
    command
}

/// The code that `command` exits with. A panic's is 101.
fn code(command: &mut Command) -> Option<i32> {
    let status = command.stdin(Stdio::null()).status().unwrap();
    assert_eq!(status.signal(), None);
    status.code()
}

#[test]
fn a_reader_that_leaves_is_a_quiet_end() {
    let output = dry_run()
        .stdout(deaf())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let output = dry_run()
        .stdout(full())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("No space left"), "{said}");
}

#[test]
fn complaints_that_nobody_hears_change_no_exit_code() {
    let cases: [(&str, &[&str], i32); 5] = [
        ("outboard", &["run", "--cpus", "0", "--kernel", "k"], 2),
        ("outboard", &["run", "--kernel", "/no/such/kernel"], 1),
        ("outboard-block", &["--fd", "0", "--path", "/no/image"], 1),
        ("outboard-net", &["--fd", "0", "--tap", "a/b"], 1),
        ("outboard-console", &["--bytes-fd", "99", "--off"], 1),
    ];
    for (program, args, expected) in cases {
        for stderr in [full(), deaf()] {
            // With lines of the log before, too.
            let mut command = Command::new(daemon(program));
            command.args(args).env("RUST_LOG", "trace");
            command.stdout(Stdio::null()).stderr(stderr);
            assert_eq!(code(&mut command), Some(expected), "{program} {args:?}");
        }
    }
}

#[test]
fn a_wish_for_the_log_that_cannot_be_met_is_told_of() {
    let said = |flag: &[&str]| {
        let mut command = dry_run();
        command.args(flag).env("RUST_LOG", "what,is=this=");
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert!(said(&[]).contains("RUST_LOG is not usable"));
    assert_eq!(said(&["--log-level", "warn"]), "");
}
