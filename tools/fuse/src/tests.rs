//! Requests as bytes, and a small file system that the kernel really mounts.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::io::Errno;
use testkit::{Scratch, mounts, need};

use super::*;
use crate::serve::answer;

/// The root, with a file, a directory with many names, a link and a device.
struct Sample {
    /// Reads of the file's second page, which wait for whoever has the other end.
    slow: Sender<Reading>,
}

const MANY: usize = 3000;
const BYTES: &[u8] = &[7; 5000];
const NAMES: [&str; 4] = ["file", "link", "many", "null"];

fn many(place: usize) -> &'static [u8] {
    static ALL: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    &ALL.get_or_init(|| (0..MANY).map(|n| format!("name-{n:05}").into_bytes()).collect())[place]
}

impl Filesystem for Sample {
    fn attributes(&self, node: u64) -> Result<Attributes, Errno> {
        let (kind, mode, size) = match node {
            ROOT => (Kind::Directory, 0o755, 0),
            2 => (Kind::File, 0o4640, BYTES.len() as u64),
            3 => (Kind::Symlink, 0o777, 4),
            4 => (Kind::Directory, 0o700, 0),
            5 => (Kind::CharDevice(1, 3), 0o666, 0),
            100.. => (Kind::Fifo, 0o600, 0),
            _ => return Err(Errno::NOENT),
        };
        let mtime = Time { seconds: -5, nanos: 9 };
        Ok(Attributes { node, kind, mode, uid: 12, gid: 34, size, links: 1, mtime })
    }

    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Option<u64>, Errno> {
        let listed = |place| self.entry(directory, place).ok().flatten();
        Ok((0..).map_while(listed).find(|listed| listed.name == name).map(|listed| listed.node))
    }

    fn above(&self, _directory: u64) -> Result<u64, Errno> {
        Ok(ROOT)
    }

    fn entry(&self, directory: u64, place: usize) -> Result<Option<Listed<'_>>, Errno> {
        Ok(match directory {
            ROOT => NAMES.get(place).map(|name| Listed { name: name.as_bytes(), node: [2, 3, 4, 5][place] }),
            _ => (place < MANY).then(|| Listed { name: many(place), node: 100 + place as u64 }),
        })
    }

    fn link(&self, _node: u64) -> Result<&[u8], Errno> {
        Ok(b"file")
    }

    fn has_xattrs(&self) -> bool {
        true
    }

    fn xattr(&self, node: u64, name: &[u8]) -> Result<&[u8], Errno> {
        if node == 2 && name == b"user.a" { Ok(b"value") } else { Err(Errno::NODATA) }
    }

    fn xattrs(&self, node: u64) -> Result<Vec<&[u8]>, Errno> {
        Ok(if node == 2 { vec![b"user.a"] } else { Vec::new() })
    }

    fn read(&self, reading: Reading) {
        let from = (reading.offset() as usize).min(BYTES.len());
        let to = (from + reading.size()).min(BYTES.len());
        if from == 0 {
            reading.answer(&BYTES[from..to]);
        } else if let Err(unsent) = self.slow.send(reading) {
            unsent.0.refuse(Errno::IO);
        }
    }

    fn statistics(&self) -> Statistics {
        Statistics { bytes: 8192, files: 5 }
    }
}

/// The sample, mounted and served; the reads that wait, and the device to be kept.
fn mounted(scratch: &Scratch) -> Option<(std::path::PathBuf, Receiver<Reading>, Arc<Device>)> {
    need::root().ok()?;
    need::path("/dev/fuse").ok()?;
    let point = scratch.path("point");
    fs::create_dir(&point).unwrap();
    let device = Arc::new(Device::mount(&point, "sample").unwrap());
    let waiting = serve(&device);
    Some((point, waiting, device))
}

fn serve(device: &Arc<Device>) -> Receiver<Reading> {
    let (slow, waiting) = channel();
    let device = Arc::clone(device);
    thread::spawn(move || device.serve(&Sample { slow }).unwrap());
    waiting
}

/// Reads the file's second page and nothing else.
fn second_page(point: &Path) -> thread::JoinHandle<std::io::Result<Vec<u8>>> {
    let path = point.join("file");
    thread::spawn(move || {
        let file = fs::File::open(path)?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random)?;
        let mut bytes = vec![0; BYTES.len() - 4096];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 4096).map(|()| bytes)
    })
}

fn unmount(point: &Path) {
    mounts::unmount_beneath(point);
}

#[test]
fn the_kernel_sees_files_as_they_are() {
    let scratch = Scratch::new();
    let Some((point, _waiting, _device)) = mounted(&scratch) else { return };
    let names: Vec<_> = fs::read_dir(&point).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, NAMES);
    let file = fs::metadata(point.join("file")).unwrap();
    assert_eq!((file.mode(), file.uid(), file.gid(), file.len()), (0o104_640, 12, 34, 5000));
    assert_eq!((file.mtime(), file.mtime_nsec()), (-5, 9));
    assert_eq!(fs::read_link(point.join("link")).unwrap(), Path::new("file"));
    let device = fs::metadata(point.join("null")).unwrap();
    assert!(device.file_type().is_char_device());
    assert_eq!(device.rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(fs::read_dir(point.join("many")).unwrap().count(), MANY);
    assert!(fs::metadata(point.join("many/name-02999")).unwrap().file_type().is_fifo());
    assert_eq!(fs::metadata(point.join("nothing")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    let mut value = [0; 16];
    let path = point.join("file");
    assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut value).unwrap(), 5);
    assert_eq!(rustix::fs::getxattr(&path, "user.b", &mut value), Err(Errno::NODATA));
    assert_eq!(rustix::fs::listxattr(&path, &mut value).unwrap(), 7);
    assert_eq!(rustix::fs::statfs(&point).unwrap().f_files, 5);
    let refused = fs::write(point.join("new"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    unmount(&point);
}

#[test]
fn one_read_that_waits_keeps_no_other_waiting() {
    let scratch = Scratch::new();
    let Some((point, waiting, _device)) = mounted(&scratch) else { return };
    let path = point.join("file");
    let slow = second_page(&point);
    let reading = waiting.recv().unwrap();
    let mut first = [0; 100];
    fs::File::open(&path).unwrap().read_exact(&mut first).unwrap();
    assert_eq!(first, [7; 100]);
    assert_eq!(fs::read_dir(&point).unwrap().count(), 4);
    let (from, to) = (reading.offset() as usize, reading.offset() as usize + reading.size());
    reading.answer(&BYTES[from.min(BYTES.len())..to.min(BYTES.len())]);
    assert_eq!(slow.join().unwrap().unwrap(), BYTES[4096..]);
    unmount(&point);
}

#[test]
fn a_read_that_nobody_answers_fails() {
    let scratch = Scratch::new();
    let Some((point, waiting, _device)) = mounted(&scratch) else { return };
    let reader = second_page(&point);
    drop(waiting.recv().unwrap());
    // The kernel asks once more, and then nobody is there.
    drop(waiting);
    assert_eq!(reader.join().unwrap().unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
    unmount(&point);
}

#[test]
fn another_server_goes_on_with_the_mount_and_with_what_was_asked() {
    let scratch = Scratch::new();
    let Ok(()) = need::that(Device::can_be_adopted(), "Linux 6.9") else { return };
    let Some((point, waiting, device)) = mounted(&scratch) else { return };
    let reader = second_page(&point);
    let unanswered = waiting.recv().unwrap();
    // The first server has taken the request and never answers; another one adopts what is left of it.
    let second = Arc::new(Device::adopt(device.try_clone().unwrap()));
    let again = serve(&second);
    let reading = loop {
        // Both threads serve: whichever gets it.
        match again.try_recv().or_else(|_| waiting.try_recv()) {
            Ok(reading) => break reading,
            Err(_) => thread::yield_now(),
        }
    };
    assert_eq!(reading.offset(), unanswered.offset());
    let (from, to) = (reading.offset() as usize, reading.offset() as usize + reading.size());
    reading.answer(&BYTES[from.min(BYTES.len())..to.min(BYTES.len())]);
    assert_eq!(reader.join().unwrap().unwrap(), BYTES[4096..]);
    drop(unanswered);
    unmount(&point);
}

/// A request as the kernel writes it.
fn request(code: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let length = 40 + body.len() as u32;
    let mut bytes = [length.to_ne_bytes(), code.to_ne_bytes()].concat();
    bytes.extend(9_u64.to_ne_bytes());
    bytes.extend(node.to_ne_bytes());
    bytes.resize(40, 0);
    bytes.extend(body);
    bytes
}

#[test]
fn requests_are_read_and_those_cut_short_are_refused() {
    let lookup = request(1, 1, b"name\0rest");
    let parsed = Request::parse(&lookup).unwrap();
    assert_eq!(parsed, Request { unique: 9, node: 1, operation: Operation::Lookup(b"name") });
    let read = request(15, 2, &[0; 40]);
    assert_eq!(Request::parse(&read).unwrap().operation, Operation::Read { offset: 0, size: 0 });
    for length in 0..lookup.len() - 5 {
        assert!(Request::parse(&lookup[..length]).is_err(), "{length}");
    }
    assert_eq!(Request::parse(&request(1, 1, b"endless")).unwrap_err().unique, 9);
    assert_eq!(Request::parse(&request(9, 1, b"")).unwrap().operation, Operation::Change);
    assert_eq!(Request::parse(&request(99, 1, b"")).unwrap().operation, Operation::Other(99));
}

#[test]
fn lists_end_where_the_kernel_has_no_room_and_go_on_from_there() {
    let sample = Sample { slow: channel().0 };
    let list = |offset, size| answer(&sample, 4, &Operation::List { offset, size }).unwrap().0;
    assert_eq!(list(0, 10).len(), 0);
    // `.`, `..` and a name of ten bytes.
    assert_eq!(list(0, 32 + 32 + 40).len(), 104);
    assert_eq!(list(2, 40).len(), 40);
    assert_eq!(list(MANY as u64 + 2, 4096).len(), 0);
    assert_eq!(list(u64::MAX, 4096).len(), 0);
    let sized = |size| answer(&sample, 2, &Operation::Xattr { name: b"user.a", size });
    assert_eq!(sized(4).unwrap_err(), Errno::RANGE);
    assert_eq!(sized(5).unwrap().0, b"value");
}
