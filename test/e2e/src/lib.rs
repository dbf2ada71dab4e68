//! What the end-to-end tests share: the larger foreign programs, set up around a daemon of the test kit.

mod docker;

pub use docker::Docker;
