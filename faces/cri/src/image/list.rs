//! Which images there are, and which one a name means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_proto::runtime::v1 as proto;
use berth_types::filter::Filters;
use berth_types::{Digest, Error, ErrorKind, ImageName, ImageRef, Result};

use super::PINNED;
use super::facts::Facts;
use crate::Cri;

/// An image with all its names.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    /// What it is.
    pub(crate) facts: Arc<Facts>,
    /// The names of its records.
    pub(crate) names: Vec<ImageName>,
    /// Whether it must not be removed.
    pub(crate) pinned: bool,
}

impl Cri {
    /// Every image. A record whose manifest or configuration is not there is not yet an image.
    pub(crate) async fn present(&self) -> Result<Vec<Present>> {
        let (records, content) = (self.images().list(&Filters::default()).await?, self.content());
        let mut images: BTreeMap<Digest, Present> = BTreeMap::new();
        for record in &records {
            let facts = match self.known.facts(&*content, &record.target).await {
                Ok(facts) => facts,
                Err(error) => {
                    tracing::debug!(image = %record.name, "no image for a kubelet: {}", error.chain());
                    continue;
                }
            };
            let image = images.entry(facts.id.clone()).or_insert_with(|| Present {
                facts,
                names: Vec::new(),
                pinned: false,
            });
            image.names.push(record.name.clone());
            let is_marked = record.labels.get(PINNED.0).is_some_and(|value| value == PINNED.1);
            image.pinned |= is_marked || self.is_pinned(&record.name);
        }
        self.known.keep(&records.iter().map(|record| &record.target.digest).collect::<BTreeSet<_>>());
        Ok(images.into_values().collect())
    }

    /// The image that `wanted` means: an id, the beginning of one, or a name in any of the forms in which people
    /// write one.
    pub(crate) async fn find(&self, wanted: &str) -> Result<Option<Present>> {
        let images = self.present().await?;
        if let Ok(digest) = wanted.parse::<Digest>() {
            return Ok(images.into_iter().find(|image| image.facts.id == digest));
        }
        if let Ok(reference) = wanted.parse::<ImageRef>() {
            let name = named(&reference);
            let found = images.iter().find(|image| image.names.iter().any(|one| one.as_str() == name));
            if let Some(found) = found {
                return Ok(Some(found.clone()));
            }
        }
        let mut begun = images.into_iter().filter(|image| begins(&image.facts.id, wanted));
        match (begun.next(), begun.next()) {
            (Some(one), None) => Ok(Some(one)),
            (Some(_), Some(_)) => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{wanted:?} is the beginning of several images' ids"),
            )),
            (None, _) => Ok(None),
        }
    }
}

/// The name of the record that a reference leads to. With a digest the tag says nothing, as in Docker.
pub(super) fn named(reference: &ImageRef) -> String {
    match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.repository()),
        None => reference.to_string(),
    }
}

fn begins(id: &Digest, wanted: &str) -> bool {
    let text = id.as_str();
    let hex = text.split_once(':').map_or(text, |(_, hex)| hex);
    !wanted.is_empty() && (hex.starts_with(wanted) || (wanted.contains(':') && text.starts_with(wanted)))
}

impl Present {
    /// In the words of the CRI.
    pub(crate) fn wire(&self) -> proto::Image {
        let (mut tags, mut digests) = (Vec::new(), Vec::new());
        for name in &self.names {
            // The record that is named by the id is no name of its own.
            if name.as_str().parse::<Digest>().is_ok() {
                continue;
            }
            let Ok(reference) = name.as_str().parse::<ImageRef>() else { continue };
            if reference.digest().is_some() { &mut digests } else { &mut tags }.push(reference.to_string());
        }
        let (uid, username) = user(&self.facts.process.user);
        proto::Image {
            id: self.facts.id.to_string(),
            repo_tags: tags,
            repo_digests: digests,
            size: self.facts.size,
            uid: uid.map(|value| proto::Int64Value { value }),
            username,
            pinned: self.pinned,
            ..Default::default()
        }
    }

    /// Its name for people: the first by tag, else by digest, else its id.
    pub(crate) fn name(&self) -> String {
        let image = self.wire();
        image.repo_tags.into_iter().chain(image.repo_digests).next().unwrap_or(image.id)
    }

    /// Its repository and digest, else its id: what says for good which image it is.
    pub(crate) fn reference(&self) -> String {
        let image = self.wire();
        image.repo_digests.into_iter().next().unwrap_or(image.id)
    }

    /// What `crictl inspecti` shows beyond it.
    pub(crate) fn info(&self) -> String {
        let chain = self.facts.chain.as_ref().map(ToString::to_string).unwrap_or_default();
        serde_json::json!({ "chainID": chain, "imageSpec": self.facts.config }).to_string()
    }
}

/// Who runs: a number, or else a name. The group is not told.
fn user(text: &str) -> (Option<i64>, String) {
    let user = text.split(':').next().unwrap_or_default();
    match user.parse() {
        _ if user.is_empty() => (None, String::new()),
        Ok(uid) => (Some(uid), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_a_name() {
        for (text, uid, name) in [
            ("", None, ""),
            ("0", Some(0), ""),
            ("1000:100", Some(1000), ""),
            ("web", None, "web"),
            ("web:web", None, "web"),
            ("99999999999999999999", None, "99999999999999999999"),
        ] {
            assert_eq!(user(text), (uid, name.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn the_beginning_of_an_id_is_hexadecimal_or_has_its_algorithm() {
        let id: Digest = format!("sha256:{}", "ab12".repeat(16)).parse().unwrap();
        for (wanted, begun) in [
            ("ab12", true),
            ("sha256:ab", true),
            ("sha256", false),
            ("", false),
            ("cd", false),
            ("ab12ac", false),
        ] {
            assert_eq!(begins(&id, wanted), begun, "{wanted:?}");
        }
    }

    #[test]
    fn a_reference_with_tag_and_digest_means_the_digest() {
        let digest = format!("sha256:{}", "ab12".repeat(16));
        let reference: ImageRef = format!("web:1@{digest}").parse().unwrap();
        assert_eq!(named(&reference), format!("docker.io/library/web@{digest}"));
        assert_eq!(named(&"web".parse().unwrap()), "docker.io/library/web:latest");
    }
}
