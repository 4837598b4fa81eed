//! vhost-user messages that are not right.

use std::io::Write;

use super::{Bench, Endpoint, Outcome, Setup, ensure};
use crate::driver::connection::{Connection, F_PROTOCOL_FEATURES, F_VERSION_1};
use crate::driver::raw::{self, Header};

/// A request no one knows is answered with a failure, and the connection goes on.
pub fn answers_unknown_requests_with_a_refusal(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    for request in [45u32, 99, 0x7fff_ffff] {
        let flags = raw::VERSION | raw::NEED_REPLY;
        let header = Header {
            request,
            flags,
            size: 8,
        };
        let answer = bench
            .driver
            .connection()
            .exchange("an unknown request", header, &[0; 8])?;
        ensure!(
            answer != 0,
            "request {request}, which does not exist, was accepted"
        );
        bench.round_trips(1)?;
    }
    Ok(())
}

/// A message with a wrong size, version, flags or length costs at most its connection.
pub fn survives_malformed_messages(endpoint: &mut dyn Endpoint) -> Outcome {
    let version = raw::VERSION;
    let cases: [(&str, Header, &[u8]); 9] = [
        (
            "an empty SET_FEATURES",
            Header {
                request: 2,
                flags: version,
                size: 0,
            },
            &[],
        ),
        (
            "a long SET_FEATURES",
            Header {
                request: 2,
                flags: version,
                size: 64,
            },
            &[0; 64],
        ),
        (
            "a version 0",
            Header {
                request: 1,
                flags: 0,
                size: 0,
            },
            &[],
        ),
        (
            "a version 3",
            Header {
                request: 1,
                flags: 3,
                size: 0,
            },
            &[],
        ),
        (
            "reserved flags",
            Header {
                request: 1,
                flags: 0xffff_fff1,
                size: 0,
            },
            &[],
        ),
        (
            "a reply out of nowhere",
            Header {
                request: 1,
                flags: 5,
                size: 8,
            },
            &[0; 8],
        ),
        (
            "a size of 4 GiB",
            Header {
                request: 5,
                flags: version,
                size: u32::MAX,
            },
            &[0; 64],
        ),
        (
            "a memory table with no files",
            Header {
                request: 5,
                flags: version,
                size: 40,
            },
            &MEM,
        ),
        (
            "a kick with no file",
            Header {
                request: 12,
                flags: version,
                size: 8,
            },
            &[0; 8],
        ),
    ];
    for (name, header, payload) in cases {
        let connection = Connection::new(endpoint.connect()?, endpoint.limit())?;
        // The device may close at once; then there is nobody to send the rest to.
        let _ = raw::send(connection.stream(), header, payload);
        drop(connection);
        works(endpoint, name)?;
    }
    Ok(())
}

/// One region of one page at address 0.
const MEM: [u8; 40] = {
    let mut bytes = [0; 40];
    bytes[0] = 1;
    bytes[17] = 0x10;
    bytes
};

/// A frontend that dies within a message costs at most its connection.
pub fn survives_half_a_message(endpoint: &mut dyn Endpoint) -> Outcome {
    for len in [0usize, 1, 11, 12, 15] {
        let stream = endpoint.connect()?;
        let header = [2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];
        // As above: it may be closed already.
        let _ = (&stream).write_all(&header[..len]);
        drop(stream);
        works(endpoint, "half a message")?;
    }
    Ok(())
}

// The requests' numbers in the vhost-user specification.
const SET_VRING_NUM: u32 = 8;
const SET_VRING_BASE: u32 = 10;
const GET_VRING_BASE: u32 = 11;
const SET_VRING_ENABLE: u32 = 18;

/// Sizes, indices and numbers of queues that cannot be are refused or ignored.
pub fn survives_nonsense_about_queues(endpoint: &mut dyn Endpoint) -> Outcome {
    let state = |index: u32, num: u32| {
        let mut bytes = index.to_ne_bytes().to_vec();
        bytes.extend(num.to_ne_bytes());
        bytes
    };
    let cases = [
        (SET_VRING_NUM, state(0, 0)),
        (SET_VRING_NUM, state(0, 3)),
        (SET_VRING_NUM, state(0, 0x1_0000)),
        (SET_VRING_NUM, state(0, u32::MAX)),
        (SET_VRING_NUM, state(u32::MAX, 64)),
        (SET_VRING_BASE, state(0, u32::MAX)),
        (SET_VRING_BASE, state(1000, 0)),
        (GET_VRING_BASE, state(1000, 0)),
        (GET_VRING_BASE, state(u32::MAX, 0)),
        (SET_VRING_ENABLE, state(1000, 1)),
        (SET_VRING_ENABLE, state(0, 7)),
    ];
    for (request, payload) in cases {
        let mut bench = Bench::negotiate(endpoint, Setup::default())?;
        let flags = raw::VERSION | raw::NEED_REPLY;
        let header = Header {
            request,
            flags,
            size: payload.len() as u32,
        };
        // Refused, ignored, or the end of the connection: all of that is survival. It answers
        // in time, or ends the connection.
        let answer = bench
            .driver
            .connection()
            .exchange("a queue request", header, &payload);
        let hung = matches!(answer, Err(crate::driver::DriverError::Deadline { .. }));
        ensure!(
            !hung,
            "request {request} with {payload:?} was never answered"
        );
        drop(bench);
        works(endpoint, "nonsense about queues")?;
    }
    Ok(())
}

/// Connections that come and go leave nothing behind, whatever they got to.
pub fn serves_one_connection_after_another(endpoint: &mut dyn Endpoint) -> Outcome {
    for _ in 0..5 {
        drop(endpoint.connect()?);
        let mut connection = Connection::new(endpoint.connect()?, endpoint.limit())?;
        let features = connection.features()?;
        let wanted = F_VERSION_1 | F_PROTOCOL_FEATURES;
        ensure!(
            features & wanted == wanted,
            "features {features:#x} on a later connection"
        );
        drop(connection);
        drop(Bench::negotiate(endpoint, Setup::default())?);
        Bench::start(endpoint, Setup::default())?.round_trips(3)?;
    }
    Ok(())
}

fn works(endpoint: &mut dyn Endpoint, after: &str) -> Outcome {
    let trip = Bench::start(endpoint, Setup::default()).and_then(|mut bench| bench.round_trips(1));
    trip.map_err(|failure| super::Failure::new(format!("after {after}: {failure}")))
}
