//! Images as an archive: an OCI layout with the `manifest.json` that Docker reads beside it.
//!
//! The documents come first, so that whoever reads the archive from a pipe knows what follows; then every blob once.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;

use berth_archive::{Entry, Hasher, Kind};
use berth_core::{Catalog, ContentStore, Scope};
use berth_oci::image::{Index, PlatformMatch, media};
use berth_types::{Descriptor, Digest, Error, ErrorKind, ImageName, ImageRef, Result};
use bytes::Bytes;
use serde::Serialize;

use crate::graph::{Limits, Missing, Node, is_document, walk};
use crate::hold::Hold;
use crate::image::load;
use crate::import::annotate;
use crate::platforms::Platforms;
use crate::progress::{Object, Reporter, State};
use crate::recipes;
use crate::tar::{CHUNK, Sink};

/// The distribution sources of a blob, which go along as annotations.
const SOURCE_LABEL: &str = "containerd.io/distribution.source";

/// What an archive is to hold.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Names, and what they stand for. One without a name is found again by its digest.
    pub images: Vec<(Option<ImageName>, Descriptor)>,
    /// Which images of an index.
    pub platforms: Platforms,
    /// Whose image Docker sees under an index's name.
    pub docker: PlatformMatch,
    /// What is left out.
    pub without: Without,
    /// Where progress goes.
    pub progress: Reporter,
}

/// What an archive does not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// Docker's `manifest.json`.
    pub manifest_json: bool,
    /// Layers that must not be passed on.
    pub foreign_layers: bool,
}

/// One image in Docker's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes images to `output` as a tar and gives the output back.
///
/// Blobs that are missing of platforms that are not here are left out; an image of which nothing is here is an
/// error, before the first byte is written.
pub async fn export<W: Write + Send + 'static>(
    catalog: &dyn Catalog,
    scope: &Scope,
    request: &Exported,
    output: W,
) -> Result<W> {
    let hold = Hold::begin(catalog, scope).await?;
    let exported = export_held(catalog, hold.scope(), request, output).await;
    hold.over(exported).await
}

async fn export_held<W: Write + Send + 'static>(
    catalog: &dyn Catalog,
    scope: &Scope,
    request: &Exported,
    output: W,
) -> Result<W> {
    let store = catalog.content(scope);
    let plan = plan(&*store, request).await?;
    recipes::restore(catalog, scope, &plan.nodes).await?;
    let mut sink = Sink::start(output)?;
    file(&mut sink, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(), 0o444).await?;
    file(&mut sink, "index.json", json(&plan.index)?, 0o644).await?;
    if !plan.docker.is_empty() {
        file(&mut sink, "manifest.json", json(&plan.docker)?, 0o644).await?;
    }
    sink.entry(Entry::new("blobs/", Kind::Directory, 0o755)).await?;
    for algorithm in &plan.algorithms {
        sink.entry(Entry::new(format!("blobs/{algorithm}/"), Kind::Directory, 0o755)).await?;
    }
    for descriptor in &plan.blobs {
        blob(&*store, &mut sink, descriptor, request).await?;
    }
    sink.finish().await
}

struct Plan {
    index: Index,
    docker: Vec<Saved>,
    blobs: Vec<Descriptor>,
    nodes: Vec<Node>,
    algorithms: Vec<&'static str>,
}

async fn plan(store: &dyn ContentStore, request: &Exported) -> Result<Plan> {
    let (mut manifests, mut nodes) = (Vec::new(), Vec::new());
    let mut blobs: BTreeMap<Digest, Descriptor> = BTreeMap::new();
    let mut docker: BTreeMap<Digest, Saved> = BTreeMap::new();
    let mut walked = HashSet::new();
    for (name, target) in &request.images {
        if !is_document(&target.media_type) {
            return Err(Error::invalid_argument(format!(
                "{} is no image but a {}",
                target.digest, target.media_type
            )));
        }
        if walked.insert(target.digest.clone()) {
            let limits = Limits::default();
            let found = walk(store, target, &request.platforms, Missing::SkipUnlessRemade, limits).await?;
            nodes.extend(found.iter().cloned());
            for node in found {
                let parts = std::iter::once(node.descriptor).chain(node.children);
                let parts = parts.filter(|part| {
                    !request.without.foreign_layers || !media::is_foreign_layer(&part.media_type)
                });
                blobs.extend(parts.map(|part| (part.digest.clone(), part)));
            }
        }
        let mut listed = target.clone();
        listed.annotations.extend(sources(store, &target.digest).await?);
        if let Some(name) = name {
            annotate(&mut listed, name.as_str());
        }
        manifests.push(listed);
        if !request.without.manifest_json {
            save(store, request, name.as_ref(), target, &mut docker).await?;
        }
    }
    let mut algorithms: Vec<&str> = blobs.keys().map(|digest| digest.algorithm().name()).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    let index = Index {
        schema_version: 2,
        media_type: media::OCI_INDEX.to_owned(),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: BTreeMap::new(),
    };
    Ok(Plan {
        index,
        docker: docker.into_values().collect(),
        blobs: blobs.into_values().collect(),
        nodes,
        algorithms,
    })
}

async fn sources(store: &dyn ContentStore, digest: &Digest) -> Result<BTreeMap<String, String>> {
    let labels = store.info(digest).await?.labels;
    Ok(labels.into_iter().filter(|(key, _)| key.starts_with(SOURCE_LABEL)).collect())
}

/// Adds an image to what Docker sees. What Docker cannot run it does not see.
async fn save(
    store: &dyn ContentStore,
    request: &Exported,
    name: Option<&ImageName>,
    target: &Descriptor,
    docker: &mut BTreeMap<Digest, Saved>,
) -> Result<()> {
    let platform = request.platforms.matching().unwrap_or(&request.docker);
    let image = match load(store, target, platform).await {
        Ok(image) => image,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let saved = docker.entry(image.descriptor.digest).or_insert_with(|| Saved {
        config: path(&image.manifest.config.digest),
        repo_tags: Vec::new(),
        layers: image.manifest.layers.iter().map(|layer| path(&layer.digest)).collect(),
    });
    let reference = name.and_then(|name| name.as_str().parse::<ImageRef>().ok());
    // Docker takes tags only, no digests.
    saved.repo_tags.extend(reference.filter(|name| name.digest().is_none()).map(|name| name.familiar()));
    Ok(())
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn json(document: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(document)
        .map_err(|source| Error::internal("cannot write a document").caused_by(source))
}

async fn file<W: Write + Send + 'static>(
    sink: &mut Sink<W>,
    path: &str,
    data: Vec<u8>,
    mode: u32,
) -> Result<()> {
    let entry = Entry { size: data.len() as u64, ..Entry::new(path, Kind::File, mode) };
    sink.entry(entry).await?;
    sink.data(Bytes::from(data)).await
}

/// Copies a blob and checks that it is what its address says.
async fn blob<W: Write + Send + 'static>(
    store: &dyn ContentStore,
    sink: &mut Sink<W>,
    descriptor: &Descriptor,
    request: &Exported,
) -> Result<()> {
    let digest = &descriptor.digest;
    let reader = store.reader(digest).await?;
    let report = request.progress.object(digest.as_str(), Object::File, reader.size());
    sink.entry(Entry { size: reader.size(), ..Entry::new(path(digest), Kind::File, 0o444) }).await?;
    let mut hasher = Hasher::new(digest.algorithm());
    let mut offset = 0;
    while offset < reader.size() {
        let data = reader.read_at(offset, CHUNK).await?;
        if data.is_empty() {
            break;
        }
        hasher.update(&data);
        offset += data.len() as u64;
        sink.data(data).await?;
        report.at(State::Transferring, offset);
    }
    if hasher.finish() != *digest {
        return Err(Error::data_loss(format!("blob {digest} in the store is damaged")));
    }
    report.whole(State::Complete);
    Ok(())
}
