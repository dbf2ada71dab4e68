//! ttrpc: the small request and response protocol between a containerd-style daemon and its shims.
//!
//! A connection is a unix stream socket that carries frames: ten bytes of header and at most 4 MiB of data
//! ([`frame`], pure, knows no socket). On top of them stand
//! - [`server::Connection`] and [`server::Responder`]: the synchronous server of a shim, driven by the shim's own
//!   poll loop; an answer may come later and from another thread;
//! - [`client::Client`]: a synchronous client that blocks, for programs and tests;
//! - [`polled::Client`]: one that never blocks, with which a shim's loop publishes its events;
//! - [`tokio`] (feature `tokio`): the asynchronous client and server of the daemon.
//!
//! What travels inside (service names, protobuf messages) is the business of `berth-proto`; this crate only knows
//! the envelope ([`wire`]). Unary calls are complete. Of streaming, the frames are decoded and encoded and a stream
//! that nobody here can serve is refused with `Unimplemented`; no stream is ever served.
//!
//! Whatever a peer sends is input: it can close its own connection, and nothing else.

pub mod client;
mod error;
pub mod frame;
mod metadata;
pub mod polled;
pub mod server;
mod status;
#[cfg(feature = "tokio")]
pub mod tokio;
pub mod wire;

pub use error::Error;
pub use metadata::{Metadata, NAMESPACE_KEY};
pub use status::{Code, Status};
