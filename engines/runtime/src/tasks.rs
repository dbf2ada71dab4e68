//! The tasks of one namespace, as clients have them.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use berth_core::{CreateTask, ExecProcess, Scope, Tasks, UpdateTask};
use berth_proto as proto;
use berth_types::filter::{Fields, Filters};
use berth_types::{
    Any, ContainerId, Descriptor, Error, ErrorKind, ExecId, Exit, KillTarget, Metric, ProcessInfo,
    ProcessRef, ProcessState, Result, Stdio, TerminalSize,
};
use futures::future::join_all;
use prost::Message;
use proto::containerd::task::v3 as wire;
use proto::containerd::v1::types::Status;
use tokio::sync::oneshot;

use crate::blocking::blocking;
use crate::checkpoint;
use crate::engine::Engine;
use crate::key::Key;
use crate::recover::exit_of;
use crate::registry::Named as _;
use crate::shim::{CallError, Shim};
use crate::task::Task;

/// A handle on the tasks of a namespace.
pub(crate) struct ScopedTasks {
    pub(crate) engine: Arc<Engine>,
    pub(crate) scope: Scope,
}

impl ScopedTasks {
    fn task(&self, container: &ContainerId) -> Result<Arc<Task>> {
        let key = Key::new(&self.scope.namespace, container);
        self.engine.registry.live(&key).ok_or_else(|| not_found(container))
    }

    /// The task and its shim, which may be away.
    fn shim(&self, container: &ContainerId) -> Result<(Arc<Task>, Shim)> {
        let task = self.task(container)?;
        let shim = task.shim_now().ok_or_else(|| {
            Error::unavailable(format!("the shim of task {container} does not answer; try again"))
        })?;
        Ok((task, shim))
    }

    /// Calls the task's shim under the general deadline.
    async fn call<Q, A>(&self, container: &ContainerId, method: &'static str, request: Q) -> Result<A>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let (_, shim) = self.shim(container)?;
        let called = shim.call(method, request, Some(self.engine.config.timeouts.call)).await;
        called.map_err(|error| of_task(container, error))
    }

    async fn state_of(&self, task: &Task, process: ProcessRef) -> Result<ProcessState> {
        let shim = task
            .shim_now()
            .ok_or_else(|| Error::unavailable(format!("the shim of {process} does not answer; try again")))?;
        let state = self.engine.state(&shim, task.key(), process.exec_id()).await;
        let state = state.map_err(|error| of_task(&process.container, error))?;
        if process.exec.is_none() && state.status == Status::Stopped as i32 {
            task.note_exit(exit_of(&state));
        }
        Ok(to_state(process, state))
    }

    async fn metric(&self, task: &Task) -> Result<Metric> {
        let id = task.key().id.clone();
        let timestamp = SystemTime::now();
        let request = wire::StatsRequest { id: id.to_string() };
        let answer: wire::StatsResponse = self.call(&id, "Stats", request).await?;
        Ok(Metric { id, timestamp, data: answer.stats.map(proto::convert::from_any) })
    }
}

fn not_found(container: &ContainerId) -> Error {
    Error::not_found(format!("task {container} not found"))
}

/// A shim that is gone takes its task with it.
fn of_task(container: &ContainerId, error: CallError) -> Error {
    match error {
        CallError::Closed => Error::not_found(format!("task {container} not found: its shim has ended")),
        other => other.into(),
    }
}

fn to_state(process: ProcessRef, state: wire::StateResponse) -> ProcessState {
    let exit = exit_of(&state);
    let status = Status::try_from(state.status).unwrap_or(Status::Unknown);
    let wire::StateResponse { pid, stdin, stdout, stderr, terminal, .. } = state;
    ProcessState {
        process,
        pid,
        status: status.into(),
        stdio: Stdio { stdin, stdout, stderr, terminal },
        exit: (status == Status::Stopped).then_some(exit),
    }
}

#[async_trait]
impl Tasks for ScopedTasks {
    async fn create(&self, request: CreateTask) -> Result<u32> {
        // A client that goes away must not leave half a task.
        let (reply, answer) = oneshot::channel();
        let created = Arc::clone(&self.engine).create(self.scope.clone(), request);
        self.engine.nursery.spawn(async move {
            let _ = reply.send(created.await);
        });
        answer.await.map_err(|_| Error::cancelled("the daemon is ending"))?
    }

    async fn start(&self, process: &ProcessRef) -> Result<u32> {
        let (task, shim) = self.shim(&process.container)?;
        let request =
            wire::StartRequest { id: process.container.to_string(), exec_id: process.exec_id().to_owned() };
        let limit = Some(self.engine.config.timeouts.create);
        let started = shim.call::<_, wire::StartResponse>("Start", request, limit).await;
        let pid = started.map_err(|error| of_task(&process.container, error))?.pid;
        if pid != 0 {
            return Ok(pid);
        }
        // Some shims say it only here.
        Ok(self.state_of(&task, process.clone()).await?.pid)
    }

    async fn delete(&self, container: &ContainerId) -> Result<Exit> {
        self.task(container)?.delete().await
    }

    async fn delete_process(&self, container: &ContainerId, exec: &ExecId) -> Result<Exit> {
        let request = wire::DeleteRequest { id: container.to_string(), exec_id: exec.to_string() };
        let (task, shim) = self.shim(container)?;
        let limit = Some(self.engine.config.timeouts.call);
        let delete = || shim.call::<_, wire::DeleteResponse>("Delete", request.clone(), limit);
        let deleted = match delete().await {
            Err(error) if error.kind() == ErrorKind::Unknown => {
                // Shims say only in words that it runs.
                let process = ProcessRef::exec(container.clone(), exec.clone());
                let state = self.engine.state(&shim, task.key(), process.exec_id()).await;
                let status = state.map(|state| state.status);
                if status.as_ref().is_ok_and(|status| *status == Status::Running as i32) {
                    return Err(Error::failed_precondition(of_task(container, error).chain()));
                }
                // It may have ended since.
                if status.is_ok_and(|status| status == Status::Stopped as i32) {
                    delete().await
                } else {
                    Err(error)
                }
            }
            deleted => deleted,
        };
        let answer = deleted.map_err(|error| of_task(container, error))?;
        let wire::DeleteResponse { pid, exit_status, exited_at } = answer;
        Ok(Exit { pid, status: exit_status, at: proto::convert::time(exited_at) })
    }

    async fn state(&self, process: &ProcessRef) -> Result<ProcessState> {
        let task = self.task(&process.container)?;
        self.state_of(&task, process.clone()).await
    }

    async fn list(&self) -> Result<Vec<ProcessState>> {
        let tasks = self.engine.registry.of(&self.scope.namespace);
        let states = tasks.iter().map(|task| async {
            let process = ProcessRef::init(task.key().id.clone());
            match self.state_of(task, process).await {
                Ok(state) => Some(state),
                Err(error) => {
                    // One that goes away meanwhile is none; one that does not answer hides no other.
                    if error.kind() != ErrorKind::NotFound {
                        tracing::error!(task = %task.key(), "cannot ask for its state: {}", error.chain());
                    }
                    None
                }
            }
        });
        Ok(join_all(states).await.into_iter().flatten().collect())
    }

    async fn kill(&self, process: &ProcessRef, signal: u32, target: KillTarget) -> Result<()> {
        let request = wire::KillRequest {
            id: process.container.to_string(),
            exec_id: process.exec_id().to_owned(),
            signal,
            all: target == KillTarget::All,
        };
        self.call(&process.container, "Kill", request).await
    }

    async fn exec(&self, request: ExecProcess) -> Result<()> {
        let ExecProcess { process, stdio, spec } = request;
        let Some(exec) = &process.exec else {
            return Err(Error::invalid_argument("exec id cannot be empty"));
        };
        let request = wire::ExecProcessRequest {
            id: process.container.to_string(),
            exec_id: exec.to_string(),
            terminal: stdio.terminal,
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            spec: Some(proto::convert::any(spec)),
        };
        self.call::<_, wire::ExecProcessResponse>(&process.container, "Exec", request).await.map(|_| ())
    }

    async fn resize(&self, process: &ProcessRef, size: TerminalSize) -> Result<()> {
        let request = wire::ResizePtyRequest {
            id: process.container.to_string(),
            exec_id: process.exec_id().to_owned(),
            width: size.width,
            height: size.height,
        };
        self.call(&process.container, "ResizePty", request).await
    }

    async fn close_stdin(&self, process: &ProcessRef) -> Result<()> {
        let (id, exec_id) = (process.container.to_string(), process.exec_id().to_owned());
        self.call(&process.container, "CloseIO", wire::CloseIoRequest { id, exec_id, stdin: true }).await
    }

    async fn pids(&self, container: &ContainerId) -> Result<Vec<ProcessInfo>> {
        let request = wire::PidsRequest { id: container.to_string() };
        let answer: wire::PidsResponse = self.call(container, "Pids", request).await?;
        Ok(answer.processes.into_iter().map(Into::into).collect())
    }

    async fn pause(&self, container: &ContainerId) -> Result<()> {
        self.call(container, "Pause", wire::PauseRequest { id: container.to_string() }).await
    }

    async fn resume(&self, container: &ContainerId) -> Result<()> {
        self.call(container, "Resume", wire::ResumeRequest { id: container.to_string() }).await
    }

    async fn checkpoint(
        &self,
        container: &ContainerId,
        _parent: Option<&Descriptor>,
        options: Option<Any>,
    ) -> Result<Vec<Descriptor>> {
        let record = (self.engine.deps.containers)(&self.scope).container(container).await?;
        let (task, shim) = self.shim(container)?;
        let named = match &options {
            Some(options) => {
                proto::convert::unpack::<proto::containerd::runc::v1::CheckpointOptions>(options)?.image_path
            }
            None => String::new(),
        };
        let stored = named.is_empty();
        let folder = if stored { task.bundle().file("work").join("checkpoint") } else { named.into() };
        if stored {
            let made = folder.clone();
            blocking(move || {
                let fresh = std::fs::remove_dir_all(&made).is_ok() || !made.exists();
                let made_it = fresh.then(|| std::fs::create_dir(&made)).transpose();
                made_it
                    .map(|_| ())
                    .map_err(|source| Error::io(format!("cannot make {}", made.display()), source))
            })
            .await?;
        }
        let request = wire::CheckpointTaskRequest {
            id: container.to_string(),
            path: folder.display().to_string(),
            options: options.map(proto::convert::any),
        };
        let limit = Some(self.engine.config.timeouts.checkpoint);
        let called = shim.call::<_, ()>("Checkpoint", request, limit).await;
        called.map_err(|error| of_task(container, error))?;
        if !stored {
            return Ok(Vec::new());
        }
        let content = (self.engine.deps.content)(&self.scope);
        let spec = proto::convert::any(record.spec.unwrap_or_default()).encode_to_vec();
        let described = async {
            let image = checkpoint::store(&*content, &folder).await?;
            let config = checkpoint::store_config(&*content, spec, &folder).await?;
            Ok(vec![image, config])
        };
        let described = described.await;
        // What was stored is content now; what could not be is of no use here.
        let _ = blocking(move || Ok(std::fs::remove_dir_all(&folder))).await;
        described
    }

    async fn update(&self, request: UpdateTask) -> Result<()> {
        let UpdateTask { container, resources, annotations } = request;
        let message = wire::UpdateTaskRequest {
            id: container.to_string(),
            resources: resources.map(proto::convert::any),
            annotations: annotations.into_iter().collect(),
        };
        self.call(&container, "Update", message).await
    }

    async fn metrics(&self, filters: &[String]) -> Result<Vec<Metric>> {
        let filters = Filters::parse(filters)?;
        let tasks = self.engine.registry.of(&self.scope.namespace);
        let tasks = tasks.iter().filter(|task| filters.matches(&Named(task.key())));
        let metrics = tasks.map(|task| async {
            match self.metric(task).await {
                Ok(metric) => Some(metric),
                Err(error) => {
                    if error.kind() != ErrorKind::NotFound {
                        tracing::error!(task = %task.key(), "cannot collect metrics: {}", error.chain());
                    }
                    None
                }
            }
        });
        Ok(join_all(metrics).await.into_iter().flatten().collect())
    }

    async fn wait(&self, process: &ProcessRef) -> Result<Exit> {
        let task = self.task(&process.container)?;
        if let (None, Some(exit)) = (&process.exec, task.exit()) {
            return Ok(exit);
        }
        let request =
            wire::WaitRequest { id: process.container.to_string(), exec_id: process.exec_id().to_owned() };
        let asked = async {
            match task.shim().await {
                Some(shim) => shim.call::<_, wire::WaitResponse>("Wait", request, None).await,
                None => Err(CallError::Closed),
            }
        };
        tokio::select! {
            biased;
            answer = asked => match answer {
                Ok(wire::WaitResponse { exit_status, exited_at }) => {
                    let at = proto::convert::time(exited_at);
                    let exit = Exit { pid: task.pid(), status: exit_status, at };
                    if process.exec.is_none() {
                        task.note_exit(exit);
                    }
                    return Ok(exit);
                }
                // Its owner finds out how it ended.
                Err(CallError::Closed) => {}
                // Somebody else has deleted the task since this wait began: how it ended is known here.
                Err(error) if error.is_not_found() && process.exec.is_none() => {
                    if let Some(exit) = task.exit() {
                        return Ok(exit);
                    }
                    let gone = tokio::time::timeout(self.engine.config.timeouts.call, task.gone()).await;
                    return gone.ok().flatten().ok_or_else(|| error.into());
                }
                Err(error) => return Err(error.into()),
            },
            exit = task.gone() => return exit.ok_or_else(|| not_found(&process.container)),
        }
        task.gone().await.ok_or_else(|| not_found(&process.container))
    }
}

/// What filters of metrics can ask for.
struct Named<'a>(&'a Key);

impl Fields for Named<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => Some(self.0.id.to_string()),
            ["namespace"] => Some(self.0.namespace.to_string()),
            _ => None,
        }
    }
}
