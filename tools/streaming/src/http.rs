//! What comes before the streams: one HTTP/1.1 request that is upgraded, or refused.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};

use crate::negotiate::{Agreed, Carrier, Refusal, agree};
use crate::ports::MOST_PORTS;
use crate::request::Request;
use crate::tokens::Tokens;

type Answer = Response<Full<Bytes>>;

/// What is to be served once the answer is sent.
pub(crate) struct Plan {
    pub(crate) request: Request,
    pub(crate) agreed: Agreed,
}

/// Where the plan is left for whoever serves the connection.
#[derive(Clone, Default)]
pub(crate) struct Slot(Arc<Mutex<Option<Plan>>>);

impl Slot {
    pub(crate) fn take(&self) -> Option<Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Answers a request. The token in its path is used up, whatever comes of it.
pub(crate) fn answer<B>(request: &hyper::Request<B>, tokens: &Tokens, slot: &Slot) -> Answer {
    let method = request.method();
    if !matches!(*method, Method::GET | Method::POST) {
        let allow = vec![(ALLOW, "GET, POST".to_owned())];
        return refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "streams are opened by GET or POST".to_owned(),
            allow,
        );
    }
    let mut found = redeemed(request.uri().path(), tokens);
    if let Some(Request::PortForward(forward)) = &mut found
        && forward.ports.is_empty()
    {
        match ports(request.uri().query().unwrap_or_default()) {
            Some(ports) => forward.ports = ports,
            None => {
                return refused(StatusCode::BAD_REQUEST, "the query names no port".to_owned(), Vec::new());
            }
        }
    }
    let Some(found) = found else {
        let text = "no such stream: its URL was used, is older than a minute, or never was".to_owned();
        return refused(StatusCode::NOT_FOUND, text, Vec::new());
    };
    match agree(method, request.headers(), &found).and_then(|agreed| enough_ports(agreed, &found)) {
        Ok(agreed) => upgraded(found, agreed, slot),
        Err(Refusal { status, text, headers }) => refused(status, text, headers),
    }
}

fn redeemed(path: &str, tokens: &Tokens) -> Option<Request> {
    let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
    tokens.redeem(token).filter(|request| request.kind() == kind)
}

/// The ports of a query: `port=80,81&port=90`. None for nonsense.
fn ports(query: &str) -> Option<Vec<u16>> {
    let values = query.split('&').filter_map(|pair| pair.strip_prefix("port="));
    // A browser's form writes a comma as %2C.
    let values: Vec<_> = values.map(|value| value.replace("%2C", ",").replace("%2c", ",")).collect();
    let ports = values.iter().flat_map(|value| value.split(','));
    ports.map(|port| port.parse().ok().filter(|port| *port != 0)).collect()
}

/// Channels are numbered by the ports that were asked for, so that there have to be some.
fn enough_ports(agreed: Agreed, request: &Request) -> Result<Agreed, Refusal> {
    let Request::PortForward(forward) = request else { return Ok(agreed) };
    let count = forward.ports.len();
    if matches!(agreed.carrier, Carrier::Channels(_)) && !(1..=MOST_PORTS).contains(&count) {
        let text = format!("{count} ports cannot be forwarded over a WebSocket: 1 to {MOST_PORTS} can");
        return Err(Refusal { status: StatusCode::BAD_REQUEST, text, headers: Vec::new() });
    }
    Ok(agreed)
}

fn upgraded(request: Request, agreed: Agreed, slot: &Slot) -> Answer {
    let mut answer = plain(StatusCode::SWITCHING_PROTOCOLS, String::new(), &agreed.headers);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    *slot.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Plan { request, agreed });
    answer
}

fn refused(status: StatusCode, text: String, headers: Vec<(HeaderName, String)>) -> Answer {
    let mut answer = plain(status, text + "\n", &headers);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn plain(status: StatusCode, text: String, headers: &[(HeaderName, String)]) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    for (name, value) in headers {
        // Ours, or a name that the client sent as a header and that is one of ours.
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_query_are_numbers_above_zero() {
        assert_eq!(ports("port=80&x=1&port=81,82"), Some(vec![80, 81, 82]));
        assert_eq!(ports("port=80%2C81"), Some(vec![80, 81]));
        assert_eq!(ports(""), Some(vec![]));
        for wrong in ["port=0", "port=", "port=65536", "port=http", "port=1,,2"] {
            assert_eq!(ports(wrong), None, "{wrong}");
        }
    }
}
