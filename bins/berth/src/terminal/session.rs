//! The copies between our streams and a process's: over its shim's attach socket, or over fifos.
//!
//! Each direction has a thread that blocks; the bytes are never looked at, but for the keys that detach. What
//! happens is told to the one who waits for the end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_types::Stdio;
use berth_types::attach::{Decoder, Frame, HEADER, Pace, Stream, encode, header};
use berth_workload::logs::{self, Writer};
use berth_workload::parse::{DetachKeys, Typed};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::fifos::{Fifos, readable, writable};

const BLOCK: usize = 64 << 10;
/// How long a shim may take to answer who attaches.
const OPENING: Duration = Duration::from_secs(10);

/// Which streams, and how.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Keys that detach; none when nobody types.
    pub(crate) keys: Option<DetachKeys>,
    /// Whether the process waits for us when we do not read.
    pub(crate) pace: Pace,
}

/// What happens to the streams.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Nothing more will come out.
    OutputEnded,
    /// Whoever reads our output has gone.
    OutputBroken,
    /// Nothing more is typed.
    InputEnded,
    /// The keys were typed that detach.
    Detached,
    /// We read too slowly.
    CutOff(String),
}

/// How far the copies of the output are.
#[derive(Debug, Default)]
pub(super) struct Progress {
    copied: AtomicU64,
    writing: AtomicBool,
}

impl Progress {
    /// A number that changes while anything moves; none while our own reader holds it up.
    pub(super) fn mark(&self) -> Option<u64> {
        (!self.writing.load(Ordering::Relaxed)).then(|| self.copied.load(Ordering::Relaxed))
    }
}

/// Copies under way.
pub(crate) struct Session {
    pub(super) events: UnboundedReceiver<Event>,
    pub(super) progress: Arc<Progress>,
    _fifos: Option<Fifos>,
}

type Events = UnboundedSender<Event>;

impl Session {
    /// Begins to copy over an attach socket.
    pub(crate) fn attach(socket: UnixStream, wanted: Wanted) -> io::Result<Self> {
        let (events, receiver) = unbounded_channel();
        let progress = Arc::new(Progress::default());
        let mut writer = socket.try_clone()?;
        writer.write_all(&encode(Stream::Open, &[wanted.pace as u8]))?;
        let first = opened(&socket)?;
        let shown = (wanted.stdout, wanted.stderr);
        let output = Output { events: events.clone(), progress: Arc::clone(&progress), log: None, shown };
        start("output", move || output.copy_socket(socket, &first))?;
        if wanted.stdin {
            start("input", move || type_into_socket(&mut writer, wanted.keys, &events))?;
        }
        Ok(Self { events: receiver, progress, _fifos: None })
    }

    /// Begins to copy over fifos of our own, once the shim has opened its ends. With a log, output goes there as well.
    pub(crate) fn fifos(mut fifos: Fifos, wanted: Wanted, log: Option<Writer>) -> io::Result<Self> {
        let input = if wanted.stdin { fifos.input()? } else { None };
        let (stdout, stderr) = (fifos.stdout.take(), fifos.stderr.take());
        Self::over(stdout, stderr, input, wanted, Some(fifos), log)
    }

    /// Begins to copy over the fifos of a task that runs, beside whoever reads them already.
    pub(crate) fn join(stdio: &Stdio, wanted: Wanted) -> io::Result<Self> {
        let open = |path: &str, wanted: bool| {
            if path.is_empty() || !wanted { Ok(None) } else { readable(Path::new(path)).map(Some) }
        };
        let (stdout, stderr) = (open(&stdio.stdout, wanted.stdout)?, open(&stdio.stderr, wanted.stderr)?);
        let input = if wanted.stdin && !stdio.stdin.is_empty() {
            Some(writable(Path::new(&stdio.stdin))?)
        } else {
            None
        };
        Self::over(stdout, stderr, input, wanted, None, None)
    }

    fn over(
        stdout: Option<File>,
        stderr: Option<File>,
        input: Option<File>,
        wanted: Wanted,
        fifos: Option<Fifos>,
        log: Option<Writer>,
    ) -> io::Result<Self> {
        let (events, receiver) = unbounded_channel();
        let progress = Arc::new(Progress::default());
        let log = log.map(|log| Arc::new(Mutex::new(log)));
        let shown = (wanted.stdout, wanted.stderr);
        let output =
            || Output { events: events.clone(), progress: Arc::clone(&progress), log: log.clone(), shown };
        let count = u8::from(stdout.is_some()) + u8::from(stderr.is_some());
        let open = Arc::new(std::sync::atomic::AtomicU8::new(count));
        for (from, to) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
            let Some(from) = from else { continue };
            let (output, open) = (output(), Arc::clone(&open));
            start("output", move || {
                output.copy_fifo(from, to);
                if open.fetch_sub(1, Ordering::AcqRel) == 1 {
                    output.tell(Event::OutputEnded);
                }
            })?;
        }
        if count == 0 {
            let _ = events.send(Event::OutputEnded);
        }
        if let Some(input) = input {
            start("input", move || type_into_fifo(input, wanted.keys, &events))?;
        }
        Ok(Self { events: receiver, progress, _fifos: fifos })
    }
}

/// Waits until the shim has taken us in, so that nothing that is written from now on is missed; answers the bytes that
/// came with its word. A shim that says nothing is not waited for longer than it could need.
fn opened(mut socket: &UnixStream) -> io::Result<[u8; HEADER]> {
    let mut word = [0; HEADER];
    socket.set_read_timeout(Some(OPENING))?;
    match socket.read_exact(&mut word) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            word = header(Stream::Open, 0);
        }
        Err(error) => return Err(error),
    }
    socket.set_read_timeout(None)?;
    Ok(word)
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // Nobody joins it: it blocks in a read until the process ends, and the process may end before.
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(work).map(drop)
}

struct Output {
    events: Events,
    progress: Arc<Progress>,
    log: Option<Arc<Mutex<Writer>>>,
    shown: (bool, bool),
}

impl Output {
    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    fn copy_socket(&self, mut socket: UnixStream, first: &[u8]) {
        let mut decoder = Decoder::default();
        let mut block = vec![0_u8; BLOCK];
        let mut frames: Vec<Frame> = Vec::new();
        let mut broken = decoder.feed(first, &mut frames).is_err();
        while !broken {
            match socket.read(&mut block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => break,
                Ok(count) => broken = decoder.feed(&block[..count], &mut frames).is_err(),
            }
            for frame in frames.drain(..) {
                match frame.stream {
                    Stream::Stdout | Stream::Stderr => self.show(frame.stream, &frame.payload),
                    Stream::CutOff => {
                        self.tell(Event::CutOff(String::from_utf8_lossy(&frame.payload).into_owned()));
                    }
                    _ => {}
                }
            }
        }
        self.tell(Event::OutputEnded);
    }

    fn copy_fifo(&self, mut fifo: File, stream: Stream) {
        let mut block = vec![0_u8; BLOCK];
        loop {
            // A fifo that nobody has opened for writing yet reads as ended; poll waits for the first writer.
            if ready(&fifo, PollFlags::IN).is_err() {
                break;
            }
            match fifo.read(&mut block) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    self.keep(stream, Some(&block[..count]));
                    self.show(stream, &block[..count]);
                }
            }
        }
        self.keep(stream, None);
    }

    /// Writes to the log; nothing is the end of the stream. As with Docker, a full disk costs the log and not the run.
    fn keep(&self, stream: Stream, bytes: Option<&[u8]>) {
        let Some(log) = &self.log else { return };
        let stream = if stream == Stream::Stdout { logs::Stream::Stdout } else { logs::Stream::Stderr };
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = match bytes {
            Some(bytes) => log.write(stream, bytes),
            None => log.finish(stream),
        };
    }

    fn show(&self, stream: Stream, bytes: &[u8]) {
        let wanted = if stream == Stream::Stdout { self.shown.0 } else { self.shown.1 };
        if bytes.is_empty() || !wanted {
            return;
        }
        self.progress.writing.store(true, Ordering::Relaxed);
        let written = if stream == Stream::Stdout {
            write_all(&io::stdout().as_fd(), bytes)
        } else {
            write_all(&io::stderr().as_fd(), bytes)
        };
        self.progress.copied.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.progress.writing.store(false, Ordering::Relaxed);
        if written.is_err() {
            self.tell(Event::OutputBroken);
        }
    }
}

fn ready(fd: &impl AsFd, what: PollFlags) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(fd, what)], None) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Writes everything, also where somebody made the descriptor non-blocking.
fn write_all(fd: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => ready(fd, PollFlags::OUT)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Copies what is typed to `send` until it ends, the keys detach or nobody takes it any more; answers whether it was
/// the input that ended.
fn type_into(
    mut keys: Option<DetachKeys>,
    events: &Events,
    mut send: impl FnMut(&[u8]) -> io::Result<()>,
) -> bool {
    let stdin = io::stdin();
    let mut block = vec![0_u8; BLOCK];
    loop {
        let count = match rustix::io::read(stdin.as_fd(), &mut block[..]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::AGAIN) if ready(&stdin.as_fd(), PollFlags::IN).is_ok() => continue,
            Err(_) => break,
        };
        let sent = match &mut keys {
            None => send(&block[..count]),
            Some(keys) => match keys.typed(&block[..count]) {
                Typed::Bytes(bytes) => send(&bytes),
                Typed::Detach(bytes) => {
                    let _ = send(&bytes);
                    let _ = events.send(Event::Detached);
                    return false;
                }
            },
        };
        if sent.is_err() {
            return false;
        }
    }
    true
}

fn type_into_socket(socket: &mut UnixStream, keys: Option<DetachKeys>, events: &Events) {
    let ended = type_into(keys, events, |bytes| {
        if bytes.is_empty() { Ok(()) } else { socket.write_all(&encode(Stream::Stdin, bytes)) }
    });
    if ended {
        // An empty frame is the end of the input; the shim passes it on if the container was made for one client.
        // (The socket stays open: one that is half closed would be a client that has left.)
        let _ = socket.write_all(&encode(Stream::Stdin, &[]));
    }
}

fn type_into_fifo(fifo: File, keys: Option<DetachKeys>, events: &Events) {
    let fd: OwnedFd = fifo.into();
    let ended = type_into(keys, events, |bytes| write_all(&fd, bytes));
    // The end is told only after our end of the fifo is closed.
    drop(fd);
    if ended {
        let _ = events.send(Event::InputEnded);
    }
}
