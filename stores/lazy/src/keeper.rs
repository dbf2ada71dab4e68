//! A small process that keeps the server's ends of mounts, so that those outlive whoever serves them.
//!
//! ```text
//!   berth-lazyd ── keep point + descriptor ─▶ keeper         killed, or replaced by a newer one
//!   the next one ── all? ────────────────────▶ keeper ── point + descriptor, for each ─▶ serves on
//! ```
//! A mount dies with the last descriptor of it. While nobody serves, whoever reads waits for the next server. The
//! keeper does nothing else, so it has no reason to end: it does once it keeps nothing and nobody is connected.
//!
//! One message is one packet of a unix socket that only root can reach: a letter, a path, and perhaps a descriptor.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recvmsg, sendmsg, socket_with,
};

/// Bytes of the longest packet: a letter and a path.
const PACKET: usize = 1 + 4096;
/// How long the keeper may take to answer: it waits for nobody.
const PATIENCE: Duration = Duration::from_secs(5);

const KEEP: u8 = b'k';
const DROP: u8 = b'd';
const ALL: u8 = b'a';
const DONE: u8 = b'.';

/// The keeper, as the server knows it.
#[derive(Debug)]
pub struct Keeper(OwnedFd);

impl Keeper {
    /// Connects to the keeper that listens at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// Gives a descriptor of the mount at `point` to be kept.
    pub(crate) fn keep(&self, point: &Path, device: BorrowedFd<'_>) -> io::Result<()> {
        send(&self.0, KEEP, point, Some(device))?;
        self.done()
    }

    /// The mount at `point` is no more.
    pub(crate) fn forget(&self, point: &Path) -> io::Result<()> {
        send(&self.0, DROP, point, None)?;
        self.done()
    }

    /// Copies of everything that is kept.
    pub(crate) fn all(&self) -> io::Result<HashMap<PathBuf, OwnedFd>> {
        send(&self.0, ALL, Path::new(""), None)?;
        let mut all = HashMap::new();
        loop {
            match receive(&self.0)? {
                Some((KEEP, point, Some(device))) => drop(all.insert(point, device)),
                Some((DONE, ..)) => return Ok(all),
                _ => return Err(unexpected()),
            }
        }
    }

    fn done(&self) -> io::Result<()> {
        match receive(&self.0)? {
            Some((DONE, ..)) => Ok(()),
            _ => Err(unexpected()),
        }
    }
}

/// Whether the kernel lets a mount outlive its server (Linux 6.9); only then is a keeper of use.
pub fn can_outlive() -> bool {
    berth_fuse::Device::can_be_adopted()
}

/// A socket at a path where no keeper answers, for one to listen on.
pub fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let listener = socket()?;
    drop(std::fs::remove_file(path));
    // Only root may have what is kept here.
    let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let bound = bind(&listener, &SocketAddrUnix::new(path)?);
    rustix::process::umask(umask);
    bound?;
    listen(&listener, 8)?;
    Ok(listener)
}

/// Keeps, for one server after the other. Ends when the last one has gone and nothing is kept, and removes the socket.
/// Blocking: this is all that the process does.
pub fn keep(listener: &OwnedFd, path: &Path) -> io::Result<()> {
    let mut kept = HashMap::new();
    loop {
        let server = accept_with(listener, SocketFlags::CLOEXEC)?;
        if let Err(error) = serve(&server, &mut kept) {
            tracing::warn!(%error, "a server of mounts said something strange");
        }
        if kept.is_empty() {
            return std::fs::remove_file(path);
        }
    }
}

/// Serves one connection to its end.
fn serve(server: &OwnedFd, kept: &mut HashMap<PathBuf, OwnedFd>) -> io::Result<()> {
    while let Some(message) = receive(server)? {
        match message {
            (KEEP, point, Some(device)) => drop(kept.insert(point, device)),
            (DROP, point, _) => drop(kept.remove(&point)),
            (ALL, ..) => {
                for (point, device) in &*kept {
                    send(server, KEEP, point, Some(device.as_fd()))?;
                }
            }
            _ => return Err(unexpected()),
        }
        send(server, DONE, Path::new(""), None)?;
    }
    Ok(())
}

fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn unexpected() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a message between a server of mounts and its keeper is not known",
    )
}

fn send(socket: &OwnedFd, letter: u8, point: &Path, device: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let devices = device.as_slice();
    if !devices.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(devices));
    }
    let parts = [IoSlice::new(std::slice::from_ref(&letter)), IoSlice::new(point.as_os_str().as_bytes())];
    sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message; none once the other side has gone.
fn receive(socket: &OwnedFd) -> io::Result<Option<(u8, PathBuf, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut packet = [0; PACKET];
    let length = {
        let mut parts = [IoSliceMut::new(&mut packet)];
        rustix::io::retry_on_intr(|| recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC))?
            .bytes
    };
    let device = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut devices) => devices.next(),
        _ => None,
    });
    let Some((letter, point)) = packet[..length].split_first() else { return Ok(None) };
    Ok(Some((*letter, PathBuf::from(OsStr::from_bytes(point)), device)))
}
