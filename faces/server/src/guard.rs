//! What stands around every request: a panic in it becomes an answer, a message too long is refused with the code
//! that Go's gRPC uses, and what failed is in the log at level debug.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Status};

use crate::mutations::panicked;

/// How tonic begins the text of its OutOfRange for a message over the limit. It has no other sign of it; a test
/// watches over the words.
const TOO_LONG: &str = "Error, decoded message length too large";

/// A service within the guard.
#[derive(Clone)]
pub(crate) struct Guard<S>(pub(crate) S);

type Answer<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<S, B> Service<http::Request<B>> for Guard<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let serving = self.0.call(request);
        Box::pin(async move {
            let response = match AssertUnwindSafe(serving).catch_unwind().await {
                Ok(response) => response?,
                Err(_) => panicked().into_http(),
            };
            Ok(checked(&path, response))
        })
    }
}

/// Looks at an answer that failed before its first message, which is where statuses of unary calls are.
fn checked(path: &str, response: http::Response<Body>) -> http::Response<Body> {
    if !response.headers().contains_key("grpc-status") {
        return response;
    }
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    if status.code() != Code::Ok {
        tracing::debug!(method = path, code = ?status.code(), error = status.message(), "request failed");
    }
    match too_long(&status) {
        Some(status) => status.into_http(),
        None => response,
    }
}

/// The status for a message over the limit, if that is what `status` says.
pub(crate) fn too_long(status: &Status) -> Option<Status> {
    let found = status.code() == Code::OutOfRange && status.message().starts_with(TOO_LONG);
    let mut numbers = status.message().split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    found.then(|| {
        let (length, limit) = (numbers.next().unwrap_or("?"), numbers.next().unwrap_or("?"));
        Status::resource_exhausted(format!("grpc: received message larger than max ({length} vs. {limit})"))
    })
}
