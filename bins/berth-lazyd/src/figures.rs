//! Figures for Prometheus, where the configuration asks for them: `GET /v1/metrics`, as of berthd.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use berth_lazy::{CacheFigures, Figures, Lazy, WAIT_BOUNDS};
use berth_metrics::{Histogram, Kind, Page, Pages};
use tokio::net::TcpListener;

/// The lazy layers, as whoever draws curves sees them.
pub(crate) struct Source(pub(crate) Arc<Lazy>);

/// Opens the listener; none without an address.
pub(crate) async fn listen(address: &str) -> Result<Option<TcpListener>> {
    if address.is_empty() {
        return Ok(None);
    }
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen for metrics at {address} (the key address of [metrics], HOST:PORT)")
    })?;
    tracing::info!(address, "serving metrics");
    Ok(Some(listener))
}

impl Pages for Source {
    async fn page(&self) -> Page {
        let mut page = Page::default();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.add("berth_lazyd_build_info", Kind::Gauge, "The version of berth-lazyd.", &version, 1.0);
        layers(&mut page, &self.0.figures());
        cache(&mut page, self.0.cache());
        page
    }
}

/// Destructured whole: what is counted is shown.
fn layers(page: &mut Page, figures: &Figures) {
    let Figures { mounted, taken, left, demanded, ahead, whole, .. } = *figures;
    let Figures { hits, misses, failures, refused, late, wrong, waits, waited, .. } = *figures;
    page.add("berth_lazyd_mounted_layers", Kind::Gauge, "Layers that are mounted.", &[], mounted as f64);
    let mut of = |name: &str, help, label, kinds: &[(&str, u64)]| {
        for (kind, count) in kinds {
            page.add(name, Kind::Counter, help, &[(label, kind)], *count as f64);
        }
    };
    let help = "Layers that daemons offered, by what became of them.";
    of("berth_lazyd_layers_total", help, "outcome", &[("mounted", taken), ("unpacked", left)]);
    let help = "Bytes from registries: of what was read, of what may be, and of layers without tables.";
    let kinds = [("demand", demanded), ("ahead", ahead), ("whole", whole)];
    of("berth_lazyd_fetched_bytes_total", help, "reason", &kinds);
    let help = "Reads of files: answered with what was there, after a wait, or with an error.";
    of("berth_lazyd_reads_total", help, "outcome", &[("hit", hits), ("miss", misses), ("failure", failures)]);
    let help = "Requests to registries that failed or took too long.";
    of("berth_lazyd_registry_errors_total", help, "reason", &[("refused", refused), ("late", late)]);
    let help = "Layers, tables and chunks that were not what their digests say.";
    page.add("berth_lazyd_verification_failures_total", Kind::Counter, help, &[], wrong as f64);
    let waits = Histogram {
        buckets: WAIT_BOUNDS.into_iter().zip(waits).collect(),
        above: waits[WAIT_BOUNDS.len()],
        sum: waited as f64 / 1e6,
    };
    let help = "How long reads waited that were not answered at once, in seconds.";
    page.add_histogram("berth_lazyd_read_wait_seconds", help, &[], &waits);
}

fn cache(page: &mut Page, figures: CacheFigures) {
    let CacheFigures { bytes, chunks, limit, evicted, damaged } = figures;
    let mut add = |name: &str, kind, help, value: u64| page.add(name, kind, help, &[], value as f64);
    add("berth_lazyd_cache_bytes", Kind::Gauge, "Bytes of all chunks on disk.", bytes);
    add("berth_lazyd_cache_chunks", Kind::Gauge, "Chunks on disk.", chunks);
    add("berth_lazyd_cache_limit_bytes", Kind::Gauge, "Bytes that chunks may have.", limit);
    let help = "Chunks that made room for others.";
    add("berth_lazyd_cache_evicted_chunks_total", Kind::Counter, help, evicted);
    let help = "Chunks that the disk has spoilt.";
    add("berth_lazyd_cache_damaged_chunks_total", Kind::Counter, help, damaged);
}
