//! Nobody: output is dropped.

use crate::hub::{End, Event};

/// An end without people.
#[derive(Debug)]
pub struct Discard;

impl End for Discard {
    fn output(&mut self, _bytes: &[u8]) -> bool {
        true
    }

    async fn event(&mut self, _typing: bool) -> Event {
        std::future::pending().await
    }

    async fn finish(&mut self) {}
}
