//! What `make install` puts beside the programs: completions that know the VMs, the manual, the unit.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use outboard_tests::daemons::daemon;
use outboard_tests::guest::{Guest, command, disk, has_kvm};
use outboard_tests::traces::Home;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What the shell is offered for the last of these words.
fn offered(home: &Home, words: &[&str]) -> Vec<String> {
    let mut ask = Command::new(daemon("outboard"));
    ask.env("OUTBOARD_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n")
        .args(["--", "outboard"])
        .args(words);
    home.adopt(&mut ask);
    let output = ask.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn define(home: &Home, name: &str) {
    fs::create_dir_all(home.path().join("config/outboard")).unwrap();
    let file = home.path().join(format!("config/outboard/{name}.toml"));
    fs::write(file, "kernel = '/vmlinuz'\n").unwrap();
}

#[test]
fn a_shell_is_offered_the_vms_that_a_verb_is_for() {
    let home = Home::new();
    for name in ["web", "worker"] {
        define(&home, name);
    }
    assert_eq!(offered(&home, &["start", "w"]), ["web", "worker"]);
    assert_eq!(offered(&home, &["show", "wo"]), ["worker"]);
    assert!(offered(&home, &["start", "x"]).is_empty());
    assert!(offered(&home, &["suspend", "w"]).is_empty(), "none runs");
    assert!(offered(&home, &["susp"]).contains(&"suspend".to_owned()));
    if !has_kvm() {
        return;
    }
    let mut vm = command("jobs=plug cycles=1");
    disk(home.path(), "disk.img", 64);
    vm.args(["--name", "web", "--disk", "path=disk.img"]);
    home.adopt(&mut vm);
    let mut guest = Guest::start(vm);
    guest.expect("ready for devices");
    assert_eq!(offered(&home, &["suspend", "w"]), ["web"]);
    // What runs is not to be started, and that is all that is to be.
    assert_eq!(offered(&home, &["start", "w"]), ["worker"]);
    drop(guest);
    home.assert_left_clean();
}

/// Sources the script in a bash and presses Tab, as it were.
#[test]
fn the_script_works_in_bash() {
    let home = Home::new();
    define(&home, "web");
    let outboard = daemon("outboard");
    let script = r#"
        PATH=$1:$PATH
        . <(outboard completions bash) || exit 2
        COMP_WORDS=(outboard show w) COMP_CWORD=2 COMP_TYPE=9
        function=$(complete -p outboard | sed 's/.*-F \([^ ]*\).*/\1/')
        "$function" outboard w show
        echo "offered: ${COMPREPLY[*]}"
    "#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash"])
        .arg(outboard.parent().unwrap());
    home.adopt(&mut bash);
    let output = bash.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said.trim(),
        "offered: web",
        "{:?}",
        String::from_utf8_lossy(&output.stderr)
    );
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let output = Command::new(&outboard)
            .args(["completions", shell])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("OUTBOARD_COMPLETE"), "{shell}: {said}");
    }
}

/// `make TARGET` in a folder that stands for the root, to or from a prefix; the user's home is /home/a.
fn make(target: &str, root: &Path, prefix: &str) -> Output {
    for program in ["block", "net", "console", "plugin-host"] {
        daemon(&format!("outboard-{program}"));
    }
    let built = daemon("outboard");
    let output = Command::new("make")
        .args(["-s", "-C", ROOT, target])
        .arg(format!("PREFIX={prefix}"))
        .env("HOME", "/home/a")
        .arg(format!("DESTDIR={}", root.display()))
        .arg(format!(
            "OUTBOARD_BIN_DIR={}",
            built.parent().unwrap().display()
        ))
        .env_remove("MAKEFLAGS")
        .output()
        .unwrap();
    assert!(output.status.success(), "make {target}: {output:?}");
    output
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn what_install_puts_there_works_and_uninstall_takes_it_away() {
    let home = tempfile::tempdir().unwrap();
    make("install", home.path(), "/opt/outboard");
    let root = home.path().join("opt/outboard");
    // What the documents call by its name is in PATH.
    for program in ["", "-block", "-console", "-net", "-plugin-host"] {
        let program = root.join(format!("bin/outboard{program}"));
        let output = Command::new(&program).arg("--version").output();
        assert!(output.unwrap().status.success(), "{}", program.display());
    }

    // A page for each verb that --help shows, and no other.
    let help = Command::new(root.join("bin/outboard"))
        .arg("--help")
        .output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs = verbs.take_while(|line| !line.is_empty());
    let mut pages: Vec<String> = verbs
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|verb| !verb.is_empty() && *verb != "help")
        .map(|verb| format!("outboard-{verb}.1"))
        .collect();
    assert!(pages.len() > 15, "{help}");
    pages.push("outboard.1".into());
    for page in &pages {
        let text = fs::read_to_string(root.join("share/man/man1").join(page));
        let text = text.unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".TH OUTBOARD"), "{page}: {text}");
    }

    let unit = root.join("lib/systemd/system/outboard@.service");
    let text = fs::read_to_string(&unit).unwrap();
    assert!(text.contains("=/opt/outboard/bin/outboard run ") && !text.contains("/usr/local"));

    make("uninstall", home.path(), "/opt/outboard");
    assert!(files(home.path()).is_empty(), "{:?}", files(home.path()));
}

/// Of a page the examples are read most: `man` has to leave their lines as they are.
#[test]
fn a_page_shows_examples_as_the_help_does() {
    if Command::new("man").arg("--version").output().is_err() {
        println!("SKIPPED, no page was set: there is no man");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let outboard = daemon("outboard");
    let mut man = Command::new(&outboard);
    assert!(
        man.args(["man", "--out"])
            .arg(home.path())
            .status()
            .unwrap()
            .success()
    );
    let help = Command::new(&outboard).args(["run", "--help"]).output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    let examples = help.split("Examples:\n").nth(1).unwrap();
    let page = Command::new("man")
        .arg("-l")
        .arg(home.path().join("outboard-run.1"))
        .env("MANWIDTH", "80")
        .env("LC_ALL", "C.UTF-8")
        .env_remove("MAN_KEEP_FORMATTING")
        .output()
        .unwrap();
    let page = String::from_utf8(page.stdout).unwrap();
    let lines: Vec<&str> = page.lines().map(str::trim).collect();
    assert!(
        lines.contains(&"EXAMPLES") && !lines.contains(&"EXTRA"),
        "{page}"
    );
    assert!(examples.lines().count() > 8, "{examples}");
    for line in examples.lines() {
        assert!(lines.contains(&line.trim()), "{line} is not in: {page}");
    }
}

/// In a home the unit is the user's own: where systemd looks for those, and with sockets where that
/// user's `outboard list` looks.
#[test]
fn a_home_gets_a_unit_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    make("install", root.path(), "/home/a/.local");
    let unit = root
        .path()
        .join("home/a/.local/share/systemd/user/outboard@.service");
    let text = fs::read_to_string(&unit).unwrap();
    assert!(
        text.contains("=/home/a/.local/bin/outboard run %E/outboard/%i.toml"),
        "{text}"
    );
    assert!(text.contains("WantedBy=default.target"), "{text}");
    assert!(!text.contains("XDG_RUNTIME_DIR"), "{text}");
    make("uninstall", root.path(), "/home/a/.local");
    assert!(files(root.path()).is_empty(), "{:?}", files(root.path()));
}

/// Of the unit, with the program where it is, systemd has nothing to say; of a broken one it has.
#[test]
fn systemd_takes_the_unit() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("SKIPPED, the unit was not checked: there is no systemd-analyze");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let outboard = daemon("outboard");
    let source = Path::new(ROOT).join("vmm/systemd/outboard@.service");
    let bin = outboard.parent().unwrap().display().to_string();
    let text = fs::read_to_string(source)
        .unwrap()
        .replace("/usr/local/bin", &bin);
    let path = home.path().join("outboard@web.service");
    let verify = |text: &str| {
        fs::write(&path, text).unwrap();
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Of other units of this machine it may say a lot.
        let said = said.lines().filter(|line| line.contains("outboard"));
        said.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(verify(&text).is_empty(), "{:?}", verify(&text));
    let broken = text.replace("KillMode=mixed", "KillMode=mixt");
    assert!(!verify(&broken).is_empty());
}
