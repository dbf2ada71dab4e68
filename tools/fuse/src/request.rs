//! What the kernel asks, as it lies in the buffer.

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// By what the answer is known.
    pub unique: u64,
    /// Which file.
    pub node: u64,
    /// What about it.
    pub operation: Operation<'a>,
}

/// What can be asked of a read-only file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// The first request of all: which protocol is spoken.
    Init {
        /// Its major version, 7.
        major: u32,
        /// Its minor version.
        minor: u32,
        /// How far the kernel reads ahead.
        readahead: u32,
        /// What it can do (`FUSE_*` of `fuse_init_in`, both words).
        flags: u64,
    },
    /// What has a name in a directory.
    Lookup(&'a [u8]),
    /// Attributes.
    Attributes,
    /// The text of a symbolic link.
    Link,
    /// To open a file.
    Open,
    /// To open a directory.
    OpenDirectory,
    /// Bytes of a file.
    Read {
        /// From where.
        offset: u64,
        /// How many at most.
        size: u32,
    },
    /// Names in a directory.
    List {
        /// From which place.
        offset: u64,
        /// Bytes of the answer at most.
        size: u32,
    },
    /// Names in a directory with the attributes of what has them.
    ListAttributes {
        /// From which place.
        offset: u64,
        /// Bytes of the answer at most.
        size: u32,
    },
    /// The value of an extended attribute.
    Xattr {
        /// Its name.
        name: &'a [u8],
        /// Bytes of the answer at most; 0 asks for its size.
        size: u32,
    },
    /// The names of the extended attributes.
    Xattrs {
        /// Bytes of the answer at most; 0 asks for its size.
        size: u32,
    },
    /// Sizes of the file system.
    Statistics,
    /// What is told and not answered: files that the kernel forgets.
    Forget,
    /// The end of what [`Operation::Open`] or [`Operation::OpenDirectory`] began, and what else is agreed to.
    Release,
    /// The end.
    Destroy,
    /// What would change something.
    Change,
    /// Anything else.
    Other(u32),
}

/// A request that no kernel makes.
#[derive(Debug, thiserror::Error)]
#[error("the request of {length} bytes with the number {unique} and the code {code} is cut short")]
pub struct RequestError {
    /// Bytes that came.
    pub length: usize,
    /// By what the answer is known; 0 if that did not come.
    pub unique: u64,
    /// Its code.
    pub code: u32,
}

/// Bytes of `fuse_in_header`.
const HEADER: usize = 40;

impl<'a> Request<'a> {
    /// Reads a request.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RequestError> {
        let short = |unique, code| RequestError { length: bytes.len(), unique, code };
        let head = Fields(bytes);
        let (Some(length), Some(code), Some(unique), Some(node)) =
            (head.word(0), head.word(4), head.long(8), head.long(16))
        else {
            return Err(short(0, 0));
        };
        let body = bytes.get(HEADER..length as usize).ok_or_else(|| short(unique, code))?;
        let operation = operation(code, Fields(body)).ok_or_else(|| short(unique, code))?;
        Ok(Self { unique, node, operation })
    }
}

fn operation(code: u32, body: Fields<'_>) -> Option<Operation<'_>> {
    Some(match code {
        1 => Operation::Lookup(body.name(0)?),
        2 | 42 => Operation::Forget,
        3 => Operation::Attributes,
        5 => Operation::Link,
        14 => Operation::Open,
        15 => Operation::Read { offset: body.long(8)?, size: body.word(16)? },
        17 => Operation::Statistics,
        18 | 25 | 29 => Operation::Release,
        22 => Operation::Xattr { size: body.word(0)?, name: body.name(8)? },
        23 => Operation::Xattrs { size: body.word(0)? },
        26 => {
            // Kernels before 7.36 send one word of flags.
            let (first, second) = (body.word(12)?, body.word(16).unwrap_or(0));
            let second = if first & (1 << 30) == 0 { 0 } else { second };
            Operation::Init {
                major: body.word(0)?,
                minor: body.word(4)?,
                readahead: body.word(8)?,
                flags: u64::from(first) | u64::from(second) << 32,
            }
        }
        27 => Operation::OpenDirectory,
        28 => Operation::List { offset: body.long(8)?, size: body.word(16)? },
        38 => Operation::Destroy,
        44 => Operation::ListAttributes { offset: body.long(8)?, size: body.word(16)? },
        4 | 6 | 8..=13 | 16 | 21 | 24 | 35 | 43 | 45 | 47 | 51 => Operation::Change,
        other => Operation::Other(other),
    })
}

/// Numbers and names at places of a buffer, in the machine's own order.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn word(self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    fn long(self, at: usize) -> Option<u64> {
        Some(u64::from_ne_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    /// Bytes up to a zero.
    fn name(self, at: usize) -> Option<&'a [u8]> {
        let rest = self.0.get(at..)?;
        Some(&rest[..rest.iter().position(|byte| *byte == 0)?])
    }
}
