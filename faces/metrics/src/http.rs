//! The listener. It answers one path to one method, and nobody can hold it up.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::source::Pages;
use crate::{page, process};

const PATH: &str = "/v1/metrics";
/// Connections at one time; more wait.
const CONNECTIONS: usize = 16;
/// How long a client may take to say what it wants, the first time and again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a connection lives at most, so that readers who never read end.
const LIFE: Duration = Duration::from_secs(600);
/// The pause after a connection could not be taken, as when descriptors ran out.
const BREATH: Duration = Duration::from_millis(100);

/// Serves figures on `listener`, and those of this process with them, until `stop` resolves.
pub async fn serve(listener: TcpListener, source: impl Pages, stop: impl Future<Output = ()> + Send) {
    let source = Arc::new(source);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            (accepted, place) = accepted => match accepted {
                Ok((stream, _)) => {
                    let source = source.clone();
                    connections.spawn(async move {
                        // An error means that the client took too long, which ends the connection as well.
                        let _ = tokio::time::timeout(LIFE, converse(stream, source)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection for metrics");
                    tokio::time::sleep(BREATH).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn converse(stream: TcpStream, source: Arc<impl Pages>) {
    let service = service_fn(move |request| {
        let source = source.clone();
        async move { Ok::<_, Infallible>(answer(&request, &*source).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a client of the metrics left early");
    }
}

async fn answer(request: &Request<Incoming>, source: &impl Pages) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, format!("nothing here: the figures are at {PATH}\n"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "figures can only be read\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let mut page = source.page().await;
    process::collect(&mut page);
    let mut figures = plain(StatusCode::OK, page.render());
    figures.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page::CONTENT_TYPE));
    figures
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
