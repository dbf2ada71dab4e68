//! Layers as bytes: tar, compression, whiteouts, and the pipeline that takes them apart.
//!
//! Everything here is a plain function over readers and writers. It never touches a file system (whoever
//! applies a layer does, through `berth_sys::beneath`), never runs a program and never trusts a length:
//! every size, count and depth that comes from an archive has a bound in [`Limits`].
//!
//! The differ reads and writes layers with it, the transfer engine image archives, the command line `cp`
//! and `export`.

mod compress;
mod digest;
mod limits;
mod path;
mod pipeline;
mod shown;
mod tar;
mod whiteout;

pub use self::compress::{Compression, Decoder, Encoder};
pub use self::digest::{DigestReader, DigestWriter, Hasher};
pub use self::limits::Limits;
pub use self::path::{clean, parent};
pub use self::pipeline::{Chunks, Finished, Pipeline, PipelineError};
pub use self::shown::{Counted, read_shown};
pub use self::tar::{Data, Entry, Kind, Reader, Segment, TarError, Time, Writer};
pub use self::whiteout::Whiteout;
