//! Traces: what was done for a request, and how long each part took, sent to a collector by OTLP.
//!
//! ```text
//!   request ─▶ span named by its method, below the caller's (traceparent) ─┐
//!     what serves it: spans of the target `otel`  ─────────────────────────┴─▶ batch ─▶ collector
//! ```
//! It is on when the environment names a collector, as with containerd 2.3 (`OTEL_EXPORTER_OTLP_ENDPOINT` and the other
//! variables of OpenTelemetry); otherwise nothing of it is made, and its spans are not recorded anywhere.

mod exporter;
mod requests;
mod settings;
mod tls;

use std::sync::{Arc, OnceLock};

use berth_server::MoreServices;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tonic::service::Routes;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use crate::config::Config;
use exporter::Exporter;

pub(crate) use settings::{Collector, Wanted};

/// The plugin that sends, and the one that traces, by their names in `disabled_plugins`.
pub(crate) const PROCESSOR: &str = "io.containerd.tracing.processor.v1.otlp";
pub(crate) const TRACING: &str = "io.containerd.internal.v1.tracing";
/// Where spans are made; the log passes it over.
pub(crate) const TARGET: &str = "otel";

/// What is wanted of traces, by configuration and environment.
pub(crate) fn wanted(config: &Config) -> Wanted {
    if [PROCESSOR, TRACING].iter().any(|uri| config.disabled_plugins.iter().any(|disabled| disabled == uri)) {
        return Wanted::Off("it is disabled".to_owned());
    }
    settings::wanted(|name| std::env::var(name).ok())
}

/// Traces that are being sent.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tokio: Arc<OnceLock<Handle>>,
}

impl Traces {
    /// Begins them under the name of a service, unless the environment has another one.
    pub(crate) fn start(collector: Collector, service: &'static str) -> Self {
        let tokio = Arc::new(OnceLock::new());
        let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty());
        let resource = Resource::builder();
        let resource = if named { resource } else { resource.with_service_name(service) };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(Exporter::new(collector, tokio.clone()))
            .build();
        Self { provider, tokio }
    }

    /// What takes the spans up.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let spans = Targets::new().with_target(TARGET, tracing::Level::INFO);
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("")).with_filter(spans)
    }

    /// Where the sending is done, once that is there.
    pub(crate) fn run_on(&self, tokio: Handle) {
        // There is no other.
        let _ = self.tokio.set(tokio);
    }

    /// Sends the rest. Blocks while the collector takes it, for some seconds at most.
    pub(crate) fn close(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!("the last traces are lost: {error}");
        }
    }
}

/// Has every request make a span.
pub(crate) fn around(more: MoreServices) -> MoreServices {
    Box::new(move |routes, receive| {
        let routes = more(routes, receive).into_axum_router();
        Routes::from(routes.layer(tower::layer::layer_fn(requests::Traced)))
    })
}
