//! One run of a program with a deadline, its output caught in files so that neither a full pipe
//! nor a grandchild that keeps one open can hold the test.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::wait::Watched;

/// How long a command may take unless it says otherwise.
const LIMIT: Duration = Duration::from_secs(120);

/// A program about to run.
#[derive(Debug)]
pub struct Invocation {
    command: Command,
    limit: Duration,
    input: Vec<u8>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The whole command, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// From before its start to its end.
    pub took: Duration,
}

/// A program that runs beside the test. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    began: Instant,
    limit: Duration,
    command: String,
    stdout: File,
    stderr: File,
}

impl Invocation {
    /// Runs `program`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), limit: LIMIT, input: Vec::new() }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.command.arg(word);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<W: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.command.args(words);
        self
    }

    /// Adds the words of a line, split at blanks: for commands that quote nothing.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.command.args(line.split_whitespace());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Gives `bytes` as standard input; without it there is none.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Allows another time than two minutes.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts it and lets it run.
    #[track_caller]
    pub fn start(mut self) -> Running {
        let command = words(&self.command);
        let caught = || tempfile::tempfile().expect("the temp folder takes a file");
        let (stdout, stderr) = (caught(), caught());
        let share = |file: &File| Stdio::from(file.try_clone().expect("a descriptor can be copied"));
        self.command.stdin(self.stdin()).stdout(share(&stdout)).stderr(share(&stderr));
        let began = Instant::now();
        let child = self.command.spawn().unwrap_or_else(|error| panic!("cannot start `{command}`: {error}"));
        Running { child, began, limit: self.limit, command, stdout, stderr }
    }

    /// Runs it to its end, demands success, and gives the time from before its start to its first byte of output.
    #[track_caller]
    pub fn first_byte(mut self) -> Duration {
        let command = words(&self.command);
        self.command.stdin(self.stdin()).stdout(Stdio::piped()).stderr(Stdio::null());
        let began = Instant::now();
        let mut child =
            self.command.spawn().unwrap_or_else(|error| panic!("cannot start `{command}`: {error}"));
        let mut output = child.stdout.take().expect("it was piped");
        let read = output.read(&mut [0]).expect("a pipe can be read");
        let took = began.elapsed();
        std::io::copy(&mut output, &mut std::io::sink()).expect("a pipe can be read");
        let status = child.wait().expect("it is our child");
        assert!(read == 1 && status.success(), "`{command}` ended with {status} after {read} bytes");
        took
    }

    /// Runs it to its end, whatever that is. Panics when it takes too long.
    #[track_caller]
    pub fn outcome(self) -> Outcome {
        self.start().wait()
    }

    /// Runs it, demands success and gives its standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        let outcome = self.outcome();
        assert!(outcome.status.success(), "{outcome}");
        outcome.stdout_text()
    }

    /// Runs it, demands failure and gives its standard error.
    #[track_caller]
    pub fn fails(self) -> String {
        let outcome = self.outcome();
        assert!(!outcome.status.success(), "was to fail: {outcome}");
        outcome.stderr_text()
    }

    fn stdin(&self) -> Stdio {
        if self.input.is_empty() {
            return Stdio::null();
        }
        let mut file = tempfile::tempfile().expect("the temp folder takes a file");
        file.write_all(&self.input).expect("the temp folder takes bytes");
        file.rewind().expect("a file can be rewound");
        file.into()
    }
}

impl Running {
    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its standard output by now.
    pub fn stdout_so_far(&self) -> String {
        String::from_utf8_lossy(&read(&self.stdout)).into_owned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(watched) = Watched::open(self.child.id()) {
            watched.signal(signal);
        }
    }

    /// Waits for its end. Panics, after killing it, when it takes longer than it may.
    #[track_caller]
    pub fn wait(mut self) -> Outcome {
        let left = self.limit.saturating_sub(self.began.elapsed());
        let in_time = Watched::open(self.child.id()).is_none_or(|watched| watched.ends_within(left));
        if !in_time {
            let _ = self.child.kill();
        }
        let status = self.child.wait().expect("it is our child");
        let outcome = Outcome {
            command: self.command.clone(),
            status,
            stdout: read(&self.stdout),
            stderr: read(&self.stderr),
            took: self.began.elapsed(),
        };
        assert!(in_time, "took more than {:?}: {outcome}", self.limit);
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The exit code as a shell gives it: 128 + n for a signal.
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or_default())
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ended with {} after {:?}", self.command, self.status, self.took)?;
        write!(f, "\nstdout: {}\nstderr: {}", self.stdout_text().trim_end(), self.stderr_text().trim_end())
    }
}

/// Reads by position: the child writes through the same open file and keeps its own place in it.
fn read(file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        match file.read_at(&mut chunk, bytes.len() as u64).expect("a temporary file can be read") {
            0 => return bytes,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}

fn words(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    command.get_args().fold(name, |text, word| text + " " + &word.to_string_lossy())
}
