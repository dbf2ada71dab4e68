//! Events of records.

use std::time::Duration;

use berth_core::Deletion;
use berth_types::filter::Filters;
use berth_types::{ContainerUpdate, FieldMask, Labels, NamespaceRecord};
use futures::StreamExt;

use super::containers::container;
use super::images::image;
use super::{Records, fresh, labels, name};

pub(super) async fn every_change_is_told_once_and_in_order(records: &Records) {
    let scope = fresh();
    let namespace = &scope.namespace;
    let filter = Filters::parse(&[format!("namespace=={namespace}")]).unwrap();
    let mut events = records.events.subscribe(filter).await.unwrap();
    // Over a wire, the subscription may take a moment; the first event that comes through says
    // that it stands.
    let mut tries = 0;
    loop {
        let topic = format!("/test/{tries}");
        let event = berth_types::Event::Foreign { topic, event: berth_types::Any::new("test", []) };
        records.events.publish(namespace, event).await.unwrap();
        match tokio::time::timeout(Duration::from_millis(200), events.next()).await {
            Ok(Some(event)) => drop(event.unwrap()),
            Ok(None) => panic!("the stream of events ended"),
            Err(late) => {
                assert!(tries < 100, "no event comes: {late}");
                tries += 1;
                continue;
            }
        }
        break;
    }

    let images = (records.images)(&scope);
    let containers = (records.containers)(&scope);
    let record = NamespaceRecord { name: namespace.clone(), labels: Labels::new() };
    records.namespaces.create(record).await.unwrap();
    let mask = FieldMask::new(["labels.a"]);
    records.namespaces.update(namespace, labels(&[("a", "1")]), &mask).await.unwrap();
    images.create(image("told")).await.unwrap();
    images.create(image("told")).await.unwrap_err();
    images.update(image("told"), &FieldMask::new(["labels"])).await.unwrap();
    containers.create(container("told")).await.unwrap();
    let update = ContainerUpdate { container: container("told"), mask: FieldMask::new(["labels"]) };
    containers.update(update).await.unwrap();
    containers.delete(&name("told")).await.unwrap();
    images.delete(&name("told"), None, Deletion::Later).await.unwrap();
    records.namespaces.delete(namespace).await.unwrap();

    let mut topics = Vec::new();
    while topics.last().is_none_or(|topic| topic != "/namespaces/delete") {
        let event = tokio::time::timeout(crate::wait::SOON, events.next()).await;
        let envelope = event.expect("events come at once").expect("the stream goes on").unwrap();
        assert_eq!(envelope.namespace, *namespace);
        let topic = envelope.event.topic();
        // What was told twice while the subscription was tried.
        if !topic.starts_with("/test/") {
            topics.push(topic.to_owned());
        }
    }
    assert_eq!(
        topics,
        [
            "/namespaces/create",
            "/namespaces/update",
            "/images/create",
            "/images/update",
            "/containers/create",
            "/containers/update",
            "/containers/delete",
            "/images/delete",
            "/namespaces/delete",
        ]
    );
}
