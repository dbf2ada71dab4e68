//! Our own low-level runtime, in the shim's process.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_container as container;
use berth_proto as proto;
use berth_types::{Error, ErrorKind, Result};
use container::checkpoint::{After, Circumstances};
use container::{CgroupDriver, Container, Deletion, Keyring, RootSwitch, Stdio, Target};
use proto::containerd::runc::v1::Options;

use super::{Checkpoint, ChildIo, Create, Exec, Place, Restore, Running, Runtime, Spawned};
use crate::log::Log;

/// Where records are if nobody says so.
const ROOT: &str = "/run/berth/runc";
/// Where the daemon wants them: beneath its own state folder.
const DAEMONS_ROOT: &str = "BERTH_RUNTIME_ROOT";

/// The container of one task.
#[derive(Debug)]
pub(crate) struct Native {
    root: PathBuf,
    cgroup_driver: CgroupDriver,
    log: Log,
    /// From its creation to its start, which only its maker can follow; afterwards its state on disk serves, and
    /// its spec takes no memory here.
    made: Mutex<Option<Container>>,
}

impl Native {
    pub(crate) fn open(options: &Options, place: &Place<'_>) -> Result<Self> {
        let root = match options.root.as_str() {
            "" => root(std::env::var_os(DAEMONS_ROOT).map(PathBuf::from), Path::new(ROOT), place),
            named => PathBuf::from(named),
        };
        let cgroup_driver =
            if options.systemd_cgroup { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
        let root = root.join(place.namespace);
        Ok(Self { root, cgroup_driver, log: Log::new(false), made: Mutex::default() })
    }

    fn made(&self) -> MutexGuard<'_, Option<Container>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, id: &str) -> Result<Container> {
        Container::load(&self.root, id).map_err(|e| failed("cannot load the container", &e))
    }

    fn request(&self, request: &Create, io: ChildIo) -> Result<container::Create> {
        Ok(container::Create {
            id: request.id.clone(),
            bundle: request.bundle.clone(),
            root: self.root.clone(),
            stdio: stdio(io)?,
            root_switch: if request.no_pivot_root { RootSwitch::Move } else { RootSwitch::Pivot },
            keyring: if request.no_new_keyring { Keyring::Keep } else { Keyring::New },
            cgroup_driver: self.cgroup_driver,
            ..container::Create::default()
        })
    }

    /// Tells what there is to tell of a container that has been made.
    fn settle(&self, request: &Create, made: container::Made) -> Result<(Spawned, Container)> {
        self.warn(made.warnings);
        let pid =
            made.container.pid().ok_or_else(|| Error::unknown("the container ended at its creation"))?;
        // For tools that look for it there, as runc's --pid-file leaves it.
        crate::bundle::write_whole(&request.bundle.join("init.pid"), pid.to_string().as_bytes())?;
        Ok((Spawned { pid: pid as u32, console: made.terminal }, made.container))
    }

    fn warn(&self, warnings: Vec<String>) {
        warnings.into_iter().for_each(|warning| self.log.warn(warning));
    }
}

/// The folder of records: the daemon's, unless the container's own is where a daemon before this one had it.
fn root(daemons: Option<PathBuf>, old: &Path, place: &Place<'_>) -> PathBuf {
    let id = place.bundle.file_name().unwrap_or_default();
    let has_it = |root: &Path| root.join(place.namespace).join(id).exists();
    match daemons.filter(|root| root.is_absolute()) {
        Some(root) if has_it(&root) || !has_it(old) => root,
        _ => old.to_owned(),
    }
}

impl Runtime for Native {
    fn create(&self, request: &Create, io: ChildIo) -> Result<Spawned> {
        let made = Container::create(self.request(request, io)?)
            .map_err(|e| failed("OCI runtime create failed", &e))?;
        let (spawned, container) = self.settle(request, made)?;
        *self.made() = Some(container);
        Ok(spawned)
    }

    fn start(&self, id: &str) -> Result<()> {
        let mut container = match self.made().take() {
            Some(container) => container,
            None => self.load(id)?,
        };
        self.warn(container.start().map_err(|e| failed("OCI runtime start failed", &e))?);
        Ok(())
    }

    fn restore(&self, request: &Restore, io: ChildIo) -> Result<Spawned> {
        let made = Container::restore(container::Restore {
            create: self.request(&request.create, io)?,
            images: PathBuf::from(&request.image),
            work: Some(request.work.clone()),
            parent: Some(PathBuf::from(&request.parent)).filter(|path| !path.as_os_str().is_empty()),
            circumstances: Circumstances::default(),
        })
        .map_err(|e| failed("OCI runtime restore failed", &e))?;
        // It runs already: nobody has to follow it to its start.
        self.settle(&request.create, made).map(|(spawned, _)| spawned)
    }

    fn exec(&self, request: &Exec, io: ChildIo) -> Result<Spawned> {
        let process = serde_json::from_slice(&request.process)
            .map_err(|e| Error::invalid_argument("the process to run is no OCI process").caused_by(e))?;
        let execed = self
            .load(&request.id)?
            .exec(container::Exec { process, stdio: stdio(io)?, ..container::Exec::default() })
            .map_err(|e| failed("OCI runtime exec failed", &e))?;
        self.warn(execed.warnings);
        Ok(Spawned { pid: execed.pid as u32, console: execed.terminal })
    }

    fn kill(&self, id: &str, signal: u32) -> Result<()> {
        self.load(id)?.kill(signal as i32, Target::Init).map_err(|e| failed("kill failed", &e))
    }

    fn kill_all(&self, id: &str, signal: u32) -> Result<()> {
        self.load(id)?.kill(signal as i32, Target::All).map_err(|e| failed("kill failed", &e))
    }

    fn delete(&self, id: &str, running: Running) -> Result<()> {
        let made = self.made().take();
        let container = match made {
            Some(container) => container,
            None => match self.load(id) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                other => other?,
            },
        };
        let deletion = match running {
            Running::Spare => Deletion::Stopped,
            Running::Kill => Deletion::Force,
        };
        self.warn(container.delete(deletion).map_err(|e| failed("failed to delete task", &e))?);
        Ok(())
    }

    fn pause(&self, id: &str) -> Result<()> {
        self.load(id)?.pause().map_err(|e| failed("OCI runtime pause failed", &e))
    }

    fn resume(&self, id: &str) -> Result<()> {
        self.load(id)?.resume().map_err(|e| failed("OCI runtime resume failed", &e))
    }

    fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let resources = serde_json::from_slice(resources)
            .map_err(|e| Error::invalid_argument("the new limits are no OCI resources").caused_by(e))?;
        let warnings = self.load(id)?.update(&resources);
        self.warn(warnings.map_err(|e| failed("OCI runtime update failed", &e))?);
        Ok(())
    }

    fn pids(&self, id: &str) -> Result<Vec<u32>> {
        let pids = self.load(id)?.pids().map_err(|e| failed("OCI runtime ps failed", &e))?;
        Ok(pids.into_iter().map(|pid| pid as u32).collect())
    }

    fn checkpoint(&self, id: &str, request: &Checkpoint) -> Result<()> {
        let mode = Some(request.cgroups_mode.as_str()).filter(|mode| !mode.is_empty());
        let mode =
            mode.map(str::parse).transpose().map_err(|e| failed("OCI runtime checkpoint failed", &e))?;
        let request = container::Checkpoint {
            images: PathBuf::from(&request.image),
            work: Some(request.work.clone()),
            after: if request.exit { After::Ends } else { After::Runs },
            circumstances: Circumstances {
                open_tcp: request.open_tcp,
                external_unix_sockets: request.external_unix_sockets,
                shell_job: request.terminal,
                file_locks: request.file_locks,
                empty_network: request.empty_namespaces.iter().any(|one| one == "network"),
                cgroups: mode,
                auto_dedup: false,
            },
            ..container::Checkpoint::default()
        };
        self.load(id)?.checkpoint(&request).map_err(|e| failed("OCI runtime checkpoint failed", &e))
    }

    fn features(&self) -> Result<Option<Vec<u8>>> {
        Ok(Some(container::features::document().to_string().into_bytes()))
    }

    fn starts_quickly(&self) -> bool {
        // Hooks are other people's programs, and may take their time.
        self.made().as_ref().is_some_and(|container| container.spec().hooks.is_none())
    }

    fn is_quick(&self) -> bool {
        true
    }
}

/// The runtime's own kinds are those of its command line; what clients of a task act on is coarser, as with runc:
/// gone, there already, or anything else.
fn failed(what: &str, error: &container::Error) -> Error {
    let kind = match error.kind() {
        container::error::ErrorKind::NotFound => ErrorKind::NotFound,
        container::error::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        container::error::ErrorKind::Unsupported => ErrorKind::NotImplemented,
        container::error::ErrorKind::InvalidArgument => ErrorKind::InvalidArgument,
        container::error::ErrorKind::FailedPrecondition | container::error::ErrorKind::Internal => {
            ErrorKind::Unknown
        }
    };
    if matches!(error, container::Error::Finished) {
        return Error::new(kind, error.chain());
    }
    Error::new(kind, format!("{what}: {}", error.chain()))
}

fn stdio(io: ChildIo) -> Result<Stdio> {
    let ChildIo::Streams(streams) = io else { return Ok(Stdio::Terminal) };
    let mut fds = Vec::with_capacity(3);
    for stream in streams {
        fds.push(match stream {
            Some(fd) => fd,
            None => null().map_err(|e| Error::io("cannot open /dev/null", e))?,
        });
    }
    let fds = <[OwnedFd; 3]>::try_from(fds).map_err(|_| Error::internal("three streams"))?;
    Ok(Stdio::Fds(fds))
}

fn null() -> std::io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_where_the_daemon_wants_them_unless_they_are_where_an_older_one_had_them() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        let bundle = Path::new("/state/io.containerd.runtime.v2.task/ns/one");
        let place = Place { namespace: "ns", bundle, sockets: Path::new("/run") };
        assert_eq!(root(None, &old, &place), old);
        assert_eq!(root(Some("relative".into()), &old, &place), old);
        assert_eq!(root(Some(new.clone()), &old, &place), new);
        std::fs::create_dir_all(old.join("ns/one")).unwrap();
        assert_eq!(root(Some(new.clone()), &old, &place), old);
        std::fs::create_dir_all(new.join("ns/one")).unwrap();
        assert_eq!(root(Some(new.clone()), &old, &place), new);
    }
}
