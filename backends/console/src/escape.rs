//! Ctrl-A commands in what a person types, as QEMU's users know them.

/// Ctrl-A: the byte that begins a command.
const PREFIX: u8 = 0x01;

/// A command that a person typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Ctrl-A x: end the VM, or leave a console attached to.
    Quit,
    /// Ctrl-A c: show the other console.
    Switch,
    /// Ctrl-A h, or anything else: say what there is.
    Help,
}

/// Finds commands in a stream of typed bytes, also across reads.
#[derive(Debug, Default)]
pub struct Escape {
    pending: bool,
}

impl Escape {
    /// Splits typed bytes into those for the guest and the commands among them, in their order.
    /// Ctrl-A Ctrl-A, or Ctrl-A a, is one Ctrl-A for the guest.
    pub fn feed(&mut self, typed: &[u8]) -> Vec<Typed> {
        let mut found = Vec::new();
        let mut bytes = Vec::new();
        for byte in typed.iter().copied() {
            if !std::mem::take(&mut self.pending) {
                match byte {
                    PREFIX => self.pending = true,
                    byte => bytes.push(byte),
                }
                continue;
            }
            let command = match byte {
                PREFIX | b'a' => {
                    bytes.push(PREFIX);
                    continue;
                }
                b'x' => Command::Quit,
                b'c' => Command::Switch,
                _ => Command::Help,
            };
            if !bytes.is_empty() {
                found.push(Typed::Bytes(std::mem::take(&mut bytes)));
            }
            found.push(Typed::Command(command));
        }
        if !bytes.is_empty() {
            found.push(Typed::Bytes(bytes));
        }
        found
    }
}

/// One piece of what was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// For the guest.
    Bytes(Vec<u8>),
    /// For us.
    Command(Command),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_also_across_reads() {
        let mut escape = Escape::default();
        assert_eq!(escape.feed(b"ls\n\x01"), [Typed::Bytes(b"ls\n".into())]);
        assert_eq!(
            escape.feed(b"cab"),
            [Typed::Command(Command::Switch), Typed::Bytes(b"ab".into())]
        );
        assert_eq!(escape.feed(b"\x01x"), [Typed::Command(Command::Quit)]);
        assert_eq!(escape.feed(b"\x01\x01q"), [Typed::Bytes(b"\x01q".into())]);
        assert_eq!(escape.feed(b"\x01?"), [Typed::Command(Command::Help)]);
    }
}
