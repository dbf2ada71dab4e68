//! The one error that crosses a seam. Inside a crate an operation has its own small enum; where
//! it leaves the crate it becomes this, with a kind that every face can translate.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, in the terms that clients act on: containerd's error classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The caller gave up.
    Cancelled,
    /// Nothing better is known.
    Unknown,
    /// The request itself is wrong, whatever the state.
    InvalidArgument,
    /// A deadline passed.
    DeadlineExceeded,
    /// The object is not there.
    NotFound,
    /// The object is there already.
    AlreadyExists,
    /// The caller may not do that.
    PermissionDenied,
    /// A limit or a device is full.
    ResourceExhausted,
    /// The object is not in the state that the request needs.
    FailedPrecondition,
    /// A conflict with another operation; the whole may be tried again.
    Aborted,
    /// Past the end.
    OutOfRange,
    /// Not something that this build does.
    NotImplemented,
    /// An invariant is broken.
    Internal,
    /// Not now; trying again can help.
    Unavailable,
    /// Bytes are lost or damaged.
    DataLoss,
    /// The caller did not say who it is.
    Unauthenticated,
}

/// What every seam of berth answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its kind, a text that names the object, and its cause.
///
/// `Display` prints the text only; [`Error::chain`] prints the causes too.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {
        $(
            #[doc = concat!("An error of kind [`ErrorKind::", stringify!($kind), "`].")]
            pub fn $name(message: impl Into<String>) -> Self {
                Self::new(ErrorKind::$kind, message)
            }
        )*
    };
}

impl Error {
    /// An error without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    constructors! {
        cancelled => Cancelled,
        unknown => Unknown,
        invalid_argument => InvalidArgument,
        deadline_exceeded => DeadlineExceeded,
        not_found => NotFound,
        already_exists => AlreadyExists,
        permission_denied => PermissionDenied,
        resource_exhausted => ResourceExhausted,
        failed_precondition => FailedPrecondition,
        aborted => Aborted,
        out_of_range => OutOfRange,
        not_implemented => NotImplemented,
        internal => Internal,
        unavailable => Unavailable,
        data_loss => DataLoss,
        unauthenticated => Unauthenticated,
    }

    /// The same error with its cause.
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// An I/O failure as the kind that its errno stands for.
    pub fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        Self::new(io_kind(&source), message).caused_by(source)
    }

    /// The same cause and kind under a text that says what was being done.
    pub fn context(self, message: impl Into<String>) -> Self {
        Self { kind: self.kind, message: message.into(), source: Some(Box::new(self)) }
    }

    /// What went wrong, as a class.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The text followed by every cause, joined by `: `, for a log or a wire that has one string.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

/// The kind for an errno: what is missing, present, full or forbidden stays so for the client.
fn io_kind(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::AlreadyExists => ErrorKind::AlreadyExists,
        Io::PermissionDenied => ErrorKind::PermissionDenied,
        Io::StorageFull | Io::QuotaExceeded | Io::OutOfMemory => ErrorKind::ResourceExhausted,
        Io::TimedOut => ErrorKind::DeadlineExceeded,
        Io::InvalidInput => ErrorKind::InvalidArgument,
        _ => ErrorKind::Unknown,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_every_cause_and_display_only_the_first() {
        let error =
            Error::io("cannot open blob x", std::io::Error::from_raw_os_error(28)).context("pull failed");
        assert_eq!(error.to_string(), "pull failed");
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert!(error.chain().starts_with("pull failed: cannot open blob x: No space left"));
    }
}
