//! SPDY/3.1: frames, the compressed headers in them, and a connection made of both.

mod dictionary;
pub mod frame;
mod headers;
mod peer;

pub use headers::{Headers, Packer, Unpacker};
pub(crate) use peer::Peer;
