//! The process' terminal: a pair of the container's own devpts, whose master goes to the parent.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use berth_sys::child as sys;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::{Errno, Result};

use super::resolve::{self, Leaf};
use super::rootfs::{attach_to, clone_tree};
use super::step::At;
use super::wire::{self, Kind};
use super::{Failure, Step};
use crate::plan::{Plan, Streams};

/// `DEVPTS_SUPER_MAGIC` of `<linux/magic.h>`.
const DEVPTS: i64 = 0x1cd1;

/// Puts the streams in place. `root` is the container's root while it is not the process' own yet;
/// then the terminal also becomes /dev/console.
pub(super) fn set_up(plan: &Plan, root: Option<BorrowedFd<'_>>) -> std::result::Result<(), Failure> {
    match &plan.streams {
        Streams::Inherit => Ok(()),
        Streams::Fds(fds) => streams(fds).at(Step::Streams),
        Streams::Terminal => terminal(plan, root),
    }
}

/// First out of the way of the numbers 0 to 2: one stream's source may be another's place.
fn streams(fds: &[std::os::fd::OwnedFd; 3]) -> Result<()> {
    let mut high = [0; 3];
    for (slot, fd) in high.iter_mut().zip(fds) {
        let copy = rustix::io::fcntl_dupfd_cloexec(fd, 3)?;
        *slot = std::os::fd::IntoRawFd::into_raw_fd(copy);
    }
    for (to, from) in high.into_iter().enumerate() {
        sys::duplicate_to(from, to as i32)?;
    }
    Ok(())
}

fn terminal(plan: &Plan, root: Option<BorrowedFd<'_>>) -> std::result::Result<(), Failure> {
    let own;
    let inside = if let Some(root) = root {
        root
    } else {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        own = rustix::fs::open(c"/", flags, Mode::empty()).at(Step::Terminal)?;
        own.as_fd()
    };
    let ptmx = resolve::find(inside, c"dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY);
    let master = ptmx.at(Step::Terminal)?;
    if resolve::filesystem(&master).at(Step::Terminal)? != DEVPTS {
        return Err(Errno::NOTTY).at(Step::Terminal);
    }
    sys::unlock_terminal(&master).at(Step::Terminal)?;
    let slave = sys::terminal_peer(&master).at(Step::Terminal)?;
    if let Some((rows, columns)) = plan.console_size {
        sys::terminal_size(&master, rows, columns).at(Step::Terminal)?;
    }
    let owner = Uid::from_raw(plan.program.uid);
    // In a user namespace the id may not be mapped; then the terminal stays root's.
    let _ = rustix::fs::fchown(&slave, Some(owner), None::<Gid>);
    if let Some(root) = root {
        let place = resolve::find_or_make(root, c"dev/console", Leaf::File).at(Step::Console)?;
        let mount = clone_tree(&slave, false).at(Step::Console)?;
        attach_to(&mount, &place).at(Step::Console)?;
    }
    wire::send(&plan.socket, Kind::Terminal, [0; 3], &[], &[master.as_fd()]).at(Step::Talk)?;
    sys::control_terminal(slave.as_raw_fd()).at(Step::Terminal)?;
    for to in 0..3 {
        sys::duplicate_to(slave.as_raw_fd(), to).at(Step::Streams)?;
    }
    if slave.as_raw_fd() < 3 {
        std::mem::forget(slave);
    }
    Ok(())
}
