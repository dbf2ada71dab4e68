//! Images as a kubelet knows them.
//!
//! ```text
//!   records of k8s.io               what a kubelet sees
//!   docker.io/library/web:1   ─┐
//!   …/web@sha256:INDEX        ─┼─▶  one image: its id is the digest of its configuration,
//!   sha256:CONFIG             ─┘    its tags and digests are the records' names
//! ```
//! The records are the truth: they are read anew for each request, so nothing has to be kept in step. Only what an
//! index or manifest leads to is remembered, because it cannot change.

mod facts;
mod list;
mod login;
mod patience;
mod pull;
mod remove;
mod unpack;
mod usage;

pub(crate) use facts::{Facts, Known};
pub(crate) use list::Present;

/// A label of every image that came through the CRI, as in containerd.
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// A label of images that a kubelet must not remove, as in containerd.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");
