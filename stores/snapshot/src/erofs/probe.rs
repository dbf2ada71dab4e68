//! Whether the kernel mounts what is written here.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use berth_erofs::Builder;
use berth_types::Error;
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_string, fsopen};

use crate::open::OpenError;

/// Tries an empty image. It is attached nowhere, so nobody sees it and it goes away by itself.
pub(super) fn supported(root: &Path) -> Result<(), OpenError> {
    if crate::overlayfs::in_user_namespace() {
        let text = "the kernel mounts EROFS for nobody in a user namespace; use overlayfs or native";
        return Err(OpenError::Skipped(text.to_owned()));
    }
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.lines().any(|line| line.trim() == "erofs") {
        let text = "the kernel has no EROFS (not in /proc/filesystems); load it with modprobe erofs";
        return Err(OpenError::Skipped(text.to_owned()));
    }
    let image = root.join(format!("probe-{}.erofs", std::process::id()));
    let made = File::create(&image).and_then(|file| {
        let builder = Builder::new(file).map_err(io::Error::other)?;
        builder.finish([0; 16]).map(drop).map_err(io::Error::other)
    });
    let tried = made.map(|()| create(&image));
    let removed = fs::remove_file(&image);
    let failed = |error| OpenError::failed(root, Error::io("cannot write an EROFS image to try it", error));
    let tried = tried.map_err(failed)?;
    removed.map_err(failed)?;
    match tried {
        Ok(()) => Ok(()),
        // Before 6.12 an image has to be a block device.
        Err(Errno::NOTBLK) if Path::new("/dev/loop-control").exists() => Ok(()),
        Err(Errno::NOTBLK) => Err(OpenError::Skipped(
            "the kernel mounts EROFS from block devices only, and there is no /dev/loop-control; Linux 6.12 needs none"
                .to_owned(),
        )),
        Err(error) => {
            Err(OpenError::Skipped(format!("the kernel refuses an EROFS image: {}", io::Error::from(error))))
        }
    }
}

fn create(image: &Path) -> Result<(), Errno> {
    let filesystem = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&filesystem, "source", image)?;
    fsconfig_create(&filesystem)
}
