//! The way of a container from its record to a task.
//!
//! ```text
//!   record ─▶ name reserved ─▶ bundle + shim's `start` ─▶ connection ─▶ Create ─▶ owner
//!                                │ fails: bundle removed    │ fails: shim dismissed, bundle removed
//! ```
//! A container of a sandbox whose shim is there has that shim instead of one of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_core::{CreateTask, Rollback, Scope};
use berth_proto as proto;
use berth_types::{Any, Container, Error, ErrorKind, Result};
use proto::containerd::task::v3 as wire;
use tokio::task::AbortHandle;

use crate::blocking::blocking;
use crate::bundle::Bundle;
use crate::checkpoint;
use crate::config::Of;
use crate::engine::Engine;
use crate::key::Key;
use crate::sandbox::Hosted;
use crate::shim::{Answer, CallError, Shim, StartError, follow, stray};
use crate::task::{Parts, Task};

/// All that a task is made from.
#[derive(Clone)]
struct Plan {
    bundle: Bundle,
    program: PathBuf,
    spec: Option<Vec<u8>>,
    options: Option<Any>,
    /// The shim that is there already.
    host: Option<Hosted>,
    request: CreateTask,
}

impl Engine {
    /// Makes a task. Must not be dropped half-way: its caller runs it in a task of its own.
    pub(crate) async fn create(self: Arc<Self>, scope: Scope, request: CreateTask) -> Result<u32> {
        let container = (self.deps.containers)(&scope).container(&request.container).await?;
        let key = Key::new(&scope.namespace, &request.container);
        let reservation = self.registry.reserve(&key)?;
        let runtime =
            if request.runtime_path.is_empty() { &container.runtime.name } else { &request.runtime_path };
        let (program, host) = self.host_of(&scope, &container, &request, runtime)?;
        let own = request.options.clone().filter(|options| !options.value.is_empty());
        let plan = Plan {
            bundle: Bundle::of(&self.config, Of::Task, &key),
            program,
            spec: container.spec.map(|spec| spec.value),
            options: own.or(container.runtime.options),
            host,
            request,
        };
        let made = match self.attempt(&scope, plan.clone()).await {
            // A shim that others had may end in the moment in which it is joined; the next start makes a new one.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::info!(task = %key, "its shim has ended, trying another: {}", error.chain());
                self.attempt(&scope, plan).await
            }
            other => other,
        };
        let task = made?;
        let pid = task.pid();
        reservation.fill(task);
        Ok(pid)
    }

    /// Makes the task, or leaves nothing of it.
    async fn attempt(self: &Arc<Self>, scope: &Scope, plan: Plan) -> Result<Arc<Task>> {
        let key = plan.bundle.key().clone();
        let mut undo = Rollback::default();
        match self.bring_up(scope, plan, &mut undo).await {
            Ok(task) => {
                undo.commit();
                Ok(task)
            }
            Err(error) => {
                for (what, failure) in undo.undo().await {
                    tracing::error!(task = %key, "cannot undo {what}: {}", failure.chain());
                }
                Err(error)
            }
        }
    }

    async fn bring_up(self: &Arc<Self>, scope: &Scope, plan: Plan, undo: &mut Rollback) -> Result<Arc<Task>> {
        let Plan { bundle, program, spec, options, host, mut request } = plan;
        let rootfs = std::mem::take(&mut request.rootfs);
        request.rootfs = self.activate(bundle.key(), &program, options.as_ref(), rootfs, undo).await?;
        undo.push("the bundle", {
            let bundle = bundle.clone();
            move || blocking(move || bundle.delete())
        });
        let hosted = host.is_some();
        let (shim, log) = match host {
            Some(host) => (self.move_in(&bundle, spec, host).await?, None),
            None => self.shim_of_its_own(&bundle, spec, &program, options.as_ref()).await?,
        };
        undo.push("the shim", {
            let (engine, shim, bundle, program) =
                (Arc::clone(self), shim.clone(), bundle.clone(), program.clone());
            move || async move {
                engine.abandon(&shim, &bundle, &program, hosted).await;
                Ok(())
            }
        });
        let pid = self.create_in(&shim, scope, &bundle, request, options).await?;
        let (task, owner) =
            Task::new(Arc::clone(self), Parts { bundle, program, hosted, pid, shim: Some(shim), log });
        self.nursery.spawn(owner.run());
        Ok(task)
    }

    /// The shim's program, and the shim where the container is one of a sandbox that has one.
    fn host_of(
        &self,
        scope: &Scope,
        container: &Container,
        request: &CreateTask,
        runtime: &str,
    ) -> Result<(PathBuf, Option<Hosted>)> {
        let program = self.programs.resolve(runtime).map_err(|error| error.context("failed to start shim"));
        let sandbox = container.sandbox.clone();
        if let Some(endpoint) = request.endpoint.as_ref().filter(|_| !sandbox.is_empty()) {
            // Whoever runs the sandbox knows its program, which need not be on this host.
            let (program, answer) = (program.unwrap_or_default(), Answer::of_endpoint(endpoint)?);
            return Ok((program.clone(), Some(Hosted { sandbox, program, answer })));
        }
        let host = sandbox.parse().ok().and_then(|id| self.sandboxes.live(&Key::new(&scope.namespace, &id)));
        match host.filter(|host| host.makes_tasks()) {
            Some(host) => {
                let (program, answer) = (host.program().to_owned(), host.answer().clone());
                Ok((program.clone(), Some(Hosted { sandbox, program, answer })))
            }
            None => Ok((program?, None)),
        }
    }

    /// Makes the bundle for a shim that is there, and joins that.
    async fn move_in(&self, bundle: &Bundle, spec: Option<Vec<u8>>, host: Hosted) -> Result<Shim> {
        let (made, answer) = (bundle.clone(), host.answer.clone());
        blocking(move || made.create_hosted(spec.as_deref(), &host)).await?;
        self.join(bundle, &answer).await.map_err(|error| error.context("failed to reach the sandbox's shim"))
    }

    /// Makes the bundle, starts a shim in it and joins that. When it fails the bundle may be there.
    pub(crate) async fn shim_of_its_own(
        &self,
        bundle: &Bundle,
        spec: Option<Vec<u8>>,
        program: &Path,
        options: Option<&Any>,
    ) -> Result<(Shim, Option<AbortHandle>)> {
        let failed = |error: Error| error.context("failed to start shim");
        let answer = match self.launcher.start(bundle, spec, program, options).await {
            Ok(answer) => answer,
            Err(StartError::Refused(error)) => return Err(failed(error)),
            Err(StartError::Other(error)) => {
                self.clean_up(bundle, program).await;
                return Err(failed(error));
            }
        };
        let log = self.follow_log(bundle);
        match self.join(bundle, &answer).await {
            Ok(shim) => Ok((shim, log)),
            Err(error) => {
                self.clean_up(bundle, program).await;
                Err(failed(error))
            }
        }
    }

    /// Connects to a shim that has just started.
    async fn join(&self, bundle: &Bundle, answer: &Answer) -> Result<Shim> {
        let limit = self.config.timeouts.load;
        self.connections.connect(bundle.key(), answer, limit).await.map_err(|error| {
            let text = format!("cannot reach the shim that has started, at {}", answer.address);
            Error::unavailable(text).caused_by(error)
        })
    }

    /// Has the shim make the container.
    async fn create_in(
        &self,
        shim: &Shim,
        scope: &Scope,
        bundle: &Bundle,
        request: CreateTask,
        options: Option<Any>,
    ) -> Result<u32> {
        let checkpoint = self.restore_from(scope, bundle, &request, options.as_ref()).await?;
        let limit =
            if checkpoint.is_empty() { self.config.timeouts.create } else { self.config.timeouts.checkpoint };
        let id = request.container.to_string();
        let message = wire::CreateTaskRequest {
            id: id.clone(),
            bundle: bundle.path().display().to_string(),
            rootfs: proto::convert::mounts(request.rootfs),
            terminal: request.stdio.terminal,
            stdin: request.stdio.stdin,
            stdout: request.stdio.stdout,
            stderr: request.stdio.stderr,
            checkpoint,
            parent_checkpoint: String::new(),
            options: options.map(proto::convert::any),
        };
        let created = shim.call::<_, wire::CreateTaskResponse>("Create", message, Some(limit)).await;
        let pid = created.map_err(|error| Error::from(error).context("failed to create shim task"))?.pid;
        if pid != 0 {
            return Ok(pid);
        }
        // Some shims say it only here.
        let limit = Some(self.config.timeouts.state);
        let connected = shim.call::<_, wire::ConnectResponse>("Connect", wire::ConnectRequest { id }, limit);
        let connected = connected.await;
        connected
            .map(|answer| answer.task_pid)
            .map_err(|error| Error::from(error).context("failed to get task pid"))
    }

    /// The folder of the checkpoint to go on from; empty for none.
    async fn restore_from(
        &self,
        scope: &Scope,
        bundle: &Bundle,
        request: &CreateTask,
        options: Option<&Any>,
    ) -> Result<String> {
        let named = options
            .and_then(|options| proto::convert::unpack::<proto::containerd::runc::v1::Options>(options).ok());
        if let Some(path) = named.map(|options| options.criu_image_path).filter(|path| !path.is_empty()) {
            return Ok(path);
        }
        let Some(descriptor) = &request.checkpoint else { return Ok(String::new()) };
        if let Some(path) = descriptor.annotations.get("RestoreFromPath") {
            return Ok(path.clone());
        }
        let folder = bundle.file("work").join("checkpoint");
        let content = (self.deps.content)(scope);
        checkpoint::unpack(&*content, descriptor, &folder).await?;
        Ok(folder.display().to_string())
    }

    /// Tells what the shim says until the handle is used.
    pub(crate) fn follow_log(&self, bundle: &Bundle) -> Option<AbortHandle> {
        match follow(&bundle.file("log"), bundle.key().clone()) {
            Ok(telling) => self.nursery.spawn(telling),
            Err(error) => {
                tracing::warn!(task = %bundle.key(), "what the shim says will not be logged: {error}");
                None
            }
        }
    }

    /// Undoes a `Create` that failed, or succeeded in vain.
    pub(crate) async fn abandon(&self, shim: &Shim, bundle: &Bundle, program: &Path, hosted: bool) {
        let id = bundle.key().id.to_string();
        let limit = Some(self.config.timeouts.cleanup);
        let request = wire::DeleteRequest { id: id.clone(), exec_id: String::new() };
        let deleted = shim.call::<_, wire::DeleteResponse>("Delete", request, limit).await;
        let deleted = match deleted {
            Ok(_) => true,
            Err(error) => error.is_not_found(),
        };
        let mut ended = true;
        if !hosted && !self.registry.shares(shim, bundle.key()) {
            let limit = self.config.timeouts.shutdown;
            let request = wire::ShutdownRequest { id, now: true };
            let told = shim.call::<_, ()>("Shutdown", request, Some(limit)).await;
            // One that hangs in what failed may agree to end, and not do it.
            ended = matches!(told, Ok(()) | Err(CallError::Closed))
                && tokio::time::timeout(limit, shim.closed()).await.is_ok();
        }
        if !deleted || !ended {
            self.clean_up(bundle, program).await;
        }
    }

    /// Has the shim's program take away what a failed start may have left, and ends a shim that nobody can
    /// speak to.
    pub(crate) async fn clean_up(&self, bundle: &Bundle, program: &Path) {
        if let Err(error) = self.launcher.delete(bundle, program).await {
            tracing::warn!(task = %bundle.key(), "cannot clean up after the shim: {}", error.chain());
        }
        self.end_stray(bundle).await;
    }

    /// Ends a bundle's shim that cannot be spoken to.
    pub(crate) async fn end_stray(&self, bundle: &Bundle) {
        let stray = bundle.clone();
        if let Err(error) = blocking(move || stray::end(&stray)).await {
            tracing::warn!(task = %bundle.key(), "a shim may be left: {}", error.chain());
        }
    }
}
