//! What the tests of plugins share: programs, a daemon's stand-in, and messages.

#![allow(dead_code, reason = "each of the test programs uses a part")]

pub(crate) mod raw;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use berth_nri::{Config, Host, Nri, Snapshot, proto};
use berth_types::Result;
use testkit::Scratch;
use testkit::nri::Programs;

/// The plugins' programs.
pub(crate) fn programs() -> Option<&'static Programs> {
    testkit::nri::programs(Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// A daemon that writes down what plugins want of it.
#[derive(Debug, Default)]
pub(crate) struct Daemon {
    pub(crate) snapshot: Snapshot,
    pub(crate) updates: Mutex<Vec<proto::ContainerUpdate>>,
    pub(crate) evictions: Mutex<Vec<proto::ContainerEviction>>,
}

#[async_trait]
impl Host for Daemon {
    async fn snapshot(&self) -> Result<Snapshot> {
        Ok(self.snapshot.clone())
    }

    /// Updates of `gone` fail.
    async fn update(&self, updates: Vec<proto::ContainerUpdate>) -> Vec<proto::ContainerUpdate> {
        self.updates.lock().unwrap().extend(updates.clone());
        updates.into_iter().filter(|update| update.container_id == "gone").collect()
    }

    async fn evict(&self, evictions: Vec<proto::ContainerEviction>) {
        self.evictions.lock().unwrap().extend(evictions);
    }
}

/// Folders and a socket of the test's own.
pub(crate) struct Bed {
    pub(crate) scratch: Scratch,
    pub(crate) config: Config,
    pub(crate) daemon: Arc<Daemon>,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let config = Config {
            plugin_path: scratch.path("plugins"),
            plugin_config_path: scratch.path("conf.d"),
            socket_path: scratch.path("nri/nri.sock"),
            // A busy machine must not be taken for a slow plugin; tests of slow ones say so.
            plugin_registration_timeout: Duration::from_secs(60),
            plugin_request_timeout: Duration::from_secs(60),
            ..Config::default()
        };
        fs::create_dir(&config.plugin_path).unwrap();
        fs::create_dir(&config.plugin_config_path).unwrap();
        Self { scratch, config, daemon: Arc::default() }
    }

    /// Puts a program into the folder of plugins, with a configuration if there is one.
    pub(crate) fn install(&self, name: &str, program: &Path, config: Option<&str>) {
        symlink(program, self.config.plugin_path.join(name)).unwrap();
        if let Some(text) = config {
            fs::write(self.config.plugin_config_path.join(format!("{name}.conf")), text).unwrap();
        }
    }

    pub(crate) async fn open(&self) -> Nri {
        Nri::open(self.config.clone(), self.daemon.clone()).await.unwrap()
    }

    /// A journal for a plugin.
    pub(crate) fn journal(&self, name: &str) -> Journal {
        Journal(self.scratch.path(format!("{name}.journal")))
    }

    /// Starts a plugin that connects to the socket.
    pub(crate) fn connect(&self, scribe: &Path, name: &str, config: &str) -> Started {
        let (index, base) = name.split_once('-').unwrap();
        let mut command = Command::new(scribe);
        command
            .args(["-name", base, "-idx", index, "-config", config, "-socket"])
            .arg(&self.config.socket_path);
        Started(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

/// A process that ends with the test.
pub(crate) struct Started(pub(crate) Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a plugin wrote down.
pub(crate) struct Journal(PathBuf);

impl Journal {
    pub(crate) fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.0)
            .unwrap_or_default()
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    /// Waits for a line that begins so.
    pub(crate) fn wait(&self, beginning: &str) -> String {
        let find = || self.lines().into_iter().find(|line| line.starts_with(beginning));
        testkit::wait::until(beginning, testkit::wait::SOON, find)
    }

    /// A plugin's configuration: this journal, and more members of the JSON object.
    pub(crate) fn config(&self, more: &str) -> String {
        format!(r#"{{"Journal": "{}"{}{more}}}"#, self.0.display(), if more.is_empty() { "" } else { ", " })
    }
}

pub(crate) fn pod(annotations: &[(&str, &str)]) -> proto::PodSandbox {
    let own = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    proto::PodSandbox {
        id: "p1".into(),
        name: "web".into(),
        namespace: "default".into(),
        annotations: annotations.iter().map(own).collect(),
        ..Default::default()
    }
}

pub(crate) fn container() -> proto::Container {
    let limit = Some(proto::OptionalInt64 { value: 1000 });
    let memory = Some(proto::LinuxMemory { limit, ..Default::default() });
    let resources = Some(proto::LinuxResources { memory, ..Default::default() });
    proto::Container {
        id: "c1".into(),
        pod_sandbox_id: "p1".into(),
        name: "main".into(),
        env: vec!["COLOUR=grey".into()],
        linux: Some(proto::LinuxContainer { resources, ..Default::default() }),
        ..Default::default()
    }
}
