//! One member of an archive, whatever headers it took to say it.

/// Seconds and nanoseconds since 1970; the nanoseconds count forward also before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// A run of bytes that a sparse file really has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// What kind of file an entry makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; the data follows.
    File,
    /// A directory.
    Directory,
    /// Another name for the entry of this path.
    HardLink(Vec<u8>),
    /// A symbolic link holding this text.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One member of an archive. Paths are bytes as they stand in it: not cleaned, not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, with the trailing slash that directories have.
    pub path: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Bytes of the file when written out, holes included; 0 for all but files.
    pub size: u64,
    /// Extended attributes in the archive's order, each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// For a sparse file the runs of data, in order and apart; the entry's data is these runs joined.
    pub segments: Option<Vec<Segment>>,
}

impl Entry {
    /// An entry owned by root, of the epoch, without data: what a caller then fills in.
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size: 0,
            xattrs: Vec::new(),
            segments: None,
        }
    }

    /// Bytes of data that follow the entry in the archive.
    pub fn stored(&self) -> u64 {
        match &self.segments {
            Some(segments) => segments.iter().map(|segment| segment.length).sum(),
            None => self.size,
        }
    }
}
