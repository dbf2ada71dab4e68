//! Plugins of other people, and one made of upstream's library (`tests/plugins`), built with Go.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use testkit::need;

/// Who else's plugins there are: of the containers project's collection.
const OTHERS: &str = "github.com/containers/nri-plugins/cmd/plugins";

/// The plugins' programs.
pub(crate) struct Programs {
    pub(crate) scribe: PathBuf,
    pub(crate) memory_qos: PathBuf,
    pub(crate) sgx_epc: PathBuf,
}

/// Builds them, once a test program.
pub(crate) fn programs() -> Option<&'static Programs> {
    static BUILT: OnceLock<Option<Programs>> = OnceLock::new();
    BUILT.get_or_init(build).as_ref()
}

fn build() -> Option<Programs> {
    let brought = testkit::programs::peers().join("go-wheel/bin/go");
    let go = if brought.is_file() { brought } else { need::program("go").ok()? };
    let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nri-plugins");
    std::fs::create_dir_all(&into).expect("the target folder is ours");
    let built = Command::new(go)
        .args(["build", "-mod=readonly", "-buildvcs=false", "-o"])
        .arg(&into)
        .args([".".to_owned(), format!("{OTHERS}/memory-qos"), format!("{OTHERS}/sgx-epc")])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugins"))
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .stdin(Stdio::null())
        .output()
        .expect("go can be started");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let program = |name| into.join(name);
    Some(Programs {
        scribe: program("plugins"),
        memory_qos: program("memory-qos"),
        sgx_epc: program("sgx-epc"),
    })
}
