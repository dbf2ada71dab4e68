//! Manifests and indexes.

use std::collections::BTreeMap;

use berth_types::{Descriptor, Error, Result};
use serde::{Deserialize, Serialize};

use super::media;

/// The manifest of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// OCI's or Docker's type; older OCI manifests leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The type of an artifact that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// What this manifest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests, or of lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// OCI's or Docker's type; older OCI indexes leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The type of an artifact that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// What this index is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Either of the two, told apart by what the bytes say and not only by what was announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Many.
    Index(Index),
}

impl Document {
    /// Reads a document that was announced as `media_type`. One that claims both layers and
    /// manifests is refused: clients must not be made to see different images in the same bytes
    /// (CVE-2021-41190).
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            media_type: Option<String>,
            manifests: Option<serde_json::Value>,
            layers: Option<serde_json::Value>,
            config: Option<serde_json::Value>,
            #[serde(rename = "fsLayers")]
            fs_layers: Option<serde_json::Value>,
        }
        let bad =
            |source| Error::invalid_argument(format!("{media_type} is not valid JSON")).caused_by(source);
        let probe: Probe = serde_json::from_slice(bytes).map_err(bad)?;
        if probe.fs_layers.is_some() {
            return Err(Error::not_implemented(
                "the image has Docker's schema 1 manifest, which is no longer supported: push it again with a current tool",
            ));
        }
        if probe.manifests.is_some() && (probe.layers.is_some() || probe.config.is_some()) {
            return Err(Error::invalid_argument("the document is both a manifest and an index"));
        }
        if let Some(claimed) = &probe.media_type
            && !claimed.is_empty()
            && (media::is_index(media_type) && media::is_manifest(claimed)
                || media::is_manifest(media_type) && media::is_index(claimed))
        {
            return Err(Error::invalid_argument(format!(
                "the document was announced as {media_type} and says that it is {claimed}"
            )));
        }
        if probe.manifests.is_some() || (probe.config.is_none() && media::is_index(media_type)) {
            serde_json::from_slice(bytes).map(Self::Index).map_err(bad)
        } else {
            serde_json::from_slice(bytes).map(Self::Manifest).map_err(bad)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_is_two_things_is_refused() {
        let config = r#"{"mediaType":"x","digest":"sha256:","size":1}"#;
        let both = format!(r#"{{"schemaVersion":2,"manifests":[],"config":{config},"layers":[]}}"#);
        assert!(Document::parse(media::OCI_INDEX, both.as_bytes()).is_err());
        let liar = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media::OCI_INDEX);
        assert!(Document::parse(media::OCI_MANIFEST, liar.as_bytes()).is_err());
        assert!(matches!(Document::parse(media::OCI_INDEX, liar.as_bytes()), Ok(Document::Index(_))));
    }

    #[test]
    fn schema_1_says_what_to_do() {
        let error =
            Document::parse(media::OCI_MANIFEST, br#"{"schemaVersion":1,"fsLayers":[]}"#).unwrap_err();
        assert!(error.to_string().contains("push it again"));
    }
}
