//! The streams of containers whose shim is not berth's. Such a shim knows fifos alone, so a process beside it
//! (`berth-shim relay`) keeps the log and takes in whoever attaches, as berth's shim does for its own; and as that one,
//! it stays when a daemon goes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as Inherited};

use berth_types::{Error, Result, Stdio};
use tokio::net::unix::pipe;

use super::Container;
use super::exec::hold;
use crate::Cri;
use crate::blocking::blocking;

impl Cri {
    /// What of a container's files does not outlive the machine's start.
    pub(super) fn volatile(&self, container: &Container) -> PathBuf {
        self.config.pods.state.join("containers").join(container.id.as_str())
    }

    /// The folder in which somebody takes in whoever attaches to a container, and hears that its log was renamed.
    pub(crate) fn attach_folder(&self, container: &Container) -> Result<PathBuf> {
        if self.pod(&container.pod)?.handler.is_own {
            Ok(container.bundle(&self.config.pods.bundles))
        } else {
            Ok(self.volatile(container))
        }
    }

    /// Starts the process beside a shim. Answers the streams that the shim is to be given, and what has to be held until
    /// it has opened them: when the last writer goes, so does the process.
    pub(super) async fn relay(
        &self,
        container: &Container,
        wanted: Stdio,
    ) -> Result<(Stdio, Vec<pipe::Sender>)> {
        let folder = self.volatile(container);
        let mut command = Command::new(&self.config.pods.shim);
        command.arg("relay").arg(&folder).args([&wanted.stdout, &wanted.stdin]);
        if wanted.terminal {
            command.arg("terminal");
        }
        let made = folder.clone();
        blocking(move || {
            std::fs::create_dir_all(&made)
                .map_err(|error| Error::io(format!("cannot make {}", made.display()), error))?;
            run(command)
        })
        .await?;
        let outputs: &[&str] = if wanted.terminal { &["stdout"] } else { &["stdout", "stderr"] };
        let held = hold(&folder, outputs)?;
        let path = |name: &str, is_wanted: bool| {
            if is_wanted { folder.join(name).display().to_string() } else { String::new() }
        };
        let stdio = Stdio {
            stdin: path("stdin", !wanted.stdin.is_empty()),
            stdout: path("stdout", true),
            stderr: path("stderr", !wanted.terminal),
            terminal: wanted.terminal,
        };
        Ok((stdio, held))
    }
}

/// Runs what answers as soon as the process stands.
fn run(mut command: Command) -> Result<()> {
    let program = PathBuf::from(command.get_program());
    let failed = |error| Error::io(format!("cannot run {}", program.display()), error);
    command.current_dir(Path::new("/")).stdin(Inherited::null());
    let answer = command.output().map_err(failed)?;
    if answer.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
    Err(Error::unknown(format!("cannot keep the log of a container of another shim: {said}")))
}
