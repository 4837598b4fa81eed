//! A plugin under each of its hosts, as endpoints of the conformance kit.
#![allow(clippy::expect_used, clippy::panic)] // A test that has no endpoint fails by panicking.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outboard::plugin::serve::{Spec, serve};
use outboard_device::testing::{Endpoint, Expected, Outcome};

use crate::listening::Listening;

/// A plugin served in this process, as the VMM does it; loaded anew for each connection.
#[derive(Debug)]
pub struct InProcess {
    /// The library's file.
    pub library: PathBuf,
    /// The device's name in it.
    pub device: &'static str,
    /// As on the command line.
    pub options: BTreeMap<String, String>,
    /// What it is to be.
    pub expected: Expected,
}

impl Endpoint for InProcess {
    fn connect(&mut self) -> Outcome<UnixStream> {
        let spec = Spec {
            id: "under-test".into(),
            path: self.library.clone(),
            device: self.device.into(),
            options: self.options.clone(),
        };
        let served = serve(spec, Duration::from_secs(20));
        Ok(served.unwrap_or_else(|error| panic!("{error}")).0)
    }

    fn expected(&self) -> Expected {
        self.expected.clone()
    }
}

/// The plugin in a process of its own, given these `key=value`, with commas.
///
/// # Panics
/// When it cannot be started.
pub fn hosted(library: &Path, keys: &str, expected: Expected) -> Listening {
    let plugin = format!("{},{keys}", library.display());
    let dir = tempfile::tempdir().expect("a folder is made");
    Listening::start("outboard-plugin-host", ["--plugin", &plugin], dir, expected)
}
