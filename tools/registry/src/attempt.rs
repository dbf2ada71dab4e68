//! What was tried, host by host, for the error when all of it failed.

use std::fmt;

use berth_types::{Error, ErrorKind};
use reqwest::StatusCode;
use serde::Deserialize;

/// Why one host did not give what was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    /// The status, if the host answered with one.
    pub(crate) status: Option<StatusCode>,
    /// The host with its scheme.
    pub(crate) host: String,
    /// Such as `GET /v2/a/manifests/1`.
    pub(crate) step: String,
    /// What came of it.
    pub(crate) outcome: String,
    /// How long the host wants to be left alone.
    pub(crate) pause: Option<std::time::Duration>,
}

impl Failure {
    /// Whether the host may not even have understood the request: TLS was spoken to a server without, or none to
    /// one with.
    pub(crate) fn is_misunderstanding(&self) -> bool {
        self.status.is_none_or(|status| status == StatusCode::BAD_REQUEST)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.host, self.step, self.outcome)
    }
}

/// Every failure becomes one error, whose kind is that of the last host: the registry itself comes after its mirrors.
pub(crate) fn failed(what: &str, failures: Vec<Failure>) -> Error {
    let Some(last) = failures.last() else {
        return Error::failed_precondition(format!("{what}: no host is configured for it"));
    };
    let kind = last.kind;
    let lines: Vec<String> = failures.iter().map(ToString::to_string).collect();
    Error::new(kind, format!("{what}: {}", lines.join("; ")))
}

/// Registries' own errors (distribution-spec, "Error codes").
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// A status with the registry's own message. Control characters do not reach a terminal.
pub(crate) fn outcome(status: StatusCode, body: &[u8]) -> String {
    let mut text = status.as_u16().to_string();
    if let Some(reason) = status.canonical_reason() {
        text = format!("{text} {reason}");
    }
    let Ok(body) = serde_json::from_slice::<Body>(body) else { return text };
    for Entry { code, message } in body.errors.into_iter().take(4) {
        let said = match (code.is_empty(), message.is_empty()) {
            (false, false) => format!("{code}: {message}"),
            _ => code + &message,
        };
        let said: String = said.chars().filter(|character| !character.is_control()).take(300).collect();
        text = format!("{text} ({said})");
    }
    text
}

/// What a status means to whoever asked.
pub(crate) fn kind(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        400 | 405 | 416 => ErrorKind::InvalidArgument,
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::PermissionDenied,
        404 | 410 => ErrorKind::NotFound,
        408 | 504 => ErrorKind::DeadlineExceeded,
        409 => ErrorKind::Aborted,
        413 | 429 => ErrorKind::ResourceExhausted,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Unknown,
    }
}
