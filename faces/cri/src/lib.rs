//! The Container Runtime Interface of Kubernetes, in namespace `k8s.io` of a daemon's catalog.
//!
//! | module | what |
//! |---|---|
//! | [`service`] | the two gRPC services: translation and dispatch |
//! | [`image`] | images as a kubelet knows them: by the digest of their configuration, with all their names |
//! | [`config`] | what of containerd's CRI tables is heeded |
//!
//! Images are there; pods are not yet: their calls answer Unimplemented, and `Status` says that the runtime is not
//! ready, so that no kubelet schedules on it. Everything goes through the core traits: a pull is the pull of
//! everybody else, and what `ctr -n k8s.io` does is seen here at once.

mod config;
mod cri;
mod image;
mod service;
mod status;

pub use config::Config;
pub use cri::Cri;
