//! A container's streams on this terminal: raw mode, size, signals, and the copies in both directions.

mod fifos;
mod foreground;
mod raw;
mod session;
mod signals;

pub(crate) use fifos::Fifos;
pub(crate) use foreground::{Ended, Foreground, awaited};
pub(crate) use raw::{Raw, is_terminal, size};
pub(crate) use session::{Session, Wanted};
