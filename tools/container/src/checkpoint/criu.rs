//! The program `criu`, as one child for one order: `criu swrk`, and the talk with it over a socket.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use prost::Message as _;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
    recvmsg, send, socketpair,
};

use super::rpc::{Kind, Notice, Options, Request, Response};
use crate::error::{Doing as _, Error, Result};

/// The longest message; CRIU's own limit is lower.
const LONGEST: usize = 64 << 10;
/// The first descriptor that the program gets beside its standard streams: the socket.
const SOCKET: i32 = 3;
/// The first of those that the restored process may inherit.
pub(super) const FIRST_GIVEN: i32 = SOCKET + 1;
/// Where distributions have programs that CRIU runs itself (tar, ip, iptables-restore).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The point at which all processes are there and none has run yet.
const LAST_WORD: &str = "pre-resume";

/// A running `criu swrk`.
pub(super) struct Criu {
    child: Child,
    socket: OwnedFd,
}

/// Whether processes may gain privileges by what they execute. CRIU 3 does not save it (`no_new_privs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privileges {
    /// They may.
    Free,
    /// They may not.
    Fixed,
}

/// Somebody who is told of points on the way, and may object.
pub(super) trait Listener {
    /// At the point of that name (criu.org/Action_scripts); some come with a descriptor.
    fn at(&mut self, point: &str, pid: Option<i32>, fd: Option<OwnedFd>) -> Result<()>;
}

impl Criu {
    /// Starts it. `given` are its descriptors 4, 5 and on; what it restores has the `privileges` that it has.
    pub(super) fn start(given: [BorrowedFd<'_>; 5], privileges: Privileges) -> Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .doing(|| "cannot make a socket to CRIU")?;
        let [first, second, third, fourth, fifth] = given.map(|fd| fd.as_raw_fd());
        let mut command = Command::new(program()?);
        command.arg("swrk").arg(SOCKET.to_string()).env_clear().env("PATH", PATH);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        berth_sys::spawn::with_descriptors(
            &mut command,
            [theirs.as_raw_fd(), first, second, third, fourth, fifth],
        );
        if privileges == Privileges::Fixed {
            berth_sys::spawn::without_new_privileges(&mut command);
        }
        let child = command.spawn().doing(|| "cannot run criu")?;
        Ok(Self { child, socket: ours })
    }

    /// Its number; it is the process that restored ones are born from.
    pub(super) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Gives the order and waits for its end. When the listener objects, that is the error.
    pub(super) fn order(
        &self,
        kind: Kind,
        options: Options,
        listener: &mut dyn Listener,
    ) -> Result<Response> {
        let request = Request { kind: kind as i32, options: Some(Box::new(options)), ..Request::default() };
        self.send(&request)?;
        let mut objection = None;
        loop {
            let (response, fd) = self.receive()?;
            if response.kind() != Kind::Notify {
                return objection.map_or(Ok(response), Err);
            }
            let Notice { point, pid } = response.notice.unwrap_or_default();
            let point = point.unwrap_or_default();
            let heard = listener.at(&point, pid, fd);
            if point == LAST_WORD {
                // It would go on whatever it is told, and gets stuck over processes that were ended.
                heard?;
            } else if objection.is_none() {
                // The first objection is the reason; what comes after it is CRIU's tidying up.
                objection = heard.err();
            }
            let success = objection.is_none();
            self.send(&Request {
                kind: Kind::Notify as i32,
                notify_success: Some(success),
                ..Request::default()
            })?;
        }
    }

    fn send(&self, request: &Request) -> Result<()> {
        match send(&self.socket, &request.encode_to_vec(), SendFlags::NOSIGNAL) {
            // Its death is what the next receive tells.
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
            done => done.map(drop).doing(|| "cannot talk to CRIU"),
        }
    }

    fn receive(&self) -> Result<(Response, Option<OwnedFd>)> {
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC);
        let length = received.doing(|| "cannot hear from CRIU")?.bytes;
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if length == 0 {
            return Err(Error::State { what: "CRIU ended without an answer".into() });
        }
        let response = Response::decode(bytes.get(..length).unwrap_or_default()).map_err(|e| {
            Error::Step { what: "cannot read CRIU's answer".into(), source: io::Error::other(e) }
        })?;
        Ok((response, fd))
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        // All it does after its answer is to end. A caller that reaps every child may be faster.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find(name: &str) -> Option<PathBuf> {
    PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Whether CRIU would find a program of this name.
pub(super) fn has(name: &str) -> bool {
    find(name).is_some()
}

/// Where the program is.
pub(super) fn program() -> Result<PathBuf> {
    find("criu").ok_or_else(|| Error::Unsupported {
        what: "checkpoint and restore need CRIU, and there is no program criu: install it (package criu in most \
               distributions)"
            .into(),
    })
}

/// The error of an order that failed: CRIU's own word, or the first error in its log.
pub(super) fn failed(what: &str, response: &Response, log: &Path) -> Error {
    let told = response.message.clone().filter(|text| !text.is_empty()).or_else(|| first_error(log));
    let told = told.unwrap_or_else(|| match response.errno {
        Some(errno) if errno != 0 => io::Error::from_raw_os_error(errno).to_string(),
        _ => "it does not say why".into(),
    });
    Error::State { what: format!("CRIU cannot {what}: {told} (log: {})", log.display()) }
}

/// The first line of a log that tells of an error is the cause, and those after it are consequences; but programs that
/// CRIU only tries are told of too.
fn first_error(log: &Path) -> Option<String> {
    const TRIED: &str = "criu/util.c:";
    let text = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut errors = text.lines().filter(|line| line.contains("Error ("));
    let first = errors.clone().next()?;
    let line = errors.find(|line| !line.contains(TRIED)).unwrap_or(first);
    Some(line.split_once("): ").map_or(line, |(_, rest)| rest).to_owned())
}
