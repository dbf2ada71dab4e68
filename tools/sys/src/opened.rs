//! Which files of a file system are opened, by whomever, in whichever namespace of mounts (fanotify(7)).
//!
//! The command line learns by it what a container reads.

#![expect(unsafe_code, reason = "fanotify, and the descriptors that its events carry")]

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};

/// Bytes of events that are read at once.
const BUFFER: usize = 64 << 10;
/// `struct fanotify_event_metadata` of `<linux/fanotify.h>`: length, version, a reserved byte, the length of this
/// struct, the mask, the file, the process.
const METADATA: usize = 24;

/// Tells which files of one file system are opened. It ends with its value.
#[derive(Debug)]
pub struct Opened {
    events: OwnedFd,
    /// What precedes paths of the file system as they are seen from here.
    root: PathBuf,
}

impl Opened {
    /// Begins with the file system that `root`, a descriptor of its root directory, is on. `CAP_SYS_ADMIN` is needed.
    pub fn watch(root: impl AsFd) -> io::Result<Self> {
        let root = root.as_fd();
        let flags =
            libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_CLASS_NOTIF | libc::FAN_UNLIMITED_QUEUE;
        let opened = libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC;
        // SAFETY: a call with numbers alone; its answer is looked at.
        let events = unsafe { libc::fanotify_init(flags, opened as libc::c_uint) };
        if events < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor, and nobody else has it.
        let events = unsafe { OwnedFd::from_raw_fd(events) };
        let mark = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        // SAFETY: both descriptors are open, and without a path the second one itself is meant.
        let done = unsafe {
            libc::fanotify_mark(events.as_raw_fd(), mark, libc::FAN_OPEN, root.as_raw_fd(), std::ptr::null())
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { events, root: path(root)? })
    }

    /// Waits for files to be opened, `limit` at most, and answers the paths of regular ones from the file system's
    /// root on, in their order.
    pub fn next(&self, limit: Duration) -> io::Result<Vec<PathBuf>> {
        let limit = Timespec::try_from(limit).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut waiting = [PollFd::new(&self.events, PollFlags::IN)];
        match poll(&mut waiting, Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = vec![0; BUFFER];
        let length = match rustix::io::read(&self.events, &mut buffer) {
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        Ok(files(&buffer[..length]).iter().filter_map(|file| self.within(file)).collect())
    }

    /// Where a regular file is below the root.
    fn within(&self, file: &OwnedFd) -> Option<PathBuf> {
        let stat = fstat(file).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink == 0 {
            return None;
        }
        Some(path(file).ok()?.strip_prefix(&self.root).ok()?.to_owned())
    }
}

/// The files that events are about.
fn files(mut events: &[u8]) -> Vec<OwnedFd> {
    let mut files = Vec::new();
    while let Some(event) = events.get(..METADATA) {
        let number =
            |at: usize| event[at..at + 4].first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        let file = number(16);
        if file >= 0 {
            // SAFETY: the event gives this descriptor to whoever reads it, once.
            files.push(unsafe { OwnedFd::from_raw_fd(file) });
        }
        let length = usize::try_from(number(0)).unwrap_or(0).max(METADATA);
        events = events.get(length..).unwrap_or_default();
    }
    files
}

fn path(file: impl AsFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opened_files_are_told_in_their_order() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(scratch.path().join(name), name).unwrap();
        ["one", "two"].into_iter().for_each(write);
        let root = fs::File::open("/").unwrap();
        let folder = fs::File::open(scratch.path()).unwrap();
        if fstat(&root).unwrap().st_dev != fstat(&folder).unwrap().st_dev {
            eprintln!("skipped: the folder for temporary files is on another file system than /");
            return;
        }
        let opened = Opened::watch(&root).unwrap();
        for name in ["two", "one"] {
            fs::read(scratch.path().join(name)).unwrap();
        }
        let mut seen = Vec::new();
        for _ in 0..50 {
            seen.extend(opened.next(Duration::from_millis(100)).unwrap());
            let own: Vec<_> = seen
                .iter()
                .filter_map(|path| {
                    std::path::Path::new("/").join(path).strip_prefix(scratch.path()).ok().map(PathBuf::from)
                })
                .collect();
            if own == [PathBuf::from("two"), PathBuf::from("one")] {
                return;
            }
        }
        panic!("{seen:?}");
    }
}
