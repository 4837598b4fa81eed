//! How a network card is hosted: on what cable, and who is at the other end of it.

use std::net::IpAddr;

use super::description::Net;
use super::hosts::flag;
use super::{Behind, Host, Listen, Mac};

/// The user-mode network: no privileges, TCP and UDP of the guest become sockets of the host.
const PASST: &str = "passt";

/// The most queue pairs that `outboard-net` serves.
const QUEUES_MAX: u16 = 16;

/// Virtio 1.2, section 5.1.5: the least that `mtu` may say.
const MTU_MIN: u16 = 68;

/// Fills the card's address in.
pub(super) fn net_host(net: &mut Net, id: &str, default: Mac) -> Result<Host, String> {
    let cables = [
        net.tap.is_some(),
        net.user.0,
        net.stream.is_some(),
        net.stream_listen.is_some(),
        net.socket.is_some(),
        net.ip.is_some(),
        !net.fds.is_empty(),
    ];
    if cables.iter().filter(|given| **given).count() != 1 {
        return Err(format!(
            "net '{id}': give exactly one of tap=NAME, ip=ADDRESS/BITS, user, stream=PATH, \
             stream-listen=PATH and socket=PATH"
        ));
    }
    if net.forward.is_some() && !net.user.0 {
        return Err(format!(
            "net '{id}': forward is for user-mode networking; write user,forward=2222:22"
        ));
    }
    if net.create.0 && net.tap.is_none() {
        return Err(format!(
            "net '{id}': create is for a tap by its name; write tap=NAME,create=on"
        ));
    }
    check_queues(net, id)?;
    if let Some(path) = &net.socket {
        if net.mac.is_some() {
            return Err(format!(
                "net '{id}': mac is for the daemon that listens at socket=PATH to know; leave it \
                 out here"
            ));
        }
        if net.mtu.is_some() {
            return Err(format!(
                "net '{id}': mtu is for the daemon that listens at socket=PATH to know; leave it \
                 out here"
            ));
        }
        return Ok(Host::Socket { path: path.clone() });
    }
    let mac = match &net.mac {
        Some(text) => text
            .parse()
            .map_err(|why| format!("net '{id}': mac: {why}"))?,
        None => default,
    };
    net.mac = Some(mac.to_string());
    let program = "outboard-net".to_owned();
    let mut args = vec![flag("mac", mac)];
    if let Some(mtu) = net.mtu {
        if mtu < MTU_MIN {
            return Err(format!(
                "net '{id}': mtu={mtu} is out of range; choose {MTU_MIN} to 65535"
            ));
        }
        args.push(flag("mtu", mtu));
    }
    if net.user.0 {
        let forward = net.forward.as_deref().unwrap_or_default();
        let behind = passt(forward).map_err(|why| format!("net '{id}': forward: {why}"))?;
        return Ok(Host::Backed {
            program,
            args,
            behind,
        });
    }
    if !net.fds.is_empty() {
        return Ok(Host::Given {
            program,
            args,
            flag: "--tap-fd".into(),
            fds: net.fds.clone(),
        });
    }
    if let Some(ip) = &net.ip {
        args.push(flag("ip", ip));
    } else if let Some(tap) = &net.tap {
        args.push(flag("tap", tap));
        if net.create.0 {
            args.push("--create".into());
        }
        if let Some(queues) = net.queues {
            args.push(flag("queues", queues));
        }
    } else if let Some(peer) = &net.stream {
        args.push(flag("stream", peer.display()));
    } else if let Some(here) = &net.stream_listen {
        args.push(flag("stream-listen", here.display()));
    }
    Ok(Host::Process { program, args })
}

fn check_queues(net: &Net, id: &str) -> Result<(), String> {
    match net.queues {
        Some(queues) if !net.fds.is_empty() && usize::from(queues) != net.fds.len() => {
            Err(format!(
                "net '{id}': queues={queues}, with {} descriptors; give one for each pair of queues",
                net.fds.len()
            ))
        }
        Some(_) if !net.fds.is_empty() => Ok(()),
        Some(_) if net.tap.is_none() => Err(format!(
            "net '{id}': queues is for a tap; write tap=NAME,queues=2"
        )),
        Some(queues) if !(1..=QUEUES_MAX).contains(&queues) => Err(format!(
            "net '{id}': queues={queues} is out of range; choose 1 to {QUEUES_MAX}"
        )),
        _ => Ok(()),
    }
}

/// passt with the ports that `forward` names.
fn passt(forward: &str) -> Result<Behind, String> {
    let mut args: Vec<String> = ["--foreground", "--stderr", "--quiet"]
        .map(String::from)
        .to_vec();
    let mut listens = Vec::new();
    for text in forward.split('+').filter(|text| !text.is_empty()) {
        let port: Forward = text.parse()?;
        let flag = if port.udp {
            "--udp-ports"
        } else {
            "--tcp-ports"
        };
        args.extend([flag.into(), port.spec()]);
        listens.push(Listen {
            udp: port.udp,
            address: port.address,
            port: port.host,
        });
    }
    Ok(Behind {
        wire: "--stream-fd".into(),
        program: PASST.into(),
        package: PASST.into(),
        args,
        fd: "--fd".into(),
        listens,
    })
}

/// One of `forward`'s ports: `[udp:][ADDRESS/]HOST:GUEST`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Forward {
    udp: bool,
    /// The host's address to listen on; all of them when absent.
    address: Option<IpAddr>,
    host: u16,
    guest: u16,
}

impl Forward {
    /// As passt has it.
    fn spec(&self) -> String {
        let ports = format!("{}:{}", self.host, self.guest);
        match self.address {
            Some(address) => format!("{address}/{ports}"),
            None => ports,
        }
    }
}

impl std::str::FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "'{text}' is no port to forward; write HOST:GUEST, as in 2222:22, with udp: before \
                 it for UDP, ADDRESS/ before it to listen on one address, and '+' between several"
            )
        };
        let (udp, rest) = match text.strip_prefix("udp:") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("tcp:").unwrap_or(text)),
        };
        let (address, ports) = match rest.split_once('/') {
            Some((address, ports)) => (Some(address.parse().map_err(|_| refuse())?), ports),
            None => (None, rest),
        };
        let port = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err(refuse()),
            Ok(port) => Ok(port),
        };
        let (host, guest) = ports.split_once(':').ok_or_else(refuse)?;
        Ok(Self {
            udp,
            address,
            host: port(host)?,
            guest: port(guest)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::from_keyvals;
    use super::*;

    fn host(text: &str) -> Result<Host, String> {
        let mut net: Net = from_keyvals(text, None).unwrap();
        net_host(&mut net, "net0", Mac::derived("vm", 0))
    }

    #[test]
    fn a_user_network_is_passt_behind_our_card() {
        let wish = "user,mac=52:54:00:00:00:01,forward=2222:22+udp:127.0.0.1/5353:53";
        let Ok(Host::Backed { args, behind, .. }) = host(wish) else {
            panic!("not backed");
        };
        assert_eq!(args, ["--mac=52:54:00:00:00:01"]);
        assert_eq!((&*behind.program, &*behind.wire), ("passt", "--stream-fd"));
        let ports = ["--tcp-ports", "2222:22", "--udp-ports", "127.0.0.1/5353:53"];
        assert!(behind.args.ends_with(&ports.map(String::from)));
        let ports: Vec<_> = behind.listens.iter().map(|l| (l.udp, l.port)).collect();
        assert_eq!(ports, [(false, 2222), (true, 5353)]);
    }

    #[test]
    fn a_cable_to_another_vm_is_the_daemons_business() {
        for (wish, flag) in [
            ("stream=/s", "--stream=/s"),
            ("stream-listen=/s", "--stream-listen=/s"),
            ("tap=-t", "--tap=-t"),
            ("tap=t,create=on", "--create"),
            ("tap=t,create=off", "--tap=t"),
        ] {
            let Ok(Host::Process { args, .. }) = host(wish) else {
                panic!("{wish}");
            };
            assert_eq!(args.last().map(String::as_str), Some(flag), "{args:?}");
        }
    }

    #[test]
    fn contradictions_and_nonsense_are_named() {
        assert!(host("tap=a,queues=2").is_ok());
        assert!(host("user,create=on").unwrap_err().contains("for a tap"));
        assert!(host("user,queues=2").unwrap_err().contains("for a tap"));
        let why = host("socket=/s,mac=52:54:00:00:00:01").unwrap_err();
        assert!(
            why.contains("net 'net0': mac ") && why.contains("leave it out"),
            "{why}"
        );
        for queues in ["0", "17"] {
            let text = format!("tap=a,queues={queues}");
            assert!(host(&text).unwrap_err().contains("1 to 16"), "{text}");
        }
        for wish in [
            "tap=a,user",
            "mac=52:54:00:00:00:01",
            "user,stream=/s",
            "socket=/s,tap=a",
        ] {
            assert!(host(wish).unwrap_err().contains("exactly one of"), "{wish}");
        }
        assert!(
            host("tap=a,forward=1:2")
                .unwrap_err()
                .contains("user,forward=")
        );
        for ports in [
            "22", "a:b", "0:22", "22:70000", "udp:", "x/1:2", "1:2+3", "-1:2", "1:2,3:4",
        ] {
            let text = format!("user,forward={}", ports.replace(',', ",,"));
            assert!(host(&text).unwrap_err().contains("HOST:GUEST"), "{text}");
        }
    }
}
