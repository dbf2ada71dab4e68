//! Images.

use std::time::SystemTime;

use berth_core::Deletion;
use berth_types::filter::Filters;
use berth_types::{Descriptor, Digest, ErrorKind, FieldMask, Image};

use super::{Records, fresh, labels, long_labels, name, refused};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn digest(number: u8) -> Digest {
    Digest::sha256([number; 32])
}

pub(super) fn image(text: &str) -> Image {
    Image::new(name(text), Descriptor::new(MANIFEST, digest(1), 100))
}

pub(super) async fn an_image_is_a_name_for_a_target(records: &Records) {
    let images = (records.images)(&fresh());
    let mut wanted = image("docker.io/library/busybox:latest");
    wanted.labels = labels(&[("a", "1"), ("empty", "")]);
    wanted.target.annotations = labels(&[("note", "n")]);
    let before = SystemTime::now();
    let created = images.create(wanted.clone()).await.unwrap();
    assert!(created.created_at >= before - std::time::Duration::from_secs(2));
    assert_eq!(created.updated_at, created.created_at);
    let stored = images.image(&wanted.name).await.unwrap();
    // Labels without a value are not stored.
    assert_eq!(stored.labels, labels(&[("a", "1")]));
    assert_eq!(stored.target, wanted.target);
    assert_eq!(stored.created_at, created.created_at);
    assert_eq!(images.list(&Filters::default()).await.unwrap(), [stored]);
    refused(images.create(wanted.clone()).await, ErrorKind::AlreadyExists);
    images.delete(&wanted.name, None, Deletion::Later).await.unwrap();
    refused(images.image(&wanted.name).await, ErrorKind::NotFound);
    refused(images.delete(&wanted.name, None, Deletion::Later).await, ErrorKind::NotFound);
}

pub(super) async fn a_mask_says_what_changes(records: &Records) {
    let images = (records.images)(&fresh());
    let mut first = image("masked");
    first.labels = labels(&[("a", "1"), ("b", "2")]);
    first.target.annotations = labels(&[("n", "1")]);
    let created = images.create(first).await.unwrap();
    let mut new = image("masked");
    new.labels = labels(&[("a", "9"), ("c", "3")]);
    new.target.digest = digest(2);
    new.target.annotations = labels(&[("n", "2"), ("m", "3")]);
    let update = async |paths: &[&str]| {
        let updated = images.update(new.clone(), &FieldMask::new(paths.iter().copied())).await.unwrap();
        assert_eq!(images.image(&name("masked")).await.unwrap(), updated);
        assert_eq!(updated.created_at, created.created_at);
        assert!(updated.updated_at >= created.updated_at);
        updated
    };
    let updated = update(&["labels.a"]).await;
    assert_eq!(updated.labels, labels(&[("a", "9"), ("b", "2")]));
    assert_eq!(updated.target.digest, digest(1));
    let updated = update(&["labels.b", "annotations.n"]).await;
    assert_eq!(updated.labels, labels(&[("a", "9")]));
    assert_eq!(updated.target.annotations, labels(&[("n", "2")]));
    let updated = update(&["labels"]).await;
    assert_eq!(updated.labels, new.labels);
    let updated = update(&["annotations"]).await;
    assert_eq!(
        (updated.target.digest, updated.target.annotations),
        (digest(1), new.target.annotations.clone())
    );
    let updated = update(&["target"]).await;
    assert_eq!(updated.target, new.target);
    let mut whole = image("masked");
    whole.labels = labels(&[("only", "this")]);
    let updated = images.update(whole.clone(), &FieldMask::all()).await.unwrap();
    assert_eq!((updated.labels, updated.target), (whole.labels, whole.target));
    assert_eq!(updated.created_at, created.created_at);
}

pub(super) async fn a_deletion_can_ask_for_a_target(records: &Records) {
    let images = (records.images)(&fresh());
    images.create(image("pinned")).await.unwrap();
    let pinned = name("pinned");
    refused(images.delete(&pinned, Some(&digest(2)), Deletion::Later).await, ErrorKind::NotFound);
    images.image(&pinned).await.unwrap();
    images.delete(&pinned, Some(&digest(1)), Deletion::Synchronous).await.unwrap();
    refused(images.image(&pinned).await, ErrorKind::NotFound);
}

pub(super) async fn filters_choose_images(records: &Records) {
    let images = (records.images)(&fresh());
    for (text, number) in [("a/one:1", 1), ("a/two:1", 2), ("b/one:2", 3)] {
        let mut image = image(text);
        image.target.digest = digest(number);
        image.labels = labels(&[("number", &number.to_string())]);
        images.create(image).await.unwrap();
    }
    let list = async |filters: &[&str]| -> Vec<String> {
        let found = images.list(&Filters::parse(filters).unwrap()).await.unwrap();
        found.into_iter().map(|image| image.name.to_string()).collect()
    };
    assert_eq!(list(&[]).await, ["a/one:1", "a/two:1", "b/one:2"]);
    assert_eq!(list(&["name==a/two:1"]).await, ["a/two:1"]);
    assert_eq!(list(&["name~=/^a\\//"]).await, ["a/one:1", "a/two:1"]);
    assert_eq!(list(&[&format!("target.digest=={}", digest(3))]).await, ["b/one:2"]);
    assert_eq!(list(&["labels.number==1", "labels.number==3"]).await, ["a/one:1", "b/one:2"]);
    assert_eq!(list(&["name~=one,labels.number!=1"]).await, ["b/one:2"]);
    assert_eq!(list(&["labels.missing"]).await, [""; 0]);
}

pub(super) async fn what_is_wrong_is_refused(records: &Records) {
    let images = (records.images)(&fresh());
    let mut sizeless = image("sizeless");
    sizeless.target.size = 0;
    refused(images.create(sizeless).await, ErrorKind::InvalidArgument);
    let mut typeless = image("typeless");
    typeless.target.media_type.clear();
    refused(images.create(typeless).await, ErrorKind::InvalidArgument);
    let mut long = image("long");
    long.labels = long_labels();
    refused(images.create(long.clone()).await, ErrorKind::InvalidArgument);
    assert!(images.list(&Filters::default()).await.unwrap().is_empty());

    refused(images.update(image("nowhere"), &FieldMask::all()).await, ErrorKind::NotFound);
    images.create(image("long")).await.unwrap();
    refused(images.update(long, &FieldMask::new(["labels"])).await, ErrorKind::InvalidArgument);
    for path in ["name", "createdat", "target.digest"] {
        refused(images.update(image("long"), &FieldMask::new([path])).await, ErrorKind::InvalidArgument);
    }
    assert!(images.image(&name("long")).await.unwrap().labels.is_empty());
}

pub(super) async fn namespaces_are_apart(records: &Records) {
    let (here, there) = ((records.images)(&fresh()), (records.images)(&fresh()));
    here.create(image("mine")).await.unwrap();
    refused(there.image(&name("mine")).await, ErrorKind::NotFound);
    there.create(image("mine")).await.unwrap();
    here.delete(&name("mine"), None, Deletion::Later).await.unwrap();
    there.image(&name("mine")).await.unwrap();
}
