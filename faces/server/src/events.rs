//! `containerd.services.events.v1.Events`.

use berth_proto as proto;
use berth_types::filter::Filters;
use futures::StreamExt;
use proto::containerd::services::events::v1::{self as wire, events_server};
use proto::containerd::types;
use proto::convert::{check_topic, envelope, from_any, from_envelope, from_event};
use tonic::{Request, Response, Status};

use crate::headers::scope;
use crate::shared::{Answers, Shared, ok, required, status};

/// The service.
pub(crate) struct Events(pub(crate) Shared);

#[tonic::async_trait]
impl events_server::Events for Events {
    type SubscribeStream = Answers<types::Envelope>;

    async fn publish(&self, request: Request<wire::PublishRequest>) -> Result<Response<()>, Status> {
        let namespace = scope(&request)?.namespace;
        let wire::PublishRequest { topic, event } = request.into_inner();
        ok(check_topic(&topic))?;
        let event = from_event(topic, from_any(required("the event", event)?));
        let events = self.0.catalog.events();
        self.0.mutations.run(async move { events.publish(&namespace, event).await }).await
    }

    async fn forward(&self, request: Request<wire::ForwardRequest>) -> Result<Response<()>, Status> {
        let envelope = ok(from_envelope(required("the envelope", request.into_inner().envelope)?))?;
        let events = self.0.catalog.events();
        self.0.mutations.run(async move { events.forward(envelope).await }).await
    }

    async fn subscribe(
        &self,
        request: Request<wire::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let filters = ok(Filters::parse(&request.into_inner().filters))?;
        let told = ok(self.0.catalog.events().subscribe(filters).await)?;
        Ok(Response::new(Box::pin(told.map(|told| told.map(envelope).map_err(|error| status(&error))))))
    }
}
