//! The files of an archive as they pass: documents into memory, everything else into content.

use std::collections::{BTreeMap, HashSet};

use berth_archive::Hasher;
use berth_core::{CommitRequest, ContentStore, Ingest, IngestRequest};
use berth_types::{Descriptor, Digest, Error, ErrorKind, Labels, Result};
use serde::de::DeserializeOwned;

use super::{Import, LAYOUT_LIMIT};
use crate::content::{self, Opened};
use crate::progress::{Object, Reported, State};
use crate::tar::{Member, Members};

/// Links from link to link.
const MAX_LINKS: usize = 16;

/// A file that is in content.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Its first bytes, which tell its compression.
    pub(super) start: Vec<u8>,
}

/// What an archive held.
#[derive(Default)]
pub(super) struct Files {
    /// How the names of ingests begin.
    pub(super) prefix: String,
    pub(super) layout: Option<Vec<u8>>,
    pub(super) index: Option<Vec<u8>>,
    pub(super) manifest: Option<Vec<u8>>,
    files: BTreeMap<String, File>,
    links: BTreeMap<String, String>,
}

impl Files {
    /// Takes in every member; ingests begin with `prefix`, which nothing else has. A name that comes twice is refused:
    /// readers disagree about which one counts.
    pub(super) async fn take(
        store: &dyn ContentStore,
        mut members: Members,
        prefix: &str,
        options: &Import,
    ) -> Result<Self> {
        let mut taken = Self { prefix: prefix.to_owned(), ..Self::default() };
        let mut seen = HashSet::new();
        while let Some(member) = members.next().await? {
            if is_needless(&member.path) {
                continue;
            }
            if !seen.insert(member.path.clone()) {
                let text = format!("the archive has {} twice", member.path);
                return Err(Error::invalid_argument(text));
            }
            if seen.len() > options.limits.nodes {
                let text = format!("the archive has more than {} files", options.limits.nodes);
                return Err(Error::resource_exhausted(text));
            }
            if let Some(target) = member.link {
                taken.links.insert(member.path, target);
                continue;
            }
            match member.path.as_str() {
                "oci-layout" => taken.layout = Some(members.whole(&member, LAYOUT_LIMIT).await?),
                "index.json" => taken.index = Some(members.whole(&member, options.limits.document).await?),
                "manifest.json" => {
                    taken.manifest = Some(members.whole(&member, options.limits.document).await?);
                }
                _ => {
                    let reference = format!("{prefix}-{}", seen.len());
                    let file = store_file(store, &mut members, &member, reference, options).await?;
                    taken.files.insert(member.path, file);
                }
            }
        }
        Ok(taken)
    }

    /// The file at a path of a document, through links.
    pub(super) fn file(&self, path: &str) -> Result<&File> {
        let cleaned = String::from_utf8(berth_archive::clean(path.as_bytes())).unwrap_or_default();
        let mut at = cleaned.as_str();
        for _ in 0..MAX_LINKS {
            if let Some(file) = self.files.get(at) {
                return Ok(file);
            }
            match self.links.get(at) {
                Some(next) => at = next,
                None => break,
            }
        }
        Err(Error::invalid_argument(format!("the archive has no file {path}")))
    }
}

/// What Docker's older archives carry beside the files that their manifest names.
fn is_needless(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.is_empty() || path == "repositories" || (path.contains('/') && matches!(name, "VERSION" | "json"))
}

/// The digest that a layout's path promises.
fn promised(path: &str) -> Result<Option<Digest>> {
    let Some((algorithm, hex)) = path.strip_prefix("blobs/").and_then(|rest| rest.split_once('/')) else {
        return Ok(None);
    };
    format!("{algorithm}:{hex}").parse().map(Some)
}

async fn store_file(
    store: &dyn ContentStore,
    members: &mut Members,
    member: &Member,
    reference: String,
    options: &Import,
) -> Result<File> {
    let expected = promised(&member.path)?;
    let name = expected.as_ref().map_or(member.path.as_str(), Digest::as_str);
    let report = options.progress.object(name, Object::File, member.size);
    let request =
        IngestRequest { reference: reference.parse()?, total: member.size, expected: expected.clone() };
    let (ingest, there) = match (content::open(store, request).await?, &expected) {
        (Opened::Writing(ingest, there), _) => (ingest, there),
        (Opened::Exists, Some(digest)) => {
            report.whole(State::Exists);
            let start = members.data().await?.unwrap_or_default();
            return Ok(File { digest: digest.clone(), size: member.size, start: beginning(&start) });
        }
        (Opened::Exists, None) => return Err(Error::internal("content exists without an address")),
    };
    let adopted = expected.as_ref().filter(|_| there > 0 && there == member.size);
    let filled = match adopted {
        Some(digest) => adopt(store, members, ingest, digest, there).await,
        None => fill(store, members, ingest, expected, &report).await,
    };
    let (digest, size, start) = match filled {
        Ok(filled) => filled,
        Err(error) => {
            // Nobody goes on from a part of an archive; a failed import leaves nothing.
            store.abort(&reference.parse()?).await.ok();
            if error.kind() != ErrorKind::FailedPrecondition {
                return Err(error);
            }
            let text = format!("{} in the archive is not what its name says", member.path);
            return Err(Error::invalid_argument(text).caused_by(error));
        }
    };
    report.whole(State::Complete);
    Ok(File { digest, size, start })
}

/// Commits what another namespace has already, verified; of the member only the first bytes are read.
async fn adopt(
    store: &dyn ContentStore,
    members: &mut Members,
    mut ingest: Box<dyn Ingest>,
    digest: &Digest,
    size: u64,
) -> Result<(Digest, u64, Vec<u8>)> {
    let start = members.data().await?.unwrap_or_default();
    let commit = CommitRequest { size: Some(size), expected: Some(digest.clone()), labels: Labels::new() };
    content::commit(store, &mut *ingest, commit).await?;
    Ok((digest.clone(), size, beginning(&start)))
}

/// Writes a member's data and commits it: its digest, its size and its first bytes.
async fn fill(
    store: &dyn ContentStore,
    members: &mut Members,
    mut ingest: Box<dyn Ingest>,
    expected: Option<Digest>,
    report: &Reported,
) -> Result<(Digest, u64, Vec<u8>)> {
    // The store verifies what it knows the address of, so only other files are hashed here.
    let mut hasher = expected.is_none().then(Hasher::default);
    let (mut offset, mut start) = (0, Vec::new());
    while let Some(data) = members.data().await? {
        if offset == 0 {
            start = beginning(&data);
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(&data);
        }
        let length = data.len() as u64;
        ingest.write(offset, data).await?;
        offset += length;
        report.at(State::Transferring, offset);
    }
    let digest = match (expected, hasher) {
        (Some(digest), _) => digest,
        (None, hasher) => hasher.unwrap_or_default().finish(),
    };
    let commit = CommitRequest { size: Some(offset), expected: Some(digest.clone()), labels: Labels::new() };
    content::commit(store, &mut *ingest, commit).await?;
    Ok((digest, offset, start))
}

fn beginning(data: &[u8]) -> Vec<u8> {
    data[..data.len().min(8)].to_vec()
}

/// Reads a document of the archive.
pub(super) fn json<T: DeserializeOwned>(path: &str, data: &[u8]) -> Result<T> {
    serde_json::from_slice(data)
        .map_err(|source| Error::invalid_argument(format!("{path} is not valid")).caused_by(source))
}

impl File {
    /// As a descriptor of that type.
    pub(super) fn descriptor(&self, media_type: &str) -> Descriptor {
        Descriptor::new(media_type, self.digest.clone(), self.size)
    }
}
