//! Lists of mounts of which a daemon has performed the part that a client cannot.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{Labels, Mount};

/// A mount that the daemon has performed (`containerd.types.ActiveMount`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveMount {
    /// What was mounted, with everything filled in.
    pub mount: Mount,
    /// When.
    pub mounted_at: Option<SystemTime>,
    /// Where: a folder, or for a device a link to it.
    pub point: String,
    /// What its handler has to tell.
    #[serde(default)]
    pub data: Labels,
}

/// A list of mounts under a name (`containerd.types.ActivationInfo`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// The name, unique in a namespace.
    pub name: String,
    /// What the daemon has mounted, in that order.
    pub active: Vec<ActiveMount>,
    /// What is left to whoever uses it; performed in order it gives the root filesystem.
    pub system: Vec<Mount>,
    /// Labels; the garbage collector reads some.
    pub labels: Labels,
}
