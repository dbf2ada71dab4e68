//! Leases.

use berth_core::Deletion;
use berth_types::filter::Filters;
use berth_types::{Digest, ErrorKind, Labels, LeaseId, LeaseResource};

use super::{Records, fresh, labels, name, refused};

fn resource(kind: &str, id: &str) -> LeaseResource {
    LeaseResource { id: id.to_owned(), kind: kind.to_owned() }
}

pub(super) async fn a_lease_holds_resources(records: &Records) {
    let leases = (records.leases)(&fresh());
    let id: LeaseId = name("holds");
    let lease = leases.create(Some(id.clone()), labels(&[("a", "1")])).await.unwrap();
    assert_eq!((&lease.id, &lease.labels), (&id, &labels(&[("a", "1")])));
    refused(leases.create(Some(id.clone()), Labels::new()).await, ErrorKind::AlreadyExists);
    assert_eq!(leases.list(&Filters::default()).await.unwrap(), [lease]);

    let digest = Digest::sha256([7; 32]).to_string();
    let held = [
        resource("content", &digest),
        resource("ingests", "some ref/with things"),
        resource("snapshots/native", "a key"),
        resource("snapshots/overlayfs", "a key"),
    ];
    for resource in &held {
        leases.add_resource(&id, resource.clone()).await.unwrap();
        leases.add_resource(&id, resource.clone()).await.unwrap();
    }
    let resources = async || {
        let mut found = leases.resources(&id).await.unwrap();
        found.sort_by(|a, b| (&a.kind, &a.id).cmp(&(&b.kind, &b.id)));
        found
    };
    assert_eq!(resources().await, held);
    leases.delete_resource(&id, held[1].clone()).await.unwrap();
    leases.delete_resource(&id, held[1].clone()).await.unwrap();
    assert_eq!(resources().await, [&held[..1], &held[2..]].concat());

    leases.delete(&id, Deletion::Synchronous).await.unwrap();
    refused(leases.delete(&id, Deletion::Later).await, ErrorKind::NotFound);
    refused(leases.resources(&id).await, ErrorKind::NotFound);
    // A new one of that name holds nothing.
    leases.create(Some(id.clone()), Labels::new()).await.unwrap();
    assert!(leases.resources(&id).await.unwrap().is_empty());
}

pub(super) async fn a_lease_can_be_named_by_the_store(records: &Records) {
    let leases = (records.leases)(&fresh());
    let first = leases.create(None, Labels::new()).await.unwrap();
    let second = leases.create(None, Labels::new()).await.unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!(leases.list(&Filters::default()).await.unwrap().len(), 2);
}

pub(super) async fn filters_choose_leases(records: &Records) {
    let leases = (records.leases)(&fresh());
    leases.create(Some(name("one")), labels(&[("for", "pull")])).await.unwrap();
    leases.create(Some(name("two")), labels(&[("for", "push")])).await.unwrap();
    let list = async |filter: &str| -> Vec<String> {
        let found = leases.list(&Filters::parse(&[filter]).unwrap()).await.unwrap();
        found.into_iter().map(|lease| lease.id.to_string()).collect()
    };
    assert_eq!(list("id==two").await, ["two"]);
    assert_eq!(list("labels.for==pull").await, ["one"]);
    assert_eq!(list("labels.for").await, ["one", "two"]);
}

pub(super) async fn what_is_wrong_is_refused(records: &Records) {
    let leases = (records.leases)(&fresh());
    let (id, nowhere): (LeaseId, LeaseId) = (name("there"), name("nowhere"));
    leases.create(Some(id.clone()), Labels::new()).await.unwrap();
    for (kind, text, error) in [
        ("content", "no digest", ErrorKind::InvalidArgument),
        ("content/more", "x", ErrorKind::InvalidArgument),
        ("snapshots", "x", ErrorKind::InvalidArgument),
        ("snapshots/a/b", "x", ErrorKind::InvalidArgument),
        ("tasks", "x", ErrorKind::NotImplemented),
    ] {
        refused(leases.add_resource(&id, resource(kind, text)).await, error);
    }
    assert!(leases.resources(&id).await.unwrap().is_empty());
    refused(leases.add_resource(&nowhere, resource("snapshots/a", "x")).await, ErrorKind::NotFound);
    refused(leases.delete_resource(&nowhere, resource("snapshots/a", "x")).await, ErrorKind::NotFound);
}
