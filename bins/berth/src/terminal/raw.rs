//! The own terminal.

use std::io;

use berth_types::TerminalSize;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Whether standard input is a terminal.
pub(crate) fn is_terminal() -> bool {
    isatty(io::stdin())
}

/// The size of the terminal, from whichever of the streams is one.
pub(crate) fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    let size = TerminalSize { width: size.ws_col.into(), height: size.ws_row.into() };
    (size.width > 0 && size.height > 0).then_some(size)
}

/// Standard input in raw mode, until dropped: whichever way the command ends, also by a panic, the terminal is what
/// it was. (Signals that would end the process are caught while it is raw.)
pub(crate) struct Raw(Termios);

impl Raw {
    /// Makes standard input raw; none if it is no terminal.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        if !is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // With the terminal gone there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
