//! Plugins of NRI: other people's, and one made of upstream's library (`tools/nri/tests/plugins`), built with Go.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::{need, programs};

/// Who else's plugins there are: of the containers project's collection.
const OTHERS: &str = "github.com/containers/nri-plugins/cmd/plugins";

/// The plugins' programs.
#[derive(Debug)]
pub struct Programs {
    /// It does what its configuration says and writes down what it is told.
    pub scribe: PathBuf,
    /// It sets what a pod's annotations say of memory.
    pub memory_qos: PathBuf,
    /// It limits encrypted memory.
    pub sgx_epc: PathBuf,
}

/// Builds them in a folder of the caller's, once a test program; none where there is no Go, which is said.
pub fn programs(folder: &Path) -> Option<&'static Programs> {
    static BUILT: OnceLock<Option<Programs>> = OnceLock::new();
    BUILT.get_or_init(|| build(folder)).as_ref()
}

fn build(folder: &Path) -> Option<Programs> {
    let brought = programs::peers().join("go-wheel/bin/go");
    let go = if brought.is_file() { brought } else { need::program("go").ok()? };
    let into = folder.join("nri-plugins");
    std::fs::create_dir_all(&into).expect("the target folder is ours");
    let built = Command::new(go)
        .args(["build", "-mod=readonly", "-buildvcs=false", "-o"])
        .arg(&into)
        .args([".".to_owned(), format!("{OTHERS}/memory-qos"), format!("{OTHERS}/sgx-epc")])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/nri/tests/plugins"))
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
