//! Where a container's output goes.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Component, Path};
use std::time::Duration;

use berth_types::attach::{Decoder, Frame, SOCKET, STDIN_KEPT, STDIN_ONCE, Stream, encode};
use berth_types::log_uri::escape;
use berth_types::{Error, Result, Stdio};

use super::Container;
use crate::Cri;
use crate::blocking::blocking;

/// How long a shim may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container's log: a path beneath the pod's folder of logs. Empty for none, as a request without either asks for.
pub(super) fn path(folder: &str, name: &str) -> Result<String> {
    if folder.is_empty() || name.is_empty() {
        return Ok(String::new());
    }
    let is_plain =
        Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !is_plain || !folder.starts_with('/') || name.contains('\0') {
        return Err(Error::invalid_argument(format!(
            "log path {name:?} must lead into the pod's folder of logs {folder:?}, which must be absolute"
        )));
    }
    Ok(Path::new(folder).join(name).display().to_string())
}

impl Cri {
    /// The streams of a container: its log is written by the shim, which also takes in whoever attaches.
    pub(super) fn streams(&self, container: &Container, log_folder: &str) -> Stdio {
        let mut uri = format!("berth-cri://{}", escape(if log_folder.is_empty() { "/" } else { log_folder }));
        let mut options = Vec::new();
        if !container.origin.log.is_empty() {
            options.push(format!("file={}", escape(&container.config.log_path)));
        }
        if self.config.pods.log_line > 0 {
            options.push(format!("limit={}", self.config.pods.log_line.min(1 << 20)));
        }
        if !options.is_empty() {
            // Writing to a text cannot fail.
            let _ = write!(uri, "?{}", options.join("&"));
        }
        let stdin = match (container.config.stdin, container.config.stdin_once) {
            (false, _) => "",
            (true, true) => STDIN_ONCE,
            (true, false) => STDIN_KEPT,
        };
        Stdio { stdin: stdin.to_owned(), stdout: uri, stderr: String::new(), terminal: container.config.tty }
    }
}

impl Cri {
    /// Tells a container's shim that its log has been renamed.
    pub(crate) async fn reopen_log(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        container.must_run()?;
        let folder = self.attach_folder(&container)?;
        let told = blocking(move || reopen(&folder)).await;
        told.map_err(|error| error.context(format!("cannot reopen the log of container {}", container.id)))
    }
}

fn reopen(folder: &Path) -> Result<()> {
    let failed = |error| Error::io("cannot speak to its shim", error);
    let mut stream = berth_sys::local_socket::connect(folder, SOCKET).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(&encode(Stream::Reopen, &[])).map_err(failed)?;
    let (mut decoder, mut frames, mut block) = (Decoder::default(), Vec::new(), [0; 4096]);
    while frames.is_empty() {
        let count = stream.read(&mut block).map_err(failed)?;
        if count == 0 {
            return Err(Error::unavailable("its shim hung up"));
        }
        decoder
            .feed(&block[..count], &mut frames)
            .map_err(|error| Error::internal("its shim answered what is no frame").caused_by(error))?;
    }
    match frames.first() {
        Some(Frame { stream: Stream::Reopen, payload }) if payload.is_empty() => Ok(()),
        Some(frame) => Err(Error::unknown(String::from_utf8_lossy(&frame.payload).into_owned())),
        None => Err(Error::unavailable("its shim did not answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_lies_beneath_its_pods_folder() {
        assert_eq!(path("/var/log/pods/a", "web/0.log").unwrap(), "/var/log/pods/a/web/0.log");
        assert_eq!(path("", "web/0.log").unwrap(), "");
        assert_eq!(path("/var/log/pods/a", "").unwrap(), "");
        for (folder, name) in
            [("/logs", "../0.log"), ("/logs", "/etc/passwd"), ("/logs", "a/../../b"), ("logs", "0.log")]
        {
            assert!(path(folder, name).is_err(), "{folder} {name}");
        }
    }
}
