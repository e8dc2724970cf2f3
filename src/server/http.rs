//! The HTTP/1.1 listener for probes and scrapers: /livez, /readyz, /metrics.
//!
//! It knows nothing of the node but two closures. What it is asked by strangers is bounded: so many connections
//! at a time, a request's head within a few seconds, no bodies; so that it may stand beyond loopback in
//! plaintext. It holds no drain up: once told to stop, what runs has a second.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt;

use crate::telemetry::metrics;

/// Whether a node is ready to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It serves.
    Ready,
    /// It does not; the name of its state says why.
    NotReady(&'static str),
}

/// The most connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// How long a request's head may take, and a connection stay idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what runs may take after the listener was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// How long accepting rests after it failed, so that it does not spin while descriptors are used up.
const ACCEPT_REST: Duration = Duration::from_millis(50);

const PATHS: &str = "/livez    200 while the process is alive\n\
                     /readyz   200 while the node serves, else 503 and its state\n\
                     /metrics  figures, as Prometheus and OpenMetrics text\n";

/// The paths and what answers them. `ready` and `metrics` are called once per request, on the listener's thread.
pub fn router(
    ready: impl Fn() -> Readiness + Clone + Send + Sync + 'static,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Router {
    Router::new()
        .route("/", get(async || PATHS))
        .route("/livez", get(async || uncached(StatusCode::OK, "ok\n".to_owned())))
        .route(
            "/readyz",
            get(async move || match ready() {
                Readiness::Ready => uncached(StatusCode::OK, "ok\n".to_owned()),
                Readiness::NotReady(state) => uncached(StatusCode::SERVICE_UNAVAILABLE, format!("{state}\n")),
            }),
        )
        .route("/metrics", get(async move |headers: HeaderMap| scrape(&headers, metrics())))
        .fallback(async |request: Request| {
            let path = request.uri().path().escape_default().to_string();
            (StatusCode::NOT_FOUND, format!("there is no {path} here; there are\n{PATHS}"))
        })
}

/// Serves until `shutdown` is done; then lets what runs end, for a second at most.
///
/// # Errors
/// The listener cannot be used at all. A failure to accept one connection is logged and passes.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.local_addr()?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopped) = watch::channel(false);
    tokio::select! {
        () = accept(&listener, &router, &permits, &stopped) => {}
        () = shutdown => {}
    }
    drop(listener);
    // Nobody hears it if there is no connection, which is as well.
    let _ = stop.send(true);
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    if tokio::time::timeout(STOP_GRACE, permits.acquire_many(all)).await.is_err() {
        tracing::debug!("HTTP connections were cut off at the end of the grace");
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    permits: &Arc<Semaphore>,
    stopped: &watch::Receiver<bool>,
) {
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, router.clone(), stopped.clone(), permit));
            }
            Err(error) => {
                tracing::warn!(%error, "the HTTP listener could not accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|error| match error {})) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let over = tokio::select! {
        over = &mut connection => Some(over),
        _ = stopped.wait_for(|stopped| *stopped) => None,
    };
    let over = match over {
        Some(over) => Ok(over),
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(STOP_GRACE, connection).await
        }
    };
    if let Ok(Err(error)) = over {
        tracing::debug!(%error, "an HTTP connection ended badly");
    }
}

/// Prometheus asks for OpenMetrics by name; a browser or curl is shown plain text, which the same bytes are too.
fn scrape(headers: &HeaderMap, text: String) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = if accepted.contains("application/openmetrics-text") {
        metrics::CONTENT_TYPE
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

/// A probe's answer is of now.
fn uncached(status: StatusCode, text: String) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], text).into_response()
}

#[cfg(test)]
mod tests;
