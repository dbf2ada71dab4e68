//! SPDY/3.1: frames, and the compressed headers in them.

mod dictionary;
pub mod frame;
mod headers;

pub use headers::{Headers, Packer, Unpacker};
