//! How long a peer is listened to who says nothing.

use tokio::time::Instant;

/// Empty frames at once.
const MOST: f64 = 2000.0;
/// Empty frames that are forgotten in a second.
const FORGOTTEN: f64 = 100.0;

/// An account of frames that carry nothing: pings, settings, empty data, openings that are refused. Each costs
/// processor time and may ask for an answer, so a peer who sends them without end is left. Data earns them back,
/// for windows are updated as data goes.
#[derive(Debug)]
pub(crate) struct Patience {
    left: f64,
    since: Instant,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { left: MOST, since: Instant::now() }
    }

    /// Data went or came.
    pub(crate) fn earn(&mut self) {
        self.left = (self.left + 2.0).min(MOST);
    }

    /// A frame that carries nothing; false when that was one too many.
    pub(crate) fn spend(&mut self) -> bool {
        self.left -= 1.0;
        if self.left < MOST / 2.0 {
            let now = Instant::now();
            let passed = now.duration_since(self.since).as_secs_f64();
            self.left = (self.left + passed * FORGOTTEN).min(MOST);
            self.since = now;
        }
        self.left > 0.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn empty_frames_now_and_then_are_fine_for_ever_and_many_at_once_are_not() {
        let mut patience = Patience::new();
        for _ in 0..100_000 {
            tokio::time::advance(Duration::from_millis(50)).await;
            assert!(patience.spend());
        }
        let burst = (0..100_000).take_while(|_| patience.spend()).count();
        assert!(burst <= 2 * MOST as usize, "{burst}");
    }

    #[tokio::test(start_paused = true)]
    async fn data_earns_the_updates_of_its_windows() {
        let mut patience = Patience::new();
        for _ in 0..100_000 {
            patience.earn();
            assert!(patience.spend() && patience.spend());
        }
    }
}
