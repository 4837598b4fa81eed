//! The host as this plugin knows it: its log, and the reasons it is told.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::guard;
use crate::abi::layout::adopt;
use crate::abi::raw::*;
use crate::device::DeviceError;

static HOST: OnceLock<OutboardHost> = OnceLock::new();

/// `OutboardPlugin.init`: from now on the host is known, and what is traced here is logged there.
///
/// # Safety
/// The host's table, valid for ever.
pub unsafe extern "C" fn init(host: *const OutboardHost) -> i32 {
    guard::status(|| {
        // SAFETY: the contract.
        let host = unsafe { adopt(host) }.map_err(DeviceError::other)?;
        let _ = HOST.set(host);
        // Fails where the plugin is part of a program that traces by itself.
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let _ = tracing_subscriber::registry()
            .with(filter)
            .with(ToHost)
            .try_init();
        Ok(OUTBOARD_OK)
    })
}

/// Says why the call in progress will fail.
pub(super) fn say(reason: &str) {
    if let Some(host) = HOST.get()
        && let Some(error) = host.error
    {
        // SAFETY: the host's function, valid for ever.
        unsafe { error(host.context, OutboardStr::new(reason)) };
    }
}

thread_local! {
    /// An event is on its way.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// Hands events to the host's log.
struct ToHost;

impl<S: Subscriber> Layer<S> for ToHost {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let Some(host) = HOST.get() else { return };
        let Some(log) = host.log else { return };
        // Where the plugin is part of the host, what the host logs comes back here.
        if WITHIN.replace(true) {
            return;
        }
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => OUTBOARD_LOG_ERROR,
            Level::WARN => OUTBOARD_LOG_WARN,
            Level::INFO => OUTBOARD_LOG_INFO,
            Level::DEBUG => OUTBOARD_LOG_DEBUG,
            Level::TRACE => OUTBOARD_LOG_TRACE,
        };
        let mut line = Line::default();
        event.record(&mut line);
        let text = format!("{}{}", line.message, line.fields);
        let (target, text) = (OutboardStr::new(metadata.target()), OutboardStr::new(&text));
        // SAFETY: the host's function, valid for ever; the texts outlive the call.
        unsafe { log(host.context, level, target, text) };
        WITHIN.set(false);
    }
}

/// An event's message, and its other fields behind it.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
