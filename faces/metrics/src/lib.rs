//! Figures for Prometheus over HTTP: `GET /v1/metrics`, where containerd has them.
//!
//! | names | what |
//! |---|---|
//! | `containerd_build_info_total` | the version |
//! | `container_…` | the cgroup of every task, with its `container_id`, `namespace` and `runtime` |
//! | `process_…` | the daemon itself |
//!
//! Names, units and labels are containerd's, so that its dashboards go on; every figure is a gauge or a counter as
//! there. A page is made when it is asked for, out of one question to every shim; nothing is kept between two.
//! It never serves anything but figures: no profiles, no commands.
//!
//! `berthd` serves its [`Source`]; `berth-lazyd` has [`Pages`] of its own.

mod cgroup;
mod http;
mod page;
mod process;
mod source;

pub use http::serve;
pub use page::{Histogram, Kind, Labels, Page};
pub use source::{Build, Pages, Source};
