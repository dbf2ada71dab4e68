//! What sends spans to the collector. The library calls it on a thread of its own; the sending is done where everything of
//! the daemon is done, and begins with the first spans.

use std::fmt;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::SpanExporter as Sender;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tonic::codegen::http::{Request, Response};

use super::settings::{Collector, Protocol};

/// The longest answer that is read of a collector, in bytes.
const ANSWER: usize = 1 << 20;

pub(super) struct Exporter {
    collector: Collector,
    tokio: Arc<OnceLock<Handle>>,
    resource: Resource,
    sender: Arc<OnceCell<Sender>>,
}

impl Exporter {
    pub(super) fn new(collector: Collector, tokio: Arc<OnceLock<Handle>>) -> Self {
        Self { collector, tokio, resource: Resource::builder_empty().build(), sender: Arc::default() }
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("collector", &self.collector).finish_non_exhaustive()
    }
}

fn failed(error: impl fmt::Display) -> OTelSdkError {
    OTelSdkError::InternalFailure(error.to_string())
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let tokio = self.tokio.get().ok_or_else(|| failed("the daemon is starting"))?;
        let (collector, resource, sender) =
            (self.collector.clone(), self.resource.clone(), self.sender.clone());
        let send = async move {
            let sender = sender.get_or_try_init(|| async move { make(&collector, &resource) }).await?;
            sender.export(batch).await
        };
        tokio.spawn(send).await.map_err(failed)?
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.clone();
    }
}

/// Makes what speaks to the collector that the environment names.
fn make(collector: &Collector, resource: &Resource) -> Result<Sender, OTelSdkError> {
    let sender = match collector.protocol {
        Protocol::Grpc => {
            use opentelemetry_otlp::WithTonicConfig as _;
            Sender::builder().with_tonic().with_tls_config(collector.tls.of_tonic()).build()
        }
        Protocol::Http => {
            use opentelemetry_otlp::WithHttpConfig as _;
            let client = collector.tls.of_reqwest().map_err(failed)?;
            Sender::builder().with_http().with_http_client(Http(client)).build()
        }
    };
    let mut sender = sender.map_err(failed)?;
    sender.set_resource(resource);
    Ok(sender)
}

/// The client that the daemon has for registries.
#[derive(Debug)]
struct Http(reqwest::Client);

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut answer = self.0.execute(request.try_into()?).await?;
        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            headers.extend(answer.headers().clone());
        }
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await? {
            if body.len() + part.len() > ANSWER {
                return Err("the collector's answer is too long".into());
            }
            body.extend_from_slice(&part);
        }
        Ok(response.body(Bytes::from(body))?)
    }
}
