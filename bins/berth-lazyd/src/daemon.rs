//! The parts, one after the other, and the socket last.

use std::sync::Arc;

use anyhow::{Context, Result};
use berth_core::Snapshotter;
use berth_lazy::{CacheFigures, LayerFigures, LayerStatus, Lazy};
use berth_registry::Registries;
use berth_server::{Owner, Socket, serve_snapshotter};
use berth_snapshot::overlayfs;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::figures::{self, Source};
use crate::keeper;
use crate::status::Status;

/// Serves until somebody asks it to stop (SIGTERM, SIGINT). On SIGUSR1 it tells the log how the layers do.
pub(crate) async fn serve(config: Config) -> Result<()> {
    let catch = |kind| signal(kind).context("cannot catch signals");
    let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    let mut user = catch(SignalKind::user_defined1())?;
    let metrics = figures::listen(&config.metrics.address).await?;
    let settings = overlayfs::Config { upperdir_label: true, ..overlayfs::Config::default() };
    let overlayfs = overlayfs::open(&config.root, settings).context("cannot open the snapshots")?;
    let registries = Registries::new(config.registry.client());
    let keeper = keeper::connected(&config.root.join("keeper.sock"));
    let lazy = Lazy::open(overlayfs, &config.root, registries, config.lazy, keeper)
        .await
        .context("cannot open the lazy layers")?;
    let lazy = Arc::new(lazy);
    let socket = Socket::bind(&config.address, Owner::default())?;
    tracing::info!(address = %config.address.display(), "serving");
    let status = Status::listen(&config.address)?;
    let snapshotter: Arc<dyn Snapshotter> = lazy.clone();
    let figures = async {
        match metrics {
            Some(listener) => {
                berth_metrics::serve(listener, Source(lazy.clone()), std::future::pending()).await;
            }
            None => std::future::pending().await,
        }
    };
    let stop = async {
        tokio::pin!(figures);
        loop {
            tokio::select! {
                () = &mut figures => {}
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = user.recv() => report(&lazy),
                () = status.answer(&lazy) => {}
            }
        }
    };
    serve_snapshotter(snapshotter, socket, stop).await.context("cannot serve")
}

fn report(lazy: &Lazy) {
    let CacheFigures { bytes, chunks, limit, evicted, damaged } = lazy.cache();
    tracing::info!(bytes, chunks, limit, evicted, damaged, "the cache");
    for LayerStatus { layer, point, bytes, local, figures } in lazy.layers() {
        let LayerFigures { fetched, hits, misses, failures } = figures;
        let point = point.display();
        tracing::info!(%layer, %point, bytes, local, fetched, hits, misses, failures, "a layer");
    }
}
