//! What goes between this machine and its registries, written down for whoever looks for a fault.
//!
//! Messages have HTTP's own form. What could let somebody in does not appear: of headers and of queries only those
//! values that are known to be harmless, no user information of addresses, nothing that token services say or are
//! told. Bodies appear where they are short and text; of others, blobs above all, only the length is told.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use berth_types::{Error, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Body, Client, Method, Request, Response, Url, Version};

use crate::config::Config;
use crate::exchange::unreachable;

/// Bytes of a body that is shown.
const BODY: usize = 64 << 10;
/// Bytes of a header's or a query's value that are shown.
const VALUE: usize = 1000;

const HIDDEN: &str = "[hidden]";

/// Headers whose values tell nothing that lets somebody in. `location` has its own rule.
const HARMLESS: [&str; 27] = [
    "accept",
    "accept-ranges",
    "age",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "docker-content-digest",
    "docker-distribution-api-version",
    "docker-upload-uuid",
    "etag",
    "host",
    "last-modified",
    "oci-chunk-min-length",
    "oci-filters-applied",
    "oci-subject",
    "range",
    "ratelimit-limit",
    "ratelimit-remaining",
    "retry-after",
    "server",
    "transfer-encoding",
    "user-agent",
    "www-authenticate",
];

/// Keys of a query whose values tell nothing that lets somebody in.
const PLAIN: [&str; 9] = ["artifactType", "digest", "from", "last", "mount", "n", "ns", "scope", "service"];

/// Takes each entry, which is one or more whole lines. What the entry tells of waits for it.
pub type Listen = Arc<dyn Fn(String) -> BoxFuture<'static, ()> + Send + Sync>;

/// Somebody who wants to read along.
#[derive(Clone)]
pub struct Transcript {
    /// How much of it.
    pub detail: Detail,
    /// Who.
    pub listen: Listen,
}

/// What of a transcript is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Requests and answers.
    Messages,
    /// Who was connected to, and how long an answer took.
    Connections,
    /// Both.
    Everything,
}

/// Whether bodies may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bodies {
    Shown,
    /// They are secrets.
    Hidden,
}

/// Sends a request, and writes it and what came of it down where that is wanted.
pub(crate) async fn execute(
    config: &Config,
    client: &Client,
    request: Request,
    bodies: Bodies,
) -> Result<Response> {
    let Some(transcript) = &config.transcript else {
        return client.execute(request).await.map_err(unreachable);
    };
    let told = Told { transcript, config, bodies, what: first_line(&request), since: Instant::now() };
    let is_head = request.method() == Method::HEAD;
    told.request(&request).await;
    match client.execute(request).await.map_err(unreachable) {
        Ok(response) => told.answer(response, is_head).await,
        Err(error) => {
            told.connection(&format!("no answer: {}", error.chain())).await;
            Err(error)
        }
    }
}

/// One request as it is told of.
struct Told<'a> {
    transcript: &'a Transcript,
    config: &'a Config,
    bodies: Bodies,
    what: String,
    since: Instant,
}

impl Told<'_> {
    async fn write(&self, entry: String) {
        (self.transcript.listen)(entry).await;
    }

    fn wants_messages(&self) -> bool {
        self.transcript.detail != Detail::Connections
    }

    async fn connection(&self, outcome: &str) {
        if self.transcript.detail != Detail::Messages {
            let took = self.since.elapsed().as_millis();
            self.write(format!("# {}: {} after {took} ms\r\n", self.what, shown(outcome))).await;
        }
    }

    async fn request(&self, request: &Request) {
        if !self.wants_messages() {
            return;
        }
        let mut entry = format!("{} {:?}\r\nHost: {}\r\n", self.what, Version::HTTP_11, host(request.url()));
        headers(&mut entry, request.headers(), request.url());
        let body = request.body().map(|body| body.as_bytes());
        let length = request.headers().get(CONTENT_LENGTH).and_then(number);
        match body {
            None => {}
            Some(Some(bytes)) if self.may_show(request.headers(), bytes.len()) => text(&mut entry, bytes),
            Some(bytes) => passed_over(&mut entry, bytes.map(<[u8]>::len).or(length)),
        }
        self.write(entry).await;
    }

    async fn answer(&self, response: Response, is_head: bool) -> Result<Response> {
        let (version, status) = (response.version(), response.status());
        let from = response.remote_addr().map_or_else(|| "somebody".to_owned(), |from| from.to_string());
        self.connection(&format!("{} from {from} over {version:?}", status.as_u16())).await;
        if !self.wants_messages() {
            return Ok(response);
        }
        let mut entry = format!("{version:?} {status}\r\n");
        headers(&mut entry, response.headers(), response.url());
        let length = response.headers().get(CONTENT_LENGTH).and_then(number);
        if is_head || length == Some(0) {
            self.write(entry).await;
            return Ok(response);
        }
        if !length.is_some_and(|length| self.may_show(response.headers(), length)) {
            passed_over(&mut entry, length);
            self.write(entry).await;
            return Ok(response);
        }
        let (response, body) = whole(self.config, response).await?;
        text(&mut entry, &body);
        self.write(entry).await;
        Ok(response)
    }

    fn may_show(&self, headers: &HeaderMap, length: usize) -> bool {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let is_text = kind.starts_with("text/") || kind.ends_with("json");
        self.bodies == Bodies::Shown && is_text && length <= BODY
    }
}

/// Takes a short body out of an answer, and gives both.
async fn whole(config: &Config, response: Response) -> Result<(Response, Bytes)> {
    let (parts, body) = http::Response::<Body>::from(response).into_parts();
    let body = Response::from(http::Response::new(body)).bytes();
    let late = |_| Error::unavailable("too slow: a short answer did not come in time");
    let body = tokio::time::timeout(config.read_timeout, body).await.map_err(late)?.map_err(unreachable)?;
    Ok((http::Response::from_parts(parts, body.clone()).into(), body))
}

fn number(value: &HeaderValue) -> Option<usize> {
    value.to_str().ok()?.parse().ok()
}

fn first_line(request: &Request) -> String {
    let url = masked(request.url());
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{} {}{query}", request.method(), url.path())
}

fn host(url: &Url) -> String {
    let origin = url.origin().ascii_serialization();
    origin.split_once("://").map(|(_, host)| host.to_owned()).unwrap_or(origin)
}

/// An address without what could be a secret.
fn masked(url: &Url) -> Url {
    let mut masked = url.clone();
    // An address that cannot have them has none.
    let _ = masked.set_username("").and_then(|()| masked.set_password(None));
    masked.set_fragment(None);
    if url.query().is_some() {
        masked.query_pairs_mut().clear();
        for (key, value) in url.query_pairs() {
            let value = if PLAIN.contains(&&*key) { &*value } else { HIDDEN };
            masked.query_pairs_mut().append_pair(&key, value);
        }
    }
    masked
}

fn headers(entry: &mut String, headers: &HeaderMap, base: &Url) {
    for (name, value) in headers {
        let value = header(name, value, base);
        let _ = write!(entry, "{name}: {value}\r\n");
    }
    entry.push_str("\r\n");
}

fn header(name: &HeaderName, value: &HeaderValue, base: &Url) -> String {
    let Ok(text) = value.to_str() else { return HIDDEN.to_owned() };
    if *name == LOCATION {
        return base.join(text).map_or_else(|_| HIDDEN.to_owned(), |url| shown(masked(&url).as_str()));
    }
    let is_harmless = !value.is_sensitive() && HARMLESS.contains(&name.as_str());
    if is_harmless { shown(text) } else { HIDDEN.to_owned() }
}

/// What somebody else has written, in one line and not too long.
fn shown(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(VALUE).collect()
}

/// A body's own lines. Nothing in it reaches a terminal as anything but text.
fn text(entry: &mut String, body: &[u8]) {
    let body = String::from_utf8_lossy(body);
    entry
        .extend(body.chars().filter(|character| !character.is_control() || matches!(character, '\n' | '\t')));
    if !body.ends_with('\n') {
        entry.push_str("\r\n");
    }
}

fn passed_over(entry: &mut String, length: Option<usize>) {
    let length = length.map_or_else(|| "some".to_owned(), |length| length.to_string());
    let _ = write!(entry, "[{length} bytes]\r\n");
}
