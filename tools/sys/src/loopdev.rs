//! Loop devices: a regular file seen as a block device.
//!
//! Devices are attached with `LO_FLAGS_AUTOCLEAR`, so the kernel lets go of one by itself when its
//! last user (the mount, or the descriptor returned here) is gone, unless it is told to keep it. Called by
//! [`crate::mount`] for the `loop` option, and by who hands out devices.

#![expect(unsafe_code, reason = "ioctls of /dev/loop-control and /dev/loopN")]

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// From `<linux/loop.h>`: asks the control device for an unused index.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
/// From `<linux/loop.h>`: sets file, block size and info in one step (Linux 5.8).
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
/// From `<linux/loop.h>`: lets go of the file, at once or with the last user of the device.
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
/// From `<linux/loop.h>`: changes the few things that can be changed of a device in use.
const LOOP_SET_STATUS64: libc::Ioctl = 0x4C04;
/// From `<linux/loop.h>`: how a device is attached.
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// Another process can take the index between asking and configuring; this many losses mean that
/// something else is wrong.
const ATTEMPTS: u32 = 64;

/// `struct loop_info64` of `<linux/loop.h>`.
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `<linux/loop.h>`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// How the file is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopOptions {
    /// Refuses writes to the file, which may then be read-only itself.
    pub read_only: bool,
    /// Bypasses the page cache of the file's filesystem.
    pub direct_io: bool,
}

/// An attached loop device; it goes away once this and every mount of it are gone.
#[derive(Debug)]
pub struct LoopDevice {
    /// The device node, such as `/dev/loop3`.
    pub path: PathBuf,
    /// Keeps the device alive until it is mounted.
    pub fd: OwnedFd,
}

impl LoopDevice {
    /// Attaches `file` to an unused loop device. Blocking; needs `CAP_SYS_ADMIN`.
    pub fn attach(file: &Path, options: LoopOptions) -> io::Result<Self> {
        let backing = OpenOptions::new().read(true).write(!options.read_only).open(file)?;
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        for _ in 0..ATTEMPTS {
            match configure_free(&control, &backing, file, options) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
                other => return other,
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Lets the device stay when nobody uses it, until [`LoopDevice::release`].
    pub fn keep(&self) -> io::Result<()> {
        // SAFETY: LoopInfo64 is plain integers, for which all zeroes is a value.
        let mut info: LoopInfo64 = unsafe { zeroed() };
        // SAFETY: the argument points to a live LoopInfo64, the type this request fills.
        if unsafe { libc::ioctl(self.fd.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) } < 0 {
            return Err(io::Error::last_os_error());
        }
        info.flags &= !LO_FLAGS_AUTOCLEAR;
        // SAFETY: the argument points to a live LoopInfo64, the type this request reads.
        if unsafe { libc::ioctl(self.fd.as_raw_fd(), LOOP_SET_STATUS64, &raw const info) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Lets go of the file of the device at `path`, at once or with the last user of it, if it is attached to `file`.
    pub fn release(path: &Path, file: &Path) -> io::Result<()> {
        let device = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        // Held open, so that the device cannot become another file's between the look and the release.
        if backing_file(path)?.as_deref() != Some(file) {
            return Ok(());
        }
        // SAFETY: the request takes no argument; the descriptor is open.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) } < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ENXIO) { Ok(()) } else { Err(error) };
        }
        Ok(())
    }
}

/// The file that the device at `path` is attached to, by the name that it has now; none for a free device. A file that
/// is deleted has ` (deleted)` behind its name.
pub fn backing_file(path: &Path) -> io::Result<Option<PathBuf>> {
    let Some(name) = path.file_name() else { return Ok(None) };
    let told = Path::new("/sys/block").join(name).join("loop/backing_file");
    match std::fs::read(told) {
        Ok(mut bytes) => {
            bytes.pop_if(|byte| *byte == b'\n');
            Ok(Some(PathBuf::from(OsString::from_vec(bytes))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks for a free index and configures it; EBUSY when another process was faster.
fn configure_free(
    control: &File,
    backing: &File,
    name: &Path,
    options: LoopOptions,
) -> io::Result<LoopDevice> {
    // SAFETY: the request takes no argument; the descriptor is open.
    let index = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    if index < 0 {
        return Err(io::Error::last_os_error());
    }
    let path = PathBuf::from(format!("/dev/loop{index}"));
    let device = OpenOptions::new().read(true).write(true).open(&path)?;
    // SAFETY: LoopConfig is plain integers, for which all zeroes is a value.
    let mut config: LoopConfig = unsafe { zeroed() };
    config.fd = backing.as_raw_fd() as u32;
    config.info.flags = LO_FLAGS_AUTOCLEAR
        | if options.read_only { LO_FLAGS_READ_ONLY } else { 0 }
        | if options.direct_io { LO_FLAGS_DIRECT_IO } else { 0 };
    let bytes = name.as_os_str().as_encoded_bytes();
    let shown = bytes.len().min(config.info.file_name.len() - 1);
    config.info.file_name[..shown].copy_from_slice(&bytes[..shown]);
    // SAFETY: the argument points to a live LoopConfig, the type this request reads.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(LoopDevice { path, fd: device.into() })
}
