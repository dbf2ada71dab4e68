//! Images between a real daemon and real and scripted registries.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use berth_core::{Catalog, Deletion, IngestRequest};
use berth_oci::image::PlatformMatch;
use berth_registry::{Config, Registries};
use berth_transfer::{
    Commit, Import, Object, Platforms, Pull, Push, Reporter, State, Unpack, commit, history, load, pull,
    push, tag, unpack,
};
use berth_types::filter::Filters;
use berth_types::{ErrorKind, ImageRef, Labels};
use common::{World, on_daemons};
use testkit::Kind;
use testkit::image::{Image as Made, Layer};
use testkit::registry::{DockerRegistry, Reply, Standin, serve};

const ALL: [Kind; 3] = [Kind::Debian, Kind::Containerd, Kind::Berth];
const NEW: [Kind; 2] = [Kind::Containerd, Kind::Berth];

fn made() -> Made {
    let noise: Vec<u8> = (0..600_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    Made::new("berth.test/made:1")
        .layer(Layer::new().dir("etc", 0o755).file("etc/one", b"1", 0o644))
        .layer(Layer::new().file("noise", &noise, 0o644))
        .cmd(&["/bin/true"])
}

fn registries() -> Registries {
    Registries::new(Config { pause: Duration::from_millis(1), ..Config::default() })
}

fn pulling(reference: &str, world: &World) -> Pull {
    let reference: ImageRef = reference.parse().unwrap();
    Pull { unpack: Some((PlatformMatch::host(), world.native.clone())), ..Pull::new(reference) }
}

async fn empty(world: &World) {
    for image in world.client.images(&world.scope).list(&Filters::default()).await.unwrap() {
        let images = world.client.images(&world.scope);
        images.delete(&image.name, None, Deletion::Synchronous).await.unwrap();
    }
    // A deletion tells that there was a collection; another one takes what the first one freed.
    collect(world).await;
}

/// Lets the daemon collect garbage, and waits until it has.
async fn collect(world: &World) {
    let leases = world.client.leases(&world.scope);
    let lease = leases.create(Some("last".parse().unwrap()), Labels::new()).await.unwrap();
    leases.delete(&lease.id, Deletion::Synchronous).await.unwrap();
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    on_daemons(&ALL, |world| async move {
        let Ok(registry) = DockerRegistry::start() else { return world };
        let registries = registries();
        let image = world.import(made().oci_archive(), &Import::default()).await.unwrap().images.remove(0);
        let name = format!("{}/team/app:1", registry.address());
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let request = Push {
            progress: Reporter::to(sender.clone()),
            ..Push::new(image.target.clone(), name.parse().unwrap())
        };
        let pushed = push(world.catalog(), &world.scope, &registries, &request).await.unwrap();
        assert_eq!(pushed.digest, image.target.digest);
        let mut complete = 0;
        while let Ok(event) = events.try_recv() {
            complete += usize::from(event.state == State::Complete);
        }
        assert_eq!(complete, 4);
        push(world.catalog(), &world.scope, &registries, &request).await.unwrap();
        let mut exist = 0;
        while let Ok(event) = events.try_recv() {
            exist += usize::from(event.state == State::Exists);
        }
        assert_eq!(exist, 3, "nothing is sent twice");

        empty(&world).await;
        let content = world.client.content(&world.scope);
        assert_eq!(content.list(&Filters::default()).await.unwrap(), []);
        let request = Pull { progress: Reporter::to(sender), ..pulling(&name, &world) };
        let pulled = pull(world.catalog(), &world.scope, &registries, &request).await.unwrap();
        assert!(pulled.changed);
        assert_eq!(pulled.image.name.as_str(), name);
        assert_eq!(pulled.image.target.digest, image.target.digest);
        assert!(pulled.unpacked.unwrap().chain.is_some());
        let mut unpacked = 0;
        while let Ok(event) = events.try_recv() {
            unpacked += usize::from(event.state == State::Unpacked && event.object == Object::Layer);
        }
        assert_eq!(unpacked, 2);
        for blob in content.list(&Filters::default()).await.unwrap() {
            let source = format!("containerd.io/distribution.source.{}", registry.address());
            assert_eq!(blob.labels[&source], "team/app");
        }
        let again = pull(world.catalog(), &world.scope, &registries, &request).await.unwrap();
        assert!(!again.changed);

        // From the one repository to another of the same registry no layer is sent again.
        let other: ImageRef = format!("{}/team/other:2", registry.address()).parse().unwrap();
        push(world.catalog(), &world.scope, &registries, &Push::new(image.target.clone(), other))
            .await
            .unwrap();
        let by_digest = format!("{}/team/other@{}", registry.address(), image.target.digest);
        pull(world.catalog(), &world.scope, &registries, &pulling(&by_digest, &world)).await.unwrap();
        let missing = pulling(&name.replace("app:1", "app:9"), &world);
        let missing = pull(world.catalog(), &world.scope, &registries, &missing).await;
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
        empty(&world).await;
        world
    });
}

#[test]
fn a_pull_that_was_broken_off_fetches_only_what_is_missing() {
    on_daemons(&NEW, |world| async move {
        let image = made();
        let healthy = Arc::new(AtomicBool::new(false));
        let standin = Standin::start({
            let (image, healthy) = (image.clone(), Arc::clone(&healthy));
            move |request| {
                let reply = serve(&image, "a/b", "1", request);
                let large = reply.body.len() > 1 << 20;
                match (healthy.load(Ordering::Relaxed), large, request.header("range")) {
                    (false, true, None) => reply.cut(1 << 20),
                    (false, true, Some(_)) => Reply::new(403, ""),
                    _ => reply,
                }
            }
        });
        let name = format!("{}/a/b:1", standin.address());
        let registries = registries();
        let error =
            pull(world.catalog(), &world.scope, &registries, &pulling(&name, &world)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        assert_eq!(world.client.images(&world.scope).list(&Filters::default()).await.unwrap(), []);
        let content = world.client.content(&world.scope);
        let ingests = content.ingests(&Filters::default()).await.unwrap();
        let kept = ingests.iter().map(|ingest| ingest.offset).max().unwrap_or_default();
        assert!(kept > 0, "{ingests:?}");
        // The failed pull's lease has ended; a collection does not take what the next one goes on from.
        collect(&world).await;

        healthy.store(true, Ordering::Relaxed);
        let before = standin.requests().len();
        pull(world.catalog(), &world.scope, &registries, &pulling(&name, &world)).await.unwrap();
        let fetched = &standin.requests()[before..];
        let from: Vec<&str> = fetched.iter().filter_map(|request| request.header("range")).collect();
        assert_eq!(from, [format!("bytes={kept}-")], "from where it stopped, and nothing else partly");
        let leases = world.client.leases(&world.scope).list(&Filters::default()).await.unwrap();
        assert_eq!(leases, [], "nothing is held once the image is there");
        empty(&world).await;
        world
    });
}

#[test]
fn wrong_bytes_are_refused_and_not_gone_on_from() {
    on_daemons(&NEW, |world| async move {
        let image = made();
        let lies = Arc::new(AtomicBool::new(true));
        let standin = Standin::start({
            let (image, lies) = (image.clone(), Arc::clone(&lies));
            move |request| {
                let mut reply = serve(&image, "a/b", "1", request);
                if lies.load(Ordering::Relaxed)
                    && request.path().contains("/blobs/")
                    && reply.body.len() > 1000
                {
                    reply.body[500] ^= 1;
                }
                reply
            }
        });
        let name = format!("{}/a/b:1", standin.address());
        let registries = registries();
        let error =
            pull(world.catalog(), &world.scope, &registries, &pulling(&name, &world)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error:?}");
        let content = world.client.content(&world.scope);
        let kept = content.ingests(&Filters::default()).await.unwrap();
        assert!(kept.iter().all(|ingest| ingest.total < 1000), "{kept:?}");
        lies.store(false, Ordering::Relaxed);

        // An ingest that somebody else began with other bytes is begun anew.
        let manifest: serde_json::Value = serde_json::from_slice(&image.manifest()).unwrap();
        let layer: berth_types::Descriptor = serde_json::from_value(manifest["layers"][1].clone()).unwrap();
        let request = IngestRequest {
            reference: format!("layer-{}", layer.digest).parse().unwrap(),
            total: layer.size,
            expected: Some(layer.digest),
        };
        let mut ingest = content.writer(request.clone()).await.unwrap();
        ingest.write(0, vec![7; 1000].into()).await.unwrap();
        drop(ingest);
        while content.ingest(&request.reference).await.is_ok_and(|status| status.offset < 1000) {
            tokio::task::yield_now().await;
        }
        pull(world.catalog(), &world.scope, &registries, &pulling(&name, &world)).await.unwrap();
        empty(&world).await;
        world
    });
}

#[test]
fn two_pulls_of_one_image_make_one_download() {
    on_daemons(&NEW, |world| async move {
        let image = made();
        let layers = Arc::new(AtomicUsize::new(0));
        let standin = Standin::start({
            let (image, layers) = (image.clone(), Arc::clone(&layers));
            move |request| {
                let reply = serve(&image, "a/b", "1", request);
                if reply.body.len() > 1 << 20 {
                    layers.fetch_add(1, Ordering::Relaxed);
                }
                reply
            }
        });
        let name = format!("{}/a/b:1", standin.address());
        let (registries, request) = (registries(), pulling(&name, &world));
        let one = pull(world.catalog(), &world.scope, &registries, &request);
        let two = pull(world.catalog(), &world.scope, &registries, &request);
        let (one, two) = futures::join!(one, two);
        assert_eq!(one.unwrap().image.target, two.unwrap().image.target);
        assert_eq!(layers.load(Ordering::Relaxed), 1);
        let snapshots = world.client.snapshotter(&world.native, &world.scope).unwrap();
        assert_eq!(snapshots.list(&Filters::default()).await.unwrap().len(), 2);
        empty(&world).await;
        world
    });
}

#[test]
fn a_containers_changes_become_an_image() {
    on_daemons(&ALL, |world| async move {
        let image = world.import(made().oci_archive(), &Import::default()).await.unwrap().images.remove(0);
        let request = Unpack {
            target: image.target.clone(),
            platform: PlatformMatch::host(),
            snapshotter: world.native.clone(),
            progress: Reporter::none(),
        };
        let unpacked = unpack(world.catalog(), &world.scope, &request).await.unwrap();
        let snapshots = world.client.snapshotter(&world.native, &world.scope).unwrap();
        let key: berth_types::SnapshotKey = "container".parse().unwrap();
        let root = Labels::from([("containerd.io/gc.root".to_owned(), "now".to_owned())]);
        let new = berth_core::NewSnapshot { key: key.clone(), parent: unpacked.chain.clone(), labels: root };
        let mounts = snapshots.prepare(new).await.unwrap();
        std::fs::write(std::path::Path::new(&mounts[0].source).join("new"), "new").unwrap();
        let made = commit(
            world.catalog(),
            &world.scope,
            Commit {
                base: unpacked.image.clone(),
                snapshotter: world.native.clone(),
                snapshot: key.clone(),
                config: unpacked.image.config.config.clone(),
                author: Some("me".into()),
                comment: Some("a change".into()),
                created_by: Some("touch new".into()),
                created: std::time::SystemTime::UNIX_EPOCH,
                name: Some("berth.test/changed:1".parse().unwrap()),
            },
        )
        .await
        .unwrap();
        snapshots.remove(&key).await.unwrap();
        let content = world.client.content(&world.scope);
        let loaded = load(&*content, &made, &PlatformMatch::host()).await.unwrap();
        let steps = history(&loaded);
        assert_eq!(steps.len(), 3);
        assert_eq!(steps[2].history.created_by.as_deref(), Some("touch new"));
        assert!(steps[2].layer.is_some());
        let again = Unpack { target: made, ..request };
        let chain = unpack(world.catalog(), &world.scope, &again).await.unwrap().chain.unwrap();
        assert_ne!(Some(&chain), unpacked.chain.as_ref());
        let (from, to) = ("berth.test/changed:1".parse().unwrap(), "berth.test/again:2".parse().unwrap());
        let tagged = tag(world.catalog(), &world.scope, &from, &to).await.unwrap();
        assert_eq!(tagged.name, to);
        empty(&world).await;
        assert_eq!(snapshots.list(&Filters::default()).await.unwrap(), [], "nothing refers to them");
        world
    });
}

#[test]
fn an_image_of_another_platform_is_named_and_all_platforms_are_refused_when_one_is_missing() {
    on_daemons(&NEW, |world| async move {
        let image = made();
        let manifest = image.manifest();
        let kind = "application/vnd.oci.image.index.v1+json";
        let entry = |bytes: &[u8], architecture: &str| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
                berth_archive::Hasher::digest(bytes),
                bytes.len()
            )
        };
        let own = berth_oci::image::host_platform().architecture;
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[{},{}]}}"#,
            entry(b"not here", "riscv64"),
            entry(&manifest, &own)
        );
        let digest = berth_archive::Hasher::digest(index.as_bytes());
        let standin = Standin::start({
            let image = image.clone();
            move |request| match request.path().strip_prefix("/v2/a/b/manifests/") {
                Some(name) if name == "all" || name == digest.as_str() => Reply::new(200, index.clone())
                    .header("Content-Type", kind)
                    .header("Docker-Content-Digest", digest.as_str()),
                _ => serve(&image, "a/b", "1", request),
            }
        });
        let name = format!("{}/a/b:all", standin.address());
        let registries = registries();
        let pulled = pull(world.catalog(), &world.scope, &registries, &pulling(&name, &world)).await.unwrap();
        assert!(pulled.unpacked.unwrap().image.descriptor.platform.is_some());

        let other = PlatformMatch::only(&berth_oci::image::parse_platform("linux/s390x").unwrap());
        let request = Pull { platforms: Platforms::Best(other), unpack: None, ..pulling(&name, &world) };
        let error = pull(world.catalog(), &world.scope, &registries, &request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains("linux/riscv64"), "{error:?}");
        let everything = Pull { platforms: Platforms::All, ..pulling(&name, &world) };
        let error = pull(world.catalog(), &world.scope, &registries, &everything).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);

        let Ok(registry) = DockerRegistry::start() else { return world };
        let to: ImageRef = format!("{}/x/y:1", registry.address()).parse().unwrap();
        let all = Push::new(pulled.image.target.clone(), to.clone());
        let error = push(world.catalog(), &world.scope, &registries, &all).await.unwrap_err();
        assert!(error.message().contains("--platform"), "{error:?}");
        let one = Push { platform: Some(PlatformMatch::host()), ..all };
        let pushed = push(world.catalog(), &world.scope, &registries, &one).await.unwrap();
        assert_eq!(pushed.digest, berth_archive::Hasher::digest(&manifest));
        empty(&world).await;
        world
    });
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    on_daemons(&NEW, |world| async move {
        let registries = Registries::new(Config { pause: Duration::ZERO, retries: 1, ..Config::default() });
        let error =
            pull(world.catalog(), &world.scope, &registries, &pulling("127.0.0.1:1/a:1", &world)).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("http://127.0.0.1:1: HEAD /v2/a/manifests/1"), "{error:?}");
        world
    });
}
