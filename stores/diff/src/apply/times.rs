//! The times of directories, which wait for the end: every file made in one changes them.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_archive::Time;
use berth_sys::beneath::Root;
use rustix::fs::{Timespec, Timestamps};
use rustix::io::Errno;

use super::UnpackError;

/// Bytes of paths remembered at most.
const MAX_BYTES: usize = 64 << 20;

#[derive(Default)]
pub(super) struct Directories {
    waiting: Vec<(Box<[u8]>, Timestamps)>,
    bytes: usize,
}

impl Directories {
    pub(super) fn add(&mut self, path: &[u8], times: Timestamps) -> Result<(), UnpackError> {
        self.bytes += path.len() + size_of::<(Box<[u8]>, Timestamps)>();
        if self.bytes > MAX_BYTES {
            return Err(UnpackError::TooMany("directories"));
        }
        self.waiting.push((path.into(), times));
        Ok(())
    }

    /// Sets all times, the last that was said of a directory last.
    pub(super) fn set(self, root: &Root) -> Result<(), UnpackError> {
        for (path, times) in self.waiting {
            let set = || -> io::Result<()> {
                let dir = root.entry(Path::new(OsStr::from_bytes(&path)))?.open_dir()?;
                Ok(rustix::fs::futimens(dir, &times)?)
            };
            match set() {
                // The layer put something else in its place later.
                Err(error) if gone(&error) => {}
                done => done.map_err(|error| UnpackError::write("cannot set the times of", &path, error))?,
            }
        }
        Ok(())
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// Access and modification at the same moment, as containerd sets them.
pub(super) fn both(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos as _ };
    Timestamps { last_access: time, last_modification: time }
}
