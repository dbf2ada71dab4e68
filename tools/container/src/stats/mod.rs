//! What a container has used, as plain numbers.
//!
//! One struct for each cgroup version, with the names of containerd's metrics messages, so that a
//! face translates field by field.

pub mod v1;
pub mod v2;

/// Figures of one container.
#[derive(Clone, Debug, PartialEq)]
pub enum Stats {
    /// From cgroup v1 (and hybrid machines).
    V1(Box<v1::Metrics>),
    /// From cgroup v2.
    V2(Box<v2::Metrics>),
}
