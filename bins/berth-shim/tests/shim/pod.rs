//! A shim with bundles of its own, and what a daemon does with it.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_proto as proto;
use berth_ttrpc::client::Client;
use berth_ttrpc::{Code, Error, Metadata};
use prost::{Message, Name};
use proto::containerd::events as event;
use proto::containerd::runc::v1::Options;
use proto::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult, Extension};
use proto::containerd::task::v3 as wire;
use proto::containerd::types::{Envelope, Mount};
use serde_json::{Value, json};
use testkit::{Scratch, need, wait};

use crate::daemon::Daemon;

pub(crate) const PLENTY: Duration = Duration::from_secs(60);

/// The program under test: this build's, or the one that `BERTH_SHIM` names.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("BERTH_SHIM").map_or_else(|| env!("CARGO_BIN_EXE_berth-shim").into(), PathBuf::from)
}

/// Whose low-level runtime the shim uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Native,
    Runc,
}

/// Folders, a daemon's ear, and shims.
pub(crate) struct Pod {
    pub(crate) scratch: Scratch,
    pub(crate) heard: Arc<Mutex<Vec<Envelope>>>,
    pub(crate) daemon: Option<Daemon>,
    runc: Option<PathBuf>,
}

/// The streams of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// A connection to a shim, for one container.
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) client: Client,
    pub(crate) shim: u32,
    options: Option<prost_types::Any>,
}

impl Pod {
    /// A fresh one; none when something is missing on the machine.
    pub(crate) fn new(kind: Kind) -> Option<Self> {
        need::root().ok()?;
        let busybox = need::program("busybox").ok()?;
        let runc = match kind {
            Kind::Native => None,
            Kind::Runc => Some(need::program("runc").ok()?),
        };
        let scratch = Scratch::new();
        let bin = scratch.path("image/bin");
        std::fs::create_dir_all(&bin).unwrap();
        for folder in ["proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(scratch.path("image").join(folder)).unwrap();
        }
        std::fs::copy(busybox, bin.join("busybox")).unwrap();
        for applet in [
            "sh", "cat", "sleep", "echo", "true", "stty", "head", "tail", "kill", "yes", "tty", "dd", "ls",
            "id",
        ] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let heard = Arc::new(Mutex::default());
        let daemon = Some(Daemon::listen(&scratch.path("events.sock"), heard.clone()));
        Some(Self { scratch, heard, daemon, runc })
    }

    /// The task options for this kind of runtime.
    pub(crate) fn options(&self) -> Options {
        match &self.runc {
            None => Options { root: self.scratch.path("runc").display().to_string(), ..Default::default() },
            Some(runc) => Options {
                binary_name: runc.display().to_string(),
                root: self.scratch.path("runc").display().to_string(),
                ..Default::default()
            },
        }
    }

    /// A bundle whose process runs a shell script.
    pub(crate) fn bundle(&self, id: &str, script: &str) -> PathBuf {
        self.bundle_with(id, script, |_| {})
    }

    /// The same with changes to its spec.
    pub(crate) fn bundle_with(&self, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.scratch.path("bundles").join(id);
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "process": process(script),
            "root": {"path": "rootfs"},
            "hostname": "pod",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            ],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
                "cgroupsPath": format!("/{}/{id}", self.scratch.tag()),
                "resources": {},
            },
        });
        change(&mut spec);
        std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        bundle
    }

    /// Starts a shim in a bundle as containerd 2.3 does.
    pub(crate) fn start(&self, id: &str, bundle: &Path) -> Task {
        let options = self.options();
        let any = prost_types::Any { type_url: Options::full_name(), value: options.encode_to_vec() };
        let params = BootstrapParams {
            instance_id: id.into(),
            namespace: self.scratch.tag().into(),
            containerd_grpc_address: self.scratch.path("d.sock").display().to_string(),
            containerd_ttrpc_address: self.scratch.path("events.sock").display().to_string(),
            containerd_binary: "/bin/false".into(),
            socket_dir: Some(self.scratch.path("s").display().to_string()),
            extensions: vec![Extension { value: Some(any) }],
            ..Default::default()
        };
        let output = self.run_shim(&["start"], id, bundle, &params.encode_to_vec());
        let result = BootstrapResult::decode(output.as_slice()).expect("a bootstrap result");
        assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
        let path = result.address.strip_prefix("unix://").expect("a path socket").to_owned();
        self.connect(id, bundle, Path::new(&path))
    }

    /// Connects to the shim that serves at a socket.
    pub(crate) fn connect(&self, id: &str, bundle: &Path, socket: &Path) -> Task {
        let options =
            prost_types::Any { type_url: Options::full_name(), value: self.options().encode_to_vec() };
        let socket = UnixStream::connect(socket).expect("the shim listens");
        let client = Client::from_stream(socket).with_metadata(Metadata::for_namespace(self.scratch.tag()));
        let mut task =
            Task { id: id.into(), bundle: bundle.to_owned(), client, shim: 0, options: Some(options) };
        task.shim = task.connect().shim_pid;
        task
    }

    /// Runs the shim's program with containerd's flags.
    pub(crate) fn run_shim(&self, action: &[&str], id: &str, bundle: &Path, input: &[u8]) -> Vec<u8> {
        use std::io::Write as _;
        let mut command = Command::new(program());
        command.args(["-namespace", self.scratch.tag(), "-id", id, "-address"]);
        command.arg(self.scratch.path("d.sock")).args(["-publish-binary", "/bin/false"]).args(action);
        command.current_dir(bundle).env_remove("MAX_SHIM_VERSION");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the shim's program runs");
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        output.stdout
    }

    /// Starts a shim, makes the container and starts it.
    pub(crate) fn launch(&self, id: &str, script: &str, streams: &Streams) -> Task {
        let bundle = self.bundle_with(id, script, |spec| {
            spec["process"]["terminal"] = streams.terminal.into();
        });
        let mut task = self.start(id, &bundle);
        task.create(self, streams).unwrap_or_else(|error| panic!("create: {error}"));
        task.call::<_, wire::StartResponse>(
            "Start",
            &wire::StartRequest { id: id.into(), exec_id: String::new() },
        )
        .unwrap_or_else(|error| panic!("start: {error}"));
        task
    }

    /// The topics that were told, each with what its process is called; in order.
    pub(crate) fn topics(&self) -> Vec<String> {
        self.heard.lock().unwrap().iter().map(topic).collect()
    }

    /// Waits until something was told.
    pub(crate) fn hears(&self, what: &str) {
        wait::soon(&format!("{what} among {:?}", self.topics()), || {
            self.topics().iter().any(|one| one == what)
        });
    }

    /// Exit events so far.
    pub(crate) fn exits(&self) -> Vec<event::TaskExit> {
        let heard = self.heard.lock().unwrap();
        let exits = heard.iter().filter(|envelope| envelope.topic == "/tasks/exit");
        exits.map(unpack).collect()
    }

    /// A fifo in the scratch folder.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.scratch.path(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o700.into(), 0).unwrap();
        path
    }
}

/// The OCI process of a script.
pub(crate) fn process(script: &str) -> Value {
    let all = ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"];
    json!({
        "args": ["/bin/sh", "-c", script],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
        "capabilities": {"bounding": all, "effective": all, "permitted": all},
        "noNewPrivileges": true,
    })
}

fn topic(envelope: &Envelope) -> String {
    let short = envelope.topic.trim_start_matches("/tasks/").to_owned();
    match envelope.topic.as_str() {
        "/tasks/exit" => format!("exit {}", unpack::<event::TaskExit>(envelope).id),
        "/tasks/exec-added" => format!("exec-added {}", unpack::<event::TaskExecAdded>(envelope).exec_id),
        "/tasks/exec-started" => {
            format!("exec-started {}", unpack::<event::TaskExecStarted>(envelope).exec_id)
        }
        _ => short,
    }
}

fn unpack<M: Message + Name + Default>(envelope: &Envelope) -> M {
    let any = envelope.event.as_ref().expect("an event has a message");
    assert_eq!(any.type_url, M::full_name());
    M::decode(any.value.as_slice()).expect("the message of its type")
}

impl Task {
    /// Calls a method of the task service.
    pub(crate) fn call<Q: Message, A: Message + Default>(
        &mut self,
        method: &str,
        request: &Q,
    ) -> Result<A, Error> {
        self.client.call("containerd.task.v3.Task", method, request, PLENTY)
    }

    pub(crate) fn create(&mut self, pod: &Pod, streams: &Streams) -> Result<u32, Error> {
        let request = self.create_request(pod, streams);
        self.call::<_, wire::CreateTaskResponse>("Create", &request).map(|answer| answer.pid)
    }

    pub(crate) fn create_request(&self, pod: &Pod, streams: &Streams) -> wire::CreateTaskRequest {
        wire::CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.display().to_string(),
            rootfs: vec![Mount {
                r#type: "bind".into(),
                source: pod.scratch.path("image").display().to_string(),
                target: String::new(),
                options: vec!["rbind".into(), "rw".into()],
            }],
            terminal: streams.terminal,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            options: self.options.clone(),
            ..Default::default()
        }
    }

    pub(crate) fn connect(&mut self) -> wire::ConnectResponse {
        let request = wire::ConnectRequest { id: self.id.clone() };
        self.call("Connect", &request).expect("a shim can always be asked")
    }

    pub(crate) fn start(&mut self, exec: &str) -> Result<u32, Error> {
        let request = wire::StartRequest { id: self.id.clone(), exec_id: exec.into() };
        self.call::<_, wire::StartResponse>("Start", &request).map(|answer| answer.pid)
    }

    pub(crate) fn exec(&mut self, exec: &str, script: &str, streams: &Streams) -> Result<(), Error> {
        let spec = prost_types::Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: process(script).to_string().into_bytes(),
        };
        let request = wire::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec.into(),
            terminal: streams.terminal,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            spec: Some(spec),
        };
        self.call("Exec", &request)
    }

    pub(crate) fn wait(&mut self, exec: &str) -> u32 {
        let request = wire::WaitRequest { id: self.id.clone(), exec_id: exec.into() };
        self.call::<_, wire::WaitResponse>("Wait", &request).expect("wait").exit_status
    }

    pub(crate) fn kill(&mut self, exec: &str, signal: u32, all: bool) -> Result<(), Error> {
        let request = wire::KillRequest { id: self.id.clone(), exec_id: exec.into(), signal, all };
        self.call("Kill", &request)
    }

    pub(crate) fn delete(&mut self, exec: &str) -> Result<wire::DeleteResponse, Error> {
        let request = wire::DeleteRequest { id: self.id.clone(), exec_id: exec.into() };
        self.call("Delete", &request)
    }

    pub(crate) fn state(&mut self, exec: &str) -> Result<wire::StateResponse, Error> {
        let request = wire::StateRequest { id: self.id.clone(), exec_id: exec.into() };
        self.call("State", &request)
    }

    pub(crate) fn close_io(&mut self, exec: &str) {
        let request = wire::CloseIoRequest { id: self.id.clone(), exec_id: exec.into(), stdin: true };
        self.call::<_, ()>("CloseIO", &request).expect("close io");
    }

    /// Deletes the container and ends the shim.
    pub(crate) fn finish(mut self) {
        self.delete("").unwrap_or_else(|error| panic!("delete: {error}"));
        self.shutdown();
    }

    pub(crate) fn shutdown(mut self) {
        let watched = wait::Watched::open(self.shim);
        let request = wire::ShutdownRequest { id: self.id.clone(), now: false };
        self.call::<_, ()>("Shutdown", &request).expect("shutdown");
        assert!(watched.is_none_or(|watched| watched.ends_within(PLENTY)), "the shim ends");
    }
}

/// The code of a call that failed.
#[track_caller]
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> Code {
    match result {
        Err(Error::Status(status)) => status.code,
        other => panic!("a refusal, not {other:?}"),
    }
}
