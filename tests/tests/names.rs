//! VMs by their names: what a name that is wrong is told, how a defined VM is changed, and what the process
//! of a started one is.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::fs;

use outboard_tests::guest::{command, disk, has_kvm};
use outboard_tests::traces::Home;
use outboard_tests::verbs::{info, outboard, refused, succeed, verb};
use serde_json::Value;

/// Defines a VM `web` of the bare-metal guest.
fn define(home: &Home, cmdline: &str) {
    disk(home.path(), "disk.img", 64);
    let mut dry = command(cmdline);
    dry.args(["--disk", "path=disk.img", "--dry-run"]);
    home.adopt(&mut dry);
    fs::write(home.path().join("web.toml"), dry.output().unwrap().stdout).unwrap();
    let told = succeed(
        home,
        &["define", "web.toml", "--name", "web", "--output", "json"],
    );
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["name"], "web");
}

#[test]
fn an_unknown_name_has_one_message_that_names_it() {
    let home = Home::new();
    for words in [
        "start web",
        "show web",
        "edit web",
        "undefine web",
        "info web",
        "top web --once",
        "console web",
        "log web",
        "shutdown web",
        "reboot web",
        "destroy web",
        "suspend web",
        "resume web",
        "attach web --disk path=a.img",
        "detach web disk0",
    ] {
        let words: Vec<_> = words.split(' ').collect();
        let said = refused(&home, &words);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.contains("'web'") && said.contains("outboard "),
            "{said}"
        );
    }
    home.assert_left_clean();
}

#[test]
fn a_definition_is_changed_in_ones_editor_if_it_is_still_a_vms() {
    let home = Home::new();
    define(&home, "jobs=hello");
    let edit = |script: &str| {
        let editor = home.path().join("editor");
        fs::write(&editor, script).unwrap();
        let mut edit = verb(&home, &["edit", "web"]);
        edit.env("EDITOR", format!("sh {}", editor.display()));
        edit.env_remove("VISUAL");
        edit.output().unwrap()
    };
    let memory = || {
        let told = succeed(&home, &["show", "web", "--output", "json"]);
        let told: Value = serde_json::from_str(&told).unwrap();
        told["memory"]["size"].clone()
    };
    let before = memory();
    assert!(edit("true").status.success());
    let changed = edit("sed -i 's/64M/96M/' \"$1\"");
    let said = String::from_utf8(changed.stdout).unwrap();
    assert!(said.contains("from its next start on"), "{said}");
    assert_ne!(memory(), before);
    // What is no VM, and what an editor that fails has left, is not taken.
    let kept = memory();
    for script in ["echo 'memory = 3' >>\"$1\"", "echo >\"$1\"; false"] {
        let refused = edit(script);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert_eq!(memory(), kept);
        let said = String::from_utf8(refused.stderr).unwrap();
        // A person's text is never thrown away.
        if let Some((_, path)) = said.split_once("your text is in ") {
            fs::remove_file(path.trim()).unwrap();
        }
    }
}

#[test]
fn a_started_vm_is_a_process_of_its_own_with_its_name_until_it_powers_off() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    define(&home, "jobs=plug cycles=1");
    let started = succeed(&home, &["start", "web"]);
    let pid = info(&home, "web")["pid"].as_i64().unwrap();
    assert!(started.contains(&pid.to_string()), "{started}");
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let words = String::from_utf8(words).unwrap().replace('\0', " ");
    assert!(
        words.contains("run ") && words.contains("--name web"),
        "{words}"
    );
    // Behind the command's name: state, parent, group, session, terminal.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, stat) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<_> = stat.split(' ').collect();
    assert_eq!((fields[3], fields[4]), (&*pid.to_string(), "0"));

    disk(home.path(), "more.img", 16);
    succeed(&home, &["attach", "web", "--disk", "path=more.img,id=more"]);
    // The guest powers off when it has let go of it.
    outboard(&home, &["detach", "web", "more"]);
    home.assert_left_clean();
    let all = succeed(&home, &["list", "--all"]);
    assert!(
        all.contains("shut off") && all.contains("powered off"),
        "{all}"
    );
    let all = succeed(&home, &["list", "--all", "--output", "json"]);
    let all: Value = serde_json::from_str(&all).unwrap();
    assert_eq!(all[0]["reason"], "powered off");
}
