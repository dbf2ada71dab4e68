//! A shim for tests, and the shortest example of one: its "container" is a `sleep`. The name under which it
//! is called says how it misbehaves: `fake-shim-BEHAVIOUR`. See `Behaviour`.

#![expect(clippy::unwrap_used, reason = "a test fails where it fails")]

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use berth_proto as proto;
use berth_ttrpc::tokio::{Handler, Server};
use berth_ttrpc::{Code, Metadata, Status};
use prost::Message;
use proto::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use proto::containerd::task::v3 as wire;
use tokio::net::UnixListener;
use tokio::sync::watch;

mod grpc;

/// What it does, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Behaviour {
    /// Version 3, a `BootstrapResult`.
    Good,
    /// Version 3, JSON.
    Json,
    /// Version 2, a bare address.
    Bare,
    /// gRPC.
    Grpc,
    /// Says 3 and serves 2.
    Claims,
    /// Takes only its options on stdin, like 1.6.
    Old,
    /// `start` never ends.
    HangStart,
    /// `start` fails.
    FailStart,
    /// `start` answers nonsense.
    Garbage,
    /// Ends at `Create`.
    CrashCreate,
    /// Never answers `Create`.
    HangCreate,
    /// Refuses `Create`.
    RefuseCreate,
    /// `delete` never ends.
    HangDelete,
}

impl Behaviour {
    fn of(name: &str) -> Self {
        match name.trim_start_matches("fake-shim-") {
            "json" => Self::Json,
            "bare" => Self::Bare,
            "grpc" => Self::Grpc,
            "claims" => Self::Claims,
            "old" => Self::Old,
            "hang-start" => Self::HangStart,
            "fail-start" => Self::FailStart,
            "garbage" => Self::Garbage,
            "crash-create" => Self::CrashCreate,
            "hang-create" => Self::HangCreate,
            "refuse-create" => Self::RefuseCreate,
            "hang-delete" => Self::HangDelete,
            _ => Self::Good,
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let name = Path::new(&arguments[0]).file_name().unwrap().to_str().unwrap().to_owned();
    let behaviour = Behaviour::of(&name);
    let value = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag);
        at.map(|at| arguments[at + 1].clone()).unwrap_or_default()
    };
    match arguments.last().map(String::as_str) {
        Some("start") => start(behaviour, value("-namespace"), value("-id")),
        Some("delete") => delete(behaviour),
        Some("-info") => info(),
        other => panic!("no command: {other:?}"),
    }
}

fn start(behaviour: Behaviour, namespace: String, id: String) {
    let mut stdin = Vec::new();
    std::io::stdin().read_to_end(&mut stdin).unwrap();
    match behaviour {
        Behaviour::HangStart => loop {
            std::thread::park();
        },
        Behaviour::FailStart => {
            eprintln!("no machine to run it on");
            std::process::exit(3);
        }
        Behaviour::Old => {
            let options = prost_types(&stdin);
            if !stdin.is_empty() && !options.is_some_and(|url| url.contains('.')) {
                eprintln!("type with url of stdin: not found");
                std::process::exit(1);
            }
        }
        _ => {}
    }
    std::fs::write("shim.pid", std::process::id().to_string()).unwrap();
    if behaviour == Behaviour::Garbage {
        print!("\u{1}\u{2} no address at all");
        std::io::stdout().flush().unwrap();
        close_stdout();
        std::thread::park();
    }
    let folder = BootstrapParams::decode(stdin.as_slice()).ok().and_then(|params| params.socket_dir);
    let folder = folder.map_or_else(std::env::temp_dir, PathBuf::from);
    let socket = folder.join(format!("fake-{}-{id}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = UnixListener::bind(&socket).unwrap();
        let address = format!("unix://{}", socket.display());
        let protocol = if behaviour == Behaviour::Grpc { "grpc" } else { "ttrpc" }.to_owned();
        let answer = match behaviour {
            Behaviour::Bare | Behaviour::Old => address.into_bytes(),
            Behaviour::Json => {
                format!("{{\"version\":3,\"address\":{address:?},\"protocol\":\"ttrpc\"}}\n").into_bytes()
            }
            _ => BootstrapResult { version: 3, address, protocol, ..Default::default() }.encode_to_vec(),
        };
        std::io::stdout().write_all(&answer).unwrap();
        std::io::stdout().flush().unwrap();
        close_stdout();
        let stop = watch::Sender::new(false);
        let mut stopped = stop.subscribe();
        let shim = Shim { behaviour, namespace, id, task: Arc::default(), stop: Arc::new(stop) };
        let told = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        if behaviour == Behaviour::Grpc {
            grpc::serve(shim, listener, told).await;
        } else {
            Server::new(shim).serve(listener, told).await;
        }
    });
    let _ = std::fs::remove_file(socket);
}

/// The type URL, if the bytes are an `Any`.
fn prost_types(bytes: &[u8]) -> Option<String> {
    proto::prost_types::Any::decode(bytes).ok().map(|any| any.type_url)
}

/// The daemon waits for the end of the answer, not of the shim.
fn close_stdout() {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    rustix::stdio::dup2_stdout(&null).unwrap();
    rustix::stdio::dup2_stderr(&null).unwrap();
}

fn delete(behaviour: Behaviour) {
    if behaviour == Behaviour::HangDelete {
        loop {
            std::thread::park();
        }
    }
    let pid = std::fs::read_to_string("init.pid").ok().and_then(|pid| pid.parse().ok());
    if let Some(pid) = pid {
        kill(pid, 9);
    }
    let exited_at = proto::convert::timestamp(SystemTime::now());
    let answer = wire::DeleteResponse { pid: pid.unwrap_or_default(), exit_status: 137, exited_at };
    std::io::stdout().write_all(&answer.encode_to_vec()).unwrap();
}

fn info() {
    let name = "fake".to_owned();
    let info = proto::containerd::types::RuntimeInfo { name, ..Default::default() };
    std::io::stdout().write_all(&info.encode_to_vec()).unwrap();
}

fn kill(pid: u32, signal: i32) {
    let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), signal);
}

#[derive(Default)]
struct Task {
    pid: u32,
    running: bool,
    exit: Option<(u32, SystemTime)>,
    execs: HashSet<String>,
}

#[derive(Clone)]
struct Shim {
    behaviour: Behaviour,
    namespace: String,
    id: String,
    task: Arc<Mutex<Option<Task>>>,
    stop: Arc<watch::Sender<bool>>,
}

impl Shim {
    async fn answer(&self, method: &str, payload: &[u8]) -> Result<Vec<u8>, Status> {
        match method {
            "Create" => self.create(payload).await,
            "Start" => self.start(payload),
            "Wait" => self.wait().await,
            "Kill" => self.kill(payload),
            "Delete" => self.delete().await,
            "Shutdown" => {
                let stop = Arc::clone(&self.stop);
                tokio::spawn(async move { stop.send_replace(true) });
                Ok(Vec::new())
            }
            "State" => self.state(),
            "Exec" => {
                let request = wire::ExecProcessRequest::decode(payload).unwrap();
                self.with(|task| {
                    let new = task.execs.insert(request.exec_id);
                    new.then(Vec::new).ok_or_else(|| Status::new(Code::AlreadyExists, "exec exists"))
                })
            }
            "Stats" => Ok(wire::StatsResponse::default().encode_to_vec()),
            "Pids" => self.with(|task| {
                let processes = vec![proto::containerd::v1::types::ProcessInfo { pid: task.pid, info: None }];
                Ok(wire::PidsResponse { processes }.encode_to_vec())
            }),
            _ => Err(Status::new(Code::Unimplemented, format!("{method} is not implemented"))),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Task) -> Result<T, Status>) -> Result<T, Status> {
        match self.task.lock().unwrap().as_mut() {
            Some(task) => work(task),
            None => Err(Status::new(Code::NotFound, "container not created")),
        }
    }

    async fn create(&self, payload: &[u8]) -> Result<Vec<u8>, Status> {
        let request = wire::CreateTaskRequest::decode(payload).unwrap();
        match self.behaviour {
            Behaviour::CrashCreate => std::process::exit(9),
            Behaviour::HangCreate => std::future::pending::<()>().await,
            Behaviour::RefuseCreate => {
                return Err(Status::new(Code::Unknown, "OCI runtime create failed: no such program"));
            }
            _ => {}
        }
        let mut child = Command::new("sleep").arg("100000").spawn().unwrap();
        let pid = child.id();
        std::fs::write("init.pid", pid.to_string()).unwrap();
        *self.task.lock().unwrap() = Some(Task { pid, ..Task::default() });
        let (shim, handle) = (self.clone(), tokio::runtime::Handle::current());
        std::thread::spawn(move || {
            use std::os::unix::process::ExitStatusExt;
            let status = child.wait().unwrap();
            let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap()) as u32;
            let at = SystemTime::now();
            if let Some(task) = shim.task.lock().unwrap().as_mut() {
                task.exit = Some((status, at));
            }
            let exit = berth_types::Exit { pid, status, at };
            handle.block_on(shim.tell(shim.exit_of_init(exit)));
        });
        let _ = request;
        Ok(wire::CreateTaskResponse { pid }.encode_to_vec())
    }

    fn exit_of_init(&self, exit: berth_types::Exit) -> berth_types::Event {
        berth_types::Event::TaskExit { container_id: self.id.clone(), exec_id: self.id.clone(), exit }
    }

    async fn tell(&self, event: berth_types::Event) {
        let namespace = self.namespace.parse().unwrap();
        let envelope = berth_types::Envelope { timestamp: SystemTime::now(), namespace, event };
        let envelope = Some(proto::convert::envelope(envelope));
        let request = proto::containerd::services::events::ttrpc::v1::ForwardRequest { envelope };
        let address = std::env::var("TTRPC_ADDRESS").unwrap();
        let service = "containerd.services.events.ttrpc.v1.Events";
        if let Ok(client) = berth_ttrpc::tokio::Client::connect(Path::new(&address)).await {
            let limit = Some(Duration::from_secs(5));
            let _ = client.call::<_, ()>(service, "Forward", &request, limit).await;
        }
    }

    fn start(&self, payload: &[u8]) -> Result<Vec<u8>, Status> {
        let request = wire::StartRequest::decode(payload).unwrap();
        self.with(|task| {
            if request.exec_id.is_empty() {
                task.running = true;
            } else if !task.execs.contains(&request.exec_id) {
                return Err(Status::new(Code::NotFound, "no such exec"));
            }
            Ok(wire::StartResponse { pid: task.pid }.encode_to_vec())
        })
    }

    async fn wait(&self) -> Result<Vec<u8>, Status> {
        loop {
            if let Some((exit_status, at)) = self.with(|task| Ok(task.exit))? {
                let exited_at = proto::convert::timestamp(at);
                return Ok(wire::WaitResponse { exit_status, exited_at }.encode_to_vec());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn kill(&self, payload: &[u8]) -> Result<Vec<u8>, Status> {
        let request = wire::KillRequest::decode(payload).unwrap();
        self.with(|task| {
            if task.exit.is_some() {
                return Err(Status::new(Code::NotFound, "process already finished"));
            }
            kill(task.pid, request.signal as i32);
            Ok(Vec::new())
        })
    }

    async fn delete(&self) -> Result<Vec<u8>, Status> {
        let (pid, exit) = self.with(|task| {
            if task.running && task.exit.is_none() {
                return Err(Status::new(Code::Unknown, "cannot delete a running process"));
            }
            if task.exit.is_none() {
                kill(task.pid, 9);
            }
            Ok((task.pid, task.exit))
        })?;
        *self.task.lock().unwrap() = None;
        let (exit_status, at) = exit.unwrap_or((0, SystemTime::now()));
        let exit = berth_types::Exit { pid, status: exit_status, at };
        let (container_id, exec_id) = (self.id.clone(), String::new());
        self.tell(berth_types::Event::TaskDelete { container_id, exec_id, exit }).await;
        let exited_at = proto::convert::timestamp(at);
        Ok(wire::DeleteResponse { pid, exit_status, exited_at }.encode_to_vec())
    }

    fn state(&self) -> Result<Vec<u8>, Status> {
        use proto::containerd::v1::types::Status as State;
        self.with(|task| {
            let status = match (task.running, task.exit) {
                (_, Some(_)) => State::Stopped,
                (true, None) => State::Running,
                (false, None) => State::Created,
            };
            let (exit_status, at) = task.exit.unwrap_or((0, SystemTime::UNIX_EPOCH));
            let state = wire::StateResponse {
                id: self.id.clone(),
                pid: task.pid,
                status: status as i32,
                exit_status,
                exited_at: proto::convert::timestamp(at),
                ..Default::default()
            };
            Ok(state.encode_to_vec())
        })
    }
}

impl Handler for Shim {
    async fn call(
        &self,
        service: &str,
        method: &str,
        metadata: Metadata,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        assert_eq!(metadata.namespace(), Some(self.namespace.as_str()));
        let old = matches!(self.behaviour, Behaviour::Bare | Behaviour::Old | Behaviour::Claims);
        let served = if old { "containerd.task.v2.Task" } else { "containerd.task.v3.Task" };
        if service != served {
            return Err(Status::new(Code::Unimplemented, format!("service {service}")));
        }
        self.answer(method, &payload).await
    }
}
