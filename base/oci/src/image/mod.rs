//! OCI image documents (image-spec 1.1) and Docker's older forms of the same, as values.

mod chain;
mod config;
mod manifest;
pub mod media;
mod platform;

pub use chain::{chain_id, chain_ids};
pub use config::{History, ImageConfig, ProcessConfig, RootFs};
pub use manifest::{Document, Index, Manifest};
pub use platform::{PlatformMatch, host_platform, parse_platform, platform_string};
