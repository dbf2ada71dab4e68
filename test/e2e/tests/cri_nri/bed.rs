//! Plugins beside a node: installed, or connecting from outside, each with a journal.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::Node;
use testkit::nri::Programs;
use testkit::wait;

/// The table of NRI. A busy machine must not be taken for a slow plugin; tests of slow ones set `TIME`.
const TABLE: &str = "\n[plugins.'io.containerd.nri.v1.nri']\nplugin_path = 'SCRATCH/nri/plugins'\n\
    plugin_config_path = 'SCRATCH/nri/conf.d'\nsocket_path = 'SCRATCH/nri/nri.sock'\n\
    plugin_registration_timeout = '60s'\nplugin_request_timeout = 'TIME'\n";

/// The plugins' programs; says what is missing.
pub(crate) fn programs() -> Option<&'static Programs> {
    testkit::nri::programs(Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// The table, with more of it.
pub(crate) fn table(time: &str, more: &str) -> String {
    TABLE.replace("TIME", time) + more
}

/// Runs a test on a node with NRI.
#[track_caller]
pub(crate) fn run(test: impl FnOnce(&mut Node, &'static Programs) + Send) {
    run_with(&table("60s", ""), test);
}

/// The same with a table of the test's own.
#[track_caller]
pub(crate) fn run_with(table: &str, test: impl FnOnce(&mut Node, &'static Programs) + Send) {
    let Some(programs) = programs() else { return };
    Node::run_with(table, |node| test(node, programs));
}

/// Installs a plugin, which the daemon starts when it is started again.
pub(crate) fn install(node: &Node, name: &str, program: &Path, config: Option<&str>) {
    let folders = [node.path("nri/plugins"), node.path("nri/conf.d")];
    folders.iter().for_each(|folder| fs::create_dir_all(folder).expect("the scratch folder takes folders"));
    symlink(program, folders[0].join(name)).expect("the scratch folder takes a link");
    if let Some(text) = config {
        fs::write(folders[1].join(format!("{name}.conf")), text).expect("the scratch folder takes a file");
    }
}

/// Takes all installed plugins away, with a daemon that is started anew.
pub(crate) fn uninstall(node: &mut Node) {
    fs::remove_dir_all(node.path("nri/plugins")).expect("it is the test's own");
    node.daemon.stop();
    node.daemon.restart();
}

/// Starts the scribe as a plugin from outside, and waits until it knows what there is.
pub(crate) fn connect(node: &Node, programs: &Programs, name: &str, config: &str) -> (Started, Journal) {
    let journal = journal(node, name);
    let (index, base) = name.split_once('-').expect("NN-name");
    let mut command = Command::new(&programs.scribe);
    command.args(["-name", base, "-idx", index, "-config", &journal.config(config), "-socket"]);
    command.arg(node.path("nri/nri.sock")).stdin(Stdio::null()).stderr(Stdio::null());
    let started = Started(command.spawn().expect("it was built"));
    journal.wait("Synchronize");
    (started, journal)
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

/// The journal of a plugin.
pub(crate) fn journal(node: &Node, name: &str) -> Journal {
    Journal(node.path(&format!("{name}.journal")))
}

impl Journal {
    /// Its lines, without what differs from run to run.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let line = |line: &str| line.split(" map[").next().unwrap_or_default().trim_end().to_owned();
        text.lines().map(line).collect()
    }

    /// Waits for a line that begins so.
    #[track_caller]
    pub(crate) fn wait(&self, beginning: &str) -> String {
        let find = || self.lines().into_iter().find(|line| line.starts_with(beginning));
        wait::until(beginning, wait::SOON, find)
    }

    /// Whether there is such a line.
    pub(crate) fn has(&self, line: &str) -> bool {
        self.lines().iter().any(|one| one == line)
    }

    /// A plugin's configuration: this journal, and more members of the JSON object.
    pub(crate) fn config(&self, more: &str) -> String {
        format!(r#"{{"Journal": "{}"{}{more}}}"#, self.0.display(), if more.is_empty() { "" } else { ", " })
    }
}
