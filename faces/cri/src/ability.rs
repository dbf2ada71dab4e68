//! What the runtimes of handlers can do, which their shims are asked once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use berth_proto::containerd::types::{RuntimeInfo, RuntimeRequest};
use berth_proto::convert::{any, pack, unpack};
use berth_types::{Error, Result};
use serde::Deserialize;

use crate::Cri;
use crate::config::Handler;

/// The part of a daemon that passes questions on to shims, as in containerd.
const PART: (&str, &str) = ("io.containerd.runtime.v2", "task");

/// What a kubelet wants to know of a runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Whether pods can have users of their own, with mounts that show files as theirs.
    pub(crate) user_namespaces: bool,
    /// Whether a mount can be read-only with all that is mounted below it.
    pub(crate) recursive_read_only_mounts: bool,
}

/// What shims have answered, by the handlers' names.
#[derive(Debug, Default)]
pub(crate) struct Asked(Mutex<HashMap<String, Abilities>>);

impl Cri {
    /// What a handler's runtime can do. One that cannot be asked can do nothing of it, and is asked again the next time.
    pub(crate) async fn abilities(&self, handler: &Handler) -> Abilities {
        let asked = || self.asked.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = asked().get(&handler.name) {
            return *known;
        }
        match self.ask(handler).await {
            Ok(abilities) => {
                asked().insert(handler.name.clone(), abilities);
                abilities
            }
            Err(error) => {
                tracing::debug!(handler = handler.name, "its shim cannot be asked: {}", error.chain());
                Abilities::default()
            }
        }
    }

    async fn ask(&self, handler: &Handler) -> Result<Abilities> {
        let program = &handler.runtime_path;
        let request = RuntimeRequest {
            runtime_path: if program.is_empty() { &handler.runtime.name } else { program }.clone(),
            options: handler.runtime.options.clone().map(any),
        };
        let answer = self.catalog.introspection().plugin(PART.0, PART.1, Some(pack(&request))).await?.1;
        let info: RuntimeInfo = answer.as_ref().map(unpack).transpose()?.unwrap_or_default();
        abilities(&info.features.map(|features| features.value).unwrap_or_default())
    }
}

/// Reads the features of a runtime (features.md of the OCI runtime specification). A runtime that tells none has none.
fn abilities(features: &[u8]) -> Result<Abilities> {
    if features.is_empty() {
        return Ok(Abilities::default());
    }
    let features: Features = serde_json::from_slice(features)
        .map_err(|error| Error::unknown("the runtime's features are malformed").caused_by(error))?;
    let linux = features.linux.unwrap_or_default();
    let has_idmapped_mounts = linux.mount_extensions.unwrap_or_default().idmap.unwrap_or_default().enabled;
    let has =
        |words: Option<Vec<String>>, word: &str| words.unwrap_or_default().iter().any(|one| one == word);
    Ok(Abilities {
        user_namespaces: has_idmapped_mounts.unwrap_or_default() && has(linux.namespaces, "user"),
        recursive_read_only_mounts: has(features.mount_options, "rro"),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    mount_options: Option<Vec<String>>,
    linux: Option<LinuxFeatures>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinuxFeatures {
    namespaces: Option<Vec<String>>,
    mount_extensions: Option<MountExtensions>,
}

#[derive(Default, Deserialize)]
struct MountExtensions {
    idmap: Option<Idmap>,
}

#[derive(Default, Deserialize)]
struct Idmap {
    enabled: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_runtime_can_do_is_read_from_its_features() {
        let of = |text: &str| abilities(text.as_bytes()).expect("it is well-formed");
        let all = Abilities { user_namespaces: true, recursive_read_only_mounts: true };
        let text = r#"{"mountOptions": ["ro", "rro"],
            "linux": {"namespaces": ["mount", "user"], "mountExtensions": {"idmap": {"enabled": true}}}}"#;
        assert_eq!(of(text), all);
        assert!(!of(&text.replace("rro", "rr")).recursive_read_only_mounts);
        for without in [text.replace("true", "false"), text.replace("user", "cgroup")] {
            assert!(!of(&without).user_namespaces, "{without}");
        }
        for none in ["", "{}", r#"{"linux": null, "mountOptions": null}"#, r#"{"linux": {"namespaces": []}}"#]
        {
            assert_eq!(of(none), Abilities::default(), "{none}");
        }
        assert!(abilities(b"[]").is_err());
    }
}
