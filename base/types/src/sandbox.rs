//! Sandbox records: what a pod is made from.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::{Any, FieldMask, Labels, RuntimeInfo, SandboxId};

/// A sandbox: the record, not what runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The name, unique in a namespace.
    pub id: SandboxId,
    /// The runtime of what runs in it; its name cannot change.
    pub runtime: RuntimeInfo,
    /// What it is to be, in its controller's own form.
    pub spec: Option<Any>,
    /// Labels; the garbage collector reads some.
    pub labels: Labels,
    /// When the record was made.
    pub created_at: SystemTime,
    /// When it last changed.
    pub updated_at: SystemTime,
    /// Whatever its controller keeps beside it, by name.
    pub extensions: BTreeMap<String, Any>,
    /// The controller that runs it: `podsandbox`, `shim`, or a proxy's name; may be empty.
    pub sandboxer: String,
}

impl Sandbox {
    /// A record that is yet to be stored; the store sets its times.
    pub fn new(id: SandboxId, runtime: RuntimeInfo) -> Self {
        let epoch = SystemTime::UNIX_EPOCH;
        Self {
            id,
            runtime,
            spec: None,
            labels: Labels::new(),
            created_at: epoch,
            updated_at: epoch,
            extensions: BTreeMap::new(),
            sandboxer: String::new(),
        }
    }
}

/// A change of a sandbox: the new values, and which of them are meant.
#[derive(Clone, Debug)]
pub struct SandboxUpdate {
    /// The new values; fields outside the mask are not read.
    pub sandbox: Sandbox,
    /// Which fields are meant.
    pub mask: FieldMask,
}
