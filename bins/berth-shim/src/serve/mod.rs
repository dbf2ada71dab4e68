//! The shim at work: one thread, one loop, everything that it owns in one place.
//!
//! ```text
//!   ttrpc calls ─┐                        ┌─► answers
//!   SIGCHLD ─────┤                        ├─► events for the daemon
//!   streams ─────┼─► poll ─► Shim (state) ┼─► streams
//!   OOM news ────┤                        └─► jobs: threads for what may block
//!   jobs' ends ──┘                                  (making and deleting containers, mounts)
//! ```
//! Nothing here blocks. Whatever can end while nobody listens is kept: exits until they are asked for, events until
//! they are heard. What the maps hold is boxed: a node of a map has room for eleven values, used or not.

pub(crate) mod events;
mod exits;
pub(crate) mod poll;
mod streams;
pub(crate) mod task;
mod timers;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use berth_sys::signal::SignalFd;
use berth_ttrpc::server::{Call, Connection};
use prost::{Message, Name};

use self::events::{Publisher, Route, Wish};
use self::poll::Poll;
use self::streams::Stream;
use self::task::{ProcessKey, Recorded, Task};
use self::timers::{Timer, Timers};
use crate::children::Children;
use crate::jobs::Jobs;
use crate::log::Log;

/// How long the last events may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// What a shim is told at its start.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) namespace: String,
    pub(crate) route: Route,
    /// Our socket's file, to be removed in the end.
    pub(crate) socket: Option<PathBuf>,
    /// A folder with a short path.
    pub(crate) sockets: PathBuf,
    pub(crate) log: Log,
}

/// What is behind a number of the poll.
#[derive(Clone, Copy, Debug)]
enum Target {
    Listener,
    Signals,
    Jobs,
    Publisher,
    Connection,
    /// One side of the stream of that number.
    Stream(u64),
    /// The attach socket of the output of that number.
    Attach(u64),
    /// A client on it.
    Attached(u64),
    /// The way into the container of that output.
    Feed(u64),
    Oom,
}

/// The shim.
pub(crate) struct Shim {
    pub(crate) settings: Settings,
    pub(crate) children: Children,
    pub(crate) jobs: Jobs,
    pub(crate) tasks: BTreeMap<String, Box<Task>>,
    pub(crate) log: Log,
    poll: Poll,
    targets: BTreeMap<u64, Target>,
    listener: UnixListener,
    signals: SignalFd,
    connections: BTreeMap<u64, Box<Connection>>,
    publisher: Publisher,
    timers: Timers,
    /// Processes by number.
    pids: BTreeMap<u32, ProcessKey>,
    /// Logging programs by number, and whose they are.
    loggers: BTreeMap<u32, ProcessKey>,
    streams: BTreeMap<u64, Box<Stream>>,
    outputs: BTreeMap<u64, Box<Recorded>>,
    /// Streams that had more than one turn's worth.
    again: Vec<u64>,
    leaving: bool,
    over: bool,
}

impl Shim {
    /// Takes a listening socket. The signals are blocked already, before any thread.
    pub(crate) fn new(settings: Settings, listener: UnixListener, signals: SignalFd) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let children = Children::reaped_by_loop();
        let jobs = Jobs::new(children.clone())?;
        let mut shim = Self {
            children,
            jobs,
            tasks: BTreeMap::new(),
            log: settings.log,
            poll: Poll::new()?,
            targets: BTreeMap::new(),
            listener,
            signals,
            connections: BTreeMap::new(),
            publisher: Publisher::new(&settings.namespace, settings.route.clone()),
            timers: Timers::default(),
            pids: BTreeMap::new(),
            loggers: BTreeMap::new(),
            streams: BTreeMap::new(),
            outputs: BTreeMap::new(),
            again: Vec::new(),
            leaving: false,
            over: false,
            settings,
        };
        for (number, target) in [
            (shim.poll.watch(&shim.listener)?, Target::Listener),
            (shim.poll.watch(&shim.signals)?, Target::Signals),
            (shim.poll.watch(&shim.jobs)?, Target::Jobs),
        ] {
            shim.targets.insert(number, target);
        }
        Ok(shim)
    }

    /// Serves until told to shut down.
    pub(crate) fn serve(mut self) -> Result<()> {
        while !self.over {
            let timeout = if self.again.is_empty() { self.timers.next() } else { Some(Duration::ZERO) };
            for number in self.poll.wait(timeout)? {
                self.ready(number);
            }
            for number in std::mem::take(&mut self.again) {
                self.advance(number);
            }
            for timer in self.timers.due() {
                self.fire(timer);
            }
            if self.leaving && self.publisher.is_empty() {
                self.over = true;
            }
        }
        if self.publisher.dropped() > 0 {
            self.log.warn(format_args!("{} events never reached the daemon", self.publisher.dropped()));
        }
        Ok(())
    }

    fn ready(&mut self, number: u64) {
        let Some(target) = self.targets.get(&number).copied() else { return };
        match target {
            Target::Listener => self.accept(),
            Target::Signals => self.signalled(),
            Target::Jobs => self.collect(),
            Target::Publisher => self.publish(),
            Target::Connection => self.converse(number),
            Target::Stream(stream) => self.advance(stream),
            Target::Attach(output) => self.attach(output),
            Target::Attached(output) => self.serve_attached(output, number),
            Target::Feed(output) => self.feed(output),
            Target::Oom => self.look_for_oom(number),
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Drained(key) => self.give_up_on_output(&key),
            Timer::Logger(pid) => self.press_logger(pid),
            Timer::Publish => self.publish(),
            Timer::Leave => self.over = true,
        }
    }

    fn accept(&mut self) {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.log.error(format_args!("cannot accept a connection: {error}"));
                    break;
                }
            };
            // Whoever may enter the folder is trusted by its mode; this is the second lock.
            let peer = rustix::net::sockopt::socket_peercred(&socket);
            if peer.is_ok_and(|peer| peer.uid != rustix::process::geteuid()) {
                continue;
            }
            let connection = Box::new(Connection::new(socket));
            match self.poll.watch(&*connection) {
                Ok(number) => {
                    self.targets.insert(number, Target::Connection);
                    self.connections.insert(number, connection);
                    // What came before we watched is told by the first edge.
                }
                Err(error) => self.log.error(format_args!("cannot watch a connection: {error}")),
            }
        }
        // A daemon that connects is there to hear what it missed.
        self.publish();
    }

    fn converse(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let mut calls = Vec::new();
        let gone = connection.writable().is_err() | connection.readable(&mut calls).is_err();
        if gone && let Some(connection) = self.connections.remove(&number) {
            self.poll.forget(&*connection);
            self.targets.remove(&number);
        }
        for call in calls {
            self.call(call);
        }
        if gone {
            self.forget_waiters();
        }
    }

    /// A client that has gone hears of no end; its socket stays open as long as somebody means to tell it.
    fn forget_waiters(&mut self) {
        for task in self.tasks.values_mut() {
            let processes = task.execs.values_mut().map(|process| &mut **process);
            for process in processes.chain([&mut task.init]) {
                process.waiters.retain(|waiter| !waiter.is_gone());
            }
        }
    }

    /// Serves a call, now or when the one before it has ended.
    pub(crate) fn call(&mut self, call: Call) {
        crate::service::serve(self, call);
    }

    fn signalled(&mut self) {
        loop {
            match self.signals.next() {
                Ok(Some(libc::SIGCHLD)) => self.reap(),
                Ok(Some(_)) => {
                    self.log.debug("told to end by a signal");
                    self.leave();
                }
                Ok(None) => return,
                Err(error) => {
                    self.log.error(format_args!("cannot read signals: {error}"));
                    return;
                }
            }
        }
    }

    fn collect(&mut self) {
        for (finish, expectation) in self.jobs.finished() {
            finish(self);
            drop(expectation);
        }
        berth_sys::memory::trim();
    }

    /// Tells the daemon.
    pub(crate) fn tell<M: Message + Name>(&mut self, topic: &str, event: &M) {
        let was_idle = self.publisher.is_empty();
        self.publisher.push(topic, event);
        if was_idle {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let wish = self.publisher.go();
        self.grant(wish);
    }

    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Nothing => {}
            Wish::Watch => {
                let Some(fd) = self.publisher.connection() else { return };
                match self.poll.watch(fd) {
                    Ok(number) => {
                        self.targets.retain(|_, target| !matches!(target, Target::Publisher));
                        self.targets.insert(number, Target::Publisher);
                    }
                    Err(error) => self.log.error(format_args!("cannot watch the daemon's socket: {error}")),
                }
            }
            Wish::Later(after) => {
                self.timers.cancel(&Timer::Publish);
                self.timers.set(after, Timer::Publish);
            }
            Wish::Run { topic, input } => self.run_publisher(topic, input),
        }
    }

    fn run_publisher(&self, topic: String, input: Vec<u8>) {
        let Route::Program { program, address } = self.publisher.route().clone() else { return };
        let (children, namespace) = (self.children.clone(), self.settings.namespace.clone());
        self.jobs.run(move || {
            let result = crate::publish::run(&children, &program, &address, &topic, &namespace, &input);
            Box::new(move |shim| {
                if let Err(error) = &result {
                    shim.log.error(error.chain());
                }
                let wish = shim.publisher.ran(result.is_ok());
                shim.grant(wish);
            })
        });
    }

    /// Ends, once the daemon has heard everything or has had its time. Its address is free at once: whoever wants a shim
    /// of this group meanwhile makes another.
    pub(crate) fn leave(&mut self) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        self.timers.set(FAREWELL, Timer::Leave);
        if let Some(socket) = self.settings.socket.take() {
            // Already gone is as good.
            let _ = std::fs::remove_file(socket);
        }
    }

    /// Whether nothing can begin here any more.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Watches something under a target.
    fn watch(&mut self, fd: impl AsFd, target: Target) -> std::io::Result<u64> {
        let number = self.poll.watch(fd)?;
        self.targets.insert(number, target);
        Ok(number)
    }
}
