//! The command line on a daemon of the test's own.

use std::path::PathBuf;

use testkit::{Daemon, Invocation, Kind, Setup, image, need, wait};

/// The image that the tests run.
pub const IMAGE: &str = "berth.test/busybox:1";

/// A daemon, and `berth` with folders beside it.
#[derive(Debug)]
pub struct Cli {
    daemon: Daemon,
    program: PathBuf,
}

impl Cli {
    /// Starts berthd and loads busybox.
    #[track_caller]
    pub fn start() -> Result<Self, need::Missing> {
        Self::on(Kind::Berth)
    }

    /// Starts a daemon and loads busybox.
    #[track_caller]
    pub fn on(kind: Kind) -> Result<Self, need::Missing> {
        Self::with(kind, Setup::default())
    }

    /// Starts a daemon set up in a certain way and loads busybox.
    #[track_caller]
    pub fn with(kind: Kind, setup: Setup) -> Result<Self, need::Missing> {
        let program = need::program("berth")?;
        let busybox = image::busybox()?;
        let cli = Self { daemon: Daemon::with(kind, setup)?, program };
        let archive = cli.daemon.scratch().file("busybox.tar", busybox.docker_archive());
        let loaded = cli.run("load -i").arg(archive).ok();
        assert_eq!(loaded.trim(), format!("Loaded image: {IMAGE}"));
        Ok(cli)
    }

    /// The daemon.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The daemon, to be ended and started.
    pub fn daemon_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// A file in the test's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.daemon.scratch().path(name)
    }

    /// `berth` without words.
    pub fn berth(&self) -> Invocation {
        self.daemon
            .client(&self.program)
            .arg("--data-root")
            .arg(self.path("home"))
            .env("TZ", "UTC")
            .env("BERTH_NETWORK", "none")
    }

    /// `berth` with the words of `line`.
    pub fn run(&self, line: &str) -> Invocation {
        self.berth().line(line)
    }

    /// `berth` with the words of `line` and then a script for a shell.
    pub fn sh(&self, line: &str, script: &str) -> Invocation {
        self.run(line).args(["sh", "-c", script])
    }

    /// The command of `berth` as a program and its arguments, for another program to start.
    pub fn words(&self, line: &str) -> Vec<std::ffi::OsString> {
        let mut words = vec!["env".into(), "BERTH_NETWORK=none".into()];
        words.push(self.program.clone().into_os_string());
        words.extend(["--address".into(), self.daemon.address().into_os_string()]);
        words.extend(["--namespace".into(), self.daemon.tag().into()]);
        words.extend(["--data-root".into(), self.path("home").into_os_string()]);
        words.extend(line.split_whitespace().map(Into::into));
        words
    }

    /// Waits until a container is in a state.
    #[track_caller]
    pub fn reaches(&self, container: &str, state: &str) {
        wait::soon(&format!("{container} to be {state}"), || {
            let outcome = self.run("inspect --format {{.State.Status}}").arg(container).outcome();
            outcome.stdout_text().trim() == state
        });
    }

    /// The id of a container that runs `sleep` under a name.
    #[track_caller]
    pub fn sleeper(&self, name: &str, flags: &str) -> String {
        self.run(&format!("run -d --name {name} {flags} {IMAGE} sleep 1000")).ok().trim().to_owned()
    }

    /// Removes every container, stops the daemon, and demands that nothing is left.
    #[track_caller]
    pub fn finish(self) {
        let all = self.run("ps -aq").ok();
        if !all.trim().is_empty() {
            self.run("rm -f -v").args(all.split_whitespace()).ok();
        }
        self.daemon.finish();
    }
}
