//! The container's root filesystem: mounted, filled, switched to, closed off.

use std::os::fd::{AsFd, OwnedFd};

use berth_sys::mount::attributes::{MountAttributes, Reach, attribute, set_attributes};
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, mount_move,
    move_mount, open_tree, unmount,
};

use super::step::At;
use super::wire::Kind;
use super::{Failure, Step, await_cgroup, check, console, dev, hooks, mounts, resolve, wire};
use crate::plan::{Init, Plan, Task};

/// `PROC_SUPER_MAGIC` of `<linux/magic.h>`.
pub(super) const PROCFS: i64 = 0x9fa0;

/// From an inherited view of the host to a process that sees only the container.
pub(super) fn build(plan: &mut Plan) -> std::result::Result<(), Failure> {
    let root = {
        let Task::Init(init) = &plan.task else { return Ok(()) };
        attach(init)?
    };
    {
        let Task::Init(init) = &plan.task else { return Ok(()) };
        mounts::all(init, root.as_fd(), &plan.socket)?;
        if init.own_dev {
            dev::links(root.as_fd()).at(Step::DevLinks)?;
        }
        dev::devices(init, root.as_fd())?;
    }
    console::set_up(plan, Some(root.as_fd()))?;
    create_hooks(plan)?;
    let Task::Init(init) = &plan.task else { return Ok(()) };
    switch(init, &root).at(Step::Pivot)?;
    drop(root);
    finish(init)
}

/// Makes what is inherited private, and attaches the root filesystem over its path.
fn attach(init: &Init) -> std::result::Result<OwnedFd, Failure> {
    let flags = MountPropagationFlags::from_bits_retain(init.inherited_propagation as u32);
    mount_change(c"/", flags | MountPropagationFlags::REC).at(Step::Propagation)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&init.root, c"", CWD, &*init.root_path, flags).at(Step::RootMount)?;
    // The descriptor of a mount is a descriptor of its root directory, wherever it is attached.
    let root = open_in(&init.root, OFlags::RDONLY | OFlags::DIRECTORY).at(Step::RootMount)?;
    rustix::process::fchdir(&root).at(Step::RootMount)?;
    Ok(root)
}

fn open_in(directory: &OwnedFd, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::openat(directory, c".", flags | OFlags::CLOEXEC, Mode::empty())
}

/// Waits until the parent's own hooks have run, then runs those of the container's making.
fn create_hooks(plan: &mut Plan) -> std::result::Result<(), Failure> {
    let Task::Init(init) = &mut plan.task else { return Ok(()) };
    if !init.report_namespaces {
        return Ok(());
    }
    let message = wire::receive(&plan.socket, &mut init.state, drop);
    let first = message.as_ref().map_or(0, |m| m.map_or(0, |(m, _)| m.numbers[0]));
    let length = check(message, Kind::Hooked)?;
    // Only the length changes: bytes need no dropping and the memory stays.
    init.state.truncate(length);
    init.created_at = usize::try_from(first).unwrap_or(0).min(length);
    let state = init.state.get(..init.created_at).unwrap_or_default();
    for (n, hook) in init.create_hooks.iter().enumerate() {
        hooks::call(hook, state, Step::CreateHook, n)?;
    }
    Ok(())
}

/// Makes the root the process' `/`, and lets go of everything else.
fn switch(init: &Init, root: &OwnedFd) -> Result<()> {
    rustix::process::fchdir(root)?;
    if init.move_root {
        mount_move(c".", c"/")?;
        rustix::process::chroot(c".")?;
    } else {
        let old = open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        // The old root ends up stacked over the new one: no folder of the container is needed for it.
        rustix::process::pivot_root(c".", c".")?;
        // By its own descriptor: the working directory's name would mean the new one, and its volumes would be cut off
        // from the host that shares them.
        rustix::process::fchdir(&old)?;
        mount_change(c".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        unmount(c".", UnmountFlags::DETACH)?;
    }
    rustix::process::chdir(c"/")
}

/// What is done with the new root in place.
fn finish(init: &Init) -> std::result::Result<(), Failure> {
    let root = open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.at(Step::Pivot)?;
    for (n, mount) in init.mounts.iter().enumerate().filter(|(_, m)| m.late_readonly) {
        let place = resolve::find(root.as_fd(), &mount.target, OFlags::PATH);
        place.and_then(|place| read_only(&place, Reach::One)).nth(Step::MountChange, n)?;
    }
    if !init.hostname.is_empty() {
        rustix::system::sethostname(&init.hostname).at(Step::Hostname)?;
    }
    if !init.domainname.is_empty() {
        rustix::system::setdomainname(&init.domainname).at(Step::Domainname)?;
    }
    sysctls(init, &root)?;
    for (n, path) in init.readonly.iter().enumerate() {
        readonly_path(&root, path).nth(Step::Readonly, n)?;
    }
    mask(init, &root)?;
    if let Some((flags, recursive)) = init.root_propagation {
        let mut flags = MountPropagationFlags::from_bits_retain(flags as u32);
        flags.set(MountPropagationFlags::REC, recursive);
        mount_change(c"/", flags).at(Step::Propagation)?;
    }
    if init.root_readonly {
        read_only(&root, Reach::One).at(Step::RootMount)?;
    }
    Ok(())
}

pub(super) fn read_only(mount: impl AsFd, reach: Reach) -> Result<()> {
    change(mount, reach, MountAttributes { set: attribute::RDONLY, ..MountAttributes::default() })
}

pub(super) fn change(mount: impl AsFd, reach: Reach, attributes: MountAttributes) -> Result<()> {
    // io::Error of a system call is a number: nothing is allocated.
    set_attributes(mount, c"", reach, &attributes)
        .map_err(|e| Errno::from_raw_os_error(e.raw_os_error().unwrap_or(libc::EIO)))
}

/// Kernel parameters, through a procfs that no other process can have put something into. Inside a
/// user namespace a new procfs may be refused: then through the container's, if it is one.
fn sysctls(init: &Init, root: &OwnedFd) -> std::result::Result<(), Failure> {
    if init.sysctl.is_empty() {
        return Ok(());
    }
    let base = own_procfs().or_else(|_| checked_procfs(root)).at(Step::Sysctl)?;
    for (n, (path, value)) in init.sysctl.iter().enumerate() {
        let file = resolve::find_plain(base.as_fd(), path, OFlags::WRONLY | OFlags::TRUNC);
        file.and_then(|file| rustix::io::write(file, value)).nth(Step::Sysctl, n)?;
    }
    Ok(())
}

fn own_procfs() -> Result<OwnedFd> {
    let context = fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    resolve::find_plain(mount.as_fd(), c"sys", OFlags::PATH | OFlags::DIRECTORY)
}

fn checked_procfs(root: &OwnedFd) -> Result<OwnedFd> {
    let sys = resolve::find_plain(root.as_fd(), c"proc/sys", OFlags::PATH | OFlags::DIRECTORY)?;
    if resolve::filesystem(&sys)? == PROCFS { Ok(sys) } else { Err(Errno::OPNOTSUPP) }
}

/// A tree cloned from `place` itself.
pub(super) fn clone_tree(place: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(place, c"", flags)
}

/// Attaches a detached mount to a place, both by descriptor.
pub(super) fn attach_to(mount: impl AsFd, place: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", place, c"", flags)
}

/// A path that does not exist needs no protection.
fn absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR)
}

fn readonly_path(root: &OwnedFd, path: &std::ffi::CStr) -> Result<()> {
    let place = match resolve::find(root.as_fd(), path, OFlags::PATH) {
        Err(errno) if absent(errno) => return Ok(()),
        done => done?,
    };
    let copy = clone_tree(&place, true)?;
    read_only(&copy, Reach::Tree)?;
    attach_to(&copy, &place)
}

/// Hides paths: a file behind the host's null device (by a mount that is read-only), a directory
/// behind an empty tmpfs that all of them share.
fn mask(init: &Init, root: &OwnedFd) -> std::result::Result<(), Failure> {
    // A detached mount cannot be cloned, an attached one can: the first of each kind is the original.
    let mut empty: Option<OwnedFd> = None;
    let mut null_used = false;
    for (n, path) in init.masked.iter().enumerate() {
        let place = match resolve::find(root.as_fd(), path, OFlags::PATH) {
            Err(errno) if absent(errno) => continue,
            done => done.nth(Step::Mask, n)?,
        };
        let kind = rustix::fs::fstat(&place).nth(Step::Mask, n)?.st_mode & libc::S_IFMT;
        if kind == libc::S_IFDIR {
            let cover = match &empty {
                Some(first) => clone_tree(first, false),
                None => empty_directory(),
            };
            let cover = cover.nth(Step::Mask, n)?;
            attach_to(&cover, &place).nth(Step::Mask, n)?;
            empty.get_or_insert(cover);
        } else if null_used {
            let cover = clone_tree(&init.null, false);
            cover.and_then(|cover| attach_to(&cover, &place)).nth(Step::Mask, n)?;
        } else {
            attach_to(&init.null, &place).nth(Step::Mask, n)?;
            null_used = true;
        }
    }
    Ok(())
}

fn empty_directory() -> Result<OwnedFd> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"size", c"4k")?;
    fsconfig_set_string(&context, c"mode", c"755")?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Joins the cgroup unless that was done already.
pub(super) fn joined(done: &mut bool, socket: &OwnedFd, init: &Init) -> std::result::Result<(), Failure> {
    if *done {
        return Ok(());
    }
    *done = true;
    await_cgroup(socket, init)
}
