//! The shim's own messages, in the form in which containerd's shim writes them to the bundle's `log` fifo.

use std::fmt::Display;
use std::io::Write as _;
use std::time::SystemTime;

use crate::clock;

/// Writes lines to standard error, which is the fifo. A full fifo, of a daemon that is down, loses lines and never
/// holds the shim up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log {
    verbose: bool,
}

impl Log {
    /// A log with or without the `debug` level.
    pub(crate) fn new(verbose: bool) -> Self {
        Self { verbose }
    }

    /// For whoever debugs.
    pub(crate) fn debug(self, message: impl Display) {
        if self.verbose {
            line("debug", &message);
        }
    }

    /// Something was not as it should be, and the shim goes on.
    #[expect(clippy::unused_self, reason = "beside `debug`, which asks")]
    pub(crate) fn warn(self, message: impl Display) {
        line("warning", &message);
    }

    /// Something failed.
    #[expect(clippy::unused_self, reason = "beside `debug`, which asks")]
    pub(crate) fn error(self, message: impl Display) {
        line("error", &message);
    }
}

fn line(level: &str, message: &dyn Display) {
    let text = message.to_string();
    let line = format!(
        "time=\"{}\" level={level} msg={text:?} runtime=io.containerd.runc.v2\n",
        clock::rfc3339(SystemTime::now())
    );
    // One write of less than a pipe's atomic size; there is nowhere to complain about a failure.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
