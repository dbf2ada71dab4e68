//! What stands around every request: a panic in it becomes an answer, a message too long and a time that has run out are
//! told with the codes that Go's gRPC uses, and what failed is in the log at level debug.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

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
        let time = time_of(request.headers());
        // tonic ends a request in time too, but as Cancelled; its clock starts after this one.
        let end = time.map(tokio::time::sleep);
        let serving = AssertUnwindSafe(self.0.call(request)).catch_unwind();
        Box::pin(async move {
            let answer = match end {
                None => serving.await,
                Some(end) => tokio::select! {
                    biased;
                    answer = serving => answer,
                    () = end => Ok(Ok(Status::deadline_exceeded("context deadline exceeded").into_http())),
                },
            };
            let response = match answer {
                Ok(response) => response?,
                Err(_) => panicked().into_http(),
            };
            Ok(checked(&path, response))
        })
    }
}

/// How long the client waits: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn time_of(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = digits.parse::<u64>().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_hours(number),
        "M" => Duration::from_mins(number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn times_have_units() {
        let time = |text: &'static str| {
            time_of(
                &[(http::HeaderName::from_static("grpc-timeout"), http::HeaderValue::from_static(text))]
                    .into_iter()
                    .collect(),
            )
        };
        assert_eq!(time("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(time("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(time("7n"), Some(Duration::from_nanos(7)));
        for text in ["", "m", "5", "5x", "-5m", "999999999m"] {
            assert_eq!(time(text), None, "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_time_that_has_run_out_is_told_as_go_does() {
        let never = tower::service_fn(|_: http::Request<()>| {
            std::future::pending::<Result<http::Response<Body>, Infallible>>()
        });
        let request = http::Request::builder().uri("/some/Method").header("grpc-timeout", "5m");
        let response = Guard(never).call(request.body(()).expect("it is one")).await.expect("it is answered");
        let status = Status::from_header_map(response.headers()).expect("it has a status");
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }
}
