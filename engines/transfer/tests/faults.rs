//! What a pull survives, and what it leaves when it does not.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_client::Client;
use berth_core::{Catalog, Scope};
use berth_oci::image::PlatformMatch;
use berth_registry::{Config, Registries};
use berth_transfer::{Pull, pull};
use berth_types::filter::Filters;
use berth_types::{Error, ErrorKind, ImageRef};
use testkit::image::{Image as Made, Layer};
use testkit::registry::{Reply, Request, Standin, serve};
use testkit::{Daemon, Invocation, Kind, need};

fn noise(words: u32, seed: u32) -> Vec<u8> {
    (0..words).flat_map(|n| (n ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// A small layer and a large one.
fn made() -> Made {
    Made::new("berth.test/made:1")
        .layer(Layer::new().dir("etc", 0o755).file("etc/one", &noise(1000, 7), 0o644))
        .layer(Layer::new().file("noise", &noise(700_000, 0), 0o644))
        .cmd(&["/bin/true"])
}

/// A daemon of ours with what it is pulled into.
struct World {
    daemon: Daemon,
    runtime: tokio::runtime::Runtime,
    client: Arc<Client>,
    scope: Scope,
}

impl World {
    fn start() -> Option<Self> {
        let daemon = Daemon::start(Kind::Berth).ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async { Arc::new(Client::connect(daemon.address())) });
        let scope = Scope::new(daemon.tag().parse().unwrap());
        Some(Self { daemon, runtime, client, scope })
    }

    /// After the daemon was started anew.
    fn reconnect(&mut self) {
        self.client = self.runtime.block_on(async { Arc::new(Client::connect(self.daemon.address())) });
    }

    fn pull(&self, standin: &Standin) -> Result<(), Error> {
        self.runtime.block_on(self.pulling(standin))
    }

    async fn pulling(&self, standin: &Standin) -> Result<(), Error> {
        let reference: ImageRef = format!("{}/a/b:1", standin.address()).parse().unwrap();
        let unpack = Some((PlatformMatch::host(), "native".parse().unwrap()));
        let request = Pull { unpack, ..Pull::new(reference) };
        let config = Config { pause: Duration::from_millis(1), retries: 1, ..Config::default() };
        pull(&*self.client, &self.scope, &Registries::new(config), &request).await.map(drop)
    }

    fn images(&self) -> usize {
        self.runtime.block_on(self.client.images(&self.scope).list(&Filters::default())).unwrap().len()
    }

    fn leases(&self) -> usize {
        self.runtime.block_on(self.client.leases(&self.scope).list(&Filters::default())).unwrap().len()
    }

    /// Bytes of the largest ingest.
    async fn fetched(&self) -> u64 {
        let ingests = self.client.content(&self.scope).ingests(&Filters::default()).await.unwrap_or_default();
        ingests.iter().map(|ingest| ingest.offset).max().unwrap_or_default()
    }
}

/// More bytes than the small blobs of the image have.
const SOME: u64 = 64 << 10;

fn is_large(reply: &Reply) -> bool {
    reply.body.len() > 1 << 20
}

#[test]
fn a_daemon_that_is_killed_in_the_middle_goes_on_where_it_stopped() {
    let Some(mut world) = World::start() else { return };
    let (image, healthy) = (made(), Arc::new(AtomicBool::new(false)));
    let standin = Standin::start({
        let (image, healthy) = (image.clone(), Arc::clone(&healthy));
        move |request| {
            let reply = serve(&image, "a/b", "1", request);
            if is_large(&reply) && !healthy.load(Ordering::Relaxed) { reply.stall(1 << 20) } else { reply }
        }
    });
    let small = berth_archive::Hasher::digest(&image.blobs()[0]);
    world.runtime.block_on(async {
        let arrived = async {
            // Some of the large layer, more than anything else is large, and all of the small one.
            while world.fetched().await < SOME
                || world.client.content(&world.scope).info(&small).await.is_err()
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = arrived => {}
            done = world.pulling(&standin) => panic!("it cannot be done: {done:?}"),
        }
    });
    world.daemon.kill();
    world.daemon.restart();
    world.reconnect();
    assert_eq!(world.images(), 0);
    let kept = world.runtime.block_on(world.fetched());
    assert!(kept >= SOME, "{kept}");

    healthy.store(true, Ordering::Relaxed);
    let before = standin.requests().len();
    world.pull(&standin).unwrap();
    let asked = standin.requests().split_off(before);
    let blobs: Vec<&Request> = asked.iter().filter(|request| request.path().contains("/blobs/")).collect();
    let ranges: Vec<&str> = blobs.iter().filter_map(|request| request.header("range")).collect();
    assert_eq!(ranges, [format!("bytes={kept}-")], "the rest of the large layer");
    assert!(!blobs.iter().any(|request| request.path().contains(small.as_str())), "nothing that is there");
    assert_eq!(world.images(), 1);
    world.daemon.finish();
}

#[test]
fn a_full_disk_is_said_so_keeps_nothing_and_is_gone_on_from_once_there_is_room() {
    let Ok(()) = need::root() else { return };
    let (Ok(mount), Some(world)) = (need::program("mount"), World::start()) else { return };
    let content = world.daemon.root().join("io.containerd.content.v1.content");
    let small = |options: &str| {
        Invocation::new(&mount).args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&content).ok();
    };
    small("size=1m");
    for folder in ["blobs", "ingest"] {
        std::fs::create_dir_all(content.join(folder)).unwrap();
    }
    let image = made();
    let standin = Standin::start(move |request| serve(&image, "a/b", "1", request));
    let error = world.pull(&standin).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert_eq!((world.images(), world.leases()), (0, 0), "room can be made");
    small("remount,size=64m");
    world.pull(&standin).unwrap();
    assert_eq!(world.images(), 1);
    berth_sys::mount::unmount_all(&content).unwrap();
    world.daemon.finish();
}

#[test]
fn a_layer_of_another_length_than_its_manifest_says_is_refused_and_leaves_no_image() {
    let Some(world) = World::start() else { return };
    for change in [-1_i64, 1] {
        let image = made();
        let standin = Standin::start(move |request| {
            let mut reply = serve(&image, "a/b", "1", request);
            if request.header("range").is_some() {
                return Reply::new(416, "");
            }
            if is_large(&reply) {
                let length = reply.body.len().saturating_add_signed(change as isize);
                reply.body.resize(length, 0);
            }
            reply
        });
        let error = world.pull(&standin).unwrap_err();
        let expected = [ErrorKind::DataLoss, ErrorKind::FailedPrecondition, ErrorKind::InvalidArgument];
        assert!(expected.contains(&error.kind()), "{change}: {error:?}");
        assert!(error.chain().contains(&standin.address()), "{error:?}");
        assert_eq!(world.images(), 0);
    }
    world.daemon.finish();
}

#[test]
fn a_token_that_expires_in_the_middle_is_replaced_and_nothing_comes_twice() {
    let Some(world) = World::start() else { return };
    let image = made();
    let (broken, issued) = (Arc::new(AtomicBool::new(false)), std::sync::atomic::AtomicUsize::new(0));
    let standin = Standin::start({
        let (broken, image) = (Arc::clone(&broken), image.clone());
        move |request| {
            let host = request.header("host").unwrap();
            if request.path() == "/token" {
                let number = issued.fetch_add(1, Ordering::Relaxed);
                return Reply::new(200, format!(r#"{{"token":"t{number}","expires_in":3600}}"#));
            }
            let token = request.header("authorization").unwrap_or_default();
            // After the break the first token is worth nothing.
            if token.is_empty() || (broken.load(Ordering::Relaxed) && token == "Bearer t0") {
                let challenge = format!(r#"Bearer realm="http://{host}/token",service="s""#);
                return Reply::new(401, "").header("WWW-Authenticate", &challenge);
            }
            let reply = serve(&image, "a/b", "1", request);
            if is_large(&reply) && !broken.swap(true, Ordering::Relaxed) { reply.cut(1 << 20) } else { reply }
        }
    });
    world.pull(&standin).unwrap();
    let ranges = standin.requests().iter().filter(|request| request.header("range").is_some()).count();
    assert!(ranges >= 1, "it went on where it broke");
    assert_eq!(world.images(), 1);
    world.daemon.finish();
}
