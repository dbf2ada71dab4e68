//! Hosts and pods of a test.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_cni::{Attachment, Cni, InProcess, Settings};
use berth_sys::thread::{in_network, in_new_network};
use serde_json::{Map, Value};
use testkit::{Scratch, need};

/// A host: the network namespace of the calling thread, and folders.
pub(crate) struct Lab {
    scratch: Scratch,
}

/// The reference plugins and the programs that they call.
pub(crate) fn reference() -> Result<(), need::Missing> {
    need::root()?;
    let peers = testkit::programs::peers();
    need::that(peers.join("cni-1.9.1/bin/bridge").exists(), "the reference CNI plugins (cargo xtask peers)")?;
    need::that(peers.join("filters-12/bin/nft").exists(), "nft and iptables (cargo xtask peers)")
}

/// Runs a test on a host of its own.
pub(crate) fn on_a_host<T: Send>(test: impl FnOnce(&Lab) -> T + Send) -> T {
    let lab = Lab { scratch: Scratch::new() };
    in_new_network(|| {
        ip("link set lo up");
        Ok(test(&lab))
    })
    .unwrap()
}

impl Lab {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// Writes the list of plugins; in it, `LEASES` and `TUNING` are folders of the test.
    pub(crate) fn list(&self, list: &Value) {
        let text = list
            .to_string()
            .replace("LEASES", self.path("leases").to_str().unwrap())
            .replace("TUNING", self.path("tuning").to_str().unwrap());
        fs::create_dir_all(self.path("conf")).unwrap();
        fs::write(self.path("conf/10-net.conflist"), text).unwrap();
    }

    pub(crate) fn cni(&self, in_process: InProcess) -> Cni {
        Self::in_folder(self.scratch.folder(), in_process)
    }

    /// The networks of a lab's folder.
    pub(crate) fn in_folder(folder: &Path, in_process: InProcess) -> Cni {
        let filters = testkit::programs::peers().join("filters-12/bin");
        Cni::new(Settings {
            conf_dir: folder.join("conf"),
            bin_dirs: vec![testkit::programs::peers().join("cni-1.9.1/bin")],
            cache_dir: folder.join("cache"),
            search_path: format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", filters.display()),
            in_process,
            ..Settings::default()
        })
    }

    pub(crate) fn ours(&self) -> Cni {
        self.cni(InProcess::WhenPossible)
    }

    pub(crate) fn theirs(&self) -> Cni {
        self.cni(InProcess::Never)
    }

    /// The leases, each file with its text.
    pub(crate) fn leases(&self) -> Vec<(String, String)> {
        files(&self.path("leases/net")).into_iter().filter(|(name, _)| !name.starts_with("last")).collect()
    }

    pub(crate) fn records(&self) -> Vec<(String, String)> {
        files(&self.path("cache/results"))
    }

    /// Makes of every record one of another runtime, which does not know who made it.
    pub(crate) fn forget_who(&self) {
        for (name, text) in self.records() {
            let mut record: Value = serde_json::from_str(&text).unwrap();
            assert!(record.as_object_mut().unwrap().remove("inProcess").is_some());
            fs::write(self.path("cache/results").join(name), record.to_string()).unwrap();
        }
    }

    /// Takes the result from every record, as after a kill right before it was written.
    pub(crate) fn forget_results(&self) {
        for (name, text) in self.records() {
            let mut record: Value = serde_json::from_str(&text).unwrap();
            assert!(record.as_object_mut().unwrap().remove("result").is_some());
            fs::write(self.path("cache/results").join(name), record.to_string()).unwrap();
        }
    }

    /// Whether nothing of any pod is left; the text says what is.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> = links().into_iter().filter(|name| name.starts_with("veth")).collect();
        left.extend(self.leases().into_iter().map(|(name, _)| name).filter(|name| name != "lock"));
        left.extend(self.records().into_iter().map(|(name, _)| name));
        left.extend(files(&self.path("tuning")).into_iter().map(|(name, _)| name));
        let rules = filter("nft -s list ruleset");
        let of_pod = |line: &&str| line.contains("10.99.") || line.contains("fd99:");
        left.extend(rules.lines().filter(of_pod).map(str::to_owned));
        left
    }
}

fn files(folder: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<(String, String)> = entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap_or_default())
        })
        .collect();
    files.sort();
    files
}

/// A pod: a network namespace that ends with it.
pub(crate) struct Pod {
    file: File,
    pub(crate) attachment: Attachment,
}

impl Pod {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, &Value::Null)
    }

    /// One for which the runtime has something.
    pub(crate) fn with(name: &str, capabilities: &Value) -> Self {
        let file = in_new_network(|| File::open("/proc/thread-self/ns/net")).unwrap();
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into();
        let attachment = Attachment {
            container: name.into(),
            namespace,
            arguments: vec![("IgnoreUnknown".into(), "1".into()), ("K8S_POD_NAME".into(), name.into())],
            capabilities: capabilities.as_object().cloned().unwrap_or_default(),
        };
        Self { file, attachment }
    }

    /// The same without its namespace, as when the runtime comes too late.
    pub(crate) fn gone(&self) -> Attachment {
        Attachment { namespace: PathBuf::new(), capabilities: Map::new(), ..self.attachment.clone() }
    }

    /// Does something as a process of the pod would.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_network(self.file.as_fd(), || io::Result::Ok(work())).unwrap()
    }
}

/// Runs `ip` where the caller is.
pub(crate) fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The names of the devices where the caller is.
pub(crate) fn links() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

/// A program of the packet filter, on the host of the caller.
pub(crate) fn filter(words: &str) -> String {
    let mut words = words.split(' ');
    let program = testkit::programs::peers().join("filters-12/bin").join(words.next().unwrap());
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
