//! Registries on this machine: Debian's `docker-registry`, and a stand-in that does what a test tells it.

mod debian;
mod standin;

pub use debian::DockerRegistry;
pub use standin::{Reply, Request, Standin, serve, serve_blobs};
