//! Images whose layers have tables of contents, made by stargz-snapshotter's own package.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Image, digest};
use crate::{Invocation, Scratch, need};

/// An image of such layers, ready to be served.
#[derive(Clone, Debug)]
pub struct Estargz {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The layers, lowest first, and then the configuration.
    pub blobs: Vec<Vec<u8>>,
}

/// What the tool prints beside annotations.
const DIFF_ID: &str = "diff-id";

impl Estargz {
    /// The same image with its layers made anew; `flags` are the tool's.
    pub fn of(image: &Image, flags: &[&str]) -> Result<Self, need::Missing> {
        let tool = need::program("stargz-tool")?;
        let scratch = Scratch::new();
        let (mut blobs, mut layers, mut diff_ids) = (Vec::new(), Vec::new(), Vec::new());
        for tar in image.tars() {
            let (from, to) = (scratch.file("layer.tar", tar), scratch.path("layer"));
            let printed = Invocation::new(&tool).arg("make").args(flags).arg(from).arg(&to).ok();
            let mut annotations: BTreeMap<String, String> =
                serde_json::from_str(&printed).expect("the tool prints JSON");
            diff_ids.push(annotations.remove(DIFF_ID).expect("the tool tells the layer's own digest"));
            let blob = std::fs::read(&to).expect("the tool has written it");
            let packed = if flags.contains(&"--zstd") { "zstd" } else { "gzip" };
            layers.push(json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar+{packed}"),
                "digest": digest(&blob),
                "size": blob.len(),
                "annotations": annotations,
            }));
            blobs.push(blob);
        }
        let mut config: Value = serde_json::from_slice(&image.config()).expect("a configuration is JSON");
        config["rootfs"]["diff_ids"] = json!(diff_ids);
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config),
                "size": config.len(),
            },
            "layers": layers,
        });
        blobs.push(config);
        Ok(Self { manifest: manifest.to_string().into_bytes(), blobs })
    }
}
