//! The mounts of the configuration, each onto a place found beneath the root.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use berth_sys::mount::attributes::{MountAttributes, Reach, attribute};
use rustix::fs::OFlags;
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::resolve::{self, Leaf};
use super::rootfs::{PROCFS, attach_to, change, clone_tree, joined};
use super::step::At;
use super::{Failure, Step, copy_up};
use crate::plan::{CgroupView, Filesystem, Init, Mount, Place, What};

/// `SYSFS_MAGIC` of `<linux/magic.h>`.
const SYSFS: i64 = 0x6265_6572;

/// All of them in order. The cgroup is joined before the first that shows it, else at the end.
pub(super) fn all(init: &Init, root: BorrowedFd<'_>, socket: &OwnedFd) -> std::result::Result<(), Failure> {
    let mut in_cgroup = false;
    for (n, mount) in init.mounts.iter().enumerate() {
        if matches!(mount.what, What::CgroupV1 { .. } | What::CgroupV2(_)) {
            joined(&mut in_cgroup, socket, init)?;
        }
        one(mount, root, n)?;
    }
    joined(&mut in_cgroup, socket, init)
}

fn one(mount: &Mount, root: BorrowedFd<'_>, n: usize) -> std::result::Result<(), Failure> {
    let leaf = match mount.what {
        What::Tree(_, false) => Leaf::File,
        _ => Leaf::Directory,
    };
    let place = place(mount, root, leaf, n)?;
    let made = match &mount.what {
        What::Tree(tree, _) => {
            attach_to(tree, &place).nth(Step::Mount, n)?;
            None
        }
        What::New(filesystem) if filesystem.joined.is_some() => {
            old_way(filesystem, mount.attributes, &place).nth(Step::Mount, n)?;
            return Ok(());
        }
        What::New(filesystem) => Some(create(filesystem, mount.attributes).nth(Step::Mount, n)?),
        What::CopyUp(filesystem) => {
            let made = create(filesystem, mount.attributes).nth(Step::Mount, n)?;
            copy_up::copy(place.as_fd(), made.as_fd()).nth(Step::CopyUp, n)?;
            Some(made)
        }
        What::CgroupV1 { base, hierarchies, links } => {
            let made = create(base, mount.attributes & !READ_ONLY).nth(Step::Mount, n)?;
            attach_to(&made, &place).nth(Step::Mount, n)?;
            for (name, view) in hierarchies {
                hierarchy(made.as_fd(), name, view, mount.attributes).nth(Step::Mount, n)?;
            }
            for (name, target) in links {
                rustix::fs::symlinkat(&**target, &made, &**name).nth(Step::Mount, n)?;
            }
            if mount.attributes & READ_ONLY != 0 {
                super::rootfs::read_only(&made, Reach::One).nth(Step::Mount, n)?;
            }
            return finish(mount, made.as_fd(), n);
        }
        What::CgroupV2(view) => Some(cgroup(view, mount.attributes).nth(Step::Mount, n)?),
    };
    if let Some(made) = &made {
        if mount.inherit_mode {
            same_mode(&place, made).nth(Step::Mount, n)?;
        }
        attach_to(made, &place).nth(Step::Mount, n)?;
    }
    let new = match (&made, &mount.what) {
        (Some(made), _) => made.as_fd(),
        (None, What::Tree(tree, _)) => tree.as_fd(),
        (None, _) => return Ok(()),
    };
    finish(mount, new, n)
}

const READ_ONLY: u32 = 1;

/// Finds the place of a mount, and refuses those on procfs and sysfs that the path does not own up to.
fn place(mount: &Mount, root: BorrowedFd<'_>, leaf: Leaf, n: usize) -> std::result::Result<OwnedFd, Failure> {
    let place = if mount.place == Place::Plain {
        match resolve::find_plain(root, &mount.target, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                let made = resolve::find_or_make(root, &mount.target, leaf).nth(Step::Target, n)?;
                // Made just now, and yet perhaps at the end of a link that dangled.
                let plain = resolve::find_plain(root, &mount.target, OFlags::PATH | OFlags::DIRECTORY);
                let plain = plain.nth(Step::Forbidden, n)?;
                if resolve::same(&made, &plain).nth(Step::Target, n)? { plain } else { return forbidden(n) }
            }
            Err(Errno::LOOP | Errno::NOTDIR) => return forbidden(n),
            done => done.nth(Step::Target, n)?,
        }
    } else {
        resolve::find_or_make(root, &mount.target, leaf).nth(Step::Target, n)?
    };
    let kind = resolve::filesystem(&place).nth(Step::Target, n)?;
    let fine = match kind {
        PROCFS => matches!(mount.place, Place::Proc | Place::Plain),
        SYSFS => matches!(mount.place, Place::Sys | Place::Plain),
        _ => true,
    };
    if fine { Ok(place) } else { forbidden(n) }
}

fn forbidden<T>(n: usize) -> std::result::Result<T, Failure> {
    Err(Failure { step: Step::Forbidden, index: n as i32, code: libc::EPERM })
}

/// A new filesystem as a detached mount.
pub(super) fn create(filesystem: &Filesystem, attributes: u32) -> Result<OwnedFd> {
    let context = fsopen(&*filesystem.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(source) = &filesystem.source {
        fsconfig_set_string(&context, c"source", &**source)?;
    }
    for (key, value) in &filesystem.options {
        match value {
            Some(value) => fsconfig_set_string(&context, &**key, &**value)?,
            None => fsconfig_set_flag(&context, &**key)?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A tmpfs looks like the directory that it covers, unless told otherwise.
fn same_mode(place: &OwnedFd, made: &OwnedFd) -> Result<()> {
    let mode = rustix::fs::Mode::from_raw_mode(rustix::fs::fstat(place)?.st_mode & 0o7777);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(made, c".", flags, rustix::fs::Mode::empty())?;
    rustix::fs::fchmod(directory, mode)
}

/// mount(2), for options that are too long for fsconfig(2). The place is named by its descriptor, in
/// the host's /proc, which is still there.
fn old_way(filesystem: &Filesystem, attributes: u32, place: &OwnedFd) -> Result<()> {
    let mut flags = MountFlags::from_bits_retain(attributes & 0xf);
    for (attribute, flag) in [
        (attribute::NOATIME, MountFlags::NOATIME),
        (attribute::STRICTATIME, MountFlags::STRICTATIME),
        (attribute::NODIRATIME, MountFlags::NODIRATIME),
        (attribute::NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
    ] {
        flags.set(flag, u64::from(attributes) & attribute != 0);
    }
    let mut path = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut number = place.as_raw_fd();
    let mut digits = [0u8; 10];
    let mut count = 0;
    while number > 0 || count == 0 {
        if let Some(digit) = digits.get_mut(count) {
            *digit = b'0' + (number % 10) as u8;
        }
        number /= 10;
        count += 1;
    }
    for (slot, digit) in path.iter_mut().skip(14).zip(digits.iter().take(count).rev()) {
        *slot = *digit;
    }
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| Errno::INVAL)?;
    let source = filesystem.source.as_deref().unwrap_or(&filesystem.kind);
    rustix::mount::mount(source, path, &*filesystem.kind, flags, filesystem.joined.as_deref())
}

/// A view of a cgroup hierarchy as a detached mount.
fn cgroup(view: &CgroupView, attributes: u32) -> Result<OwnedFd> {
    match view {
        CgroupView::Mount(filesystem) => create(filesystem, attributes),
        CgroupView::Bind(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let own = rustix::fs::open(&**path, flags, rustix::fs::Mode::empty())?;
            let tree = clone_tree(&own, false)?;
            let attributes = MountAttributes { set: attributes.into(), ..MountAttributes::default() };
            change(&tree, Reach::One, attributes)?;
            Ok(tree)
        }
    }
}

fn hierarchy(base: BorrowedFd<'_>, name: &CStr, view: &CgroupView, attributes: u32) -> Result<()> {
    let place = resolve::find_or_make(base, name, Leaf::Directory)?;
    attach_to(cgroup(view, attributes)?, place)
}

/// Propagation and recursive attributes, once the mount is in place.
fn finish(mount: &Mount, made: BorrowedFd<'_>, n: usize) -> std::result::Result<(), Failure> {
    for (propagation, recursive) in &mount.propagation {
        let reach = if *recursive { Reach::Tree } else { Reach::One };
        let change_to = MountAttributes { propagation: *propagation, ..MountAttributes::default() };
        change(made, reach, change_to).nth(Step::MountChange, n)?;
    }
    let (set, clear) = mount.recursive;
    if set != 0 || clear != 0 {
        let change_to = MountAttributes { set, clear, ..MountAttributes::default() };
        change(made, Reach::Tree, change_to).nth(Step::MountChange, n)?;
    }
    Ok(())
}
