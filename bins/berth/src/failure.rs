//! How a command fails: a text and an exit code, Docker's.

use std::fmt;

/// The engine, or the command line itself, failed.
pub(crate) const ENGINE: u8 = 125;
/// The program is there and cannot be run.
pub(crate) const CANNOT_RUN: u8 = 126;
/// The program is not there.
pub(crate) const NOT_THERE: u8 = 127;

/// An end of a command that is no success.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What to tell; nothing for an exit code alone.
    pub(crate) text: String,
    /// The exit code.
    pub(crate) code: u8,
}

/// What every command answers: its exit code.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    /// A failure of the usual kind.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }

    /// Nothing to say but the code.
    pub(crate) fn silent(code: u8) -> Self {
        Self { text: String::new(), code }
    }

    /// The same with the code of an engine's failure.
    pub(crate) fn of_engine(mut self) -> Self {
        self.code = ENGINE;
        self
    }

    /// The same as the failure to start a process: Docker tells a program that is missing, and one that cannot be
    /// run, by their own codes. A runtime has nothing but its words to tell them apart.
    pub(crate) fn of_start(mut self) -> Self {
        let text = self.text.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let exec = says(&["exec", "start", "process", "entrypoint", "executable"]);
        self.code = if exec
            && says(&["executable file not found", "no such file or directory", "not found in $path"])
        {
            NOT_THERE
        } else if exec
            && says(&["permission denied", "is a directory", "exec format error", "not a directory"])
        {
            CANNOT_RUN
        } else {
            ENGINE
        };
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<berth_types::Error> for Failure {
    fn from(error: berth_types::Error) -> Self {
        Self::new(error.chain())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // What a program without a handler would have ended with: 128 + SIGPIPE.
            return Self::silent(141);
        }
        Self::new(error.to_string())
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        std::io::Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_a_failed_start_are_dockers() {
        for (text, code) in [
            ("exec: \"nope\": executable file not found in $PATH", 127),
            ("cannot start process: /nope: No such file or directory", 127),
            ("exec /etc/passwd: Permission denied", 126),
            ("exec /etc: is a directory", 126),
            ("cannot mount: no space left", 125),
        ] {
            assert_eq!(Failure::new(text).of_start().code, code, "{text}");
        }
    }
}
