//! What a command works with: the daemon, the namespace, the handle of everything.

use std::path::PathBuf;
use std::sync::Arc;

use berth_client::Client;
use berth_core::{Catalog, Scope};
use berth_oci::image::host_platform;
use berth_types::ErrorKind;
use berth_workload::{Found, Home, Logging, Settings, Workload};

use crate::address::Place;
use crate::cli::Global;
use crate::daemon;
use crate::failure::Failure;
use crate::unpack::Layers;

/// A daemon that answers, seen from one namespace.
pub(crate) struct Context {
    pub(crate) place: Place,
    pub(crate) client: Arc<dyn Catalog>,
    pub(crate) workload: Workload,
}

impl Context {
    /// Connects, starting the daemon if it is ours and nobody answers. Must be called inside the runtime.
    pub(crate) async fn open(global: &Global) -> Result<Self, Failure> {
        let place = Place::of(global)?;
        let client = Client::connect(&place.address);
        if !client.is_listening() {
            daemon::ensure(&place).await?;
        }
        let client: Arc<dyn Catalog> = Arc::new(client);
        let scope = Scope::new(place.namespace.clone());
        let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/local/bin/berth"));
        let settings = Settings {
            snapshotter: place.snapshotter.clone(),
            runtime: String::new(),
            init: own.clone(),
            logging: if place.is_default() { Logging::Shim } else { Logging::Program(own) },
            platform: host_platform(),
        };
        let layers = Arc::new(Layers::new(Arc::clone(&client), scope.clone()));
        let home = Home::new(place.home.clone(), place.namespace.clone());
        let workload = Workload::new(Arc::clone(&client), scope, home, settings, layers);
        Ok(Self { place, client, workload })
    }

    /// The scope of the namespace.
    pub(crate) fn scope(&self) -> &Scope {
        self.workload.scope()
    }

    /// Whether the daemon's shim keeps logs itself. Ours says what it is in its version; of a daemon at another
    /// socket that has to be asked first.
    pub(crate) async fn settle_logging(&mut self) -> Result<(), Failure> {
        if self.place.is_default() {
            return Ok(());
        }
        let (version, _) = self.client.introspection().version().await?;
        if version.contains("berth") {
            self.workload = self.workload.clone().with_logging(Logging::Shim);
        }
        Ok(())
    }

    /// One image; the built-in one by its short name, too.
    pub(crate) async fn image(&self, text: &str) -> berth_types::Result<berth_types::Image> {
        match self.workload.find_image(text).await {
            Err(error) if error.kind() == ErrorKind::NotFound && crate::hello::is_meant(text) => {
                self.workload.find_image(crate::hello::NAME).await
            }
            found => found,
        }
    }

    /// One container.
    pub(crate) async fn find(&self, text: &str) -> Result<Found, Failure> {
        Ok(self.workload.find(text).await?)
    }
}
