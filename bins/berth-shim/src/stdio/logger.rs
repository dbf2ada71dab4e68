//! Logging programs (`binary://`): they read a process' output on descriptors 3 and 4 and close 5 when they are ready.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use berth_types::{Error, Result};
use rustix::pipe::{PipeFlags, pipe_with};

use super::uri::Uri;
use crate::children::Children;

/// A program to be started.
#[derive(Debug)]
pub(crate) struct LoggerProgram {
    program: PathBuf,
    arguments: Vec<String>,
    /// `binary-v2`: readiness is a byte, and an end without it a failure.
    strict: bool,
    /// The reading ends of standard output and error.
    streams: [OwnedFd; 2],
}

impl LoggerProgram {
    pub(super) fn new(uri: &Uri, streams: [OwnedFd; 2]) -> Self {
        Self {
            program: uri.path.clone(),
            arguments: uri.query.iter().flat_map(|(key, value)| [key.clone(), value.clone()]).collect(),
            strict: uri.scheme == "binary-v2",
            streams,
        }
    }

    /// Starts it for the process `id` and waits until it is ready. Blocking. Its exit comes to the loop, which has to
    /// expect it (see [`Children::expect`]).
    pub(crate) fn start(self, id: &str, namespace: &str, children: &Children) -> Result<u32> {
        let _expectation = children.expect();
        let failed = |e| Error::io(format!("cannot start the logging program {}", self.program.display()), e);
        let (ready, signal) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let [out, err] = &self.streams;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear();
        command.env("CONTAINER_ID", id).env("CONTAINER_NAMESPACE", namespace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let sources = [out.as_raw_fd(), err.as_raw_fd(), signal.as_raw_fd()];
        berth_sys::spawn::with_descriptors(&mut command, sources);
        let pid = command.spawn().map_err(failed)?.id();
        drop(signal);
        let mut byte = [0];
        let count = File::from(ready).read(&mut byte).map_err(failed)?;
        if self.strict && count == 0 {
            return Err(not_ready(&self.program));
        }
        Ok(pid)
    }
}

fn not_ready(program: &Path) -> Error {
    Error::unknown(format!(
        "the logging program {} did not say that it is ready: it may have crashed or ended",
        program.display()
    ))
}
