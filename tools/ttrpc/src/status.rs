//! How a call ended: a code of gRPC's table and a sentence.

use std::fmt;

/// The codes of `google.rpc.Code`, which gRPC and ttrpc share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum Code {
    /// The call succeeded.
    Ok = 0,
    /// The caller gave up.
    Cancelled = 1,
    /// An error of no other kind.
    Unknown = 2,
    /// The request is malformed whatever the state is.
    InvalidArgument = 3,
    /// The deadline passed before the call ended.
    DeadlineExceeded = 4,
    /// The object does not exist.
    NotFound = 5,
    /// The object exists already.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// The state of the object does not allow this.
    FailedPrecondition = 9,
    /// The call met another one.
    Aborted = 10,
    /// Past the end.
    OutOfRange = 11,
    /// Nobody serves this method.
    Unimplemented = 12,
    /// An invariant is broken.
    Internal = 13,
    /// Not now; later perhaps.
    Unavailable = 14,
    /// Data is lost.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

impl Code {
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];
}

impl From<i32> for Code {
    /// A number outside the table is [`Code::Unknown`], as gRPC asks of clients.
    fn from(number: i32) -> Self {
        usize::try_from(number).ok().and_then(|index| Self::ALL.get(index)).copied().unwrap_or(Self::Unknown)
    }
}

impl From<Code> for i32 {
    fn from(code: Code) -> Self {
        code as Self
    }
}

/// A call's failure as it travels: `google.rpc.Status` without its details.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Status {
    /// What kind of failure it is; never [`Code::Ok`] when it arrives as an error.
    pub code: Code,
    /// The sentence for a person.
    pub message: String,
}

impl Status {
    /// A status of `code` with this sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_its_number() {
        for code in Code::ALL {
            assert_eq!(Code::from(i32::from(code)), code);
        }
    }

    #[test]
    fn a_number_outside_the_table_is_unknown() {
        for number in [-1, 17, i32::MAX, i32::MIN] {
            assert_eq!(Code::from(number), Code::Unknown);
        }
    }
}
