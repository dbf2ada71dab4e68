//! The making of a container: what the parent does while the new process mounts.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use berth_oci::runtime::{Hooks, IdMapping, NamespaceKind, OCI_VERSION, Spec, State, Status};
use berth_sys::child::Born;
use berth_sys::userns;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::process::{Signal, pidfd_send_signal};

use super::conversation::{Conversation, News, pair, send_fd};
use super::record::{Folder, Record};
use super::{Container, Create, Made, Stdio, birth, hooks, moment, process, rdt};
use crate::cgroup::Cgroup;
use crate::child::wire::Kind;
use crate::error::{Doing as _, Error, Result};
use crate::plan::{self, Plan, Setting};

pub(super) fn create(create: Create) -> Result<Made> {
    let Create { id, bundle, root, spec, stdio, .. } = create;
    let folder = Folder::of(&root, &id)?;
    let spec = match spec {
        Some(spec) => spec,
        None => read_spec(&bundle)?,
    };
    if let Some(linux) = spec.linux.as_ref().filter(|l| !l.net_devices.is_empty()) {
        let what = format!("moving network devices ({}) is not supported", linux.net_devices.len());
        return Err(Error::Unsupported { what });
    }
    let process = spec.process.clone().unwrap_or_default();
    let console = match &stdio {
        Stdio::ConsoleSocket(path) => Some(path.clone()),
        _ => None,
    };
    let cgroups_path = spec.linux.as_ref().map_or("", |l| l.cgroups_path.as_str());
    let cgroup = Cgroup::locate(cgroups_path, &id, create.cgroup_driver)?;
    let mut warnings = Vec::new();

    folder.make(&id)?;
    let mut undo = Undo { folder: &folder, cgroup: &cgroup, cgroup_made: false, born: None, rdt: None };
    refuse_others(&cgroup)?;
    let (ours, theirs) = pair()?;
    let state = State {
        oci_version: OCI_VERSION.into(),
        id: id.clone(),
        status: Status::Creating,
        pid: 0,
        bundle: bundle.to_string_lossy().into_owned(),
        annotations: spec.annotations.clone(),
    };
    let setting = Setting {
        id: &id,
        bundle: &bundle,
        cgroup: &cgroup,
        root_mount: create.root_mount,
        root_switch: create.root_switch,
        keyring: create.keyring,
        stdio,
        preserve: create.preserve_fds,
        socket: theirs,
        gate: gate(&folder)?,
        state_room: 2 * serde_json::to_vec(&state).map_or(0, |text| text.len()) + 64,
    };
    let (mut plan, birth) = plan::init(&spec, setting, &mut warnings)?;
    undo.cgroup_made = true;
    let birthplace = cgroup.birthplace()?;
    undo.born = Some(birth::give(&mut plan, &birth, birthplace.as_ref())?);
    drop(birthplace);

    let mut making = Making {
        talk: Conversation { socket: &ours, spec: &spec, process: &process },
        bundle: &bundle,
        state,
        console,
        terminal: None,
        warnings: &mut warnings,
    };
    making.state.pid = undo.pid();
    let done = making.before(&cgroup, &plan);
    // With it goes our copy of the child's end: from here on its death is the end of the talk.
    drop(plan);
    if let Err(error) = done {
        return Err(making.reason(error));
    }
    undo.rdt = rdt::join(&spec, &id, undo.pid())?;
    let pidfd = undo.born.as_ref().map(|b| &b.pidfd);
    making.until_prepared(pidfd)?;
    let terminal = making.terminal.take();
    let pid = undo.pid();
    let start_time = process::stat(pid).map_or(0, |(_, started)| started);
    let record = Record {
        version: Record::VERSION,
        id,
        bundle,
        pid,
        start_time,
        created: moment::now(),
        cgroup: cgroup.clone(),
        rdt: undo.rdt.clone(),
        spec,
    };
    folder.write(&record)?;
    let pidfd = undo.keep();
    let container = Container { folder: folder.clone(), record, pidfd, socket: Some(ours) };
    Ok(Made { container, terminal, warnings })
}

pub(crate) fn read_spec(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let text = fs::read(&path).doing(|| format!("cannot read {}", path.display()))?;
    Spec::from_slice(&text).map_err(|source| Error::Document { path, source })
}

/// Two containers in one cgroup would be limited, counted and killed together.
pub(crate) fn refuse_others(cgroup: &Cgroup) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    let there = cgroup.pids()?.len();
    if there == 0 {
        return Ok(());
    }
    Err(Error::State { what: format!("container's cgroup is not empty: {there} process(es) found") })
}

/// The fifo at which the process waits. It holds both ends, so that it waits for a byte and not for
/// somebody to open it.
fn gate(folder: &Folder) -> Result<OwnedFd> {
    let path = folder.gate();
    let doing = || format!("cannot make {}", path.display());
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).doing(doing)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, &path, flags, Mode::empty()).doing(doing)
}

struct Making<'a> {
    talk: Conversation<'a>,
    bundle: &'a Path,
    state: State,
    console: Option<PathBuf>,
    terminal: Option<OwnedFd>,
    warnings: &'a mut Vec<String>,
}

impl Making<'_> {
    /// What the process needs from outside: maps, cgroups. It mounts meanwhile.
    fn before(&mut self, cgroup: &Cgroup, plan: &Plan) -> Result<()> {
        let pid = self.state.pid;
        let linux = self.talk.spec.linux.clone().unwrap_or_default();
        if let Some(score) = self.talk.process.oom_score_adj {
            set_oom_score(pid, score, self.warnings)?;
        }
        if plan.user_namespace == plan::UserNamespace::New {
            write_maps(pid, &linux.uid_mappings, &linux.gid_mappings)?;
            self.talk.tell(Kind::Go, 0, &[], &[])?;
        }
        let resources = linux.resources.unwrap_or_default();
        cgroup.make()?;
        cgroup.register(pid, &resources)?;
        cgroup.apply_first(&resources, self.warnings)?;
        let entrances = cgroup.entrances()?;
        let fds: Vec<_> = entrances.iter().map(|fd| fd.as_fd()).collect();
        self.talk.tell(Kind::Cgroup, 0, &[], &fds)
    }

    /// Why a process came to nothing: its own last words, if it has ended, else what went wrong out here.
    fn reason(&self, error: Error) -> Error {
        if process::stat(self.state.pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X')) {
            return error;
        }
        loop {
            match self.talk.next() {
                Err(told) => return told,
                Ok(News::End) => return error,
                Ok(_) => {}
            }
        }
    }

    fn until_prepared(&mut self, pidfd: Option<&OwnedFd>) -> Result<()> {
        loop {
            match self.talk.next()? {
                News::Namespaces => self.early_hooks()?,
                News::Terminal(master) => self.terminal(master)?,
                News::Listener(number) => {
                    if let Some(pidfd) = pidfd {
                        self.talk.listener(pidfd, number, self.state.pid, self.state.clone())?;
                    }
                }
                News::Prepared => return Ok(()),
                News::End => {
                    let what = "the container's process was killed before it was ready".into();
                    return Err(Error::Process { what });
                }
            }
        }
    }

    fn early_hooks(&mut self) -> Result<()> {
        let hooks: Hooks = self.talk.spec.hooks.clone().unwrap_or_default();
        hooks::run("prestart", &hooks.prestart, &self.state)?;
        hooks::run("createRuntime", &hooks.create_runtime, &self.state)?;
        let text = |state: &State| serde_json::to_vec(state).unwrap_or_default();
        let mut both = text(&self.state);
        let first = both.len() as i32;
        both.extend(text(&State { status: Status::Created, ..self.state.clone() }));
        self.talk.tell(Kind::Hooked, first, &both, &[])
    }

    fn terminal(&mut self, master: OwnedFd) -> Result<()> {
        if let Some(path) = &self.console {
            let path = self.bundle.join(path);
            return send_fd(&path, SocketType::STREAM, b"/dev/ptmx", master.as_fd())
                .doing(|| format!("cannot send the terminal to {}", path.display()));
        }
        self.terminal = Some(master);
        Ok(())
    }
}

/// How readily the kernel kills it. Lowering that needs a right which a confined runtime lacks; then the
/// score stays what it was, as with containerd's own tolerance for it. A process that has ended has none: a command may
/// have run to its end, and been reaped, before this comes to it.
pub(super) fn set_oom_score(pid: i32, score: i32, warnings: &mut Vec<String>) -> Result<()> {
    match fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            warnings.push(format!("oom_score_adj {score} is not permitted here: left as it is"));
            Ok(())
        }
        Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOENT | Errno::SRCH)) => Ok(()),
        done => done.doing(|| format!("cannot set oom_score_adj to {score}")),
    }
}

fn write_maps(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<()> {
    for (name, maps) in [("uid_map", uids), ("gid_map", gids)] {
        let lines: Vec<_> = maps
            .iter()
            .map(|m| userns::IdMapping { inside: m.container_id, outside: m.host_id, length: m.size })
            .collect();
        fs::write(format!("/proc/{pid}/{name}"), userns::render(&lines))
            .doing(|| format!("cannot set the {name} of the user namespace"))?;
    }
    Ok(())
}

/// Takes back what was made, unless [`Undo::keep`] is reached.
struct Undo<'a> {
    folder: &'a Folder,
    cgroup: &'a Cgroup,
    cgroup_made: bool,
    born: Option<Born>,
    rdt: Option<PathBuf>,
}

impl Undo<'_> {
    fn pid(&self) -> i32 {
        self.born.as_ref().map_or(0, |born| born.pid)
    }

    fn keep(mut self) -> Option<OwnedFd> {
        let pidfd = self.born.take().map(|born| born.pidfd);
        std::mem::forget(self);
        pidfd
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(born) = &self.born {
            reap(born);
        }
        // The error that led here is the one to tell.
        if self.cgroup_made {
            let _ = self.cgroup.remove();
        }
        if let Some(group) = &self.rdt {
            let _ = fs::remove_dir(group);
        }
        let _ = self.folder.remove();
    }
}

/// Kills a child of ours that came to nothing, and takes its status.
pub(super) fn reap(born: &Born) {
    let _ = pidfd_send_signal(&born.pidfd, Signal::KILL);
    // By descriptor: if somebody else has reaped it, the number may be another's by now.
    let _ = rustix::process::waitid(
        rustix::process::WaitId::PidFd(born.pidfd.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
}

/// Whether a configuration gives the container its own namespace of this kind.
pub(super) fn has_own(spec: &Spec, kind: &NamespaceKind) -> bool {
    spec.linux.as_ref().is_some_and(|l| l.namespace(kind).is_some_and(|n| n.path.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_run_to_its_end_needs_no_score() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        let mut warnings = Vec::new();
        set_oom_score(pid, 0, &mut warnings).unwrap();
        assert!(warnings.is_empty());
    }
}
