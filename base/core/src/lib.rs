//! The seams of berth: what a content store, a snapshotter, a differ, the records and the tasks
//! promise to whoever uses them, and to whoever writes another one.
//!
//! Only traits, the values that their methods take, [`Scope`] and [`Rollback`]. A handle is
//! already bound to a namespace (and a lease) when somebody holds it, so no method asks for one
//! and no backend knows of namespaces. The daemon implements the traits over its stores; the
//! client implements them over a channel; code above cannot tell which it has.
//!
//! All methods are cancel-safe in this sense: dropping the future may leave the operation done
//! or not done, never half done.

mod catalog;
mod containers;
mod content;
mod controllers;
mod diff;
mod events;
mod images;
mod introspection;
mod leases;
mod mounts;
mod namespaces;
mod rollback;
mod sandboxes;
mod scope;
mod snapshot;
mod tasks;
mod transfers;

pub use catalog::Catalog;
pub use containers::Containers;
pub use content::{BlobReader, CommitRequest, ContentStore, Ingest, IngestRequest, read_blob, write_blob};
pub use controllers::{CreateSandbox, Endpoint, SandboxController, SandboxInstance, SandboxStatus};
pub use diff::{ApplyRequest, CompareRequest, Differ, recipe};
pub use events::{EventStream, Events};
pub use images::Images;
pub use introspection::Introspection;
pub use leases::Leases;
pub use mounts::{Extent, HeldMount, MountKeeper, Mounts, NewActivation};
pub use namespaces::Namespaces;
pub use rollback::Rollback;
pub use sandboxes::Sandboxes;
pub use scope::{Deletion, Scope};
pub use snapshot::{NewSnapshot, SnapshotCommit, Snapshotter, one_by_one};
pub use tasks::{CreateTask, ExecProcess, Tasks, UpdateTask};
pub use transfers::{
    ExportArchive, ExportPlatforms, ImageStore, ImportArchive, Login, Logins, NamedByDigest, OtherNames,
    PlainLayers, Reference, RegistryEnd, Requester, Transcript, TranscriptDetail, TranscriptReader,
    TransferStep, Transfers, UnpackInto, UnpackedBlobs,
};
