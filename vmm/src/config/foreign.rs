//! Somebody's daemon that the VMM starts: its command line, and where it takes the connection.

use std::path::Path;

use outboard_device::daemon::socket_path;

use super::Host;

/// Stands for the number of an inherited socket that listens.
pub(crate) const FD: &str = "{fd}";
/// Stands for the path where the daemon is to listen.
const SOCKET: &str = "{socket}";
/// Stands for that path less its last character, a 0: rust-vmm's vhost-device daemons serve several
/// sockets and append to the path they are told the number of each.
const STEM: &str = "{stem}";

/// Splits `command` as a shell does, and fills the socket's path in.
pub(super) fn foreign_host(command: &str, id: &str, runtime_dir: &Path) -> Result<Host, String> {
    let words = shlex::split(command)
        .ok_or_else(|| format!("'{command}' ends within a quotation; close it"))?;
    let has = |place: &str| words.iter().any(|word| word.contains(place));
    let (place, path) = match (has(FD), has(SOCKET), has(STEM)) {
        (true, false, false) => (FD, None),
        (false, true, false) => (SOCKET, Some(format!("{id}.sock"))),
        (false, false, true) => (STEM, Some(format!("{id}.sock0"))),
        _ => {
            return Err(format!(
                "'{command}' needs one of {FD}, {SOCKET} and {STEM}, so that the daemon knows where \
                 to listen: {FD} is the number of a listening socket that it inherits, {SOCKET} a \
                 path, {STEM} a path to which it appends 0 by itself"
            ));
        }
    };
    let socket = path.map(|name| runtime_dir.join(name));
    if let Some(path) = &socket {
        socket_path::check(path).map_err(|too_long| {
            format!(
                "its socket cannot be {}: {too_long}; choose a shorter name for the VM or the \
                 device, or set XDG_RUNTIME_DIR",
                path.display()
            )
        })?;
    }
    let path = socket.as_deref().map(|path| path.display().to_string());
    let filled = |word: &String| match path.as_deref() {
        Some(path) if place == STEM => word.replace(STEM, path.trim_end_matches('0')),
        Some(path) => word.replace(SOCKET, path),
        None => word.clone(),
    };
    let Some((program, args)) = words.split_first().filter(|(first, _)| !first.is_empty()) else {
        return Err(format!("'{command}' names no program"));
    };
    Ok(Host::Foreign {
        program: program.clone(),
        args: args.iter().map(filled).collect(),
        socket,
    })
}

#[cfg(test)]
mod tests {
    use super::super::from_keyvals;
    use super::super::hosts::raw_host;
    use super::*;

    fn host(keys: &str) -> Result<Host, String> {
        let text = format!("vhost-user,id=fs,{keys}");
        let raw = from_keyvals(&text, Some("kind")).unwrap();
        raw_host(&raw, "fs0", Path::new("/run/o/vm"))
    }

    #[test]
    fn a_command_line_is_split_as_by_a_shell() {
        let asked = r#"spawn=virtiofsd --fd={fd} --shared-dir='/my files' "a,,b" c\ d"#;
        let args = ["--fd={fd}", "--shared-dir=/my files", "a,b", "c d"];
        assert_eq!(
            host(asked),
            Ok(Host::Foreign {
                program: "virtiofsd".into(),
                args: args.map(String::from).to_vec(),
                socket: None,
            })
        );
    }

    #[test]
    fn a_socket_has_its_place_in_the_folder_of_the_vm() {
        let Ok(Host::Foreign { args, socket, .. }) = host("spawn=qsd addr.path={socket},,x=y")
        else {
            panic!("not foreign");
        };
        assert_eq!(args, ["addr.path=/run/o/vm/fs0.sock,x=y"]);
        assert_eq!(socket.as_deref(), Some(Path::new("/run/o/vm/fs0.sock")));
    }

    #[test]
    fn a_daemon_may_number_its_sockets() {
        let Ok(Host::Foreign { args, socket, .. }) = host("spawn=vhost-device-rng -s {stem}")
        else {
            panic!("not foreign");
        };
        assert_eq!(args, ["-s", "/run/o/vm/fs0.sock"]);
        assert_eq!(socket.as_deref(), Some(Path::new("/run/o/vm/fs0.sock0")));
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (asked, part) in [
            ("queues=1", "socket=PATH"),
            ("socket=/s,spawn=d {fd}", "not both"),
            ("spawn=virtiofsd", "{fd}, {socket} and {stem}"),
            ("spawn=d {fd} {socket}", "needs one of"),
            ("spawn=d {stem} {socket}", "needs one of"),
            ("spawn=d '{fd}", "close it"),
            ("spawn='' {fd}", "no program"),
            ("spawn=", "needs one of"),
        ] {
            let why = host(asked).unwrap_err();
            assert!(why.contains(part) && why.contains("fs0"), "{asked}: {why}");
        }
        let raw = from_keyvals("vhost-user,id=fs,spawn=d {socket}", Some("kind")).unwrap();
        let long = format!("/{}", "x".repeat(100));
        let why = raw_host(&raw, "fs0", Path::new(&long)).unwrap_err();
        assert!(why.contains("shorter name"), "{why}");
    }
}
