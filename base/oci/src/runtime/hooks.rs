//! Programs that run at points of a container's life.

use serde::{Deserialize, Serialize};

use super::{is_default, nullable};

/// Hooks by the point at which they run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hooks {
    /// Before start, in the runtime's namespaces. Deprecated by the specification, still in use.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub prestart: Vec<Hook>,
    /// After the namespaces exist, in the runtime's.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub create_runtime: Vec<Hook>,
    /// Before pivot_root, in the container's namespaces but with the host's programs.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub create_container: Vec<Hook>,
    /// Before the user's program, wholly inside the container.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub start_container: Vec<Hook>,
    /// After the user's program started.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub poststart: Vec<Hook>,
    /// After the container was deleted.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub poststop: Vec<Hook>,
}

/// A program to run; it reads the container's state from standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hook {
    /// Absolute.
    #[serde(deserialize_with = "nullable")]
    pub path: String,
    /// With the program's own name first.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub args: Vec<String>,
    /// `NAME=VALUE`; nothing is inherited.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// Seconds until it is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}
