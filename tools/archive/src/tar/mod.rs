//! The tar format: POSIX ustar and pax, GNU, and what came before them.
//!
//! The reader accepts what GNU tar, libarchive and Go's archive/tar agree on, and answers an error where
//! they would read different entries from the same bytes. The writer makes ustar, with pax records where
//! ustar has no room.
//!
//! Sources: POSIX.1-2017 pax; "GNU tar: Basic Tar Format"; star's `SCHILY.xattr` records.

mod block;
mod entry;
mod error;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use self::entry::{Entry, Kind, Segment, Time};
pub use self::error::TarError;
pub use self::reader::{Data, Reader};
pub use self::writer::Writer;

/// The unit of the format.
const BLOCK: usize = 512;

#[cfg(test)]
mod tests;
