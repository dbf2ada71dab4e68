//! Programs started from a large process with many threads: `posix_spawn`, which lends the child the
//! parent's memory until it executes instead of copying its page tables as a fork would.

#![expect(unsafe_code, reason = "posix_spawn and its attributes have no safe form with a working directory")]

use std::ffi::{CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use crate::limits::OpenFiles;

/// A program to be started. Its first argument is its path; it leads a process group of its own, has no
/// signal blocked and none but the default dispositions, and inherits nothing but what is named here.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program's path.
    pub program: &'a Path,
    /// The arguments after the first.
    pub arguments: &'a [CString],
    /// The whole environment, `NAME=value`.
    pub environment: &'a [CString],
    /// The working directory.
    pub folder: &'a Path,
    /// Standard input, output and error.
    pub streams: [BorrowedFd<'a>; 3],
    /// What it finds as descriptor 3, if anything.
    pub given: Option<BorrowedFd<'a>>,
    /// How far it is apart from this process.
    pub apart: Apart,
    /// How many files it may have open, if not as many as this process. It is given just after the program has begun:
    /// soon enough for what that program starts, or does when it is asked to.
    pub open_files: Option<OpenFiles>,
}

/// How far a child is apart from its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// In a process group of its own: signals of a terminal do not reach it.
    Group,
    /// In a session of its own: the end of the parent's session does not reach it either.
    Session,
}

/// A child process. It must be waited for with [`Child::try_wait`] or it stays as a zombie.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    ended: Option<Ended>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// Bytes as an argument or a variable; one with a zero byte in it is refused.
pub fn c_string(text: impl AsRef<OsStr>) -> io::Result<CString> {
    Ok(CString::new(text.as_ref().as_bytes())?)
}

impl Spawn<'_> {
    /// Starts it. Blocking, until the child executes.
    pub fn spawn(&self) -> io::Result<Child> {
        let program = c_string(self.program)?;
        let folder = c_string(self.folder)?;
        let mut actions = Actions::new()?;
        // The folder first, so that nothing depends on it but the program.
        actions.change_folder(&folder)?;
        for (number, stream) in (0..).zip(&self.streams) {
            actions.duplicate(*stream, number)?;
        }
        if let Some(given) = self.given {
            actions.duplicate(given, 3)?;
        }
        // Ours close themselves; what this process was started with might not.
        actions.close_from(if self.given.is_some() { 4 } else { 3 })?;
        let attributes = Attributes::new(self.apart)?;
        let mut arguments = vec![program.as_ptr().cast_mut()];
        arguments.extend(self.arguments.iter().map(|one| one.as_ptr().cast_mut()));
        arguments.push(std::ptr::null_mut());
        let mut environment: Vec<_> = self.environment.iter().map(|one| one.as_ptr().cast_mut()).collect();
        environment.push(std::ptr::null_mut());

        let mut pid = 0;
        // SAFETY: every pointer is to a live, terminated value of this function; the call copies what
        // the child needs and returns after it has executed or failed.
        let code = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                program.as_ptr(),
                &raw const actions.0,
                &raw const attributes.0,
                arguments.as_ptr(),
                environment.as_ptr(),
            )
        };
        checked(code)?;
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        // The child is ours and not waited for, so the number still means it.
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        if let Some(limit) = &self.open_files {
            // It can only fail for one that has ended already.
            let _ = limit.give(pid);
        }
        Ok(Child { pid, pidfd, ended: None })
    }
}

impl Child {
    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, if it has. Does not block.
    pub fn try_wait(&mut self) -> io::Result<Option<Ended>> {
        if self.ended.is_none() {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            self.ended = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)?.map(|status| {
                match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ended::Status(code),
                    (None, signal) => Ended::Signal(signal.unwrap_or_default()),
                }
            });
        }
        Ok(self.ended)
    }

    /// Kills it and what else is in its process group. Fine when it has ended already.
    pub fn kill_group(&self) {
        if self.ended.is_none() {
            // The only failure left is that nobody is there any more.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

/// Readable once the child has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for Child {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.pidfd.as_raw_fd()
    }
}

fn checked(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the pointer is to memory of the right type, which the call initializes.
        checked(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialized by the successful call above.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn change_folder(&mut self, folder: &CString) -> io::Result<()> {
        // SAFETY: both pointers are live; the call copies the path.
        checked(unsafe { libc::posix_spawn_file_actions_addchdir_np(&raw mut self.0, folder.as_ptr()) })
    }

    fn duplicate(&mut self, stream: BorrowedFd<'_>, number: i32) -> io::Result<()> {
        // SAFETY: the actions are live; the descriptor is borrowed for longer than the spawn.
        checked(unsafe {
            libc::posix_spawn_file_actions_adddup2(&raw mut self.0, stream.as_raw_fd(), number)
        })
    }
}

impl Actions {
    fn close_from(&mut self, first: i32) -> io::Result<()> {
        // SAFETY: the actions are live and initialized.
        checked(unsafe { libc::posix_spawn_file_actions_addclosefrom_np(&raw mut self.0, first) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialized by `new` and not destroyed before.
        let _ = unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

/// `POSIX_SPAWN_SETSID` of glibc's spawn.h, which the `libc` crate does not have.
const SETSID: libc::c_int = 0x80;

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new(apart: Apart) -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the pointer is to memory of the right type, which the call initializes.
        checked(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialized by the successful call above.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        let none = signals(Signals::None)?;
        // What this process ignores (SIGPIPE, as every Rust program) the child must not.
        let all = signals(Signals::All)?;
        // SAFETY: both pointers are to live, initialized values; the call copies the set.
        checked(unsafe { libc::posix_spawnattr_setsigmask(&raw mut attributes.0, &raw const none) })?;
        // SAFETY: as above.
        checked(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, &raw const all) })?;
        // SAFETY: the attributes are live and initialized.
        checked(unsafe { libc::posix_spawnattr_setpgroup(&raw mut attributes.0, 0) })?;
        let apart = match apart {
            Apart::Group => libc::POSIX_SPAWN_SETPGROUP,
            Apart::Session => SETSID,
        };
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF | apart;
        // SAFETY: the attributes are live and initialized.
        checked(unsafe { libc::posix_spawnattr_setflags(&raw mut attributes.0, flags as libc::c_short) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialized by `new` and not destroyed before.
        let _ = unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

enum Signals {
    None,
    All,
}

fn signals(which: Signals) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::uninit();
    let code = match which {
        // SAFETY: the pointer is to memory of the right type, which the call initializes.
        Signals::None => unsafe { libc::sigemptyset(set.as_mut_ptr()) },
        // SAFETY: as above.
        Signals::All => unsafe { libc::sigfillset(set.as_mut_ptr()) },
    };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: initialized by the successful call above.
    Ok(unsafe { set.assume_init() })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::pipe::{PipeFlags, pipe_with};
    use rustix::process::Resource;

    use super::*;

    fn run(script: &str, folder: &Path) -> (Ended, String) {
        let null = File::open("/dev/null").unwrap();
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let arguments = [c_string("-c").unwrap(), c_string(script).unwrap()];
        let environment = [c_string("GREETING=hello").unwrap()];
        let mut child = Spawn {
            program: Path::new("/bin/sh"),
            arguments: &arguments,
            environment: &environment,
            folder,
            streams: [null.as_fd(), write.as_fd(), write.as_fd()],
            given: None,
            apart: Apart::Group,
            open_files: None,
        }
        .spawn()
        .unwrap();
        drop(write);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        poll(&mut [PollFd::new(&child, PollFlags::IN)], None).unwrap();
        (child.try_wait().unwrap().unwrap(), text)
    }

    #[test]
    fn a_program_gets_its_folder_environment_and_streams_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (ended, text) = run("echo $GREETING; pwd -P; ls /proc/self/fd | wc -l; exit 7", folder.path());
        assert_eq!(ended, Ended::Status(7));
        let path = rustix::fs::readlink(Path::new("/proc/self/cwd"), Vec::new()).unwrap();
        assert_ne!(path.as_bytes(), folder.path().as_os_str().as_bytes(), "ours is unchanged");
        // The three streams and the one with which ls reads.
        assert_eq!(text, format!("hello\n{}\n4\n", folder.path().display()));
    }

    #[test]
    fn a_descriptor_is_given_as_the_third_to_a_program_in_a_session_of_its_own() {
        let null = File::open("/dev/null").unwrap();
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let script = "read -r _ _ _ _ _ session _ < /proc/self/stat; echo $session $$ >&3; ls /proc/self/fd | wc -l >&3";
        let arguments = [c_string("-c").unwrap(), c_string(script).unwrap()];
        let mut child = Spawn {
            program: Path::new("/bin/sh"),
            arguments: &arguments,
            environment: &[c_string("PATH=/usr/bin:/bin").unwrap()],
            folder: Path::new("/"),
            streams: [null.as_fd(), null.as_fd(), null.as_fd()],
            given: Some(write.as_fd()),
            apart: Apart::Session,
            open_files: None,
        }
        .spawn()
        .unwrap();
        drop(write);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        poll(&mut [PollFd::new(&child, PollFlags::IN)], None).unwrap();
        assert_eq!(child.try_wait().unwrap(), Some(Ended::Status(0)));
        let pid = child.pid();
        assert_eq!(text, format!("{pid} {pid}\n5\n"));
    }

    #[test]
    fn a_child_gets_the_limit_of_open_files_that_its_parent_was_started_with() {
        let given = OpenFiles::raise().unwrap();
        assert_eq!(OpenFiles::raise().unwrap().soft(), rustix::process::getrlimit(Resource::Nofile).maximum);
        let null = File::open("/dev/null").unwrap();
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (asked, ask) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        // It looks when it is asked to: the limit comes just after its beginning.
        let arguments = [c_string("-c").unwrap(), c_string("read -r _; ulimit -Sn").unwrap()];
        let _child = Spawn {
            program: Path::new("/bin/sh"),
            arguments: &arguments,
            environment: &[],
            folder: Path::new("/"),
            streams: [asked.as_fd(), write.as_fd(), null.as_fd()],
            given: None,
            apart: Apart::Group,
            open_files: Some(given),
        }
        .spawn()
        .unwrap();
        drop(write);
        File::from(ask).write_all(b"now\n").unwrap();
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        let expected = given.soft().map_or("unlimited".to_owned(), |limit| limit.to_string());
        assert_eq!(text.trim(), expected);
    }

    #[test]
    fn signals_have_their_default_effect() {
        let (ended, _) = run("kill -PIPE $$", Path::new("/"));
        assert_eq!(ended, Ended::Signal(libc::SIGPIPE));
    }

    #[test]
    fn what_cannot_be_executed_is_an_error() {
        let null = File::open("/dev/null").unwrap();
        let error = Spawn {
            program: Path::new("/nonexistent"),
            arguments: &[],
            environment: &[],
            folder: Path::new("/"),
            streams: [null.as_fd(), null.as_fd(), null.as_fd()],
            given: None,
            apart: Apart::Group,
            open_files: None,
        }
        .spawn()
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
