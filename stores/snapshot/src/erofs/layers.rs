//! Images and where they are mounted.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use berth_erofs::Image;
use berth_sys::mount::{mount_all, unmount_all};
use berth_types::{Error, Mount, Result, Usage};
use rustix::fs::IFlags;

/// How the kernel numbers EROFS (`EROFS_SUPER_MAGIC_V1`).
const MAGIC: u64 = 0xE0F5_E1E2;

/// Mounts an image, with the files that its data is in beside it, unless it is mounted there. Not for two at a time.
pub(super) fn mount(image: &Path, devices: &[PathBuf], point: &Path) -> Result<()> {
    let failed = |error| Error::io(format!("cannot mount {}", image.display()), error);
    match fs::create_dir(point) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    if is_mounted(point).map_err(failed)? {
        return Ok(());
    }
    let devices = devices.iter().map(|device| format!("device={}", device.display()));
    let mount = Mount {
        kind: "erofs".to_owned(),
        source: image.to_string_lossy().into_owned(),
        target: String::new(),
        options: ["ro".to_owned(), "loop".to_owned()].into_iter().chain(devices).collect(),
    };
    mount_all(&[mount], point).map_err(|error| {
        let number = error.raw_os_error();
        let kind = number.map_or(io::ErrorKind::Other, |number| io::Error::from_raw_os_error(number).kind());
        failed(io::Error::new(kind, error))
    })
}

/// Unmounts an image, if it is mounted there. Who uses it through an overlay keeps it.
pub(super) fn unmount(point: &Path) -> Result<()> {
    let text = || format!("cannot unmount {}", point.display());
    unmount_all(point).map_err(|error| Error::failed_precondition(text()).caused_by(error))
}

/// Whether the folder is the root of an EROFS.
fn is_mounted(point: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statfs(point)?.f_type.cast_unsigned() == MAGIC)
}

/// The files in an image, and what it takes itself; none where there is none.
pub(super) fn measure(image: &Path) -> io::Result<Option<Usage>> {
    let file = match File::open(image) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let size = file.metadata()?.blocks() * 512;
    // An image that only the kernel can read is one file.
    let inodes = Image::open(file).map_or(1, |image| image.inodes());
    Ok(Some(Usage { inodes, size }))
}

/// Lets nobody change or remove a file until it is taken back.
pub(super) fn make_immutable(image: &Path) -> io::Result<()> {
    let file = File::open(image)?;
    let flags = rustix::fs::ioctl_getflags(&file)?;
    Ok(rustix::fs::ioctl_setflags(&file, flags | IFlags::IMMUTABLE)?)
}

/// Takes it back; what is not there, or cannot have flags, needs nothing.
pub(super) fn make_mutable(image: &Path) {
    let Ok(file) = File::open(image) else { return };
    if let Ok(flags) = rustix::fs::ioctl_getflags(&file)
        && flags.contains(IFlags::IMMUTABLE)
        && let Err(error) = rustix::fs::ioctl_setflags(&file, flags - IFlags::IMMUTABLE)
    {
        tracing::warn!(image = %image.display(), %error, "cannot make an image mutable");
    }
}
