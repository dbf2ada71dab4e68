//! The last steps: identity, limits, the filter, and the program.

#![expect(unsafe_code, reason = "executes the program; descriptors by number")]

use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use berth_sys::child as sys;
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, ResolveFlags, accessat, open, openat2};
use rustix::io::{Errno, Result};

use super::rootfs::PROCFS;
use super::step::At;
use super::wire::{self, Kind};
use super::{Failure, Step, home, hooks, resolve};
use crate::plan::{Filter, Plan, Program, Task};

/// Becomes the program. `gate` is where the start is awaited; without it the program runs at once.
pub(super) fn execute(plan: &mut Plan, gate: Option<i32>) -> std::result::Result<Infallible, Failure> {
    if let Some(name) = &plan.keyring {
        match sys::join_session_keyring(name) {
            // Kernels without keyrings, and filters around this runtime.
            Ok(()) | Err(Errno::NOSYS | Errno::PERM) => {}
            Err(errno) => return Err(errno).at(Step::Keyring),
        }
    }
    settings(&plan.program)?;
    own_streams(plan.program.uid);
    let gate = keep_only(plan, gate).at(Step::Streams)?;
    let directory = working_directory(&plan.program)?;
    if let Some(label) = &plan.program.label {
        write_label(&label.0, label.1).at(Step::Label)?;
    }
    if plan.program.find_home {
        home::find(plan.program.uid, &mut plan.program.home);
        let text = home::text(&plan.program.home).as_ptr();
        plan.program.envp.put(text);
    }
    if !plan.program.no_new_privileges {
        // Needs CAP_SYS_ADMIN, which may go with the next step.
        load_filter(plan)?;
    }
    identity(&plan.program)?;
    if !directory {
        rustix::process::chdir(&*plan.program.cwd).at(Step::Cwd)?;
    }
    inside()?;
    let candidate = find_program(&plan.program)?;
    if plan.program.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0]).at(Step::NoNewPrivileges)?;
        if plan.program.filter.as_ref().is_some_and(|f| f.listener) {
            load_filter(plan)?;
        }
    }
    sys::set_umask(plan.program.umask);
    wire::send(&plan.socket, Kind::Prepared, [0; 3], &[], &[]).at(Step::Talk)?;
    if let Some(gate) = gate {
        wait_at(gate).at(Step::Gate)?;
        if let Task::Init(init) = &plan.task {
            let state = init.state.get(init.created_at..).unwrap_or_default();
            for (n, hook) in init.start_hooks.iter().enumerate() {
                hooks::call(hook, state, Step::StartHook, n)?;
            }
        }
    }
    let program = &plan.program;
    if program.no_new_privileges && program.filter.as_ref().is_some_and(|f| !f.listener) {
        load_filter(plan)?;
    }
    sys::default_signals();
    let path = program.candidates.get(candidate).map_or(c"", |path| path.as_c_str());
    // SAFETY: Strings vectors end with a null pointer and own what they point to.
    let errno = unsafe { sys::execve(path, program.argv.pointers(), program.envp.pointers()) };
    Err(errno).nth(Step::Execute, candidate)
}

/// Scheduling and limits, as root and before the descriptors go.
fn settings(program: &Program) -> std::result::Result<(), Failure> {
    if let Some(scheduler) = &program.scheduler {
        sys::set_scheduler(scheduler).nth(Step::Scheduling, 0)?;
    }
    if let Some(priority) = program.io_priority {
        sys::set_io_priority(priority).nth(Step::Scheduling, 1)?;
    }
    if let Some((mode, nodes)) = &program.memory_policy {
        sys::set_memory_policy(*mode, nodes).nth(Step::Scheduling, 2)?;
    }
    if let Some(mask) = &program.affinity {
        sys::set_affinity(0, mask).nth(Step::Scheduling, 3)?;
    }
    if let Some(persona) = program.personality {
        sys::set_personality(persona).nth(Step::Scheduling, 4)?;
    }
    for (n, (resource, soft, hard)) in program.limits.iter().enumerate() {
        sys::set_limit(0, *resource, *soft, *hard).nth(Step::Limit, n)?;
    }
    Ok(())
}

/// Gives the streams to the user, so that /dev/stdout can be opened again. What cannot be given
/// (read-only or foreign filesystems, unmapped ids) stays; so does the null device, which is everybody's.
fn own_streams(uid: u32) {
    use rustix::fs::{Gid, Uid};
    let null = rustix::fs::stat(c"/dev/null").map(|s| s.st_rdev);
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let device = stat.st_mode & libc::S_IFMT == libc::S_IFCHR;
        if stat.st_uid == uid || (device && Ok(stat.st_rdev) == null) {
            continue;
        }
        let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None::<Gid>);
    }
}

/// Closes every descriptor but the streams, the kept ones, the socket and the gate. A descriptor of a
/// host directory would be a way out, were it still open when the working directory is entered.
fn keep_only(plan: &mut Plan, gate: Option<i32>) -> Result<Option<i32>> {
    let first = 3 + plan.program.preserve as i32;
    for fd in 3..first {
        // One that the caller does not have cannot be kept.
        let _ = sys::keep_on_exec(fd);
    }
    // Out of the way of their final places first.
    let socket = rustix::io::fcntl_dupfd_cloexec(&plan.socket, first + 2)?;
    let high = match gate {
        Some(gate) => {
            // SAFETY: the gate is open: the plan owns it.
            let gate = unsafe { BorrowedFd::borrow_raw(gate) };
            Some(rustix::io::fcntl_dupfd_cloexec(gate, first + 2)?)
        }
        None => None,
    };
    sys::duplicate_private(socket.as_raw_fd(), first)?;
    if let Some(high) = &high {
        sys::duplicate_private(high.as_raw_fd(), first + 1)?;
    }
    std::mem::forget((socket, high));
    let kept = first + if gate.is_some() { 2 } else { 1 };
    sys::close_range(kept as u32, u32::MAX, 0)?;
    // SAFETY: just put there, and owned by nobody else.
    let moved = unsafe { OwnedFd::from_raw_fd(first) };
    // The old number is closed already.
    std::mem::forget(std::mem::replace(&mut plan.socket, moved));
    Ok(gate.map(|_| first + 1))
}

/// Enters the working directory, making it if it is missing. `false` when root may not enter it, so
/// that the user has to try.
fn working_directory(program: &Program) -> std::result::Result<bool, Failure> {
    let root = open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.at(Step::Cwd)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = match openat2(&root, &*program.cwd, flags, Mode::empty(), how) {
        Err(Errno::NOENT) => resolve::find_or_make(root.as_fd(), &program.cwd, resolve::Leaf::Directory),
        done => done,
    };
    match found.and_then(|found| rustix::process::fchdir(&found)) {
        Ok(()) => inside().map(|()| true),
        Err(Errno::ACCESS) => Ok(false),
        // A magic link such as /proc/self/fd/7: the way out that this must not be.
        Err(Errno::LOOP) => Err(Errno::LOOP).at(Step::CwdOutside),
        Err(errno) => Err(errno).at(Step::Cwd),
    }
}

/// Fails when the working directory is not inside the root.
fn inside() -> std::result::Result<(), Failure> {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    let directory = sys::working_directory(&mut buffer).at(Step::CwdOutside)?;
    if directory.first() == Some(&b'/') { Ok(()) } else { Err(Errno::NOENT).at(Step::CwdOutside) }
}

fn write_label(label: &[u8], apparmor: bool) -> Result<()> {
    let path = if apparmor { c"/proc/self/attr/apparmor/exec" } else { c"/proc/self/attr/exec" };
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        // Before AppArmor had a folder of its own.
        Err(Errno::NOENT) if apparmor => open(c"/proc/self/attr/exec", flags, Mode::empty()),
        done => done,
    }?;
    if resolve::filesystem(&file)? != PROCFS {
        return Err(Errno::OPNOTSUPP);
    }
    rustix::io::write(&file, label).map(drop)
}

/// Bounding set, groups, user, then the other capability sets.
fn identity(program: &Program) -> std::result::Result<(), Failure> {
    let capabilities = &program.capabilities;
    for number in 0..=capabilities.last {
        if capabilities.bounding >> number & 1 == 0 {
            match sys::prctl(libc::PR_CAPBSET_DROP, [number.into(), 0, 0, 0]) {
                Ok(_) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno).nth(Step::Identity, 0),
            }
        }
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, [1, 0, 0, 0]).nth(Step::Identity, 1)?;
    match sys::set_groups(&program.groups) {
        // A user namespace that forbids it; fine as long as none were asked for.
        Err(Errno::PERM) if program.groups.is_empty() => {}
        done => done.nth(Step::Identity, 2)?,
    }
    sys::set_group(program.gid).nth(Step::Identity, 3)?;
    sys::set_user(program.uid).nth(Step::Identity, 4)?;
    sys::prctl(libc::PR_SET_KEEPCAPS, [0; 4]).nth(Step::Identity, 1)?;
    sys::set_capabilities(capabilities.masks).nth(Step::Identity, 5)?;
    const CLEAR_ALL: u64 = libc::PR_CAP_AMBIENT_CLEAR_ALL as u64;
    const RAISE: u64 = libc::PR_CAP_AMBIENT_RAISE as u64;
    let _ = sys::prctl(libc::PR_CAP_AMBIENT, [CLEAR_ALL, 0, 0, 0]);
    for number in 0..=capabilities.last {
        if capabilities.ambient >> number & 1 == 1 {
            sys::prctl(libc::PR_CAP_AMBIENT, [RAISE, number.into(), 0, 0]).nth(Step::Identity, 6)?;
        }
    }
    Ok(())
}

/// Loads the filter; a listener's number goes to the parent, which fetches it from here.
fn load_filter(plan: &Plan) -> std::result::Result<(), Failure> {
    let Some(Filter { program, flags, listener }) = &plan.program.filter else { return Ok(()) };
    let number = sys::load_filter(program, *flags).at(Step::Seccomp)?;
    if *listener {
        wire::send(&plan.socket, Kind::Listener, [number, 0, 0], &[], &[]).at(Step::Talk)?;
        let moved = wire::receive(&plan.socket, &mut [], drop);
        super::check(moved, Kind::Go)?;
        let _ = sys::close_range(number as u32, number as u32, 0);
    }
    Ok(())
}

/// Which candidate is an executable file.
fn find_program(program: &Program) -> std::result::Result<usize, Failure> {
    for (n, path) in program.candidates.iter().enumerate() {
        match examine(path) {
            Ok(()) => return Ok(n),
            Err(_) if program.searched => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(Errno::NOENT).nth(Step::Stat, n),
            Err(errno) => return Err(errno).nth(Step::Access, n),
        }
    }
    Err(Errno::NOENT).at(Step::NotInPath)
}

fn examine(path: &CStr) -> Result<()> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::empty())?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno::ISDIR);
    }
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        Err(Errno::NOSYS | Errno::PERM) if stat.st_mode & 0o111 != 0 => Ok(()),
        Err(Errno::NOSYS | Errno::PERM) => Err(Errno::ACCESS),
        done => done,
    }
}

/// Blocks until somebody writes a byte into the gate.
fn wait_at(gate: i32) -> Result<()> {
    // SAFETY: put there by keep_only, open until the program runs.
    let gate = unsafe { BorrowedFd::borrow_raw(gate) };
    let mut byte = [0u8; 1];
    loop {
        match rustix::io::read(gate, &mut byte) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(Errno::PIPE),
            done => return done.map(drop),
        }
    }
}
