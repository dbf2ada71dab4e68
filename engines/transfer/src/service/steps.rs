//! What an operation tells of itself, in containerd's words: the tree of an image's content, with the state of each
//! part.
//!
//! The engine names parts by their digests. Whose parts they are is read from the documents, as soon as they are
//! there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use berth_core::{ContentStore, Requester, TransferStep};
use berth_oci::image::{Document, media};
use berth_types::{Descriptor, Digest, Result};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use crate::content;
use crate::graph::{self, Limits};
use crate::import::REF_NAME;
use crate::progress::{Object, Progress, Reporter, State};
use crate::pull::reference;

/// How often bytes that flow are told of.
const TICK: Duration = Duration::from_millis(100);

/// Tells a requester how far an image is.
pub(super) struct Steps<'a> {
    requester: &'a dyn Requester,
    content: Arc<dyn ContentStore>,
    /// The image's name, under which the tree hangs.
    root: String,
    /// What flowing bytes are called.
    flowing: &'static str,
    parts: HashMap<String, Part>,
    /// Parts whose bytes have flowed since the last tick.
    moved: HashMap<String, Progress>,
}

struct Part {
    target: Descriptor,
    name: String,
    parents: Vec<String>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(
        requester: &'a dyn Requester,
        content: Arc<dyn ContentStore>,
        root: String,
        flowing: &'static str,
    ) -> Self {
        Self { requester, content, root, flowing, parts: HashMap::new(), moved: HashMap::new() }
    }

    /// Runs an operation with a reporter, and tells until it has ended.
    pub(super) async fn during<T, F>(mut self, work: impl FnOnce(Reporter) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        if !self.requester.listens() {
            return work(Reporter::none()).await;
        }
        let (sender, events) = unbounded_channel();
        let (result, ()) = tokio::join!(work(Reporter::to(sender)), self.tell(events));
        result
    }

    /// Learns the whole tree of an image that is here.
    pub(super) async fn learn(&mut self, root: &Descriptor) {
        if !self.requester.listens() {
            return;
        }
        self.add(root.clone(), None);
        let mut left = vec![root.clone()];
        while let Some(document) = left.pop() {
            if self.parts.len() > Limits::default().nodes {
                return;
            }
            left.extend(self.children(&document).await);
        }
    }

    async fn tell(&mut self, mut events: UnboundedReceiver<Progress>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) if event.object == Object::Reference => {}
                    Some(event) if event.state == State::Transferring => {
                        self.moved.insert(event.name.to_string(), event);
                    }
                    Some(event) => {
                        self.moved.remove(&*event.name);
                        if event.object == Object::Document {
                            self.read(&event).await;
                        }
                        self.pass_on(&event).await;
                    }
                    None => return,
                },
                _ = ticks.tick() => {
                    for (_, event) in std::mem::take(&mut self.moved) {
                        self.pass_on(&event).await;
                    }
                }
            }
        }
    }

    /// A document that has come: from now on its parts are known.
    async fn read(&mut self, event: &Progress) {
        let known = self.parts.get(&*event.name).map(|part| part.target.clone());
        let document = if let Some(document) = known {
            document
        } else {
            let Ok(digest) = event.name.parse::<Digest>() else { return };
            let Some(root) = self.root_document(digest).await else { return };
            self.add(root.clone(), None);
            root
        };
        self.children(&document).await;
    }

    /// The document that nothing lists, whose type nobody has said.
    async fn root_document(&self, digest: Digest) -> Option<Descriptor> {
        let data = berth_core::read_blob(&*self.content, &digest, Limits::default().document).await.ok()?;
        let value: serde_json::Value = serde_json::from_slice(&data).ok()?;
        let guess = if value["manifests"].is_array() { media::OCI_INDEX } else { media::OCI_MANIFEST };
        let media_type = value["mediaType"].as_str().unwrap_or(guess);
        Some(Descriptor::new(media_type, digest, data.len() as u64))
    }

    /// Adds the parts of a document and answers those that are documents themselves.
    async fn children(&mut self, document: &Descriptor) -> Vec<Descriptor> {
        if !graph::is_document(&document.media_type) {
            return Vec::new();
        }
        // A document that cannot be read is the operation's to complain of.
        let Ok(data) = content::document(&*self.content, document, Limits::default().document).await else {
            return Vec::new();
        };
        let Ok(parsed) = Document::parse(&document.media_type, &data) else { return Vec::new() };
        let children = graph::children(parsed);
        let mut new = Vec::new();
        for child in children {
            if self.add(child.clone(), Some(document)) {
                new.push(child);
            }
        }
        new.retain(|child| graph::is_document(&child.media_type));
        new
    }

    /// Adds a part; false for one that is known, which gets one more parent.
    fn add(&mut self, target: Descriptor, parent: Option<&Descriptor>) -> bool {
        let parent = match parent {
            Some(parent) => name(parent),
            None => self.root.clone(),
        };
        let mut new = false;
        let key = target.digest.to_string();
        let part = self.parts.entry(key).or_insert_with(|| {
            new = true;
            Part { name: name(&target), target, parents: Vec::new() }
        });
        if !part.parents.contains(&parent) {
            part.parents.push(parent);
        }
        new
    }

    async fn pass_on(&self, event: &Progress) {
        let Some(Part { target, name, parents }) = self.parts.get(&*event.name) else { return };
        let word = match event.state {
            State::Waiting => "waiting",
            State::Transferring => self.flowing,
            State::Exists => "already exists",
            State::Complete => "complete",
            State::Unpacking => "extracting",
            State::Unpacked => "extracted",
        };
        self.requester
            .tell(TransferStep {
                event: word.to_owned(),
                name: name.clone(),
                parents: parents.clone(),
                progress: event.offset,
                total: event.total,
                target: Some(target.clone()),
            })
            .await;
    }
}

/// The reference of its ingest; containerd puts the tag of an image from an archive before its digest.
fn name(part: &Descriptor) -> String {
    let Ok(name) = reference(part) else { return part.digest.to_string() };
    match (part.annotations.get(REF_NAME), name.as_str().split_once('-')) {
        (Some(tag), Some((kind, digest))) => format!("{kind}-{tag}@{digest}"),
        _ => name.to_string(),
    }
}
