//! What parent and child tell one another, over a `SOCK_SEQPACKET` pair.
//!
//! ```text
//!   parent                                  child
//!     | <- (user namespace) Maps ------------ |   only with a new user namespace
//!     | -- Go ------------------------------> |
//!     | <- Namespaces ----------------------- |   only when the parent has hooks to run
//!     | -- Cgroup + descriptors ------------> |   `tasks` files; the child joins by itself
//!     | -- Hooked + state document ---------> |   only when hooks exist
//!     | <- Terminal + descriptor ------------ |   only with a terminal
//!     | <- Listener (number) ---------------- |   only with a notifying filter
//!     | -- Go ------------------------------> |
//!     | <- Prepared ------------------------- |   waits at the gate, unless it is an exec
//!     | <- end of file ---------------------- |   the program runs
//! ```
//!
//! Instead of any message the child may send `Failed`, and ends.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Descriptors in one message: the cgroup hierarchies, and some.
pub(crate) const MAX_FDS: usize = 24;

/// Kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// The child failed: step, number of the object, errno.
    Failed = 1,
    /// The namespaces exist.
    Namespaces = 3,
    /// The master side of the terminal comes along.
    Terminal = 4,
    /// Everything is ready for the program.
    Prepared = 5,
    /// The number of the filter's listener in the child.
    Listener = 6,
    /// Go on.
    Go = 7,
    /// The files of the cgroups to join come along.
    Cgroup = 8,
    /// The parent's hooks have run; the state document comes along.
    Hooked = 9,
}

/// A message: kind and three numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// A [`Kind`], unless the peer is mad.
    pub kind: u32,
    /// Their meaning depends on the kind.
    pub numbers: [i32; 3],
}

impl Message {
    /// Whether it is of this kind.
    pub(crate) fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u32
    }
}

/// Sends a message; `body` and `fds` come along.
pub(crate) fn send(
    socket: impl AsFd,
    kind: Kind,
    numbers: [i32; 3],
    body: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<()> {
    let mut head = [0u8; 16];
    head[..4].copy_from_slice(&(kind as u32).to_ne_bytes());
    for (slot, number) in head[4..].chunks_exact_mut(4).zip(numbers) {
        slot.copy_from_slice(&number.to_ne_bytes());
    }
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    let parts = [IoSlice::new(&head), IoSlice::new(body)];
    loop {
        match sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            done => return done.map(drop),
        }
    }
}

/// Receives a message; `None` at the end of file. `body` takes what comes with it (its length is
/// returned), `fd` is called for each descriptor.
pub(crate) fn receive(
    socket: impl AsFd,
    body: &mut [u8],
    mut fd: impl FnMut(OwnedFd),
) -> Result<Option<(Message, usize)>> {
    let mut head = [0u8; 16];
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(body)];
        match recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            done => break done?.bytes,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fds.for_each(&mut fd);
        }
    }
    if received == 0 {
        return Ok(None);
    }
    let word = |at: usize| {
        let mut bytes = [0u8; 4];
        bytes.copy_from_slice(&head[at..at + 4]);
        bytes
    };
    let numbers = [4, 8, 12].map(|at| i32::from_ne_bytes(word(at)));
    Ok(Some((Message { kind: u32::from_ne_bytes(word(0)), numbers }, received.saturating_sub(16))))
}
