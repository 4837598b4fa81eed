//! `outboard device`: the beginnings of a device of one's own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::say;

const EXAMPLES: &str = "\
In Rust it is the device of docs/plugins.md, which answers a guest's /dev/hwrng with a text; in C a \
console that echoes. Both are whole: build it, look at it, and give it to a VM.

Example:
  outboard device new chorus && cd chorus && cargo build --release
  outboard plugin inspect target/release/libchorus.so
  outboard run --kernel vmlinuz \\
      --device plugin=target/release/libchorus.so,text=hello";

/// Where the SDK is, as this program was built.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../device-sdk");

/// The documentation, whose files are what is written.
const TUTORIAL: &str = include_str!("../../../docs/plugins.md");
const TUTORIAL_SDK: &str = "\"/usr/src/outboard/device-sdk\"";

const ECHO: &str = include_str!("../../../plugins/c-echo/echo.c");
const MAKEFILE: &str = include_str!("../../../plugins/c-echo/Makefile");
const HEADER: &str = include_str!("../../../device-sdk/include/outboard_plugin.h");

/// Begin a device of your own
#[derive(Args)]
pub(super) struct Device {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write a device plugin that builds and runs, for you to change
    #[command(after_help = EXAMPLES)]
    New {
        /// What it is called: small letters, digits and '-'. A folder of this name is made, or is
        /// there and empty
        name: String,
        /// What it is written in
        #[arg(long, value_enum, default_value_t = Language::Rust)]
        lang: Language,
        /// The folder of the SDK, for Rust; that of the sources this program was built from
        /// when absent
        #[arg(long, value_name = "DIR")]
        sdk: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
    C,
}

/// Why there is no new device.
#[derive(Debug, thiserror::Error)]
enum NewError {
    #[error(
        "'{0}' is no name for a device: begin with a small letter, then up to 31 small letters, digits and '-'"
    )]
    Name(String),
    #[error("The folder {0} is not empty; choose another name, or another place")]
    Taken(PathBuf),
    #[error(
        "There is no SDK in {0}; say where it is, by --sdk DIR: the folder device-sdk of Outboard's sources"
    )]
    NoSdk(PathBuf),
    #[error("{path} cannot be written")]
    Write { path: PathBuf, source: io::Error },
}

impl Device {
    pub(super) fn execute(self) -> ExitCode {
        let Verb::New { name, lang, sdk } = self.verb;
        let written = new(&name, lang, sdk.as_deref());
        match written {
            Ok(build) => say::answer(&build, ExitCode::SUCCESS),
            Err(error) => {
                super::complain(&error);
                ExitCode::FAILURE
            }
        }
    }
}

/// Writes the device into the folder `name`; what to do next.
fn new(name: &str, lang: Language, sdk: Option<&Path>) -> Result<String, NewError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.len() > 32
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.chars().all(allowed)
    {
        return Err(NewError::Name(name.to_owned()));
    }
    let (files, build, library) = match lang {
        Language::Rust => {
            let library = name.replace('-', "_");
            let built = format!("target/release/lib{library}.so");
            (rust(name, sdk)?, "cargo build --release", built)
        }
        Language::C => (c(name), "make", format!("lib{name}.so")),
    };
    let folder = Path::new(name);
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| NewError::Write { path, source }
    };
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(NewError::Taken(folder.to_owned()));
    }
    for (file, text) in files {
        let path = folder.join(file);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(fail(parent))?;
        fs::write(&path, text).map_err(fail(&path))?;
    }
    Ok(format!(
        "{name} is there. Next:\n  cd {name} && {build}\n  outboard plugin inspect {library}\n"
    ))
}

/// The tutorial's files, under another name.
fn rust(name: &str, sdk: Option<&Path>) -> Result<Vec<(String, String)>, NewError> {
    let sdk = sdk.unwrap_or(Path::new(SDK));
    let found = sdk.canonicalize().ok();
    let found = found.filter(|sdk| sdk.join("Cargo.toml").is_file());
    let found = found.ok_or_else(|| NewError::NoSdk(sdk.to_owned()))?;
    let found = toml::Value::String(found.display().to_string()).to_string();
    let write = |(file, text): (String, String)| {
        let text = text.replace("\"chorus\"", &format!("\"{name}\""));
        (file, text.replace(TUTORIAL_SDK, &found))
    };
    Ok(files(TUTORIAL).map(write).collect())
}

/// Files in a document: each is the code block behind `<!-- file: NAME -->`.
fn files(document: &str) -> impl Iterator<Item = (String, String)> {
    document.split("<!-- file: ").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once(" -->\n```")?;
        let (_, rest) = rest.split_once('\n')?;
        let (text, _) = rest.split_once("\n```")?;
        Some((name.to_owned(), format!("{text}\n")))
    })
}

/// The echo's files, under another name, and the header that they need.
fn c(name: &str) -> Vec<(String, String)> {
    let rename = |text: &str| {
        // By a character that no name has, for a name may have "echo" in it.
        const NAME: &str = "\u{e000}";
        text.replace("plugins/c-echo/echo.c", "\u{e000}.c")
            .replace("echo.c", "\u{e000}.c")
            .replace("libecho", "lib\u{e000}")
            .replace("-I device-sdk/include", "-I .")
            .replace("../../device-sdk/include", ".")
            .replace("OUTBOARD_STR(\"echo\")", "OUTBOARD_STR(\"\u{e000}\")")
            .replace("OUTBOARD_STR(\"c-echo\")", "OUTBOARD_STR(\"\u{e000}\")")
            .replace(NAME, name)
    };
    vec![
        (format!("{name}.c"), rename(ECHO)),
        ("Makefile".into(), rename(MAKEFILE)),
        ("outboard_plugin.h".into(), HEADER.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tutorial_has_two_files_and_names_the_sdk() {
        let files: Vec<_> = files(TUTORIAL).collect();
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Cargo.toml", "src/lib.rs"]);
        assert!(files[0].1.contains(TUTORIAL_SDK) && files[0].1.contains("\"chorus\""));
        assert!(files[1].1.contains("\"chorus\""));
    }

    #[test]
    fn nothing_of_the_echos_names_is_left_but_in_the_new_name() {
        let mine = c("mine");
        for (file, text) in &mine[..2] {
            for old in ["c-echo", "libecho", "echo.c", "device-sdk"] {
                assert!(!text.contains(old), "{old}: {file}");
            }
        }
        for name in ["myecho", "libecho", "c-echo"] {
            for ((_, text), (_, mine)) in c(name)[..2].iter().zip(&mine) {
                let as_mine = text.replace(name, "mine");
                assert_eq!(as_mine, mine.replace(name, "mine"), "{name}");
            }
        }
    }
}
