//! What the daemon says of requests that fail; limited, since a guest can cause any number.

use outboard_device::ratelimit::RateLimit;
use tracing::{debug, warn};

use crate::image::Image;
use crate::plan::Plan;

/// The host could not carry out `plan`. Without a `cause` the image ended before it did.
pub(crate) fn host_error(image: &Image, plan: &Plan, cause: Option<&str>) {
    static LIMIT: RateLimit = RateLimit::new();
    if let Some(unseen) = LIMIT.pass() {
        let path = image.path().display();
        let cause = cause.unwrap_or("the file has become shorter");
        warn!("Cannot {plan} '{path}': {cause}{unseen}");
    }
}

/// The guest asked for nonsense.
pub(crate) fn malformed(what: &str) {
    static LIMIT: RateLimit = RateLimit::new();
    if let Some(unseen) = LIMIT.pass() {
        debug!("Malformed request: {what}{unseen}");
    }
}
