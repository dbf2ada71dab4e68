//! Suites that every implementation of a seam has to pass, locally and through client and server.

pub mod content;
pub mod records;
pub mod snapshot;
