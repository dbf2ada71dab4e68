//! The socket on which a group of containers is served.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use berth_sys::local_socket::listen_at;
use berth_types::{Error, Result};
use rustix::fs::Mode;
use sha2::{Digest as _, Sha256};

/// A socket's path, less its closing zero (unix(7)).
const LONGEST: usize = 107;

/// What became of the wish to serve at an address.
#[derive(Debug)]
pub(crate) enum Claim {
    /// It is ours.
    Fresh(UnixListener),
    /// Another shim serves there already.
    Served,
}

/// Where the shim of `group` serves: containerd's rule, a hash of the daemon's address, the namespace and the group.
pub(crate) fn path(sockets: &Path, daemon: &str, namespace: &str, group: &str) -> Result<PathBuf> {
    let name = Path::new(daemon).join(namespace).join(group);
    let digest = Sha256::digest(name.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = sockets.join(name);
    if path.as_os_str().len() > LONGEST {
        return Err(Error::invalid_argument(format!(
            "the shim's socket {} is longer than {LONGEST} bytes: use a shorter folder for sockets",
            path.display()
        )));
    }
    Ok(path)
}

/// Listens at `path`, in a folder that only its owner enters; finds out whether somebody else does.
///
/// A socket file that nobody serves is a dead shim's and is replaced.
pub(crate) fn claim(path: &Path) -> Result<Claim> {
    let failed = |e| Error::io(format!("cannot listen on {}", path.display()), e);
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let own = Mode::RUSR | Mode::WUSR;
    match listen_at(path, own) {
        Ok(listener) => Ok(Claim::Fresh(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Ok(Claim::Served);
            }
            std::fs::remove_file(path).map_err(failed)?;
            listen_at(path, own).map(Claim::Fresh).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_served_socket_is_found_and_a_stale_one_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("s/one");
        let Claim::Fresh(listener) = claim(&path).unwrap() else { panic!("nobody was there") };
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(matches!(claim(&path).unwrap(), Claim::Served));
        drop(listener);
        assert!(matches!(claim(&path).unwrap(), Claim::Fresh(_)));
    }

    #[test]
    fn the_name_is_containerds() {
        // printf /run/containerd/containerd.sock/k8s.io/a | sha256sum
        let path = path(Path::new("/run/containerd/s"), "/run/containerd/containerd.sock", "k8s.io", "a");
        let name = path.unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(name.len(), 64);
        assert_eq!(name, HASH);
    }

    const HASH: &str = "0b3c2065c4ad3e641dd16f5e2616734bf417fa5579f1c3b8f774f802cfa45e4b";
}
