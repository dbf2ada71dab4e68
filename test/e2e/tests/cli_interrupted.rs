//! Transfers whose daemon is killed on the way: the next one does only what is left to do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use e2e::{Cli, ctr};
use testkit::image::{self, Image, Layer};
use testkit::registry::{Reply, Request, Standin, serve};
use testkit::{Invocation, wait};

/// Three layers, one of them of several megabytes.
fn image(name: &str) -> Image {
    let noise: Vec<u8> = (0..750_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    Image::new(name)
        .layer(Layer::new().file("one", b"1", 0o644))
        .layer(Layer::new().file("noise", &noise, 0o644))
        .layer(Layer::new().file("two", b"2", 0o644))
        .cmd(&["/one"])
}

fn has_some(cli: &Cli, digest: &str) -> bool {
    let ingests = ctr(cli.daemon(), "content active").ok();
    ingests.lines().any(|line| line.contains(&digest[7..19]) && line.contains("MB"))
}

#[test]
fn a_pull_whose_daemon_was_killed_fetches_only_what_is_missing() {
    let Ok(mut cli) = Cli::start() else { return };
    let image = image("a/b:1");
    let blobs = image.blobs();
    let digest = image::digest(&blobs[1]);
    let trickles = Arc::new(AtomicBool::new(true));
    let registry = Standin::start({
        let (image, trickles, digest) = (image.clone(), Arc::clone(&trickles), digest.clone());
        move |request| {
            let reply = serve(&image, "a/b", "1", request);
            let is_slow = trickles.load(Ordering::SeqCst) && request.path().ends_with(&digest);
            // Half a minute for all of it, of which some comes all the time: so who writes it sees the daemon go.
            if is_slow { reply.trickle(5000, Duration::from_millis(50)) } else { reply }
        }
    });
    let name = format!("{}/a/b:1", registry.address());
    let pull = cli.run(&format!("pull -q {name}")).start();
    let small = [&blobs[0], &blobs[2]].map(|blob| image::digest(blob));
    let has_small = |cli: &Cli| {
        let content = ctr(cli.daemon(), "content ls -q").ok();
        small.iter().all(|digest| content.lines().any(|line| line == digest))
    };
    wait::soon("the small layers and some of the large one", || has_small(&cli) && has_some(&cli, &digest));
    cli.daemon_mut().kill();
    assert_ne!(pull.wait().code(), 0);

    trickles.store(false, Ordering::SeqCst);
    cli.daemon_mut().restart();
    let before = registry.requests().len();
    cli.run(&format!("pull -q {name}")).ok();
    let again = registry.requests().split_off(before);
    let asked = |digest: &str| -> Vec<String> {
        let asked = again.iter().filter(|request| request.path().ends_with(digest));
        asked.map(|request| request.header("range").unwrap_or("all").to_owned()).collect()
    };
    let ranges = asked(&digest);
    let is_rest = |range: &String| range.starts_with("bytes=") && !range.starts_with("bytes=0-");
    assert!(!ranges.is_empty() && ranges.iter().all(is_rest), "{ranges:?}");
    for digest in &small {
        assert!(asked(digest).is_empty(), "{digest} was there");
    }
    cli.run("image prune -a -f").ok();
    cli.finish();
}

/// What a registry has been given, and the blob that it does not take yet.
#[derive(Default)]
struct Kept {
    blobs: BTreeMap<String, usize>,
    manifests: Vec<String>,
    held: Option<String>,
    /// How often the held blob came.
    waiting: usize,
}

#[derive(Clone, Default)]
struct Shelf(Arc<(Mutex<Kept>, Condvar)>);

impl Shelf {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, digest: &str) {
        self.kept().held = Some(digest.to_owned());
    }

    fn release(&self) {
        self.kept().held = None;
        self.0.1.notify_all();
    }

    /// A blob is one once its last request has come. The connection of one that is held back breaks in the end.
    fn take(&self, digest: &str, size: usize) -> Reply {
        let mut kept = self.kept();
        if kept.held.as_deref() == Some(digest) {
            kept.waiting += 1;
            let held = |kept: &mut Kept| kept.held.is_some();
            drop(self.0.1.wait_while(kept, held).unwrap_or_else(PoisonError::into_inner));
            return Reply::hang_up();
        }
        kept.blobs.insert(digest.to_owned(), size);
        Reply::new(201, "")
    }

    fn answer(&self, request: &Request) -> Reply {
        let path = request.path();
        let last = path.rsplit('/').next().unwrap_or_default();
        let digest = request.target.split_once("digest=").map(|(_, digest)| digest.replace("%3A", ":"));
        match (request.method.as_str(), digest) {
            ("GET", _) if path == "/v2/" => Reply::new(200, "{}"),
            ("HEAD", _) if self.kept().blobs.contains_key(last) => Reply::new(200, ""),
            ("POST", _) => Reply::new(202, "").header("Location", "/v2/a/b/blobs/uploads/u"),
            ("PUT", Some(digest)) => self.take(&digest, request.body.len()),
            ("PUT", None) if path.contains("/manifests/") => {
                self.kept().manifests.push(last.to_owned());
                Reply::new(201, "")
            }
            // Uploads in parts are not known here: a blob comes in one piece.
            ("PATCH", _) => Reply::new(405, ""),
            _ => Reply::new(404, ""),
        }
    }
}

/// A push by somebody, whose daemon is killed while one of four blobs is on its way.
fn pushes_only_what_is_left(push: impl Fn(&Cli, &str) -> Invocation) {
    let Ok(mut cli) = Cli::start() else { return };
    let image = image("berth.test/push:1");
    let archive = cli.daemon().scratch().file("image.tar", image.docker_archive());
    cli.run("load -i").arg(archive).ok();
    let shelf = Shelf::default();
    let registry = Standin::start({
        let shelf = shelf.clone();
        move |request| shelf.answer(request)
    });
    let name = format!("{}/a/b:1", registry.address());
    cli.run(&format!("tag berth.test/push:1 {name}")).ok();
    let config = image::digest(&image.config());
    shelf.hold(&config);
    let first = push(&cli, &name).start();
    wait::soon("every blob but one", || {
        let kept = shelf.kept();
        kept.waiting > 0 && kept.blobs.len() == 3
    });
    cli.daemon_mut().kill();
    shelf.release();
    assert_ne!(first.wait().code(), 0);
    assert!(shelf.kept().manifests.is_empty(), "a manifest came before its blobs");

    cli.daemon_mut().restart();
    let before = registry.requests().len();
    push(&cli, &name).ok();
    let again = registry.requests().split_off(before);
    let sent: Vec<_> = again.iter().filter(|request| request.target.contains("digest=")).collect();
    assert_eq!(sent.len(), 1, "{:?}", sent.iter().map(|request| &request.target).collect::<Vec<_>>());
    assert_eq!(shelf.kept().blobs[&config], image.config().len());
    assert_eq!(shelf.kept().manifests.last().map(String::as_str), Some("1"));
    cli.run("image prune -a -f").ok();
    cli.finish();
}

#[test]
fn a_push_whose_daemon_was_killed_goes_on_with_what_the_registry_has_not() {
    pushes_only_what_is_left(|cli, name| cli.run(&format!("push -q {name}")));
}

#[test]
fn a_push_by_the_daemon_itself_goes_on_too() {
    pushes_only_what_is_left(|cli, name| ctr(cli.daemon(), &format!("images push {name}")));
}
