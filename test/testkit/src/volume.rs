//! A filesystem of another kind than the machine's, in a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use berth_sys::mount::{mount_all, unmount_all};
use berth_types::Mount;

use crate::{Invocation, Scratch, need};

/// A mounted filesystem. Dropping it unmounts and removes it.
#[derive(Debug)]
pub struct Volume(Scratch);

impl Volume {
    /// An empty btrfs.
    #[track_caller]
    pub fn btrfs() -> Result<Self, need::Missing> {
        need::root()?;
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        need::that(known.contains("\tbtrfs\n"), "btrfs in the kernel")?;
        let volume = Self(Scratch::new());
        let image = empty_image(&volume.0, 1 << 30, "mkfs.btrfs", "-q")?;
        fs::create_dir(volume.root()).expect("the scratch folder takes a folder");
        mount_image("btrfs", &image, &volume.root());
        Ok(volume)
    }

    /// Where it is mounted.
    pub fn root(&self) -> PathBuf {
        self.0.path("mounted")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = unmount_all(&self.root());
    }
}

/// A file of so many bytes with a new filesystem.
#[track_caller]
fn empty_image(scratch: &Scratch, size: u64, program: &str, flags: &str) -> Result<PathBuf, need::Missing> {
    need::path("/dev/loop-control")?;
    let program = need::program(program)?;
    let path = scratch.path("filesystem");
    File::create(&path).and_then(|file| file.set_len(size)).expect("the scratch folder takes a file");
    Invocation::new(program).line(flags).arg(&path).ok();
    Ok(path)
}

/// An empty ext4 of so many bytes without its `lost+found`.
#[track_caller]
pub fn empty_ext4(scratch: &Scratch, size: u64) -> Result<PathBuf, need::Missing> {
    need::root()?;
    let path = empty_image(scratch, size, "mkfs.ext4", "-q -F")?;
    let point = scratch.path("filesystem.mounted");
    fs::create_dir(&point).expect("the scratch folder takes a folder");
    mount_image("ext4", &path, &point);
    let removed = fs::remove_dir(point.join("lost+found"));
    unmount_all(&point).expect("it was mounted");
    removed.expect("mkfs.ext4 makes it");
    Ok(path)
}

fn mount_image(kind: &str, image: &Path, point: &Path) {
    let mount = Mount {
        kind: kind.to_owned(),
        source: image.display().to_string(),
        target: String::new(),
        options: vec!["loop".to_owned()],
    };
    mount_all(&[mount], point).unwrap_or_else(|error| panic!("cannot mount {}: {error}", image.display()));
}
