//! The one table between kinds of error and gRPC codes; ttrpc uses the same codes.
//!
//! The pairs are those of containerd's `errgrpc`, in which a class goes to its code and comes back as itself.

#[cfg(feature = "grpc")]
use std::fmt;

use berth_types::ErrorKind;

/// A message travels in an HTTP/2 header, where most peers accept 8 to 16 KiB in all.
#[cfg(feature = "grpc")]
const MAX_MESSAGE: usize = 4096;

const TABLE: [(ErrorKind, i32); 16] = [
    (ErrorKind::Cancelled, 1),
    (ErrorKind::Unknown, 2),
    (ErrorKind::InvalidArgument, 3),
    (ErrorKind::DeadlineExceeded, 4),
    (ErrorKind::NotFound, 5),
    (ErrorKind::AlreadyExists, 6),
    (ErrorKind::PermissionDenied, 7),
    (ErrorKind::ResourceExhausted, 8),
    (ErrorKind::FailedPrecondition, 9),
    (ErrorKind::Aborted, 10),
    (ErrorKind::OutOfRange, 11),
    (ErrorKind::NotImplemented, 12),
    (ErrorKind::Internal, 13),
    (ErrorKind::Unavailable, 14),
    (ErrorKind::DataLoss, 15),
    (ErrorKind::Unauthenticated, 16),
];

/// The gRPC code of a kind.
pub fn code(kind: ErrorKind) -> i32 {
    TABLE.iter().find(|(other, _)| *other == kind).map_or(2, |(_, code)| *code)
}

/// The kind of a gRPC code; what is no code of an error is [`ErrorKind::Unknown`].
pub fn kind(code: i32) -> ErrorKind {
    TABLE.iter().find(|(_, other)| *other == code).map_or(ErrorKind::Unknown, |(kind, _)| *kind)
}

/// An error as the status message that ttrpc responses and transfers carry.
pub fn to_rpc(error: &berth_types::Error) -> crate::google::rpc::Status {
    crate::google::rpc::Status { code: code(error.kind()), message: error.chain(), details: Vec::new() }
}

/// The error that a status message stands for.
pub fn from_rpc(status: crate::google::rpc::Status) -> berth_types::Error {
    berth_types::Error::new(kind(status.code), status.message)
}

/// An error as a gRPC status: its kind's code, its text with all causes, cut where headers end.
#[cfg(feature = "grpc")]
pub fn to_status(error: &berth_types::Error) -> tonic::Status {
    let mut message = error.chain();
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    tonic::Status::new(tonic::Code::from_i32(code(error.kind())), message)
}

/// The status of an error. Its text ends with the name of its class, as Go's errors do: people and scripts know
/// errors of containerd by it.
#[cfg(feature = "grpc")]
pub fn answer(error: &berth_types::Error) -> tonic::Status {
    let status = to_status(error);
    match class(error.kind()) {
        Some(class) if !status.message().ends_with(class) => {
            tonic::Status::new(status.code(), format!("{}: {class}", status.message()))
        }
        _ => status,
    }
}

#[cfg(feature = "grpc")]
fn class(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::InvalidArgument => Some("invalid argument"),
        ErrorKind::NotFound => Some("not found"),
        ErrorKind::AlreadyExists => Some("already exists"),
        ErrorKind::FailedPrecondition => Some("failed precondition"),
        ErrorKind::Unavailable => Some("unavailable"),
        ErrorKind::NotImplemented => Some("not implemented"),
        _ => None,
    }
}

/// The error that a gRPC status stands for, with the transport's own causes if it has any.
#[cfg(feature = "grpc")]
pub fn from_status(status: tonic::Status) -> berth_types::Error {
    let kind = kind(status.code() as i32);
    let error = berth_types::Error::new(kind, status.message());
    match std::error::Error::source(&status) {
        Some(_) => error.caused_by(TransportCause(status)),
        None => error,
    }
}

/// Shows a status's cause without repeating its text.
#[cfg(feature = "grpc")]
#[derive(Debug)]
struct TransportCause(tonic::Status);

#[cfg(feature = "grpc")]
impl fmt::Display for TransportCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::error::Error::source(&self.0) {
            Some(cause) => fmt::Display::fmt(cause, f),
            None => f.write_str(self.0.message()),
        }
    }
}

#[cfg(feature = "grpc")]
impl std::error::Error for TransportCause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0).and_then(|cause| cause.source())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "grpc")]
    #[test]
    fn a_text_ends_with_its_class_once() {
        assert_eq!(answer(&berth_types::Error::not_found("image \"x\"")).message(), "image \"x\": not found");
        assert_eq!(
            answer(&berth_types::Error::not_found("image \"x\": not found")).message(),
            "image \"x\": not found"
        );
        assert_eq!(answer(&berth_types::Error::internal("it broke")).message(), "it broke");
    }

    #[test]
    fn every_code_of_an_error_goes_to_a_kind_and_back() {
        for number in 1..=16 {
            assert_eq!(code(kind(number)), number);
        }
        assert_eq!(kind(0), ErrorKind::Unknown);
        assert_eq!(kind(17), ErrorKind::Unknown);
        assert_eq!(kind(-1), ErrorKind::Unknown);
    }

    #[cfg(feature = "grpc")]
    #[test]
    fn a_long_message_is_cut_between_characters() {
        let error = berth_types::Error::not_found("ä".repeat(10_000));
        let status = to_status(&error);
        assert_eq!(status.code(), tonic::Code::NotFound);
        assert!(status.message().len() <= MAX_MESSAGE + '…'.len_utf8());
        assert!(status.message().ends_with('…'));
    }
}
