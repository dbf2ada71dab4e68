//! Moves the bytes of one stream, as far as both sides allow, and never waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, read, write};
use rustix::pipe::{SpliceFlags, splice};

use super::output::{Output, Taken};

/// At most so much at a time, that one loud container leaves the others their turn.
const TURN: usize = 1 << 20;

/// Which of a process' streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    Stdin,
    Stdout,
    Stderr,
}

/// The side that takes.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A pipe or fifo, fed from another without copying through us.
    Pipe(OwnedFd),
    /// Anything that can be full.
    Stream(OwnedFd),
    /// A file: it takes everything, or loses it.
    File(OwnedFd),
    /// The process' [`Output`].
    Record(Channel),
    /// Nothing is kept.
    Discard,
}

/// What a pump says of itself after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// One side or the other has nothing or takes nothing; their next edge wakes it.
    Waiting,
    /// There may be more right now.
    Again,
    /// The stream has ended, or nobody takes it any more.
    Ended,
}

/// One stream on its way.
#[derive(Debug)]
pub(crate) struct Pump {
    from: OwnedFd,
    to: Sink,
    /// Read and not yet written.
    rest: Vec<u8>,
    lost: u64,
}

impl Pump {
    /// From a descriptor that does not block.
    pub(crate) fn new(from: OwnedFd, to: Sink) -> Self {
        Self { from, to, rest: Vec::new(), lost: 0 }
    }

    /// The side to be watched for bytes.
    pub(crate) fn source(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }

    /// The side to be watched for room, if it can be full.
    pub(crate) fn drain(&self) -> Option<BorrowedFd<'_>> {
        match &self.to {
            Sink::Pipe(fd) | Sink::Stream(fd) => Some(fd.as_fd()),
            Sink::File(_) | Sink::Record(_) | Sink::Discard => None,
        }
    }

    /// Whether bytes go through us.
    pub(crate) fn needs_buffer(&self) -> bool {
        !matches!(self.to, Sink::Pipe(_))
    }

    /// Bytes that a full disk refused.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Moves what can be moved. `buffer` is anybody's; `output` is the process' own, when it has one.
    pub(crate) fn advance(&mut self, buffer: &mut [u8], output: Option<&mut Output>) -> Step {
        match &self.to {
            Sink::Pipe(to) => relay(&self.from, to),
            Sink::Record(channel) => match output {
                Some(output) => record(&self.from, *channel, output, buffer),
                None => copy(&self.from, buffer, |_| Given::All),
            },
            Sink::Discard => copy(&self.from, buffer, |_| Given::All),
            Sink::File(to) => {
                let lost = &mut self.lost;
                copy(&self.from, buffer, |bytes| {
                    *lost += append(to, bytes) as u64;
                    Given::All
                })
            }
            Sink::Stream(_) => self.stream(buffer),
        }
    }

    fn stream(&mut self, buffer: &mut [u8]) -> Step {
        let Self { from, to: Sink::Stream(to), rest, .. } = self else { return Step::Ended };
        if !rest.is_empty() {
            match offer(to, rest) {
                Given::All => *rest = Vec::new(),
                Given::Some(count) => {
                    rest.drain(..count);
                    return Step::Waiting;
                }
                Given::Refused => return Step::Ended,
            }
        }
        let mut left = None;
        let step = copy(from, buffer, |bytes| {
            let given = offer(to, bytes);
            if let Given::Some(count) = given {
                left = Some(bytes[count..].to_vec());
            }
            given
        });
        *rest = left.unwrap_or_default();
        step
    }
}

/// How much of what was offered was taken.
enum Given {
    All,
    Some(usize),
    Refused,
}

fn offer(to: &OwnedFd, bytes: &[u8]) -> Given {
    let mut done = 0;
    while done < bytes.len() {
        match write(to, &bytes[done..]) {
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Given::Some(done),
            Err(_) => return Given::Refused,
        }
    }
    Given::All
}

/// Writes to a file; the count that could not be written.
fn append(to: &OwnedFd, bytes: &[u8]) -> usize {
    match offer(to, bytes) {
        Given::All => 0,
        Given::Some(count) => bytes.len() - count,
        Given::Refused => bytes.len(),
    }
}

fn copy(from: &OwnedFd, buffer: &mut [u8], mut give: impl FnMut(&[u8]) -> Given) -> Step {
    let mut moved = 0;
    while moved < TURN {
        match read(from, &mut *buffer) {
            Ok(0) => return Step::Ended,
            Ok(count) => {
                moved += count;
                match give(&buffer[..count]) {
                    Given::All => {}
                    Given::Some(_) => return Step::Waiting,
                    Given::Refused => return Step::Ended,
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Step::Waiting,
            // A terminal whose last user has gone says EIO.
            Err(_) => return Step::Ended,
        }
    }
    Step::Again
}

fn relay(from: &OwnedFd, to: &OwnedFd) -> Step {
    let mut moved = 0;
    while moved < TURN {
        match splice(from, None, to, None, TURN, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Ok(0) => return Step::Ended,
            Ok(count) => moved += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Step::Waiting,
            Err(_) => return Step::Ended,
        }
    }
    Step::Again
}

fn record(from: &OwnedFd, channel: Channel, output: &mut Output, buffer: &mut [u8]) -> Step {
    let mut moved = 0;
    while moved < TURN {
        if output.is_congested() {
            return Step::Waiting;
        }
        match read(from, &mut *buffer) {
            Ok(0) => break,
            Ok(count) => {
                moved += count;
                match output.take(channel, &buffer[..count]) {
                    Taken::Recorded => {}
                    Taken::Congested => return Step::Waiting,
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Step::Waiting,
            Err(_) => break,
        }
    }
    if moved >= TURN {
        return Step::Again;
    }
    output.end(channel);
    Step::Ended
}

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
    }

    fn fill(to: &OwnedFd) -> usize {
        let mut count = 0;
        while let Ok(written) = write(to, &[b'x'; 4096]) {
            count += written;
        }
        count
    }

    fn empty(from: &OwnedFd) -> usize {
        let mut count = 0;
        while let Ok(read) = read(from, &mut [0; 4096]) {
            if read == 0 {
                break;
            }
            count += read;
        }
        count
    }

    #[test]
    fn a_full_sink_holds_the_stream_up_and_loses_nothing() {
        for splicing in [true, false] {
            let ((source, source_end), (sink_end, sink)) = (pipe(), pipe());
            let mut sent = fill(&sink) + fill(&source_end);
            let to = if splicing { Sink::Pipe(sink) } else { Sink::Stream(sink) };
            let mut pump = Pump::new(source, to);
            let mut buffer = [0; 512];
            assert_eq!(pump.advance(&mut buffer, None), Step::Waiting);
            let mut got = empty(&sink_end);
            assert_eq!(pump.advance(&mut buffer, None), Step::Waiting);
            sent += write(&source_end, b"end").unwrap();
            drop(source_end);
            while pump.advance(&mut buffer, None) != Step::Ended {
                got += empty(&sink_end);
            }
            drop(pump);
            got += empty(&sink_end);
            assert_eq!(got, sent, "splicing: {splicing}");
        }
    }

    #[test]
    fn a_sink_without_a_reader_ends_the_pump() {
        let ((source, source_end), (sink_end, sink)) = (pipe(), pipe());
        drop(sink_end);
        write(&source_end, b"x").unwrap();
        let mut pump = Pump::new(source, Sink::Stream(sink));
        assert_eq!(pump.advance(&mut [0; 16], None), Step::Ended);
    }
}
