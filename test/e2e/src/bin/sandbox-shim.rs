//! A shim that hosts a whole pod, for tests: the sandbox API is its own, and the pod's containers are those of containerd's
//! shim for runc, which it starts and to which it passes every call of the task API, as a shim that boots a machine passes
//! them to an agent in there. The name under which it is called says how it misbehaves: `…-refuse-start`, see [`Behaviour`].

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use berth_proto as proto;
use berth_ttrpc::client::Client;
use berth_ttrpc::tokio::{Handler, Server};
use berth_ttrpc::{Code, Error, Metadata, Status};
use prost::Message;
use proto::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use proto::containerd::runtime::sandbox::v1 as wire;
use proto::containerd::task::v3 as task;
use proto::convert::timestamp;
use tokio::net::UnixListener;
use tokio::sync::watch;

const INNER: &str = "containerd-shim-runc-v2";
/// Where it is remembered which process stands for the machine, for whoever cleans up. There is one in sandboxes alone.
const MACHINE: &str = "machine.pid";
/// The longest that the inner shim may take: the end of a container is waited for in this way.
const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_secs(10);

/// What it does, by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Good,
    /// Never answers `CreateSandbox`.
    HangCreate,
    /// Ends at `CreateSandbox`.
    CrashCreate,
    /// Refuses `StartSandbox`.
    RefuseStart,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag);
        at.and_then(|at| arguments.get(at + 1)).cloned().unwrap_or_default()
    };
    let behaviour = match arguments[0].rsplit_once("sandbox-shim").map_or("", |(_, how)| how) {
        "-hang-create" => Behaviour::HangCreate,
        "-crash-create" => Behaviour::CrashCreate,
        "-refuse-start" => Behaviour::RefuseStart,
        _ => Behaviour::Good,
    };
    match arguments.last().map(String::as_str) {
        Some("start") => serve(behaviour, &arguments[1..], value("-id")),
        Some("delete") => delete(&arguments[1..], &value("-id")),
        other => bail!("no command: {other:?}"),
    }
}

/// Ends machine and inner shim of a sandbox; what a container of it has left, the inner shim's program knows.
fn delete(arguments: &[String], id: &str) -> Result<()> {
    let Ok(machine) = std::fs::read_to_string(MACHINE) else {
        let status = Command::new(INNER).args(arguments).status().context(INNER)?;
        anyhow::ensure!(status.success(), "{INNER} delete: {status}");
        return Ok(());
    };
    if let Ok(pid) = machine.parse() {
        kill(pid);
    }
    for process in std::fs::read_dir("/proc")?.flatten() {
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        if words[0].ends_with(INNER.as_bytes()) && words.contains(&id.as_bytes()) {
            kill(process.file_name().to_string_lossy().parse()?);
        }
    }
    let answer = task::DeleteResponse { exited_at: timestamp(SystemTime::now()), ..Default::default() };
    std::io::stdout().write_all(&answer.encode_to_vec())?;
    Ok(())
}

fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // The only failure left is that it has ended.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn serve(behaviour: Behaviour, arguments: &[String], id: String) -> Result<()> {
    let mut stdin = Vec::new();
    std::io::stdin().read_to_end(&mut stdin)?;
    let folder = PathBuf::from(BootstrapParams::decode(stdin.as_slice())?.socket_dir.unwrap_or_default());
    let socket = folder.join(format!("host-{}", std::process::id()));
    std::fs::write("shim.pid", std::process::id().to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let listener = UnixListener::bind(&socket)?;
        let address = format!("unix://{}", socket.display());
        let answer =
            BootstrapResult { version: 3, address, protocol: "ttrpc".to_owned(), ..Default::default() };
        let mut stdout = std::io::stdout();
        stdout.write_all(&answer.encode_to_vec())?;
        stdout.flush()?;
        // The daemon waits for the end of the answer, not of the shim.
        let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        let (stop, mut stopped) = watch::channel(false);
        let host = Host { behaviour, id, arguments: arguments.to_vec(), stdin, stop, pod: Arc::default() };
        Server::new(host).serve(listener, async move { drop(stopped.wait_for(|stop| *stop).await) }).await;
        let _ = std::fs::remove_file(&socket);
        anyhow::Ok(())
    })?;
    // Calls that wait for an end would hold it up.
    std::process::exit(0)
}

struct Host {
    behaviour: Behaviour,
    id: String,
    arguments: Vec<String>,
    /// What the daemon said, which is said to the inner shim too.
    stdin: Vec<u8>,
    stop: watch::Sender<bool>,
    pod: Arc<Mutex<Pod>>,
}

/// The pod, whose own process stands for a machine.
#[derive(Default)]
struct Pod {
    /// Where the inner shim listens.
    inner: PathBuf,
    request: wire::CreateSandboxRequest,
    machine: Option<Child>,
    created_at: Option<SystemTime>,
}

impl Pod {
    fn is_running(&mut self) -> bool {
        self.machine.as_mut().is_some_and(|machine| matches!(machine.try_wait(), Ok(None)))
    }
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::new(Code::Unknown, error.to_string())
}

fn read<M: Message + Default>(payload: &[u8]) -> Result<M, Status> {
    M::decode(payload).map_err(failed)
}

impl Host {
    fn pod(&self) -> std::sync::MutexGuard<'_, Pod> {
        self.pod.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sandbox(&self, method: &str, payload: &[u8]) -> Result<Vec<u8>, Status> {
        match method {
            "CreateSandbox" => self.create(read(payload)?).await,
            "StartSandbox" => self.start(),
            "Platform" => {
                let platform = proto::containerd::types::Platform {
                    os: "linux".to_owned(),
                    architecture: "amd64".to_owned(),
                    ..Default::default()
                };
                Ok(wire::PlatformResponse { platform: Some(platform) }.encode_to_vec())
            }
            "StopSandbox" => {
                if let Some(machine) = &mut self.pod().machine {
                    machine.kill().and_then(|()| machine.wait()).map_err(failed)?;
                }
                Ok(Vec::new())
            }
            "WaitSandbox" => self.wait().await,
            "SandboxStatus" => Ok(self.status().encode_to_vec()),
            "PingSandbox" => Ok(Vec::new()),
            "ShutdownSandbox" => {
                let inner = self.pod().inner.clone();
                if !inner.as_os_str().is_empty() {
                    let request = task::ShutdownRequest { id: self.id.clone(), now: true };
                    let namespace = self.namespace();
                    // It may have ended.
                    let _ =
                        pass(inner, namespace, "Shutdown".to_owned(), request.encode_to_vec(), SHORT).await;
                }
                let stop = self.stop.clone();
                tokio::spawn(async move { stop.send_replace(true) });
                Ok(Vec::new())
            }
            "SandboxMetrics" => {
                let metrics = proto::containerd::types::Metric { id: self.id.clone(), ..Default::default() };
                Ok(wire::SandboxMetricsResponse { metrics: Some(metrics) }.encode_to_vec())
            }
            _ => Err(Status::new(Code::Unimplemented, format!("{method} is not implemented"))),
        }
    }

    fn namespace(&self) -> String {
        let at = self.arguments.iter().position(|argument| argument == "-namespace");
        at.and_then(|at| self.arguments.get(at + 1)).cloned().unwrap_or_default()
    }

    async fn create(&self, request: wire::CreateSandboxRequest) -> Result<Vec<u8>, Status> {
        match self.behaviour {
            Behaviour::HangCreate => std::future::pending::<()>().await,
            Behaviour::CrashCreate => std::process::exit(9),
            _ => {}
        }
        let inner = self.start_inner().map_err(|error| failed(format!("{error:#}")))?;
        let mut pod = self.pod();
        (pod.inner, pod.request, pod.created_at) = (inner, request, Some(SystemTime::now()));
        Ok(Vec::new())
    }

    /// Starts the shim that makes the containers, and answers where it listens.
    fn start_inner(&self) -> Result<PathBuf> {
        std::fs::write(MACHINE, "")?;
        if !Path::new("config.json").exists() {
            std::fs::write("config.json", r#"{"ociVersion":"1.0.2"}"#)?;
        }
        let mut start = Command::new(INNER);
        start.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut start = start.spawn().context(INNER)?;
        start.stdin.take().context("it has an input")?.write_all(&self.stdin)?;
        let said = start.wait_with_output()?;
        anyhow::ensure!(said.status.success(), "{INNER}: {}", String::from_utf8_lossy(&said.stderr));
        let address = match BootstrapResult::decode(said.stdout.as_slice()) {
            Ok(result) if !result.address.is_empty() => result.address,
            _ => serde_json::from_slice::<serde_json::Value>(&said.stdout)?["address"]
                .as_str()
                .context("an address")?
                .to_owned(),
        };
        Ok(PathBuf::from(address.trim_start_matches("unix://")))
    }

    fn start(&self) -> Result<Vec<u8>, Status> {
        if self.behaviour == Behaviour::RefuseStart {
            return Err(failed("no machine to boot"));
        }
        let machine = Command::new("sleep").arg("1000000").spawn().map_err(failed)?;
        let pid = machine.id();
        std::fs::write(MACHINE, pid.to_string()).map_err(failed)?;
        let mut pod = self.pod();
        pod.machine = Some(machine);
        let created_at = pod.created_at.and_then(timestamp);
        Ok(wire::StartSandboxResponse { pid, created_at, spec: None }.encode_to_vec())
    }

    async fn wait(&self) -> Result<Vec<u8>, Status> {
        while self.pod().is_running() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let exited_at = timestamp(SystemTime::now());
        Ok(wire::WaitSandboxResponse { exit_status: 0, exited_at }.encode_to_vec())
    }

    fn status(&self) -> wire::SandboxStatusResponse {
        let mut pod = self.pod();
        let state = if pod.is_running() { "SANDBOX_READY" } else { "SANDBOX_NOTREADY" };
        let wire::CreateSandboxRequest { options, netns_path, .. } = pod.request.clone();
        let told = serde_json::json!({
            "options": options.unwrap_or_default().type_url, "network": netns_path,
        });
        wire::SandboxStatusResponse {
            sandbox_id: self.id.clone(),
            pid: pod.machine.as_ref().map_or(0, Child::id),
            state: state.to_owned(),
            info: [("host".to_owned(), told.to_string())].into(),
            created_at: pod.created_at.and_then(timestamp),
            ..Default::default()
        }
    }
}

/// Has the inner shim answer, over a connection of this call's own.
async fn pass(
    inner: PathBuf,
    namespace: String,
    method: String,
    payload: Vec<u8>,
    limit: Duration,
) -> Result<Vec<u8>, Status> {
    let call = move || {
        let client = Client::connect(&inner)?;
        let mut client = client.with_metadata(Metadata::for_namespace(&namespace));
        client.call_raw("containerd.task.v3.Task", &method, payload, limit)
    };
    match tokio::task::spawn_blocking(call).await.map_err(failed)? {
        Ok(answer) => Ok(answer),
        Err(Error::Status(status)) => Err(status),
        Err(error) => Err(failed(error)),
    }
}

impl Handler for Host {
    async fn call(
        &self,
        service: &str,
        method: &str,
        metadata: Metadata,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        match service {
            "containerd.runtime.sandbox.v1.Sandbox" => self.sandbox(method, &payload).await,
            // Whoever ends it for the sake of one container ends a pod.
            "containerd.task.v3.Task" if method == "Shutdown" => std::process::exit(7),
            "containerd.task.v3.Task" => {
                let (inner, namespace) = (self.pod().inner.clone(), metadata.namespace().unwrap_or_default());
                pass(inner, namespace.to_owned(), method.to_owned(), payload, LONG).await
            }
            _ => Err(Status::new(Code::Unimplemented, format!("service {service}"))),
        }
    }
}
