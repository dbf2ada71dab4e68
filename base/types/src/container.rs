//! Container records: what a task is made from.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::{Any, ContainerId, FieldMask, Labels};

/// Which runtime a container wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// A name such as `io.containerd.runc.v2`, or the path of a shim.
    pub name: String,
    /// Options that only the runtime reads.
    pub options: Option<Any>,
}

/// A container: the record, not the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The name, unique in a namespace.
    pub id: ContainerId,
    /// Labels; the garbage collector reads some.
    pub labels: Labels,
    /// The name of the image that it was made from, for people; may be empty.
    pub image: String,
    /// The runtime to use; cannot change.
    pub runtime: RuntimeInfo,
    /// The OCI runtime specification, usually JSON.
    pub spec: Option<Any>,
    /// The snapshotter of its root filesystem; may be empty.
    pub snapshotter: String,
    /// The key of its root filesystem; may be empty.
    pub snapshot_key: String,
    /// When the record was made.
    pub created_at: SystemTime,
    /// When it last changed.
    pub updated_at: SystemTime,
    /// Whatever clients keep beside it, by name.
    pub extensions: BTreeMap<String, Any>,
    /// The sandbox that it runs in; may be empty.
    pub sandbox: String,
}

impl Container {
    /// A record that is yet to be stored; the store sets its times.
    pub fn new(id: ContainerId, runtime: RuntimeInfo) -> Self {
        let epoch = SystemTime::UNIX_EPOCH;
        Self {
            id,
            labels: Labels::new(),
            image: String::new(),
            runtime,
            spec: None,
            snapshotter: String::new(),
            snapshot_key: String::new(),
            created_at: epoch,
            updated_at: epoch,
            extensions: BTreeMap::new(),
            sandbox: String::new(),
        }
    }
}

/// A change of a container: the new values, and which of them are meant.
#[derive(Clone, Debug)]
pub struct ContainerUpdate {
    /// The new values; fields outside the mask are not read.
    pub container: Container,
    /// Which fields are meant.
    pub mask: FieldMask,
}
