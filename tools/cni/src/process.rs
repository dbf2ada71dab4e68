//! One run of a plugin: its configuration in, its answer out, within a deadline.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use berth_sys::launch::{Apart, Child, Ended, Spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

/// What a plugin may write at most: a result is a few hundred bytes.
const LIMIT: usize = 1 << 20;
/// How often a program that is just being written (by its installer) is tried again.
const BUSY_TRIES: u32 = 50;

/// How a plugin ended and what it wrote.
pub(crate) struct Ran {
    pub(crate) ended: Ended,
    pub(crate) output: Vec<u8>,
    pub(crate) complaints: Vec<u8>,
}

/// Runs a program to its end. One that takes longer than `deadline` is killed with all that is in its process group,
/// and so is one that writes more than a result can be.
pub(crate) fn run(
    program: &Path,
    environment: &[CString],
    input: &[u8],
    deadline: Duration,
) -> io::Result<Ran> {
    let end = Instant::now() + deadline;
    let (read_input, write_input) = pipe_with(PipeFlags::CLOEXEC)?;
    let (read_output, write_output) = pipe_with(PipeFlags::CLOEXEC)?;
    let (read_complaints, write_complaints) = pipe_with(PipeFlags::CLOEXEC)?;
    let spawn = Spawn {
        program,
        arguments: &[],
        environment,
        folder: Path::new("/"),
        streams: [read_input.as_fd(), write_output.as_fd(), write_complaints.as_fd()],
        given: None,
        apart: Apart::Group,
        open_files: None,
    };
    let mut child = start(&spawn, end)?;
    drop((read_input, write_output, write_complaints));
    let mut talk = Talk {
        input: Some(pipe(write_input)?),
        rest: input,
        output: Stream::new(read_output)?,
        complaints: Stream::new(read_complaints)?,
    };
    let ended = talk.until_it_ends(&mut child, end);
    if ended.is_err() {
        child.kill_group();
        let _ = poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&seconds(Duration::from_secs(5))));
        let _ = child.try_wait();
    }
    Ok(Ran { ended: ended?, output: talk.output.bytes, complaints: talk.complaints.bytes })
}

/// Starts it; a program that somebody still writes is waited for, as installers replace plugins in place.
fn start(spawn: &Spawn<'_>, end: Instant) -> io::Result<Child> {
    let mut tries = 0;
    loop {
        match spawn.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy
                    && tries < BUSY_TRIES
                    && Instant::now() < end =>
            {
                tries += 1;
                let _ = poll(&mut [], Some(&seconds(Duration::from_millis(20))));
            }
            other => return other,
        }
    }
}

struct Talk<'a> {
    input: Option<File>,
    rest: &'a [u8],
    output: Stream,
    complaints: Stream,
}

impl Talk<'_> {
    /// Feeds and reads until the program has ended. What a process that it left behind may write is not waited for.
    fn until_it_ends(&mut self, child: &mut Child, end: Instant) -> io::Result<Ended> {
        loop {
            let left = end.checked_duration_since(Instant::now()).ok_or(io::ErrorKind::TimedOut)?;
            let (fed, output, complaints) = {
                let mut waits = vec![PollFd::new(&*child, PollFlags::IN)];
                let files = [
                    (self.input.as_ref(), PollFlags::OUT),
                    (self.output.file.as_ref(), PollFlags::IN),
                    (self.complaints.file.as_ref(), PollFlags::IN),
                ];
                let places = files.map(|(file, flags)| {
                    let file = file?;
                    waits.push(PollFd::from_borrowed_fd(file.as_fd(), flags));
                    Some(waits.len() - 1)
                });
                match poll(&mut waits, Some(&seconds(left))) {
                    Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                let ready = |at: Option<usize>| at.is_some_and(|at| !waits[at].revents().is_empty());
                (ready(places[0]), ready(places[1]), ready(places[2]))
            };
            if fed {
                self.feed();
            }
            if output {
                self.output.read()?;
            }
            if complaints {
                self.complaints.read()?;
            }
            if let Some(ended) = child.try_wait()? {
                self.output.read()?;
                self.complaints.read()?;
                return Ok(ended);
            }
        }
    }

    /// A program need not read what it is given: that it closes its input is its own affair.
    fn feed(&mut self) {
        let Some(file) = &mut self.input else { return };
        match file.write(self.rest) {
            Ok(count) => self.rest = &self.rest[count..],
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return;
            }
            Err(_) => self.rest = &[],
        }
        if self.rest.is_empty() {
            self.input = None;
        }
    }
}

struct Stream {
    file: Option<File>,
    bytes: Vec<u8>,
}

impl Stream {
    fn new(end: OwnedFd) -> io::Result<Self> {
        Ok(Self { file: Some(pipe(end)?), bytes: Vec::new() })
    }

    /// Reads what is there.
    fn read(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut part = [0; 16 * 1024];
        loop {
            match file.read(&mut part) {
                Ok(0) => break,
                Ok(count) => self.bytes.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.bytes.len() > LIMIT {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it wrote more than a mebibyte"));
            }
        }
        self.file = None;
        Ok(())
    }
}

fn pipe(end: OwnedFd) -> io::Result<File> {
    fcntl_setfl(&end, OFlags::NONBLOCK)?;
    Ok(end.into())
}

fn seconds(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}
