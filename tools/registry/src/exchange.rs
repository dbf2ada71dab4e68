//! One request to one host: authorization, redirects, repetitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_types::{Error, ErrorKind, Result};
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};

use crate::attempt::{self, Failure};
use crate::auth::Party;
use crate::config::Config;
use crate::pace::Pace;
use crate::registries::Waits;
use crate::retry;
use crate::transcript::{self, Bodies};

/// Addresses after the first.
const MAX_REDIRECTS: usize = 10;

/// A host that has all of a body may be silent for so many times as long as otherwise.
const LOOKING: u32 = 5;

/// Bytes of an error's body.
const ERROR_BODY: usize = 64 << 10;

/// A request as it is made again after a failure.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Content<'a>,
    /// Statuses, beside those of success, which are an answer and no failure.
    pub(crate) answers: &'a [StatusCode],
}

/// What a request carries.
pub(crate) enum Content<'a> {
    Nothing,
    Whole(Bytes),
    /// Made anew for the one time that it is sent; it counts what has gone.
    Stream(&'a (dyn Fn() -> Body + Sync), &'a Sent),
}

/// Bytes of a body that have been taken to be sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent(Arc<AtomicU64>);

impl Sent {
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Resolves once too little has gone for too long. A host that has all of it may take its time to look at it.
    async fn stalled(&self, config: &Config, size: u64) -> Error {
        let mut before = 0;
        loop {
            tokio::time::sleep(config.read_timeout).await;
            let sent = self.0.load(Ordering::Relaxed);
            if sent >= size {
                tokio::time::sleep(config.read_timeout.saturating_mul(LOOKING)).await;
                return Error::unavailable("no answer in time to all that was sent");
            }
            if sent - before < config.least {
                let seconds = config.read_timeout.as_secs_f32();
                let went = sent - before;
                return Error::unavailable(format!("too slow: it took {went} bytes in {seconds} s"));
            }
            before = sent;
        }
    }
}

impl Call<'_> {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Content::Nothing, answers: &[] }
    }

    fn step(&self) -> String {
        format!("{} {}", self.method, self.url.path())
    }

    /// A stream is not repeated here: whoever has it begins its upload anew.
    fn repeats(&self) -> bool {
        !matches!(self.body, Content::Stream(..))
    }
}

pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

/// Sends a request until it is answered, and follows where the answer leads.
pub(crate) async fn send(party: Party<'_>, call: &Call<'_>) -> Result<Response, Failure> {
    let config = &party.shared.config;
    let (mut tries, mut refusals) = (0, 0);
    let mut authorization = party.header().await;
    loop {
        let (outcome, foreign) = follow(party, call, authorization.as_ref()).await;
        let (failure, pause) = match outcome {
            Ok(mut response) => {
                let status = response.status();
                if status.is_success() || call.answers.contains(&status) {
                    return Ok(response);
                }
                if status == StatusCode::UNAUTHORIZED && !foreign && refusals < 2 {
                    refusals += 1;
                    let answer = party.answer(response.headers(), authorization.as_ref()).await;
                    let refused = |error| Failure { status: Some(status), ..failure(party, call, error) };
                    authorization = Some(answer.map_err(refused)?);
                    // Whoever has a stream sends it again, with what was good now.
                    if call.repeats() {
                        continue;
                    }
                }
                let pause = retry::pause(config.pause, tries, Some(response.headers()));
                let body = bounded(&mut response, ERROR_BODY, Pace::of(config)).await.unwrap_or_default();
                let failure = Failure {
                    kind: attempt::kind(status),
                    status: Some(status),
                    host: shown(&party.host.base),
                    step: call.step(),
                    outcome: attempt::outcome(status, &body),
                    pause: retry::asked(response.headers()),
                };
                (failure, pause.filter(|_| retry::passes(status)))
            }
            Err(error) => {
                let passes = error.kind() == ErrorKind::Unavailable;
                let pause = retry::pause(config.pause, tries, None).filter(|_| passes);
                (failure(party, call, error), pause)
            }
        };
        match pause {
            Some(pause) if tries < config.retries && call.repeats() => {
                tries += 1;
                tokio::time::sleep(pause).await;
            }
            _ => {
                let mut failure = failure;
                if call.method == Method::HEAD && failure.status.is_some_and(is_worth_a_word) {
                    match words(party, call, authorization.as_ref()).await {
                        Ok(response) => return Ok(response),
                        Err(Some(outcome)) => failure.outcome = outcome,
                        Err(None) => {}
                    }
                }
                if tries > 0 {
                    failure.outcome = format!("{}, after {} tries", failure.outcome, tries + 1);
                }
                return Err(failure);
            }
        }
    }
}

/// Whether it is worth a request more to hear why. Not where requests are what there are too many of.
fn is_worth_a_word(status: StatusCode) -> bool {
    !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::UNAUTHORIZED)
}

/// The answer to a head has no body, so the host's own words are asked for; a host that only does not know heads
/// gives what was asked for.
async fn words(
    party: Party<'_>,
    call: &Call<'_>,
    authorization: Option<&reqwest::header::HeaderValue>,
) -> Result<Response, Option<String>> {
    let get = Call { headers: call.headers.clone(), ..Call::new(Method::GET, call.url.clone()) };
    let (answered, _) = follow(party, &get, authorization).await;
    let mut response = answered.map_err(|_| None)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = bounded(&mut response, ERROR_BODY, Pace::of(&party.shared.config)).await;
    Err(Some(attempt::outcome(status, &body.unwrap_or_default())))
}

fn failure(party: Party<'_>, call: &Call<'_>, error: Error) -> Failure {
    Failure {
        kind: error.kind(),
        status: None,
        host: shown(&party.host.base),
        step: call.step(),
        outcome: error.chain(),
        pause: None,
    }
}

fn shown(base: &Url) -> String {
    base.origin().ascii_serialization()
}

/// Sends a request once and goes where it is sent on to. Also says whether the answer is from another host, whose
/// wishes for credentials are not met.
async fn follow(
    party: Party<'_>,
    call: &Call<'_>,
    authorization: Option<&reqwest::header::HeaderValue>,
) -> (Result<Response>, bool) {
    let mut url = call.url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let own = same_origin(&url, &party.host.base);
        let response = match once(party, call, url.clone(), own, authorization).await {
            Ok(response) => response,
            Err(error) => return (Err(error), !own),
        };
        if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
            return (Ok(response), !own);
        }
        match next(call, &url, &response) {
            Ok(next) => url = next,
            Err(error) => return (Err(error), !own),
        }
    }
    (Err(Error::failed_precondition(format!("more than {MAX_REDIRECTS} redirects"))), true)
}

async fn once(
    party: Party<'_>,
    call: &Call<'_>,
    url: Url,
    own: bool,
    authorization: Option<&reqwest::header::HeaderValue>,
) -> Result<Response> {
    let waits = if call.repeats() { Waits::ForAnswers } else { Waits::ForBodies };
    let client =
        if own { party.shared.client(party.host, waits)? } else { party.shared.foreign_client(waits)? };
    let mut request = client.request(call.method.clone(), url).headers(call.headers.clone());
    if own {
        request = request.headers(party.host.headers.clone());
        if let Some(header) = authorization {
            request = request.header(AUTHORIZATION, header);
        }
    }
    let streamed = match &call.body {
        Content::Nothing => None,
        Content::Whole(bytes) => {
            request = request.body(bytes.clone());
            None
        }
        Content::Stream(make, sent) => {
            request = request.body(make());
            Some(sent)
        }
    };
    let config = &party.shared.config;
    let request = request.build().map_err(unreachable)?;
    let answer = transcript::execute(config, &client, request, Bodies::Shown);
    let Some(sent) = streamed else { return answer.await };
    let size = call.headers.get(CONTENT_LENGTH).and_then(|size| size.to_str().ok()?.parse().ok());
    tokio::select! {
        biased;
        answer = answer => answer,
        stalled = sent.stalled(config, size.unwrap_or(u64::MAX)) => Err(stalled),
    }
}

/// Where a redirect leads, if a request may follow it.
fn next(call: &Call<'_>, from: &Url, response: &Response) -> Result<Url> {
    let bad = |why: &str| Error::failed_precondition(format!("{} with {why}", response.status().as_u16()));
    let location = response.headers().get(LOCATION).ok_or_else(|| bad("no Location"))?;
    let location = location.to_str().map_err(|_| bad("a Location that is no address"))?;
    let next = join(from, location)?;
    if !matches!(call.method, Method::GET | Method::HEAD) && !same_origin(from, &next) {
        return Err(bad("a Location on another host for a request that changes something"));
    }
    Ok(next)
}

/// An address that a registry gives: absolute or relative, never from TLS to none.
pub(crate) fn join(from: &Url, location: &str) -> Result<Url> {
    let shown: String = location.chars().filter(|character| !character.is_control()).take(200).collect();
    let bad = |why: &str| Error::failed_precondition(format!("the Location {shown:?} {why}"));
    let next = from.join(location).map_err(|_| bad("is no address"))?;
    match (from.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => Ok(next),
        ("https", "http") => Err(bad("leads from TLS to none")),
        _ => Err(bad("is neither http nor https")),
    }
}

/// A failure of the way to a host. The address stands in the error's own text.
pub(crate) fn unreachable(error: reqwest::Error) -> Error {
    let error = error.without_url();
    // Clients of containerd know these two by Go's words, and try again without TLS where that is allowed.
    if has(&error, |cause: &rustls::Error| matches!(cause, rustls::Error::InvalidMessage(_))) {
        let text = "cannot connect: server gave HTTP response to HTTPS client";
        return Error::failed_precondition(text).caused_by(error);
    }
    let is_refused = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::ConnectionRefused;
    let text = if has(&error, is_refused) {
        "cannot connect: connection refused"
    } else if error.is_connect() {
        "cannot connect"
    } else if error.is_timeout() {
        "no answer in time"
    } else {
        "the connection broke"
    };
    Error::unavailable(text).caused_by(error)
}

/// Whether an error or one of its causes is a certain one.
fn has<E: std::error::Error + 'static>(
    error: &(dyn std::error::Error + 'static),
    is_it: impl Fn(&E) -> bool + Copy,
) -> bool {
    if error.downcast_ref::<E>().is_some_and(is_it) {
        return true;
    }
    // An I/O error that stands for another one gives that one's cause as its own.
    if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        return has(inner, is_it);
    }
    error.source().is_some_and(|cause| has(cause, is_it))
}

/// Reads a body of at most `limit` bytes that comes fast enough.
pub(crate) async fn bounded(response: &mut Response, limit: usize, mut pace: Pace) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        pace.count(chunk.len())?;
        if body.len() + chunk.len() > limit {
            return Err(Error::resource_exhausted(format!("the answer has more than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_relative_or_absolute_and_keep_their_tls() {
        let https = Url::parse("https://r.test/v2/a/blobs/uploads/").unwrap();
        assert_eq!(join(&https, "/v2/x?y=1").unwrap().as_str(), "https://r.test/v2/x?y=1");
        assert_eq!(join(&https, "https://cdn.test/z").unwrap().host_str(), Some("cdn.test"));
        for bad in ["http://r.test/x", "file:///etc/passwd", "ftp://r.test"] {
            assert!(join(&https, bad).is_err(), "{bad}");
        }
        let http = Url::parse("http://127.0.0.1:5000/v2/").unwrap();
        assert!(join(&http, "http://127.0.0.1:6000/x").is_ok());
    }

    #[tokio::test]
    async fn a_host_without_tls_and_one_that_is_not_there_are_told_apart() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let plain = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Whatever it was, it was no HTTP.
            let _ = stream.read(&mut [0; 512]);
            stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").unwrap();
        });
        let ask = async || {
            let asked = reqwest::Client::new().get(format!("https://{address}/")).send().await;
            unreachable(asked.unwrap_err())
        };
        let error = ask().await;
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.message().contains("server gave HTTP response to HTTPS client"), "{error:?}");
        plain.join().unwrap();
        let error = ask().await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("connect: connection refused"), "{error:?}");
    }
}
