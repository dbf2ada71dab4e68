//! The files of a pod that its containers find in `/etc`, and their shared memory.
//!
//! ```text
//!   ROOT/sandboxes/ID/    hostname  hosts  resolv.conf
//!   STATE/sandboxes/ID/   shm/ (a tmpfs)   ns/ (held namespaces)
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use berth_sys::mount::{mount_all, unmount_all};
use berth_types::{Error, Mount, Result};

use super::Pod;

/// The size of a pod's shared memory: what Docker and containerd give.
const SHARED_MEMORY: &str = "size=65536k";

impl Pod {
    /// One of its files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Its shared memory; the host's where it has the host's IPC.
    pub(crate) fn shared_memory(&self) -> PathBuf {
        if self.has_host_ipc() { PathBuf::from("/dev/shm") } else { self.state.join("shm") }
    }

    /// Makes its folders and files. Blocking.
    pub(super) fn make_files(&self) -> Result<()> {
        let make = || -> io::Result<()> {
            for folder in [&self.root, &self.state] {
                make_folder(folder)?;
            }
            write(&self.file("hostname"), &format!("{}\n", self.hostname()))?;
            write(&self.file("hosts"), &host_file("/etc/hosts")?)?;
            write(&self.file("resolv.conf"), &self.resolver()?)
        };
        make().map_err(|error| Error::io(format!("cannot make the files of pod {}", self.id), error))?;
        if self.has_host_ipc() {
            return Ok(());
        }
        let shm = self.shared_memory();
        make_folder(&shm).map_err(|error| Error::io(format!("cannot make {}", shm.display()), error))?;
        let mut options =
            ["noexec", "nosuid", "nodev", "mode=1777", SHARED_MEMORY].map(str::to_owned).to_vec();
        if let Some((uid, gid)) = self.users().map(|users| users.root()) {
            options.extend([format!("uid={uid}"), format!("gid={gid}")]);
        }
        let mount = Mount { kind: "tmpfs".to_owned(), source: "shm".to_owned(), options, ..Mount::default() };
        mount_all(&[mount], &shm).map_err(|error| {
            Error::unknown(format!("cannot mount shared memory at {}", shm.display())).caused_by(error)
        })
    }

    /// What its containers find in `/etc/resolv.conf`: what was asked for, else what the host has.
    fn resolver(&self) -> io::Result<String> {
        let Some(dns) = &self.config.dns_config else { return host_file("/etc/resolv.conf") };
        if dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty() {
            return host_file("/etc/resolv.conf");
        }
        let mut text = String::new();
        if !dns.searches.is_empty() {
            text += &format!("search {}\n", dns.searches.join(" "));
        }
        for server in &dns.servers {
            text += &format!("nameserver {server}\n");
        }
        if !dns.options.is_empty() {
            text += &format!("options {}\n", dns.options.join(" "));
        }
        Ok(text)
    }

    /// Unmounts its shared memory. Idempotent; blocking.
    pub(super) fn release_files(&self) -> Result<()> {
        let shm = self.state.join("shm");
        unmount_all(&shm)
            .map_err(|error| Error::unknown(format!("cannot unmount {}", shm.display())).caused_by(error))
    }

    /// Removes its folders. Idempotent; blocking.
    pub(super) fn remove_files(&self) -> Result<()> {
        for folder in [&self.state, &self.root] {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("cannot remove {}", folder.display()), error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A file of the host; a host without it has an empty one.
fn host_file(path: &str) -> io::Result<String> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    // Every user of a container reads it, whatever the daemon's umask is.
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Makes a folder that a container's own users can pass through.
fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o711).create(path)
}
