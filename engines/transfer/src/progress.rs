//! What an operation tells about itself while it goes on.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

/// What an object of an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// A name that is looked up.
    Reference,
    /// An index or a manifest.
    Document,
    /// A configuration.
    Config,
    /// A layer.
    Layer,
    /// A file of an archive of which nothing else is known yet.
    File,
}

/// Where an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Its turn comes later.
    Waiting,
    /// Bytes flow; `offset` says how many have.
    Transferring,
    /// It was there already.
    Exists,
    /// Its bytes are complete and verified.
    Complete,
    /// It is being applied to a snapshot.
    Unpacking,
    /// Its snapshot is committed.
    Unpacked,
}

/// One step of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// A digest, a reference or a file's path: the same in every event of the object.
    pub name: Arc<str>,
    /// What it is.
    pub object: Object,
    /// Where it is.
    pub state: State,
    /// Bytes so far.
    pub offset: u64,
    /// Bytes in all, 0 when nobody knows.
    pub total: u64,
}

/// Where progress goes. Nobody has to listen, and a listener that is gone stops nothing.
#[derive(Clone, Debug, Default)]
pub struct Reporter(Option<UnboundedSender<Progress>>);

impl Reporter {
    /// To a channel. Events come at most once for each mebibyte, so that the channel stays short.
    pub fn to(sender: UnboundedSender<Progress>) -> Self {
        Self(Some(sender))
    }

    /// To nobody.
    pub fn none() -> Self {
        Self(None)
    }

    /// Tells of a step that somebody else takes.
    pub fn tell(&self, progress: Progress) {
        if let Some(sender) = &self.0 {
            // A listener that is gone is no reason to stop.
            drop(sender.send(progress));
        }
    }

    pub(crate) fn object(&self, name: impl Into<Arc<str>>, object: Object, total: u64) -> Reported {
        Reported { reporter: self.clone(), name: name.into(), object, total }
    }
}

/// One object's way to its listener.
#[derive(Clone, Debug)]
pub(crate) struct Reported {
    reporter: Reporter,
    name: Arc<str>,
    object: Object,
    total: u64,
}

impl Reported {
    pub(crate) fn at(&self, state: State, offset: u64) {
        let Self { reporter, name, object, total } = self;
        reporter.tell(Progress { name: Arc::clone(name), object: *object, state, offset, total: *total });
    }

    /// The whole object is in this state.
    pub(crate) fn whole(&self, state: State) {
        self.at(state, self.total);
    }
}
