//! Streams between clients and containers.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::task::{Continuation, Logger, ProcessKey, Recorded, State};
use super::timers::Timer;
use super::{Shim, Target};
use crate::stdio::Plan;
use crate::stdio::output::Fate;
use crate::stdio::pump::{Channel, Pump, Sink, Step};

/// Bytes moved at a time where they go through us; taken for a turn only, since most shims are idle.
const BUFFER: usize = 16 << 10;
/// How long a deletion waits for output that somebody still could write.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a logging program has to see that its streams have ended.
const LOGGER_NOTICES: Duration = Duration::from_millis(500);
/// How long it has after it was told to end.
const LOGGER_ENDS: Duration = Duration::from_secs(12);

/// One stream, and whose it is.
pub(super) struct Stream {
    owner: ProcessKey,
    channel: Channel,
    pump: Pump,
    numbers: Vec<u64>,
}

impl Shim {
    /// Takes over the streams of a process that has been made.
    pub(crate) fn install(
        &mut self,
        key: &ProcessKey,
        plan: Plan,
        console: Option<OwnedFd>,
        logger: Option<u32>,
    ) {
        let Plan { child: _, mut pumps, terminal, kept, stdin, logger: _, mut output } = plan;
        if let (Some((sink, typed)), Some(console)) = (terminal, &console)
            && let Err(error) = Self::wire_console(console, sink, typed, &mut pumps, output.as_mut())
        {
            self.log.error(format_args!("cannot serve the terminal of {}: {error}", key.id()));
        }
        let number = output.map(|output| self.adopt_output(key, output));
        let outputs = pumps.iter().filter(|(channel, _)| *channel != Channel::Stdin).count();
        let mut input_closed = false;
        if let Some(process) = self.process_mut(key) {
            input_closed = process.input_closed;
            process.outputs = outputs;
            process.kept = kept;
            process.stdin = stdin.filter(|_| !input_closed);
            process.console = console;
            process.output = number;
            process.logger = logger.map(|pid| Logger { pid, asked: false });
        }
        if let Some(number) = number.filter(|_| input_closed) {
            self.close_feed(number);
        }
        for (channel, pump) in pumps {
            self.add_stream(key.clone(), channel, pump);
        }
        if let Some(pid) = logger {
            self.loggers.insert(pid, key.clone());
            if self.children.take_early(pid).is_some() {
                self.logger_ended(pid);
            }
        }
    }

    fn wire_console(
        console: &OwnedFd,
        sink: Sink,
        typed: Option<OwnedFd>,
        pumps: &mut Vec<(Channel, Pump)>,
        output: Option<&mut crate::stdio::output::Output>,
    ) -> std::io::Result<()> {
        rustix::io::ioctl_fionbio(console, true)?;
        pumps.push((Channel::Stdout, Pump::new(console.try_clone()?, sink)));
        if let Some(typed) = typed {
            pumps.push((Channel::Stdin, Pump::new(typed, Sink::Stream(console.try_clone()?))));
        }
        if let Some(output) = output {
            output.feed(console.try_clone()?);
        }
        Ok(())
    }

    fn add_stream(&mut self, owner: ProcessKey, channel: Channel, pump: Pump) {
        let number = self.poll.number();
        let mut numbers = Vec::new();
        let mut watched = self.poll.watch(pump.source()).map(|number| numbers.push(number));
        if let Some(drain) = pump.drain() {
            watched = watched.and_then(|()| self.poll.watch(drain).map(|number| numbers.push(number)));
        }
        if let Err(error) = watched {
            self.log.error(format_args!("cannot watch a stream of {}: {error}", owner.id()));
        }
        for watched in &numbers {
            self.targets.insert(*watched, Target::Stream(number));
        }
        self.streams.insert(number, Box::new(Stream { owner, channel, pump, numbers }));
        self.again.push(number);
    }

    /// Moves what a stream has to move.
    pub(super) fn advance(&mut self, number: u64) {
        let Some(mut stream) = self.streams.remove(&number) else { return };
        let output = self
            .tasks
            .get(&stream.owner.container)
            .and_then(|task| task.process(&stream.owner.exec).ok().and_then(|process| process.output));
        let recorded = output.and_then(|number| self.outputs.get_mut(&number));
        let mut buffer = if stream.pump.needs_buffer() { vec![0; BUFFER] } else { Vec::new() };
        let step = stream.pump.advance(&mut buffer, recorded.map(|recorded| &mut recorded.output));
        if let Some(output) = output {
            self.let_go(output);
        }
        match step {
            Step::Waiting => drop(self.streams.insert(number, stream)),
            Step::Again => {
                self.streams.insert(number, stream);
                self.again.push(number);
            }
            Step::Ended => self.stream_ended(*stream),
        }
    }

    fn stream_ended(&mut self, stream: Stream) {
        self.poll.forget(stream.pump.source());
        if let Some(drain) = stream.pump.drain() {
            self.poll.forget(drain);
        }
        for number in &stream.numbers {
            self.targets.remove(number);
        }
        if stream.pump.lost() > 0 {
            self.log.warn(format_args!(
                "{} bytes of {}'s output are lost",
                stream.pump.lost(),
                stream.owner.id()
            ));
        }
        let Stream { owner, channel, pump, numbers: _ } = stream;
        drop(pump);
        if channel == Channel::Stdin {
            return;
        }
        let Some(process) = self.process_mut(&owner) else { return };
        process.outputs = process.outputs.saturating_sub(1);
        if process.outputs == 0 {
            if let Some(output) = process.output
                && let Some(recorded) = self.outputs.get_mut(&output)
            {
                recorded.output.finish();
                self.let_go(output);
            }
            self.drained(&owner);
        }
    }

    /// Ends the streams into a process that has ended.
    pub(super) fn end_input(&mut self, key: &ProcessKey) {
        let inputs: Vec<u64> = self.streams_of(key, |channel| channel == Channel::Stdin);
        for number in inputs {
            if let Some(stream) = self.streams.remove(&number) {
                self.stream_ended(*stream);
            }
        }
        if let Some(process) = self.process_mut(key) {
            process.stdin = None;
            if let Some(output) = process.output {
                self.close_feed(output);
            }
        }
    }

    fn streams_of(&self, key: &ProcessKey, which: impl Fn(Channel) -> bool) -> Vec<u64> {
        let theirs = self.streams.iter().filter(|(_, stream)| stream.owner == *key && which(stream.channel));
        theirs.map(|(number, _)| *number).collect()
    }

    /// Calls `then` once the output of a process has ended and its logger has, or has had its time.
    pub(crate) fn when_drained(&mut self, key: &ProcessKey, then: Continuation) {
        let Some(process) = self.process_mut(key) else { return then(self) };
        process.when_drained = Some(then);
        let (is_writing, logger) = (process.outputs > 0, process.logger);
        if is_writing {
            self.timers.set(DRAIN, Timer::Drained(key.clone()));
        }
        if let Some(logger) = logger {
            self.timers.set(LOGGER_NOTICES, Timer::Logger(logger.pid));
        }
        self.drained(key);
    }

    fn drained(&mut self, key: &ProcessKey) {
        let Some(process) = self.process_mut(key) else { return };
        if process.outputs > 0 || process.logger.is_some() {
            return;
        }
        if let Some(then) = process.when_drained.take() {
            self.timers.cancel(&Timer::Drained(key.clone()));
            then(self);
        }
    }

    pub(super) fn give_up_on_output(&mut self, key: &ProcessKey) {
        self.log.warn(format_args!("the output of {} has not ended; it is cut off", key.id()));
        for number in self.streams_of(key, |_| true) {
            if let Some(stream) = self.streams.remove(&number) {
                self.stream_ended(*stream);
            }
        }
        self.drained(key);
    }

    /// Tells a logging program to end, and the second time ends it.
    pub(super) fn press_logger(&mut self, pid: u32) {
        let Some(key) = self.loggers.get(&pid).cloned() else { return };
        let mut signal = rustix::process::Signal::TERM;
        if let Some(logger) = self.process_mut(&key).and_then(|process| process.logger.as_mut()) {
            if logger.asked {
                signal = rustix::process::Signal::KILL;
            }
            logger.asked = true;
        }
        crate::service::send_signal(pid, signal);
        self.timers.set(LOGGER_ENDS, Timer::Logger(pid));
    }

    /// A logging program has ended: before the container, then its pipes are emptied in its place.
    pub(super) fn logger_ended(&mut self, pid: u32) {
        let Some(key) = self.loggers.remove(&pid) else { return };
        self.timers.cancel(&Timer::Logger(pid));
        let Some(process) = self.process_mut(&key) else { return };
        process.logger = None;
        let kept = std::mem::take(&mut process.kept);
        if process.state != State::Stopped {
            process.outputs += kept.len();
            self.log.warn(format_args!("the logging program of {} has ended before it", key.id()));
            for reader in kept {
                // A pipe without this would only block us, and it has no cause to refuse.
                let _ = rustix::io::ioctl_fionbio(&reader, true);
                self.add_stream(key.clone(), Channel::Stdout, Pump::new(reader, Sink::Discard));
            }
        }
        self.drained(&key);
    }

    fn adopt_output(&mut self, key: &ProcessKey, output: crate::stdio::output::Output) -> u64 {
        let number = self.poll.number();
        let listener = match self.watch(output.as_fd(), Target::Attach(number)) {
            Ok(listener) => listener,
            Err(error) => {
                self.log.error(format_args!("nobody can attach to {}: {error}", key.id()));
                0
            }
        };
        if let Some(fd) = output.feed_fd()
            && let Err(error) = self.watch(fd, Target::Feed(number))
        {
            self.log.error(format_args!("cannot watch the input of {}: {error}", key.id()));
        }
        self.outputs.insert(number, Box::new(Recorded { owner: key.clone(), output, listener }));
        number
    }

    /// Clients come to an attach socket.
    pub(super) fn attach(&mut self, output: u64) {
        while let Some(socket) = self.outputs.get(&output).and_then(|recorded| recorded.output.accept()) {
            match self.watch(&socket, Target::Attached(output)) {
                Ok(number) => {
                    if let Some(recorded) = self.outputs.get_mut(&output) {
                        recorded.output.admit(number, socket);
                    }
                }
                Err(error) => self.log.error(format_args!("cannot watch an attached client: {error}")),
            }
        }
    }

    pub(super) fn serve_attached(&mut self, output: u64, number: u64) {
        let Some(recorded) = self.outputs.get_mut(&output) else { return };
        let owner = recorded.owner.clone();
        if recorded.output.serve(number) == Fate::Gone {
            // Its descriptor is closed, and with it the watch.
            self.targets.remove(&number);
        }
        self.drop_closed_feed(output);
        self.let_go(output);
        // Whoever it held up may go on.
        let waiting = self.streams_of(&owner, |channel| channel != Channel::Stdin);
        self.again.extend(waiting);
    }

    /// The container takes input again.
    pub(super) fn feed(&mut self, output: u64) {
        let Some(recorded) = self.outputs.get_mut(&output) else { return };
        if recorded.output.pour() {
            for client in recorded.output.everybody() {
                self.serve_attached(output, client);
            }
        }
        self.drop_closed_feed(output);
    }

    /// Ends the container's input from attached clients.
    pub(crate) fn close_feed(&mut self, output: u64) {
        if let Some(recorded) = self.outputs.get_mut(&output) {
            recorded.output.close_input();
        }
        self.drop_closed_feed(output);
    }

    fn drop_closed_feed(&mut self, output: u64) {
        if self.outputs.get(&output).is_none_or(|recorded| recorded.output.feed_fd().is_none()) {
            self.targets.retain(|_, target| !matches!(target, Target::Feed(of) if *of == output));
        }
    }

    /// Lets clients go that have been sent everything.
    fn let_go(&mut self, output: u64) {
        let Some(recorded) = self.outputs.get_mut(&output) else { return };
        for number in recorded.output.leaving() {
            if let Some(fd) = recorded.output.client_fd(number) {
                self.poll.forget(fd);
            }
            self.targets.remove(&number);
            recorded.output.dismiss(number);
        }
    }

    /// Forgets the output of a deleted process.
    pub(crate) fn discard_output(&mut self, number: u64) {
        let Some(recorded) = self.outputs.remove(&number) else { return };
        self.targets.remove(&recorded.listener);
        if let Some(feed) = recorded.output.feed_fd() {
            self.poll.forget(feed);
        }
        for client in recorded.output.everybody() {
            self.targets.remove(&client);
        }
        self.drop_closed_feed(number);
        if recorded.output.lost() > 0 {
            let lost = recorded.output.lost();
            self.log.warn(format_args!("{lost} bytes of {}'s output are lost", recorded.owner.id()));
        }
    }

    /// A process, if it is there.
    pub(crate) fn process_mut(&mut self, key: &ProcessKey) -> Option<&mut super::task::Process> {
        self.tasks.get_mut(&key.container)?.process_mut(&key.exec).ok()
    }
}
