//! Transfers that move nothing: they write down what they were asked, read and write what a test wants, and wait for
//! their requester to go where a test says so.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use berth_core::{
    ExportArchive, ImageStore, ImportArchive, Login, RegistryEnd, Requester, Transcript, TransferStep,
    Transfers, UnpackInto,
};
use berth_types::{Descriptor, Error, Result};
use tokio::sync::{Notify, watch};

/// What there was to do.
#[derive(Default)]
pub(crate) struct Moved {
    pub(crate) asked: Mutex<Vec<String>>,
    /// The bytes of the last archive that came in.
    pub(crate) imported: Mutex<Vec<u8>>,
    /// An import of the image `slow` reads when this is notified.
    pub(crate) may_read: Notify,
    /// How many transfers have come to their end.
    pub(crate) ended: watch::Sender<usize>,
    /// How many wait for their requester to go.
    pub(crate) waiting: watch::Sender<usize>,
}

/// How much an export writes.
pub(crate) const EXPORTED: usize = 300_000;

/// One transfer's handle.
pub(crate) struct Mover(pub(crate) Arc<Moved>);

impl Mover {
    fn note(&self, what: impl Debug) {
        self.0.asked.lock().unwrap().push(format!("{what:?}"));
    }

    fn end(&self) {
        self.0.ended.send_modify(|count| *count += 1);
    }
}

fn named(store: &ImageStore) -> &str {
    store.name.as_ref().map_or("", |name| name.as_str())
}

fn step(event: &str) -> TransferStep {
    TransferStep {
        event: event.to_owned(),
        progress: 7,
        parents: vec!["p".into()],
        ..TransferStep::default()
    }
}

#[async_trait]
impl Transfers for Mover {
    async fn import(&self, from: ImportArchive, to: ImageStore, requester: &dyn Requester) -> Result<()> {
        self.note((&to, from.plain));
        if named(&to) == "slow" {
            self.0.may_read.notified().await;
        }
        let mut archive = from.archive;
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            archive.read_to_end(&mut bytes).map(|_| bytes)
        });
        let read = reading.await.unwrap().map_err(|source| Error::io("cannot read", source));
        requester.tell(step("read")).await;
        self.end();
        *self.0.imported.lock().unwrap() = read?;
        Ok(())
    }

    async fn export(&self, from: ImageStore, to: ExportArchive, _requester: &dyn Requester) -> Result<()> {
        self.note((&from, &to.platforms, to.without_manifest_json, to.without_foreign_layers));
        let mut archive = to.archive;
        let writing = tokio::task::spawn_blocking(move || {
            let bytes: Vec<u8> = (0..EXPORTED).map(|at| (at % 251) as u8).collect();
            archive.write_all(&bytes)
        });
        let written = writing.await.unwrap().map_err(|source| Error::io("cannot write", source));
        self.end();
        written
    }

    async fn pull(&self, from: RegistryEnd, to: ImageStore, requester: &dyn Requester) -> Result<()> {
        let RegistryEnd { reference, headers, hosts, plain_http, logins, transcript } = from;
        if let Some(Transcript { detail, reader }) = transcript {
            for number in 0..3 {
                reader.read(format!("{detail:?} {number}\r\n")).await;
            }
        }
        self.note((reference.to_string(), headers, hosts, plain_http));
        if let Some(logins) = logins {
            if named(&to) == "hasty" {
                // Asks about another host and does not wait for the answer.
                assert!(futures::poll!(logins.login("other.test")).is_pending());
            }
            self.note(match logins.login("reg.test").await? {
                Some(Login::Password { user, password }) => format!("{user} {password}"),
                Some(Login::Refresh(token)) => format!("refresh {token}"),
                Some(Login::Bearer(token)) => format!("bearer {token}"),
                None => "nobody".to_owned(),
            });
        }
        if named(&to) == "waits" {
            self.0.waiting.send_modify(|count| *count += 1);
            requester.gone().await;
        }
        for event in ["first", "last"] {
            requester.tell(step(event)).await;
        }
        self.end();
        Ok(())
    }

    async fn push(&self, from: ImageStore, to: RegistryEnd, _requester: &dyn Requester) -> Result<()> {
        self.note(("push", named(&from), to.reference.to_string()));
        Err(Error::unauthenticated("who are you?"))
    }

    async fn unpack(&self, target: &Descriptor, into: &UnpackInto) -> Result<()> {
        self.note((target, into));
        Ok(())
    }

    async fn tag(&self, from: ImageStore, to: ImageStore) -> Result<()> {
        self.note(("tag", named(&from), to.references));
        Ok(())
    }
}
