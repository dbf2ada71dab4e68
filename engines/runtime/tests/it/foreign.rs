//! Shims for real: ours, containerd 2.3's and Debian's 1.6, with real containers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_core::ExecProcess;
use berth_runtime::Recovery;
use berth_types::{Any, ErrorKind, Event, KillTarget, Mount, ProcessRef, ProcessStatus, Stdio};
use testkit::wait::Watched;
use testkit::{need, programs};

use crate::world::{World, plain};

const SPEC: &str = r#"{
  "ociVersion": "1.0.2",
  "process": {"user": {"uid": 0, "gid": 0}, "args": ["/busybox", "sh", "-c", "echo hello; trap 'exit 5' TERM; while :; do /busybox sleep 0.1; done"],
    "env": ["PATH=/"], "cwd": "/"},
  "root": {"path": "rootfs"},
  "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
  "annotations": {ANNOTATIONS},
  "linux": {"cgroupsPath": "/TAG/ID", "resources": {"pids": {"limit": 100}},
    "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}]}
}"#;

/// A world in which shims find runc, and a root filesystem of one program.
pub(crate) fn world(older: bool) -> Result<(World, Vec<Mount>), need::Missing> {
    need::root()?;
    need::program("runc")?;
    let busybox = need::program("busybox")?;
    let mut world = World::new();
    let path = programs::search_path(&[], !older);
    world.config.shim_environment = vec![("PATH".into(), path.clone())];
    world.config.search_path = path;
    world.config.socket_folder = world.scratch.path("s");
    world.config.publish_binary = PathBuf::from("/bin/true");
    let root = world.scratch.path("rootfs");
    for folder in ["", "proc", "tmp"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::copy(busybox, root.join("busybox")).unwrap();
    let options = vec!["rbind".to_owned(), "rw".to_owned()];
    let mount =
        Mount { kind: "bind".into(), source: root.display().to_string(), options, ..Mount::default() };
    Ok((world, vec![mount]))
}

pub(crate) fn spec(world: &World, id: &str, annotations: &str) -> String {
    SPEC.replace("TAG", world.scratch.tag()).replace("ID", id).replace("ANNOTATIONS", annotations)
}

async fn lives(shim: &Path, older: bool) {
    let Ok((mut world, rootfs)) = world(older) else { return };
    if Some(shim) == our_shim().as_deref() {
        world.config.own_shim = shim.to_owned();
    }
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let mut events = world.listen().await;
    let id = world.container("c", shim, &spec(&world, "c", "")).await;
    let init = ProcessRef::init(id.clone());
    let stdout = world.scratch.path("out");
    let log = format!("file://{}", stdout.display());
    let stdio = Stdio { stdout: log.clone(), stderr: log, ..Stdio::default() };
    let mut request = plain(&id);
    request.rootfs = rootfs;
    request.stdio = stdio;
    let pid = tasks.create(request).await.unwrap();
    events.next("/tasks/create").await;
    assert_eq!(tasks.start(&init).await.unwrap(), pid);
    events.next("/tasks/start").await;
    assert_eq!(tasks.state(&init).await.unwrap().status, ProcessStatus::Running);
    assert_eq!(tasks.delete(&id).await.unwrap_err().kind(), ErrorKind::FailedPrecondition);

    let exec = ProcessRef::exec(id.clone(), "e".parse().unwrap());
    let process =
        r#"{"user":{"uid":0,"gid":0},"args":["/busybox","sh","-c","exit 3"],"cwd":"/","env":["PATH=/"]}"#;
    let spec = Any::new("types.containerd.io/opencontainers/runtime-spec/1/Process", process);
    tasks.exec(ExecProcess { process: exec.clone(), stdio: Stdio::default(), spec }).await.unwrap();
    assert!(tasks.start(&exec).await.unwrap() > 0);
    assert_eq!(tasks.wait(&exec).await.unwrap().status, 3);
    let Event::TaskExit { exec_id, exit, .. } = events.next("/tasks/exit").await.event else { panic!() };
    assert_eq!((exec_id.as_str(), exit.status), ("e", 3));
    assert_eq!(tasks.delete_process(&id, &"e".parse().unwrap()).await.unwrap().status, 3);
    assert_eq!(tasks.wait(&exec).await.unwrap_err().kind(), ErrorKind::NotFound);

    tasks.pause(&id).await.unwrap();
    assert_eq!(tasks.state(&init).await.unwrap().status, ProcessStatus::Paused);
    tasks.resume(&id).await.unwrap();
    assert!(tasks.pids(&id).await.unwrap().iter().any(|process| process.pid == pid));
    assert!(tasks.metrics(&[]).await.unwrap()[0].data.is_some());

    // The next daemon finds it.
    runtime.close().await;
    let runtime = world.runtime().await;
    assert_eq!(runtime.recover().await.unwrap(), Recovery { alive: 1, gone: 0, unknown: 0 });
    let tasks = runtime.tasks(&world.scope());
    assert_eq!(tasks.state(&init).await.unwrap().pid, pid);
    tasks.kill(&init, 15, KillTarget::Process).await.unwrap();
    assert_eq!(tasks.wait(&init).await.unwrap().status, 5);
    assert_eq!(tasks.kill(&init, 9, KillTarget::Process).await.unwrap_err().kind(), ErrorKind::NotFound);
    events.next("/tasks/exit").await;
    assert_eq!(tasks.delete(&id).await.unwrap().status, 5);
    assert_eq!(std::fs::read(&stdout).unwrap(), b"hello\n");
    events.next("/tasks/delete").await;
    assert_eq!(events.topics_so_far(), Vec::<String>::new());
    world.nothing_is_left().await;
    no_socket_is_left(&world);
}

/// Of the shims that put their sockets where they are told. A Go shim removes its own as the last thing it does.
fn no_socket_is_left(world: &World) {
    let folder = &world.config.socket_folder;
    testkit::wait::soon("the sockets' removal", || std::fs::read_dir(folder).unwrap().next().is_none());
}

/// Kills the shim under a container that runs.
async fn dies(shim: &Path, older: bool) {
    let Ok((mut world, rootfs)) = world(older) else { return };
    if Some(shim) == our_shim().as_deref() {
        world.config.own_shim = shim.to_owned();
    }
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let mut events = world.listen().await;
    let id = world.container("c", shim, &spec(&world, "c", "")).await;
    let mut request = plain(&id);
    request.rootfs = rootfs;
    let pid = tasks.create(request).await.unwrap();
    tasks.start(&ProcessRef::init(id.clone())).await.unwrap();
    let container = Watched::open(pid).unwrap();
    let socket = socket_of(&world.bundle(&id));
    assert!(socket.exists(), "{}", socket.display());
    let parent = parent_of(pid);
    Watched::open(parent).unwrap().signal(rustix::process::Signal::KILL);
    let Event::TaskExit { exit, .. } = events.next("/tasks/exit").await.event else { panic!() };
    assert_eq!((exit.status, exit.pid), (137, pid));
    events.next("/tasks/delete").await;
    assert!(container.ends_within(Duration::from_secs(5)));
    world.nothing_is_left().await;
    no_socket_is_left(&world);
    assert!(!socket.exists(), "{}", socket.display());
}

/// Where a bundle's shim listens.
fn socket_of(bundle: &Path) -> PathBuf {
    let answer = std::fs::read_to_string(bundle.join("bootstrap.json"));
    let address = match &answer {
        Ok(json) => {
            serde_json::from_str::<serde_json::Value>(json).unwrap()["address"].as_str().unwrap().into()
        }
        Err(_) => std::fs::read_to_string(bundle.join("address")).unwrap(),
    };
    PathBuf::from(address.trim_start_matches("unix://"))
}

fn parent_of(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

pub(crate) fn our_shim() -> Option<PathBuf> {
    programs::own("berth-shim")
}

fn go_shim() -> Option<PathBuf> {
    programs::containerd("containerd-shim-runc-v2")
}

fn debian_shim() -> Option<PathBuf> {
    programs::debian("containerd-shim-runc-v2")
}

#[tokio::test]
async fn our_shim_works_on_a_socket_that_the_daemon_made() {
    let Some(shim) = our_shim() else { return };
    lives(&shim, false).await;
}

#[tokio::test]
async fn our_shim_may_be_killed() {
    let Some(shim) = our_shim() else { return };
    dies(&shim, false).await;
}

#[tokio::test]
async fn our_shim_works_when_it_makes_its_socket() {
    let Some(shim) = our_shim() else { return };
    let Ok((world, _)) = world(false) else { return };
    // Under another name it is a stranger's.
    let link = world.scratch.path("containerd-shim-runc-v2");
    std::os::unix::fs::symlink(shim, &link).unwrap();
    lives(&link, false).await;
}

#[tokio::test]
async fn containerd_2_3s_shim_works_under_this_engine() {
    let Some(shim) = go_shim() else { return };
    lives(&shim, false).await;
}

#[tokio::test]
async fn debians_shim_works_under_this_engine() {
    let Some(shim) = debian_shim() else { return };
    lives(&shim, true).await;
}

#[tokio::test]
async fn containerd_2_3s_shim_may_be_killed() {
    let Some(shim) = go_shim() else { return };
    dies(&shim, false).await;
}

#[tokio::test]
async fn debians_shim_may_be_killed() {
    let Some(shim) = debian_shim() else { return };
    dies(&shim, true).await;
}

#[tokio::test]
async fn two_containers_of_a_pod_share_a_shim_and_part_in_any_order() {
    let Some(shim) = go_shim() else { return };
    let Ok((world, rootfs)) = world(false) else { return };
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let mut parents = Vec::new();
    let mut ids = Vec::new();
    for name in ["pause", "app"] {
        let annotations = "\"io.kubernetes.cri.sandbox-id\": \"pause\"";
        let id = world.container(name, &shim, &spec(&world, name, annotations)).await;
        let mut request = plain(&id);
        request.rootfs.clone_from(&rootfs);
        let pid = tasks.create(request).await.unwrap();
        tasks.start(&ProcessRef::init(id.clone())).await.unwrap();
        parents.push(parent_of(pid));
        ids.push(id);
    }
    assert_eq!(parents[0], parents[1]);
    for id in &ids {
        let init = ProcessRef::init(id.clone());
        tasks.kill(&init, 9, KillTarget::All).await.unwrap();
        assert_eq!(tasks.wait(&init).await.unwrap().status, 137);
        tasks.delete(id).await.unwrap();
    }
    assert!(Watched::open(parents[0]).is_none_or(|shim| shim.ends_within(Duration::from_secs(10))));
    world.nothing_is_left().await;
}
