//! What the kernel and the filesystem can do.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use crate::open::OpenError;

const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Tries an overlay of two layers on the filesystem of `root`. It is never attached anywhere, so
/// nobody sees it and it goes away by itself.
pub(crate) fn supported(root: &Path) -> Result<(), OpenError> {
    let failed = |error| {
        let text = "cannot try an overlay; the folder has to exist and be writable".to_owned();
        OpenError::failed(root, berth_types::Error::io(text, error))
    };
    fs::create_dir_all(root).map_err(failed)?;
    let probe = root.join(format!("probe-{}", std::process::id()));
    // A crashed probe of a process with the same number.
    let _ = fs::remove_dir_all(&probe);
    fs::create_dir(&probe).map_err(failed)?;
    let tried = try_overlay(&probe);
    fs::remove_dir_all(&probe).map_err(failed)?;
    match tried {
        Ok(true) => Ok(()),
        Ok(false) => Err(OpenError::Skipped(format!(
            "the filesystem of {} does not tell the types of directory entries (d_type), which overlays need; for xfs, format it with ftype=1",
            root.display()
        ))),
        Err(error)
            if matches!(Errno::from_io_error(&error), Some(Errno::NOSPC | Errno::IO | Errno::ROFS)) =>
        {
            Err(failed(error))
        }
        Err(error) => Err(OpenError::Skipped(format!(
            "the kernel refuses an overlay on the filesystem of {}: {error}; use the native snapshotter, or a root on ext4, xfs, btrfs or tmpfs",
            root.display()
        ))),
    }
}

/// Whether entries have types; an error if the mount fails.
fn try_overlay(folder: &Path) -> io::Result<bool> {
    for name in ["lower1", "lower2", "upper", "work"] {
        fs::create_dir(folder.join(name))?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = Dir::new(rustix::fs::openat(CWD, folder, flags, Mode::empty())?)?;
    for item in listed {
        if item?.file_type() == FileType::Unknown {
            return Ok(false);
        }
    }
    // The end of any other overlay flushes the whole filesystem beneath it.
    match mount_and_drop(folder, Flush::Never) {
        // Kernels before 5.10 know no such overlay.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
            mount_and_drop(folder, Flush::AtEnd)?;
        }
        done => done?,
    }
    Ok(true)
}

/// When an overlay flushes what is beneath it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Never,
    AtEnd,
}

fn mount_and_drop(folder: &Path, flush: Flush) -> io::Result<()> {
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let lower = format!("{}:{}", path("lower2"), path("lower1"));
    fsconfig_set_string(&overlay, "lowerdir", lower)?;
    fsconfig_set_string(&overlay, "upperdir", path("upper"))?;
    fsconfig_set_string(&overlay, "workdir", path("work"))?;
    if flush == Flush::Never {
        fsconfig_set_flag(&overlay, "volatile")?;
    }
    fsconfig_create(&overlay)?;
    drop(fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?);
    Ok(())
}

/// Whether overlays can stand on layers with mapped ids (Linux 5.19).
pub(crate) fn maps_ids() -> bool {
    kernel() >= (5, 19)
}

/// Whether marks have to be `user.` attributes: in a user namespace, but on tmpfs, which has none.
pub(super) fn needs_user_xattrs(root: &Path) -> bool {
    let on_tmpfs = || rustix::fs::statfs(root).is_ok_and(|fs| fs.f_type.cast_unsigned() == TMPFS_MAGIC);
    in_user_namespace() && !on_tmpfs() && kernel() >= (5, 11)
}

/// Whether the kernel knows the option `index`.
pub(super) fn knows_index() -> bool {
    Path::new("/sys/module/overlay/parameters/index").exists()
}

pub(crate) fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let numbers: Vec<&str> = map.split_whitespace().collect();
    !map.is_empty() && numbers != ["0", "0", "4294967295"]
}

fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}
