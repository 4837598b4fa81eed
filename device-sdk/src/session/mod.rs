//! The vhost-user session: one frontend's connection, from its first message to its last.
//!
//! The `vhost` crate parses and answers most messages; each is looked at before it is taken, and
//! those the crate does not know, or ends the connection for, are handled here. The thread that
//! calls [`serve`] is the session thread: it makes every call of [`Device`].
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod channel;
mod groups;
mod handler;
mod raw;
mod state;
#[cfg(test)]
mod tests;
mod transfer;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{debug, warn};
use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures};
use vhost::vhost_user::{BackendReqHandler, Error as ProtocolError};

use crate::counters::Counters;
use crate::device::{Device, DeviceError, chain};
use crate::memory::MemoryError;
use crate::ratelimit::RateLimit;
use crate::worker::ChangeError;
use raw::{Header, Next};
use state::State;

/// Device status bit `FEATURES_OK` (virtio 1.2, section 2.1).
const STATUS_FEATURES_OK: u8 = 8;
/// Device status bit `DEVICE_NEEDS_RESET`.
const STATUS_NEEDS_RESET: u8 = 64;

/// Why a connection ended other than by the frontend closing it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The stream failed.
    #[error("the stream to the frontend failed")]
    Stream(#[from] io::Error),
    /// The frontend sent something that has no place in the protocol.
    #[error("the frontend broke the vhost-user protocol at message {request}")]
    Protocol {
        /// The message's number.
        request: u32,
        /// What was wrong.
        #[source]
        source: ProtocolError,
    },
}

/// A request that is answered with "no". The connection goes on.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the device has no queue {0}")]
    NoSuchQueue(u32),
    #[error("feature bits {0:#x} were not offered")]
    Features(u64),
    #[error(
        "the driver has not taken VERSION_1: only drivers of virtio 1.0 and later are served \
         (in QEMU, disable-legacy=on makes a device modern)"
    )]
    Legacy,
    #[error("no ring starts before the features are agreed on")]
    NoFeatures,
    #[error("protocol feature bits {0:#x} were not offered")]
    ProtocolFeatures(u64),
    #[error("{0} cannot change while rings run")]
    Running(&'static str),
    #[error("{size} is no ring size: 1 to {most} is, and of a split ring only a power of two")]
    Size { size: u32, most: u16 },
    #[error("{0} is no base of a split ring")]
    Base(u32),
    #[error("rings without kick descriptor are not served")]
    NoKick,
    #[error("a device takes state before its first ring starts, or after a reset")]
    Started,
    #[error("no transfer of the device's state was begun")]
    NoTransfer,
    #[error("the device's state is not through: its pipe is still open")]
    Unfinished,
    #[error("no more than {0} memory regions")]
    TooManyRegions(usize),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("the device refused")]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// Serves one frontend until it closes the stream. The device is reset before this returns.
///
/// To end it from another thread, call `shutdown` on a clone of the stream.
pub fn serve<D: Device>(device: &mut D, stream: &UnixStream) -> Result<(), SessionError> {
    serve_counted(device, stream, None)
}

/// The same, and what its queues do is counted, where there is a page for it.
///
/// # Errors
/// As for [`serve`].
pub fn serve_counted<D: Device>(
    device: &mut D,
    stream: &UnixStream,
    counters: Option<Counters>,
) -> Result<(), SessionError> {
    let state = Arc::new(Mutex::new(State::new(device, counters)));
    let own = stream.try_clone()?;
    let mut handler = BackendReqHandler::from_stream(own, Arc::clone(&state));
    loop {
        let header = match raw::peek(stream)? {
            Next::End => return Ok(()),
            Next::Fragment => None,
            Next::Message(header) => Some(header),
        };
        if let Some(header) = header
            && !known_to_crate(header.request)
        {
            answer(stream, &mut lock(&state))?;
            continue;
        }
        match handler.handle_request() {
            Ok(()) => {}
            Err(ProtocolError::ReqHandlerError(refused)) => {
                warn_of(header, &refused);
            }
            Err(ProtocolError::Disconnected) => return Ok(()),
            Err(source) => {
                return Err(SessionError::Protocol {
                    request: header.map_or(0, |header| header.request),
                    source,
                });
            }
        }
    }
}

/// Says that a request is answered with "no".
fn warn_of(header: Option<Header>, refused: &(dyn std::error::Error + 'static)) {
    static LIMIT: RateLimit = RateLimit::new();
    if let Some(unseen) = LIMIT.pass() {
        let request = header.map(|header| header.request);
        let reason = chain(refused);
        warn!(?request, reason, "request refused{unseen}");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the crate handles this message. For all others it would end the connection.
fn known_to_crate(request: u32) -> bool {
    use FrontendReq as R;
    FrontendReq::try_from(request).is_ok_and(|request| {
        !matches!(
            request,
            R::SET_LOG_FD
                | R::SEND_RARP
                | R::NET_SET_MTU
                | R::SET_BACKEND_REQ_FD
                | R::IOTLB_MSG
                | R::SET_VRING_ENDIAN
                // QEMU enables a card's rings before it sends any features; the crate allows it
                // only after them.
                | R::SET_VRING_ENABLE
                | R::CREATE_CRYPTO_SESSION
                | R::CLOSE_CRYPTO_SESSION
                | R::POSTCOPY_ADVISE
                | R::POSTCOPY_LISTEN
                | R::POSTCOPY_END
                | R::VRING_KICK
                | R::SET_STATUS
                | R::GET_STATUS
        )
    })
}

/// Takes and answers a message by hand.
fn answer<D: Device>(stream: &UnixStream, state: &mut State<'_, D>) -> Result<(), SessionError> {
    let mut message = raw::receive(stream)?;
    let header = message.header;
    let done = match header.request {
        raw::GET_STATUS => {
            raw::reply(stream, header, u64::from(state.status()))?;
            return Ok(());
        }
        raw::SET_STATUS => {
            let status = message.u64().and_then(|value| u8::try_from(value).ok());
            status.map(|status| state.set_status(status)).is_some()
        }
        raw::SET_VRING_ENABLE => match message.ring_state() {
            Some((index, value @ (0 | 1))) => state
                .set_enabled(index, value == 1)
                .inspect_err(|refused| warn_of(Some(header), refused))
                .is_ok(),
            _ => false,
        },
        raw::SET_BACKEND_REQ_FD => {
            let channel = message.fds.pop();
            channel.map(|fd| state.channel.open(fd)).is_some()
        }
        _ => false,
    };
    if !done {
        debug!(?header, "message not understood");
    }
    ack(stream, state, header, done)
}

/// Acknowledges, if that was negotiated and asked for.
fn ack<D: Device>(
    stream: &UnixStream,
    state: &State<'_, D>,
    header: Header,
    done: bool,
) -> Result<(), SessionError> {
    let negotiated = state.protocol & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0;
    if negotiated && header.wants_ack() {
        raw::reply(stream, header, u64::from(!done))?;
    }
    Ok(())
}
