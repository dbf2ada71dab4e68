//! The undo stack of an operation with many steps.

use std::future::Future;
use std::pin::Pin;

use berth_types::{Error, Result};

type Undo = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send>;

/// What to undo, newest first, if a later step fails. Dropping it undoes nothing: whoever made
/// it says [`Rollback::commit`] or awaits [`Rollback::undo`].
#[derive(Default)]
pub struct Rollback {
    steps: Vec<(&'static str, Undo)>,
}

impl Rollback {
    /// Remembers how to undo a step that just succeeded; `what` names it if undoing fails.
    pub fn push<F, U>(&mut self, what: &'static str, undo: U)
    where
        F: Future<Output = Result<()>> + Send + 'static,
        U: FnOnce() -> F + Send + 'static,
    {
        self.steps.push((what, Box::new(move || Box::pin(undo()))));
    }

    /// Keeps what was done.
    pub fn commit(mut self) {
        self.steps.clear();
    }

    /// Undoes every step, newest first, going on past failures; answers the failures by name.
    pub async fn undo(mut self) -> Vec<(&'static str, Error)> {
        let mut failures = Vec::new();
        while let Some((what, undo)) = self.steps.pop() {
            if let Err(error) = undo().await {
                failures.push((what, error));
            }
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn undo_goes_backwards_and_past_failures() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut rollback = Rollback::default();
        for (name, fails) in [("first", false), ("second", true), ("third", false)] {
            let order = Arc::clone(&order);
            rollback.push(name, move || async move {
                order.lock().unwrap().push(name);
                if fails { Err(Error::internal("no")) } else { Ok(()) }
            });
        }
        let failures = rollback.undo().await;
        assert_eq!(*order.lock().unwrap(), ["third", "second", "first"]);
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].0, "second");
    }
}
