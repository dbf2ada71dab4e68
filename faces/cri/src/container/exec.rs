//! `ExecSync`, and commands in containers in general.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_core::ExecProcess;
use berth_oci::runtime::{Process, Spec};
use berth_proto::runtime::v1 as proto;
use berth_types::{Any, Error, ErrorKind, ExecId, KillTarget, ProcessRef, Result, Stdio};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::Container;
use crate::Cri;
use crate::blocking::blocking;
use crate::names;
use crate::spec::PROCESS_TYPE;

/// What is kept of a command's output, per stream: what a kubelet's message holds. The rest is read and dropped, as in
/// containerd.
const MOST_OUTPUT: usize = 16 << 20;
const SIGKILL: u32 = 9;

/// A command that is being run in a container, and its streams' folder, which goes with it.
#[derive(Clone)]
pub(crate) struct Command {
    pub(crate) process: ProcessRef,
    pub(crate) folder: PathBuf,
}

/// What a command is to be.
pub(crate) struct Wanted {
    /// Program and arguments.
    pub(crate) arguments: Vec<String>,
    /// Its streams.
    pub(crate) streams: Streams,
}

/// Which streams of a command are used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    /// Whether it has a terminal.
    pub(crate) terminal: bool,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Command {
    /// One of its streams.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Cri {
    /// Runs a command to its end and answers its output. A caller who hangs up ends the command.
    pub(crate) async fn exec_sync(
        self: &Arc<Self>,
        request: proto::ExecSyncRequest,
    ) -> Result<proto::ExecSyncResponse> {
        let container = self.container(&request.container_id)?;
        let (mut tell, told) = oneshot::channel();
        let cri = self.clone();
        let run = async move {
            let ran = cri.exec_for(&container, request, &mut tell).await;
            // Nobody may wait for it any more.
            let _ = tell.send(ran.map_err(|error| {
                error.context(format!("cannot run a command in container {}", container.id))
            }));
        };
        self.nursery.spawn(run);
        told.await.unwrap_or_else(|_| Err(Error::unavailable("the daemon is ending")))
    }

    async fn exec_for(
        self: &Arc<Self>,
        container: &Container,
        request: proto::ExecSyncRequest,
        caller: &mut oneshot::Sender<Result<proto::ExecSyncResponse>>,
    ) -> Result<proto::ExecSyncResponse> {
        let streams = Streams { terminal: false, stdin: false, stdout: true, stderr: true };
        let wanted = Wanted { arguments: request.cmd, streams };
        let command = self.make_command(container, &wanted).await?;
        let limit =
            u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let ran = tokio::select! {
            ran = self.run_command(&command, limit, self.config.pods.drain_exec) => ran,
            () = caller.closed() => Err(Error::cancelled("nobody waits for it")),
        };
        self.forget_command(&command).await;
        ran
    }

    async fn run_command(
        &self,
        command: &Command,
        limit: Option<Duration>,
        drain: Duration,
    ) -> Result<proto::ExecSyncResponse> {
        let open = |name: &str| {
            let path = command.path(name);
            pipe::OpenOptions::new()
                .open_receiver(&path)
                .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))
        };
        let (stdout, stderr) = (open("stdout")?, open("stderr")?);
        // A fifo that nobody writes yet would look as if it had ended; some shims open theirs only at the start.
        let held = hold(&command.folder, &["stdout", "stderr"])?;
        let tasks = self.tasks();
        tasks.start(&command.process).await?;
        drop(held);
        let output = async { tokio::join!(read(stdout), read(stderr)) };
        tokio::pin!(output);
        let ended = async {
            let wait = tasks.wait(&command.process);
            match limit {
                None => wait.await,
                Some(limit) => {
                    if let Ok(ended) = tokio::time::timeout(limit, wait).await {
                        return ended;
                    }
                    let _ = tasks.kill(&command.process, SIGKILL, KillTarget::Process).await;
                    let _ = tokio::time::timeout(KILLED, tasks.wait(&command.process)).await;
                    Err(Error::deadline_exceeded(format!("it did not end within {limit:?}")))
                }
            }
        };
        tokio::pin!(ended);
        // Output is read while it runs, or a full pipe would stop it.
        let (exit, read) = tokio::select! {
            exit = &mut ended => (exit, None),
            read = &mut output => (ended.await, Some(read)),
        };
        let exit = exit?;
        let (stdout, stderr) = match read {
            Some(read) => read,
            None if drain.is_zero() => output.await,
            None => tokio::time::timeout(drain, output).await.map_err(|_| {
                Error::deadline_exceeded(format!("its output did not end within {drain:?} of its end"))
            })?,
        };
        Ok(proto::ExecSyncResponse { stdout: stdout?, stderr: stderr?, exit_code: exit.status as i32 })
    }

    /// Makes a command that is yet to be started, with its streams as fifos.
    pub(crate) async fn make_command(&self, container: &Container, wanted: &Wanted) -> Result<Command> {
        container.must_run()?;
        if wanted.arguments.is_empty() {
            return Err(Error::invalid_argument("the command is empty"));
        }
        let id: ExecId = names::new_id()?.parse()?;
        let folder = self.config.pods.state.join("execs").join(id.as_str());
        let command = Command { process: ProcessRef::exec(container.id.clone(), id), folder };
        let spec = self.process_of(container, wanted).await?;
        let (made, streams) = (command.clone(), wanted.streams);
        let stdio = blocking(move || fifos(&made, streams)).await;
        let made = match stdio {
            Ok(stdio) => {
                self.tasks().exec(ExecProcess { process: command.process.clone(), stdio, spec }).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            // The first error is the one to tell.
            let _ = remove_streams(&command).await;
            return Err(error);
        }
        Ok(command)
    }

    /// The container's own process with other arguments.
    async fn process_of(&self, container: &Container, wanted: &Wanted) -> Result<Any> {
        // A whole specification is long, and a probe comes every second.
        let mut process =
            container.process.get_or_try_init(|| self.specified_process(container)).await?.clone();
        process.args.clone_from(&wanted.arguments);
        process.terminal = wanted.streams.terminal;
        process.console_size = None;
        if wanted.streams.terminal && !process.env.iter().any(|pair| pair.starts_with("TERM=")) {
            process.env.push("TERM=xterm".to_owned());
        }
        let json = serde_json::to_vec(&process)
            .map_err(|error| Error::internal("a process cannot be written").caused_by(error))?;
        Ok(Any::new(PROCESS_TYPE, json))
    }

    async fn specified_process(&self, container: &Container) -> Result<Process> {
        let record = self.containers_store().container(&container.id).await?;
        let unreadable = || Error::data_loss(format!("the specification of {} cannot be read", container.id));
        let spec: Spec =
            record.spec.and_then(|spec| serde_json::from_slice(&spec.value).ok()).ok_or_else(unreadable)?;
        spec.process.ok_or_else(unreadable)
    }

    /// Removes a command that has ended, and kills one that has not. Nobody is told: its answer is known.
    pub(crate) async fn forget_command(&self, command: &Command) {
        let tasks = self.tasks();
        let Some(exec) = &command.process.exec else { return };
        let mut removed = tasks.delete_process(&command.process.container, exec).await;
        if matches!(&removed, Err(error) if error.kind() == ErrorKind::FailedPrecondition) {
            let _ = tasks.kill(&command.process, SIGKILL, KillTarget::Process).await;
            let _ = tokio::time::timeout(KILLED, tasks.wait(&command.process)).await;
            removed = tasks.delete_process(&command.process.container, exec).await;
        }
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(process = %command.process, "it is left: {}", error.chain());
            }
            _ => {}
        }
        if let Err(error) = remove_streams(command).await {
            tracing::warn!(process = %command.process, "its streams are left: {}", error.chain());
        }
    }
}

/// How long a process that was killed may take to end.
const KILLED: Duration = Duration::from_secs(10);

async fn remove_streams(command: &Command) -> Result<()> {
    let folder = command.folder.clone();
    blocking(move || super::remove::remove_folder(&folder)).await
}

/// Makes a command's streams. Blocking.
fn fifos(command: &Command, wanted: Streams) -> Result<Stdio> {
    let failed = |error| Error::io(format!("cannot make the streams of {}", command.process), error);
    std::fs::create_dir_all(&command.folder).map_err(failed)?;
    let fifo = |name: &str, is_wanted: bool| {
        if !is_wanted {
            return Ok::<_, Error>(String::new());
        }
        let path = command.path(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
            .map_err(|error| failed(error.into()))?;
        Ok(path.display().to_string())
    };
    Ok(Stdio {
        stdin: fifo("stdin", wanted.stdin)?,
        stdout: fifo("stdout", wanted.stdout)?,
        stderr: fifo("stderr", wanted.stderr && !wanted.terminal)?,
        terminal: wanted.terminal,
    })
}

/// Writing ends of fifos in a folder, whose reading ends are open.
pub(crate) fn hold(folder: &Path, names: &[&str]) -> Result<Vec<pipe::Sender>> {
    let open = |name: &&str| {
        let path = folder.join(name);
        pipe::OpenOptions::new()
            .open_sender(&path)
            .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))
    };
    names.iter().map(open).collect()
}

/// Reads a stream to its end, and keeps as much as a message holds.
async fn read(mut stream: pipe::Receiver) -> Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut block = vec![0; 32 << 10];
    loop {
        let count =
            stream.read(&mut block).await.map_err(|error| Error::io("cannot read its output", error))?;
        if count == 0 {
            return Ok(kept);
        }
        let room = MOST_OUTPUT - kept.len();
        kept.extend_from_slice(&block[..count.min(room)]);
    }
}
