//! Ports of the host that a program is to listen on, looked at before it is started: passt goes on with the
//! half of them that it can have, IPv4's or IPv6's, and says nothing.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use nix::libc;

use crate::config::Listen;
use crate::supervisor::Error;

/// Whether the port can be listened on, at this address or at all of them.
pub(super) fn check(listen: &Listen) -> Result<(), Error> {
    let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    match &listen.address {
        Some(address) => try_at(listen, *address),
        None => all
            .into_iter()
            .try_for_each(|address| try_at(listen, address)),
    }
}

fn try_at(listen: &Listen, address: IpAddr) -> Result<(), Error> {
    let at = SocketAddr::new(address, listen.port);
    let (protocol, tried) = if listen.udp {
        ("UDP", UdpSocket::bind(at).map(drop))
    } else {
        ("TCP", TcpListener::bind(at).map(drop))
    };
    match tried {
        Err(error) if listen.address.is_none() && is_of_no_host(&error) => Ok(()),
        tried => tried.map_err(|source| Error::Port {
            protocol,
            at,
            remedy: remedy(listen, &source),
            source,
        }),
    }
}

/// The host does without one of the protocols.
fn is_of_no_host(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    errno.is_some_and(|errno| [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL].contains(&errno))
}

fn remedy(listen: &Listen, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "another program has it, or another VM's forward (ss -{}lnp 'sport = :{}' names it): end that, \
             or forward another port",
            if listen.udp { 'u' } else { 't' },
            listen.port
        ),
        ErrorKind::AddrNotAvailable => "forward an address that the host has (ip address)".into(),
        ErrorKind::PermissionDenied => "forward a port above 1023".into(),
        _ => "forward another port".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_in_half_is_refused_by_number() {
        for taken in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            // A host may do without IPv6.
            let Ok(listener) = TcpListener::bind(taken) else {
                assert!(taken.starts_with('['), "{taken}");
                continue;
            };
            let at = listener.local_addr().unwrap();
            let listen = |address| Listen {
                udp: false,
                address,
                port: at.port(),
            };
            for address in [None, Some(at.ip())] {
                let why = check(&listen(address)).unwrap_err().to_string();
                for part in [
                    &*format!("TCP port {} ", at.port()),
                    "ss -tlnp",
                    "another VM",
                ] {
                    assert!(why.contains(part), "{taken}, {address:?}: {part} in {why}");
                }
            }
            drop(listener);
            check(&listen(None)).unwrap();
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut listen = Listen {
            udp: true,
            address: None,
            port: socket.local_addr().unwrap().port(),
        };
        let why = check(&listen).unwrap_err().to_string();
        assert!(
            why.contains("UDP port") && why.contains("ss -ulnp"),
            "{why}"
        );
        // TEST-NET-1 of RFC 5737 is nobody's.
        listen.address = Some([192, 0, 2, 1].into());
        let why = check(&listen).unwrap_err().to_string();
        assert!(
            why.contains("192.0.2.1") && why.contains("ip address"),
            "{why}"
        );
    }
}
