//! Layers that are unpacked at once, while others still come.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

mod common;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use berth_core::{Catalog, NewSnapshot};
use berth_oci::image::PlatformMatch;
use berth_registry::{Config, Registries};
use berth_transfer::{Pull, Pulled, Reporter, State, pull};
use berth_types::filter::Filters;
use berth_types::{ErrorKind, ImageRef, Labels, SnapshotKind};
use common::{World, on_daemons};
use testkit::image::{Image as Made, Layer};
use testkit::registry::{Reply, Standin, serve};
use testkit::tree::Tree;
use testkit::{Kind, Scratch, need};

const NEW: [Kind; 2] = [Kind::Containerd, Kind::Berth];

fn registries() -> Registries {
    Registries::new(Config { pause: Duration::from_millis(1), ..Config::default() })
}

fn pulling(reference: &str, snapshotter: &str) -> Pull {
    let reference: ImageRef = reference.parse().unwrap();
    let unpack = Some((PlatformMatch::host(), snapshotter.parse().unwrap()));
    Pull { unpack, ..Pull::new(reference) }
}

/// Layers that hide, replace and reuse what is below them, and some that do not tell of their folders.
fn intricate() -> Made {
    let base = Layer::new()
        .dir("etc", 0o755)
        .file("etc/kept", b"1", 0o644)
        .file("etc/gone", b"1", 0o644)
        .dir("var", 0o1777)
        .dir("var/lib", 0o700)
        .file("var/lib/old", b"1", 0o600)
        .symlink("lib", "var/lib");
    let mut image = Made::new("berth.test/intricate:1")
        .layer(base)
        .layer(Layer::new().dir("etc", 0o750).whiteout("etc", "gone").file("etc/new", b"2", 0o644))
        .layer(Layer::new().dir("var", 0o1777).dir("var/lib", 0o711).opaque("var/lib").file(
            "var/lib/a",
            b"3",
            0o4755,
        ))
        // The folder is not told: it has to be the one below.
        .layer(Layer::new().file("var/untold", b"4", 0o644))
        .layer(Layer::new().whiteout("", "lib").file("lib", b"no link any more", 0o644));
    for number in 0..12 {
        let name = format!("many/{number}");
        image = image.layer(Layer::new().dir("many", 0o755).file(&name, name.as_bytes(), 0o644));
    }
    image
}

fn seen(mounts: &[berth_types::Mount], point: &Path) -> Tree {
    std::fs::create_dir_all(point).unwrap();
    berth_sys::mount::mount_all(mounts, point).unwrap();
    let mut tree = Tree::read(point);
    berth_sys::mount::unmount_all(point).unwrap();
    for file in tree.0.values_mut().filter(|file| file.kind == "dir") {
        // Whatever is done in a folder of a whole tree changes its time.
        file.mtime = (0, 0);
    }
    tree.without_root()
}

async fn tree(world: &World, pulled: &Pulled, snapshotter: &str, point: &Path) -> Tree {
    let snapshots = world.client.snapshotter(&snapshotter.parse().unwrap(), &world.scope).unwrap();
    let parent = pulled.unpacked.as_ref().unwrap().chain.clone();
    let labels = Labels::from([("containerd.io/gc.root".to_owned(), "test".to_owned())]);
    let key: berth_types::SnapshotKey = "seen".parse().unwrap();
    let mounts = snapshots.view(NewSnapshot { key: key.clone(), parent, labels }).await.unwrap();
    let tree = seen(&mounts, point);
    snapshots.remove(&key).await.unwrap();
    tree
}

#[test]
fn layers_unpacked_at_once_give_the_tree_that_they_give_one_by_one() {
    let Ok(()) = need::root() else { return };
    on_daemons(&NEW, |world| async move {
        let image = intricate();
        let standin = Standin::start(move |request| serve(&image, "a/b", "1", request));
        let name = format!("{}/a/b:1", standin.address());
        let (registries, scratch) = (registries(), Scratch::new());
        let at_once =
            pull(world.catalog(), &world.scope, &registries, &pulling(&name, "overlayfs")).await.unwrap();
        let one_by_one =
            pull(world.catalog(), &world.scope, &registries, &pulling(&name, "native")).await.unwrap();
        let overlay = tree(&world, &at_once, "overlayfs", &scratch.path("overlay")).await;
        let native = tree(&world, &one_by_one, "native", &scratch.path("native")).await;
        assert_eq!(overlay, native);
        assert_eq!(
            overlay.0[Path::new("var")].mode,
            0o1777,
            "a folder that a layer does not tell is the one below"
        );
        let snapshots = world.client.snapshotter(&"overlayfs".parse().unwrap(), &world.scope).unwrap();
        let all = snapshots.list(&Filters::default()).await.unwrap();
        assert_eq!(all.len(), 17);
        assert!(all.iter().all(|one| one.kind == SnapshotKind::Committed), "nothing is left of the work");
        world
    });
}

/// A gate that the registry's thread waits at.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn pass(&self) -> bool {
        let open = self.0.lock().unwrap();
        let (open, _) = self.1.wait_timeout_while(open, testkit::wait::SOON, |open| !*open).unwrap();
        *open
    }
}

#[test]
fn a_layer_is_unpacked_while_another_one_still_comes() {
    for snapshotter in ["native", "overlayfs"] {
        on_daemons(&NEW, |world| unpacked_before(world, snapshotter, 1));
    }
}

#[test]
fn an_overlays_upper_layer_is_unpacked_before_the_lower_one_has_come() {
    on_daemons(&[Kind::Berth], |world| unpacked_before(world, "overlayfs", 0));
}

/// Pulls an image of which one layer only comes once the other is being unpacked.
async fn unpacked_before(world: World, snapshotter: &str, withheld: usize) -> World {
    let image = Made::new("berth.test/made:1")
        .layer(Layer::new().file("one", b"1", 0o644))
        .layer(Layer::new().file("two", b"2", 0o644));
    let withheld = image.blobs().remove(withheld);
    let gate = Arc::new(Gate::default());
    let standin = Standin::start({
        let gate = Arc::clone(&gate);
        move |request| {
            let reply = serve(&image, "a/b", "1", request);
            if reply.body == withheld && !gate.pass() {
                return Reply::new(404, "nothing was unpacked meanwhile");
            }
            reply
        }
    });
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let name = format!("{}/a/b:1", standin.address());
    let request = Pull { progress: Reporter::to(sender), ..pulling(&name, snapshotter) };
    let registries = registries();
    let listening = async {
        while let Some(step) = heard.recv().await {
            if step.state == State::Unpacking {
                gate.open();
            }
        }
    };
    let pulling = async {
        let pulled = pull(world.catalog(), &world.scope, &registries, &request).await;
        drop(request);
        pulled
    };
    let (pulled, ()) = futures::join!(pulling, listening);
    pulled.unwrap();
    world
}

#[test]
fn a_layer_that_is_not_what_its_image_says_is_never_committed() {
    on_daemons(&NEW, |world| async move {
        let image = Made::new("berth.test/made:1")
            .layer(Layer::new().file("one", b"1", 0o644))
            .layer(Layer::new().file("two", b"2", 0o644))
            .layer(Layer::new().file("three", b"3", 0o644));
        let mut config: serde_json::Value = serde_json::from_slice(&image.config()).unwrap();
        for number in 0..3 {
            config["rootfs"]["diff_ids"][number] = format!("sha256:{number:064}").into();
        }
        let config = config.to_string().into_bytes();
        let address = berth_archive::Hasher::digest(&config);
        let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest()).unwrap();
        manifest["config"]["digest"] = address.to_string().into();
        manifest["config"]["size"] = config.len().into();
        let standin = Standin::start(move |request| match request.path().strip_prefix("/v2/a/b/") {
            Some(path) if path.starts_with("manifests/") => {
                let body = manifest.to_string();
                let digest = berth_archive::Hasher::digest(body.as_bytes());
                Reply::new(200, body)
                    .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
                    .header("Docker-Content-Digest", digest.as_str())
            }
            Some(path) if path == format!("blobs/{address}") => Reply::new(200, config.clone()),
            _ => serve(&image, "a/b", "1", request),
        });
        let name = format!("{}/a/b:1", standin.address());
        for snapshotter in ["native", "overlayfs"] {
            let error = pull(world.catalog(), &world.scope, &registries(), &pulling(&name, snapshotter))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error:?}");
            let snapshots = world.client.snapshotter(&snapshotter.parse().unwrap(), &world.scope).unwrap();
            assert_eq!(snapshots.list(&Filters::default()).await.unwrap(), []);
        }
        let images = world.client.images(&world.scope).list(&Filters::default()).await.unwrap();
        assert_eq!(images, [], "an image that has a name is whole");
        world
    });
}

/// A layer of noise, so that it is large when compressed too.
fn noise(seed: u32) -> Layer {
    let bytes: Vec<u8> =
        (0..300_000_u32).flat_map(|n| (n ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    Layer::new().dir("dir", 0o755).file(&format!("dir/{seed}"), &bytes, 0o644)
}

#[test]
fn a_layer_is_applied_while_its_own_bytes_come() {
    let Ok(()) = need::root() else { return };
    on_daemons(&[Kind::Berth], |world| async move {
        let image = Made::new("berth.test/made:1").layer(noise(0));
        let gate = Arc::new(Gate::default());
        // The second half comes only once the first is in a tree.
        let standin = Standin::start({
            let gate = Arc::clone(&gate);
            move |request| {
                let reply = serve(&image, "a/b", "1", request);
                let Some(rest) = request.header("range") else {
                    let half = reply.body.len() / 2;
                    return if half > 100_000 { reply.cut(half) } else { reply };
                };
                assert!(rest.starts_with("bytes="));
                if gate.pass() { reply } else { Reply::new(404, "nothing was written meanwhile") }
            }
        });
        let name = format!("{}/a/b:1", standin.address());
        let (request, registries) = (pulling(&name, "overlayfs"), registries());
        let snapshots = world.client.snapshotter(&"overlayfs".parse().unwrap(), &world.scope).unwrap();
        let written = async {
            loop {
                for one in snapshots.list(&Filters::default()).await.unwrap() {
                    let usage = snapshots.usage(&one.key).await.unwrap();
                    if one.kind == SnapshotKind::Active && usage.inodes >= 3 {
                        gate.open();
                        return;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        let (pulled, ()) =
            futures::join!(pull(world.catalog(), &world.scope, &registries, &request), written);
        pulled.unwrap();
        world
    });
}

#[test]
fn bytes_that_turn_out_wrong_at_their_end_leave_neither_a_snapshot_nor_a_blob() {
    let Ok(()) = need::root() else { return };
    on_daemons(&[Kind::Berth], |world| async move {
        let image = Made::new("berth.test/made:1").layer(noise(0)).layer(noise(1));
        let wrong = image.blobs().remove(1);
        let standin = Standin::start({
            let wrong = wrong.clone();
            move |request| {
                let mut reply = serve(&image, "a/b", "1", request);
                if reply.body == wrong {
                    // Beyond the end of the archive, where nothing of it is in a tree.
                    *reply.body.last_mut().unwrap() ^= 1;
                }
                reply
            }
        });
        let name = format!("{}/a/b:1", standin.address());
        for snapshotter in ["native", "overlayfs"] {
            let request = pulling(&name, snapshotter);
            let error =
                pull(world.catalog(), &world.scope, &registries(), &request).await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error:?}");
            let snapshots = world.client.snapshotter(&snapshotter.parse().unwrap(), &world.scope).unwrap();
            let left = snapshots.list(&Filters::default()).await.unwrap();
            assert!(left.iter().all(|one| one.kind == SnapshotKind::Committed), "{left:?}");
            assert!(left.len() <= 1, "{left:?}");
            let digest = berth_archive::Hasher::digest(&wrong);
            let blob = world.client.content(&world.scope).info(&digest).await;
            assert_eq!(blob.unwrap_err().kind(), ErrorKind::NotFound);
            let ingests = world.client.content(&world.scope).ingests(&Filters::default()).await.unwrap();
            assert!(ingests.iter().all(|one| !one.reference.as_str().contains(digest.as_str())));
        }
        world
    });
}

#[test]
fn a_download_that_breaks_anywhere_and_goes_on_gives_the_same_tree() {
    let Ok(()) = need::root() else { return };
    on_daemons(&[Kind::Berth], |world| async move {
        let scratch = Scratch::new();
        let mut trees = Vec::new();
        for part in 0..6 {
            // Other bytes each time, which are not there yet.
            let image = Made::new("berth.test/made:1")
                .layer(noise(part))
                .layer(Layer::new().dir("dir", 0o700).whiteout("dir", &part.to_string()));
            let standin = Standin::start(move |request| {
                let reply = serve(&image, "a/b", "1", request);
                let at = 1 + reply.body.len() * part as usize / 6;
                let broken = request.header("range").is_none() && reply.body.len() > 100_000;
                if broken { reply.cut(at) } else { reply }
            });
            let name = format!("{}/a/b:1", standin.address());
            let (registries, request) = (registries(), pulling(&name, "overlayfs"));
            let pulled = pull(world.catalog(), &world.scope, &registries, &request).await.unwrap();
            trees.push(tree(&world, &pulled, "overlayfs", &scratch.path("tree")).await);
        }
        assert!(trees.iter().all(|tree| *tree == trees[0] && tree.0.len() == 1), "{trees:?}");
        world
    });
}
