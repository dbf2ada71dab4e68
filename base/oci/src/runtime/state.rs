//! What a runtime says about a container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{is_default, nullable};

/// State of a container (runtime-spec, `runtime.md`); hooks read it from standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct State {
    /// Version of the specification.
    #[serde(deserialize_with = "nullable")]
    pub oci_version: String,
    /// The container.
    #[serde(deserialize_with = "nullable")]
    pub id: String,
    /// Where it is in its life.
    #[serde(deserialize_with = "nullable")]
    pub status: Status,
    /// Its first process, on the host; 0 when it has none.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub pid: i32,
    /// Absolute path of its bundle.
    #[serde(deserialize_with = "nullable")]
    pub bundle: String,
    /// As in its configuration.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
}

/// What the agent of a seccomp listener is sent with the descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerProcessState {
    /// Version of the specification.
    #[serde(deserialize_with = "nullable")]
    pub oci_version: String,
    /// Names of the descriptors sent along, in order; `seccompFd`.
    #[serde(deserialize_with = "nullable")]
    pub fds: Vec<String>,
    /// The process in question.
    #[serde(deserialize_with = "nullable")]
    pub pid: i32,
    /// As in the configuration.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub metadata: String,
    /// Of the container.
    #[serde(deserialize_with = "nullable")]
    pub state: State,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made; the user's program has not run yet.
    Created,
    /// The user's program runs.
    Running,
    /// All its processes are frozen.
    Paused,
    /// Its first process has ended.
    #[default]
    Stopped,
}

impl Status {
    /// The word that runtimes print.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}
