//! A daemon with folders, socket and config of its own: berthd, or a containerd to compare with,
//! started and spoken to in the same way.

mod config;
mod ready;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::wait::{self, Watched};
use crate::{Invocation, Leftovers, Scratch, need, programs};

/// Whose daemon it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// berthd.
    Berth,
    /// containerd 2.3.4, built from its Go module.
    Containerd,
    /// containerd 1.6 of Debian 12.
    Debian,
}

/// How a daemon is to be started.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The name that its program is started by, through a link in its folder; the program's own without it.
    pub name: Option<&'static str>,
    /// Folders before all others in its `PATH`: where it looks for shims and runc.
    pub path: Vec<PathBuf>,
    /// More of the config file, in version 2's form. `SCRATCH` in it stands for the daemon's folder.
    pub config: String,
    /// Whether it serves the CRI. It does not by default, because containerd's reaches outside the daemon's folders.
    pub kubernetes: bool,
    /// More of its environment.
    pub environment: Vec<(String, String)>,
    /// How much it logs; `debug` without it.
    pub log_level: Option<String>,
    /// What is done to its folder before it starts: mounting something there, for example.
    pub before: Option<fn(&Scratch)>,
}

/// A daemon that runs. Dropping it kills it, every shim and container of it, and removes its folders.
#[derive(Debug)]
pub struct Daemon {
    kind: Kind,
    program: PathBuf,
    child: Option<Child>,
    setup: Setup,
    scratch: Scratch,
}

impl Kind {
    /// The daemon's program; says so when it is not there.
    pub fn program(self) -> Result<PathBuf, need::Missing> {
        let (name, found) = match self {
            Self::Berth => ("berthd", programs::own("berthd")),
            Self::Containerd => ("containerd 2.3", programs::containerd("containerd")),
            Self::Debian => ("Debian's containerd", programs::debian("containerd")),
        };
        found.map_or_else(|| need::program(&format!("{name} (cargo xtask peers)")), Ok)
    }
}

impl Daemon {
    /// Starts a daemon and waits until it answers. Without the program, or without root's rights,
    /// it says so and gives the error that ends the test.
    #[track_caller]
    pub fn start(kind: Kind) -> Result<Self, need::Missing> {
        Self::with(kind, Setup::default())
    }

    /// Starts a daemon set up in a certain way.
    #[track_caller]
    pub fn with(kind: Kind, setup: Setup) -> Result<Self, need::Missing> {
        need::root()?;
        let mut program = kind.program()?;
        let scratch = Scratch::new();
        if let Some(name) = setup.name {
            let link = scratch.path(name);
            std::os::unix::fs::symlink(&program, &link).expect("the scratch folder takes a link");
            program = link;
        }
        if let Some(prepare) = setup.before {
            prepare(&scratch);
        }
        let mut daemon = Self { kind, program, child: None, setup, scratch };
        config::write(&daemon);
        daemon.launch();
        Ok(daemon)
    }

    /// Whose it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The program that was started.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its folder and tag.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The tag, also the name of the namespace that tests use.
    pub fn tag(&self) -> &str {
        self.scratch.tag()
    }

    /// The gRPC socket.
    pub fn address(&self) -> PathBuf {
        self.scratch.path("d.sock")
    }

    /// What survives a reboot.
    pub fn root(&self) -> PathBuf {
        self.scratch.path("root")
    }

    /// What does not.
    pub fn state(&self) -> PathBuf {
        self.scratch.path("state")
    }

    /// The config file.
    pub fn config(&self) -> PathBuf {
        self.scratch.path("config.toml")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read(self.scratch.path("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Its process number while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `ctr` 2.3 speaking to this daemon, in the tag's namespace.
    #[track_caller]
    pub fn ctr(&self) -> Result<Invocation, need::Missing> {
        let program =
            programs::containerd("ctr").map_or_else(|| need::program("ctr 2.3 (cargo xtask peers)"), Ok)?;
        Ok(self.client(&program))
    }

    /// Debian's `ctr` 1.6 speaking to this daemon, in the tag's namespace.
    #[track_caller]
    pub fn old_ctr(&self) -> Result<Invocation, need::Missing> {
        let program =
            programs::debian("ctr").map_or_else(|| need::program("ctr 1.6 (cargo xtask peers)"), Ok)?;
        Ok(self.client(&program))
    }

    /// The `PATH` with which it looks for shims and runc.
    pub fn search_path(&self) -> std::ffi::OsString {
        programs::search_path(&self.setup.path, self.kind != Kind::Debian)
    }

    /// A client that takes `--address` and `--namespace` as ctr, berth and nerdctl do.
    pub fn client(&self, program: &Path) -> Invocation {
        Invocation::new(program)
            .arg("--address")
            .arg(self.address())
            .args(["--namespace", self.tag()])
            .env("PATH", self.search_path())
    }

    /// Ends the daemon with no chance to tidy up. Its shims and containers go on.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// Asks the daemon to end and waits for that. Its shims and containers go on.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        let watched = Watched::open(child.id()).expect("an unreaped child is there");
        watched.signal(Signal::TERM);
        let in_time = watched.ends_within(Duration::from_secs(30));
        if !in_time {
            let _ = child.kill();
        }
        child.wait().expect("it is our child");
        assert!(in_time, "the daemon did not end on SIGTERM:\n{}", self.log_tail());
    }

    /// Sets a variable of its environment, and takes parts out of those that its configuration disables, for its next start.
    pub fn enable(&mut self, variables: &[(&str, &str)], parts: &[&str]) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.setup.environment.extend(variables.iter().map(owned));
        let config = fs::read_to_string(self.config()).expect("it has been written");
        let is_kept = |line: &&str| !parts.iter().any(|part| line.contains(part));
        let lines: Vec<&str> = config.lines().filter(is_kept).collect();
        fs::write(self.config(), lines.join("\n")).expect("it is the test's own");
    }

    /// Starts it again after [`Daemon::kill`] or [`Daemon::stop`], and waits until it answers.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "the daemon runs");
        self.launch();
    }

    /// Stops the daemon and demands that nothing of it is left on the machine.
    #[track_caller]
    pub fn finish(mut self) {
        if self.child.is_some() {
            self.stop();
        }
        Leftovers::none(&self.scratch);
    }

    #[track_caller]
    fn launch(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.scratch.path("log"));
        let log = log.expect("the scratch folder takes a log");
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.config()).arg("--address").arg(self.address());
        command
            .arg("--root")
            .arg(self.root())
            .arg("--state")
            .arg(self.state())
            .args(["--log-level", self.setup.log_level.as_deref().unwrap_or("debug")]);
        command.env("PATH", self.search_path());
        command.envs(self.setup.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.scratch.folder());
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a descriptor can be copied")).stdout(log);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        let watched = Watched::open(child.id()).expect("an unreaped child is there");
        self.child = Some(child);
        let answered = wait::until("the daemon's answer or end", wait::SOON, || {
            if ready::answers(&self.address()) {
                return Some(true);
            }
            watched.ends_within(Duration::ZERO).then_some(false)
        });
        assert!(answered, "{:?} ended at its start:\n{}", self.kind, self.log_tail());
    }

    /// The end of the log, for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of {:?} ends:\n{}", self.kind, self.log_tail());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
