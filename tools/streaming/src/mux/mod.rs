//! Many streams over one connection, whatever its frames look like.
//!
//! ```text
//!   session                        Shared (a lock, held for no I/O)                    Driver
//!   Reader <- poll_read  ----  lane: inbound bytes, ended?  <-  Protocol::take  <-  transport
//!   Writer -> poll_write ----  out: frames to be sent       ->                  ->  transport
//!   Mux    -> next, finish     what was opened; gone, finished
//! ```
//! What a connection holds is bounded in both directions: a writer waits while [`OUT`] bytes wait to be sent, and
//! the driver reads nothing while [`INBOUND`] bytes wait to be read, so that a peer who honours no windows (no
//! `kubectl` does) is held back by TCP. The driver is one future; there are no tasks in here.
//!
//! A peer that leaves while nothing is read from it is seen by its FIN within a second, or, when bytes that its own
//! kernel could not get rid of stand before that, once TCP's keepalive finds nobody: some six minutes.

mod drive;
mod lane;
mod patience;
mod protocol;
mod state;

pub(crate) use drive::{Driver, Transport};
pub(crate) use lane::{Opened, Reader, Writer};
pub(crate) use patience::Patience;
pub(crate) use protocol::{Broken, Opening, Protocol, Said};
pub(crate) use state::Mux;

/// Bytes that wait to be sent, above which writers wait.
const OUT: usize = 64 << 10;
/// Bytes that wait to be sent, above which nothing is read: answers to the peer wait too.
const OUT_FULL: usize = 256 << 10;
/// Bytes that wait to be read by the session, above which nothing is read from the peer.
const INBOUND: usize = 256 << 10;
/// The most bytes that go into one frame, so that the streams of a connection take turns.
const PIECE: usize = 16 << 10;
