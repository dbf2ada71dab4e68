//! Calls that an agent outside answers (`SCMP_ACT_NOTIFY`).

#![expect(unsafe_code, reason = "the agent's two ioctls have no wrapper in rustix")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use berth_container::{Container, Exec, Stdio};
use berth_oci::runtime::{ContainerProcessState, OCI_VERSION, Status, SyscallRule};
use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use support::{Bundle, Pipes, Sleeping};

/// `struct seccomp_notif` of `<linux/seccomp.h>`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    architecture: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// What the agent heard, and what it was asked.
struct Heard {
    message: ContainerProcessState,
    listener: OwnedFd,
}

impl Heard {
    /// Takes one call and answers it with an error.
    fn refuse(&self, error: i32) -> Notification {
        let mut call = Notification::default();
        // SAFETY: the kernel takes and fills exactly this struct, which may hold any bits.
        let receive = unsafe {
            Updater::<{ opcode::read_write::<Notification>(b'!', 0) }, Notification>::new(&mut call)
        };
        // SAFETY: the descriptor is a filter's listener, and this is its ioctl to receive.
        unsafe { ioctl(&self.listener, receive) }.unwrap();
        let mut answer = Answer { id: call.id, error: -error, ..Answer::default() };
        // SAFETY: the kernel takes exactly this struct.
        let send = unsafe { Updater::<{ opcode::read_write::<Answer>(b'!', 1) }, Answer>::new(&mut answer) };
        // SAFETY: the descriptor is a filter's listener, and this is its ioctl to answer.
        unsafe { ioctl(&self.listener, send) }.unwrap();
        call
    }
}

/// Waits for one runtime's message at a socket.
fn agent(socket: UnixListener) -> JoinHandle<Heard> {
    std::thread::spawn(move || {
        let (stream, _) = socket.accept().unwrap();
        let mut bytes = [0; 16384];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let length = recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        assert_eq!(fds.len(), 1, "as many as the message names");
        Heard { message: serde_json::from_slice(&bytes[..length]).unwrap(), listener: fds.pop().unwrap() }
    })
}

/// A bundle whose containers ask an agent before they make a folder.
fn asking() -> Option<(Bundle, UnixListener)> {
    let mut bundle = Bundle::new()?;
    let path = bundle.path("agent");
    let socket = UnixListener::bind(&path).unwrap();
    let seccomp = bundle.linux().seccomp.get_or_insert_default();
    seccomp.listener_path = path.to_str().unwrap().into();
    seccomp.listener_metadata = "who: me".into();
    for rule in &mut seccomp.syscalls {
        rule.names.retain(|name| !name.starts_with("mkdir"));
    }
    seccomp.syscalls.push(SyscallRule {
        names: vec!["mkdir".into(), "mkdirat".into()],
        action: "SCMP_ACT_NOTIFY".into(),
        ..SyscallRule::default()
    });
    bundle.spec.annotations.insert("colour".into(), "blue".into());
    Some((bundle, socket))
}

#[test]
fn an_agent_gets_the_listener_with_the_state_and_answers_calls() {
    let Some((mut bundle, socket)) = asking() else { return };
    let heard = agent(socket);
    bundle.script("mkdir /tmp/refused || echo no; ls /tmp");
    let (made, pipes) = bundle.create().unwrap();
    let mut container = made.container;
    let heard = heard.join().unwrap();
    let pid = container.pid().unwrap();
    let message = &heard.message;
    assert_eq!((message.oci_version.as_str(), message.pid), (OCI_VERSION, pid));
    assert_eq!(
        (message.fds.as_slice(), message.metadata.as_str()),
        (&["seccompFd".to_owned()][..], "who: me")
    );
    let state = &message.state;
    assert_eq!((state.id.as_str(), state.status, state.pid), ("c", Status::Creating, pid));
    assert_eq!(state.bundle, bundle.scratch.folder().to_str().unwrap());
    assert_eq!(state.annotations.get("colour").map(String::as_str), Some("blue"));

    container.start().unwrap();
    let call = heard.refuse(libc::EDQUOT);
    // The shell's child asks, by its number out here.
    assert_ne!(call.pid as i32, 0);
    assert!([libc::SYS_mkdirat as i32, mkdir()].contains(&call.number), "{}", call.number);
    let pidfd = support::TryCloneToOwned::try_clone_to_owned(&container.pidfd().unwrap()).unwrap();
    let outcome = pipes.outcome(&pidfd);
    container.delete(berth_container::Deletion::Stopped).unwrap();
    assert_eq!(outcome.stdout, "no\n", "{outcome:?}");
    assert!(outcome.stderr.contains("quota"), "{outcome:?}");
}

#[test]
fn a_further_process_has_a_listener_of_its_own() {
    let Some((bundle, socket)) = asking() else { return };
    let first = agent(socket.try_clone().unwrap());
    let mut sleeping = Sleeping::start(bundle);
    let first = first.join().unwrap();
    let second = agent(socket);
    let container = sleeping.get();
    let process = container.default_process(&["/bin/mkdir".into(), "/tmp/refused".into()]);
    let (fds, pipes) = Pipes::new();
    let execed = container.exec(Exec { process, stdio: Stdio::Fds(fds), ..Exec::default() }).unwrap();
    let second = second.join().unwrap();
    assert_eq!(second.message.pid, execed.pid);
    assert_eq!((second.message.state.status, second.message.state.pid), (Status::Running, first.message.pid));
    assert_eq!(second.refuse(libc::EPERM).pid as i32, execed.pid);
    let outcome = pipes.outcome(&execed.pidfd);
    assert_ne!(outcome.code, 0);
    assert!(outcome.stderr.contains("not permitted"), "{outcome:?}");
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    let Some((mut bundle, socket)) = asking() else { return };
    drop(socket);
    bundle.args(&["/bin/true"]);
    let error = bundle.create().err().unwrap();
    let text = error.chain();
    let path = bundle.path("agent");
    assert!(text.contains(path.to_str().unwrap()) && text.contains("refused"), "{text}");
    assert!(matches!(
        Container::load(&bundle.path("state"), "c"),
        Err(berth_container::Error::NotFound { .. })
    ));
}

/// The number of mkdir(2), on machines that have it.
fn mkdir() -> i32 {
    #[cfg(target_arch = "x86_64")]
    return libc::SYS_mkdir as i32;
    #[cfg(not(target_arch = "x86_64"))]
    return -1;
}
