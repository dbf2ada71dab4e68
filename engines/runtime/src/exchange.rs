//! The exchange: one place through which every event goes, in one order.
//!
//! A publisher never waits: each subscriber has a bounded queue, and one whose queue is full when its
//! next event comes is cut off: it reads what was queued, then an error, then the end.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use async_trait::async_trait;
use berth_core::{EventStream, Events};
use berth_types::filter::Filters;
use berth_types::{ContainerId, Envelope, Error, Event, Namespace, Result};
use futures::stream;
use tokio::sync::mpsc;

/// Events that a subscriber may be behind. A hundred containers started at once tell a few thousand.
const BEHIND: usize = 8192;

/// Takes note of events, before any subscriber sees them, without waiting for anything.
pub(crate) type Note = Box<dyn Fn(&Envelope) + Send + Sync>;

/// The daemon's events.
#[derive(Default)]
pub struct Exchange {
    subscribers: Mutex<Vec<Subscriber>>,
    note: RwLock<Option<Note>>,
}

struct Subscriber {
    filters: Filters,
    queue: mpsc::Sender<Arc<Envelope>>,
    cut: Arc<AtomicBool>,
}

/// The reader's end of a subscription.
struct Reader {
    queue: mpsc::Receiver<Arc<Envelope>>,
    cut: Arc<AtomicBool>,
}

impl Exchange {
    /// An exchange without subscribers.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Has every event noted; the last one to ask is the only one.
    pub(crate) fn note(&self, note: Note) {
        *self.note.write().unwrap_or_else(PoisonError::into_inner) = Some(note);
    }

    /// Hands an event to every subscriber whose filters it passes. Never waits, so it can be called from
    /// anywhere.
    pub fn tell(&self, namespace: &Namespace, event: Event) -> Result<()> {
        self.distribute(Envelope { timestamp: SystemTime::now(), namespace: namespace.clone(), event })
    }

    fn distribute(&self, envelope: Envelope) -> Result<()> {
        check_topic(envelope.event.topic())?;
        if let Some(note) = &*self.note.read().unwrap_or_else(PoisonError::into_inner) {
            note(&envelope);
        }
        // The lock makes one order for all; nothing below waits.
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        if subscribers.is_empty() {
            return Ok(());
        }
        let envelope = Arc::new(envelope);
        subscribers.retain(|subscriber| subscriber.offer(&envelope));
        Ok(())
    }
}

impl Subscriber {
    /// Queues an event; `false` when the subscriber has gone or must be cut off.
    fn offer(&self, envelope: &Arc<Envelope>) -> bool {
        if !self.filters.matches(envelope.as_ref()) {
            return !self.queue.is_closed();
        }
        match self.queue.try_send(Arc::clone(envelope)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.cut.store(true, Ordering::Release);
                false
            }
        }
    }
}

#[async_trait]
impl Events for Exchange {
    async fn publish(&self, namespace: &Namespace, event: Event) -> Result<()> {
        self.tell(namespace, event)
    }

    async fn forward(&self, envelope: Envelope) -> Result<()> {
        if envelope.timestamp == SystemTime::UNIX_EPOCH {
            return Err(Error::invalid_argument(format!(
                "the timestamp of forwarded event {} must be set",
                envelope.event.topic()
            )));
        }
        self.distribute(envelope)
    }

    async fn subscribe(&self, filters: Filters) -> Result<EventStream> {
        let (sender, queue) = mpsc::channel(BEHIND);
        let cut = Arc::new(AtomicBool::new(false));
        let subscriber = Subscriber { filters, queue: sender, cut: Arc::clone(&cut) };
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(subscriber);
        Ok(Box::pin(stream::unfold(Some(Reader { queue, cut }), next)))
    }
}

/// The next event; after the last one of a subscriber that was cut off, the reason; then the end.
async fn next(reader: Option<Reader>) -> Option<(Result<Envelope>, Option<Reader>)> {
    let mut reader = reader?;
    match reader.queue.recv().await {
        Some(envelope) => Some((Ok(Arc::unwrap_or_clone(envelope)), Some(reader))),
        None if reader.cut.load(Ordering::Acquire) => {
            let error = Error::resource_exhausted(format!(
                "the subscriber fell {BEHIND} events behind and was cut off; subscribe again and look anew"
            ));
            Some((Err(error), None))
        }
        None => None,
    }
}

/// containerd's rule for topics: `/`, then identifiers separated by single slashes.
fn check_topic(topic: &str) -> Result<()> {
    let rest = topic.strip_prefix('/').ok_or_else(|| {
        Error::invalid_argument(format!("event topic {topic:?} must start with '/' and name something"))
    })?;
    for component in rest.split('/') {
        component.parse::<ContainerId>().map_err(|source| {
            Error::invalid_argument(format!(
                "event topic {topic:?}: component {component:?} is not an identifier"
            ))
            .caused_by(source)
        })?;
    }
    Ok(())
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use berth_types::{Any, ErrorKind};
    use futures::StreamExt;

    use super::*;

    fn foreign(topic: &str) -> Event {
        Event::Foreign { topic: topic.to_owned(), event: Any::new("x", []) }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn subscribers_see_what_passes_their_filters_in_order() {
        let exchange = Exchange::new();
        let namespace: Namespace = "a".parse().unwrap();
        let all = exchange.subscribe(Filters::default()).await.unwrap();
        let some = exchange.subscribe(Filters::parse(&["topic~=^/two"]).unwrap()).await.unwrap();
        for topic in ["/one", "/two/x", "/three"] {
            exchange.publish(&namespace, foreign(topic)).await.unwrap();
        }
        let topics = |found: Vec<Result<Envelope>>| -> Vec<String> {
            found.into_iter().map(|one| one.unwrap().event.topic().to_owned()).collect()
        };
        assert_eq!(topics(all.take(3).collect().await), ["/one", "/two/x", "/three"]);
        assert_eq!(topics(some.take(1).collect().await), ["/two/x"]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_slow_subscriber_is_cut_off_with_a_reason_and_holds_nobody_up() {
        let exchange = Exchange::new();
        let namespace: Namespace = "a".parse().unwrap();
        let slow = exchange.subscribe(Filters::default()).await.unwrap();
        for _ in 0..=BEHIND {
            exchange.publish(&namespace, foreign("/x")).await.unwrap();
        }
        let found: Vec<_> = slow.collect().await;
        assert_eq!(found.len(), BEHIND + 1);
        let last = found.last().unwrap().as_ref().unwrap_err();
        assert_eq!(last.kind(), ErrorKind::ResourceExhausted);
        assert!(exchange.subscribers.lock().unwrap().is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_subscriber_that_left_is_forgotten() {
        let exchange = Exchange::new();
        drop(exchange.subscribe(Filters::default()).await.unwrap());
        exchange.publish(&"a".parse().unwrap(), foreign("/x")).await.unwrap();
        assert!(exchange.subscribers.lock().unwrap().is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn topics_and_times_are_checked_as_containerd_does() {
        let exchange = Exchange::new();
        let namespace: Namespace = "a".parse().unwrap();
        for bad in ["", "x", "/", "//x", "/x/", "/x y", "/ä"] {
            let error = exchange.publish(&namespace, foreign(bad)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
        let timeless = Envelope { timestamp: SystemTime::UNIX_EPOCH, namespace, event: foreign("/x") };
        assert_eq!(exchange.forward(timeless).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
