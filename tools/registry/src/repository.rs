//! One repository: its manifests and blobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use berth_archive::Hasher;
use berth_oci::image::media;
use berth_types::{Descriptor, Digest, Error, ErrorKind, ImageRef, Result};
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use crate::attempt::{Failure, failed};
use crate::auth::Party;
use crate::blob::Blob;
use crate::exchange::{self, Call};
use crate::hosts::{Capability, Host};
use crate::pace::Pace;
use crate::registries::Shared;

/// Bytes of a manifest or an index (distribution-spec: registries need not take more).
pub(crate) const MANIFEST_LIMIT: usize = 4 << 20;

/// What we can read, in order of preference.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// What a repository is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Pull,
    /// To read and write.
    Push,
}

/// One repository of one registry.
#[derive(Clone)]
pub struct Repository {
    shared: Arc<Shared>,
    registry: String,
    path: String,
    hosts: Arc<[Host]>,
    scope: String,
    /// The host of a push, once it has answered.
    understood: Arc<AtomicUsize>,
}

impl Repository {
    pub(crate) fn new(shared: Arc<Shared>, reference: &ImageRef, hosts: Vec<Host>, access: Access) -> Self {
        let path = reference.path().to_owned();
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let scope = format!("repository:{path}:{actions}");
        Self {
            shared,
            registry: reference.host().to_owned(),
            path,
            hosts: hosts.into(),
            scope,
            understood: Arc::default(),
        }
    }

    /// The registry, as references name it.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository beneath the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn party<'a>(&'a self, host: &'a Host) -> Party<'a> {
        let account = if host.mirror { host.base.authority() } else { self.registry.as_str() };
        Party { shared: &self.shared, host, account, scope: &self.scope }
    }

    /// The hosts that can do something.
    pub(crate) fn able(&self, capability: Capability) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |host| host.capabilities.contains(&capability))
    }

    /// An address below the repository; `rest` begins without a slash.
    pub(crate) fn url(&self, host: &Host, rest: &str) -> Url {
        let mut url = host.base.clone();
        url.set_path(&format!("{}/{}/{rest}", host.path, self.path));
        if host.mirror {
            url.query_pairs_mut().append_pair("ns", &self.registry);
        }
        url
    }

    /// Asks each host that is able until one answers.
    async fn ask(
        &self,
        what: &str,
        capability: Capability,
        call: impl Fn(&Host) -> Call<'static>,
    ) -> Result<(Response, &Host)> {
        let mut failures = Vec::new();
        for host in self.able(capability) {
            if is_pointless(host, &failures) {
                continue;
            }
            match exchange::send(self.party(host), &call(host)).await {
                Ok(response) => return Ok((response, host)),
                Err(failure) => failures.push(failure),
            }
        }
        Err(failed(what, failures))
    }

    /// What a reference stands for now. A digest is looked up too: the answer is its type and size.
    pub async fn resolve(&self, reference: &ImageRef) -> Result<Descriptor> {
        let name = reference.digest().map_or_else(|| reference.tag().unwrap_or("latest"), Digest::as_str);
        let what = format!("cannot resolve {reference}");
        let rest = format!("manifests/{name}");
        let head = |host: &Host| accepting(Call::new(Method::HEAD, self.url(host, &rest)));
        let (response, _) = self.ask(&what, Capability::Resolve, head).await?;
        if let Some(descriptor) = described(&response, reference.digest())? {
            return Ok(descriptor);
        }
        // Some registries say nothing in the head: then the document itself tells.
        let get = |host: &Host| accepting(Call::new(Method::GET, self.url(host, &rest)));
        let (mut response, _) = self.ask(&what, Capability::Resolve, get).await?;
        let announced = content_type(&response);
        let body = exchange::bounded(&mut response, MANIFEST_LIMIT, self.pace()).await?;
        let digest = match reference.digest() {
            Some(digest) => verified(digest, &body)?,
            None => Hasher::digest(&body),
        };
        let media_type = announced.or_else(|| claimed(&body)).ok_or_else(|| untyped(reference))?;
        Ok(Descriptor::new(media_type, digest, body.len() as u64))
    }

    /// A manifest or an index, verified by its digest. One that is announced as something else is refused.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let digest = &descriptor.digest;
        let what = format!("cannot fetch the manifest {digest} of {}/{}", self.registry, self.path);
        let rest = format!("manifests/{digest}");
        let get = |host: &Host| {
            let mut call = Call::new(Method::GET, self.url(host, &rest));
            let accept = format!("{}, */*;q=0.1", descriptor.media_type);
            call.headers.insert(ACCEPT, accept.parse().unwrap_or(HeaderValue::from_static(ACCEPTED)));
            call
        };
        let mut failures = Vec::new();
        for host in self.able(Capability::Pull) {
            if is_pointless(host, &failures) {
                continue;
            }
            match self.document(host, &get(host), descriptor).await {
                Ok(body) => return Ok(body.into()),
                Err(failure) => failures.push(failure),
            }
        }
        Err(failed(&what, failures))
    }

    /// A document of one host, begun anew when its connection breaks.
    async fn document(
        &self,
        host: &Host,
        call: &Call<'_>,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, Failure> {
        let (retries, first) = self.retries();
        let mut tries = 0;
        loop {
            let mut response = exchange::send(self.party(host), call).await?;
            let error = match document(&mut response, descriptor, self.pace()).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            if error.kind() != ErrorKind::Unavailable || tries >= retries {
                return Err(self.refused(host, &format!("manifests/{}", descriptor.digest), &error));
            }
            let pause = crate::retry::pause(first, tries, None).unwrap_or(first);
            tries += 1;
            tokio::time::sleep(pause).await;
        }
    }

    fn refused(&self, host: &Host, rest: &str, error: &Error) -> Failure {
        Failure {
            kind: error.kind(),
            status: Some(StatusCode::OK),
            host: host.base.origin().ascii_serialization(),
            step: format!("GET {}", self.url(host, rest).path()),
            outcome: error.chain(),
            pause: None,
        }
    }

    /// A blob from `offset` on. Its bytes are not verified here: they go into a content store, which does that.
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Blob> {
        Blob::open(self.clone(), descriptor.clone(), offset).await
    }

    /// Bytes of a blob, of which `descriptor` says the size, from one place to another, over one connection, which is
    /// taken up again where it breaks. Not verified either. FailedPrecondition where no host heeds ranges: then it is
    /// better fetched whole.
    pub async fn blob_range(&self, descriptor: &Descriptor, range: std::ops::Range<u64>) -> Result<Bytes> {
        crate::blob::range(self.clone(), descriptor.clone(), range).await
    }

    /// The size of a blob, as a host that has it says.
    pub async fn blob_size(&self, digest: &Digest) -> Result<u64> {
        let what = format!("cannot look for blob {digest} of {}/{}", self.registry, self.path);
        let head = |host: &Host| Call::new(Method::HEAD, self.url(host, &format!("blobs/{digest}")));
        let (response, _) = self.ask(&what, Capability::Pull, head).await?;
        let size = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        size.ok_or_else(|| Error::unknown(format!("{what}: the registry does not say its size")))
    }

    /// The bytes of a blob from `offset` up to `end`, or to its end: the answer, and how many bytes of it come before
    /// `offset`, because a host need not heed ranges; and which host it is.
    pub(crate) async fn open_blob(
        &self,
        digest: &Digest,
        offset: u64,
        end: Option<u64>,
    ) -> Result<(Response, u64, String)> {
        let what = format!("cannot fetch blob {digest} of {}/{}", self.registry, self.path);
        let rest = format!("blobs/{digest}");
        let range = match end {
            Some(end) => Some(format!("bytes={offset}-{}", end.saturating_sub(1))),
            None => (offset > 0).then(|| format!("bytes={offset}-")),
        };
        let get = |host: &Host| {
            let mut call = Call::new(Method::GET, self.url(host, &rest));
            if let Some(value) = range.as_deref().and_then(|range| HeaderValue::from_str(range).ok()) {
                call.headers.insert(RANGE, value);
            }
            call
        };
        let (response, host) = self.ask(&what, Capability::Pull, get).await?;
        let shown = host.base.origin().ascii_serialization();
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((response, offset, shown));
        }
        if begins(&response) != Some(offset) {
            let error = Error::data_loss("the answer is from another place than asked for");
            return Err(failed(&what, vec![self.refused(host, &rest, &error)]));
        }
        Ok((response, 0, shown))
    }

    /// Whether a blob is there.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        self.has(&format!("blobs/{digest}"), digest).await
    }

    /// Whether a manifest is there, under its digest or under a tag with that digest.
    pub async fn has_manifest(&self, digest: &Digest, tag: Option<&str>) -> Result<bool> {
        let name = tag.unwrap_or(digest.as_str());
        self.has(&format!("manifests/{name}"), digest).await
    }

    /// Asks the host to which a push goes, and finds out which way of speaking to it is right.
    async fn has(&self, rest: &str, digest: &Digest) -> Result<bool> {
        let mut failures = Vec::new();
        let hosts: Vec<usize> = self.targets().collect();
        for index in hosts {
            let host = &self.hosts[index];
            if is_pointless(host, &failures) {
                continue;
            }
            let mut call = accepting(Call::new(Method::HEAD, self.url(host, rest)));
            call.answers = &[StatusCode::NOT_FOUND];
            let response = match exchange::send(self.party(host), &call).await {
                Ok(response) => response,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            self.understood.store(index, Ordering::Relaxed);
            if !response.status().is_success() {
                return Ok(false);
            }
            let said = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
            return Ok(said.is_none_or(|said| said == digest.as_str()));
        }
        if failures.is_empty() {
            return Err(self.closed());
        }
        Err(failed(&format!("cannot look for {digest}"), failures))
    }

    /// The first host that takes pushes, and the other ways to speak to it.
    fn targets(&self) -> impl Iterator<Item = usize> {
        let understood = self.understood.load(Ordering::Relaxed);
        let able = |index: &usize| self.hosts[*index].capabilities.contains(&Capability::Push);
        let first =
            (0..self.hosts.len()).find(|index| able(index) && *index >= understood.min(self.hosts.len()));
        let others = first.into_iter().flat_map(|first| first + 1..self.hosts.len());
        first.into_iter().chain(others.take_while(|index| self.hosts[*index].alternate))
    }

    /// The host to which everything of a push goes.
    pub(crate) fn target(&self) -> Result<&Host> {
        self.targets().next().map(|index| &self.hosts[index]).ok_or_else(|| self.closed())
    }

    fn closed(&self) -> Error {
        Error::failed_precondition(format!("no host of {} takes pushes; see its hosts.toml", self.registry))
    }
}

/// Whether a host was understood, so that speaking to it in another way can tell nothing new.
fn is_pointless(host: &Host, failures: &[Failure]) -> bool {
    host.alternate && failures.last().is_some_and(|failure| !failure.is_misunderstanding())
}

pub(crate) fn accepting(mut call: Call<'static>) -> Call<'static> {
    call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
    call
}

fn content_type(response: &Response) -> Option<String> {
    let value = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = value.split(';').next().unwrap_or_default().trim();
    (media::is_index(kind) || media::is_manifest(kind)).then(|| kind.to_owned())
}

/// The type that a document says that it has.
fn claimed(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: String,
    }
    let kind = serde_json::from_slice::<Typed>(body).ok()?.media_type;
    (media::is_index(&kind) || media::is_manifest(&kind)).then_some(kind)
}

fn untyped(reference: &ImageRef) -> Error {
    Error::invalid_argument(format!("{reference} is neither an image manifest nor an index"))
}

/// The descriptor that a head gives, if it says all of it.
pub(crate) fn described(response: &Response, wanted: Option<&Digest>) -> Result<Option<Descriptor>> {
    let headers = response.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let said: Option<Digest> = match text("docker-content-digest") {
        Some(said) => Some(said.parse()?),
        None => None,
    };
    if let (Some(said), Some(wanted)) = (&said, wanted)
        && said != wanted
        && said.algorithm() == wanted.algorithm()
    {
        return Err(Error::failed_precondition(format!("asked for {wanted}, the registry has {said}")));
    }
    let size = text(CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok()).filter(|size| *size > 0);
    let digest = wanted.cloned().or(said);
    Ok(match (content_type(response), digest, size) {
        (Some(kind), Some(digest), Some(size)) => Some(Descriptor::new(kind, digest, size)),
        _ => None,
    })
}

async fn document(response: &mut Response, descriptor: &Descriptor, pace: Pace) -> Result<Vec<u8>> {
    if let Some(announced) = content_type(response)
        && announced != descriptor.media_type
    {
        return Err(Error::invalid_argument(format!(
            "the document was announced as {announced} and referred to as {}",
            descriptor.media_type
        )));
    }
    let body = exchange::bounded(response, MANIFEST_LIMIT, pace).await?;
    verified(&descriptor.digest, &body)?;
    if descriptor.size > 0 && descriptor.size != body.len() as u64 {
        return Err(Error::failed_precondition(format!(
            "the document has {} bytes and not the {} of its descriptor",
            body.len(),
            descriptor.size
        )));
    }
    Ok(body)
}

fn verified(digest: &Digest, body: &[u8]) -> Result<Digest> {
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(body);
    let actual = hasher.finish();
    if actual != *digest {
        return Err(Error::failed_precondition(format!("asked for {digest}, got {actual}")));
    }
    Ok(actual)
}

/// The first byte of a partial answer.
fn begins(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl Repository {
    pub(crate) fn failed(&self, what: &str, failure: Failure) -> Error {
        failed(&format!("{what} of {}/{}", self.registry, self.path), vec![failure])
    }

    pub(crate) fn pace(&self) -> Pace {
        Pace::of(&self.shared.config)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn retries(&self) -> (u32, std::time::Duration) {
        (self.shared.config.retries, self.shared.config.pause)
    }
}
