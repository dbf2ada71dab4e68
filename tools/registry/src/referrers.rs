//! What refers to an image: signatures, attestations, lists of contents (distribution-spec 1.1, "Listing Referrers" and
//! "Pushing Manifests with Subject").

use berth_archive::Hasher;
use berth_types::{Descriptor, Digest, Error, ErrorKind, Result};
use bytes::Bytes;
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::attempt::failed;
use crate::exchange::{self, Call};
use crate::hosts::{Capability, Host};
use crate::repository::{MANIFEST_LIMIT, Repository};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What a registry says in answer to a manifest with a subject if it keeps the list of referrers itself.
const KEEPS: &str = "oci-subject";

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'l> {
    schema_version: u32,
    media_type: &'l str,
    manifests: &'l [Descriptor],
}

impl Repository {
    /// What refers to `subject`; of one type of artifact, if that is given. A registry that does not know the question
    /// is asked for the tag under which such lists are kept otherwise; one that has neither has no referrers.
    ///
    /// Hosts are asked that have the capability `referrers`, or, if none has, those that resolve tags.
    pub async fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let able: Vec<&Host> = self.able(Capability::Referrers).collect();
        let fallback = if able.is_empty() { self.able(Capability::Resolve).collect() } else { able.clone() };
        let tag = format!("manifests/{}", tag_of(subject));
        let asked = able.iter().map(|host| (*host, format!("referrers/{subject}")));
        let asked = asked.chain(fallback.iter().map(|host| (*host, tag.clone())));
        let (mut failures, mut answered) = (Vec::new(), false);
        for (host, rest) in asked {
            let mut url = self.url(host, &rest);
            if let Some(kind) = artifact_type.filter(|_| rest.starts_with("referrers/")) {
                url.query_pairs_mut().append_pair("artifactType", kind);
            }
            let mut call = Call::new(Method::GET, url);
            call.headers.insert(ACCEPT, HeaderValue::from_static(INDEX));
            call.answers = &[StatusCode::NOT_FOUND];
            let mut response = match exchange::send(self.party(host), &call).await {
                Ok(response) => response,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            answered = true;
            if response.status().is_success() {
                let body = exchange::bounded(&mut response, MANIFEST_LIMIT, self.pace()).await?;
                return listed(&body, artifact_type);
            }
        }
        // Hosts that say 404 to both have none; the first failure counts where nobody said anything.
        if !answered && !failures.is_empty() {
            return Err(failed(&format!("cannot list what refers to {subject}"), failures));
        }
        Ok(Vec::new())
    }

    /// Puts a manifest whose subject is `subject`, described as it is to be listed. For a registry that does not list
    /// referrers itself the list under the tag is written anew: who does that at the same moment may win.
    pub async fn push_referrer(&self, subject: &Digest, descriptor: &Descriptor, bytes: Bytes) -> Result<()> {
        let headers = self.put_manifest(descriptor, bytes, None).await?;
        if headers.contains_key(KEEPS) {
            return Ok(());
        }
        let mut manifests = self.tagged(subject).await?;
        if manifests.iter().any(|there| there.digest == descriptor.digest) {
            return Ok(());
        }
        manifests.push(descriptor.clone());
        let list = List { schema_version: 2, media_type: INDEX, manifests: &manifests };
        let list = serde_json::to_vec(&list)
            .map_err(|error| Error::internal("cannot write the list of referrers").caused_by(error))?;
        let described = Descriptor::new(INDEX, Hasher::digest(&list), list.len() as u64);
        self.push_manifest(&described, list.into(), Some(&tag_of(subject))).await
    }

    /// The list that is kept under a tag at the host of pushes.
    async fn tagged(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let host = self.target()?;
        let mut call = Call::new(Method::GET, self.url(host, &format!("manifests/{}", tag_of(subject))));
        call.headers.insert(ACCEPT, HeaderValue::from_static(INDEX));
        call.answers = &[StatusCode::NOT_FOUND];
        let response = exchange::send(self.party(host), &call).await;
        let what = format!("cannot read the list of what refers to {subject}");
        let mut response = response.map_err(|failure| failed(&what, vec![failure]))?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let body = exchange::bounded(&mut response, MANIFEST_LIMIT, self.pace()).await?;
        listed(&body, None)
    }
}

/// The tag under which the list of referrers is kept where a registry has no other place for it.
fn tag_of(subject: &Digest) -> String {
    subject.as_str().replacen(':', "-", 1)
}

/// The descriptors of a list. A registry need not filter, so it is done here.
fn listed(body: &[u8], artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
    let list: Listed = serde_json::from_slice(body).map_err(|source| {
        Error::new(ErrorKind::InvalidArgument, "the list of referrers is no index").caused_by(source)
    })?;
    let wanted =
        |one: &Descriptor| artifact_type.is_none_or(|kind| one.artifact_type.as_deref() == Some(kind));
    Ok(list.manifests.unwrap_or_default().into_iter().filter(wanted).collect())
}
