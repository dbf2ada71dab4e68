//! What every service holds, and the few steps that all of them share.

use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use berth_core::Catalog;
use berth_proto::prost::Message;
use berth_types::Error;
use futures::Stream;
use tonic::{Response, Status};

use crate::mutations::Mutations;

pub(crate) use berth_proto::status::answer as status;

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What every service holds.
#[derive(Clone)]
pub(crate) struct Shared {
    /// What is served.
    pub(crate) catalog: Arc<dyn Catalog>,
    /// The changes under way.
    pub(crate) mutations: Mutations,
    /// The longest answer, in bytes.
    pub(crate) max_send: usize,
}

impl Shared {
    /// An answer whose length grows with what is stored: refused as gRPC's Go server refuses it when too long.
    pub(crate) fn bounded<M: Message>(&self, message: M) -> Result<Response<M>, Status> {
        let length = message.encoded_len();
        if length > self.max_send {
            let text =
                format!("grpc: trying to send message larger than max ({length} vs. {})", self.max_send);
            return Err(Status::resource_exhausted(text));
        }
        Ok(Response::new(message))
    }
}

/// A value or the status of an error, for `?` in a service.
pub(crate) fn ok<T>(result: berth_types::Result<T>) -> Result<T, Status> {
    result.map_err(|error| status(&error))
}

/// A part of a request that must be there.
pub(crate) fn required<T>(what: &str, part: Option<T>) -> Result<T, Status> {
    ok(berth_proto::convert::required(what, part))
}

/// The name of something that is asked for. Like containerd, which looks before it validates, a name that
/// nothing can have is answered with NotFound.
pub(crate) fn existing<N: FromStr<Err = Error>>(what: &str, name: &str) -> Result<N, Status> {
    name.parse().map_err(|_| Status::not_found(format!("{what} {name:?}: not found")))
}

/// An optional name: empty is none.
pub(crate) fn optional<N: FromStr<Err = Error>>(name: &str) -> Result<Option<N>, Status> {
    if name.is_empty() { Ok(None) } else { ok(name.parse()).map(Some) }
}

/// A list as a stream of messages of at most a hundred records, as containerd sends it: no message for no record.
pub(crate) fn in_blocks<R, W, M>(records: Vec<R>, message: fn(Vec<W>) -> M) -> Answers<M>
where
    R: Into<W> + Send + 'static,
    W: Send + 'static,
    M: Send + 'static,
{
    const BLOCK: usize = 100;
    let mut records = records.into_iter();
    Box::pin(futures::stream::iter(std::iter::from_fn(move || {
        let block: Vec<W> = records.by_ref().take(BLOCK).map(Into::into).collect();
        (!block.is_empty()).then(|| Ok(message(block)))
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_have_named_is_not_found() {
        let missing = existing::<berth_types::LeaseId>("lease", "").unwrap_err();
        assert_eq!(missing.code(), tonic::Code::NotFound);
    }
}
