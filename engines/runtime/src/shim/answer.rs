//! What a shim's `start` answers: how to reach it.
//!
//! Three forms are accepted, as containerd does: a `BootstrapResult` message (2.3), its JSON (2.0), and
//! a bare address (1.x: ttrpc, task API version 2). The JSON is also the form of `bootstrap.json`.

use std::path::{Path, PathBuf};

use berth_core::Endpoint;
use berth_proto as proto;
use berth_types::{Error, Result};
use prost::Message;
use proto::containerd::runtime::bootstrap::v1::BootstrapResult;
use serde::{Deserialize, Serialize};

/// How to reach a shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Of the task API: 2 or 3.
    #[serde(default)]
    pub(crate) version: i32,
    #[serde(default)]
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) protocol: String,
}

/// What is spoken at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Ttrpc,
    Grpc,
}

/// A unix socket's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Socket {
    Path(PathBuf),
    /// Of containerd before 1.4: a name that is no path.
    Abstract(Vec<u8>),
}

const OLDEST: i32 = 2;
const NEWEST: i32 = 3;
/// How much of a wrong answer is shown.
const SHOWN: usize = 200;

impl Answer {
    /// A shim of containerd 1.x, which says only this.
    pub(crate) fn bare(address: &str) -> Self {
        Self { version: OLDEST, address: address.trim().to_owned(), protocol: "ttrpc".to_owned() }
    }

    /// Our own shim on a socket that the daemon made.
    pub(crate) fn at(socket: &Path) -> Self {
        let address = format!("unix://{}", socket.display());
        Self { version: NEWEST, address, protocol: "ttrpc".to_owned() }
    }

    /// Somebody else's, who runs a sandbox.
    pub(crate) fn of_endpoint(endpoint: &Endpoint) -> Result<Self> {
        let wrong = || {
            Error::invalid_argument(format!(
                "the address of the task API {:?} is none such as ttrpc+unix:///PATH",
                endpoint.address
            ))
        };
        let (protocol, address) = endpoint.address.split_once('+').ok_or_else(wrong)?;
        let version = i32::try_from(endpoint.version).map_err(|_| wrong())?;
        Self { version, address: address.to_owned(), protocol: protocol.to_owned() }.checked()
    }

    /// The same for others.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let version = u32::try_from(self.version).unwrap_or_default();
        Endpoint { address: format!("{}+{}", self.protocol.to_ascii_lowercase(), self.address), version }
    }

    /// Reads an answer and checks that it leads somewhere.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            // As of one that was joining a shim which ended; another start may find it gone.
            return Err(Error::unavailable("the shim's program ended without an answer"));
        }
        let answer = Self::read(bytes).ok_or_else(|| {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned();
            Error::unknown(format!("the shim's answer {shown:?} is no address"))
        })?;
        answer.checked()
    }

    fn checked(self) -> Result<Self> {
        if !(OLDEST..=NEWEST).contains(&self.version) {
            return Err(Error::not_implemented(format!(
                "the shim speaks version {} of the task API; known are {OLDEST} to {NEWEST}",
                self.version
            )));
        }
        self.protocol()?;
        self.socket()?;
        Ok(self)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().map(str::trim);
        match text {
            Some("") => None,
            Some(text) if text.starts_with('{') => {
                let answer: Self = serde_json::from_str(text).ok()?;
                Some(answer).filter(|answer| !answer.address.is_empty())
            }
            Some(text)
                if text.starts_with('/') || text.contains("://") && !text.contains(char::is_control) =>
            {
                Some(Self::bare(text))
            }
            _ => {
                let BootstrapResult { version, address, protocol, .. } =
                    BootstrapResult::decode(bytes).ok()?;
                Some(Self { version, address, protocol }).filter(|answer| !answer.address.is_empty())
            }
        }
    }

    /// The form in which it is kept in the bundle.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and a number are always JSON")
    }

    pub(crate) fn protocol(&self) -> Result<Protocol> {
        match self.protocol.to_ascii_lowercase().as_str() {
            "ttrpc" => Ok(Protocol::Ttrpc),
            "grpc" => Ok(Protocol::Grpc),
            other => {
                Err(Error::not_implemented(format!("the shim speaks {other:?}; known are ttrpc and grpc")))
            }
        }
    }

    pub(crate) fn socket(&self) -> Result<Socket> {
        match self.address.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Socket::Path(PathBuf::from(path))),
            Some(("unix", name)) if !name.is_empty() => Ok(Socket::Abstract(name.as_bytes().to_vec())),
            None if self.address.starts_with('/') => {
                // containerd 1.x reads a path without a scheme as an abstract name, gRPC shims mean a file.
                Ok(Socket::Path(PathBuf::from(&self.address)))
            }
            _ => Err(Error::not_implemented(format!(
                "the shim's address {:?} is none of a unix socket",
                self.address
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: &str = "unix:///run/containerd/s/abc";

    fn message() -> Vec<u8> {
        let (address, protocol) = (ADDRESS.to_owned(), "grpc".to_owned());
        BootstrapResult { version: 3, address, protocol, ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn all_three_forms_are_read() {
        let json = format!(r#"{{"version":3,"address":"{ADDRESS}","protocol":"ttrpc"}}"#);
        let bare = format!("{ADDRESS}\n");
        for (bytes, version, protocol) in [
            (message(), 3, Protocol::Grpc),
            (json.into_bytes(), 3, Protocol::Ttrpc),
            (bare.into_bytes(), 2, Protocol::Ttrpc),
        ] {
            let answer = Answer::parse(&bytes).unwrap();
            assert_eq!((answer.version, answer.protocol().unwrap()), (version, protocol));
            assert_eq!(answer.socket().unwrap(), Socket::Path("/run/containerd/s/abc".into()));
            assert_eq!(Answer::parse(&answer.to_json()).unwrap(), answer);
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused_and_shown() {
        for bad in [
            "",
            "  \n",
            "hello",
            "{}",
            "{\"version\":3}",
            "vsock://3:4",
            r#"{"version":4,"address":"unix:///x","protocol":"ttrpc"}"#,
            r#"{"version":3,"address":"unix:///x","protocol":"smoke"}"#,
            r#"{"version":3,"address":"unix://","protocol":"ttrpc"}"#,
        ] {
            assert!(Answer::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Answer::parse(b"panic: oh no").unwrap_err().message().contains("oh no"));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_daemon_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Answer::parse(&bytes);
        }
    }
}
