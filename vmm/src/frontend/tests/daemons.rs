//! Backends that we spawn.

use super::*;

fn process(script: &str, deadline: Duration) -> Result<Arc<Device>, ConnectError> {
    shell("/bin/sh", script, deadline)
}

fn shell(program: &str, script: &str, deadline: Duration) -> Result<Arc<Device>, ConnectError> {
    let args = ["-c", script].map(String::from).to_vec();
    let mut spec = spec(Host::Process {
        program: program.into(),
        args,
    });
    spec.deadlines.start = deadline;
    connect(spec, &Arc::default())
}

#[test]
fn a_daemon_that_fails_to_start_says_so_itself() {
    let text = process("echo 'error: cannot open disk.img' >&2; exit 1", LONG)
        .err()
        .unwrap()
        .to_string();
    for part in [
        "disk0",
        "/bin/sh",
        "exit status: 1",
        "error: cannot open disk.img",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = process("echo thinking >&2; sleep 1000", 4 * SHORT)
        .err()
        .unwrap()
        .to_string();
    assert!(
        text.contains("does not answer") && text.contains("thinking"),
        "{text}"
    );
}

#[test]
fn a_daemon_that_ends_after_a_wrong_answer_is_told_of_by_the_answer() {
    // Answers SET_OWNER and GET_FEATURES with what is no message, and leaves. The name of the flag
    // for its stream is $0, the number $1; sh takes no number of two digits.
    let script = "head -c 24 <&$1 >/dev/null; printf '%064d' 0 >&$1; exit 0";
    let text = shell("/bin/bash", script, LONG).err().unwrap().to_string();
    for part in ["GET_FEATURES", "then ended (exit status: 0)"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = process("exit 0", LONG).err().unwrap().to_string();
    for part in ["handshake", "then ended (exit status: 0)"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_daemon_that_is_not_installed_is_named() {
    let host = Host::Process {
        program: "outboard-nonesuch".into(),
        args: Vec::new(),
    };
    let error = connect(spec(host), &Arc::default()).err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        error.to_string().contains("disk0") && cause.contains("outboard-nonesuch"),
        "{error}: {cause}"
    );
}

#[test]
fn what_stands_behind_a_daemon_is_missed_or_quoted() {
    let backed = |program: &str, script: &str| {
        let host = Host::Backed {
            program: "/bin/sh".into(),
            // Says nothing; that the other one ends is what is told.
            args: ["-c", "sleep 1000"].map(String::from).to_vec(),
            behind: Behind {
                listens: Vec::new(),
                wire: "--stream-fd".into(),
                program: program.into(),
                package: "passt".into(),
                args: ["-c", script].map(String::from).to_vec(),
                fd: "--fd".into(),
            },
        };
        let mut spec = spec(host);
        spec.deadlines.start = 4 * SHORT;
        connect(spec, &Arc::default()).err().unwrap()
    };
    let text = backed("/bin/sh", "echo 'port 22 is in use' >&2; exit 1").to_string();
    assert!(
        text.contains("/bin/sh ended") && text.contains("port 22 is in use"),
        "{text}"
    );
    let error = backed("passt-nonesuch", "");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.contains("'passt-nonesuch'") && cause.contains("package passt"),
        "{error}: {cause}"
    );
}
