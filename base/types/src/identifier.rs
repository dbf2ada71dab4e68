//! Names that are valid once they exist.
//!
//! Identifiers follow containerd's rule (`pkg/identifiers`): one to 76 bytes, letters and digits,
//! with single `.`, `_` or `-` between them. Keys and references that containerd leaves to the
//! client only have to be there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const MAX_LENGTH: usize = 76;

/// Checks containerd's rule for identifiers; `what` names the object in the error.
fn check_identifier(what: &str, text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::invalid_argument(format!("{what} must not be empty")));
    }
    if text.len() > MAX_LENGTH {
        return Err(Error::invalid_argument(format!(
            "{what} {text:?} is longer than the maximum of {MAX_LENGTH} characters"
        )));
    }
    let mut between = true;
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => between = false,
            b'.' | b'_' | b'-' if !between => between = true,
            _ => {
                between = true;
                break;
            }
        }
    }
    if between {
        return Err(Error::invalid_argument(format!(
            "{what} {text:?} must be letters and digits, with single '.', '_' or '-' between them"
        )));
    }
    Ok(())
}

fn check_present(what: &str, text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::invalid_argument(format!("{what} must not be empty")));
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $check:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                $check($what, text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                $check($what, &text)?;
                Ok(Self(text.into()))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    )*};
}

names! {
    /// A containerd namespace: everything but the bytes of content is apart in each.
    Namespace, "namespace", check_identifier;
    /// The name of a container and of its task.
    ContainerId, "container id", check_identifier;
    /// The name of one more process in a task.
    ExecId, "exec id", check_identifier;
    /// The name of a sandbox: of a pod.
    SandboxId, "sandbox id", check_identifier;
    /// The name of a snapshotter, such as `overlayfs`.
    SnapshotterName, "snapshotter", check_identifier;
    /// The name of a lease.
    LeaseId, "lease id", check_present;
    /// The key of a snapshot: a client's choice while active, often a chain id once committed.
    SnapshotKey, "snapshot key", check_present;
    /// The name under which an ingest can be resumed.
    IngestRef, "ingest reference", check_present;
    /// The name of an image record, usually a full reference.
    ImageName, "image name", check_present;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_containerds_rule() {
        for good in ["a", "default", "k8s.io", "a-b_c.d", &"x".repeat(76)] {
            assert!(good.parse::<ContainerId>().is_ok(), "{good}");
        }
        for bad in ["", ".", "-a", "a-", "a..b", "a/b", "ä", "a b", "../x", &"x".repeat(77)] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_the_clients_choice_but_never_empty() {
        assert!("sha256:abc def/..".parse::<SnapshotKey>().is_ok());
        assert!("".parse::<SnapshotKey>().is_err());
    }
}
