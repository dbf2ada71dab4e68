//! The engine as the daemon has it.

use std::fmt;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::sync::Arc;

use berth_core::{SandboxController, Scope, Tasks};
use berth_proto as proto;
use berth_types::{Any, Error, Result};
use proto::containerd::types::RuntimeRequest;

use crate::blocking::blocking;
use crate::config::{Config, Deps, Of};
use crate::engine::Engine;
use crate::nursery::Nursery;
use crate::recover::Recovery;
use crate::registry::Registry;
use crate::restart;
use crate::sandbox::ShimSandboxes;
use crate::shim::{Connections, Launcher, Programs};
use crate::task::Task;
use crate::tasks::ScopedTasks;

/// Every task of a daemon.
pub struct Runtime {
    engine: Arc<Engine>,
}

impl Runtime {
    /// Makes the folders; knows of no task until [`Runtime::recover`].
    pub async fn open(config: Config, deps: Deps) -> Result<Arc<Self>> {
        let config = Arc::new(config);
        let made = Arc::clone(&config);
        blocking(move || make_folders(&made)).await?;
        let (registry, nursery) = (Registry::<Task>::default(), Nursery::default());
        let noting = registry.clone();
        deps.events.note(Box::new(move |envelope| noting.note(envelope)));
        let engine = Engine {
            programs: Programs::new(&config),
            launcher: Launcher::new(Arc::clone(&config), nursery.clone()),
            connections: Connections::default(),
            config,
            deps,
            registry,
            sandboxes: Registry::default(),
            nursery,
        };
        Ok(Arc::new(Self { engine: Arc::new(engine) }))
    }

    /// The tasks of a namespace.
    pub fn tasks(&self, scope: &Scope) -> Arc<dyn Tasks> {
        Arc::new(ScopedTasks { engine: Arc::clone(&self.engine), scope: scope.clone() })
    }

    /// The sandboxes of a namespace that shims host.
    pub fn sandboxes(&self, scope: &Scope) -> Arc<dyn SandboxController> {
        Arc::new(ShimSandboxes { engine: Arc::clone(&self.engine), scope: scope.clone() })
    }

    /// Takes up the tasks of the daemon before this one. Called once, before anybody is served; the ttrpc
    /// address may be served before, since shims that waited for a daemon tell their events there.
    pub async fn recover(&self) -> Result<Recovery> {
        self.engine.recover().await
    }

    /// Keeps containers with `containerd.io/restart.*` labels in the state that these ask for. Runs until
    /// it is dropped, or the runtime is closed.
    pub async fn restart_monitor(self: Arc<Self>) {
        restart::watch(&self).await;
    }

    /// Asks a runtime's shim what it can do: `containerd.types.RuntimeRequest` in,
    /// `containerd.types.RuntimeInfo` out. What introspection passes on.
    pub async fn info(&self, request: &Any) -> Result<Any> {
        let RuntimeRequest { runtime_path, options } = proto::convert::unpack(request)?;
        let program = self.engine.programs.resolve(&runtime_path)?;
        let options = options.map(proto::convert::from_any);
        let value = self.engine.launcher.info(&program, options.as_ref()).await?;
        let type_url = "containerd.types.RuntimeInfo".to_owned();
        Ok(Any { type_url, value })
    }

    /// Lets go of every task. Shims and containers go on.
    pub async fn close(&self) {
        self.engine.nursery.close().await;
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("config", &self.engine.config).finish_non_exhaustive()
    }
}

/// Folders of bundles can be passed by a container's users, the sockets' folder by nobody.
fn make_folders(config: &Config) -> Result<()> {
    let folders = [
        (config.bundles(Of::Task), 0o711),
        (config.works(Of::Task), 0o711),
        (config.bundles(Of::Sandbox), 0o700),
        (config.works(Of::Sandbox), 0o700),
        (config.socket_folder.clone(), 0o700),
    ];
    for (folder, mode) in folders {
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&folder)
            .and_then(|()| std::fs::set_permissions(&folder, Permissions::from_mode(mode)))
            .map_err(|source| Error::io(format!("cannot make the folder {}", folder.display()), source))?;
    }
    Ok(())
}
