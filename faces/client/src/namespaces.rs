//! Namespaces over the channel.

use async_trait::async_trait;
use berth_core::{Namespaces, Scope};
use berth_proto::containerd::services::namespaces::v1 as proto;
use berth_proto::convert::{field_mask, labels, required};
use berth_types::{FieldMask, Labels, Namespace, NamespaceRecord, Result};

use crate::bound::{Bound, RECORDS, call};

type Service = proto::namespaces_client::NamespacesClient<tonic::transport::Channel>;

pub(crate) struct Remote(pub(crate) Bound);

impl Remote {
    /// containerd tells the event of a change in the namespace of the request, and fails without one.
    fn within(&self, name: &Namespace) -> Bound {
        self.0.to(&Scope::new(name.clone()))
    }
}

fn record(namespace: Option<proto::Namespace>) -> Result<NamespaceRecord> {
    required("the namespace in the daemon's answer", namespace)?.try_into()
}

#[async_trait]
impl Namespaces for Remote {
    async fn namespace(&self, name: &Namespace) -> Result<NamespaceRecord> {
        let message = proto::GetNamespaceRequest { name: name.to_string() };
        record(call!(self.0, Service, get, message, RECORDS)?.namespace)
    }

    async fn list(&self) -> Result<Vec<NamespaceRecord>> {
        let message = proto::ListNamespacesRequest::default();
        let answer = call!(self.0, Service, list, message, RECORDS)?;
        answer.namespaces.into_iter().map(TryInto::try_into).collect()
    }

    async fn create(&self, new: NamespaceRecord) -> Result<NamespaceRecord> {
        let name = new.name.clone();
        let message = proto::CreateNamespaceRequest { namespace: Some(new.into()) };
        record(call!(self.within(&name), Service, create, message, RECORDS)?.namespace)
    }

    async fn update(&self, name: &Namespace, marks: Labels, mask: &FieldMask) -> Result<NamespaceRecord> {
        let namespace = proto::Namespace { name: name.to_string(), labels: labels(marks) };
        let message =
            proto::UpdateNamespaceRequest { namespace: Some(namespace), update_mask: field_mask(mask) };
        record(call!(self.within(name), Service, update, message, RECORDS)?.namespace)
    }

    async fn delete(&self, name: &Namespace) -> Result<()> {
        let message = proto::DeleteNamespaceRequest { name: name.to_string() };
        call!(self.within(name), Service, delete, message, RECORDS).map(drop)
    }
}
