//! A bundle with busybox, and containers run from it.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::pedantic,
    reason = "part of tests, of which each file uses its own"
)]

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_container::{Container, Create, Deletion, Exec, Made, Result, Stdio};
use berth_oci::runtime::{Mount, Namespace, NamespaceKind, Spec, default, default_seccomp};
use testkit::{Invocation, Scratch, need};

/// A folder with a root filesystem, a state root, and a configuration to change.
pub struct Bundle {
    pub scratch: Scratch,
    pub spec: Spec,
}

/// How a container's process ended, and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code, or 128 and the signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bundle {
    /// `None`, with a word on stderr, where root's rights or busybox are missing.
    pub fn new() -> Option<Self> {
        need::root().ok()?;
        let busybox = need::program("busybox").ok()?;
        let scratch = Scratch::new();
        let root = scratch.path("rootfs");
        for folder in ["bin", "etc", "tmp", "proc", "sys", "dev", "run", "root", "home/web"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        // By another process: a container that another thread begins meanwhile inherits no descriptor that writes it,
        // with which it could not be executed.
        Invocation::new("cp").arg(&busybox).arg(root.join("bin/busybox")).ok();
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n")
            .unwrap();
        let mut spec = default::spec(scratch.tag(), "c");
        let linux = spec.linux.get_or_insert_default();
        linux.cgroups_path = format!("/{}/c", scratch.tag());
        linux.namespaces.push(Namespace { kind: NamespaceKind::Cgroup, path: String::new() });
        let process = spec.process.get_or_insert_default();
        process.env = vec![default::PATH_ENV.into()];
        linux.seccomp = Some(default_seccomp(process.capabilities.as_ref()));
        Some(Self { scratch, spec })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// The root filesystem.
    pub fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    /// Sets what the container runs: a shell script.
    pub fn script(&mut self, text: &str) -> &mut Self {
        self.args(&["/bin/sh", "-c", text])
    }

    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        let process = self.spec.process.get_or_insert_default();
        process.args = args.iter().map(|a| (*a).to_owned()).collect();
        self
    }

    pub fn linux(&mut self) -> &mut berth_oci::runtime::Linux {
        self.spec.linux.get_or_insert_default()
    }

    pub fn process(&mut self) -> &mut berth_oci::runtime::Process {
        self.spec.process.get_or_insert_default()
    }

    pub fn without(&mut self, kind: &NamespaceKind) -> &mut Self {
        self.linux().namespaces.retain(|n| n.kind != *kind);
        self
    }

    pub fn request(&self, id: &str, stdio: Stdio) -> Create {
        Create {
            id: id.into(),
            bundle: self.scratch.folder().to_owned(),
            root: self.path("state"),
            spec: Some(self.spec.clone()),
            stdio,
            ..Create::default()
        }
    }

    /// Makes container `c`, with pipes.
    pub fn create(&self) -> Result<(Made, Pipes)> {
        let (fds, pipes) = Pipes::new();
        Ok((Container::create(self.request("c", Stdio::Fds(fds)))?, pipes))
    }

    /// Creates, starts, waits, deletes.
    pub fn run(&self) -> Result<Outcome> {
        let (made, pipes) = self.create()?;
        let mut container = made.container;
        if let Err(error) = container.start() {
            wait(&container.pidfd().unwrap().try_clone_to_owned().unwrap());
            container.delete(Deletion::Force).unwrap();
            return Err(error);
        }
        let outcome = pipes.outcome(&container.pidfd().unwrap().try_clone_to_owned().unwrap());
        container.delete(Deletion::Stopped)?;
        Ok(outcome)
    }

    /// Runs a script in a container of its own; its output must be what it says.
    #[track_caller]
    pub fn says(&mut self, script: &str) -> String {
        let outcome = self.script(script).run().unwrap();
        assert_eq!(outcome.code, 0, "{outcome:?}");
        outcome.stdout
    }
}

const APPLETS: [&str; 40] = [
    "sh", "true", "false", "cat", "echo", "ls", "id", "sleep", "mount", "umount", "hostname", "env", "pwd",
    "stat", "touch", "grep", "test", "mkdir", "ln", "rm", "kill", "dd", "head", "tail", "wc", "readlink",
    "tty", "stty", "ps", "ip", "mknod", "chmod", "chown", "nproc", "uname", "ulimit", "cut", "sort", "yes",
    "date",
];

/// The far ends of a process' streams.
pub struct Pipes {
    stdout: fs::File,
    stderr: fs::File,
}

impl Pipes {
    pub fn new() -> ([OwnedFd; 3], Self) {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let ((out_read, out_write), (err_read, err_write)) = (pipe(), pipe());
        let null = fs::File::open("/dev/null").unwrap();
        ([null.into(), out_write, err_write], Self { stdout: out_read.into(), stderr: err_read.into() })
    }

    /// Reads everything and takes the status.
    pub fn outcome(mut self, pidfd: &OwnedFd) -> Outcome {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| self.stderr.read_to_end(&mut stderr).unwrap());
            self.stdout.read_to_end(&mut stdout).unwrap();
        });
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Outcome { code: wait(pidfd), stdout: text(stdout), stderr: text(stderr) }
    }
}

/// Takes the status of a child.
pub fn wait(pidfd: &OwnedFd) -> i32 {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0))
}

/// Runs a script in a container that runs.
pub fn exec(container: &mut Container, script: &str) -> Outcome {
    let process = container.default_process(&["/bin/sh".into(), "-c".into(), script.into()]);
    exec_process(container, process).unwrap()
}

pub fn exec_process(container: &mut Container, process: berth_oci::runtime::Process) -> Result<Outcome> {
    let (fds, pipes) = Pipes::new();
    let done = container.exec(Exec { process, stdio: Stdio::Fds(fds), ..Exec::default() })?;
    Ok(pipes.outcome(&done.pidfd))
}

/// Borrowed descriptors as owned ones.
pub trait TryCloneToOwned {
    fn try_clone_to_owned(&self) -> std::io::Result<OwnedFd>;
}

impl TryCloneToOwned for std::os::fd::BorrowedFd<'_> {
    fn try_clone_to_owned(&self) -> std::io::Result<OwnedFd> {
        std::os::fd::BorrowedFd::try_clone_to_owned(self)
    }
}

/// A container that sleeps until it is dropped.
pub struct Sleeping {
    pub container: Option<Container>,
    pub bundle: Bundle,
}

impl Sleeping {
    pub fn start(mut bundle: Bundle) -> Self {
        bundle.args(&["/bin/sleep", "1000"]);
        let (made, _pipes) = bundle.create().unwrap();
        let mut container = made.container;
        container.start().unwrap();
        Self { container: Some(container), bundle }
    }

    pub fn get(&mut self) -> &mut Container {
        self.container.as_mut().unwrap()
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            let pidfd = container.pidfd().unwrap().try_clone_to_owned().unwrap();
            container.delete(Deletion::Force).unwrap();
            wait(&pidfd);
        }
    }
}

/// How long something may take that takes no time.
pub const SOON: Duration = Duration::from_secs(20);

/// Whether a path exists, following nothing.
pub fn there(path: impl AsRef<Path>) -> bool {
    path.as_ref().symlink_metadata().is_ok()
}

/// An entry of the configuration's mounts.
pub fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..Mount::default()
    }
}
