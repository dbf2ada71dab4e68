//! Mounting in an activation's folder, and the end of it.
//!
//! ```text
//!   N/record    what the activation is, see [`crate::record`]
//!   N/3         a mount; the first of a list has the highest number, so they end in the order of the numbers
//!   N/2         of a loop device: a link to it
//!   N/2-file    and which file it is attached to
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_sys::loopdev::{LoopDevice, LoopOptions};
use berth_sys::mount::{MountError, mount_at, unmount_all};
use berth_types::{ActiveMount, Error, Labels, Mount, Result};

use crate::roots::failed;

/// The option with which an image asks to be verified, and where its hashes are.
const VERITY: &str = "X-containerd.dmverity=";
const FILE: &str = "-file";

/// A type of mount that clients leave to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    /// An EROFS image, mounted as a file or by loop devices.
    Erofs,
    /// A file as a block device.
    Loop,
}

impl Handler {
    /// The handler of a type.
    pub(crate) fn of(kind: &str) -> Option<Self> {
        match kind {
            "erofs" => Some(Self::Erofs),
            "loop" => Some(Self::Loop),
            _ => None,
        }
    }
}

/// What a performed mount is called, of so many: in the order in which they are ended.
pub(crate) fn name(index: usize, count: usize) -> String {
    let (order, width) = (count - index, count.to_string().len());
    format!("{order:0width$}")
}

/// Performs a mount. What is made of it when it fails goes with the folder.
pub(crate) fn perform(mut mount: Mount, folder: &Path, name: &str) -> Result<ActiveMount> {
    let point = folder.join(name);
    match Handler::of(&mount.kind) {
        Some(Handler::Loop) => device(&mount, &point)?,
        Some(Handler::Erofs) => {
            if let Some(option) = mount.options.iter().find(|option| option.starts_with(VERITY)) {
                return Err(Error::failed_precondition(format!(
                    "the image {} is to be verified ({option}), and berth cannot make dm-verity devices: set dmverity_mode = \"off\" where the snapshot was made",
                    mount.source
                )));
            }
            at(&mount, &point)?;
            mount.options.retain(|option| option != "loop");
        }
        None => at(&mount, &point)?,
    }
    let point = point.display().to_string();
    Ok(ActiveMount { mount, mounted_at: Some(SystemTime::now()), point, data: Labels::new() })
}

fn at(mount: &Mount, point: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(0o700).create(point).map_err(|error| failed("make", point, error))?;
    if Handler::of(&mount.kind) == Some(Handler::Erofs)
        && !mount.options.iter().any(|option| option == "loop")
    {
        // A file is a file, whether the list says so or not.
        let mut mount = mount.clone();
        mount.options.push("loop".to_owned());
        return mount_at(&mount, point).map_err(|error| refused(&mount, error));
    }
    mount_at(mount, point).map_err(|error| refused(mount, error))
}

fn refused(mount: &Mount, error: MountError) -> Error {
    let text = format!("mount failed: {} {:?}", mount.kind, mount.source);
    match error.raw_os_error() {
        None => Error::invalid_argument(text).caused_by(error),
        Some(number) => {
            let kind = io::Error::from_raw_os_error(number).kind();
            Error::io(text, io::Error::new(kind, error))
        }
    }
}

fn device(mount: &Mount, point: &Path) -> Result<()> {
    let failed = |error| failed("attach a loop device to", Path::new(&mount.source), error);
    #[expect(clippy::disallowed_methods, reason = "the kernel tells a device's file by its whole path")]
    let file = fs::canonicalize(&mount.source).map_err(failed)?;
    let read_only = mount.options.iter().any(|option| option == "ro");
    let device = LoopDevice::attach(&file, LoopOptions { read_only, ..LoopOptions::default() });
    let device = device.map_err(failed)?;
    // From here on whoever ends the folder knows which device is its own; before that it ends by itself.
    fs::write(beside(point), file.as_os_str().as_encoded_bytes()).map_err(failed)?;
    symlink(&device.path, point).map_err(failed)?;
    device.keep().map_err(failed)
}

fn beside(point: &Path) -> PathBuf {
    let mut name = point.as_os_str().to_owned();
    name.push(FILE);
    PathBuf::from(name)
}

/// Ends everything in an activation's folder and removes it. Idempotent.
///
/// A mount that is in use is detached: it ends with its last user. Where one cannot be ended the others are, and what is
/// left stays in the folder.
pub(crate) fn end(folder: &Path) -> Result<()> {
    let mut names = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => {
            let entries = read.and_then(Iterator::collect::<io::Result<Vec<_>>>);
            let entries = entries.map_err(|error| failed("look into", folder, error))?;
            entries.into_iter().map(|entry| entry.file_name()).collect::<Vec<_>>()
        }
    };
    names.retain(|name| name.to_str().is_some_and(|name| name.parse::<usize>().is_ok()));
    names.sort_unstable();
    let mut first = Ok(());
    for name in names {
        first = first.and(end_one(&folder.join(name)));
    }
    first?;
    remove(folder).map_err(|error| failed("remove", folder, error))
}

fn end_one(point: &Path) -> Result<()> {
    let error = |error| failed("end", point, error);
    if let Ok(device) = fs::read_link(point) {
        if let Ok(file) = fs::read(beside(point)) {
            let file = Path::new(std::ffi::OsStr::new(std::str::from_utf8(&file).unwrap_or_default()));
            LoopDevice::release(&device, file).map_err(error)?;
        }
        return fs::remove_file(point).map_err(error);
    }
    unmount_all(point).map_err(|cause| {
        Error::failed_precondition(format!("cannot unmount {}", point.display())).caused_by(cause)
    })?;
    // Not removed with what is in it: that would be somebody's data.
    fs::remove_dir(point).map_err(error)
}

/// Removes the files of a folder and the folder.
fn remove(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_the_last_mount_first() {
        let names = |count| (0..count).map(|index| name(index, count)).collect::<Vec<_>>();
        assert_eq!(names(3), ["3", "2", "1"]);
        let many = names(120);
        assert_eq!((many[0].as_str(), many[119].as_str()), ("120", "001"));
        assert!(many.is_sorted_by(|one, next| one > next));
    }
}
