//! What needs another machine than the one that the tests run on: systemd, cgroup v2 alone, AppArmor, CRIU.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod apparmor;
mod bed;
mod checkpoint;
mod daemon;
mod limits;
mod machine;
mod runtimes;
mod suites;
mod systemd;
