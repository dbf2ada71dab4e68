//! Debian's dockerd on a daemon of ours or another's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use testkit::{Daemon, Invocation, need, programs, wait};

/// A dockerd whose containers are in its own folder beneath the daemon's. Dropping it ends it.
#[derive(Debug)]
pub struct Docker {
    folder: PathBuf,
    client: PathBuf,
    child: Child,
}

impl Docker {
    /// Starts a dockerd at the daemon's socket, with no network of its own, and waits for its answer.
    #[track_caller]
    pub fn start(daemon: &Daemon) -> Result<Self, need::Missing> {
        let found = |name: &str| programs::debian(name).map_or_else(|| need::program(name), Ok);
        let (server, client) = (found("dockerd")?, found("docker")?);
        let folder = daemon.scratch().path("docker");
        std::fs::create_dir_all(&folder).expect("the scratch folder takes a folder");
        let log = File::create(folder.join("log")).expect("the scratch folder takes a log");
        let mut command = Command::new(server);
        command.arg("--containerd").arg(daemon.address());
        for (flag, file) in [
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
            ("--config-file", "none.json"),
        ] {
            command.arg(flag).arg(folder.join(file));
        }
        std::fs::write(folder.join("none.json"), "{}").expect("the scratch folder takes a file");
        command.arg("--host").arg(socket(&folder)).args([
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "--live-restore",
            // Containers of this test are in cgroups that carry its tag.
            "--cgroup-parent",
        ]);
        command.arg(format!("/{}", daemon.tag()));
        command.args(["--containerd-namespace", daemon.tag()]);
        command.args(["--containerd-plugins-namespace", &format!("{}-plugins", daemon.tag())]);
        command.env("PATH", daemon.search_path());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor can be copied")).stderr(log);
        let child = command.spawn().expect("dockerd starts");
        let docker = Self { folder, client, child };
        wait::soon("dockerd's answer", || docker.run("version").outcome().status.success());
        Ok(docker)
    }

    /// `docker` with the words of `line`.
    pub fn run(&self, line: &str) -> Invocation {
        Invocation::new(&self.client).arg("--host").arg(socket(&self.folder)).line(line)
    }

    /// What dockerd has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("dockerd's log:\n{}", self.log());
        }
        if let Some(watched) = wait::Watched::open(self.child.id()) {
            watched.signal(Signal::TERM);
            if !watched.ends_within(wait::SOON / 2) {
                let _ = self.child.kill();
            }
        }
        let _ = self.child.wait();
        // dockerd keeps a network namespace of its own mounted.
        let _ = unmount(self.folder.join("exec/netns/default"), UnmountFlags::DETACH);
    }
}

fn socket(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}
