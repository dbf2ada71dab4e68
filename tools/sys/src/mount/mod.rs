//! Mounts as containerd's API describes them: kind, source, target below the root, option words.
//!
//! `mount_all` and `unmount_all` are all that snapshot users need: overlay with any number of
//! layers, bind, loop and id-mapped mounts behave as containerd's do, but that an EROFS image needs no loop device
//! where the kernel can do without. They act in the caller's
//! mount namespace and block; nothing here reads a container's files.

pub mod attributes;
mod idmap;
mod images;
pub mod info;
mod options;
mod overlay;

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_types::Mount;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, unmount};

use self::attributes::{MountAttributes, Reach, attribute, set_attributes};
pub use self::idmap::{DetachedMount, mapped_clone};
use self::options::Options;
use crate::loopdev::{LoopDevice, LoopOptions};

/// `statfs(2)` tells it as the type of an overlay.
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794C_7630;

/// Why something could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// An option word that cannot be meant.
    #[error("mount option {option:?} is not valid")]
    Option {
        /// The word, or what is wrong with several.
        option: String,
    },
    /// The folder below the target that the mount names cannot be opened.
    #[error("cannot open {below:?} below {}", target.display())]
    Target {
        /// The root of the mounts.
        target: PathBuf,
        /// The path below it.
        below: String,
        /// From the kernel.
        source: io::Error,
    },
    /// The kernel refused a mount.
    #[error("cannot mount {kind} {from:?} at {}", target.display())]
    Mount {
        /// The filesystem's type.
        kind: String,
        /// What was to be mounted.
        from: String,
        /// Where.
        target: PathBuf,
        /// From the kernel.
        source: io::Error,
    },
    /// The kernel refused to unmount.
    #[error("cannot unmount {}", target.display())]
    Unmount {
        /// What should have been unmounted.
        target: PathBuf,
        /// From the kernel.
        source: io::Error,
    },
}

impl MountError {
    /// The kernel's error number, when the kernel was the one who refused.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Option { .. } => None,
            Self::Target { source, .. } | Self::Mount { source, .. } | Self::Unmount { source, .. } => {
                source.raw_os_error()
            }
        }
    }
}

/// Mounts all of `mounts` at `target`, each over or (by its own `target`) below the one before.
///
/// On failure the ones that had been mounted are unmounted again. Blocking; not idempotent:
/// mounting twice stacks. A mount's own target is resolved inside `target`, so links in it
/// cannot lead out. Needs `CAP_SYS_ADMIN`.
pub fn mount_all(mounts: &[Mount], target: &Path) -> Result<(), MountError> {
    for (done, mount) in mounts.iter().enumerate() {
        if let Err(error) = mount_at(mount, target) {
            for earlier in mounts[..done].iter().rev() {
                // The first error is the one to tell; what cannot be undone stays visible as a mount.
                let _ = unmount_below(target, &earlier.target);
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Mounts one of containerd's mounts at `target`.
pub fn mount_at(mount: &Mount, target: &Path) -> Result<(), MountError> {
    let options = Options::parse(&mount.options)?;
    let below = open_below(target, &mount.target)?;
    let point = below.as_ref().map_or(Cow::Borrowed(target), |fd| Cow::Owned(fd_path(fd)));
    perform(mount, &point, options).map_err(|source| MountError::Mount {
        kind: mount.kind.clone(),
        from: mount.source.clone(),
        target: target.join(mount.target.trim_start_matches('/')),
        source,
    })
}

/// Unmounts everything stacked at `target`; fine when nothing is, or when the path is gone.
///
/// A mount that is in use, or has others below it, is detached: it vanishes from the tree now and
/// from the kernel with its last user. Blocking.
pub fn unmount_all(target: &Path) -> Result<(), MountError> {
    loop {
        match unmount_one(target) {
            Ok(()) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOENT | libc::ENOTDIR)) => {
                return Ok(());
            }
            Err(source) => return Err(MountError::Unmount { target: target.to_owned(), source }),
        }
    }
}

/// Overlays that were mounted somewhere and are not any more: they end when this is dropped, if nothing else is
/// in them. That means waiting until what was written beneath them is on disk.
#[derive(Debug, Default)]
#[must_use = "dropping it is the part that takes time"]
pub struct Detached(Vec<OwnedFd>);

/// Takes everything stacked at `target` out of the tree at once; fine when nothing is, or when the path is gone.
///
/// The path is free when it returns. What the kernel has to write to end an overlay is left to the drop of the answer,
/// which may block for as long as the disk takes. Any other filesystem has ended, if nothing else is in it: another
/// mount of its device must not find it half written.
pub fn detach_all(target: &Path) -> Result<Detached, MountError> {
    let failed = |source| MountError::Unmount { target: target.to_owned(), source };
    let mut detached = Detached::default();
    loop {
        // Held, so that taking it away is not yet its end.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = match rustix::fs::openat(CWD, target, flags, Mode::empty()) {
            Ok(top) => top,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(detached),
            Err(error) => return Err(failed(error.into())),
        };
        match unmount(target, UnmountFlags::NOFOLLOW.union(UnmountFlags::DETACH)) {
            Ok(()) if is_overlay(&top) => detached.0.push(top),
            Ok(()) => drop(top),
            // No mount point any more.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => return Ok(detached),
            Err(error) => return Err(failed(error.into())),
        }
    }
}

fn is_overlay(root: &OwnedFd) -> bool {
    rustix::fs::fstatfs(root).is_ok_and(|found| found.f_type as u64 == OVERLAYFS_SUPER_MAGIC)
}

/// Takes the one mount on top at `target` out of the tree. It goes on for those who have files of it open.
pub fn detach(target: &Path) -> Result<(), MountError> {
    let failed = |error: Errno| MountError::Unmount { target: target.to_owned(), source: error.into() };
    unmount(target, UnmountFlags::NOFOLLOW.union(UnmountFlags::DETACH)).map_err(failed)
}

fn unmount_one(target: &Path) -> io::Result<()> {
    match unmount(target, UnmountFlags::NOFOLLOW) {
        Err(Errno::BUSY) => Ok(unmount(target, UnmountFlags::NOFOLLOW.union(UnmountFlags::DETACH))?),
        other => Ok(other?),
    }
}

/// Unmounts one layer of what is mounted at `below` inside `target`.
fn unmount_below(target: &Path, below: &str) -> Result<(), MountError> {
    let failed = |source| MountError::Unmount { target: target.join(below.trim_start_matches('/')), source };
    let Some(fd) = open_below(target, below)? else { return unmount_one(target).map_err(failed) };
    // The path names the mounted root itself through the magic link, which NOFOLLOW would refuse; our
    // own descriptor keeps it busy, hence DETACH.
    unmount(fd_path(&fd), UnmountFlags::DETACH).map_err(|e| failed(e.into()))
}

fn open_below(target: &Path, below: &str) -> Result<Option<OwnedFd>, MountError> {
    if below.is_empty() || below == "/" {
        return Ok(None);
    }
    let open = || {
        let root = rustix::fs::openat(CWD, target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(root, below, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    };
    open().map(Some).map_err(|e| MountError::Target {
        target: target.to_owned(),
        below: below.to_owned(),
        source: e.into(),
    })
}

/// A path that leads exactly to an open file.
fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn perform(mount: &Mount, point: &Path, mut options: Options) -> io::Result<()> {
    if options.bind() {
        return bind(Path::new(&mount.source), point, &options);
    }
    let mapped = !options.uids.is_empty();
    if mapped && mount.kind != "overlay" {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "only bind and overlay mounts can map ids"));
    }
    let layers = if mapped {
        overlay::MappedLayers::prepare(&mut options.data, &options.uids, &options.gids)?
    } else {
        None
    };
    if mount.kind == "overlay" {
        let data = overlay::join(&options.data)?;
        overlay::mount(&mount.source, point, options.flags, &data)?;
        drop(layers); // kept until here: overlay has just taken its own references
        return Ok(());
    }
    if mount.kind == "erofs" {
        return images::mount(&mount.source, point, &options);
    }
    let data = std::ffi::CString::new(options.data.join(","))?;
    if data.as_bytes().len() >= 4096 {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let device = options.looped.then(|| attach(mount, &options)).transpose()?;
    let source = device.as_ref().map_or(Path::new(&mount.source), |d| &d.path);
    Ok(rustix::mount::mount(source, point, &*mount.kind, options.flags, data.as_c_str())?)
}

fn attach(mount: &Mount, options: &Options) -> io::Result<LoopDevice> {
    let read_only = options.flags.contains(MountFlags::RDONLY);
    LoopDevice::attach(Path::new(&mount.source), LoopOptions { read_only, ..LoopOptions::default() })
}

fn bind(source: &Path, point: &Path, options: &Options) -> io::Result<()> {
    let reach = if options.flags.contains(MountFlags::REC) { Reach::Tree } else { Reach::One };
    let bits = options.attributes();
    if bits == 0 && options.uids.is_empty() {
        return Ok(rustix::mount::mount(source, point, "", options.flags, None)?);
    }
    let mount = if options.uids.is_empty() {
        DetachedMount::clone_of(source, reach)?
    } else {
        mapped_clone(source, reach, &crate::userns::open(&options.uids, &options.gids)?)?
    };
    let clear = if bits & attribute::ATIME == 0 { 0 } else { attribute::ATIME };
    let attributes = MountAttributes { set: bits, clear, ..MountAttributes::default() };
    // As mount(8) and containerd do, `ro` holds for the mount itself and not for those below it.
    set_attributes(&mount, c"", Reach::One, &attributes)?;
    mount.attach(point)
}
