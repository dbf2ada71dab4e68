//! Turns the definitions below `proto/` into Rust, without a `protoc` on the machine.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Fields which carry blobs: a shared buffer instead of a copy.
const LARGE: [&str; 3] = [
    ".containerd.services.content.v1.ReadContentResponse.data",
    ".containerd.services.content.v1.WriteContentRequest.data",
    ".containerd.types.transfer.Data.data",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files = Vec::new();
    definitions(Path::new("proto"), &mut files)?;
    let set = protox::compile(&files, ["proto"])?;
    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();

    let mut config = prost_build::Config::new();
    config.bytes(LARGE).enable_type_names().include_file("wire.rs");
    // What plugins ask for is merged and applied in one order.
    config.btree_map([".nri"]);
    // Clients are shown a pod's or container's configuration as JSON, whose names are those of the fields.
    config.type_attribute(".runtime.v1", "#[derive(serde::Serialize)]");
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        // `connect()` would collide with the task services' call of that name.
        .build_transport(false)
        .compile_fds_with_config(set, config)?;
    Ok(())
}

/// Every `.proto` file below `folder`, in a fixed order.
fn definitions(folder: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            definitions(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            into.push(path);
        }
    }
    Ok(())
}
