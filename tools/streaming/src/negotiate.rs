//! Which protocol a request is upgraded to.

use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper::{Method, StatusCode};

use crate::request::Request;
use crate::websocket::{Codec, handshake};

/// What SPDY's clients offer.
pub(crate) const OFFERED: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What they could have offered.
pub(crate) const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

const PORTS: &str = "portforward.k8s.io";
const TUNNELLED_PORTS: &str = "SPDY/3.1+portforward.k8s.io";
const PROCESS: [&str; 4] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// Of the protocol of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V1,
    V2,
    V3,
    V4,
    V5,
}

impl Version {
    /// Whether a peer with a terminal opens a stream for its sizes.
    pub(crate) fn has_sizes(self) -> bool {
        self >= Self::V3
    }

    /// Whether the end is told by a status with an exit code.
    pub(crate) fn has_status(self) -> bool {
        self >= Self::V4
    }
}

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Spdy,
    Channels(Codec),
    /// SPDY within a WebSocket.
    Tunnel,
}

/// What was agreed on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) carrier: Carrier,
    pub(crate) version: Version,
    /// The headers of the answer.
    pub(crate) headers: Vec<(HeaderName, String)>,
}

/// Why nothing was agreed on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
    pub(crate) headers: Vec<(HeaderName, String)>,
}

/// Agrees on the first protocol of the client's list that is known here, as Kubernetes does.
pub(crate) fn agree(method: &Method, headers: &HeaderMap, request: &Request) -> Result<Agreed, Refusal> {
    let upgrade = all(headers, &UPGRADE).to_ascii_lowercase();
    if !all(headers, &CONNECTION).to_ascii_lowercase().contains("upgrade") {
        return Err(bad("unable to upgrade: the request has no Connection: Upgrade".to_owned()));
    }
    let forwards = matches!(request, Request::PortForward(_));
    if upgrade == "websocket" {
        websocket(method, headers, forwards)
    } else if upgrade.contains("spdy/3.1") {
        spdy(headers, forwards)
    } else {
        Err(bad(format!("unable to upgrade to {upgrade:?}: SPDY/3.1 and websocket are possible")))
    }
}

fn spdy(headers: &HeaderMap, forwards: bool) -> Result<Agreed, Refusal> {
    let offered = all(headers, &OFFERED);
    let known: &[&str] = if forwards { &[PORTS] } else { &PROCESS };
    let Some(name) = names(&offered).find(|name| known.contains(name)) else {
        if names(&offered).next().is_none() {
            return Err(bad(format!("unable to upgrade: the request has no {OFFERED}")));
        }
        return Err(Refusal {
            status: StatusCode::FORBIDDEN,
            text: format!(
                "unable to negotiate protocol: client supports {offered}, server accepts {known:?}"
            ),
            headers: known.iter().map(|name| (ACCEPTED, (*name).to_owned())).collect(),
        });
    };
    let headers = vec![(UPGRADE, "SPDY/3.1".to_owned()), (OFFERED, name.to_owned())];
    Ok(Agreed { carrier: Carrier::Spdy, version: version(name), headers })
}

fn websocket(method: &Method, headers: &HeaderMap, forwards: bool) -> Result<Agreed, Refusal> {
    if method != Method::GET {
        return Err(bad(format!("a WebSocket is opened by GET, not by {method}")));
    }
    if all(headers, &SEC_WEBSOCKET_VERSION) != "13" {
        return Err(Refusal {
            status: StatusCode::UPGRADE_REQUIRED,
            text: "of WebSockets only version 13 is spoken".to_owned(),
            headers: vec![(SEC_WEBSOCKET_VERSION, "13".to_owned())],
        });
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| handshake::accept(key.as_bytes()));
    let Some(answer) = key else {
        return Err(bad("the WebSocket has no key, or one that is none".to_owned()));
    };
    let mut answers =
        vec![(UPGRADE, "websocket".to_owned()), (HeaderName::from_static("sec-websocket-accept"), answer)];
    let offered = all(headers, &SEC_WEBSOCKET_PROTOCOL);
    if names(&offered).next().is_none() {
        return Ok(Agreed { carrier: Carrier::Channels(Codec::Raw), version: Version::V1, headers: answers });
    }
    let found = names(&offered).find_map(|name| channels(name, forwards).map(|carrier| (name, carrier)));
    let Some((name, carrier)) = found else {
        return Err(Refusal {
            status: StatusCode::FORBIDDEN,
            text: format!("unable to negotiate protocol: none of {offered} is spoken here"),
            headers: Vec::new(),
        });
    };
    answers.push((SEC_WEBSOCKET_PROTOCOL, name.to_owned()));
    Ok(Agreed { carrier, version: version(name), headers: answers })
}

fn channels(name: &str, forwards: bool) -> Option<Carrier> {
    match name {
        TUNNELLED_PORTS if forwards => Some(Carrier::Tunnel),
        "v4.channel.k8s.io" => Some(Carrier::Channels(Codec::Raw)),
        "v4.base64.channel.k8s.io" => Some(Carrier::Channels(Codec::Base64)),
        "v5.channel.k8s.io" if !forwards => Some(Carrier::Channels(Codec::RawWithClose)),
        "channel.k8s.io" if !forwards => Some(Carrier::Channels(Codec::Raw)),
        "base64.channel.k8s.io" if !forwards => Some(Carrier::Channels(Codec::Base64)),
        _ => None,
    }
}

fn version(name: &str) -> Version {
    match name.as_bytes() {
        [b'v', b'2', ..] => Version::V2,
        [b'v', b'3', ..] => Version::V3,
        [b'v', b'4', ..] => Version::V4,
        [b'v', b'5', ..] => Version::V5,
        _ => Version::V1,
    }
}

/// The values of a header that may be there several times.
fn all(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<_> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}

fn bad(text: String) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, text, headers: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{AttachRequest, PortForwardRequest, Process, Wanted};

    fn process() -> Request {
        let container = "c".parse().unwrap();
        Request::Process(Process::Attach(AttachRequest { container, wanted: Wanted::default() }))
    }

    fn ports() -> Request {
        Request::PortForward(PortForwardRequest { pod: "p".parse().unwrap(), ports: Vec::new() })
    }

    fn agreed(request: &Request, headers: &[(&'static str, &str)]) -> Result<(Carrier, Version), StatusCode> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let agreed = agree(&Method::GET, &map, request);
        agreed.map(|agreed| (agreed.carrier, agreed.version)).map_err(|refusal| refusal.status)
    }

    fn spdy(request: &Request, offers: &[&str]) -> Result<(Carrier, Version), StatusCode> {
        let mut headers = vec![("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")];
        headers.extend(offers.iter().map(|offer| ("x-stream-protocol-version", *offer)));
        agreed(request, &headers)
    }

    fn websocket(request: &Request, offer: &str) -> Result<(Carrier, Version), StatusCode> {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let mut headers = vec![("connection", "Upgrade"), ("upgrade", "WebSocket")];
        headers.extend([("sec-websocket-version", "13"), ("sec-websocket-key", key)]);
        headers.push(("sec-websocket-protocol", offer));
        agreed(request, &headers)
    }

    #[test]
    fn the_clients_first_known_protocol_is_taken() {
        let spdy4 = Ok((Carrier::Spdy, Version::V4));
        assert_eq!(spdy(&process(), &["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]), spdy4);
        assert_eq!(spdy(&process(), &["v9, v4.channel.k8s.io"]), spdy4);
        assert_eq!(spdy(&process(), &["channel.k8s.io"]), Ok((Carrier::Spdy, Version::V1)));
        assert_eq!(spdy(&ports(), &["portforward.k8s.io"]), Ok((Carrier::Spdy, Version::V1)));
        let raw = Codec::RawWithClose;
        let (raw, text) = (Carrier::Channels(raw), Carrier::Channels(Codec::Base64));
        assert_eq!(websocket(&process(), "v5.channel.k8s.io, v4.channel.k8s.io"), Ok((raw, Version::V5)));
        assert_eq!(websocket(&process(), "base64.channel.k8s.io"), Ok((text, Version::V1)));
        assert_eq!(websocket(&process(), ""), Ok((Carrier::Channels(Codec::Raw), Version::V1)));
        assert_eq!(websocket(&ports(), TUNNELLED_PORTS), Ok((Carrier::Tunnel, Version::V1)));
    }

    #[test]
    fn what_is_not_spoken_is_refused() {
        assert_eq!(spdy(&process(), &[]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(spdy(&process(), &["portforward.k8s.io"]), Err(StatusCode::FORBIDDEN));
        assert_eq!(spdy(&ports(), &["v4.channel.k8s.io"]), Err(StatusCode::FORBIDDEN));
        assert_eq!(websocket(&process(), TUNNELLED_PORTS), Err(StatusCode::FORBIDDEN));
        assert_eq!(websocket(&ports(), "v5.channel.k8s.io"), Err(StatusCode::FORBIDDEN));
        assert_eq!(agreed(&process(), &[]), Err(StatusCode::BAD_REQUEST));
        let h2c = [("connection", "upgrade"), ("upgrade", "h2c")];
        assert_eq!(agreed(&process(), &h2c), Err(StatusCode::BAD_REQUEST));
        let old = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "8")];
        assert_eq!(agreed(&process(), &old), Err(StatusCode::UPGRADE_REQUIRED));
    }
}
