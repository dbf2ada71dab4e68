//! `relay FOLDER LOG INPUT [terminal]`: the streams of a container of somebody else's shim, which knows fifos alone.
//!
//! The fifos `stdin`, `stdout` and `stderr` are made in the folder, for that shim; this process reads and writes their
//! other ends, keeps the log that the URI describes, and takes in whoever attaches at the folder's socket, as berth's
//! shim does for containers of its own. The process that was started answers when all is open; its child stays until
//! the last writer of output has gone, whatever becomes of the daemon.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use berth_sys::fork::{Fork, fork};
use berth_types::attach::{STDIN_KEPT, STDIN_ONCE};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat, openat};

use crate::serve::poll::Poll;
use crate::start;
use crate::stdio::output::{Fate, Output};
use crate::stdio::pump::{Channel, Pump, Sink, Step};

/// The word that asks for it.
pub(crate) const NAME: &str = "relay";

/// Bytes moved at a time.
const BUFFER: usize = 16 << 10;

/// Opens the streams, and leaves a process behind that serves them.
pub(crate) fn start(words: impl Iterator<Item = String>) -> Result<()> {
    let words: Vec<String> = words.collect();
    let [folder, log, input, rest @ ..] = &words[..] else {
        bail!("{NAME} wants a folder, the URI of a log, and the input's kind");
    };
    let is_terminal = rest.first().is_some_and(|word| word == "terminal");
    let relay = Relay::open(Path::new(folder), log, input, is_terminal)?;
    match fork().context("cannot fork")? {
        Fork::Parent(_) => {
            // The child has it all; in particular the socket, whose file goes with its owner.
            std::mem::forget(relay);
            Ok(())
        }
        Fork::Child => {
            start::leave_session().context("cannot leave the session")?;
            relay.serve()
        }
    }
}

/// What is behind a number of the poll.
#[derive(Clone, Copy)]
enum Target {
    Listener,
    Client,
    Feed,
    Stream(Channel),
}

struct Relay {
    poll: Poll,
    targets: BTreeMap<u64, Target>,
    output: Output,
    streams: BTreeMap<Channel, Pump>,
}

impl Relay {
    fn open(folder: &Path, log: &str, input: &str, is_terminal: bool) -> Result<Self> {
        let mut output = Output::of_log(log, folder, input, is_terminal)?;
        let mut poll = Poll::new().context("cannot watch streams")?;
        let mut targets = BTreeMap::from([(poll.watch(output.as_fd())?, Target::Listener)]);
        if [STDIN_KEPT, STDIN_ONCE].contains(&input) {
            // Both ends: a shim that has not opened its own yet is no reason to fail.
            let feed = fifo(folder, "stdin", OFlags::RDWR)?;
            targets.insert(poll.watch(&feed)?, Target::Feed);
            output.feed(feed);
        }
        let mut streams = BTreeMap::new();
        let wanted: &[_] = if is_terminal {
            &[(Channel::Stdout, "stdout")]
        } else {
            &[(Channel::Stdout, "stdout"), (Channel::Stderr, "stderr")]
        };
        for (channel, name) in wanted {
            let pump = Pump::new(fifo(folder, name, OFlags::RDONLY)?, Sink::Record(*channel));
            targets.insert(poll.watch(pump.source())?, Target::Stream(*channel));
            streams.insert(*channel, pump);
        }
        Ok(Self { poll, targets, output, streams })
    }

    /// Serves until the last stream of output has ended. A stream is not looked at before its first event: without
    /// ever a writer it would seem to have ended.
    fn serve(mut self) -> Result<()> {
        let mut again = Vec::new();
        while !self.streams.is_empty() {
            let timeout = if again.is_empty() { None } else { Some(std::time::Duration::ZERO) };
            for number in self.poll.wait(timeout)? {
                match self.targets.get(&number).copied() {
                    Some(Target::Listener) => self.admit()?,
                    Some(Target::Client) => again.extend(self.hear(number)),
                    Some(Target::Feed) => again.extend(self.pour()),
                    Some(Target::Stream(channel)) => again.push(channel),
                    None => {}
                }
            }
            for channel in std::mem::take(&mut again) {
                again.extend(self.advance(channel));
            }
        }
        self.output.finish();
        self.farewell()
    }

    fn admit(&mut self) -> Result<()> {
        while let Some(socket) = self.output.accept() {
            let number = self.poll.watch(&socket)?;
            self.targets.insert(number, Target::Client);
            self.output.admit(number, socket);
        }
        Ok(())
    }

    /// Goes on with a client; answers the streams that may go on too, since it may have held them up.
    fn hear(&mut self, number: u64) -> Vec<Channel> {
        if self.output.serve(number) == Fate::Gone {
            self.targets.remove(&number);
        }
        self.let_go();
        self.streams.keys().copied().collect()
    }

    /// The container takes input again; clients that waited for it are heard.
    fn pour(&mut self) -> Vec<Channel> {
        if !self.output.pour() {
            return Vec::new();
        }
        self.output.everybody().into_iter().flat_map(|number| self.hear(number)).collect()
    }

    /// Moves what a stream has to move; answers it if there is more.
    fn advance(&mut self, channel: Channel) -> Option<Channel> {
        let pump = self.streams.get_mut(&channel)?;
        let step = pump.advance(&mut [0; BUFFER], Some(&mut self.output));
        self.let_go();
        match step {
            Step::Waiting => None,
            Step::Again => Some(channel),
            Step::Ended => {
                self.streams.remove(&channel);
                None
            }
        }
    }

    fn let_go(&mut self) {
        for number in self.output.leaving() {
            self.targets.remove(&number);
            self.output.dismiss(number);
        }
    }

    /// Clients get what they lack; one that does not read does not keep us for ever.
    fn farewell(mut self) -> Result<()> {
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            self.let_go();
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if self.output.everybody().is_empty() || left.is_zero() {
                return Ok(());
            }
            for number in self.poll.wait(Some(left))? {
                if matches!(self.targets.get(&number), Some(Target::Client)) {
                    self.hear(number);
                }
            }
        }
    }
}

/// Makes a fifo, unless one is left from an earlier start of the container, and opens it.
fn fifo(folder: &Path, name: &str, flags: OFlags) -> Result<std::os::fd::OwnedFd> {
    let path = folder.join(name);
    let failed = || format!("cannot make the stream {}", path.display());
    match mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error).with_context(failed),
    }
    openat(CWD, &path, flags | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .with_context(failed)
}
