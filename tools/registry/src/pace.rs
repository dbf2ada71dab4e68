//! Whether a body comes fast enough to be waited for. A host that is silent is found by the client's own deadline; one
//! that sends a byte a second never is.

use std::time::{Duration, Instant};

use berth_types::{Error, Result};

use crate::config::Config;

/// Counts the bytes of a body.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    least: u64,
    window: Duration,
    since: Instant,
    seen: u64,
}

impl Pace {
    pub(crate) fn of(config: &Config) -> Self {
        Self { least: config.least, window: config.read_timeout, since: Instant::now(), seen: 0 }
    }

    /// Counts what came; fails when it was too little for too long. Whether the pace was kept is answered once a
    /// window.
    pub(crate) fn count(&mut self, bytes: usize) -> Result<bool> {
        self.seen += bytes as u64;
        if self.since.elapsed() < self.window {
            return Ok(false);
        }
        if self.seen < self.least {
            let Self { seen, window, .. } = self;
            return Err(Error::unavailable(format!("too slow: {seen} bytes in {} s", window.as_secs_f32())));
        }
        (self.since, self.seen) = (Instant::now(), 0);
        Ok(true)
    }
}
