//! `-info`: what the runtime is and can do.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result};
use berth_proto as proto;
use prost::{Message as _, Name as _};
use proto::containerd::runc::v1::Options;
use proto::containerd::types::{RuntimeInfo, RuntimeVersion};

use crate::children::Children;
use crate::options;
use crate::runtime::{self, Place};
use crate::start::RUNTIME;

/// The name under which containerd knows the OCI features document.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Reads the runtime's options as `Any` from standard input and prints a `RuntimeInfo`.
pub(crate) fn info() -> Result<()> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).context("cannot read standard input")?;
    let options = if input.is_empty() { None } else { options::from_any_bytes(&input)? };
    let chosen = options.clone().unwrap_or_default();
    let place = Place {
        namespace: "default",
        bundle: std::path::Path::new("/"),
        sockets: std::path::Path::new("/run"),
    };
    let runtime = runtime::choose(&chosen, &place, &Children::reaped_by_caller())?;
    let features = runtime.features()?;
    let info = RuntimeInfo {
        name: RUNTIME.to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
        }),
        options: options.map(|options| prost_types::Any {
            type_url: Options::full_name(),
            value: options.encode_to_vec(),
        }),
        features: features.map(|value| prost_types::Any { type_url: FEATURES.to_owned(), value }),
        annotations: Default::default(),
    };
    std::io::stdout().write_all(&info.encode_to_vec()).context("cannot answer")
}
