//! The first process of a pod, where one is needed: containers that share their process ids need somebody who takes in
//! what loses its parent, and a shim of somebody else's may expect a pod to be a task.
//!
//! It is a task with the pod's own id, in an empty root filesystem, whose one program sleeps; or, where the configuration
//! wants that, a container of an image for it ([`image`]), which every pod of such a handler then has.

mod image;

pub(super) use image::PURPOSE;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_core::{CreateTask, Rollback};
use berth_oci::runtime::{
    Capabilities, Linux, Mount, Namespace, NamespaceKind, OCI_VERSION, Process, Root, Spec, User, default,
};
use berth_proto::runtime::v1 as proto;
use berth_types::{
    Any, Container, ContainerId, Error, ErrorKind, KillTarget, ProcessRef, ProcessStatus, Result, Stdio,
};
use proto::NamespaceMode;

use super::Pod;
use crate::blocking::blocking;
use crate::spec::{SPEC_TYPE, annotations, cgroup_path, to_spec};
use crate::{Cri, names};

/// Where the program is in its root filesystem, and its name.
const PROGRAM: &str = "/pause";
/// Who it runs as: nobody who owns anything.
const USER: u32 = 65535;
/// How long it is asked before it is killed: it does nothing that it would have to end.
const SIGKILL: u32 = 9;

impl Pod {
    /// Whether it is made with a first process. Ours need one only once a container shares its process ids.
    pub(super) fn needs_first_process(&self) -> bool {
        self.controller().is_none() && (!self.handler.is_own || self.handler.pause_container)
    }

    fn pause_id(&self) -> Result<ContainerId> {
        self.id.as_str().parse()
    }

    fn pause_root(&self) -> PathBuf {
        self.state.join("rootfs")
    }

    fn pause_spec(&self, program: &Path) -> Spec {
        let path = |path: Option<PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
        let mut namespaces = vec![Namespace { kind: NamespaceKind::Mount, path: String::new() }];
        if self.namespace_options().pid != NamespaceMode::Node as i32 {
            namespaces.push(Namespace { kind: NamespaceKind::Pid, path: String::new() });
        }
        for (kind, held) in [
            (NamespaceKind::Ipc, self.ipc()),
            (NamespaceKind::Uts, self.uts()),
            (NamespaceKind::Network, self.facts().network),
            (NamespaceKind::User, self.user_namespace()),
        ] {
            if held.is_some() {
                namespaces.push(Namespace { kind, path: path(held) });
            }
        }
        let bind = Mount {
            destination: PROGRAM.to_owned(),
            kind: "bind".to_owned(),
            source: program.display().to_string(),
            options: ["bind", "ro", "nosuid", "nodev"].map(str::to_owned).into(),
            ..Mount::default()
        };
        let mut mounts = default::mounts();
        mounts.retain(|mount| ["/proc", "/dev"].contains(&mount.destination.as_str()));
        mounts.push(bind);
        Spec {
            oci_version: OCI_VERSION.to_owned(),
            root: Some(Root { path: self.pause_root().display().to_string(), readonly: true }),
            process: Some(Process {
                args: vec![PROGRAM.to_owned()],
                env: vec![default::PATH_ENV.to_owned()],
                cwd: "/".to_owned(),
                user: User { uid: USER, gid: USER, ..User::default() },
                capabilities: Some(Capabilities::default()),
                no_new_privileges: true,
                ..Process::default()
            }),
            mounts,
            annotations: annotations::of_pod(self),
            linux: Some(Linux {
                uid_mappings: self.users().map(|users| to_spec(&users.uids)).unwrap_or_default(),
                gid_mappings: self.users().map(|users| to_spec(&users.gids)).unwrap_or_default(),
                namespaces,
                cgroups_path: cgroup_path(self, self.id.as_str()),
                masked_paths: default::MASKED_PATHS.map(str::to_owned).into(),
                readonly_paths: default::READONLY_PATHS.map(str::to_owned).into(),
                ..Linux::default()
            }),
            ..Spec::default()
        }
    }
}

impl Cri {
    /// The pid of a pod's first process, which is started if the pod has none yet.
    pub(crate) async fn first_process(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<u32> {
        let _work = pod.work.lock().await;
        if let Some(pid) = pod.facts().pause {
            return Ok(pid);
        }
        if let Some(name) = pod.controller() {
            return Err(Error::not_implemented(format!(
                "the processes of pod {} cannot be shared: its controller {name} tells of none",
                pod.id
            )));
        }
        let pid = self.start_pause(pod).await?;
        self.change_pod(pod, |facts| facts.pause = Some(pid)).await?;
        Ok(pid)
    }

    pub(super) async fn start_pause(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<u32> {
        // What an earlier try has left.
        self.end_pause(pod).await?;
        let id = pod.pause_id()?;
        let mut undo = Rollback::default();
        let rootfs = match self.record_pause(pod, &id, &mut undo).await {
            Ok(rootfs) => rootfs,
            Err(error) => {
                for (what, failure) in undo.undo().await {
                    tracing::error!(pod = %pod.id, "cannot undo {what}: {}", failure.chain());
                }
                return Err(error);
            }
        };
        // From here on the record says what has to be taken down.
        undo.commit();
        let tasks = self.tasks();
        let request = CreateTask {
            container: id.clone(),
            rootfs,
            stdio: Stdio::default(),
            checkpoint: None,
            options: None,
            runtime_path: pod.handler.runtime_path.clone(),
            endpoint: None,
        };
        tasks.create(request).await?;
        let pid = tasks.start(&ProcessRef::init(id)).await?;
        self.watch_pause_end(pod, pid);
        Ok(pid)
    }

    /// Makes what the first process runs in, and its record; answers what its root filesystem is mounted of.
    async fn record_pause(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        id: &ContainerId,
        undo: &mut Rollback,
    ) -> Result<Vec<berth_types::Mount>> {
        let mut record = Container::new(id.clone(), pod.handler.runtime.clone());
        record.labels = names::labels(names::SANDBOX, &pod.config.labels);
        record.sandbox = pod.id.to_string();
        let rootfs = if pod.handler.pause_container {
            self.pause_of_image(pod, &mut record, undo).await?
        } else {
            let root = pod.pause_root();
            blocking(move || {
                make_root(&root).map_err(|error| Error::io(format!("cannot make {}", root.display()), error))
            })
            .await?;
            let spec = pod.pause_spec(&self.config.pods.shim);
            record.spec = Some(Any::new(SPEC_TYPE, spec.to_vec()));
            Vec::new()
        };
        self.containers_store().create(record).await?;
        Ok(rootfs)
    }

    /// Ends the first process and forgets it with what it had. Idempotent.
    pub(super) async fn end_pause(&self, pod: &Arc<Pod>) -> Result<()> {
        let id = pod.pause_id()?;
        self.end_task(&id, Duration::ZERO, SIGKILL).await?;
        let gone = |error: &Error| error.kind() == ErrorKind::NotFound;
        let store = self.containers_store();
        let record = match store.container(&id).await {
            Err(error) if gone(&error) => return Ok(()),
            found => found?,
        };
        self.remove_pause_snapshot(&record).await?;
        match store.delete(&id).await {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes up the first process of the daemon before this one. A pod whose first process has ended is not ready.
    pub(super) async fn watch_pause(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let Some(pid) = pod.facts().pause else { return Ok(()) };
        match self.tasks().state(&ProcessRef::init(pod.pause_id()?)).await {
            Ok(state) if state.status == ProcessStatus::Running => {
                self.watch_pause_end(pod, pid);
                Ok(())
            }
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => self.change_pod(pod, |facts| facts.stage = super::Stage::Lost).await,
        }
    }

    fn watch_pause_end(self: &Arc<Self>, pod: &Arc<Pod>, pid: u32) {
        let (cri, pod) = (self.clone(), pod.clone());
        self.nursery.clone().spawn(async move {
            let Ok(id) = pod.pause_id() else { return };
            if cri.tasks().wait(&ProcessRef::init(id)).await.is_err() {
                // The daemon ends, or the task has been removed with its pod.
                return;
            }
            cri.lose(&pod, Some(pid)).await;
        });
    }

    /// Ends a task, whoever it belongs to, and removes it: the signal, and after `patience` the kill. Idempotent.
    pub(crate) async fn end_task(&self, id: &ContainerId, patience: Duration, signal: u32) -> Result<()> {
        let tasks = self.tasks();
        let process = ProcessRef::init(id.clone());
        let gone = |error: &Error| error.kind() == ErrorKind::NotFound;
        match tasks.state(&process).await {
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(error),
            Ok(state) if state.status == ProcessStatus::Stopped => {}
            Ok(_) => {
                let ended = self.signal_and_wait(&process, patience, signal).await;
                match ended {
                    Err(error) if gone(&error) => return Ok(()),
                    other => other?,
                }
            }
        }
        match tasks.delete(id).await {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn signal_and_wait(&self, process: &ProcessRef, patience: Duration, signal: u32) -> Result<()> {
        let tasks = self.tasks();
        // A process that ended in this moment is what is wanted.
        let fine =
            |error: &Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::FailedPrecondition);
        if !patience.is_zero() {
            match tasks.kill(process, signal, KillTarget::Process).await {
                Err(error) if !fine(&error) => return Err(error),
                _ => {}
            }
            if tokio::time::timeout(patience, tasks.wait(process)).await.is_ok() {
                return Ok(());
            }
        }
        match tasks.kill(process, SIGKILL, KillTarget::All).await {
            Err(error) if !fine(&error) => return Err(error),
            _ => {}
        }
        tokio::time::timeout(KILLED, tasks.wait(process)).await.map_err(|_| {
            Error::deadline_exceeded(format!("{process} has been killed and has not ended within {KILLED:?}"))
        })??;
        Ok(())
    }
}

/// What the program needs to be there before it is mounted: in a user namespace it could not be made.
fn make_root(root: &Path) -> io::Result<()> {
    for folder in ["proc", "dev"] {
        DirBuilder::new().recursive(true).mode(0o755).create(root.join(folder))?;
    }
    fs::write(root.join(PROGRAM.trim_start_matches('/')), "")
}

/// How long a process that was killed may take to end: one in the kernel's hands can be slow.
const KILLED: Duration = Duration::from_secs(60);
