//! `containerd.services.events.ttrpc.v1.Events`, to which shims forward what happens to their containers.

use std::sync::Arc;

use berth_core::Catalog;
use berth_proto as proto;
use berth_ttrpc::tokio::Handler;
use berth_ttrpc::{Code, Metadata, Status};
use berth_types::Error;
use proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use proto::convert::{from_envelope, required};
use proto::prost::Message;

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// The handler of the ttrpc socket.
pub(crate) struct ForwardedEvents(pub(crate) Arc<dyn Catalog>);

impl ForwardedEvents {
    async fn forward(&self, payload: &[u8]) -> Result<(), Error> {
        let request = ForwardRequest::decode(payload)
            .map_err(|source| Error::invalid_argument("malformed ForwardRequest").caused_by(source))?;
        let envelope = from_envelope(required("the envelope", request.envelope)?)?;
        self.0.events().forward(envelope).await
    }
}

impl Handler for ForwardedEvents {
    async fn call(
        &self,
        service: &str,
        method: &str,
        _metadata: Metadata,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        match (service, method) {
            (SERVICE, "Forward") => match self.forward(&payload).await {
                Ok(()) => Ok(Vec::new()),
                Err(error) => {
                    tracing::warn!(error = error.chain(), "a shim's event was refused");
                    Err(Status::new(Code::from(proto::status::code(error.kind())), error.chain()))
                }
            },
            (SERVICE, _) => Err(Status::new(Code::Unimplemented, format!("method {method}"))),
            _ => Err(Status::new(Code::Unimplemented, format!("service {service}"))),
        }
    }
}
