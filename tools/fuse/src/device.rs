//! `/dev/fuse`, opened once for each mount.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;

/// Why a file system could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE, or this process may not use it.
    #[error("cannot open /dev/fuse; is the kernel's module fuse loaded?")]
    Open(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot mount a FUSE file system at {}", point.display())]
    Mount {
        /// Where.
        point: PathBuf,
        /// From the kernel.
        source: io::Error,
    },
}

/// The server's end of a mount. The mount is dead once the last copy of it is closed: whoever uses it gets `ENOTCONN`.
#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    /// Mounts a file system at a directory, read-only. `source` is what mountinfo says of where it comes from. Nothing
    /// of it can be used until it is served. Needs `CAP_SYS_ADMIN`.
    pub fn mount(point: &Path, source: &str) -> Result<Self, MountError> {
        let device = rustix::fs::openat(CWD, "/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| MountError::Open(error.into()))?;
        // Who may do what is the kernel's to decide, by owner and mode.
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        );
        let failed = |source| MountError::Mount { point: point.to_owned(), source };
        let options = std::ffi::CString::new(options).map_err(|error| failed(error.into()))?;
        let flags = MountFlags::RDONLY | MountFlags::NOATIME;
        rustix::mount::mount(source, point, "fuse.berth-lazy", flags, options.as_c_str())
            .map_err(|error| failed(error.into()))?;
        Ok(Self(device))
    }

    /// Whether the kernel gives out again what a server had not answered when it ended (Linux 6.9). Where it does not,
    /// whoever asked waits for ever, and a mount better ends with its server.
    pub fn can_be_adopted() -> bool {
        let name = rustix::system::uname();
        let release = name.release().to_string_lossy();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 9)
    }

    /// Goes on with a mount whose server has ended, and asks the kernel for what that had not answered.
    pub fn adopt(device: OwnedFd) -> Self {
        const RESEND: i32 = 7;
        let device = Self(device);
        // A message without a request that it answers. That the mount is dead is found out by whoever serves it.
        let _ = device.write(RESEND, 0, &[]);
        device
    }

    /// Another descriptor of the same mount, to be kept elsewhere.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Waits for a request; none once the file system is unmounted.
    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        loop {
            match rustix::io::read(&self.0, &mut *buffer) {
                Ok(length) => return Ok(Some(&buffer[..length])),
                // NOENT: the request was given up before it was read.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
                Err(Errno::NODEV) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn answer(&self, unique: u64, data: &[u8]) {
        // Who asked may be gone, and the mount too: then nobody misses the answer. But one that the kernel does not
        // understand leaves somebody waiting.
        if self.write(0, unique, data) == Err(Errno::INVAL) {
            self.refuse(unique, Errno::IO);
        }
    }

    pub(crate) fn refuse(&self, unique: u64, error: Errno) {
        let _ = self.write(-error.raw_os_error(), unique, &[]);
    }

    /// One call, for the kernel takes an answer whole.
    fn write(&self, error: i32, unique: u64, data: &[u8]) -> rustix::io::Result<()> {
        let length = (16 + data.len()) as u32;
        let mut header = [0; 16];
        header[..4].copy_from_slice(&length.to_ne_bytes());
        header[4..8].copy_from_slice(&error.to_ne_bytes());
        header[8..].copy_from_slice(&unique.to_ne_bytes());
        rustix::io::writev(&self.0, &[IoSlice::new(&header), IoSlice::new(data)]).map(drop)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
