//! What a file system has to say.

use rustix::io::Errno;

use crate::Reading;

/// Seconds since 1970, and nanoseconds that count forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Whole seconds.
    pub seconds: i64,
    /// The rest.
    pub nanos: u32,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device of these major and minor numbers.
    CharDevice(u32, u32),
    /// A block device of these major and minor numbers.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// What stat(2) tells of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Its number.
    pub node: u64,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Names.
    pub links: u32,
    /// Modification time, which stands for the others too.
    pub mtime: Time,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The name.
    pub name: &'a [u8],
    /// What has it.
    pub node: u64,
}

/// What statfs(2) tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes of all files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

/// A read-only file system. It answers from memory, but for [`Filesystem::read`]. A number that it does not know is
/// answered with `NOENT`; asking one kind of file what only another can tell, with what the kernel's own file systems
/// answer.
pub trait Filesystem: Send + Sync {
    /// A file.
    fn attributes(&self, node: u64) -> Result<Attributes, Errno>;

    /// What has a name in a directory, if anything does.
    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Option<u64>, Errno>;

    /// The directory above another; the root is above itself.
    fn above(&self, directory: u64) -> Result<u64, Errno>;

    /// The entry of a directory at a place, without `.` and `..`; none behind the last.
    fn entry(&self, directory: u64, place: usize) -> Result<Option<Listed<'_>>, Errno>;

    /// The text of a symbolic link.
    fn link(&self, node: u64) -> Result<&[u8], Errno>;

    /// Whether any file has extended attributes.
    fn has_xattrs(&self) -> bool;

    /// The value of an extended attribute, `NODATA` if there is none of that name.
    fn xattr(&self, node: u64, name: &[u8]) -> Result<&[u8], Errno>;

    /// The names of the extended attributes.
    fn xattrs(&self, node: u64) -> Result<Vec<&[u8]>, Errno>;

    /// Answers bytes of a file: at once, or later from anywhere.
    fn read(&self, reading: Reading);

    /// Sizes.
    fn statistics(&self) -> Statistics;
}
