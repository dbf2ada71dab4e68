//! What refers to an image: signatures, attestations, lists of contents (distribution-spec 1.1, "Listing Referrers").

use berth_types::{Descriptor, Digest, Error, ErrorKind, Result};
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use crate::attempt::failed;
use crate::exchange::{self, Call};
use crate::hosts::{Capability, Host};
use crate::repository::{MANIFEST_LIMIT, Repository};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

impl Repository {
    /// What refers to `subject`; of one type of artifact, if that is given. A registry that does not know the question
    /// is asked for the tag under which such lists are kept otherwise; one that has neither has no referrers.
    ///
    /// Hosts are asked that have the capability `referrers`, or, if none has, those that resolve tags.
    pub async fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let able: Vec<&Host> = self.able(Capability::Referrers).collect();
        let fallback = if able.is_empty() { self.able(Capability::Resolve).collect() } else { able.clone() };
        let tag = format!("manifests/{}", subject.as_str().replacen(':', "-", 1));
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
