//! `containerd.services.transfer.v1.Transfer`: what it does follows from the types of source and destination.
//!
//! | from | to | |
//! |---|---|---|
//! | `ImageImportStream` | `ImageStore` | import |
//! | `ImageStore` | `ImageExportStream` | export |
//! | `OCIRegistry` | `ImageStore` | pull |
//! | `ImageStore` | `OCIRegistry` | push |
//! | `ImageStore` | `ImageStore` | tag |
//! | `ImageImportStream` | `ImageExportStream` | the bytes as they are, as containerd does it |
//!
//! Everything else, containers' paths among it, is Unimplemented, as in containerd 2.3.
//!
//! A transfer runs in a task of its own, so that it can tidy up; it is told when its call has been dropped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use berth_core::{ExportArchive, ImageStore, ImportArchive, PlainLayers, RegistryEnd, Requester, Transfers};
use berth_proto as proto;
use berth_types::{Error, Result};
use futures::FutureExt;
use proto::containerd::services::transfer::v1::{TransferRequest, transfer_server};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::bytes::{LAST, Received, Sent};
use crate::ends::{End, Form};
use crate::headers::scope;
use crate::requester::Asker;
use crate::shared::{Shared, ok, required};
use crate::streaming::{Pipe, Pipes};
use crate::transcript::Bringing;

/// The service.
pub(crate) struct Transfer {
    pub(crate) shared: Shared,
    pub(crate) pipes: Pipes,
    /// True once the daemon is told to stop.
    pub(crate) stop: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl transfer_server::Transfer for Transfer {
    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<()>, Status> {
        let scope = scope(&request)?;
        let TransferRequest { source, destination, options } = request.into_inner();
        let progress = options.map(|options| options.progress_stream).filter(|id| !id.is_empty());
        let progress = ok(progress.map(|id| self.pipes.take(&scope.namespace, &id)).transpose())?;
        let (from, to) = (required("the source", source)?, required("the destination", destination)?);
        let unknown = || {
            let (from, to) = (&from.type_url, &to.type_url);
            Status::unimplemented(format!("method Transfer not implemented for {from} to {to}"))
        };
        let ends = (
            ok(End::read(from.clone(), &self.pipes, &scope))?,
            ok(End::read(to.clone(), &self.pipes, &scope))?,
        );
        let Some(job) = Job::between(ends) else { return Err(unknown()) };
        let Some(transfers) = self.shared.catalog.transfers(&scope) else { return Err(unknown()) };
        // The call is dropped with its client, and this with the call.
        let (_call, present) = watch::channel(());
        let stop = self.stop.clone();
        let (deaf, steps) = (AtomicBool::new(false), progress.map(|pipe| pipe.outgoing));
        let asker = Asker { steps, deaf, present, stop };
        let run = async move {
            let result = job.run(transfers, &asker).await;
            asker.last().await;
            result
        };
        self.shared.mutations.run(run).await
    }
}

/// What is to be done.
enum Job {
    Import { pipe: Pipe, plain: PlainLayers, to: ImageStore },
    Export { from: ImageStore, pipe: Pipe, form: Form },
    Pull { from: Box<RegistryEnd>, to: ImageStore, transcript: Option<Bringing> },
    Push { from: ImageStore, to: Box<RegistryEnd>, transcript: Option<Bringing> },
    Tag { from: ImageStore, to: ImageStore },
    Echo { from: Pipe, to: Pipe },
}

impl Job {
    fn between(ends: (End, End)) -> Option<Self> {
        Some(match ends {
            (End::Import { pipe, plain }, End::Store(to)) => Self::Import { pipe, plain, to },
            (End::Import { pipe: from, .. }, End::Export { pipe: to, .. }) => Self::Echo { from, to },
            (End::Store(from), End::Export { pipe, form }) => Self::Export { from, pipe, form },
            (End::Store(from), End::Registry(to, transcript)) => Self::Push { from, to, transcript },
            (End::Store(from), End::Store(to)) => Self::Tag { from, to },
            (End::Registry(from, transcript), End::Store(to)) => Self::Pull { from, to, transcript },
            _ => return None,
        })
    }

    async fn run(self, transfers: Arc<dyn Transfers>, asker: &dyn Requester) -> Result<()> {
        match self {
            Self::Import { pipe, plain, to } => {
                let (received, receiving) = Received::of(pipe);
                let from = ImportArchive { archive: Box::new(received), plain };
                // What is left of the stream when the import has ended is nobody's business.
                tokio::select! {
                    biased;
                    result = transfers.import(from, to, asker) => result,
                    never = receiving.then(|()| std::future::pending()) => never,
                }
            }
            Self::Export { from, pipe, form } => {
                let (sent, sending) = Sent::to(pipe);
                let Form { platforms, without_manifest_json, without_foreign_layers } = form;
                let archive = Box::new(sent);
                let to = ExportArchive { archive, platforms, without_manifest_json, without_foreign_layers };
                // A client that has gone makes no room for the rest.
                let sending = async {
                    tokio::select! { () = sending => {}, () = asker.gone() => {} }
                };
                tokio::join!(transfers.export(from, to, asker), sending).0
            }
            Self::Pull { from, to, transcript } => {
                read_along(transfers.pull(*from, to, asker), transcript).await
            }
            Self::Push { from, to, transcript } => {
                read_along(transfers.push(from, *to, asker), transcript).await
            }
            Self::Tag { from, to } => transfers.tag(from, to).await,
            Self::Echo { from, to } => echo(from, to).await,
        }
    }
}

/// A transfer, and what brings its transcript away. Once the transfer has ended the client takes what it has not had
/// yet, if it is quick.
async fn read_along(transfer: impl Future<Output = Result<()>>, transcript: Option<Bringing>) -> Result<()> {
    let Some(mut bringing) = transcript else { return transfer.await };
    let mut transfer = std::pin::pin!(transfer);
    tokio::select! {
        result = &mut transfer => {
            let _ = timeout(LAST, bringing).await;
            result
        }
        () = &mut bringing => transfer.await,
    }
}

/// Sends a client's bytes back.
async fn echo(from: Pipe, to: Pipe) -> Result<()> {
    let (mut received, receiving) = Received::of(from);
    let (mut sent, sending) = Sent::to(to);
    let copying = tokio::task::spawn_blocking(move || io::copy(&mut received, &mut sent).map(drop));
    let (copied, (), ()) = tokio::join!(copying, receiving, sending);
    copied
        .map_err(|error| Error::internal("the copy failed inside").caused_by(error))?
        .map_err(|source| Error::io("cannot copy the stream", source))
}
