//! A real daemon to import into: every containerd that is there.

use std::future::Future;
use std::sync::Arc;

use berth_client::Client;
use berth_core::{Catalog, Scope};
use berth_transfer::{Import, Imported, Source, import};
use berth_types::{Result, SnapshotterName};
use testkit::{Daemon, Kind};

/// A daemon, its client and a namespace of its own.
#[allow(dead_code, reason = "not every test needs all of it")]
pub(crate) struct World {
    pub(crate) client: Arc<Client>,
    pub(crate) scope: Scope,
    pub(crate) native: SnapshotterName,
}

#[allow(dead_code, reason = "not every test needs all of it")]
impl World {
    pub(crate) fn catalog(&self) -> &dyn Catalog {
        &*self.client
    }

    pub(crate) async fn import(&self, archive: Vec<u8>, options: &Import) -> Result<Imported> {
        let source = Source::Archive(Box::new(std::io::Cursor::new(archive)));
        import(self.catalog(), &self.scope, source, options).await
    }
}

pub(crate) fn on_daemons<F: Future<Output = World>>(kinds: &[Kind], test: impl Fn(World) -> F) {
    for kind in kinds {
        let Ok(daemon) = Daemon::start(*kind) else { continue };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Arc::new(Client::connect(daemon.address()));
            let scope = Scope::new(daemon.tag().parse().unwrap());
            test(World { client, scope, native: "native".parse().unwrap() }).await;
        });
        drop(runtime);
        daemon.finish();
    }
}
