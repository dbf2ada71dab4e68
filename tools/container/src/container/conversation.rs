//! The parent's side of the talk with the new process.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_oci::runtime::{ContainerProcessState, OCI_VERSION, Process, Spec, State};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with, socketpair,
};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::child::wire::{self, Kind, Message};
use crate::error::{Doing as _, Error, Result};
use crate::report;

/// The parent's end, and what the talk is about.
pub(super) struct Conversation<'a> {
    pub socket: &'a OwnedFd,
    pub spec: &'a Spec,
    pub process: &'a Process,
}

/// What the child asked for or reported.
pub(super) enum News {
    /// Namespaces exist.
    Namespaces,
    /// The master side of its terminal.
    Terminal(OwnedFd),
    /// Number of its filter's listener.
    Listener(i32),
    /// Ready to run its program.
    Prepared,
    /// End of file: it runs its program, or is dead.
    End,
}

/// A pair of ends.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .doing(|| "cannot make a socket to the new process")
}

impl Conversation<'_> {
    /// The next message; a failure of the child is an error here.
    pub(super) fn next(&self) -> Result<News> {
        let mut fd = None;
        let mut receive = || wire::receive(self.socket, &mut [], |received| fd = Some(received));
        let received = match receive() {
            // It has ended without reading something of ours. That is told before its last words are.
            Err(rustix::io::Errno::CONNRESET) => receive(),
            done => done,
        };
        let message = match received {
            Err(rustix::io::Errno::CONNRESET) => None,
            done => done.doing(|| "cannot hear from the new process")?,
        };
        let Some((message, _)) = message else { return Ok(News::End) };
        match (message, fd) {
            (Message { numbers, .. }, _) if message.is(Kind::Failed) => Err(match report::failure(numbers) {
                Some(failure) => report::error(failure, self.spec, self.process),
                None => broken(),
            }),
            (m, _) if m.is(Kind::Namespaces) => Ok(News::Namespaces),
            (m, Some(fd)) if m.is(Kind::Terminal) => Ok(News::Terminal(fd)),
            (m, _) if m.is(Kind::Listener) => Ok(News::Listener(m.numbers[0])),
            (m, _) if m.is(Kind::Prepared) => Ok(News::Prepared),
            _ => Err(broken()),
        }
    }

    pub(super) fn tell(&self, kind: Kind, first: i32, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        match wire::send(self.socket, kind, [first, 0, 0], body, fds) {
            // It has failed meanwhile: the reason is in the socket.
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
            done => done.doing(|| "cannot talk to the new process"),
        }
    }

    /// Hands the filter's listener to the agent that the configuration names, and lets the child go on.
    pub(super) fn listener(&self, pidfd: &OwnedFd, number: i32, pid: i32, state: State) -> Result<()> {
        let seccomp = self.spec.linux.as_ref().and_then(|l| l.seccomp.as_ref()).cloned().unwrap_or_default();
        let doing = || format!("cannot hand the seccomp listener to {}", seccomp.listener_path);
        let listener = pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).doing(doing)?;
        let document = ContainerProcessState {
            oci_version: OCI_VERSION.into(),
            fds: vec!["seccompFd".into()],
            pid,
            metadata: seccomp.listener_metadata.clone(),
            state,
        };
        let text = serde_json::to_vec(&document).unwrap_or_default();
        let path = Path::new(&seccomp.listener_path);
        send_fd(path, SocketType::STREAM, &text, listener.as_fd()).doing(doing)?;
        self.tell(Kind::Go, 0, &[], &[])
    }
}

fn broken() -> Error {
    Error::State { what: "the new process said something that was not expected".into() }
}

/// Sends bytes and a descriptor to a unix socket.
pub(crate) fn send_fd(
    path: &Path,
    kind: SocketType,
    text: &[u8],
    fd: BorrowedFd<'_>,
) -> rustix::io::Result<()> {
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(rustix::io::Errno::TOOBIG);
    }
    sendmsg(&socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL).map(drop)
}
