//! A registry with one layer, and a lazy snapshotter that knows it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use berth_archive::{Compression, Encoder};
use berth_core::{NewSnapshot, Snapshotter};
use berth_registry::Registries;
use berth_snapshot::overlayfs;
use berth_sys::mount::mount_all;
use berth_types::{Descriptor, Digest, Labels, Mount, Result, SnapshotKey};
use serde_json::json;
use testkit::image::{Entry, EntryKind, Layer as Archive, digest};
use testkit::registry::{Reply, Request, Standin};
use testkit::{Invocation, Scratch, mounts, need};
use tokio::runtime::Runtime;

use super::soci;
use crate::plain::artifact;
use crate::{Config, Lazy};

/// How the registry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Honest,
    /// It closes connections.
    Gone,
    /// It takes requests and does not answer.
    Silent,
    /// It gives other bytes.
    Lying,
    /// It gives everything whatever is asked for.
    NoRanges,
    /// It wants a token.
    Tokens,
    /// It waits with blobs until it is told to behave otherwise.
    Held,
}

/// What the registry shares with the test.
struct Shared {
    blob: Vec<u8>,
    /// The image's configuration.
    document: Vec<u8>,
    manifest: Vec<u8>,
    behaviour: Mutex<Behaviour>,
    changed: Condvar,
    held: AtomicUsize,
    given: AtomicU64,
    /// The number of the token that is good.
    token: AtomicUsize,
    /// What else it has, by path.
    others: Mutex<BTreeMap<String, Vec<u8>>>,
}

pub(super) struct World {
    lazy: Option<Arc<Lazy>>,
    runtime: Runtime,
    shared: Arc<Shared>,
    annotations: Labels,
    /// What the layer's snapshot is called.
    target: String,
    registry: Standin,
    config: Config,
    scratch: Scratch,
}

/// Bytes that cannot be compressed, others for each number.
pub(super) fn big(number: u32) -> Vec<u8> {
    (0..60_000_u32).flat_map(|n| (n ^ number << 20).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// More of them.
pub(super) fn huge(number: u32) -> Vec<u8> {
    (0..700_000_u32)
        .flat_map(|n| (n ^ (number + 8) << 20).wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

/// How a layer is made.
enum Form<'f> {
    /// By stargz-snapshotter's package.
    Table(&'f [&'f str]),
    /// Without a table.
    Plain(Compression),
    /// Without one, and with a SOCI index beside it.
    Soci(soci::Index),
}

fn archive(form: &Form) -> Vec<u8> {
    let mut layer = Archive::new()
        .dir("bin", 0o755)
        .file("bin/tool", b"a tool", 0o755)
        .hardlink("bin/again", "bin/tool")
        .symlink("bin/link", "tool")
        .dir("data", 0o755)
        .entry(&Entry { mode: 0o600, ..Entry::new(EntryKind::Fifo, "data/pipe") })
        .whiteout("data", "gone")
        .dir("fresh", 0o755)
        .opaque("fresh")
        .file("fresh/file", b"fresh", 0o644);
    for number in 1..=3 {
        layer = layer.file(&format!("data/big-{number}"), &big(number), 0o644);
    }
    if let Form::Plain(_) | Form::Soci(_) = form {
        for number in 1..=3 {
            layer = layer.file(&format!("data/huge-{number}"), &huge(number), 0o644);
        }
    }
    layer.tar()
}

impl World {
    pub(super) fn start() -> Option<Self> {
        Self::with(&["--chunk", "50000"])
    }

    pub(super) fn with(flags: &[&str]) -> Option<Self> {
        let config = Config { background: false, span_bytes: 1, read_seconds: 3, ..Config::default() };
        Self::open(&Form::Table(flags), config)
    }

    pub(super) fn fetching_all() -> Option<Self> {
        let config = Config { read_seconds: 3, ..Config::default() };
        Self::open(&Form::Table(&["--chunk", "50000"]), config)
    }

    /// With a table, and a word about how the layer is used.
    pub(super) fn set_up(config: Config) -> Option<Self> {
        Self::open(&Form::Table(&["--chunk", "50000"]), config)
    }

    /// With a layer that has no table.
    pub(super) fn without_table(compression: Compression) -> Option<Self> {
        let config =
            Config { background: false, span_bytes: 1, read_seconds: 3, plain: true, ..Config::default() };
        Self::without_table_set_up(compression, config)
    }

    /// The same, and a word about how it is used.
    pub(super) fn without_table_set_up(compression: Compression, config: Config) -> Option<Self> {
        Self::open(&Form::Plain(compression), config)
    }

    /// The layer's tar with a file that has another mode.
    pub(super) fn other_tar() -> Vec<u8> {
        let mut tar = archive(&Form::Plain(Compression::Plain));
        let at = tar.windows(8).position(|part| part == b"0000755\0").unwrap();
        tar[at..at + 7].copy_from_slice(b"0000777");
        // The header's checksum, which is so much larger.
        let checksum = at - 100 + 148;
        let sum = std::str::from_utf8(&tar[checksum..checksum + 6]).unwrap();
        let sum = u32::from_str_radix(sum, 8).unwrap() + 4;
        tar[checksum..checksum + 6].copy_from_slice(format!("{sum:06o}").as_bytes());
        tar
    }

    /// The layer's blob.
    pub(super) fn blob(&self) -> &[u8] {
        &self.shared.blob
    }

    /// Publishes an index of the layer beside the image, and what is read first.
    pub(super) fn publish(&self, index: &[u8], reads: Option<&[u8]>) {
        let Shared { manifest, blob, .. } = &*self.shared;
        let of: Digest = digest(blob).parse().unwrap();
        let mut blobs = vec![(artifact::blob(artifact::INDEX, &of, index), index)];
        blobs.extend(reads.map(|reads| (artifact::blob(artifact::READS, &of, reads), reads)));
        let subject = Descriptor::new(
            "application/vnd.oci.image.manifest.v1+json",
            digest(manifest).parse().unwrap(),
            manifest.len() as u64,
        );
        let document = artifact::manifest(&subject, blobs.iter().map(|(blob, _)| blob.clone()).collect());
        let document = serde_json::to_vec(&document).unwrap();
        let list = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&document), "size": document.len(), "artifactType": artifact::KIND,
        }] });
        let mut others = self.shared.others.lock().unwrap();
        for (blob, bytes) in blobs {
            others.insert(format!("/v2/a/b/blobs/{}", blob.digest), bytes.to_vec());
        }
        others.insert(format!("/v2/a/b/referrers/{}", subject.digest), list.to_string().into_bytes());
        others.insert(format!("/v2/a/b/manifests/{}", digest(&document)), document);
    }

    /// With a layer for which there is a SOCI index.
    pub(super) fn indexed(index: soci::Index, config: Config) -> Option<Self> {
        let config = Config { background: false, span_bytes: 1, read_seconds: 3, ..config };
        Self::open(&Form::Soci(index), config)
    }

    fn open(form: &Form, config: Config) -> Option<Self> {
        need::root().ok()?;
        need::path("/dev/fuse").ok()?;
        let scratch = Scratch::new();
        let tar = archive(form);
        let (annotations, blob, is_zstd) = match form {
            Form::Table(flags) => {
                let tool = need::program("stargz-tool").ok()?;
                let (tar, out) = (scratch.file("layer.tar", &tar), scratch.path("layer"));
                let printed = Invocation::new(&tool).arg("make").args(*flags).arg(&tar).arg(&out).ok();
                (serde_json::from_str(&printed).unwrap(), fs::read(&out).unwrap(), flags.contains(&"--zstd"))
            }
            Form::Plain(compression) => {
                (Labels::new(), packed(&tar, *compression), *compression == Compression::Zstd)
            }
            Form::Soci(index) => (Labels::new(), packed(&tar, index.compression), false),
        };
        let diff_id = digest(&tar);
        let target = if annotations.is_empty() { diff_id.clone() } else { "top".to_owned() };
        let document = json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let document = document.to_string().into_bytes();
        let mut manifest = manifest(&blob, &document, &annotations, is_zstd);
        let mut others = BTreeMap::new();
        if let Form::Soci(index) = form {
            others = soci::put(*index, &blob, &mut manifest);
        }
        let shared = Arc::new(Shared {
            manifest,
            document,
            blob,
            behaviour: Mutex::new(Behaviour::Honest),
            changed: Condvar::new(),
            held: AtomicUsize::new(0),
            given: AtomicU64::new(0),
            token: AtomicUsize::new(1),
            others: Mutex::new(others),
        });
        let answering = Arc::clone(&shared);
        let registry = Standin::start(move |request| answering.answer(request));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mut world = Self { lazy: None, runtime, shared, annotations, target, registry, config, scratch };
        world.open_lazy();
        Some(world)
    }

    fn open_lazy(&mut self) {
        let root = self.scratch.path("root");
        let settings = overlayfs::Config { upperdir_label: true, ..overlayfs::Config::default() };
        let below = overlayfs::open(&root, settings).unwrap();
        let registries = Registries::new(berth_registry::Config {
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
            retries: 1,
            pause: Duration::from_millis(10),
            ..berth_registry::Config::default()
        });
        let opening = Lazy::open(below, &root, registries, self.config.clone(), None);
        self.lazy = Some(Arc::new(self.runtime.block_on(opening).unwrap()));
    }

    /// Ends this process' part in it, as far as that can be done within a process, and begins anew.
    pub(super) fn restart(&mut self) {
        self.lazy = None;
        mounts::unmount_beneath(self.scratch.folder());
        self.open_lazy();
    }

    /// The same, and the cache is lost.
    pub(super) fn forget(&mut self) {
        self.lazy = None;
        mounts::unmount_beneath(self.scratch.folder());
        fs::remove_dir_all(self.scratch.path("root/chunks")).unwrap();
        self.open_lazy();
    }

    /// What the layer's snapshot is called.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Where the index of the layer is.
    pub(super) fn index(&self) -> PathBuf {
        self.scratch.path("root/indexes").join(&digest(&self.shared.blob)["sha256:".len()..])
    }

    /// Where it is if somebody else has made it.
    pub(super) fn published_index(&self) -> PathBuf {
        let name = format!("published-{}", &digest(&self.shared.blob)["sha256:".len()..]);
        self.scratch.path("root/indexes").join(name)
    }

    /// Where it is noted what was read of the layer.
    pub(super) fn reads(&self) -> PathBuf {
        let image = format!("{}/a/b:1", self.registry.address()).parse().unwrap();
        let layer = digest(&self.shared.blob).parse().unwrap();
        crate::reads::file(&self.scratch.path("root/reads"), &image, &layer)
    }

    pub(super) fn lazy(&self) -> &Lazy {
        self.lazy.as_ref().unwrap()
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
        self.shared.changed.notify_all();
    }

    pub(super) fn held(&self) -> usize {
        self.shared.held.load(Ordering::SeqCst)
    }

    /// Bytes of the layer that were given out.
    pub(super) fn bytes_given(&self) -> u64 {
        self.shared.given.load(Ordering::SeqCst)
    }

    pub(super) fn blob_len(&self) -> usize {
        self.shared.blob.len()
    }

    /// What the registry has beside the image.
    pub(super) fn others<T>(&self, look: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        look(&mut self.shared.others.lock().unwrap())
    }

    pub(super) fn expire(&self) {
        self.shared.token.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn tokens(&self) -> usize {
        self.registry.requests().iter().filter(|request| request.path() == "/token").count()
    }

    /// The ranges of the layer that were asked for.
    pub(super) fn ranges(&self) -> Vec<String> {
        let asked = self.registry.requests();
        let blobs =
            asked.iter().filter(|request| request.method == "GET" && request.path().contains("/blobs/"));
        blobs.filter_map(|request| request.header("range").map(str::to_owned)).collect()
    }

    /// Every chunk on disk.
    pub(super) fn cached(&self) -> Vec<PathBuf> {
        let list = |folder: &Path| -> Vec<PathBuf> {
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        list(&self.scratch.path("root/chunks")).iter().flat_map(|folder| list(folder)).collect()
    }

    /// Lets the kernel forget what it has read from the mounts.
    pub(super) fn drop_page_cache(&self) {
        for status in self.lazy().layers() {
            for name in ["big-1", "big-2", "big-3"] {
                let file = fs::File::open(status.point.join("data").join(name)).unwrap();
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            }
        }
    }

    /// What a daemon says of the layer.
    pub(super) fn labels(&self) -> Labels {
        let image = format!("{}/a/b:1", self.registry.address());
        let mut labels = Labels::from([
            ("containerd.io/snapshot/cri.image-ref".to_owned(), image),
            ("containerd.io/snapshot/cri.layer-digest".to_owned(), digest(&self.shared.blob)),
            ("containerd.io/snapshot/cri.manifest-digest".to_owned(), digest(&self.shared.manifest)),
        ]);
        let key = berth_stargz::annotation::TOC_DIGEST;
        if let Some(table) = self.annotations.get(key)
            && !self.annotations.keys().any(|key| key.contains("zstd"))
        {
            labels.insert(key.to_owned(), table.clone());
        }
        labels
    }

    /// What a daemon says of a layer that is nowhere.
    pub(super) fn labels_of_nothing(&self) -> Labels {
        let mut labels = self.labels();
        let key = "containerd.io/snapshot/cri.layer-digest".to_owned();
        labels.insert(key, format!("sha256:{}", "0".repeat(64)));
        labels
    }

    /// Prepares a snapshot that is to be called `name`.
    pub(super) fn prepared(
        &self,
        name: &str,
        parent: Option<&str>,
        mut labels: Labels,
    ) -> Result<Vec<Mount>> {
        labels.insert("containerd.io/snapshot.ref".to_owned(), name.to_owned());
        let (key, parent) = (format!("extract-{name}").parse()?, parent.map(str::parse).transpose()?);
        self.runtime.block_on(self.lazy().prepare(NewSnapshot { key, parent, labels }))
    }

    /// Prepares a snapshot of which nobody says what it will be called.
    pub(super) fn unnamed(&self, key: &str, labels: Labels) -> Vec<Mount> {
        let new = NewSnapshot { key: key.parse().unwrap(), parent: None, labels };
        self.runtime.block_on(self.lazy().prepare(new)).unwrap()
    }

    pub(super) fn committed(&self, name: &str, key: &str, labels: Labels) {
        let (name, key): (SnapshotKey, SnapshotKey) = (name.parse().unwrap(), key.parse().unwrap());
        self.runtime.block_on(self.lazy().commit(&name, &key, labels)).unwrap();
    }

    pub(super) fn removed(&self, name: &str) {
        self.runtime.block_on(self.lazy().remove(&name.parse().unwrap())).unwrap();
    }

    /// A snapshot of files that were written to it.
    pub(super) fn plain(&self, name: &str, files: &[(&str, &str)]) {
        let mounts = self.unnamed("filled", Labels::default());
        let folder = PathBuf::from(&mounts[0].source);
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        self.committed(name, "filled", Labels::default());
    }

    /// The layer, claimed, and a container's root filesystem on it.
    pub(super) fn mounted(&self, name: &str) -> PathBuf {
        let error = self.prepared(&self.target, None, self.labels()).expect_err("the layer is there");
        assert_eq!(error.kind(), berth_types::ErrorKind::AlreadyExists, "{error:?}");
        self.container(name, &self.target)
    }

    pub(super) fn container(&self, name: &str, parent: &str) -> PathBuf {
        let (key, parent) = (name.parse().unwrap(), Some(parent.parse().unwrap()));
        let new = NewSnapshot { key, parent, labels: Labels::default() };
        let mounts = self.runtime.block_on(self.lazy().prepare(new)).unwrap();
        let point = self.scratch.path(name);
        fs::create_dir(&point).unwrap();
        mount_all(&mounts, &point).unwrap();
        point
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Readers that wait are let go before their runtime ends.
        self.behave(Behaviour::Gone);
        mounts::unmount_beneath(self.scratch.folder());
    }
}

fn packed(tar: &[u8], compression: Compression) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), compression).unwrap();
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

fn manifest(blob: &[u8], document: &[u8], annotations: &Labels, is_zstd: bool) -> Vec<u8> {
    let compression = if is_zstd { "zstd" } else { "gzip" };
    let layer = json!({
        "mediaType": format!("application/vnd.oci.image.layer.v1.tar+{compression}"),
        "digest": digest(blob), "size": blob.len(), "annotations": annotations,
    });
    let config = json!({
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(document), "size": document.len(),
    });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [layer],
    });
    manifest.to_string().into_bytes()
}

impl Shared {
    fn answer(&self, request: &Request) -> Reply {
        let is_blob = request.path().contains("/blobs/");
        let behaviour = {
            let mut behaviour = self.behaviour.lock().unwrap();
            if *behaviour == Behaviour::Held && is_blob {
                self.held.fetch_add(1, Ordering::SeqCst);
                behaviour = self.changed.wait_while(behaviour, |now| *now == Behaviour::Held).unwrap();
            }
            *behaviour
        };
        match behaviour {
            Behaviour::Gone => return Reply::hang_up(),
            Behaviour::Silent => return Reply::new(200, [0; 10]).stall(0),
            Behaviour::Tokens => {
                let token = self.token.load(Ordering::SeqCst);
                if request.path() == "/token" {
                    return Reply::new(200, format!(r#"{{"token":"t{token}","expires_in":3600}}"#));
                }
                if request.header("authorization") != Some(&format!("Bearer t{token}")) {
                    let host = request.header("host").unwrap_or_default();
                    let challenge = format!(r#"Bearer realm="http://{host}/token",service="test""#);
                    return Reply::new(401, "{}").header("WWW-Authenticate", &challenge);
                }
            }
            _ => {}
        }
        if let Some(other) = self.others.lock().unwrap().get(request.path()) {
            return Reply::new(200, other.clone());
        }
        // It has no lists of referrers under tags.
        if request.path().contains("/manifests/") && !request.path().contains("/manifests/sha256-") {
            return Reply::new(200, self.manifest.clone())
                .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
                .header("Docker-Content-Digest", &digest(&self.manifest));
        }
        if request.path() == format!("/v2/a/b/blobs/{}", digest(&self.document)) {
            return Reply::new(200, self.document.clone());
        }
        if request.path() != format!("/v2/a/b/blobs/{}", digest(&self.blob)) {
            return Reply::new(404, "{}");
        }
        self.part(request, behaviour)
    }

    fn part(&self, request: &Request, behaviour: Behaviour) -> Reply {
        let whole = || {
            let mut whole = self.blob.clone();
            if request.method == "GET" {
                self.given.fetch_add(whole.len() as u64, Ordering::SeqCst);
            }
            if behaviour == Behaviour::Lying {
                let middle = whole.len() / 2;
                whole[middle] ^= 0x55;
            }
            Reply::new(200, whole)
        };
        let Some(range) = request.header("range").filter(|_| behaviour != Behaviour::NoRanges) else {
            return whole();
        };
        let (from, last) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap();
        let (from, last): (usize, usize) =
            (from.parse().unwrap(), last.parse().unwrap_or(self.blob.len() - 1));
        let mut part = self.blob[from..=last].to_vec();
        self.given.fetch_add(part.len() as u64, Ordering::SeqCst);
        if behaviour == Behaviour::Lying {
            let middle = part.len() / 2;
            part[middle] ^= 0x55;
        }
        let header = format!("bytes {from}-{last}/{}", self.blob.len());
        Reply::new(206, part).header("Content-Range", &header)
    }
}
