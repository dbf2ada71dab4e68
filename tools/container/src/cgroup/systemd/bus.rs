//! As much of D-Bus as it takes to call a method of systemd's manager object.
//!
//! Source: the D-Bus specification: authentication EXTERNAL, message format version 1.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// systemd's own socket: no bus daemon between, root only.
const SOCKET: &str = "/run/systemd/private";
const DEADLINE: Duration = Duration::from_secs(30);
/// Answers are small; anything larger is not systemd.
const MAX_MESSAGE: usize = 1 << 20;

/// A value of a call.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `s`
    Text(String),
    /// `b`
    Bool(bool),
    /// `t`
    Large(u64),
    /// `au`
    Numbers(Vec<u32>),
    /// `a(sv)`
    Properties(Vec<(&'static str, Value)>),
    /// An empty array of this type.
    Nothing(&'static str),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Text(_) => "s",
            Self::Bool(_) => "b",
            Self::Large(_) => "t",
            Self::Numbers(_) => "au",
            Self::Properties(_) => "a(sv)",
            Self::Nothing(signature) => signature,
        }
    }

    fn write(&self, to: &mut Bytes) {
        match self {
            Self::Text(text) => to.text(text),
            Self::Bool(value) => to.number(u32::from(*value)),
            Self::Large(value) => {
                to.pad(8);
                to.0.extend(value.to_le_bytes());
            }
            Self::Numbers(all) => to.array(4, |to| all.iter().for_each(|n| to.number(*n))),
            Self::Properties(all) => to.array(8, |to| {
                for (name, value) in all {
                    to.pad(8);
                    to.text(name);
                    to.variant(value);
                }
            }),
            Self::Nothing(_) => to.array(8, |_| {}),
        }
    }
}

/// A message under construction; alignment counts from its start.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn pad(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.pad(4);
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.0.extend(text.bytes().chain([0]));
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.bytes().chain([0]));
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        value.write(self);
    }

    fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.number(0);
        let length = self.0.len() - 4;
        self.pad(alignment);
        let start = self.0.len();
        fill(self);
        let filled = (self.0.len() - start) as u32;
        self.0[length..length + 4].copy_from_slice(&filled.to_le_bytes());
    }
}

/// A connection to systemd.
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
}

impl Connection {
    pub(super) fn open() -> io::Result<Self> {
        let mut stream = UnixStream::connect(SOCKET)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        // The number's decimal digits, each as two hexadecimal ones.
        let digits = rustix::process::geteuid().as_raw().to_string();
        let uid = digits.chars().fold(String::new(), |hex, digit| hex + "3" + &digit.to_string());
        // All of it at once: a message that systemd reads together with the end of the authentication would lie in
        // its buffer until another one comes, and no other comes.
        stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 1024 {
                return Err(io::Error::other("systemd does not answer in D-Bus"));
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "systemd refuses this user"));
        }
        Ok(Self { stream, serial: 0 })
    }

    /// Calls a method of the manager and waits for its answer.
    pub(super) fn call(&mut self, method: &str, arguments: &[Value]) -> io::Result<()> {
        self.serial += 1;
        let message = encode(self.serial, method, arguments);
        self.stream.write_all(&message)?;
        loop {
            let (kind, fields, body) = self.message()?;
            // Signals and answers to others pass by.
            match kind {
                2 if reply_serial(&fields) == Some(self.serial) => return Ok(()),
                3 if reply_serial(&fields) == Some(self.serial) => {
                    let text = body.get(4..).unwrap_or_default();
                    let text = text.split(|b| *b == 0).next().unwrap_or_default();
                    return Err(io::Error::other(String::from_utf8_lossy(text).into_owned()));
                }
                _ => {}
            }
        }
    }

    /// Type, header fields and body of the next message.
    fn message(&mut self) -> io::Result<(u8, Vec<u8>, Vec<u8>)> {
        let mut head = [0u8; 16];
        self.stream.read_exact(&mut head)?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (body, fields) = (word(4), word(12));
        if head[0] != b'l' || body > MAX_MESSAGE || fields > MAX_MESSAGE {
            return Err(io::Error::other("systemd sent something else than a D-Bus message"));
        }
        let mut read = |length: usize| -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; length];
            self.stream.read_exact(&mut bytes).map(|()| bytes)
        };
        let fields = read(fields.next_multiple_of(8))?;
        Ok((head[1], fields, read(body)?))
    }
}

/// A method call of `org.freedesktop.systemd1.Manager`.
fn encode(serial: u32, method: &str, arguments: &[Value]) -> Vec<u8> {
    let mut body = Bytes::default();
    for argument in arguments {
        argument.write(&mut body);
    }
    let mut message = Bytes(vec![b'l', 1, 0, 1]);
    message.number(body.0.len() as u32);
    message.number(serial);
    let signature: String = arguments.iter().map(Value::signature).collect();
    let fields = [
        (1, "o", "/org/freedesktop/systemd1"),
        (2, "s", "org.freedesktop.systemd1.Manager"),
        (3, "s", method),
        (6, "s", "org.freedesktop.systemd1"),
    ];
    message.array(8, |to| {
        for (number, kind, value) in fields {
            to.pad(8);
            to.0.push(number);
            to.signature(kind);
            to.text(value);
        }
        to.pad(8);
        to.0.push(8);
        to.signature("g");
        to.signature(&signature);
    });
    message.pad(8);
    message.0.extend(body.0);
    message.0
}

/// The field with number 5, `u`.
fn reply_serial(fields: &[u8]) -> Option<u32> {
    // Fields are aligned to 8; this one's are 5, 1, 'u', 0 and the number.
    let field = fields.chunks_exact(8).find(|f| f[..4] == [5, 1, b'u', 0])?;
    Some(u32::from_le_bytes([field[4], field[5], field[6], field[7]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let message = encode(7, "StopUnit", &[Value::Text("a.scope".into()), Value::Text("replace".into())]);
        assert_eq!(&message[..4], b"l\x01\x00\x01");
        assert_eq!(message[8], 7);
        // Two strings, the second aligned to four bytes: 4 + 7 + 1, 4 + 7 + 1.
        assert_eq!(message[4], 24);
        let fields = u32::from_le_bytes(message[12..16].try_into().unwrap()) as usize;
        assert_eq!((16 + fields).next_multiple_of(8) + 24, message.len());
        let mut all = Bytes::default();
        Value::Properties(vec![("PIDs", Value::Numbers(vec![3]))]).write(&mut all);
        assert_eq!(all.0.len(), 8 + (4 + 5) + 4 + 3 + 4 + 4);
        let reply = [6, 1, b's', 0, 1, 0, 0, 0, b'x', 0, 0, 0, 0, 0, 0, 0, 5, 1, b'u', 0, 7, 0, 0, 0];
        assert_eq!(reply_serial(&reply), Some(7));
    }
}
