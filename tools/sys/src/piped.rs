//! A program that takes bytes at its standard input and gives others at its output: a filter of somebody else's, which
//! is not trusted to end, to read, to write or to be brief.
//!
//! ```text
//!   source ─▶ standard input ─▶ [ the program, a process group of its own ] ─▶ standard output ─▶ the caller
//!                                                 └─▶ standard error: its end is kept, for the error's text
//! ```
//! One thread serves the three pipes: whoever reads the output writes the input meanwhile. Everything has a deadline,
//! and dropping it kills the program with whatever it has started.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, BufRead};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::launch::{Apart, Child, Ended, Spawn, c_string};

/// Bytes of standard error that are kept: the last ones.
const SAID: usize = 4 << 10;
/// Bytes that are written at a time; a pipe holds as many.
const PIECE: usize = 64 << 10;
/// How long a program may take to be gone once it has been killed.
const DYING: Duration = Duration::from_secs(5);

/// A program that runs.
#[derive(Debug)]
pub struct Piped {
    child: Child,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    errors: Option<OwnedFd>,
    said: Vec<u8>,
}

/// How long a program is waited for.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Until then, whatever it does.
    Until(Instant),
    /// For so long after the last byte that it took or gave.
    Idle(Duration),
}

impl Patience {
    fn deadline(self) -> Instant {
        match self {
            Self::Until(deadline) => deadline,
            Self::Idle(idle) => Instant::now() + idle,
        }
    }
}

/// Finds a program as a shell would: by its path, or by its name in the folders of `search`.
pub fn find_program(name: &Path, search: Option<&OsStr>) -> io::Result<PathBuf> {
    if name.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Ok(name.to_owned());
    }
    let executable =
        |path: &PathBuf| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    std::env::split_paths(search.unwrap_or_default())
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(executable)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such program in PATH"))
}

impl Piped {
    /// Starts a program. `given` becomes its descriptor 3. Blocking, until it executes.
    pub fn start(
        program: &Path,
        arguments: &[String],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        given: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let ((stdin, input), (output, stdout), (errors, stderr)) = (pipe()?, pipe()?, pipe()?);
        for ours in [&input, &output, &errors] {
            rustix::fs::fcntl_setfl(ours, rustix::fs::fcntl_getfl(ours)? | OFlags::NONBLOCK)?;
        }
        let arguments: Vec<CString> = arguments.iter().map(c_string).collect::<io::Result<_>>()?;
        let variable = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            c_string(name)
        };
        let environment: Vec<CString> = environment.into_iter().map(variable).collect::<io::Result<_>>()?;
        let child = Spawn {
            program,
            arguments: &arguments,
            environment: &environment,
            folder: Path::new("/"),
            streams: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            given,
            apart: Apart::Group,
            open_files: None,
        }
        .spawn()?;
        Ok(Self { child, input: Some(input), output: Some(output), errors: Some(errors), said: Vec::new() })
    }

    /// Reads what the program gives; 0 at its end. What it takes meanwhile is read from `source`, whose end closes its
    /// input; a program that wants no more gets no more, which is no error. `TimedOut` when patience ends.
    pub fn read(
        &mut self,
        source: &mut impl BufRead,
        buffer: &mut [u8],
        patience: Patience,
    ) -> io::Result<usize> {
        let mut deadline = patience.deadline();
        loop {
            let Some(output) = &self.output else { return Ok(0) };
            let mut fds = vec![PollFd::new(output, PollFlags::IN)];
            let input = self.input.as_ref().map(|input| {
                fds.push(PollFd::new(input, PollFlags::OUT));
                fds.len() - 1
            });
            let errors = self.errors.as_ref().map(|errors| {
                fds.push(PollFd::new(errors, PollFlags::IN));
                fds.len() - 1
            });
            if !wait(&mut fds, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let ready = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
            let (gives, takes, says) = (ready(Some(0)), ready(input), ready(errors));
            if says {
                self.listen()?;
            }
            let Some(output) = &self.output else { return Ok(0) };
            if gives && let Some(length) = again(rustix::io::read(output, &mut *buffer))? {
                if length == 0 {
                    self.output = None;
                }
                return Ok(length);
            }
            if takes && self.feed(source)? {
                deadline = deadline.max(patience.deadline());
            }
        }
    }

    /// Waits until the program has ended, after its output has. What it has left running in its group is killed.
    pub fn finish(&mut self, patience: Patience) -> io::Result<Ended> {
        self.input = None;
        let deadline = patience.deadline();
        loop {
            let mut fds = vec![PollFd::new(&self.child, PollFlags::IN)];
            if let Some(errors) = &self.errors {
                fds.push(PollFd::new(errors, PollFlags::IN));
            }
            if !wait(&mut fds, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let ended = !fds[0].revents().is_empty();
            let says = fds.get(1).is_some_and(|errors| !errors.revents().is_empty());
            if says {
                self.listen()?;
            } else if ended {
                self.child.kill_group();
                if let Some(ended) = self.child.try_wait()? {
                    return Ok(ended);
                }
            }
        }
    }

    /// The end of what the program has said on its standard error, without what a terminal would obey.
    pub fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.said);
        let plain = text.chars().map(|char| if char.is_control() { ' ' } else { char });
        plain.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Writes one piece; whether the program took something.
    fn feed(&mut self, source: &mut impl BufRead) -> io::Result<bool> {
        let Some(input) = &self.input else { return Ok(false) };
        let data = source.fill_buf()?;
        if data.is_empty() {
            self.input = None;
            return Ok(true);
        }
        match again(rustix::io::write(input, &data[..data.len().min(PIECE)])) {
            Ok(Some(length)) => {
                source.consume(length);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.input = None;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        let Some(errors) = &self.errors else { return Ok(()) };
        let mut buffer = [0; SAID];
        match again(rustix::io::read(errors, &mut buffer[..]))? {
            Some(0) => self.errors = None,
            Some(length) => {
                self.said.extend_from_slice(&buffer[..length]);
                let surplus = self.said.len().saturating_sub(SAID);
                self.said.drain(..surplus);
            }
            None => {}
        }
        Ok(())
    }
}

/// Waits until one is ready; false when time is up.
fn wait(fds: &mut [PollFd<'_>], deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(fds, Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Nothing where it would have to be waited for.
fn again(result: rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        self.child.kill_group();
        // It is killed, so this takes a moment at most; only a program stuck in the kernel stays a zombie.
        let mut fds = [PollFd::new(&self.child, PollFlags::IN)];
        if wait(&mut fds, Instant::now() + DYING).unwrap_or(false) {
            let _ = self.child.try_wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const LONG: Patience = Patience::Idle(Duration::from_mins(1));

    fn shell(script: &str) -> Piped {
        let arguments = ["-c".to_owned(), script.to_owned()];
        Piped::start(Path::new("/bin/sh"), &arguments, std::env::vars_os(), None).unwrap()
    }

    fn through(piped: &mut Piped, input: &[u8]) -> Vec<u8> {
        let (mut source, mut output, mut buffer) = (Cursor::new(input), Vec::new(), [0; 8192]);
        loop {
            match piped.read(&mut source, &mut buffer, LONG).unwrap() {
                0 => return output,
                length => output.extend_from_slice(&buffer[..length]),
            }
        }
    }

    #[test]
    fn more_than_pipes_hold_goes_through_a_program() {
        let input: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut piped = shell("cat; echo done >&2; exit 3");
        assert!(through(&mut piped, &input) == input);
        assert_eq!(piped.finish(LONG).unwrap(), Ended::Status(3));
        assert_eq!(piped.said(), "done");
    }

    #[test]
    fn a_program_that_takes_nothing_or_only_a_part_is_no_error() {
        let input = vec![7; 1 << 20];
        let mut piped = shell("exec <&-; echo all");
        assert_eq!(through(&mut piped, &input), b"all\n");
        let mut piped = shell("head -c 3");
        assert_eq!(through(&mut piped, &input), [7, 7, 7]);
        assert_eq!(piped.finish(LONG).unwrap(), Ended::Status(0));
    }

    #[test]
    fn a_program_that_hangs_is_given_up_and_killed_with_its_children() {
        let mut piped = shell("sleep 1000 & echo $!; wait");
        let (mut source, mut buffer) = (io::empty(), [0; 64]);
        let length = piped.read(&mut source, &mut buffer, LONG).unwrap();
        let child: i32 = std::str::from_utf8(&buffer[..length]).unwrap().trim().parse().unwrap();
        let soon = Patience::Until(Instant::now() + Duration::from_millis(20));
        let error = piped.read(&mut source, &mut buffer, soon).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let child = rustix::process::Pid::from_raw(child).unwrap();
        let pidfd = rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty()).unwrap();
        drop(piped);
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        assert!(wait(&mut fds, Instant::now() + Duration::from_mins(1)).unwrap());
    }

    #[test]
    fn the_end_of_much_that_is_said_is_kept_and_cannot_steer_a_terminal() {
        let mut piped = shell(
            "i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done; printf '\\033[2Jend' >&2",
        );
        assert_eq!(through(&mut piped, b""), b"");
        piped.finish(LONG).unwrap();
        let said = piped.said();
        assert!(said.ends_with("line 2999 [2Jend") && said.len() <= SAID, "{said}");
    }

    #[test]
    fn programs_are_found_by_path_or_name() {
        let search = OsStr::new("relative:/nowhere:/bin:/usr/bin");
        assert_eq!(find_program(Path::new("sh"), Some(search)).unwrap(), Path::new("/bin/sh"));
        assert_eq!(find_program(Path::new("./x/sh"), None).unwrap(), Path::new("./x/sh"));
        assert_eq!(find_program(Path::new("sh"), None).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
