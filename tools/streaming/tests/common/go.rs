//! The client that is made of kubectl's library, in `tests/client`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use testkit::need;

/// Builds it, once a test program.
pub(crate) fn client() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

fn build() -> Option<PathBuf> {
    let brought = testkit::programs::peers().join("go-wheel/bin/go");
    let go = if brought.is_file() { brought } else { need::program("go").ok()? };
    let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join("streaming-client");
    let built = Command::new(go)
        .args(["build", "-mod=readonly", "-buildvcs=false", "-o"])
        .arg(&into)
        .arg(".")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client"))
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .stdin(Stdio::null())
        .output()
        .expect("go can be started");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(into)
}
