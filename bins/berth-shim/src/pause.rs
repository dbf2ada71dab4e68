//! The first process of a pod whose containers share their process ids: it sleeps, and takes in what loses its parent.

use std::process::ExitCode;

use berth_sys::signal::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, WaitOptions, wait};

/// The name under which this program is one.
pub(crate) const NAME: &str = "pause";

/// Sleeps until it is asked to end.
pub(crate) fn pause() -> ExitCode {
    let ending = [Signal::INT.as_raw(), Signal::TERM.as_raw()];
    let signals = match SignalFd::block(&[Signal::CHILD.as_raw(), ending[0], ending[1]]) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("{NAME}: cannot listen to signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    loop {
        // A failure is an interruption, and the next turn looks again.
        let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
        while let Ok(Some(signal)) = signals.next() {
            if ending.contains(&signal) {
                return ExitCode::SUCCESS;
            }
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}
