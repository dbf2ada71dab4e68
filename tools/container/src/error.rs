//! What can go wrong, in the words that runc's users know where other programs read them.

use std::io;
use std::path::PathBuf;

/// What sort of mistake an [`Error`] is; callers translate it into their protocol's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such container or process.
    NotFound,
    /// There is already one of that name.
    AlreadyExists,
    /// The configuration, or an argument, cannot be meant.
    InvalidArgument,
    /// Not in this state of the container.
    FailedPrecondition,
    /// The machine cannot do what was asked.
    Unsupported,
    /// Anything else, most often the kernel's refusal.
    Internal,
}

/// Why an operation on a container failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container of this name below the state root.
    #[error("container {id:?} does not exist")]
    NotFound {
        /// The name.
        id: String,
    },
    /// A container of this name exists.
    #[error("container with given ID already exists: {id:?}")]
    Exists {
        /// The name.
        id: String,
    },
    /// The name cannot be one.
    #[error("invalid container ID {id:?}: use letters, digits and any of _+-., not \".\" or \"..\"")]
    Id {
        /// What was given.
        id: String,
    },
    /// The configuration cannot be meant.
    #[error("invalid configuration: {what}")]
    Config {
        /// What is wrong with it, and what would be right.
        what: String,
    },
    /// A document cannot be read.
    #[error("cannot read {}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The container is not in a state for this.
    #[error("{what}")]
    State {
        /// What was asked and what state it is in.
        what: String,
    },
    /// The process of a signal is gone.
    #[error("process already finished")]
    Finished,
    /// The kernel or the machine lacks something that was asked for.
    #[error("{what}")]
    Unsupported {
        /// What is lacking, and what to do.
        what: String,
    },
    /// The user's program cannot be run; in runc's words, from which clients derive exit codes.
    #[error("unable to start container process: {what}")]
    Process {
        /// Such as `exec: "foo": executable file not found in $PATH`.
        what: String,
    },
    /// A step on the way failed.
    #[error("{what}")]
    Step {
        /// What was being done, with its object.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A hook failed.
    #[error("error running {point} hook #{index} {}: {what}", path.display())]
    Hook {
        /// The point in the container's life.
        point: &'static str,
        /// Which of them, from 0.
        index: usize,
        /// The program.
        path: PathBuf,
        /// Exit status and output.
        what: String,
    },
}

impl Error {
    /// What sort of mistake it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::Finished => ErrorKind::NotFound,
            Self::Exists { .. } => ErrorKind::AlreadyExists,
            Self::Id { .. } | Self::Config { .. } | Self::Document { .. } => ErrorKind::InvalidArgument,
            Self::State { .. } => ErrorKind::FailedPrecondition,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Process { .. } | Self::Step { .. } | Self::Hook { .. } => ErrorKind::Internal,
        }
    }

    /// The error and its causes in one line, as runc prints them.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&strip_os(&cause.to_string()));
            next = cause.source();
        }
        text
    }
}

/// Rust's `Permission denied (os error 13)` as Go says it: `permission denied`.
fn strip_os(text: &str) -> String {
    let bare = text.split(" (os error").next().unwrap_or(text);
    if bare.len() == text.len() {
        return text.to_owned();
    }
    let mut chars = bare.chars();
    match (chars.next(), bare.chars().nth(1)) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => bare.to_owned(),
    }
}

/// The result of an operation on a container.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds what was being done to an I/O error.
pub(crate) trait Doing<T> {
    /// `what` is only built on failure.
    fn doing<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|e| Error::Step { what: what().into(), source: e.into() })
    }
}
