//! The vocabulary of berth: identifiers that are valid once they exist, the records that the
//! daemon keeps, the events it tells, and the one [`Error`].
//!
//! Nothing here does I/O, knows the wire or depends on an async runtime. Every other crate may
//! use it. Names are those of containerd and of the OCI specifications.

mod activation;
mod any;
pub mod attach;
mod container;
mod content;
mod descriptor;
mod digest;
mod error;
mod event;
mod field_mask;
#[cfg(feature = "filter")]
pub mod filter;
mod identifier;
mod image;
mod image_ref;
mod labels;
mod lease;
pub mod log_uri;
mod mount;
mod namespace;
mod plugin;
mod sandbox;
mod size;
mod snapshot;
mod task;

pub use activation::{Activation, ActiveMount};
pub use any::Any;
pub use container::{Container, ContainerUpdate, RuntimeInfo};
pub use content::{BlobInfo, IngestStatus};
pub use descriptor::{Descriptor, Platform};
pub use digest::{Algorithm, Digest};
pub use error::{Error, ErrorKind, Result};
pub use event::{Envelope, Event, ProcessIo, Topic};
pub use field_mask::FieldMask;
pub use identifier::{
    ContainerId, ExecId, ImageName, IngestRef, LeaseId, Namespace, SandboxId, SnapshotKey, SnapshotterName,
};
pub use image::Image;
pub use image_ref::ImageRef;
pub use labels::{Labels, validate_labels};
pub use lease::{Lease, LeaseResource};
pub use mount::Mount;
pub use namespace::NamespaceRecord;
pub use plugin::{PluginInfo, PluginState, ServerInfo};
pub use sandbox::{Sandbox, SandboxUpdate};
pub use size::parse_bytes;
pub use snapshot::{SnapshotInfo, SnapshotKind, Usage};
pub use task::{
    Exit, KillTarget, Metric, ProcessInfo, ProcessRef, ProcessState, ProcessStatus, Stdio, TerminalSize,
};
