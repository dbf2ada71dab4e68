//! Work that may block, on a thread of its own for as long as it takes; its end is told to the loop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::children::{Children, Expectation};
use crate::serve::Shim;

/// What the loop does with a job's outcome.
pub(crate) type Finish = Box<dyn FnOnce(&mut Shim) + Send>;
type Work = Box<dyn FnOnce() -> Finish + Send>;

/// The runtime's deepest call needs a fraction of it; only touched pages count.
const STACK: usize = 512 << 10;

/// Starts jobs and collects their outcomes.
#[derive(Debug)]
pub(crate) struct Jobs {
    children: Children,
    wake: Arc<OwnedFd>,
    sender: Sender<Done>,
    receiver: Receiver<Done>,
}

struct Done {
    finish: Finish,
    /// Exits are kept until the outcome has been dealt with.
    expectation: Expectation,
}

impl Jobs {
    pub(crate) fn new(children: Children) -> std::io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, receiver) = mpsc::channel();
        Ok(Self { children, wake, sender, receiver })
    }

    /// Runs `work` beside the loop, and then what it gives on the loop.
    pub(crate) fn run(&self, work: impl FnOnce() -> Finish + Send + 'static) {
        let expectation = self.children.expect();
        let (sender, wake) = (self.sender.clone(), self.wake.clone());
        let work: Work = Box::new(work);
        // In a box that both sides can open: when there can be no thread, the loop does the work itself.
        let shared = Arc::new(Mutex::new(Some((work, expectation))));
        let job = {
            let shared = shared.clone();
            move || perform(&shared, &sender, &wake)
        };
        if std::thread::Builder::new().stack_size(STACK).spawn(job).is_err() {
            perform(&shared, &self.sender, &self.wake);
        }
    }

    /// The outcomes so far. Each is to be called, and then its expectation dropped.
    pub(crate) fn finished(&self) -> Vec<(Finish, Expectation)> {
        let mut count = [0; 8];
        // Nothing to read means only that nobody has woken us.
        let _ = rustix::io::read(&self.wake, &mut count);
        self.receiver.try_iter().map(|done| (done.finish, done.expectation)).collect()
    }
}

fn perform(shared: &Mutex<Option<(Work, Expectation)>>, sender: &Sender<Done>, wake: &OwnedFd) {
    let Some((work, expectation)) = shared.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    let finish = work();
    // Both fail only when the loop has ended, and then nobody asks.
    let _ = sender.send(Done { finish, expectation });
    let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
}

impl AsFd for Jobs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
