//! What the daemon holds.

use std::sync::{Arc, Mutex, PoisonError};

use berth_types::{Error, Result};
use tokio::sync::{Notify, OwnedRwLockReadGuard, RwLock};
use tokio::task::JoinSet;

use crate::admission::{Gate, Launched};
use crate::config::Config;
use crate::desk::Desk;
use crate::host::Host;
use crate::listener::Door;
use crate::plugin::Plugin;
use crate::{launch, proto};

/// All plugins of this daemon. Dropping it ends them without a word; [`Nri::close`] says goodbye.
pub struct Nri {
    desk: Desk,
    config: Arc<Config>,
    joins: Arc<RwLock<()>>,
    /// The listener's task, if there is one; it ends with this.
    listener: Mutex<JoinSet<()>>,
}

/// Keeps plugins from joining while a request is carried out, of which they would see one half.
#[must_use = "plugins may join again when it is dropped"]
#[derive(Debug)]
pub struct Pause(#[expect(dead_code, reason = "it is held, not looked at")] OwnedRwLockReadGuard<()>);

/// What plugins made of a container that is to be created.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Created {
    /// For [`apply`](crate::apply).
    pub adjustment: proto::ContainerAdjustment,
    /// Other containers' resources to change before.
    pub updates: Vec<proto::ContainerUpdate>,
    /// Containers to stop before.
    pub evictions: Vec<proto::ContainerEviction>,
}

/// What plugins made of an update of a container's resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Updated {
    /// What the container is to have; none if it is what the client asked for.
    pub resources: Option<proto::LinuxResources>,
    /// Other containers' resources to change before.
    pub updates: Vec<proto::ContainerUpdate>,
    /// Containers to stop before.
    pub evictions: Vec<proto::ContainerEviction>,
}

/// The last step of a plugin's way in.
#[derive(Clone)]
pub(crate) struct Entrance {
    desk: Desk,
    joins: Arc<RwLock<()>>,
    host: Arc<dyn Host>,
}

macro_rules! events {
    ($($(#[$docs:meta])* $name:ident($request:ident);)*) => {
        impl Nri {$(
            $(#[$docs])*
            pub async fn $name(&self, request: proto::$request) -> Result<()> {
                if self.desk.is_empty() {
                    return Ok(());
                }
                self.desk.run(|plugins| Box::pin(plugins.tell(request))).await?
            }
        )*}
    };
}

events! {
    /// A pod is about to run: its network is there, no container is. An error means that it must not, and that
    /// plugins are to be told of its stop and removal.
    run_pod_sandbox(RunPodSandboxRequest);
    /// A pod's resources are about to change.
    update_pod_sandbox(UpdatePodSandboxRequest);
    /// A pod's resources have changed.
    post_update_pod_sandbox(PostUpdatePodSandboxRequest);
    /// A container has been created.
    post_create_container(PostCreateContainerRequest);
    /// A container is about to start. An error means that it must not.
    start_container(StartContainerRequest);
    /// A container has started.
    post_start_container(PostStartContainerRequest);
    /// A container's resources have changed.
    post_update_container(PostUpdateContainerRequest);
}

impl Nri {
    /// Starts the plugins of the folder and opens the socket for others. Plugins that cannot be started or do not
    /// register in time are said and left out, and so is a socket that cannot be had: a container that needs a plugin
    /// is refused then, and all others go on.
    pub async fn open(config: Config, host: Arc<dyn Host>) -> Result<Self> {
        let config = Arc::new(config);
        let departures = Arc::new(Notify::new());
        let desk = Desk::open(config.default_validator.clone(), departures.clone());
        let joins = Arc::new(RwLock::new(()));
        let entrance = Entrance { desk: desk.clone(), joins: joins.clone(), host: host.clone() };
        let gate = Gate { config: config.clone(), host, departures };
        for plugin in launched(&gate).await? {
            entrance.enter(plugin).await;
        }
        let mut tasks = JoinSet::new();
        if !config.disable_connections {
            match Door::open(&config.socket_path).await {
                Ok(door) => drop(tasks.spawn(door.serve(gate, entrance))),
                Err(error) => tracing::error!("NRI plugins cannot connect: {}", error.chain()),
            }
        }
        Ok(Self { desk, config, joins, listener: Mutex::new(tasks) })
    }

    /// Whether nobody would be asked or told of anything, now and until a plugin joins. A caller who has
    /// [paused](Self::pause_joins) that need not make a message.
    pub fn is_idle(&self) -> bool {
        self.desk.is_empty() && !self.config.default_validator.enable
    }

    /// Keeps plugins from joining until the answer is dropped: held while a pod or container is made, so that a
    /// plugin that joins knows it wholly or not at all. To be taken once in a request: a second one waits for a
    /// plugin that waits for the first.
    pub async fn pause_joins(&self) -> Pause {
        Pause(self.joins.clone().read_owned().await)
    }

    /// Asks what a container is to become. An error means that it must not be created: a plugin refused, two want
    /// the same, a validator forbids it or a required plugin is not there.
    pub async fn create_container(
        &self,
        pod: proto::PodSandbox,
        container: proto::Container,
    ) -> Result<Created> {
        if self.is_idle() {
            return Ok(Created::default());
        }
        self.desk.run(|plugins| Box::pin(plugins.create(pod, container))).await?
    }

    /// Asks what an update of a container's resources is to be.
    pub async fn update_container(&self, request: proto::UpdateContainerRequest) -> Result<Updated> {
        if self.desk.is_empty() {
            return Ok(Updated::default());
        }
        self.desk.run(|plugins| Box::pin(plugins.update(request))).await?
    }

    /// Tells that a container is about to stop or has ended by itself. Plugins are told once of each, whichever comes
    /// first. The answer is what they want to have changed for others.
    pub async fn stop_container(
        &self,
        request: proto::StopContainerRequest,
    ) -> Result<Vec<proto::ContainerUpdate>> {
        if self.desk.is_empty() {
            return Ok(Vec::new());
        }
        self.desk.run(|plugins| Box::pin(plugins.stop(request))).await?
    }

    /// Tells that a container, which plugins know to have stopped, is about to be removed.
    pub async fn remove_container(&self, request: proto::RemoveContainerRequest) -> Result<()> {
        if self.desk.is_empty() {
            return Ok(());
        }
        self.desk.run(|plugins| Box::pin(plugins.remove(request))).await?
    }

    /// Tells that a pod, whose containers have stopped, is about to stop. Plugins are told once.
    pub async fn stop_pod_sandbox(&self, request: proto::StopPodSandboxRequest) -> Result<()> {
        if self.desk.is_empty() {
            return Ok(());
        }
        self.desk.run(|plugins| Box::pin(plugins.stop_pod(request))).await?
    }

    /// Tells that a pod, which plugins know to have stopped, is about to be removed.
    pub async fn remove_pod_sandbox(&self, request: proto::RemovePodSandboxRequest) -> Result<()> {
        if self.desk.is_empty() {
            return Ok(());
        }
        self.desk.run(|plugins| Box::pin(plugins.remove_pod(request))).await?
    }

    /// Ends all plugins, after a word of goodbye, and takes the socket away.
    pub async fn close(&self) {
        let mut listener = std::mem::take(&mut *self.listener.lock().unwrap_or_else(PoisonError::into_inner));
        listener.shutdown().await;
        if let Err(error) = self.desk.run(|plugins| Box::pin(plugins.part())).await {
            tracing::debug!("no goodbye to NRI plugins: {error}");
        }
    }
}

impl Entrance {
    /// Takes a plugin in, between requests, and carries out what it wants changed.
    pub(crate) async fn enter(&self, plugin: Plugin) {
        let name = plugin.name.clone();
        let _alone = self.joins.write().await;
        let host = self.host.clone();
        match self.desk.run(|plugins| Box::pin(plugins.join(plugin, host))).await.flatten() {
            Ok(updates) if updates.is_empty() => {}
            Ok(updates) => {
                for failed in self.host.update(updates).await {
                    let container = failed.container_id;
                    tracing::warn!(plugin = %name, container, "an update that the joining NRI plugin asked for failed");
                }
            }
            Err(error) => tracing::warn!(plugin = %name, "an NRI plugin was not let in: {}", error.chain()),
        }
    }
}

/// The plugins of the folder, started side by side, in the order of their indices.
async fn launched(gate: &Gate) -> Result<Vec<Plugin>> {
    let folder = &gate.config.plugin_path;
    let failed = |source| Error::io(format!("cannot look for NRI plugins in {}", folder.display()), source);
    let installed = launch::installed(folder).map_err(failed)?;
    let mut admissions = JoinSet::new();
    for plugin in installed {
        let path = plugin.path.clone();
        match plugin.start(&gate.config) {
            Ok((socket, launched)) => drop(admissions.spawn(admit(gate.clone(), socket, launched))),
            Err(error) => tracing::warn!("cannot start the NRI plugin {}: {error}", path.display()),
        }
    }
    let mut plugins: Vec<Plugin> = admissions.join_all().await.into_iter().flatten().collect();
    plugins.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(plugins)
}

async fn admit(gate: Gate, socket: tokio::net::UnixStream, launched: Launched) -> Option<Plugin> {
    let name = launched.name.clone();
    match gate.admit(socket, Some(launched)).await {
        Ok(plugin) => Some(plugin),
        Err(error) => {
            tracing::warn!(plugin = %name, "an NRI plugin was not let in: {}", error.reason());
            None
        }
    }
}
