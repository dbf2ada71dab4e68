//! Which program is the shim of a runtime.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use berth_types::{Error, Result};

use crate::config::Config;

/// The runtime that every client asks for, which is our own shim.
const OWN: &str = "io.containerd.runc.v2";

/// The programs of runtimes, by the names that clients use.
pub(crate) struct Programs {
    configured: BTreeMap<String, PathBuf>,
    folders: Vec<PathBuf>,
    found: Mutex<BTreeMap<String, PathBuf>>,
}

impl Programs {
    pub(crate) fn new(config: &Config) -> Self {
        let mut configured = config.runtimes.clone();
        configured.entry(OWN.to_owned()).or_insert_with(|| config.own_shim.clone());
        let mut folders: Vec<PathBuf> = std::env::split_paths(&config.search_path).collect();
        // As containerd does, the last place to look is beside the daemon.
        folders.extend(config.own_shim.parent().map(Path::to_owned));
        Self { configured, folders, found: Mutex::default() }
    }

    /// The program for a runtime's name or path.
    ///
    /// An absolute path is itself; a configured name is what is configured; `a.b.NAME.VERSION` is
    /// `containerd-shim-NAME-VERSION` in the search path.
    pub(crate) fn resolve(&self, runtime: &str) -> Result<PathBuf> {
        if runtime.is_empty() {
            return Err(Error::invalid_argument("no runtime name: the container names none"));
        }
        let path = Path::new(runtime);
        if path.is_absolute() {
            return match path.metadata() {
                Ok(_) => Ok(path.to_owned()),
                Err(source) => {
                    Err(Error::unknown(format!("invalid custom binary path {runtime}")).caused_by(source))
                }
            };
        }
        if let Some(path) = self.configured.get(runtime) {
            return Ok(path.clone());
        }
        let name = program_name(runtime).ok_or_else(|| {
            Error::invalid_argument(format!(
                "invalid runtime name {runtime}, correct runtime name should be either format like \
                 `io.containerd.runc.v2` or a full path to the binary"
            ))
        })?;
        if let Some(path) = self.found.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(path.clone());
        }
        let path = self.folders.iter().map(|folder| folder.join(&name)).find(|path| is_program(path));
        let path = path.ok_or_else(|| {
            Error::unknown(format!("runtime {runtime:?} binary not installed {name:?}: it is in none of the search path's folders"))
        })?;
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(name, path.clone());
        Ok(path)
    }
}

/// The program's name by containerd's rule, if the runtime's name follows it.
fn program_name(runtime: &str) -> Option<String> {
    let parts: Vec<&str> = runtime.split('.').collect();
    let [first, .., _] = parts.as_slice() else { return None };
    if first.is_empty() || runtime.contains('/') {
        return None;
    }
    Some(format!("containerd-shim-{}-{}", parts[parts.len() - 2], parts[parts.len() - 1]))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_lead_to_programs_as_in_containerd() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("containerd-shim-kata-v2");
        fs::write(&program, "").unwrap();
        let path = Path::new("/x");
        let mut config = Config::new(path, path, path, path, Path::new("/opt/berth-shim"));
        config.search_path = folder.path().into();
        config.runtimes.insert("io.example.mine.v1".into(), "/opt/mine".into());
        let programs = Programs::new(&config);

        assert!(programs.resolve("io.containerd.kata.v2").is_err(), "not executable");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(programs.resolve("io.containerd.kata.v2").unwrap(), program);
        assert_eq!(programs.resolve("kata.v2").unwrap(), program);
        assert_eq!(programs.resolve(program.to_str().unwrap()).unwrap(), program);
        assert_eq!(programs.resolve(OWN).unwrap(), Path::new("/opt/berth-shim"));
        assert_eq!(programs.resolve("io.example.mine.v1").unwrap(), Path::new("/opt/mine"));
        for bad in ["", "kata", ".v2", "a/b.v2", "/nonexistent/shim", "io.containerd.none.v1"] {
            assert!(programs.resolve(bad).is_err(), "{bad}");
        }
    }
}
