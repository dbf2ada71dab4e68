//! The removal of a link, as soon as nobody sees it.
//!
//! The kernel takes a device out of its lists at once, then waits several times until nobody can still use it before
//! it frees it: tens of milliseconds on a busy machine. Whoever removes a container's device need not wait for that.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::netlink::{PATIENCE, Socket};

/// Removes the link `name` in the namespace of both sockets, of which one has been told to watch
/// ([`Socket::watching_links`]). When this is done, no link of that name is there; the kernel may still free what it
/// had. One that is gone already is fine.
pub fn remove_link(mut socket: Socket, mut watch: Socket, name: &str) -> io::Result<()> {
    let Some(link) = socket.link(name)? else { return Ok(()) };
    let ended = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let (signal, name) = (ended.try_clone()?, name.to_owned());
    let (tell, told) = channel();
    // It ends with the kernel's answer, which always comes, or with its socket's patience.
    std::thread::Builder::new().name("remove-link".to_owned()).spawn(move || {
        let _ = tell.send(socket.delete_link(&name));
        let _ = rustix::io::write(&signal, &1u64.to_ne_bytes());
    })?;
    until_gone(&mut watch, link.index, &ended, &told)
}

fn until_gone(
    watch: &mut Socket,
    index: u32,
    ended: &OwnedFd,
    told: &Receiver<io::Result<()>>,
) -> io::Result<()> {
    let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    loop {
        let mut waits = [
            PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
        ];
        match poll(&mut waits, Some(&limit)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if let Ok(answer) = told.try_recv() {
            return answer;
        }
        if !waits[0].revents().is_empty() && watch.saw_removal(index)? {
            return Ok(());
        }
    }
}
