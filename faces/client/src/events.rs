//! Events over the channel.

use async_trait::async_trait;
use berth_core::{EventStream, Events, Scope};
use berth_proto::containerd::services::{events::v1 as proto, version::v1 as version};
use berth_proto::containerd::types;
use berth_proto::convert::{any, envelope, event, from_envelope};
use berth_types::filter::Filters;
use berth_types::{Envelope, Event, Namespace, Result};
use futures::StreamExt;
use futures::future::{Either, select};
use tonic::{Status, Streaming};

use crate::bound::{Bound, FOREVER, RECORDS, call, service};

type Service = proto::events_client::EventsClient<tonic::transport::Channel>;
type VersionService = version::version_client::VersionClient<tonic::transport::Channel>;

pub(crate) struct Remote(pub(crate) Bound);

type Opened = std::result::Result<Streaming<types::Envelope>, Status>;

#[async_trait]
impl Events for Remote {
    async fn publish(&self, namespace: &Namespace, happened: Event) -> Result<()> {
        let bound = self.0.to(&Scope::new(namespace.clone()));
        let (topic, message) = event(happened);
        let message = proto::PublishRequest { topic, event: Some(any(message)) };
        call!(bound, Service, publish, message, RECORDS).map(drop)
    }

    async fn forward(&self, told: Envelope) -> Result<()> {
        let bound = self.0.to(&Scope::new(told.namespace.clone()));
        let message = proto::ForwardRequest { envelope: Some(envelope(told)) };
        call!(bound, Service, forward, message, RECORDS).map(drop)
    }

    /// A daemon in Go sends the head of its answer together with the first event, so waiting for the head would
    /// wait for an event. Instead the answer to a later, trivial request tells that the daemon has this one.
    async fn subscribe(&self, filters: Filters) -> Result<EventStream> {
        let message = proto::SubscribeRequest { filters: filters.texts().to_vec() };
        let request = self.0.request(message, FOREVER)?;
        let mut client = service!(Service, self.0);
        let open = Box::pin(async move { client.subscribe(request).await.map(tonic::Response::into_inner) });
        let bound = self.0.clone();
        let ping = Box::pin(async move { call!(bound, VersionService, version, (), RECORDS) });
        let open: futures::future::BoxFuture<'static, Opened> = match select(open, ping).await {
            Either::Left((opened, _)) => {
                let opened = opened.map_err(|status| self.0.error(status))?;
                Box::pin(async move { Ok(opened) })
            }
            Either::Right((answer, open)) => {
                answer?;
                open
            }
        };
        Ok(events(self.0.clone(), open))
    }
}

/// The events of a subscription once it is open; it ends with its first error.
fn events(bound: Bound, open: futures::future::BoxFuture<'static, Opened>) -> EventStream {
    let opening = futures::stream::once(open).flat_map(|opened| match opened {
        Ok(stream) => stream.left_stream(),
        Err(status) => futures::stream::iter([Err(status)]).right_stream(),
    });
    Box::pin(opening.map(move |item| match item {
        Ok(message) => from_envelope(message),
        Err(status) => Err(bound.error(status)),
    }))
}
