//! A whole image, as an OCI layout, an OCI archive or a Docker archive.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::layer::{Layer, gzip};
use super::tar::{Entry, Kind, Tar};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image of one platform.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    layers: Vec<Vec<u8>>,
    config: Value,
}

/// A file of a layout: path and bytes.
type Files = Vec<(String, Vec<u8>)>;

impl Image {
    /// An image without layers under a full name such as `berth.test/busybox:1`.
    pub fn new(name: &str) -> Self {
        let config = json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        });
        Self { name: name.to_owned(), layers: Vec::new(), config }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Puts a layer on top.
    #[must_use]
    pub fn layer(self, layer: Layer) -> Self {
        self.raw_layer(layer.tar())
    }

    /// Puts a layer on top, whatever its bytes are. They are gzipped.
    #[must_use]
    pub fn raw_layer(mut self, tar: Vec<u8>) -> Self {
        self.layers.push(tar);
        self
    }

    /// Sets what runs.
    #[must_use]
    pub fn cmd(self, words: &[&str]) -> Self {
        self.set("Cmd", json!(words))
    }

    /// Sets a field of the config's `config`.
    #[must_use]
    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    /// The config document.
    pub fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self.layers.iter().map(|tar| digest(tar)).collect();
        let history: Vec<Value> = self
            .layers
            .iter()
            .map(|_| json!({ "created_by": "testkit", "created": "2024-01-01T00:00:00Z" }))
            .collect();
        document(&json!({
            "created": "2024-01-01T00:00:00Z",
            "architecture": architecture(),
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": history,
        }))
    }

    /// The layers as they are before compression.
    pub fn tars(&self) -> &[Vec<u8>] {
        &self.layers
    }

    /// The layers as gzip.
    pub fn blobs(&self) -> Vec<Vec<u8>> {
        self.layers.iter().map(|tar| gzip(tar)).collect()
    }

    /// The manifest over [`Image::config`] and [`Image::blobs`].
    pub fn manifest(&self) -> Vec<u8> {
        let layers: Vec<Value> = self.blobs().iter().map(|blob| descriptor(LAYER, blob)).collect();
        document(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &self.config()),
            "layers": layers,
        }))
    }

    /// Writes an OCI layout into `folder`.
    pub fn write_layout(&self, folder: &Path) {
        for (path, bytes) in self.layout() {
            let file = folder.join(path);
            let parent = file.parent().unwrap_or(folder);
            std::fs::create_dir_all(parent)
                .unwrap_or_else(|error| panic!("cannot make {}: {error}", parent.display()));
            std::fs::write(&file, bytes)
                .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
        }
    }

    /// The OCI layout as a tar.
    pub fn oci_archive(&self) -> Vec<u8> {
        pack(&self.layout())
    }

    /// What `docker save` writes, in its form before OCI layouts.
    pub fn docker_archive(&self) -> Vec<u8> {
        let config = self.config();
        let config_name = format!("{}.json", &digest(&config)[7..]);
        let names: Vec<String> =
            self.layers.iter().map(|tar| format!("{}/layer.tar", &digest(tar)[7..])).collect();
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.name], "Layers": names }]);
        let mut files: Files = vec![(config_name, config)];
        files.extend(names.into_iter().zip(self.layers.iter().cloned()));
        files.push(("manifest.json".to_owned(), document(&manifest)));
        pack(&files)
    }

    fn layout(&self) -> Files {
        let manifest = self.manifest();
        let mut entry = descriptor(MANIFEST, &manifest);
        let reference = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        entry["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": reference,
        });
        entry["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), document(&index)),
        ];
        let blobs = self.blobs().into_iter().chain([self.config(), manifest]);
        files.extend(blobs.map(|blob| (format!("blobs/sha256/{}", &digest(&blob)[7..]), blob)));
        files
    }
}

/// `sha256:…` of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// This machine's architecture by Go's name.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
}

fn document(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn pack(files: &Files) -> Vec<u8> {
    let mut folders: Vec<&str> = Vec::new();
    let mut tar = Tar::default();
    for (path, bytes) in files {
        for (at, _) in path.match_indices('/') {
            if !folders.contains(&&path[..at]) {
                folders.push(&path[..at]);
                tar = tar.entry(&Entry::new(Kind::Folder, &path[..at]));
            }
        }
        tar = tar.entry(&Entry { bytes: bytes.clone(), ..Entry::new(Kind::File, path) });
    }
    tar.finish()
}
