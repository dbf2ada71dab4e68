//! Where a process' streams go.
//!
//! | client says | container gets | shim does |
//! |---|---|---|
//! | nothing | `/dev/null` | nothing |
//! | a fifo, runtime in process | the fifo itself | keeps a reading end, so that a reader that goes ends nothing; for stdin a writing end, until `CloseIO` |
//! | a fifo, other runtimes | a pipe, as under containerd (and CRIU knows only pipes) | splices between pipe and fifo |
//! | a file, `file://PATH` | a pipe (through `/dev/stdout` a file could be truncated) | appends; what a full disk refuses is lost, the container goes on |
//! | `binary://PROGRAM?KEY=VALUE` | pipes whose other ends the logger has | starts and ends the logger ([`logger`]) |
//! | `berth-json:///PATH?max-size=10m&max-file=3` | pipes | Docker's rotating JSON log ([`json_log`]), and an attach socket ([`output`]) |
//! | `berth-cri://FOLDER?file=NAME&limit=16384` | pipes | a kubelet's log ([`cri_log`]), which it rotates, and an attach socket |
//!
//! With a terminal the other end of it stands in the place of the pipes.

mod cri_log;
mod json_log;
pub(crate) mod logger;
pub(crate) mod output;
pub(crate) mod pump;
mod record;
mod uri;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_types::attach::{STDIN_KEPT, STDIN_ONCE};
use berth_types::{Error, Result};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid, fchown, openat, stat};
use rustix::pipe::{PipeFlags, pipe_with};

use self::cri_log::CriLog;
use self::json_log::JsonLog;
use self::logger::LoggerProgram;
use self::output::{Input, Output};
use self::pump::{Channel, Pump, Sink};
use self::record::Record;
use crate::runtime::ChildIo;

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// Who will own the pipes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// How a fifo gets into the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handing {
    /// As it is.
    Direct,
    /// Through a pipe.
    Copied,
}

/// The streams, opened.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What the container gets.
    pub(crate) child: ChildIo,
    /// What moves bytes.
    pub(crate) pumps: Vec<(Channel, Pump)>,
    /// Where a terminal's output goes and its input comes from.
    pub(crate) terminal: Option<(Sink, Option<OwnedFd>)>,
    /// Ends that must stay open until the process is deleted.
    pub(crate) kept: Vec<OwnedFd>,
    /// The end that keeps standard input from ending.
    pub(crate) stdin: Option<OwnedFd>,
    /// A program that has to be started first.
    pub(crate) logger: Option<LoggerProgram>,
    /// The log and who is attached to it.
    pub(crate) output: Option<Output>,
}

/// The places in which output can end.
#[derive(Debug, PartialEq)]
enum Destination {
    Nowhere,
    Fifo(PathBuf),
    File(PathBuf),
    Logger(uri::Uri),
    Json(uri::Uri),
    Cri(uri::Uri),
}

impl Destination {
    fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::Nowhere);
        }
        let Some(uri) = uri::Uri::parse(text)? else { return Ok(Self::of_path(Path::new(text))) };
        match uri.scheme.as_str() {
            "fifo" => Ok(Self::Fifo(uri.path)),
            "file" => {
                if let Some(folder) = uri.path.parent() {
                    std::fs::create_dir_all(folder)
                        .map_err(|e| Error::io(format!("cannot make {}", folder.display()), e))?;
                }
                Ok(Self::File(uri.path))
            }
            "binary" | "binary-v2" => Ok(Self::Logger(uri)),
            "berth-json" => Ok(Self::Json(uri)),
            "berth-cri" => Ok(Self::Cri(uri)),
            other => Err(Error::invalid_argument(format!(
                "unknown STDIO scheme {other:?}: a fifo's path, file, binary, berth-json and berth-cri are known"
            ))),
        }
    }

    /// The log that is kept of what goes there, if one is.
    fn record(&self) -> Result<Option<Record>> {
        match self {
            Self::Json(uri) => JsonLog::open(uri).map(|log| Some(Record::Json(log))),
            Self::Cri(uri) => CriLog::open(uri).map(|log| Some(Record::Cri(log))),
            Self::Nowhere | Self::Fifo(_) | Self::File(_) | Self::Logger(_) => Ok(None),
        }
    }

    /// A path is a fifo unless it is something else.
    fn of_path(path: &Path) -> Self {
        match stat(path) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::Fifo => {
                Self::File(path.to_owned())
            }
            _ => Self::Fifo(path.to_owned()),
        }
    }
}

impl Plan {
    /// Opens everything. Never waits for another side.
    pub(crate) fn open(streams: &Streams, bundle: &Path, owner: Owner, handing: Handing) -> Result<Self> {
        let mut plan = Self {
            child: ChildIo::Terminal,
            pumps: Vec::new(),
            terminal: None,
            kept: Vec::new(),
            stdin: None,
            logger: None,
            output: None,
        };
        let destination = Destination::parse(&streams.stdout)?;
        if let Some(record) = destination.record()? {
            plan.output = Some(Output::open(record, bundle, input_of(&streams.stdin), streams.terminal)?);
        }
        if streams.terminal {
            let sink = plan.terminal_sink(destination)?;
            let typed = plan.open_stdin_fifo(&streams.stdin)?;
            plan.terminal = Some((sink, typed));
            return Ok(plan);
        }
        // A process whose pipes somebody else shall own cannot have the client's fifo, which would change hands.
        let handing = if owner.uid == 0 && owner.gid == 0 { handing } else { Handing::Copied };
        let stdin = plan.stdin(&streams.stdin, owner, handing)?;
        let (stdout, stderr) = match destination {
            Destination::Logger(uri) => plan.logger(&uri, owner)?,
            Destination::File(path) if streams.stdout.contains("://") => {
                let second = if streams.stderr.is_empty() {
                    Destination::Nowhere
                } else {
                    Destination::File(path.clone())
                };
                (
                    plan.stream(Channel::Stdout, Destination::File(path), owner, handing)?,
                    plan.stream(Channel::Stderr, second, owner, handing)?,
                )
            }
            Destination::Json(_) | Destination::Cri(_) => {
                (plan.record(Channel::Stdout, owner)?, plan.record(Channel::Stderr, owner)?)
            }
            other => {
                let stdout = plan.stream(Channel::Stdout, other, owner, handing)?;
                let second = Destination::parse(&streams.stderr)?;
                (stdout, plan.stream(Channel::Stderr, second, owner, handing)?)
            }
        };
        plan.child = ChildIo::Streams([stdin, stdout, stderr]);
        Ok(plan)
    }

    fn stream(
        &mut self,
        channel: Channel,
        destination: Destination,
        owner: Owner,
        handing: Handing,
    ) -> Result<Option<OwnedFd>> {
        match destination {
            Destination::Nowhere => Ok(None),
            Destination::Fifo(path) if handing == Handing::Direct => {
                // Reader first: it never waits, and with it neither does the writer.
                self.kept.push(open(&path, OFlags::RDONLY | OFlags::NONBLOCK)?);
                open(&path, OFlags::WRONLY).map(Some)
            }
            Destination::Fifo(path) => {
                // Both ends in one: no reader that goes can break it.
                let fifo = open(&path, OFlags::RDWR | OFlags::NONBLOCK)?;
                self.piped(channel, Sink::Pipe(fifo), owner)
            }
            Destination::File(path) => {
                let sink = Sink::File(append(&path)?);
                self.piped(channel, sink, owner)
            }
            Destination::Logger(_) | Destination::Json(_) | Destination::Cri(_) => {
                Err(Error::invalid_argument(
                    "standard error cannot have a log of its own: give the log as standard output",
                ))
            }
        }
    }

    fn record(&mut self, channel: Channel, owner: Owner) -> Result<Option<OwnedFd>> {
        self.piped(channel, Sink::Record(channel), owner)
    }

    /// A pipe into the container, and the pump at its other end.
    fn piped(&mut self, channel: Channel, sink: Sink, owner: Owner) -> Result<Option<OwnedFd>> {
        let (ours, theirs) = pipe(owner)?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|e| Error::io("cannot set up a pipe", e.into()))?;
        self.pumps.push((channel, Pump::new(ours, sink)));
        Ok(Some(theirs))
    }

    fn stdin(&mut self, text: &str, owner: Owner, handing: Handing) -> Result<Option<OwnedFd>> {
        if text.is_empty() {
            return Ok(None);
        }
        if input_of(text) != Input::None {
            let (theirs, ours) = pipe(owner)?;
            rustix::io::ioctl_fionbio(&ours, true)
                .map_err(|e| Error::io("cannot set up a pipe", e.into()))?;
            if let Some(output) = &mut self.output {
                output.feed(ours);
            }
            return Ok(Some(theirs));
        }
        if handing == Handing::Direct {
            let path = Path::new(text);
            let ours = open(path, OFlags::RDWR | OFlags::NONBLOCK)?;
            let theirs = open(path, OFlags::RDONLY)?;
            // A writing end alone, lest we are the reader who keeps a client from noticing the container's end.
            self.stdin = Some(open(path, OFlags::WRONLY | OFlags::NONBLOCK)?);
            drop(ours);
            return Ok(Some(theirs));
        }
        let Some(fifo) = self.open_stdin_fifo(text)? else { return Ok(None) };
        let (theirs, ours) = pipe(owner)?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|e| Error::io("cannot set up a pipe", e.into()))?;
        self.pumps.push((Channel::Stdin, Pump::new(fifo, Sink::Pipe(ours))));
        Ok(Some(theirs))
    }

    /// The reading end of a client's stdin, and a writing end that keeps it from ending.
    fn open_stdin_fifo(&mut self, text: &str) -> Result<Option<OwnedFd>> {
        if text.is_empty() || input_of(text) != Input::None {
            return Ok(None);
        }
        let path = Path::new(text);
        let reader = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        self.stdin = Some(open(path, OFlags::WRONLY | OFlags::NONBLOCK)?);
        Ok(Some(reader))
    }

    fn logger(&mut self, uri: &uri::Uri, owner: Owner) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
        let ((out_reader, out), (err_reader, err)) = (pipe(owner)?, pipe(owner)?);
        // Our reading ends: a logger that dies must not take the container with it.
        for reader in [&out_reader, &err_reader] {
            self.kept.push(clone(reader)?);
        }
        self.logger = Some(LoggerProgram::new(uri, [out_reader, err_reader]));
        Ok((Some(out), Some(err)))
    }

    fn terminal_sink(&mut self, destination: Destination) -> Result<Sink> {
        match destination {
            Destination::Nowhere => Ok(Sink::Discard),
            Destination::Fifo(path) => open(&path, OFlags::RDWR | OFlags::NONBLOCK).map(Sink::Stream),
            Destination::File(path) => append(&path).map(Sink::File),
            Destination::Json(_) | Destination::Cri(_) => Ok(Sink::Record(Channel::Stdout)),
            Destination::Logger(uri) => {
                let ((out_reader, out), (err_reader, err)) =
                    (pipe(Owner::default())?, pipe(Owner::default())?);
                self.kept.push(clone(&out_reader)?);
                // The logger's second stream ends at once: a terminal has but one.
                drop(err);
                self.logger = Some(LoggerProgram::new(&uri, [out_reader, err_reader]));
                rustix::io::ioctl_fionbio(&out, true)
                    .map_err(|e| Error::io("cannot set up a pipe", e.into()))?;
                Ok(Sink::Stream(out))
            }
        }
    }
}

impl Output {
    /// The output of a container whose streams are somebody else's: its log, by its URI, and the socket in a folder.
    pub(crate) fn of_log(log: &str, folder: &Path, stdin: &str, terminal: bool) -> Result<Self> {
        let record = Destination::parse(log)?.record()?.ok_or_else(|| {
            Error::invalid_argument(format!("{log:?} is no log with a format: give berth-cri or berth-json"))
        })?;
        Self::open(record, folder, input_of(stdin), terminal)
    }
}

fn input_of(stdin: &str) -> Input {
    match stdin {
        STDIN_KEPT => Input::Kept,
        STDIN_ONCE => Input::Once,
        _ => Input::None,
    }
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io(format!("cannot open the stream {}", path.display()), e.into()))
}

fn append(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY;
    openat(CWD, path, flags, Mode::from_raw_mode(0o644))
        .map_err(|e| Error::io(format!("cannot open the log {}", path.display()), e.into()))
}

fn clone(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().map_err(|e| Error::io("cannot copy a descriptor", e))
}

/// Reading and writing end.
fn pipe(owner: Owner) -> Result<(OwnedFd, OwnedFd)> {
    let failed = |e: rustix::io::Errno| Error::io("cannot make a pipe", e.into());
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    if owner.uid != 0 || owner.gid != 0 {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        // Both ends are one file.
        fchown(reader.as_fd(), Some(uid), Some(gid)).map_err(failed)?;
    }
    Ok((reader, writer))
}
