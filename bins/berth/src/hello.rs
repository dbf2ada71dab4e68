//! The image that is built in: a program which shows from inside what a container is, and, since only the outside
//! can see them, the stages of its start.

use std::fmt::Write;
use std::time::{Duration, Instant};

use berth_archive::{Entry, Kind, Writer};
use berth_core::{ContentStore, Deletion, write_blob};
use berth_oci::image::{ImageConfig, Manifest, ProcessConfig, RootFs, host_platform, media};
use berth_types::{Descriptor, Digest, ErrorKind, Image, ImageName, Labels};
use berth_workload::CreateRequest;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// The program.
const PROGRAM: &[u8] = include_bytes!(env!("BERTH_HELLO"));
/// What tells one build of it from another.
const BUILD: &str = env!("BERTH_HELLO_HASH");
/// Its name among the images.
pub(crate) const NAME: &str = "berth.local/hello:latest";
const LABEL: &str = "berth/hello";

/// Whether a word means the built-in image.
pub(crate) fn is_meant(text: &str) -> bool {
    matches!(text, "hello" | "hello:latest")
}

/// The built-in image; put into the daemon's stores when they do not have it yet.
pub(crate) async fn image(context: &Context) -> Result<Image, Failure> {
    let name: ImageName = NAME.parse()?;
    let images = context.client.images(context.scope());
    match images.image(&name).await {
        Ok(image) if image.labels.get(LABEL).is_some_and(|build| build == BUILD) => return Ok(image),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let leases = context.client.leases(context.scope());
    let lease = leases.create(None, Labels::new()).await?.id;
    let scope = context.scope().with_lease(lease.clone());
    let stored = store(&*context.client.content(&scope)).await;
    let published = match stored {
        Ok(target) => {
            let mut image = Image::new(name, target);
            image.labels.insert(LABEL.to_owned(), BUILD.to_owned());
            berth_transfer::publish(&*context.client.images(&scope), image).await
        }
        Err(error) => Err(error),
    };
    leases.delete(&lease, Deletion::Later).await?;
    Ok(published?)
}

async fn store(content: &dyn ContentStore) -> berth_types::Result<Descriptor> {
    let layer =
        layer().map_err(|error| berth_types::Error::internal("the built-in layer").caused_by(error))?;
    let diff_id = digest(&layer);
    let layer_type = media::OCI_LAYER;
    let layer = put(content, layer_type, layer, Labels::new()).await?;
    let platform = host_platform();
    let config = ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        config: ProcessConfig {
            cmd: Some(vec!["/hello".to_owned()]),
            env: vec![berth_oci::runtime::default::PATH_ENV.to_owned()],
            ..ProcessConfig::default()
        },
        rootfs: RootFs { diff_ids: vec![diff_id], ..RootFs::default() },
        ..ImageConfig::default()
    };
    let config = put(content, media::OCI_CONFIG, json(&config)?, Labels::new()).await?;
    let labels = Labels::from([
        ("containerd.io/gc.ref.content.config".to_owned(), config.digest.to_string()),
        ("containerd.io/gc.ref.content.l.0".to_owned(), layer.digest.to_string()),
    ]);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::OCI_MANIFEST.to_owned(),
        artifact_type: None,
        config,
        layers: vec![layer],
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    };
    put(content, media::OCI_MANIFEST, json(&manifest)?, labels).await
}

fn layer() -> Result<Vec<u8>, berth_archive::TarError> {
    use std::io::Write;
    let mut writer = Writer::new(Vec::with_capacity(PROGRAM.len() + 4096));
    let mut entry = Entry::new("hello", Kind::File, 0o755);
    entry.size = PROGRAM.len() as u64;
    writer.append(&entry)?;
    writer.write_all(PROGRAM).map_err(berth_archive::TarError::Write)?;
    writer.finish()
}

fn json(document: &impl serde::Serialize) -> berth_types::Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|error| berth_types::Error::internal(error.to_string()))
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(bytes).into())
}

async fn put(
    content: &dyn ContentStore,
    kind: &str,
    bytes: Vec<u8>,
    labels: Labels,
) -> berth_types::Result<Descriptor> {
    let descriptor = Descriptor::new(kind, digest(&bytes), bytes.len() as u64);
    let reference = format!("berth-hello-{}", descriptor.digest.hex()).parse()?;
    write_blob(content, reference, &descriptor, Bytes::from(bytes), labels).await?;
    Ok(descriptor)
}

/// The stages of a start, timed from outside.
pub(crate) struct Stages {
    began: Instant,
    last: Instant,
    list: Vec<(&'static str, Duration)>,
}

impl Stages {
    /// Begins to time; none unless it is the demonstration that starts.
    pub(crate) fn since(began: Instant, image: &str) -> Option<Self> {
        let now = Instant::now();
        is_meant(image).then(|| Self { began, last: now, list: vec![("daemon found", now - began)] })
    }

    /// Ends a stage.
    pub(crate) fn at(mut self, what: &'static str) -> Self {
        let now = Instant::now();
        self.list.push((what, now - self.last));
        self.last = now;
        self
    }

    /// Tells the program inside which namespaces the host has: it cannot see them.
    pub(crate) fn explain(request: &mut CreateRequest) {
        let kinds = ["pid", "mnt", "net", "uts", "ipc", "cgroup", "user"];
        let ids = kinds.iter().filter_map(|kind| {
            let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
            let text = link.to_string_lossy().into_owned();
            let id = text.split(['[', ']']).nth(1)?;
            Some(format!("{kind}={id}"))
        });
        let ids: Vec<String> = ids.collect();
        request.config.env.push(format!("BERTH_HOST_NAMESPACES={}", ids.join(" ")));
    }

    /// Tells how long each stage took.
    pub(crate) fn tell(&self) -> Result<(), Failure> {
        let mut text = "How long its start took\n".to_owned();
        for (what, took) in &self.list {
            let _ = writeln!(text, "  {what:<42}{:>8.2} ms", took.as_secs_f64() * 1000.0);
        }
        let total = self.list.iter().map(|(_, took)| *took).sum::<Duration>();
        debug_assert!(total <= self.began.elapsed());
        let _ = writeln!(text, "  {:<42}{:>8.2} ms", "all of it", total.as_secs_f64() * 1000.0);
        output::text(&text)
    }
}
