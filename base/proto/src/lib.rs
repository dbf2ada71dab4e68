//! The wire: messages and services of containerd 2.3's API, of shims and of what they carry.
//!
//! The definitions below `proto/` hold the published names and numbers, one file a package; a module's path is
//! its protobuf package, so `containerd.services.tasks.v1.KillRequest` is
//! `proto::containerd::services::tasks::v1::KillRequest`. Users write `use berth_proto as proto`, so that a wire
//! type is always recognised as one. `proto::berth` is what berth's own clients ask beyond that. Only faces and `engines/runtime` may touch them.
//!
//! Beside the definitions: [`convert`] to and from `berth_types`, and [`status`], the one table between kinds of
//! error and gRPC codes. Without the feature `grpc` there are only messages, which is all a shim carries.
//!
//! Never does I/O.

pub mod convert;
pub mod status;
mod wire;

pub use prost;
pub use prost_types;
pub use wire::{berth, containerd, google, grpc, io, nri, runtime, runtimeoptions};
