#![allow(clippy::arithmetic_side_effects)]

use super::super::{Files, LONGEST, Reading};
use super::run::{MOST_STEPS, STEP, Scope, Shell};
use super::script::parse;

/// No file.
struct Nothing;

impl Files for Nothing {
    fn read(&self, _: &str) -> Option<String> {
        None
    }
    fn has(&self, _: &str) -> bool {
        false
    }
}

/// Runs a script, and asks the shell that ran it.
fn after<T>(script: &str, ask: impl FnOnce(&Shell) -> T) -> T {
    let reading = Reading::new(&Nothing);
    let mut shell = Shell::new(&reading, "/boot/grub");
    shell.run(&parse(script), &mut Scope::default(), 0);
    ask(&shell)
}

/// The steps that a script takes.
fn steps(script: &str) -> usize {
    after(script, |shell| MOST_STEPS - shell.steps)
}

#[test]
fn work_is_paid_for_by_what_it_copies() {
    let long = format!("set a={}\n", "x".repeat(LONGEST - 2));
    let copies = |n: usize| steps(&format!("{long}f {}\n", "$a".repeat(n))) - steps(&long);
    assert!(copies(15) >= 15 * LONGEST / STEP - 15, "{}", copies(15));
    // More than a command may hold is nothing, and what was copied until then is paid for.
    assert!(
        copies(1000) >= 1000 + 15 * LONGEST / STEP,
        "{}",
        copies(1000)
    );
    let words = format!("set a='{}'\n", "x ".repeat(2000));
    let split = steps(&format!("{words}f $a\n")) - steps(&words);
    assert!(split >= 2000, "{split}");
    let turns = steps(&format!("{words}for x in $a; do done\n")) - steps(&words);
    assert!(turns >= 4000, "{turns}");
}

#[test]
fn a_loop_of_loops_comes_to_the_end_of_its_steps() {
    let words = format!("set a='{}'\n", "x ".repeat(2000));
    let text =
        format!("{words}for x in $a; do for y in $a; do for z in $a; do f; done; done; done\n");
    assert_eq!(steps(&text), MOST_STEPS);
    let commands = format!("{words}{}", "f $a$a$a$a$a\n".repeat((250 << 10) / 13));
    assert_eq!(steps(&commands), MOST_STEPS);
}

#[test]
fn names_of_variables_are_short() {
    let names = |len: usize| {
        after(&format!("set {}=v\n", "n".repeat(len)), |shell| {
            shell.value(&"n".repeat(len)).len()
        })
    };
    assert_eq!((names(64), names(65), names(60_000)), (1, 0, 0));
}

#[test]
fn a_condition_is_negated_as_often_as_it_says() {
    let holds = |negations: usize| {
        let script = format!("if [ {} x ]; then set a=yes; fi\n", "! ".repeat(negations));
        after(&script, |shell| shell.value("a") == "yes")
    };
    assert!(holds(0) && !holds(1) && holds(2) && !holds(3));
    assert!(holds(60_000) && !holds(60_001), "no frame for each");
    // More than a command may hold is none, and that fails as an empty test does.
    holds(125 << 10);
}
