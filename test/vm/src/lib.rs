//! A virtual machine as a test bed: Debian 12 under systemd, with pure cgroup v2, AppArmor and CRIU, which the machine
//! that runs the tests may not have.
//!
//! ```text
//!   test ---- Guest::run ----> port (a virtio serial line) ----> agent.sh ----> bash
//!             a disk of programs, made for this run ------------> /berth (read-only)
//!             the peers' guest (cargo xtask peers) -------------> / (writes are thrown away)
//! ```
//!
//! One guest serves all tests of an executable. It has no network but its own loopback, every command has a deadline,
//! and it goes with the test's process: its agent switches it off when the line breaks, and a clock ends it otherwise.
//! The processor is emulated, so it needs no rights on the host and is some ten times slower than it.

mod disk;
mod machine;
mod port;

pub use machine::{Answer, Guest};
