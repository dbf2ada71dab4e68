//! `import`: an image of a tar of files.

use std::fs::File;
use std::io::{BufReader, Read};

use berth_core::{Deletion, IngestRequest, write_blob};
use berth_oci::image::{History, ImageConfig, Manifest, ProcessConfig, RootFs, media};
use berth_types::{Descriptor, Digest, Image, ImageName, Labels};
use bytes::Bytes;
use clap::Args;
use sha2::{Digest as _, Sha256};

use super::manifest;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, progress};

/// Flags of `import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// A line of a Dockerfile to apply: CMD, ENTRYPOINT, ENV, USER, WORKDIR, LABEL
    #[arg(short, long)]
    change: Vec<String>,
    /// Why
    #[arg(short, long)]
    message: Option<String>,
    /// Platform of the files
    #[arg(long)]
    platform: Option<String>,
    /// A tar, or - for standard input
    file: String,
    /// REPOSITORY[:TAG]
    name: Option<String>,
}

impl Import {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let input = self.open()?;
        let mut process = ProcessConfig::default();
        for line in &self.change {
            super::commit::change(&mut process, line)?;
        }
        let leases = context.client.leases(context.scope());
        let lease = leases.create(None, Labels::new()).await?.id;
        let scope = context.scope().with_lease(lease.clone());
        let stored = self.store(context, &scope, input, process).await;
        leases.delete(&lease, Deletion::Later).await?;
        output::line(stored?.digest.as_str())?;
        Ok(0)
    }

    fn open(&self) -> Result<Box<dyn Read + Send>, Failure> {
        let path = self.file.as_str();
        if path == "-" {
            return Ok(Box::new(progress::reading(std::io::stdin(), "importing", "stdin", None)));
        }
        let file = File::open(path).map_err(|error| Failure::new(format!("open {path}: {error}")))?;
        let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|about| about.len());
        Ok(Box::new(progress::reading(file, "importing", path, length)))
    }

    async fn store(
        &self,
        context: &Context,
        scope: &berth_core::Scope,
        input: Box<dyn Read + Send>,
        process: ProcessConfig,
    ) -> Result<Descriptor, Failure> {
        let content = context.client.content(scope);
        let (layer, diff_id) = layer(&*content, input).await?;
        let platform = match self.platform.as_deref() {
            Some(text) => berth_oci::image::parse_platform(text)?,
            None => context.workload.settings().platform.clone(),
        };
        let now = berth_workload::human::timestamp(std::time::SystemTime::now());
        let config = ImageConfig {
            created: Some(now.clone()),
            architecture: platform.architecture,
            os: platform.os,
            config: process,
            rootfs: RootFs { diff_ids: vec![diff_id], ..RootFs::default() },
            history: vec![History {
                created: Some(now),
                comment: self.message.clone().or_else(|| Some("Imported from -".to_owned())),
                ..History::default()
            }],
            ..ImageConfig::default()
        };
        let config = document(&*content, media::OCI_CONFIG, &config, Labels::new()).await?;
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
        let target = document(&*content, media::OCI_MANIFEST, &manifest, labels).await?;
        let name: ImageName = match &self.name {
            Some(name) => manifest::name(name)?,
            None => format!("<none>@{}", target.digest).parse()?,
        };
        let images = context.client.images(scope);
        berth_transfer::publish(&*images, Image::new(name, target.clone())).await?;
        Ok(target)
    }
}

/// Stores a tar as an uncompressed layer, in one pass.
async fn layer(
    content: &dyn berth_core::ContentStore,
    input: Box<dyn Read + Send>,
) -> Result<(Descriptor, Digest), Failure> {
    let limits = berth_archive::Limits::default();
    let mut input = berth_archive::Decoder::new(BufReader::with_capacity(1 << 20, input), limits)?;
    let reference = format!("berth-import-{}", berth_workload::names::new_id()).parse()?;
    let mut ingest = content.writer(IngestRequest::new(reference)).await?;
    let mut hash = Sha256::new();
    let mut offset = 0;
    loop {
        let mut block = vec![0_u8; 1 << 20];
        let count = fill(&mut input, &mut block)?;
        if count == 0 {
            break;
        }
        block.truncate(count);
        hash.update(&block);
        ingest.write(offset, Bytes::from(block)).await?;
        offset += count as u64;
    }
    let digest = Digest::sha256(hash.finalize().into());
    let commit = berth_core::CommitRequest {
        size: Some(offset),
        expected: Some(digest.clone()),
        labels: Labels::from([("containerd.io/uncompressed".to_owned(), digest.to_string())]),
    };
    match ingest.commit(commit).await {
        Err(error) if error.kind() != berth_types::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    Ok((Descriptor::new(media::OCI_LAYER, digest.clone(), offset), digest))
}

fn fill(input: &mut impl Read, block: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match input.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

async fn document(
    content: &dyn berth_core::ContentStore,
    kind: &str,
    document: &impl serde::Serialize,
    labels: Labels,
) -> Result<Descriptor, Failure> {
    let bytes = serde_json::to_vec(document).map_err(|error| Failure::new(error.to_string()))?;
    let digest = Digest::sha256(Sha256::digest(&bytes).into());
    let descriptor = Descriptor::new(kind, digest, bytes.len() as u64);
    let reference = format!("berth-import-{}", descriptor.digest.hex()).parse()?;
    write_blob(content, reference, &descriptor, Bytes::from(bytes), labels).await?;
    Ok(descriptor)
}
