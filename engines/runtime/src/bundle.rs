//! Bundles: the folder in which a shim works, with containerd's file names, which other people's tools
//! read.
//!
//! ```text
//!   STATE/io.containerd.runtime.v2.task/NAMESPACE/ID/
//!     config.json        the container's specification
//!     rootfs/            where the shim mounts the root filesystem
//!     work            -> ROOT/io.containerd.runtime.v2.task/NAMESPACE/ID
//!     log                a fifo: what the shim has to say
//!     shim-binary-path   the shim's program
//!     bootstrap.json     how to reach the shim (2.x); `address`, written by shims, before that
//!     sandbox            of a task whose shim runs a whole sandbox: which
//!     init.pid, options.json, runtime, address, shim.pid      written by shims
//! ```
//! Bundles of sandboxes are the same below `io.containerd.sandbox.controller.v1.shim`. The state folder is a tmpfs as a rule: nothing here is ever synced. All functions block.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_archive::Hasher;
use berth_types::{ContainerId, Error, Namespace, Result};
use rustix::fs::{CWD, Mode, mkfifoat};
use serde::Deserialize;

use crate::config::{Config, Of};
use crate::key::Key;
use crate::sandbox::Hosted;

/// The parents of bundles: passable, so that a container's own users reach their root filesystem.
const PASSABLE: u32 = 0o711;
const PRIVATE: u32 = 0o700;
/// For a remapped root, whose group the folder gets.
const GROUP: u32 = 0o710;

/// A bundle that is there, or about to be.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    key: Key,
    path: PathBuf,
    work: PathBuf,
    socket: PathBuf,
}

impl Bundle {
    /// The bundle of a task or a sandbox; does no I/O.
    pub(crate) fn of(config: &Config, of: Of, key: &Key) -> Self {
        let below = |folder: PathBuf| folder.join(key.namespace.as_str()).join(key.id.as_str());
        let path = below(config.bundles(of));
        let name = Hasher::digest(path.as_os_str().as_encoded_bytes());
        let socket = config.socket_folder.join(name.hex());
        Self { key: key.clone(), path, work: below(config.works(of)), socket }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a shim listens whose socket the daemon makes: not in the bundle, whose path may be too long.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the folder with everything that a shim expects in it. On failure nothing is left.
    pub(crate) fn create(&self, spec: Option<&[u8]>) -> Result<()> {
        let failed = |source| Error::io(format!("cannot make the bundle {}", self.path.display()), source);
        make_parents(&self.path).map_err(failed)?;
        match make_folder(&self.path, PRIVATE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.clear_remains()?;
                make_folder(&self.path, PRIVATE).map_err(failed)?;
            }
            other => other.map_err(failed)?,
        }
        self.fill(spec).map_err(|error| {
            for folder in [&self.path, &self.work] {
                // The first error is the one to tell.
                let _ = fs::remove_dir_all(folder);
            }
            failed(error)
        })
    }

    fn fill(&self, spec: Option<&[u8]>) -> io::Result<()> {
        if let Some(gid) = spec.and_then(remapped_root_group) {
            std::os::unix::fs::chown(&self.path, None, Some(gid))?;
            fs::set_permissions(&self.path, Permissions::from_mode(GROUP))?;
        }
        make_folder(&self.file("rootfs"), PASSABLE)?;
        make_parents(&self.work)?;
        match make_folder(&self.work, PASSABLE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir_all(&self.work)?;
                make_folder(&self.work, PASSABLE)?;
            }
            other => other?,
        }
        std::os::unix::fs::symlink(&self.work, self.file("work"))?;
        if let Some(spec) = spec {
            fs::write(self.file("config.json"), spec)?;
        }
        mkfifoat(CWD, self.file("log"), Mode::from_raw_mode(PRIVATE))?;
        Ok(())
    }

    /// Removes what an earlier attempt left, unless a shim may still be behind it.
    fn clear_remains(&self) -> Result<()> {
        if ["bootstrap.json", "address"].iter().any(|name| self.file(name).exists()) {
            return Err(Error::already_exists(format!(
                "the bundle {} is there already, of a shim that this daemon does not know",
                self.path.display()
            )));
        }
        self.delete()
    }

    /// Makes the folder of a task whose shim is there already, as that of its sandbox `host`.
    pub(crate) fn create_hosted(&self, spec: Option<&[u8]>, hosted: &Hosted) -> Result<()> {
        self.create(spec)?;
        self.write("sandbox", hosted.sandbox.as_bytes())?;
        self.write("shim-binary-path", hosted.program.as_os_str().as_encoded_bytes())?;
        self.write("bootstrap.json", &hosted.answer.to_json())
    }

    /// Whether the task is one of a sandbox, which its shim outlives.
    pub(crate) fn is_hosted(&self) -> bool {
        self.file("sandbox").exists()
    }

    /// Makes the fifo of the shim's log where an older daemon or shim has not.
    pub(crate) fn ensure_log(&self) -> io::Result<PathBuf> {
        let path = self.file("log");
        match mkfifoat(CWD, &path, Mode::from_raw_mode(PRIVATE)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(path),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a file whole or not at all.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.file(name);
        let beside = self.file(&format!(".{name}"));
        fs::write(&beside, bytes)
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(|source| Error::io(format!("cannot write {}", path.display()), source))
    }

    /// The content of a file, if it is there and not empty.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.file(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes).filter(|bytes| !bytes.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io(format!("cannot read {}", path.display()), source)),
        }
    }

    /// Unmounts what is mounted in it and removes it with its work folder. Idempotent. A root filesystem
    /// that is not empty once unmounted is somebody's data: it stays, and is the error.
    pub(crate) fn delete(&self) -> Result<()> {
        let rootfs = self.file("rootfs");
        berth_sys::mount::unmount_all(&rootfs).map_err(|source| {
            Error::unknown(format!("cannot unmount {}", rootfs.display())).caused_by(source)
        })?;
        match fs::remove_dir(&rootfs) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("cannot remove {}", rootfs.display()), error));
            }
            _ => {}
        }
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("cannot remove {}", self.socket.display()), error));
            }
            _ => {}
        }
        // Both are tried; the work folder is data of the container and goes even if the other cannot.
        remove(&self.path).and(remove(&self.work))
    }
}

/// Removes a folder so that nobody ever sees half of it under its name.
fn remove(path: &Path) -> Result<()> {
    let failed = |source| Error::io(format!("cannot remove {}", path.display()), source);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let hidden = parent.join(hidden);
    match fs::rename(path, &hidden) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc_errno::EEXIST | libc_errno::ENOTEMPTY)) => {
            fs::remove_dir_all(&hidden).map_err(failed)?;
            fs::rename(path, &hidden).map_err(failed)?;
        }
        other => other.map_err(failed)?,
    }
    fs::remove_dir_all(&hidden).map_err(failed)
}

/// The two numbers with which a rename says that a folder is in its way.
mod libc_errno {
    pub(super) const EEXIST: i32 = rustix::io::Errno::EXIST.raw_os_error();
    pub(super) const ENOTEMPTY: i32 = rustix::io::Errno::NOTEMPTY.raw_os_error();
}

/// Makes the folder above `path`, passable whatever the umask is.
fn make_parents(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    if parent.is_dir() {
        return Ok(());
    }
    make_parents(parent)?;
    match make_folder(parent, PASSABLE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    if mode == PRIVATE {
        return Ok(());
    }
    // The umask may have taken bits away.
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// The group on the host that a container's root group is mapped to, when it is another one.
fn remapped_root_group(spec: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Spec {
        linux: Option<Linux>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Linux {
        #[serde(default)]
        gid_mappings: Vec<Mapping>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Mapping {
        #[serde(rename = "containerID")]
        container: u32,
        #[serde(rename = "hostID")]
        host: u32,
    }
    // Most specifications map nothing; they need no parsing.
    let mentioned = spec.windows(13).any(|window| window == b"\"gidMappings\"");
    let spec: Spec = mentioned.then(|| serde_json::from_slice(spec).ok()).flatten()?;
    let mappings = spec.linux?.gid_mappings;
    mappings
        .into_iter()
        .find(|mapping| mapping.container == 0)
        .map(|mapping| mapping.host)
        .filter(|&gid| gid != 0)
}

/// Every bundle below the state folder. What is no namespace or container id there is not ours.
pub(crate) fn list(config: &Config, of: Of) -> Result<Vec<Bundle>> {
    let mut found = Vec::new();
    for (namespace, folder) in named::<Namespace>(&config.bundles(of))? {
        for (id, _) in named::<ContainerId>(&folder)? {
            found.push(Bundle::of(config, of, &Key { namespace: namespace.clone(), id }));
        }
    }
    Ok(found)
}

/// Every work folder, by its task or sandbox.
pub(crate) fn works(config: &Config, of: Of) -> Result<Vec<(Key, PathBuf)>> {
    let mut found = Vec::new();
    for (namespace, folder) in named::<Namespace>(&config.works(of))? {
        let ids = named::<ContainerId>(&folder)?;
        found.extend(ids.into_iter().map(|(id, path)| (Key { namespace: namespace.clone(), id }, path)));
    }
    Ok(found)
}

/// Ends the removals that the last daemon had begun when it was killed: what [`remove`] has hidden goes.
pub(crate) fn finish_removals(config: &Config) -> Result<()> {
    for above in [Of::Task, Of::Sandbox].into_iter().flat_map(|of| [config.bundles(of), config.works(of)]) {
        for (_, folder) in named::<Namespace>(&above)? {
            for (_, hidden) in named::<Hidden>(&folder)? {
                fs::remove_dir_all(&hidden)
                    .map_err(|source| Error::io(format!("cannot remove {}", hidden.display()), source))?;
            }
        }
    }
    Ok(())
}

/// The name of a folder that is being removed.
struct Hidden;

impl std::str::FromStr for Hidden {
    type Err = ();

    fn from_str(name: &str) -> std::result::Result<Self, ()> {
        let id = name.strip_prefix('.').ok_or(())?;
        id.parse::<ContainerId>().map(|_| Self).map_err(drop)
    }
}

/// The folders in `folder` whose names are a `T`'s.
fn named<T: std::str::FromStr>(folder: &Path) -> Result<Vec<(T, PathBuf)>> {
    let failed = |source| Error::io(format!("cannot read {}", folder.display()), source);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(name), Ok(true)) = (name, entry.file_type().map(|kind| kind.is_dir())) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(folder: &Path) -> Bundle {
        let path = Path::new("/x");
        let config = Config::new(&folder.join("root"), &folder.join("state"), path, path, path);
        Bundle::of(&config, Of::Task, &Key { namespace: "n".parse().unwrap(), id: "c".parse().unwrap() })
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_bundle_has_containerds_files_and_modes_and_goes_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = bundle(folder.path());
        bundle.create(Some(b"{}")).unwrap();
        assert_eq!(mode(bundle.path()), 0o700);
        assert_eq!(mode(bundle.path().parent().unwrap()), 0o711);
        assert_eq!(mode(&bundle.file("rootfs")), 0o711);
        assert_eq!(fs::read_link(bundle.file("work")).unwrap(), bundle.work);
        assert_eq!(fs::read(bundle.file("config.json")).unwrap(), b"{}");
        bundle.delete().unwrap();
        assert!(!bundle.path().exists() && !bundle.work.exists());
        assert_eq!(fs::read_dir(bundle.path().parent().unwrap()).unwrap().count(), 0);
        bundle.delete().unwrap();
    }

    #[test]
    fn what_a_failed_start_left_is_replaced_but_never_a_shims() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = bundle(folder.path());
        bundle.create(Some(b"old")).unwrap();
        bundle.create(Some(b"new")).unwrap();
        assert_eq!(fs::read(bundle.file("config.json")).unwrap(), b"new");
        bundle.write("bootstrap.json", b"{}").unwrap();
        let error = bundle.create(Some(b"newer")).unwrap_err();
        assert_eq!(error.kind(), berth_types::ErrorKind::AlreadyExists);
    }

    #[test]
    fn data_below_an_unmounted_rootfs_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = bundle(folder.path());
        bundle.create(None).unwrap();
        fs::write(bundle.file("rootfs").join("data"), "precious").unwrap();
        assert!(bundle.delete().is_err());
        assert_eq!(fs::read(bundle.file("rootfs").join("data")).unwrap(), b"precious");
    }

    #[test]
    fn the_group_of_a_remapped_root_is_found() {
        let spec = |mappings: &str| format!(r#"{{"linux":{{"gidMappings":{mappings}}}}}"#);
        let mapped = spec(r#"[{"containerID":0,"hostID":1000,"size":10}]"#);
        assert_eq!(remapped_root_group(mapped.as_bytes()), Some(1000));
        for unmapped in [spec("[]"), spec(r#"[{"containerID":5,"hostID":7,"size":1}]"#), "x".into()] {
            assert_eq!(remapped_root_group(unmapped.as_bytes()), None);
        }
    }

    #[test]
    fn bundles_are_listed_by_namespace_and_hidden_folders_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = bundle(folder.path());
        bundle.create(None).unwrap();
        fs::create_dir(bundle.path().parent().unwrap().join(".c")).unwrap();
        let path = Path::new("/x");
        let config = Config::new(&folder.path().join("root"), &folder.path().join("state"), path, path, path);
        let keys: Vec<String> =
            list(&config, Of::Task).unwrap().iter().map(|one| one.key.to_string()).collect();
        assert_eq!(keys, ["n/c"]);
        assert_eq!(works(&config, Of::Task).unwrap().len(), 1);
    }
}
