//! The daemon's own place on the machine: its folders with their modes and locks, its umask, its out-of-memory
//! score, its cgroup.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_sys::limits::OpenFiles;
use rustix::fs::{FlockOperation, Mode, flock};

use crate::config::Config;

/// Only for the daemon.
const ROOT_MODE: u32 = 0o700;
/// Containers with their own user namespace have to pass through it.
const STATE_MODE: u32 = 0o711;
/// The file in root and state that the daemon holds locked.
const LOCK: &str = "daemon.lock";

/// The folders are this daemon's as long as this lives.
pub(crate) struct Places {
    _locks: [File; 2],
}

impl Places {
    /// Makes the folders and takes them.
    pub(crate) fn take(config: &Config) -> Result<Self> {
        let Config { root, state, temp, .. } = config;
        for (name, path) in [("root", root), ("state", state)] {
            if !path.is_absolute() {
                bail!("{name} has to be an absolute path, and is {:?}", path.display().to_string());
            }
        }
        if root == state {
            bail!("root and state must be different paths, and both are {}", root.display());
        }
        // Whatever the daemon was started with. Not stricter: shims inherit it, and what other people's runtimes
        // run with `exec` has it from them. What is private has its mode from chmod, or is below the root folder.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        folder(root, ROOT_MODE)?;
        folder(state, STATE_MODE)?;
        if !temp.as_os_str().is_empty() {
            folder(temp, ROOT_MODE)?;
        }
        Ok(Self { _locks: [lock(root)?, lock(state)?] })
    }
}

/// Makes a folder if there is none and gives it its mode. Without the right to change modes it stays as it is.
fn folder(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    match fs::set_permissions(path, fs::Permissions::from_mode(mode)) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            Err(error).with_context(|| format!("cannot set the mode of {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// How long a daemon that was killed may be survived by a process that it had just forked, and that holds the lock until
/// it becomes another program or ends.
const ORPHANS: Duration = Duration::from_secs(5);

/// Whether there is a process of that number; when in doubt there is.
fn is_alive(pid: &str) -> bool {
    let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
    pid.is_none_or(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// Locks a folder for as long as the file is open, and leaves the pid in it for whoever comes second.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + ORPHANS;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = fs::read_to_string(&path).unwrap_or_default();
                if is_alive(pid.trim()) || Instant::now() > deadline {
                    bail!("{} is already in use by pid {}", folder.display(), pid.trim());
                }
                #[expect(clippy::disallowed_methods, reason = "a lock tells nobody that it is free")]
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

/// Sets the daemon's out-of-memory score. Without the right to it the daemon runs on with the one that it has.
pub(crate) fn set_oom_score(score: i32) {
    if score == 0 {
        return;
    }
    if let Err(error) = fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::warn!(score, %error, "cannot set the daemon's out-of-memory score");
    }
}

/// Lets the daemon have as many files open as it may: four for each container, and a connection for each client. Gives
/// what shims are to have.
pub(crate) fn raise_open_files() -> Option<OpenFiles> {
    match OpenFiles::raise() {
        Ok(before) => Some(before),
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            None
        }
    }
}

/// Moves the daemon into a cgroup, made if there is none: in the one hierarchy of version 2, or in each of
/// version 1.
pub(crate) fn join_cgroup(path: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    let wanted = path.trim_start_matches('/');
    if Path::new(wanted).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        bail!("cgroup.path {path:?} has a part that is no name");
    }
    for hierarchy in hierarchies() {
        let folder = hierarchy.join(wanted);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
        let procs = folder.join("cgroup.procs");
        fs::write(&procs, std::process::id().to_string())
            .with_context(|| format!("cannot join the cgroup {}", folder.display()))?;
    }
    Ok(())
}

fn hierarchies() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    if base.join("cgroup.procs").exists() {
        return vec![base.to_owned()];
    }
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let is_hierarchy = |path: &PathBuf| path.join("tasks").exists() && !path.is_symlink();
    entries.map(|entry| entry.path()).filter(is_hierarchy).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use testkit::Scratch;

    use super::*;
    use crate::identity::Identity;

    fn config(scratch: &Scratch) -> Config {
        let mut config = Config::defaults(Identity::of(Path::new("berthd")));
        config.root = scratch.path("root");
        config.state = scratch.path("state");
        config
    }

    #[test]
    fn a_second_daemon_is_told_of_the_first() {
        let scratch = Scratch::new();
        let config = config(&scratch);
        let places = Places::take(&config).unwrap();
        let error = Places::take(&config).err().unwrap().to_string();
        assert!(error.ends_with(&format!("is already in use by pid {}", std::process::id())), "{error}");
        drop(places);
        Places::take(&config).unwrap();
    }

    #[test]
    fn folders_get_their_modes_even_when_they_were_there() {
        let scratch = Scratch::new();
        let config = config(&scratch);
        fs::create_dir(&config.root).unwrap();
        fs::set_permissions(&config.root, fs::Permissions::from_mode(0o755)).unwrap();
        let _places = Places::take(&config).unwrap();
        assert_eq!(fs::metadata(&config.root).unwrap().mode() & 0o7777, ROOT_MODE);
        assert_eq!(fs::metadata(&config.state).unwrap().mode() & 0o7777, STATE_MODE);
    }

    #[test]
    fn folders_that_cannot_be_are_named() {
        let scratch = Scratch::new();
        let mut config = config(&scratch);
        config.state = config.root.clone();
        assert!(Places::take(&config).err().unwrap().to_string().contains("different paths"));
        config.state = "relative".into();
        assert!(Places::take(&config).err().unwrap().to_string().contains("absolute"));
        config.state = scratch.file("file", "").join("state");
        assert!(Places::take(&config).is_err());
    }

    #[test]
    fn a_cgroup_path_does_not_climb() {
        assert!(join_cgroup("/../x").is_err());
        join_cgroup("").unwrap();
    }
}
