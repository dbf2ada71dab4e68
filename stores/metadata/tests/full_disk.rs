//! A disk that is full: it is said so, nothing that was answered is lost, and deleting makes room.

#![expect(clippy::unwrap_used, reason = "what fails in a test has failed the test")]

mod common;

use std::fs;

use berth_core::Deletion;
use berth_types::filter::Filters;
use berth_types::{Any, Container, Descriptor, Digest, ErrorKind, Image, RuntimeInfo};
use common::scope;
use testkit::Scratch;

fn container(number: usize) -> Container {
    let runtime = RuntimeInfo { name: "runtime".into(), options: None };
    let mut container = Container::new(format!("c{number}").parse().unwrap(), runtime);
    container.spec = Some(Any::new("spec", vec![b'x'; 20_000]));
    container
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_deleting_makes_room() {
    if testkit::need::root().is_err() {
        return;
    }
    let scratch = Scratch::new();
    let small = scratch.path("small");
    fs::create_dir(&small).unwrap();
    let options = c"size=4m";
    rustix::mount::mount("tmpfs", &small, "tmpfs", rustix::mount::MountFlags::empty(), options).unwrap();
    let open =
        || berth_metadata::Metadata::open(&small.join("meta.redb"), common::parts(scratch.folder())).unwrap();
    let metadata = open();
    let here = scope("here");
    let target = Descriptor::new("type", Digest::sha256([1; 32]), 1);
    metadata.images(&here).create(Image::new("kept".parse().unwrap(), target)).await.unwrap();
    let containers = metadata.containers(&here);
    let mut stored = 0;
    let error = loop {
        match containers.create(container(stored)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000, "the disk does not fill up");
    };
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{}", error.chain());
    assert!(stored > 10, "{stored}");
    let count = async || containers.list(&Filters::default()).await.unwrap().len();
    assert_eq!(count().await, stored);
    for round in 0..5 {
        let error = containers.create(container(2000 + round)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{}", error.chain());
        metadata.images(&here).image(&"kept".parse().unwrap()).await.unwrap();
    }
    for number in 0..stored / 2 {
        let done = containers.delete(&format!("c{number}").parse().unwrap()).await;
        done.unwrap_or_else(|error| panic!("{number} of {stored}: {}", error.chain()));
    }
    containers.create(container(3000)).await.unwrap();
    metadata.images(&here).delete(&"kept".parse().unwrap(), None, Deletion::Synchronous).await.unwrap();
    let left = count().await;
    metadata.close().await.unwrap();
    drop(containers);
    drop(metadata);
    let metadata = open();
    assert_eq!(metadata.containers(&here).list(&Filters::default()).await.unwrap().len(), left);
    metadata.close().await.unwrap();
}
