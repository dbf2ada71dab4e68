//! WebSockets (RFC 6455) as a kubelet's peers speak them: the handshake, frames as values, and the two things that
//! are sent in them: numbered channels, or the bytes of a SPDY connection.
//!
//! No library is used for the frames, because those that there are gather whole messages, and the memory of a
//! connection would be the longest message that somebody might send. Here a message is passed on as it comes.

mod channels;
pub mod frame;
pub(crate) mod handshake;
mod tunnel;

pub(crate) use channels::{Channels, Codec};
pub use frame::FrameError;
pub(crate) use tunnel::Tunnel;
