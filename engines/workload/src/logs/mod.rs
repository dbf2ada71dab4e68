//! The logs of containers: files with a JSON object a line, as Docker's `json-file` driver writes them.
//!
//! ```text
//!   ID-json.log      the newest         {"log":"hello\n","stream":"stdout","time":"2026-…Z"}
//!   ID-json.log.1    the one before
//!   ID-json.log.2    …
//! ```
//! What is read here was written by a shim, or by [`Writer`] for shims of other people. A line that is no such
//! object, as a power cut may leave it, is passed over.

mod entry;
mod follow;
mod read;
mod tail;
mod write;

pub use entry::{Entry, Stream};
pub use follow::Watch;
pub use read::{Query, Reader};
pub use write::{Limits, Writer};

#[cfg(test)]
mod tests;
