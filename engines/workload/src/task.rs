//! Starting: the task of a container, its streams and its log.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use berth_core::{CreateTask, Tasks};
use berth_types::attach::{STDIN_KEPT, STDIN_ONCE};
use berth_types::log_uri::escape;
use berth_types::{
    Any, Container, ContainerId, ContainerUpdate, Descriptor, Error, ErrorKind, FieldMask, Mount, ProcessRef,
    ProcessState, ProcessStatus, Result, SnapshotKey, SnapshotterName, Stdio,
};

use crate::parse::RestartName;
use crate::{Config, Definition, HostConfig, Logging, Workload, labels, parse};

/// How long a daemon may be away before whoever stays with a container gives up.
pub const ABSENCE: Duration = Duration::from_secs(120);
/// How often a daemon that is away is looked for.
pub const AGAIN: Duration = Duration::from_millis(100);

/// Where the streams of a task go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskIo {
    /// Into the log, as the container was made to; with berth's shim people attach to it.
    Log,
    /// Into fifos that the caller reads.
    Fifos(Stdio),
}

/// A runtime's name and options as the user wrote them: a name of containerd's, a path of a shim, or one of the
/// low-level runtimes that berth's shim can use.
pub(crate) fn runtime(text: &str) -> (String, Option<Any>) {
    const OURS: &str = "io.containerd.runc.v2";
    match text {
        "" => (OURS.to_owned(), None),
        name if name.starts_with("io.containerd.") => (name.to_owned(), None),
        path if path.starts_with('/') && path.contains("containerd-shim") => (path.to_owned(), None),
        // Docker's habit: `--runtime runc`, `--runtime crun`, `--runtime /usr/bin/youki`.
        binary => (OURS.to_owned(), Some(runc_options(binary))),
    }
}

/// `containerd.runc.v1.Options` with nothing but its field 6, `binary_name`.
fn runc_options(binary: &str) -> Any {
    let mut value = Vec::new();
    put_text(&mut value, 6, binary);
    Any::new("containerd.runc.v1.Options", value)
}

/// Appends a field of text to a message. `field` is below 16.
pub(crate) fn put_text(message: &mut Vec<u8>, field: u8, text: &str) {
    message.push(field << 3 | 2);
    let mut length = text.len();
    while length >= 0x80 {
        message.push((length as u8 & 0x7f) | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(text.as_bytes());
}

/// The daemon went away while it was asked to start a process, and took no container with it: the next one
/// knows whether it had done so. Without a next one, the first error is the answer.
async fn started_meanwhile(tasks: &dyn Tasks, process: &ProcessRef, first: Error) -> Result<u32> {
    let deadline = Instant::now() + ABSENCE;
    loop {
        match tasks.state(process).await {
            Ok(task) if task.status == ProcessStatus::Created => return tasks.start(process).await,
            Ok(task) => return Ok(task.pid),
            Err(error) if error.kind() != ErrorKind::Unavailable => return Err(error),
            Err(_) if Instant::now() > deadline => return Err(first),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

impl Workload {
    /// Makes the task of a container, up to the moment before its first instruction; answers its pid. A task
    /// that ended before is removed first. `rootfs` is given by whoever has just made the container.
    pub async fn create_task(
        &self,
        container: &Container,
        definition: &Definition,
        rootfs: Option<Vec<Mount>>,
        io: TaskIo,
    ) -> Result<u32> {
        self.make_task(container, definition, rootfs, io, None).await
    }

    /// The same, perhaps from a checkpoint, whose processes begin where they were when it is started.
    pub(crate) async fn make_task(
        &self,
        container: &Container,
        definition: &Definition,
        rootfs: Option<Vec<Mount>>,
        io: TaskIo,
        checkpoint: Option<Descriptor>,
    ) -> Result<u32> {
        let rootfs = if let Some(mounts) = rootfs {
            mounts
        } else {
            self.ready_network(&container.id)?;
            self.rootfs_of(container).await?
        };
        let stdio = match io {
            TaskIo::Fifos(stdio) => stdio,
            TaskIo::Log => self.logged(&container.id, definition),
        };
        let request = CreateTask {
            container: container.id.clone(),
            rootfs,
            stdio,
            checkpoint,
            options: None,
            runtime_path: String::new(),
            endpoint: None,
        };
        let tasks = self.catalog.tasks(&self.scope);
        match tasks.create(request.clone()).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.clear_task(&container.id).await?;
                tasks.create(request).await
            }
            other => other,
        }
    }

    /// Starts what [`Workload::create_task`] made; answers the pid.
    pub async fn start_task(&self, id: &ContainerId, definition: &Definition) -> Result<u32> {
        let tasks = self.catalog.tasks(&self.scope);
        let process = ProcessRef::init(id.clone());
        let pid = match tasks.start(&process).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                started_meanwhile(&*tasks, &process, error).await?
            }
            answer => answer?,
        };
        self.note_start(id);
        if definition.host.restart_policy.name != RestartName::No {
            self.keep_at(id, "running").await?;
        }
        Ok(pid)
    }

    /// Starts a container with its output in its log. A task that cannot be started is removed again.
    pub async fn start(
        &self,
        container: &Container,
        definition: &Definition,
        rootfs: Option<Vec<Mount>>,
    ) -> Result<u32> {
        self.create_task(container, definition, rootfs, TaskIo::Log).await?;
        match self.start_task(&container.id, definition).await {
            Ok(pid) => Ok(pid),
            Err(error) => {
                self.drop_task(&container.id).await;
                Err(error)
            }
        }
    }

    /// Removes a task that never ran; a failure is no news beside the one that led here.
    pub async fn drop_task(&self, id: &ContainerId) {
        let tasks = self.catalog.tasks(&self.scope);
        let process = ProcessRef::init(id.clone());
        if tasks.delete(id).await.is_err() {
            let _ = tasks.kill(&process, 9, berth_types::KillTarget::All).await;
            let waited = tokio::time::timeout(std::time::Duration::from_secs(5), tasks.wait(&process)).await;
            if waited.is_ok() {
                let _ = tasks.delete(id).await;
            }
        }
    }

    /// Removes a task that has ended; one that runs is an error.
    async fn clear_task(&self, id: &ContainerId) -> Result<()> {
        let tasks = self.catalog.tasks(&self.scope);
        let state = tasks.state(&ProcessRef::init(id.clone())).await;
        match state {
            Ok(state) if matches!(state.status, ProcessStatus::Running | ProcessStatus::Paused) => {
                Err(Error::failed_precondition(format!("container {id} is running already")))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            _ => tasks.delete(id).await.map(drop),
        }
    }

    /// How the root filesystem of a container is mounted; empty for a folder as it is.
    pub(crate) async fn rootfs_of(&self, container: &Container) -> Result<Vec<Mount>> {
        if container.snapshot_key.is_empty() {
            return Ok(Vec::new());
        }
        let name: SnapshotterName = container.snapshotter.parse()?;
        let key: SnapshotKey = container.snapshot_key.parse()?;
        self.catalog.snapshotter(&name, &self.scope)?.mounts(&key).await
    }

    /// The state of a container's first process, none without a task.
    pub async fn task_state(&self, id: &ContainerId) -> Result<Option<ProcessState>> {
        match self.catalog.tasks(&self.scope).state(&ProcessRef::init(id.clone())).await {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn running_pid(&self, id: &ContainerId) -> Result<u32> {
        match self.task_state(id).await? {
            Some(state) if matches!(state.status, ProcessStatus::Running | ProcessStatus::Paused) => {
                Ok(state.pid)
            }
            _ => Err(not_running(id.as_str())),
        }
    }

    /// Streams into the log.
    fn logged(&self, id: &ContainerId, definition: &Definition) -> Stdio {
        let (config, host) = (&definition.config, &definition.host);
        let Some(uri) = self.log_uri_of(&self.home.container(id), host, config) else {
            return Stdio { terminal: config.tty, ..Stdio::default() };
        };
        let stdin = match (&self.settings.logging, config.open_stdin, config.stdin_once) {
            (Logging::Shim, true, true) => STDIN_ONCE.to_owned(),
            (Logging::Shim, true, false) => STDIN_KEPT.to_owned(),
            _ => String::new(),
        };
        let stderr = if config.tty { String::new() } else { uri.clone() };
        Stdio { stdin, stdout: uri, stderr, terminal: config.tty }
    }

    /// The log of a container as a URI for its shim; none when nothing is kept.
    pub(crate) fn log_uri_of(&self, folder: &Path, host: &HostConfig, _: &Config) -> Option<String> {
        let id = folder.file_name()?.to_string_lossy().into_owned();
        if host.log_config.kind == "none" {
            return None;
        }
        let path = folder.join(format!("{id}-json.log"));
        let mut uri = format!("berth-json://{}", escape(path.as_os_str().as_bytes()));
        let limits: Vec<String> = [("max-size", true), ("max-file", false)]
            .into_iter()
            .filter_map(|(key, is_size)| {
                let value = host.log_config.config.get(key)?;
                let value = if is_size { parse::bytes(value).ok()?.to_string() } else { value.clone() };
                Some(format!("{key}={value}"))
            })
            .collect();
        if !limits.is_empty() {
            uri = format!("{uri}?{}", limits.join("&"));
        }
        match &self.settings.logging {
            Logging::Shim => Some(uri),
            Logging::Program(program) => Some(format!(
                "binary://{}?internal-logger={}",
                escape(program.as_os_str().as_bytes()),
                escape(&uri)
            )),
        }
    }

    /// Whether a container that is started now could be attached to over its shim.
    pub fn attachable(&self, definition: &Definition) -> bool {
        self.settings.logging == Logging::Shim && definition.host.log_config.kind != "none"
    }

    /// Tells the restart monitor what a container should be: `running` or `stopped`.
    pub(crate) async fn keep_at(&self, id: &ContainerId, status: &str) -> Result<()> {
        let mut container = Container::new(id.clone(), berth_types::RuntimeInfo::default());
        container.labels.insert(labels::RESTART_STATUS.to_owned(), status.to_owned());
        let stopped = (status == "stopped").to_string();
        container.labels.insert(labels::RESTART_EXPLICITLY_STOPPED.to_owned(), stopped);
        let paths = container.labels.keys().map(|key| format!("labels.{key}"));
        let mask = FieldMask::new(paths.collect::<Vec<_>>());
        self.catalog.containers(&self.scope).update(ContainerUpdate { container, mask }).await.map(drop)
    }

    /// Remembers when a container was started: nobody else does.
    fn note_start(&self, id: &ContainerId) {
        let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        // A container that was made by somebody else has no folder, and nothing is remembered of it.
        let _ = fs::write(self.home.container(id).join("started"), now.to_string());
    }

    /// When a container was last started, if anybody knows: its process tells, else we do.
    pub(crate) fn started_at(&self, id: &ContainerId, pid: Option<u32>) -> Option<SystemTime> {
        if let Some(started) = pid.and_then(process_start) {
            return Some(started);
        }
        let text = fs::read_to_string(self.home.container(id).join("started")).ok()?;
        text.parse::<jiff::Timestamp>().ok().and_then(|time| SystemTime::try_from(time).ok())
    }

    /// The bundle of a task, found through its process: the shim is the parent and works in the bundle's folder.
    pub fn bundle(&self, pid: u32) -> Option<PathBuf> {
        let shim = parent(pid)?;
        let folder = PathBuf::from(format!("/proc/{shim}/cwd"));
        folder.join("config.json").exists().then_some(folder)
    }
}

/// What Docker answers when a container would have to run.
pub(crate) fn not_running(name: &str) -> Error {
    Error::failed_precondition(format!("container {name} is not running"))
}

fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and parentheses; everything after the last one is numbers.
    let rest = &text[text.rfind(')')? + 1..];
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn parent(pid: u32) -> Option<u32> {
    stat_fields(pid)?.get(1)?.parse().ok().filter(|parent| *parent > 0)
}

/// When a process began, from its age in ticks since the machine's start (proc_pid_stat(5), field 22).
fn process_start(pid: u32) -> Option<SystemTime> {
    let ticks: u64 = stat_fields(pid)?.get(19)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let hertz = rustix::param::clock_ticks_per_second().max(1);
    let age = (uptime - ticks as f64 / hertz as f64).max(0.0);
    SystemTime::now().checked_sub(std::time::Duration::from_secs_f64(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_names_paths_or_binaries() {
        assert_eq!(runtime("").0, "io.containerd.runc.v2");
        assert_eq!(runtime("io.containerd.kata.v2"), ("io.containerd.kata.v2".to_owned(), None));
        assert_eq!(runtime("/opt/containerd-shim-x-v1").0, "/opt/containerd-shim-x-v1");
        let (name, options) = runtime("crun");
        assert_eq!(name, "io.containerd.runc.v2");
        assert_eq!(options.unwrap().value, b"\x32\x04crun");
    }

    #[test]
    fn the_age_of_a_process_is_known() {
        let started = process_start(std::process::id()).unwrap();
        assert!(started <= SystemTime::now());
        assert!(parent(std::process::id()).is_some());
    }
}
