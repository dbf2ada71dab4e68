//! Namespaces.

use berth_types::{ErrorKind, FieldMask, Labels, NamespaceRecord};

use super::images::image;
use super::{Records, fresh, labels, long_labels, name, refused};

pub(super) async fn a_namespace_has_labels(records: &Records) {
    let namespace = fresh().namespace;
    let record = NamespaceRecord { name: namespace.clone(), labels: labels(&[("a", "1"), ("b.c", "2")]) };
    assert_eq!(records.namespaces.create(record.clone()).await.unwrap(), record);
    assert_eq!(records.namespaces.namespace(&namespace).await.unwrap(), record);
    assert!(records.namespaces.list().await.unwrap().contains(&record));
    refused(records.namespaces.create(record).await, ErrorKind::AlreadyExists);

    let update = async |pairs: &[(&str, &str)], paths: &[&str]| {
        let mask = FieldMask::new(paths.iter().copied());
        records.namespaces.update(&namespace, labels(pairs), &mask).await.unwrap();
        records.namespaces.namespace(&namespace).await.unwrap().labels
    };
    assert_eq!(update(&[("a", "9"), ("x", "no")], &["labels.a"]).await, labels(&[("a", "9"), ("b.c", "2")]));
    assert_eq!(update(&[], &["labels.b.c"]).await, labels(&[("a", "9")]));
    assert_eq!(update(&[("z", "26")], &[]).await, labels(&[("z", "26")]));

    records.namespaces.delete(&namespace).await.unwrap();
    refused(records.namespaces.delete(&namespace).await, ErrorKind::NotFound);
    assert!(records.namespaces.list().await.unwrap().iter().all(|record| record.name != namespace));
}

pub(super) async fn using_one_makes_it(records: &Records) {
    let scope = fresh();
    let listed = async || {
        records.namespaces.list().await.unwrap().into_iter().any(|record| record.name == scope.namespace)
    };
    assert!(!listed().await);
    // One that isn't there has no labels, and that is no error.
    let unknown = records.namespaces.namespace(&scope.namespace).await.unwrap();
    assert_eq!(unknown.labels, Labels::new());
    (records.images)(&scope).create(image("first")).await.unwrap();
    assert!(listed().await);
}

pub(super) async fn one_with_something_in_it_stays(records: &Records) {
    let scope = fresh();
    let images = (records.images)(&scope);
    images.create(image("kept")).await.unwrap();
    let error = records.namespaces.delete(&scope.namespace).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let text = error.chain();
    assert!(text.contains("must be empty, but it still has images"), "{text}");
    images.delete(&name("kept"), None, berth_core::Deletion::Later).await.unwrap();
    // Leases alone don't keep it, and go with it.
    (records.leases)(&scope).create(Some(name("lease")), Labels::new()).await.unwrap();
    records.namespaces.delete(&scope.namespace).await.unwrap();
    let leases = (records.leases)(&scope).list(&Default::default()).await.unwrap();
    assert!(leases.is_empty());
}

pub(super) async fn what_is_wrong_is_refused(records: &Records) {
    let namespace = fresh().namespace;
    let record = NamespaceRecord { name: namespace.clone(), labels: long_labels() };
    refused(records.namespaces.create(record).await, ErrorKind::InvalidArgument);
    for path in ["name", "labels"] {
        let update = records.namespaces.update(&namespace, Labels::new(), &FieldMask::new([path])).await;
        refused(update, ErrorKind::InvalidArgument);
    }
    refused(records.namespaces.delete(&namespace).await, ErrorKind::NotFound);
}
