//! Subvolumes of btrfs: made, copied, closed to writes, removed (btrfs-ioctl(2), `<linux/btrfs.h>`).
//!
//! Called by the snapshotter of that name. Everything is told by a descriptor of the folder above and a name in it.

#![expect(unsafe_code, reason = "ioctls of btrfs")]

use std::ffi::CStr;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const SNAP_DESTROY: libc::Ioctl = 0x5000_940F;
const SUBVOL_CREATE: libc::Ioctl = 0x5000_940E;
const SNAP_CREATE_V2: libc::Ioctl = 0x5000_9417;
const SUBVOL_SETFLAGS: libc::Ioctl = 0x4008_941A;
const GET_SUBVOL_INFO: libc::Ioctl = 0x81F8_943C;

const SUBVOL_RDONLY: u64 = 1 << 1;

/// `statfs(2)` tells it as the type of a btrfs.
const MAGIC: u64 = 0x9123_683E;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_timespec`.
#[repr(C)]
struct Time {
    seconds: u64,
    nanoseconds: u32,
}

/// `struct btrfs_ioctl_get_subvol_info_args`.
#[repr(C)]
struct Info {
    treeid: u64,
    name: [u8; 256],
    parent_id: u64,
    dirid: u64,
    generation: u64,
    flags: u64,
    uuids: [[u8; 16]; 3],
    transactions: [u64; 4],
    ctime: Time,
    otime: Time,
    stime: Time,
    rtime: Time,
    reserved: [u64; 8],
}

/// What a subvolume is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subvolume {
    /// Its number on the filesystem, for the mount option `subvolid`.
    pub id: u64,
    /// When it was made: seconds and nanoseconds since 1970.
    pub made: (i64, i64),
    /// Whether it began as a copy of another.
    pub copied: bool,
}

/// Whether a folder is on a btrfs.
pub fn supported(folder: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(folder)?.f_type as u64 == MAGIC)
}

/// Makes an empty subvolume. `EEXIST` if the name is taken.
pub fn create(above: impl AsFd, name: &CStr) -> io::Result<()> {
    by_name(above.as_fd(), SUBVOL_CREATE, name)
}

/// Makes a writable copy of the subvolume that `from` is the root of. It shares every block until one side writes.
pub fn copy(from: impl AsFd, above: impl AsFd, name: &CStr) -> io::Result<()> {
    // SAFETY: VolArgsV2 is plain integers, for which all zeroes is a value.
    let mut args: VolArgsV2 = unsafe { zeroed() };
    args.fd = from.as_fd().as_raw_fd().into();
    put(name, &mut args.name)?;
    // SAFETY: the argument points to a live VolArgsV2, the type this request reads; both descriptors are open.
    done(unsafe { libc::ioctl(above.as_fd().as_raw_fd(), SNAP_CREATE_V2, &raw const args) })
}

/// Removes a subvolume and everything in it at once; the kernel frees its blocks later. `ENOTEMPTY` if another
/// subvolume is in it.
pub fn remove(above: impl AsFd, name: &CStr) -> io::Result<()> {
    by_name(above.as_fd(), SNAP_DESTROY, name)
}

/// Closes the subvolume that `root` is the root of to writes, or opens it again.
pub fn set_read_only(root: impl AsFd, read_only: bool) -> io::Result<()> {
    let flags = if read_only { SUBVOL_RDONLY } else { 0 };
    // SAFETY: the argument points to a live u64, which this request reads; the descriptor is open.
    done(unsafe { libc::ioctl(root.as_fd().as_raw_fd(), SUBVOL_SETFLAGS, &raw const flags) })
}

/// What the subvolume that `file` is in is known by.
pub fn of(file: impl AsFd) -> io::Result<Subvolume> {
    // SAFETY: Info is plain integers, for which all zeroes is a value.
    let mut info: Info = unsafe { zeroed() };
    // SAFETY: the argument points to a live Info, the type this request writes; the descriptor is open.
    done(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), GET_SUBVOL_INFO, &raw mut info) })?;
    let seconds = i64::try_from(info.otime.seconds).unwrap_or(i64::MAX);
    let [_, parent, _] = info.uuids;
    Ok(Subvolume {
        id: info.treeid,
        made: (seconds, info.otime.nanoseconds.into()),
        copied: parent != [0; 16],
    })
}

fn by_name(above: BorrowedFd<'_>, request: libc::Ioctl, name: &CStr) -> io::Result<()> {
    // SAFETY: VolArgs is plain integers, for which all zeroes is a value.
    let mut args: VolArgs = unsafe { zeroed() };
    put(name, &mut args.name)?;
    // SAFETY: the argument points to a live VolArgs, the type these requests read; the descriptor is open.
    done(unsafe { libc::ioctl(above.as_raw_fd(), request, &raw const args) })
}

/// Writes a name with its end into a field.
fn put(name: &CStr, field: &mut [u8]) -> io::Result<()> {
    let bytes = name.to_bytes_with_nul();
    let room =
        field.get_mut(..bytes.len()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?;
    room.copy_from_slice(bytes);
    Ok(())
}

fn done(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

// The kernel reads the size out of the request's number.
const _: () =
    assert!(size_of::<VolArgs>() == 4096 && size_of::<VolArgsV2>() == 4096 && size_of::<Info>() == 504);
