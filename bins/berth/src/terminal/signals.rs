//! Signals that are passed on, and changes of the terminal's size.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What would end or stop the command line, and what programs give a meaning of their own:
/// HUP INT QUIT USR1 USR2 ALRM TERM CONT TSTP.
const PROXIED: [i32; 9] = [1, 2, 3, 10, 12, 14, 15, 18, 20];
/// What ends it, when nothing is passed on.
const ENDING: [i32; 4] = [1, 2, 3, 15];

/// A signal by its number.
pub(super) type Heard = UnboundedReceiver<i32>;

/// The number of SIGWINCH.
pub(super) const WINCH: i32 = 28;

/// Listens from now on: to every signal that is passed on, or else to those that would end us, and with a terminal
/// to changes of its size.
pub(super) fn listen(proxy: bool, terminal: bool) -> io::Result<Heard> {
    let (heard, receiver) = unbounded_channel();
    for number in if proxy { &PROXIED[..] } else { &ENDING[..] } {
        forward(*number, &heard)?;
    }
    if terminal {
        forward(WINCH, &heard)?;
    }
    Ok(receiver)
}

fn forward(number: i32, to: &UnboundedSender<i32>) -> io::Result<()> {
    let mut stream = signal(SignalKind::from_raw(number))?;
    let to = to.clone();
    // Ends with the receiver, at the next signal at the latest; it holds nothing else.
    tokio::spawn(async move { while stream.recv().await.is_some() && to.send(number).is_ok() {} });
    Ok(())
}
