//! runc, crun, youki: a program that is run once for each call.

use std::io::{BufRead as _, BufReader, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use berth_proto as proto;
use berth_types::{Error, ErrorKind, Result};
use proto::containerd::runc::v1::Options;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{Checkpoint, ChildIo, Create, Exec, Place, Restore, Running, Runtime, Spawned};
use crate::children::{Children, Finished};

/// containerd's choice, so that `runc --root` of its users' habits finds the containers.
const ROOT: &str = "/run/containerd/runc";
/// A runtime that has made its process has sent the console before; this is for a broken one.
const CONSOLE_WAIT: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

static CONSOLES: AtomicU32 = AtomicU32::new(0);

/// A program with runc's command line.
#[derive(Debug)]
pub(crate) struct External {
    program: PathBuf,
    root: PathBuf,
    log: PathBuf,
    sockets: PathBuf,
    systemd_cgroup: bool,
    children: Children,
}

impl External {
    pub(crate) fn new(options: &Options, place: &Place<'_>, children: Children) -> Self {
        let root = if options.root.is_empty() { Path::new(ROOT) } else { Path::new(&options.root) };
        Self {
            program: PathBuf::from(&options.binary_name),
            root: root.join(place.namespace),
            log: place.bundle.join("log.json"),
            sockets: place.sockets.to_owned(),
            systemd_cgroup: options.systemd_cgroup,
            children,
        }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg("--log").arg(&self.log).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        // A daemon's readiness is none of a container's business.
        command.env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).arg(verb);
        command
    }

    /// Runs a command that has something to say only when it fails.
    fn order(&self, what: &str, command: &mut Command) -> Result<Finished> {
        let finished = self.children.output(command).map_err(|e| self.cannot_run(e))?;
        if finished.status == 0 { Ok(finished) } else { Err(self.failure(what, &finished)) }
    }

    /// Runs a command that makes a process with these streams, and finds the process.
    fn spawn(
        &self,
        what: &str,
        mut command: Command,
        io: ChildIo,
        pid_file: &Path,
        id: &str,
    ) -> Result<Spawned> {
        // A number from an earlier attempt would be taken for the new one's.
        let _ = std::fs::remove_file(pid_file);
        command.arg("--pid-file").arg(pid_file);
        let console = match io {
            ChildIo::Terminal => {
                let console = ConsoleSocket::listen(&self.sockets)?;
                command.arg("--console-socket").arg(&console.path);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                Some(console)
            }
            ChildIo::Streams([stdin, stdout, stderr]) => {
                let given = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::null, Stdio::from);
                command.stdin(given(stdin)).stdout(given(stdout)).stderr(given(stderr));
                None
            }
        };
        command.arg(id);
        let finished = self.children.run(&mut command).map_err(|e| self.cannot_run(e))?;
        drop(command);
        if finished.status != 0 {
            return Err(self.failure(what, &finished));
        }
        let console = console.map(ConsoleSocket::receive).transpose()?;
        let text = std::fs::read_to_string(pid_file)
            .map_err(|e| Error::io("the OCI runtime left no pid file", e))?;
        let pid = text.trim().parse().map_err(|e| {
            Error::unknown(format!("the OCI runtime's pid file {} holds no number", pid_file.display()))
                .caused_by(Box::<dyn std::error::Error + Send + Sync>::from(e as std::num::ParseIntError))
        })?;
        Ok(Spawned { pid, console })
    }

    fn cannot_run(&self, error: std::io::Error) -> Error {
        Error::unknown(format!("cannot run the OCI runtime {}", self.program.display())).caused_by(error)
    }

    /// The runtime's own last word: its log's, else what it printed.
    fn failure(&self, what: &str, finished: &Finished) -> Error {
        let said = last_error(&self.log).unwrap_or_else(|| {
            let name = self.program.display();
            if finished.stderr.is_empty() {
                format!("{name} ended with status {}", finished.status)
            } else {
                format!("{name} ended with status {}: {}", finished.status, finished.stderr)
            }
        });
        Error::unknown(format!("{what}: {said}"))
    }

    fn signal(&self, id: &str, signal: u32, all: bool) -> Result<()> {
        let mut command = self.command("kill");
        if all {
            command.arg("--all");
        }
        self.order("OCI runtime kill failed", command.arg(id).arg(signal.to_string()))
            .map(drop)
            .map_err(kill_error)
    }

    fn process_file(request: &Exec) -> PathBuf {
        request.bundle.join(format!("{}.process.json", request.exec_id))
    }
}

impl Runtime for External {
    fn create(&self, request: &Create, io: ChildIo) -> Result<Spawned> {
        let mut command = self.command("create");
        command.arg("--bundle").arg(&request.bundle);
        if request.no_pivot_root {
            command.arg("--no-pivot");
        }
        if request.no_new_keyring {
            command.arg("--no-new-keyring");
        }
        let pid_file = request.bundle.join("init.pid");
        self.spawn("OCI runtime create failed", command, io, &pid_file, &request.id)
    }

    fn start(&self, id: &str) -> Result<()> {
        self.order("OCI runtime start failed", self.command("start").arg(id)).map(drop)
    }

    fn restore(&self, request: &Restore, io: ChildIo) -> Result<Spawned> {
        let mut command = self.command("restore");
        command.arg("--image-path").arg(&request.image).arg("--work-path").arg(&request.work);
        if !request.parent.is_empty() {
            command.arg("--parent-path").arg(&request.parent);
        }
        if request.create.no_pivot_root {
            command.arg("--no-pivot");
        }
        command.args(["--detach", "--no-subreaper", "--bundle"]).arg(&request.create.bundle);
        let pid_file = request.create.bundle.join("init.pid");
        self.spawn("OCI runtime restore failed", command, io, &pid_file, &request.create.id)
    }

    fn exec(&self, request: &Exec, io: ChildIo) -> Result<Spawned> {
        let file = Self::process_file(request);
        crate::bundle::write_private(&file, &request.process)?;
        let mut command = self.command("exec");
        command.arg("--process").arg(&file).arg("--detach");
        let pid_file = request.bundle.join(format!("{}.pid", request.exec_id));
        let spawned = self.spawn("OCI runtime exec failed", command, io, &pid_file, &request.id);
        for path in [file, pid_file] {
            // The bundle goes as a whole in the end.
            let _ = std::fs::remove_file(path);
        }
        spawned
    }

    fn kill(&self, id: &str, signal: u32) -> Result<()> {
        self.signal(id, signal, false)
    }

    fn kill_all(&self, id: &str, signal: u32) -> Result<()> {
        self.signal(id, signal, true)
    }

    fn delete(&self, id: &str, running: Running) -> Result<()> {
        let mut command = self.command("delete");
        if running == Running::Kill {
            command.arg("--force");
        }
        match self.order("failed to delete task", command.arg(id)) {
            Err(error) if error.message().contains("does not exist") => Ok(()),
            other => other.map(drop),
        }
    }

    fn pause(&self, id: &str) -> Result<()> {
        self.order("OCI runtime pause failed", self.command("pause").arg(id)).map(drop)
    }

    fn resume(&self, id: &str) -> Result<()> {
        self.order("OCI runtime resume failed", self.command("resume").arg(id)).map(drop)
    }

    fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let what = "OCI runtime update failed";
        let mut file = unnamed_file().map_err(|e| Error::io(what, e))?;
        file.write_all(resources).map_err(|e| Error::io(what, e))?;
        std::io::Seek::rewind(&mut file).map_err(|e| Error::io(what, e))?;
        let mut command = self.command("update");
        command.args(["--resources", "-", id]).stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped());
        let finished = self.children.run(&mut command).map_err(|e| self.cannot_run(e))?;
        if finished.status == 0 { Ok(()) } else { Err(self.failure(what, &finished)) }
    }

    fn pids(&self, id: &str) -> Result<Vec<u32>> {
        let finished =
            self.order("OCI runtime ps failed", self.command("ps").args(["--format", "json", id]))?;
        let pids: Option<Vec<u32>> = serde_json::from_slice(&finished.stdout)
            .map_err(|e| Error::unknown("the OCI runtime's list of processes is no JSON").caused_by(e))?;
        Ok(pids.unwrap_or_default())
    }

    fn checkpoint(&self, id: &str, request: &Checkpoint) -> Result<()> {
        let mut command = self.command("checkpoint");
        command.arg("--image-path").arg(&request.image).arg("--work-path").arg(&request.work);
        let switches = [
            (request.open_tcp, "--tcp-established"),
            (request.external_unix_sockets, "--ext-unix-sk"),
            (request.terminal, "--shell-job"),
            (request.file_locks, "--file-locks"),
            (!request.exit, "--leave-running"),
        ];
        command.args(switches.iter().filter(|(on, _)| *on).map(|(_, flag)| flag));
        if !request.cgroups_mode.is_empty() {
            command.args(["--manage-cgroups-mode", &request.cgroups_mode]);
        }
        for namespace in &request.empty_namespaces {
            command.args(["--empty-ns", namespace]);
        }
        self.order("OCI runtime checkpoint failed", command.arg(id)).map(drop)
    }

    fn features(&self) -> Result<Option<Vec<u8>>> {
        let mut command = Command::new(&self.program);
        let finished = self.children.output(command.arg("features")).map_err(|e| self.cannot_run(e))?;
        Ok((finished.status == 0).then_some(finished.stdout))
    }

    fn is_quick(&self) -> bool {
        false
    }
}

/// What a failed kill means to a client: only that the process has gone is worth a kind of its own.
fn kill_error(error: Error) -> Error {
    let text = error.message().to_ascii_lowercase();
    let gone = ["process already finished", "container not running", "no such process"];
    if gone.iter().any(|one| text.contains(one)) {
        return Error::not_found("process already finished");
    }
    if text.contains("does not exist") {
        return Error::not_found("no such container");
    }
    Error::new(ErrorKind::Unknown, error.message())
}

/// The message of the last error in a runtime's JSON log: runc's and crun's `{"level":"error","msg":…}`, youki's
/// `{"level":"ERROR","message":…}`, whose trace of calls is for its own developers.
fn last_error(log: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        #[serde(alias = "message")]
        msg: String,
    }
    let lines = BufReader::new(std::fs::File::open(log).ok()?).lines();
    let parsed = lines.map_while(Result::ok).filter_map(|line| serde_json::from_str::<Line>(&line).ok());
    let last = parsed.filter(|line| line.level.eq_ignore_ascii_case("error")).last()?;
    let said = last.msg.split_once("\n\nStack backtrace:").map_or(last.msg.as_str(), |(said, _)| said);
    Some(said.trim().to_owned())
}

/// A file without a name, for a program's standard input.
fn unnamed_file() -> std::io::Result<std::fs::File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(std::fs::File::from(rustix::fs::memfd_create("resources", flags)?))
}

/// The socket over which a runtime hands out a terminal's other end. Its file goes with it.
#[derive(Debug)]
struct ConsoleSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    fn listen(folder: &Path) -> Result<Self> {
        let number = CONSOLES.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("pty-{}-{number}", std::process::id()));
        let failed = |e| Error::io(format!("cannot listen for a console on {}", path.display()), e);
        let listener = UnixListener::bind(&path).map_err(failed)?;
        Ok(Self { path, listener })
    }

    fn receive(self) -> Result<OwnedFd> {
        let failed = |e: rustix::io::Errno| Error::io("the OCI runtime sent no console", e.into());
        let readable = |fd: &dyn AsFdDyn| {
            let mut fds = [PollFd::from_borrowed_fd(fd.fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&CONSOLE_WAIT)) {
                Ok(0) => Err(Error::deadline_exceeded("the OCI runtime sent no console")),
                Ok(_) => Ok(()),
                Err(error) => Err(failed(error)),
            }
        };
        readable(&self.listener)?;
        let (stream, _) =
            self.listener.accept().map_err(|e| Error::io("the OCI runtime sent no console", e))?;
        readable(&stream)?;
        let mut name = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .map_err(failed)?;
        let rights = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        rights.ok_or_else(|| Error::unknown("the OCI runtime's message holds no console"))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // It lies in a folder of our own; one more stale name there harms nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Anything with a descriptor.
trait AsFdDyn {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl<T: std::os::fd::AsFd> AsFdDyn for T {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_found_in_the_logs_of_every_runtime() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let said = |text: &str| {
            std::fs::write(log.path(), text).unwrap();
            last_error(log.path())
        };
        let runc = "{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"no such file\"}\nnoise\n";
        assert_eq!(said(runc).as_deref(), Some("no such file"));
        let youki = "{\"level\":\"ERROR\",\"message\":\"no rootfs\\n\\nStack backtrace:\\n 0: main\"}\n";
        assert_eq!(said(youki).as_deref(), Some("no rootfs"));
        assert_eq!(said("{\"level\":\"info\",\"msg\":\"x\"}\n"), None);
    }
}
