//! Containers whose layers have not arrived: `berth-lazyd` as a snapshotter of berthd and of containerd.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use testkit::image::{self, Estargz, Layer};
use testkit::registry::{DockerRegistry, Reply, Standin, serve_blobs};
use testkit::{Daemon, Invocation, Kind, Setup, mounts, need, programs, wait};

#[path = "lazy/soci.rs"]
mod soci;

/// How both daemons are told of it.
const PROXY: &str = r#"
[proxy_plugins.lazy]
  type = "snapshot"
  address = "SCRATCH/lazy.sock"
  [proxy_plugins.lazy.exports]
    enable_remote_snapshot_annotations = "true"

[plugins."io.containerd.transfer.v1.local"]
  [[plugins."io.containerd.transfer.v1.local".unpack_config]]
    platform = "linux"
    snapshotter = "lazy"
"#;

/// A daemon with berth-lazyd beside it, and a registry with an image most of which nobody reads.
struct World {
    // Before the daemon, with whose folder the log goes.
    lazyd: Option<Lazyd>,
    daemon: Daemon,
    registry: Arc<Registry>,
    server: Standin,
    /// Where berth-lazyd has its figures.
    metrics: SocketAddr,
    /// Whose indexes it uses.
    trusted: String,
}

/// What the registry shares with the test.
struct Registry {
    image: Estargz,
    gone: AtomicBool,
    /// Bytes of layers that were given out.
    given: AtomicU64,
}

/// Bytes that cannot be compressed.
fn noise() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..3_000_000).flat_map(|_| next()).collect()
}

impl World {
    fn start(kind: Kind) -> Option<Self> {
        need::path("/dev/fuse").ok()?;
        programs::own("berth-lazyd").map_or_else(|| need::program("berth-lazyd"), Ok).ok()?;
        let layer = Layer::new().file("small", b"small text\n", 0o644).file("big", &noise(), 0o644);
        let image = Estargz::of(&image::busybox().ok()?.layer(layer), &[]).ok()?;
        let registry = Arc::new(Registry { image, gone: AtomicBool::new(false), given: AtomicU64::new(0) });
        let answering = Arc::clone(&registry);
        let server = Standin::start(move |request| {
            if answering.gone.load(Ordering::SeqCst) {
                return Reply::hang_up();
            }
            let Estargz { manifest, blobs } = &answering.image;
            let reply = serve_blobs(manifest, blobs, ("team/app", "1"), request);
            if request.path().contains("/blobs/") && request.method == "GET" {
                answering.given.fetch_add(reply.body.len() as u64, Ordering::SeqCst);
            }
            reply
        });
        let config = PROXY.replace("\"linux\"", &format!("\"linux/{}\"", image::architecture()));
        let daemon = Daemon::with(kind, Setup { config, ..Setup::default() }).ok()?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let metrics = free.expect("loopback has a free port");
        let mut world = Self { daemon, lazyd: None, registry, server, metrics, trusted: String::new() };
        world.start_lazyd();
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.daemon.scratch().path(name)
    }

    fn start_lazyd(&mut self) {
        let program = programs::own("berth-lazyd").expect("it was there before");
        let trusted = &self.trusted;
        let lazy =
            "[lazy]\nbackground = false\nplain = true\nsoci_v1 = true\nread_seconds = 5\nlearn_seconds = 2\n";
        let settings =
            format!("{lazy}plain_indexes = [\"{trusted}\"]\n[metrics]\naddress = \"{}\"\n", self.metrics);
        let config = self.daemon.scratch().file("lazyd.toml", settings);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("lazyd.log"));
        let child = Command::new(program)
            .arg("--config")
            .arg(config)
            .arg("--address")
            .arg(self.path("lazy.sock"))
            .arg("--root")
            .arg(self.path("lazy"))
            .args(["--log-level", "debug"])
            .stdin(Stdio::null())
            .stderr(log.expect("the scratch folder takes a log"))
            .spawn()
            .expect("berth-lazyd can be started");
        self.lazyd = Some(Lazyd { child, log: self.path("lazyd.log") });
        wait::soon("the socket of berth-lazyd", || {
            std::os::unix::net::UnixStream::connect(self.path("lazy.sock")).is_ok()
        });
    }

    fn kill_lazyd(&mut self) {
        drop(self.lazyd.take());
    }

    fn image(&self) -> String {
        format!("{}/team/app:1", self.server.address())
    }

    fn berth(&self, line: &str) -> Invocation {
        let program = need::program("berth").expect("it is built");
        self.daemon
            .client(&program)
            .arg("--data-root")
            .arg(self.path("home"))
            .env("BERTH_NETWORK", "none")
            .line(line)
    }

    fn ctr(&self, line: &str) -> Invocation {
        self.daemon.ctr().expect("a daemon that runs has its client").line(line)
    }

    /// A command in a container of the image.
    fn run(&self, words: &[&str]) -> Invocation {
        if self.daemon.kind() == Kind::Berth {
            let image = self.image();
            return self.berth("run --snapshotter lazy --rm").arg(image).args(words);
        }
        let name = format!("c{}", self.registry.given.load(Ordering::SeqCst));
        self.ctr("run --rm --snapshotter lazy").arg(self.image()).arg(name).args(words)
    }

    fn pull(&self) {
        if self.daemon.kind() == Kind::Berth {
            self.berth("pull -q --snapshotter lazy").arg(self.image()).ok();
        } else {
            self.ctr("images pull --snapshotter lazy --plain-http").arg(self.image()).ok();
        }
    }

    fn given(&self) -> u64 {
        self.registry.given.load(Ordering::SeqCst)
    }

    fn layers_size(&self) -> u64 {
        let blobs = &self.registry.image.blobs;
        blobs[..blobs.len() - 1].iter().map(|blob| blob.len() as u64).sum()
    }

    /// A figure of berth-lazyd, by its name and labels.
    fn figure(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.metrics).expect("berth-lazyd listens");
        write!(stream, "GET /v1/metrics HTTP/1.0\r\n\r\n").expect("it reads");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("it answers in text");
        let found = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("{name} is missing: {page}"))
    }

    fn lazyd_log(&self) -> String {
        std::fs::read_to_string(self.path("lazyd.log")).unwrap_or_default()
    }

    /// Removes the image and sees that nothing stays.
    fn finish(mut self) {
        self.ctr("images rm --sync").arg(self.image()).ok();
        let lazy = self.path("lazy");
        wait::soon("the layers to be unmounted", || mounts::beneath(&lazy).is_empty());
        self.kill_lazyd();
        self.daemon.finish();
    }
}

/// The process, and where it logs.
struct Lazyd {
    child: Child,
    log: PathBuf,
}

impl Drop for Lazyd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of berth-lazyd:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `berth lazy status` says of each layer: how many percent of it are here.
fn local(world: &World) -> Vec<u32> {
    let shown = world.berth("lazy status --format {{.Local}} --socket").arg(world.path("status.sock")).ok();
    shown.lines().filter_map(|line| line.trim_end_matches('%').parse().ok()).collect()
}

/// An image most of which nobody reads, in berthd's store, and a registry for it.
fn plain_image(world: &World) -> Option<(image::Image, DockerRegistry)> {
    let registry = DockerRegistry::start().ok()?;
    let layer = Layer::new().file("small", b"small text\n", 0o644).file("big", &noise(), 0o644);
    let image = image::busybox().ok()?.layer(layer);
    let archive = world.daemon.scratch().file("plain.tar", image.docker_archive());
    world.berth("load -i").arg(archive).ok();
    Some((image, registry))
}

#[test]
fn images_made_here_run_before_they_have_arrived_and_unpacked_too() {
    let Some(world) = World::start(Kind::Berth) else { return };
    let Some((image, registry)) = plain_image(&world) else { return };
    // Chunks are known by what is in them, so the last image finds the first one's.
    let conversions = [
        ("--estargz", false),
        ("--estargz --oci --estargz-chunk-size 100000", false),
        ("--zstdchunked --oci", true),
    ];
    for (flags, is_shared) in conversions {
        let name = format!("{}/team/made:1", registry.address());
        world.berth(&format!("image convert {flags}")).arg(image.name()).arg(&name).ok();
        assert_eq!(world.berth("run --rm").arg(&name).args(["cat", "/small"]).ok(), "small text\n");
        world.berth("push -q").arg(&name).ok();
        world.berth("rmi -f").arg(&name).ok();
        world.berth("pull -q --snapshotter lazy").arg(&name).ok();
        let run = world.berth("run --snapshotter lazy --rm").arg(&name);
        assert_eq!(run.args(["cat", "/small"]).ok(), "small text\n", "{flags}");
        let here = local(&world);
        let is_lazy = here.iter().any(|percent| *percent < 50);
        assert!(here.len() > 1 && is_lazy != is_shared, "{flags}: {here:?} percent are here");
        let sum = world.berth("run --snapshotter lazy --rm").arg(&name).args(["sha256sum", "/big"]).ok();
        assert!(sum.starts_with(&image::digest(&noise())[7..]), "{sum}");
        world.ctr("images rm --sync").arg(&name).ok();
    }
    world.ctr("images rm --sync").arg(image.name()).ok();
    world.pull();
    world.finish();
}

#[test]
fn an_image_is_ordered_by_what_its_command_opens() {
    let Some(world) = World::start(Kind::Berth) else { return };
    let Some((image, registry)) = plain_image(&world) else { return };
    let name = format!("{}/team/optimized:1", registry.address());
    let record = world.path("record.json");
    let optimize = world.berth("image optimize --period 30 --oci --record-out").arg(&record);
    let words = [image.name(), &name, "--", "cat", "/small"];
    optimize.args(words).ok();
    let opened = std::fs::read_to_string(&record).expect("it was written");
    assert!(opened.contains(r#"{"path":"small"}"#) && opened.contains("busybox"), "{opened}");
    assert!(!opened.contains(r#""big""#), "{opened}");
    let manifest = world.berth("manifest inspect").arg(&name).ok();
    assert!(manifest.contains("containerd.io/snapshot/stargz/toc.digest"), "{manifest}");
    world.berth("push -q").arg(&name).ok();
    world.berth("rmi -f").arg(&name).ok();
    world.berth("pull -q --snapshotter lazy").arg(&name).ok();
    // What comes first comes by itself, and the rest does not.
    wait::soon("the file that was opened", || local(&world).iter().any(|percent| *percent > 0));
    assert!(local(&world).iter().any(|percent| *percent < 50));
    let run = world.berth("run --snapshotter lazy --rm").arg(&name);
    assert_eq!(run.args(["cat", "/small"]).ok(), "small text\n");
    assert_eq!(world.berth("ps -aq").ok(), "", "nothing is left of the run");
    world.ctr("images rm --sync").arg(&name).ok();
    world.ctr("images rm --sync").arg(image.name()).ok();
    world.pull();
    world.finish();
}

fn an_image_without_tables_comes_once_and_is_not_unpacked(kind: Kind) {
    let Some(world) = World::start(kind) else { return };
    let Ok(registry) = DockerRegistry::start() else { return };
    let layer = Layer::new().file("small", b"small text\n", 0o644).file("big", &noise(), 0o644);
    let image = image::busybox().expect("it was there before").layer(layer);
    registry.put(&image, "team/plain", "1");
    let name = format!("{}/team/plain:1", registry.address());
    let pull = || {
        if kind == Kind::Berth {
            world.berth("pull -q --snapshotter lazy").arg(&name).ok();
        } else {
            world.ctr("images pull --snapshotter lazy --plain-http").arg(&name).ok();
        }
    };
    pull();
    assert!(world.lazyd_log().contains("has come and has an index"), "{}", world.lazyd_log());
    assert_eq!(local(&world), [100, 100]);
    let run = |words: &[&str]| {
        if kind == Kind::Berth {
            return world.berth("run --snapshotter lazy --rm").arg(&name).args(words).ok();
        }
        world.ctr("run --rm --snapshotter lazy").arg(&name).arg("plain").args(words).ok()
    };
    assert_eq!(run(&["cat", "/small"]), "small text\n");
    assert!(run(&["sha256sum", "/big"]).starts_with(&image::digest(&noise())[7..]));
    // The second time nothing of a layer is asked for until it is read.
    world.ctr("images rm --sync").arg(&name).ok();
    wait::soon("the layers to be unmounted", || mounts::beneath(&world.path("lazy")).is_empty());
    let before = registry.log().matches("GET /v2/team/plain/blobs").count();
    pull();
    assert_eq!(run(&["cat", "/small"]), "small text\n");
    let after = registry.log().matches("GET /v2/team/plain/blobs").count();
    // The configuration, for the daemon and for berth-lazyd.
    assert!(after - before <= 2, "{} blobs were fetched", after - before);
    world.ctr("images rm --sync").arg(&name).ok();
    world.pull();
    world.finish();
}

#[test]
fn an_image_without_tables_comes_to_berthd_once_and_is_not_unpacked() {
    an_image_without_tables_comes_once_and_is_not_unpacked(Kind::Berth);
}

#[test]
fn an_image_without_tables_comes_to_containerd_once_and_is_not_unpacked() {
    an_image_without_tables_comes_once_and_is_not_unpacked(Kind::Containerd);
}

#[test]
fn indexes_that_were_published_spare_the_next_node_the_layers() {
    let Some(mut world) = World::start(Kind::Berth) else { return };
    let Ok(registry) = DockerRegistry::start() else { return };
    let layer = Layer::new().file("small", b"small text\n", 0o644).file("big", &noise(), 0o644);
    let image = image::busybox().expect("it was there before").layer(layer);
    registry.put(&image, "team/plain", "1");
    let name = format!("{}/team/plain:1", registry.address());
    // This node has no indexes yet, so they are made of the layers.
    let publish = || world.berth("lazy publish --lazyd-root").arg(world.path("lazy")).arg(&name).ok();
    let said = publish();
    assert!(said.contains("index made of the layer") && said.contains("published as sha256:"), "{said}");
    let listed = world.berth("manifest referrers").arg(&name).ok();
    assert!(listed.contains("application/vnd.berth.layer.indexes.v1"), "{listed}");
    // Whoever trusts nobody fetches the layers.
    world.berth("pull -q --snapshotter lazy").arg(&name).ok();
    assert_eq!(local(&world), [100, 100]);
    assert_eq!(
        world.berth("run --snapshotter lazy --rm").arg(&name).args(["cat", "/small"]).ok(),
        "small text\n"
    );
    wait::soon("what is read first", || std::fs::read_dir(world.path("lazy/reads")).unwrap().count() > 0);
    let said = publish();
    assert!(said.contains("index of berth-lazyd, with what is read first"), "{said}");
    world.ctr("images rm --sync").arg(&name).ok();
    wait::soon("the layers to be unmounted", || mounts::beneath(&world.path("lazy")).is_empty());
    // Another node: nothing is left but the settings.
    world.kill_lazyd();
    std::fs::remove_dir_all(world.path("lazy")).unwrap();
    world.trusted = registry.address();
    world.start_lazyd();
    let before = world.figure("berth_lazyd_fetched_bytes_total{reason=\"whole\"}");
    world.berth("pull -q --snapshotter lazy").arg(&name).ok();
    assert!(world.lazyd_log().contains("has a published index"), "{}", world.lazyd_log());
    wait::soon("what was read first elsewhere", || local(&world).iter().any(|percent| *percent > 0));
    assert!(local(&world).iter().any(|percent| *percent < 50), "{:?}", local(&world));
    assert_eq!(
        world.berth("run --snapshotter lazy --rm").arg(&name).args(["cat", "/small"]).ok(),
        "small text\n"
    );
    let sum = world.berth("run --snapshotter lazy --rm").arg(&name).args(["sha256sum", "/big"]).ok();
    assert!(sum.starts_with(&image::digest(&noise())[7..]), "{sum}");
    let after = world.figure("berth_lazyd_fetched_bytes_total{reason=\"whole\"}");
    assert_eq!((before, after), (0.0, 0.0), "no layer came whole");
    world.ctr("images rm --sync").arg(&name).ok();
    world.pull();
    world.finish();
}

fn a_container_runs_before_its_image_has_arrived(kind: Kind) {
    let Some(world) = World::start(kind) else { return };
    world.pull();
    assert!(world.given() < 400_000, "a pull brings tables only: {} bytes", world.given());
    assert_eq!(world.run(&["cat", "/small"]).ok(), "small text\n");
    let (given, all) = (world.given(), world.layers_size());
    assert!(given < all / 5, "{given} of {all} bytes were fetched for a shell and a small file");
    let content = world.ctr("content ls -q").ok();
    let layer = image::digest(&world.registry.image.blobs[1]);
    assert!(!content.contains(&layer), "the layer is not in the store");
    assert!(world.figure("berth_lazyd_mounted_layers ") >= 2.0);
    assert!(world.figure("berth_lazyd_layers_total{outcome=\"mounted\"}") >= 2.0);
    let demanded = world.figure("berth_lazyd_fetched_bytes_total{reason=\"demand\"}");
    assert!(demanded > 0.0 && demanded <= given as f64, "{demanded} of {given}");
    assert!(world.figure("berth_lazyd_cache_bytes ") > 0.0);
    assert!(world.figure("berth_lazyd_read_wait_seconds_count ") > 0.0);
    assert!(world.figure("process_resident_memory_bytes ") > 1e5);

    world.registry.gone.store(true, Ordering::SeqCst);
    assert_eq!(world.run(&["cat", "/small"]).ok(), "small text\n");
    let begun = Instant::now();
    let failed = world.run(&["md5sum", "/big"]).fails();
    assert!(failed.contains("I/O error") || failed.contains("Input/output error"), "{failed}");
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    assert!(world.figure("berth_lazyd_reads_total{outcome=\"failure\"}") > 0.0);
    assert!(world.figure("berth_lazyd_registry_errors_total{reason=\"refused\"}") > 0.0);

    world.registry.gone.store(false, Ordering::SeqCst);
    let sum = world.run(&["sha256sum", "/big"]).ok();
    assert!(sum.starts_with(&image::digest(&noise())[7..]), "{sum}");
    world.finish();
}

#[test]
fn a_container_of_berthd_runs_before_its_image_has_arrived() {
    a_container_runs_before_its_image_has_arrived(Kind::Berth);
}

#[test]
fn a_container_of_containerd_runs_before_its_image_has_arrived() {
    a_container_runs_before_its_image_has_arrived(Kind::Containerd);
}

#[test]
fn an_image_whose_layers_have_no_tables_is_unpacked_there() {
    let Some(world) = World::start(Kind::Berth) else { return };
    let image = image::busybox().expect("it was there before");
    let archive = world.daemon.scratch().file("image.tar", image.docker_archive());
    world.berth("load -i").arg(archive).ok();
    let run = world.berth("run --snapshotter lazy --rm").arg(image.name()).args(["echo", "unpacked"]);
    assert_eq!(run.ok(), "unpacked\n");
    world.ctr("images rm --sync").arg(image.name()).ok();
    world.pull();
    world.finish();
}

#[test]
fn a_container_goes_on_when_the_server_of_its_layers_is_killed_and_started_again() {
    let Some(mut world) = World::start(Kind::Berth) else { return };
    world.pull();
    let image = world.image();
    world.berth("run -d --name one --snapshotter lazy").arg(&image).args(["sleep", "1000"]).ok();
    assert_eq!(world.berth("exec one cat /small").ok(), "small text\n");
    world.kill_lazyd();
    // What nobody has read waits for the next server.
    let sum = world.berth("exec one sha256sum /big").start();
    world.start_lazyd();
    let sum = sum.wait();
    assert!(sum.stdout_text().starts_with(&image::digest(&noise())[7..]), "{sum}");
    assert!(world.lazyd_log().contains("goes on serving a mount"));
    world.berth("rm -f one").ok();
    world.finish();
}
