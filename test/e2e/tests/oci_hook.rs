//! `berthd oci-hook` beside containerd's: the same state goes to both, and the hook sees the same words.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::{Daemon, Invocation, Kind, Scratch, need, programs};

/// A hook that tells its words and what its environment has of ours.
const HOOK: [&str; 4] = ["/bin/sh", "-c", "echo \"$0|$*\"; env | grep ^BERTH_TEST; cat", "hook"];

struct Beside {
    scratch: Scratch,
    programs: [PathBuf; 2],
}

impl Beside {
    fn new() -> Option<Self> {
        let berthd = need::program("berthd").ok()?;
        let containerd = programs::containerd("containerd");
        need::that(containerd.is_some(), "containerd 2.3 (cargo xtask peers)").ok()?;
        Some(Self { scratch: Scratch::new(), programs: [containerd?, berthd] })
    }

    /// A bundle whose root is at `root`, and the state of a container of it.
    fn state(&self, root: &str) -> String {
        self.scratch.file("config.json", json!({"root": {"path": root}}).to_string());
        json!({
            "ociVersion": "1.2.0", "id": "c1", "status": "created", "pid": 4711, "bundle": self.scratch.folder(),
            "annotations": {"a.b/c": "with blank", "quoted": "\"x\""},
        })
        .to_string()
    }

    /// Output and success of both with the same input and words.
    fn both(&self, state: &str, words: &[&str]) -> [(String, bool); 2] {
        self.programs.clone().map(|program| {
            let run = Invocation::new(program).args(["oci-hook", "--"]).args(words);
            let outcome = run.env("BERTH_TEST", "{{pid}} of {{id}}").input(state).outcome();
            (outcome.stdout_text(), outcome.code() == 0)
        })
    }

    #[track_caller]
    fn same(&self, state: &str, words: &[&str]) -> String {
        let [containerd, berthd] = self.both(state, words);
        assert_eq!(berthd, containerd, "{words:?}: berthd on the left, containerd on the right");
        assert!(berthd.1, "{words:?} works");
        berthd.0
    }
}

#[test]
fn a_hook_sees_what_containerds_hook_sees() {
    let Some(beside) = Beside::new() else { return };
    let state = beside.state("rootfs");
    let mut words = HOOK.to_vec();
    words.extend(["{{id}}", "--pid={{ pid }}", "{{status}}{{bundle}}", "{{rootfs}}", "plain", ""]);
    let folder = beside.scratch.folder().display().to_string();
    let out = beside.same(&state, &words);
    let expected =
        format!("hook|c1 --pid=4711 created{folder} {folder}/rootfs plain \nBERTH_TEST=4711 of c1\n");
    assert_eq!(out, expected);

    let mut words = HOOK.to_vec();
    words.extend(["{{annotation \"a.b/c\"}}", "{{annotation `quoted`}}", "<{{annotation \"none\"}}>"]);
    assert!(beside.same(&state, &words).starts_with("hook|with blank \"x\" <>\n"));

    let state = beside.state("/abs/root");
    assert!(beside.same(&state, &["/bin/echo", "{{rootfs}}"]).starts_with("/abs/root\n"));
}

#[test]
fn what_cannot_be_filled_in_fails_as_there() {
    let Some(beside) = Beside::new() else { return };
    let state = beside.state("rootfs");
    for word in ["{{id", "{{nothing}}", "{{annotation}}"] {
        let [containerd, berthd] = beside.both(&state, &["/bin/echo", word]);
        assert_eq!((berthd.1, containerd.1), (false, false), "{word}");
        assert!(!berthd.0.contains(word), "{word}");
    }
    for state in ["", "{", "[]"] {
        let [containerd, berthd] = beside.both(state, &["/bin/echo"]);
        assert_eq!((berthd.1, containerd.1), (false, false), "{state:?}");
    }
}

/// A spec for a container of `root` that ends at once, with a hook that is called through `program`.
fn spec(program: &Path, root: &Path, heard: &Path) -> Option<Value> {
    let berth = need::program("berth").ok()?;
    let scratch = Scratch::new();
    Invocation::new(berth).args(["oci", "spec", "--bundle"]).arg(scratch.folder()).ok();
    let text = std::fs::read(scratch.path("config.json")).expect("the spec was written");
    let mut spec: Value = serde_json::from_slice(&text).expect("it is JSON");
    spec["root"] = json!({"path": root});
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bin/echo", "inside"]);
    spec["annotations"] = json!({"colour": "blue"});
    let hook = format!("echo \"$@\" >{}", heard.display());
    let words = [
        "containerd",
        "oci-hook",
        "--",
        "/bin/sh",
        "-c",
        &hook,
        "sh",
        "{{id}}",
        "{{annotation \"colour\"}}",
        "{{pid}}",
    ];
    spec["hooks"] = json!({"createRuntime": [{"path": program, "args": words}]});
    Some(spec)
}

#[test]
fn a_container_runs_its_hook_through_it() {
    let Ok(berthd) = need::program("berthd") else { return };
    let Ok(busybox) = need::program("busybox") else { return };
    let Ok(daemon) = Daemon::start(Kind::Berth) else { return };
    let Ok(ctr) = daemon.ctr() else { return };
    let (root, heard) = (daemon.scratch().path("rootfs"), daemon.scratch().path("heard"));
    for folder in ["bin", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(folder)).expect("the scratch folder takes folders");
    }
    Invocation::new("cp").arg(busybox).arg(root.join("bin/echo")).ok();
    let Some(spec) = spec(&berthd, &root, &heard) else { return };
    let config = daemon.scratch().file("spec.json", spec.to_string());
    let out = ctr.args(["run", "--rm", "--config"]).arg(config).arg("hooked").ok();
    assert_eq!(out, "inside\n");
    let heard = std::fs::read_to_string(heard).expect("the hook ran");
    let pid = heard.strip_prefix("hooked blue ").map(|pid| pid.trim().parse::<u32>());
    assert!(matches!(pid, Some(Ok(1..))), "{heard:?}");
    daemon.finish();
}
