//! Netlink: messages with attributes, and a socket that asks and waits for the answer (netlink(7)).
//!
//! A socket stays in the network namespace in which it was made, whoever uses it later.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink,
    recv, sendto, socket_with, sockopt,
};

const REQUEST: u16 = 0x1;
/// The kernel says when it is done.
pub(crate) const ACK: u16 = 0x4;
/// Every object of a kind.
pub(crate) const DUMP: u16 = 0x300;
/// What is there already is an error.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// What is not there is made.
pub(crate) const CREATE: u16 = 0x400;
/// After what is there.
pub(crate) const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// In the flags of an answer: something changed meanwhile, so the answers are not all there is.
const TORN: u16 = 0x10;
/// How long the kernel may take: it answers at once, so silence means that something is broken.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// How often is asked for what others change all the time.
const ATTEMPTS: u32 = 100;

/// One message being written.
#[derive(Clone, Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// A message with the fixed header of its family.
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(header);
        Self(bytes)
    }

    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.put(kind, value);
        self
    }

    /// A text that ends with a zero, as names do.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// An attribute made of attributes.
    pub(crate) fn nest(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.put(kind | NESTED, &[]);
        let mut whole = inner(self);
        let length = (whole.0.len() - start) as u16;
        whole.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        whole
    }

    /// Bytes as they are: the header that an attribute may hold before its own attributes.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn add_flags(&mut self, flags: u16) {
        let old = u16_at(&self.0, 6);
        self.0[6..8].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        self.0.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn sealed(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// An answer: what follows the netlink header.
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
}

/// A socket to one part of the kernel.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// To the links, addresses and routes of the calling thread's network namespace.
    pub fn route() -> io::Result<Self> {
        Self::open(None, 0)
    }

    /// The same, told of every change of a link from now on.
    pub fn watching_links() -> io::Result<Self> {
        const LINKS: u32 = 1;
        Self::open(None, LINKS)
    }

    /// To its packet filter.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(Some(rustix::net::netlink::NETFILTER), 0)
    }

    fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        bind(socket.as_fd(), &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Does what the message says; the kernel's refusal is the error.
    pub fn execute(&mut self, message: Message) -> io::Result<()> {
        self.sequence += 1;
        self.send(&message.sealed(self.sequence))?;
        self.answers(self.sequence, false).map(drop)
    }

    /// Does what each message says, one after the other, for one wait. What comes after a refusal is done all the
    /// same; the error is the first.
    pub fn execute_all(&mut self, messages: Vec<Message>) -> io::Result<()> {
        let (mut bytes, first) = (Vec::new(), self.sequence + 1);
        let count = messages.len() as u32;
        for mut message in messages {
            message.add_flags(ACK);
            self.sequence += 1;
            bytes.extend(message.sealed(self.sequence));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.send(&bytes)?;
        let mut refused = None;
        for sequence in first..first + count {
            if let Err(error) = self.answers(sequence, false) {
                refused = refused.or(Some(error));
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Asks, and gives every answer; `Interrupted` if they are not of one moment.
    pub(crate) fn ask(&mut self, message: Message, many: bool) -> io::Result<Vec<Answer>> {
        self.sequence += 1;
        self.send(&message.sealed(self.sequence))?;
        self.answers(self.sequence, many)
    }

    /// Asks for every object of a kind. Asks again when somebody changed them while they were told.
    pub(crate) fn dump(&mut self, question: &Message) -> io::Result<Vec<Vec<u8>>> {
        let mut attempts = 0;
        loop {
            match self.ask(question.clone(), true) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted && attempts < ATTEMPTS => {
                    attempts += 1;
                }
                other => return Ok(other?.into_iter().map(|answer| answer.body).collect()),
            }
        }
    }

    /// Sends several as one transaction, of which all or nothing happens. The last but one asks for the
    /// acknowledgement that ends the wait; refusals come without being asked for.
    pub(crate) fn transaction(&mut self, messages: Vec<Message>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let last = self.sequence + messages.len() as u32 - 1;
        for message in messages {
            self.sequence += 1;
            bytes.extend(message.sealed(self.sequence));
        }
        // A whole range of published ports is more than a socket takes by default; without room the send says so.
        let _ = sockopt::set_socket_send_buffer_size_force(&self.socket, bytes.len());
        self.send(&bytes)?;
        self.answers(last, false).map(drop)
    }

    /// Reads what has been told, and whether a link's end was among it.
    pub(crate) fn saw_removal(&mut self, index: u32) -> io::Result<bool> {
        const DELETE_LINK: u16 = 17;
        let mut buffer = vec![0; 64 * 1024];
        let (_, length) = recv(self.socket.as_fd(), &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length.min(64 * 1024)];
        let mut found = false;
        while rest.len() >= 16 {
            let size = (u32_at(rest, 0) as usize).clamp(16, rest.len());
            // The family is none: a bridge tells of its ports too.
            found |= u16_at(rest, 4) == DELETE_LINK && rest.get(16) == Some(&0) && u32_at(rest, 20) == index;
            rest = &rest[size.next_multiple_of(4).min(rest.len())..];
        }
        Ok(found)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        sendto(self.socket.as_fd(), bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    fn answers(&mut self, until: u32, many: bool) -> io::Result<Vec<Answer>> {
        let (mut found, mut torn) = (Vec::new(), false);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let (_, length) = recv(self.socket.as_fd(), &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..length.min(64 * 1024)];
            while rest.len() >= 16 {
                let size = (u32_at(rest, 0) as usize).clamp(16, rest.len());
                let (kind, flags, sequence) = (u16_at(rest, 4), u16_at(rest, 6), u32_at(rest, 8));
                let body = &rest[16..size];
                rest = &rest[size.next_multiple_of(4).min(rest.len())..];
                torn |= many && flags & TORN != 0;
                if kind == ERROR && body.len() >= 4 {
                    let code = -(u32_at(body, 0) as i32);
                    if code != 0 {
                        return Err(io::Error::from_raw_os_error(code));
                    }
                    if sequence == until {
                        return Ok(found);
                    }
                } else if kind == DONE {
                    return if torn { Err(io::ErrorKind::Interrupted.into()) } else { Ok(found) };
                } else if sequence == until {
                    found.push(Answer { body: body.to_vec() });
                    if !many {
                        return Ok(found);
                    }
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The attributes of a message or of a nested attribute; what is cut off is left out.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        if bytes.len() < 4 {
            return None;
        }
        let (length, kind) = (u16_at(bytes, 0) as usize, u16_at(bytes, 2) & 0x3fff);
        if length < 4 || length > bytes.len() {
            return None;
        }
        let value = &bytes[4..length];
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some((kind, value))
    })
}

/// The value of one attribute.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(own, _)| *own == kind).map(|(_, value)| value)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |two| u16::from_ne_bytes([two[0], two[1]]))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_lie_about_their_length_end_the_list() {
        for lie in [[0, 0, 1, 0], [3, 0, 1, 0], [200, 0, 1, 0]] {
            assert_eq!(attributes(&lie).count(), 0);
        }
        let message = Message::new(1, 0, &[]).nest(7, |inner| inner.text(1, "ab").attribute(2, &[9]));
        let body = &message.sealed(1)[16..];
        let inner = attribute(body, 7).unwrap();
        assert_eq!(attribute(inner, 1), Some(&b"ab\0"[..]));
        assert_eq!(attribute(inner, 2), Some(&[9u8][..]));
    }
}
