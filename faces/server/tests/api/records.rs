//! Images, containers, leases, snapshots and layers on the wire, where a message can say less than a record.

use berth_proto as proto;
use proto::containerd::services::containers::v1::containers_client::ContainersClient;
use proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, GetContainerRequest, ListContainersRequest, UpdateContainerRequest,
    container,
};
use proto::containerd::services::diff::v1::diff_client::DiffClient;
use proto::containerd::services::diff::v1::{ApplyRequest, DiffRequest};
use proto::containerd::services::images::v1::images_client::ImagesClient;
use proto::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, Image, UpdateImageRequest,
};
use proto::containerd::services::leases::v1::leases_client::LeasesClient;
use proto::containerd::services::leases::v1::{CreateRequest, ListResourcesRequest};
use proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, MountsRequest, PrepareSnapshotRequest, StatSnapshotRequest, ViewSnapshotRequest,
};
use proto::containerd::types::Descriptor;
use proto::prost_types::{Any, FieldMask};
use tonic::Code;

use crate::served::{Served, within};

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() })
}

fn digest(digit: &str) -> String {
    format!("sha256:{}", digit.repeat(64))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_labels_needs_no_target() {
    let served = Served::start();
    let mut client = ImagesClient::new(served.channel());
    let target = Descriptor { media_type: "m".into(), digest: digest("1"), size: 3, ..Default::default() };
    let image = Image { name: "i".into(), target: Some(target.clone()), ..Default::default() };
    let create = CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
    client.create(within(create.clone())).await.unwrap();
    assert_eq!(client.create(within(create)).await.unwrap_err().code(), Code::AlreadyExists);

    let labels = [("a".to_owned(), "b".to_owned())].into();
    let bare = Image { name: "i".into(), labels, ..Default::default() };
    let update = UpdateImageRequest {
        image: Some(bare.clone()),
        update_mask: mask(&["labels.a"]),
        ..Default::default()
    };
    let updated = client.update(within(update)).await.unwrap().into_inner().image.unwrap();
    assert_eq!((updated.labels["a"].as_str(), updated.target), ("b", Some(target)));

    let whole = UpdateImageRequest { image: Some(bare), update_mask: None, ..Default::default() };
    assert_eq!(client.update(within(whole)).await.unwrap_err().code(), Code::InvalidArgument);
    let nameless = UpdateImageRequest { image: Some(Image::default()), ..Default::default() };
    let status = client.update(within(nameless)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "Image.Name required"));

    let other = Descriptor { digest: digest("2"), ..Default::default() };
    let delete = DeleteImageRequest { name: "i".into(), sync: true, target: Some(other) };
    assert_eq!(client.delete(within(delete)).await.unwrap_err().code(), Code::NotFound);
    let delete = DeleteImageRequest { name: "i".into(), sync: true, target: None };
    client.delete(within(delete)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_come_one_a_message_in_a_stream() {
    let served = Served::start();
    let mut client = ContainersClient::new(served.channel());
    for id in ["a", "b"] {
        let container = Container {
            id: id.into(),
            runtime: Some(container::Runtime { name: "r".into(), options: None }),
            spec: Some(Any { type_url: "t".into(), value: b"{}".to_vec() }),
            ..Default::default()
        };
        client.create(within(CreateContainerRequest { container: Some(container) })).await.unwrap();
    }
    let mut stream = client.list_stream(within(ListContainersRequest::default())).await.unwrap().into_inner();
    let mut ids = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        ids.push(message.container.unwrap().id);
    }
    assert_eq!(ids, ["a", "b"]);
    let filters = vec!["id==b".to_owned()];
    let listed = client.list(within(ListContainersRequest { filters })).await.unwrap().into_inner();
    assert_eq!(listed.containers.len(), 1);

    let nameless = UpdateContainerRequest { container: Some(Container::default()), update_mask: None };
    let status = client.update(within(nameless)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "Container.ID required"));
    // As in containerd, which looks before it validates.
    for absent in ["c", "", "../x"] {
        let status = client.get(within(GetContainerRequest { id: absent.into() })).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{absent:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_under_a_lease_is_held_by_it() {
    let served = Served::start();
    let mut leases = LeasesClient::new(served.channel());
    let made = leases.create(within(CreateRequest::default())).await.unwrap().into_inner().lease.unwrap();
    assert!(!made.id.is_empty(), "a lease without a name gets one");
    let mut snapshots = SnapshotsClient::new(served.channel());
    let mut request = within(PrepareSnapshotRequest {
        snapshotter: "native".into(),
        key: "k".into(),
        ..Default::default()
    });
    request.metadata_mut().insert("containerd-lease", made.id.parse().unwrap());
    snapshots.prepare(request).await.unwrap();
    let held = leases.list_resources(within(ListResourcesRequest { id: made.id })).await.unwrap();
    let held: Vec<_> = held.into_inner().resources.into_iter().map(|one| (one.r#type, one.id)).collect();
    assert_eq!(held, [("snapshots/native".to_owned(), "k".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_goes_from_a_tree_to_content_and_back() {
    if testkit::need::root().is_err() {
        return;
    }
    let served = Served::start();
    let mut snapshots = SnapshotsClient::new(served.channel());
    let native = || "native".to_owned();
    let prepare =
        |key: &str| PrepareSnapshotRequest { snapshotter: native(), key: key.into(), ..Default::default() };
    let upper = snapshots.prepare(within(prepare("upper"))).await.unwrap().into_inner().mounts;
    std::fs::write(std::path::Path::new(&upper[0].source).join("file"), "text").unwrap();
    let view = ViewSnapshotRequest { snapshotter: native(), key: "lower".into(), ..Default::default() };
    let lower = snapshots.view(within(view)).await.unwrap().into_inner().mounts;

    let mut diff = DiffClient::new(served.channel());
    let request = DiffRequest { left: lower, right: upper, ..Default::default() };
    let layer = diff.diff(within(request)).await.unwrap().into_inner().diff.unwrap();
    assert_eq!(layer.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");

    let fresh = snapshots.prepare(within(prepare("fresh"))).await.unwrap().into_inner().mounts;
    let folder = fresh[0].source.clone();
    let request = ApplyRequest { diff: Some(layer), mounts: fresh, ..Default::default() };
    let applied = diff.apply(within(request)).await.unwrap().into_inner().applied.unwrap();
    assert!(applied.digest.starts_with("sha256:"));
    assert_eq!(std::fs::read_to_string(std::path::Path::new(&folder).join("file")).unwrap(), "text");

    let commit = |parent: &str| CommitSnapshotRequest {
        snapshotter: native(),
        name: "done".into(),
        key: "fresh".into(),
        parent: parent.into(),
        ..Default::default()
    };
    let status = snapshots.commit(within(commit("other"))).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "there is no such parent");
    snapshots.commit(within(commit(""))).await.unwrap();
    let stat = StatSnapshotRequest { snapshotter: native(), key: "done".into() };
    let info = snapshots.stat(within(stat)).await.unwrap().into_inner().info.unwrap();
    assert_eq!(info.kind, proto::containerd::services::snapshots::v1::Kind::Committed as i32);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshotter_that_is_not_there_is_an_invalid_argument() {
    let served = Served::start();
    let mut client = SnapshotsClient::new(served.channel());
    for name in ["", "absent", "a/b"] {
        let request = MountsRequest { snapshotter: name.into(), key: "k".into() };
        assert_eq!(client.mounts(within(request)).await.unwrap_err().code(), Code::InvalidArgument, "{name}");
    }
    let request = MountsRequest { snapshotter: "native".into(), key: String::new() };
    assert_eq!(client.mounts(within(request)).await.unwrap_err().code(), Code::NotFound);
}
