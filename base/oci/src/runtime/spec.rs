//! The configuration of a container: `config.json` (runtime-spec, `config.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Hooks, Linux, Process, is_default, nullable};

/// Everything that a runtime is told about one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// Version of the specification that the document follows.
    #[serde(deserialize_with = "nullable")]
    pub oci_version: String,
    /// What to run; needed by `start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Its root filesystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Name in the container's UTS namespace.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub hostname: String,
    /// NIS domain name in the container's UTS namespace.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub domainname: String,
    /// Mounts beside the root filesystem, in order.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// Programs to run at points of its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Whatever the caller wants to remember.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
    /// Kept as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solaris: Option<Value>,
    /// Kept as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<Value>,
    /// Kept as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<Value>,
}

/// The root filesystem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Root {
    /// Absolute, or relative to the bundle.
    #[serde(deserialize_with = "nullable")]
    pub path: String,
    /// Whether the container may not write to it.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub readonly: bool,
}

/// One mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    /// Where, inside the container.
    #[serde(deserialize_with = "nullable")]
    pub destination: String,
    /// Filesystem type; `bind` or empty with a `bind` option for a bind mount.
    #[serde(rename = "type", deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub kind: String,
    /// What: a device, a path (absolute, or relative to the bundle), or a name.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub source: String,
    /// As `mount(8)` takes them, and those of the specification.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub options: Vec<String>,
    /// For an id-mapped mount.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub uid_mappings: Vec<IdMapping>,
    /// For an id-mapped mount.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub gid_mappings: Vec<IdMapping>,
}

/// A range of ids inside a user namespace and what they are outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID", deserialize_with = "nullable")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID", deserialize_with = "nullable")]
    pub host_id: u32,
    /// How many follow one another.
    #[serde(deserialize_with = "nullable")]
    pub size: u32,
}

impl Spec {
    /// Reads `config.json`.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Writes `config.json`, compact as containerd does.
    pub fn to_vec(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("only strings and numbers, which always serialize")
    }
}
