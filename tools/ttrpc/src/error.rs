//! Why a call brought no answer.

use std::io;

use crate::Status;

/// Why a client's call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side answered, with a failure.
    #[error(transparent)]
    Status(#[from] Status),
    /// The connection ended before the answer came.
    #[error("the connection is closed")]
    Closed,
    /// The caller's deadline passed; the other side may still be at work.
    #[error("no answer before the deadline")]
    Timeout,
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The answer is not the message that was expected.
    #[error("the answer cannot be decoded")]
    Decode(#[from] prost::DecodeError),
}
