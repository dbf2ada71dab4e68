//! What the differ does to real trees.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_archive::{Compression, Encoder};
use berth_core::{ApplyRequest, Differ};
use berth_oci::image::media;
use berth_types::{Descriptor, Mount, Result};
use testkit::Scratch;
use testkit::blobs::Blobs;

use crate::Walking;

mod apply;
mod arriving;
mod compare;
mod erofs;
mod hostile;
mod order;
mod overlay;
mod recipe;
mod stack;

/// A differ over blobs in memory.
struct Fixture {
    blobs: Blobs,
    differ: Walking,
    scratch: Scratch,
}

impl Fixture {
    fn new() -> Self {
        let blobs = Blobs::default();
        let differ = Walking::new(Arc::new(blobs.clone()));
        Self { blobs, differ, scratch: Scratch::new() }
    }

    /// A new folder.
    fn folder(&self, name: &str) -> PathBuf {
        let path = self.scratch.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    async fn apply(&self, tar: impl Into<Vec<u8>>, mounts: &[Mount]) -> Result<Descriptor> {
        let layer = self.blobs.add(media::OCI_LAYER, tar.into());
        self.apply_layer(layer, mounts).await
    }

    async fn apply_layer(&self, layer: Descriptor, mounts: &[Mount]) -> Result<Descriptor> {
        let (mounts, payloads) = (mounts.to_vec(), BTreeMap::new());
        self.differ.apply(ApplyRequest { layer, arriving: None, mounts, payloads, sync: false }).await
    }
}

fn bind(folder: &Path) -> Vec<Mount> {
    mount("bind", &folder.display().to_string(), &["rw", "rbind"])
}

fn mount(kind: &str, source: &str, options: &[&str]) -> Vec<Mount> {
    let options = options.iter().map(|&option| option.to_owned()).collect();
    vec![Mount { kind: kind.into(), source: source.into(), target: String::new(), options }]
}

fn compress(data: &[u8], compression: Compression) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), compression).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}
