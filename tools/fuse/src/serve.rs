//! Requests, one after the other.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use crate::answer::{Answer, Named, Settings};
use crate::device::Device;
use crate::filesystem::{Attributes, Filesystem};
use crate::request::{Operation, Request};

/// Bytes of the longest request: reads and lists are short, and nothing is written.
const BUFFER: usize = 64 << 10;
/// Bytes of a list at most, whatever is asked for.
const LIST: usize = 128 << 10;

/// The protocol's version that is spoken here, and the oldest kernel's that is understood (Linux 5.4).
const MINOR: u32 = 41;
const OLDEST_MINOR: u32 = 31;

/// What is asked of the kernel where it can: reads without waiting, lists with attributes, lookups and reads of a
/// directory at once, links in its cache, reads of up to 1 MiB, no word about opening, the second word of flags, and
/// requests again after [`Device::adopt`].
const FLAGS: u64 =
    1 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 18 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 30 | 1 << 39;

/// A request for bytes of a file. Dropped, it is answered with an I/O error, so that nobody waits for ever.
#[derive(Debug)]
pub struct Reading {
    device: Arc<Device>,
    unique: u64,
    node: u64,
    offset: u64,
    size: usize,
    answered: bool,
}

impl Reading {
    /// Which file.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// From where.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes at most.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Answers. Fewer bytes than were asked for mean the end of the file, more are not sent.
    pub fn answer(mut self, bytes: &[u8]) {
        self.answered = true;
        self.device.answer(self.unique, &bytes[..bytes.len().min(self.size)]);
    }

    /// Answers that it cannot be had.
    pub fn refuse(mut self, error: Errno) {
        self.answered = true;
        self.device.refuse(self.unique, error);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.answered {
            self.device.refuse(self.unique, Errno::IO);
        }
    }
}

impl Device {
    /// Answers requests until the file system is unmounted. Blocking, on a thread of its own; several may serve the
    /// same device.
    pub fn serve(self: &Arc<Self>, filesystem: &dyn Filesystem) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        while let Some(bytes) = self.receive(&mut buffer)? {
            let Request { unique, node, operation } = match Request::parse(bytes) {
                Ok(request) => request,
                Err(wrong) => {
                    self.refuse(wrong.unique, Errno::IO);
                    continue;
                }
            };
            match operation {
                Operation::Forget => {}
                Operation::Read { offset, size } => {
                    let (device, size) = (Arc::clone(self), size as usize);
                    filesystem.read(Reading { device, unique, node, offset, size, answered: false });
                }
                operation => match answer(filesystem, node, &operation) {
                    Ok(answer) => self.answer(unique, &answer.0),
                    Err(error) => self.refuse(unique, error),
                },
            }
        }
        Ok(())
    }
}

/// What is answered to anything but a read.
pub(crate) fn answer(
    filesystem: &dyn Filesystem,
    node: u64,
    operation: &Operation<'_>,
) -> Result<Answer, Errno> {
    Ok(match *operation {
        Operation::Init { major, minor, readahead, flags } => {
            if major != 7 || minor < OLDEST_MINOR {
                return Err(Errno::PROTO);
            }
            let (minor, flags) = (minor.min(MINOR), flags & FLAGS);
            Answer::init(&Settings {
                minor,
                readahead,
                flags,
                background: 64,
                max_write: 4096,
                max_pages: 256,
            })
        }
        Operation::Lookup(name) => match filesystem.lookup(node, name)? {
            Some(found) => Answer::entry(&filesystem.attributes(found)?),
            None => Answer::nothing(),
        },
        Operation::Attributes => Answer::attributes_alone(&filesystem.attributes(node)?),
        Operation::Link => Answer(filesystem.link(node)?.to_vec()),
        // The kernel does not ask again, opens by itself, and keeps what it has read.
        Operation::Open | Operation::OpenDirectory => return Err(Errno::NOSYS),
        Operation::List { offset, size } => list(filesystem, node, offset, size, false)?,
        Operation::ListAttributes { offset, size } => list(filesystem, node, offset, size, true)?,
        // Nor does it ask for attributes again that no file has.
        Operation::Xattr { .. } | Operation::Xattrs { .. } if !filesystem.has_xattrs() => {
            return Err(Errno::NOSYS);
        }
        Operation::Xattr { name, size } => sized(filesystem.xattr(node, name)?.to_vec(), size)?,
        Operation::Xattrs { size } => {
            let names = filesystem.xattrs(node)?;
            sized(names.iter().flat_map(|name| name.iter().copied().chain([0])).collect(), size)?
        }
        Operation::Statistics => Answer::statistics(filesystem.statistics()),
        Operation::Release | Operation::Destroy | Operation::Forget => Answer::default(),
        Operation::Change => return Err(Errno::ROFS),
        Operation::Read { .. } | Operation::Other(_) => return Err(Errno::NOSYS),
    })
}

/// A value, or its size where that is asked for.
fn sized(value: Vec<u8>, size: u32) -> Result<Answer, Errno> {
    match size {
        0 => Ok(Answer::size(value.len())),
        size if value.len() > size as usize => Err(Errno::RANGE),
        _ => Ok(Answer(value)),
    }
}

/// Names from a place on. Places 0 and 1 are `.` and `..`.
fn list(
    filesystem: &dyn Filesystem,
    directory: u64,
    offset: u64,
    size: u32,
    attributes: bool,
) -> Result<Answer, Errno> {
    let (mut answer, limit) = (Answer::default(), (size as usize).min(LIST));
    let Ok(mut place) = usize::try_from(offset) else { return Ok(answer) };
    while let Some((name, found)) = at(filesystem, directory, place)? {
        let named = Named { name, next: place as u64 + 1, attributes: found };
        let fits = if attributes {
            answer.list_attributes(&named, place > 1, limit)
        } else {
            answer.list(&named, limit)
        };
        if !fits {
            break;
        }
        place += 1;
    }
    Ok(answer)
}

fn at(
    filesystem: &dyn Filesystem,
    directory: u64,
    place: usize,
) -> Result<Option<(&[u8], Attributes)>, Errno> {
    let (name, node): (&[u8], u64) = match place {
        0 => (b".", directory),
        1 => (b"..", filesystem.above(directory)?),
        _ => match filesystem.entry(directory, place - 2)? {
            Some(listed) => (listed.name, listed.node),
            None => return Ok(None),
        },
    };
    Ok(Some((name, filesystem.attributes(node)?)))
}
