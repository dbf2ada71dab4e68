//! A container is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_proto as proto;
use berth_sys::mount;
use berth_ttrpc::server::Responder;
use berth_types::{Error, Mount, Result};
use proto::containerd::events::{TaskCreate, TaskIo};
use proto::containerd::runc::v1::Options;
use proto::containerd::task::v3::{CreateTaskRequest, CreateTaskResponse};

use super::{release, reply, send_signal};
use crate::bundle::Spec;
use crate::children::Children;
use crate::options;
use crate::runtime::{self, ChildIo, Create, Place, Restore, Runtime, Spawned};
use crate::serve::Shim;
use crate::serve::task::{Process, ProcessKey, State, Task};
use crate::stdio::logger::LoggerProgram;
use crate::stdio::{Handing, Owner, Plan, Streams};
use berth_cgroup::{Cgroup, OomWatch};

/// `Create`.
pub(super) fn create(shim: &mut Shim, request: CreateTaskRequest, responder: Responder) {
    match begin(shim, &request) {
        Err(error) => reply(responder, Err::<CreateTaskResponse, _>(error)),
        Ok((making, plan)) => run(shim, request, making, plan, responder),
    }
}

/// Everything that the making needs, away from the loop.
struct Making {
    create: Create,
    options: Options,
    mounts: Vec<Mount>,
    namespace: String,
    runtime: Arc<dyn Runtime>,
    children: Children,
    restoring: bool,
}

/// What has been made.
struct Made {
    spawned: Option<Spawned>,
    outlives_init: bool,
    cgroup: Option<Cgroup>,
    oom: Option<OomWatch>,
    logger: Option<u32>,
    warnings: Vec<Error>,
}

fn begin(shim: &mut Shim, request: &CreateTaskRequest) -> Result<(Making, Plan)> {
    let id = &request.id;
    if shim.is_leaving() {
        return Err(Error::unavailable("the shim is ending"));
    }
    if shim.tasks.contains_key(id) {
        return Err(Error::already_exists(format!("task {id} already exists")));
    }
    let bundle = PathBuf::from(&request.bundle);
    if id.is_empty() || !bundle.is_absolute() {
        return Err(Error::invalid_argument(format!(
            "task {id:?} needs an id and the absolute path of its bundle, not {:?}",
            request.bundle
        )));
    }
    let options = options::of_create(request.options.as_ref())?;
    let place =
        Place { namespace: &shim.settings.namespace, bundle: &bundle, sockets: &shim.settings.sockets };
    let runtime = runtime::choose(&options, &place, &shim.children)?;
    let streams = Streams {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    };
    let owner = Owner { uid: options.io_uid, gid: options.io_gid };
    let plan = Plan::open(&streams, &bundle, owner, handing(&options))?;
    let create = Create {
        id: id.clone(),
        bundle: bundle.clone(),
        no_pivot_root: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
    };
    let making = Making {
        create,
        mounts: proto::convert::mounts_from(request.rootfs.clone()),
        namespace: shim.settings.namespace.clone(),
        runtime: runtime.clone(),
        children: shim.children.clone(),
        restoring: !request.checkpoint.is_empty(),
        options,
    };
    let task = Task {
        id: id.clone(),
        bundle,
        runtime,
        owner,
        criu_work: making.options.criu_work_path.clone(),
        no_pivot_root: making.options.no_pivot_root,
        init: Process { streams, busy: true, ..Process::default() },
        execs: Default::default(),
        outlives_init: true,
        cgroup: None,
        oom: None,
        held_exit: None,
        killing_rest: false,
        restore: None,
    };
    shim.tasks.insert(id.clone(), Box::new(task));
    Ok((making, plan))
}

/// In process, fifos go straight into the container; other runtimes get what containerd's shim gives them.
fn handing(options: &Options) -> Handing {
    if options.binary_name.is_empty() { Handing::Direct } else { Handing::Copied }
}

fn run(shim: &Shim, request: CreateTaskRequest, making: Making, mut plan: Plan, responder: Responder) {
    let child = std::mem::replace(&mut plan.child, ChildIo::Terminal);
    let logger = plan.logger.take();
    shim.jobs.run(move || {
        let mut child = Some(child);
        let made = make(&making, &mut child, logger);
        Box::new(move |shim| match made {
            Ok(made) => finish(shim, request, made, plan, child, responder),
            Err(error) => {
                shim.tasks.remove(&request.id);
                drop(plan);
                reply(responder, Err::<CreateTaskResponse, _>(error));
            }
        })
    });
}

/// Makes the container, or leaves nothing of it. Blocking.
fn make(making: &Making, child: &mut Option<ChildIo>, logger: Option<LoggerProgram>) -> Result<Made> {
    let bundle = &making.create.bundle;
    let spec = Spec::read(bundle)?;
    options::write(bundle, &making.options)?;
    let rootfs = bundle.join("rootfs");
    if !making.mounts.is_empty() {
        make_folder(&rootfs)?;
        mount::mount_all(&making.mounts, &rootfs).map_err(|e| {
            let kind =
                Error::io("", std::io::Error::from_raw_os_error(e.raw_os_error().unwrap_or(libc::EINVAL)));
            Error::new(kind.kind(), "failed to mount rootfs component").caused_by(e)
        })?;
    }
    let mut logger_pid = None;
    let made = inside(making, child, logger, &spec, &mut logger_pid);
    if made.is_err() {
        if let Some(pid) = logger_pid {
            send_signal(pid, rustix::process::Signal::TERM);
        }
        if !making.mounts.is_empty() {
            // The first error is the one to tell.
            let _ = mount::unmount_all(&rootfs);
        }
    }
    made
}

fn inside(
    making: &Making,
    child: &mut Option<ChildIo>,
    logger: Option<LoggerProgram>,
    spec: &Spec,
    logger_pid: &mut Option<u32>,
) -> Result<Made> {
    let id = &making.create.id;
    if let Some(logger) = logger {
        *logger_pid = Some(logger.start(id, &making.namespace, &making.children)?);
    }
    let mut made = Made {
        spawned: None,
        outlives_init: !spec.has_own_pids(),
        cgroup: None,
        oom: None,
        logger: *logger_pid,
        warnings: Vec::new(),
    };
    if making.restoring {
        return Ok(made);
    }
    if spec.asks_for_own_profile() {
        provide_profile()?;
    }
    let io = child.take().unwrap_or(ChildIo::Terminal);
    let spawned = making.runtime.create(&making.create, io)?;
    (made.cgroup, made.oom) = account(spawned.pid, &mut made.warnings);
    made.spawned = Some(spawned);
    Ok(made)
}

fn provide_profile() -> Result<()> {
    use berth_container::apparmor;
    apparmor::provide(apparmor::DEFAULT).map_err(|error| Error::not_implemented(error.chain()))
}

/// Finds the container's cgroup and watches its memory. A container without figures is better than none.
fn account(pid: u32, warnings: &mut Vec<Error>) -> (Option<Cgroup>, Option<OomWatch>) {
    let mut warn = |what: &str, error| warnings.push(Error::io(what, error));
    let cgroup = Cgroup::of(pid).map_err(|error| warn("cannot find the container's cgroup", error)).ok();
    let watch = cgroup.as_ref().and_then(|cgroup| {
        cgroup.watch_oom().map_err(|error| warn("cannot watch the container's memory", error)).ok()
    });
    (cgroup, watch)
}

/// The same for a container that has come back from a checkpoint.
pub(super) fn account_restored(shim: &mut Shim, id: &str, pid: u32) {
    let mut warnings = Vec::new();
    let (cgroup, watch) = account(pid, &mut warnings);
    for warning in warnings {
        shim.log.warn(warning.chain());
    }
    if let Some(task) = shim.tasks.get_mut(id) {
        task.cgroup = cgroup;
    }
    if let Some(watch) = watch {
        shim.watch_oom(id, watch);
    }
}

fn make_folder(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::DirBuilder::new().mode(0o711).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::io(format!("cannot make {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn finish(
    shim: &mut Shim,
    request: CreateTaskRequest,
    made: Made,
    mut plan: Plan,
    child: Option<ChildIo>,
    responder: Responder,
) {
    let Made { spawned, outlives_init, cgroup, oom, logger, warnings } = made;
    let id = request.id.clone();
    let key = ProcessKey::new(&id, "");
    warnings.into_iter().for_each(|warning| shim.log.warn(warning.chain()));
    let pid = spawned.as_ref().map_or(0, |spawned| spawned.pid);
    let Some(task) = shim.tasks.get_mut(&id) else { return };
    task.outlives_init = outlives_init;
    task.cgroup = cgroup;
    task.init.state = State::Created;
    if let Some(spawned) = spawned {
        shim.install(&key, plan, spawned.console, logger);
    } else {
        plan.child = child.unwrap_or(ChildIo::Terminal);
        task.restore = Some(Box::new((restore(task, &request), plan)));
    }
    if let Some(watch) = oom {
        shim.watch_oom(&id, watch);
    }
    let io = TaskIo {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
    };
    let event = TaskCreate {
        container_id: id,
        bundle: request.bundle,
        rootfs: request.rootfs,
        io: Some(io),
        checkpoint: request.checkpoint,
        pid,
    };
    shim.tell("/tasks/create", &event);
    if pid != 0 {
        shim.learn_pid(&key, pid);
    }
    reply(responder, Ok(CreateTaskResponse { pid }));
    release(shim, &key);
}

fn restore(task: &Task, request: &CreateTaskRequest) -> Restore {
    let work =
        if task.criu_work.is_empty() { task.bundle.join("work") } else { PathBuf::from(&task.criu_work) };
    Restore {
        create: Create {
            id: task.id.clone(),
            bundle: task.bundle.clone(),
            no_pivot_root: task.no_pivot_root,
            no_new_keyring: false,
        },
        image: request.checkpoint.clone(),
        parent: request.parent_checkpoint.clone(),
        work,
    }
}
