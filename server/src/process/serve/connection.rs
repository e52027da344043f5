//! One connection: its requests answered until it ends, is told to end, or has had enough time.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::{Builder, Connection};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tower::ServiceExt as _;

use super::places::Place;
use super::seat::{Answering, Order, Seat};
use super::sending::Sending;
use super::socket::Socket;
use crate::config::TransportLimits;
use crate::http::peer::Peer;
use crate::http::problem::Problem;

/// How much of an answer one stream of HTTP/2 holds, in bytes.
const STREAM_BUFFER: usize = 64 * 1024;
/// How much of a body one stream of HTTP/2 may send ahead, in bytes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// How much of all bodies one connection of HTTP/2 may send ahead, in bytes.
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// What all connections are answered with.
pub(super) struct Service {
    pub router: Router,
    pub limits: TransportLimits,
    protocol: Builder<TokioExecutor>,
}

impl Service {
    pub(super) fn new(router: Router, limits: TransportLimits) -> Self {
        let protocol = protocol(&limits);
        Self { router, limits, protocol }
    }
}

/// HTTP/1.1, and HTTP/2 if it is asked for. The library's own timers are off: what a connection
/// may take its time for is known here.
fn protocol(limits: &TransportLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .header_read_timeout(None)
        // A head must fit into the buffer.
        .max_buf_size(limits.head);
    if limits.http2_streams == 0 {
        return builder.http1_only();
    }
    builder
        .http2()
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_BUFFER);
    builder
}

/// Answers what comes in, until nothing does any more.
pub(super) async fn answer(stream: TcpStream, peer: Peer, place: Place, service: Arc<Service>) {
    let place = Arc::new(place);
    let seat = place.seat.clone();
    // One that says nothing costs no buffers.
    if watched(pin!(stream.readable()), |_| {}, &seat, &service.limits).await.is_none() {
        return;
    }
    let requests = {
        let (service, place) = (service.clone(), place.clone());
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            respond(service.clone(), place.clone(), request)
        })
    };
    let socket = TokioIo::new(Socket::new(stream, seat.clone()));
    let connection = service.protocol.serve_connection(socket, requests);
    let finish = |connection: Pin<&mut _>| Connection::graceful_shutdown(connection);
    if let Some(Err(error)) = watched(pin!(connection), finish, &seat, &service.limits).await {
        tracing::trace!(error, "a connection broke off");
    }
}

async fn respond(
    service: Arc<Service>,
    place: Arc<Place>,
    request: Request<Incoming>,
) -> Result<Response<Sending>, Infallible> {
    let answering = place.seat.begin();
    if answering.is_first() {
        place.places.asked(&place.seat);
    }
    let response = match refusal(&request, &answering) {
        Some(why) => refused(why),
        None => service.router.clone().oneshot(request.map(Body::new)).await?,
    };
    Ok(response.map(|body| Sending::new(body, answering)))
}

/// Why a request is refused that others may have read in another way.
fn refusal(request: &Request<Incoming>, answering: &Answering) -> Option<String> {
    if request.version() > Version::HTTP_11 {
        return None;
    }
    if let Some(ambiguity) = answering.ambiguity() {
        return Some(ambiguity.to_string());
    }
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let missing = hosts == 0 && request.version() == Version::HTTP_11;
    (missing || hosts > 1).then(|| format!("the head has {hosts} Host fields, not one"))
}

/// A refusal behind which nothing is read.
fn refused(why: String) -> Response {
    let mut response = Problem::Unreadable(why).into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Drives a connection, or the wait for one, as long as it may go on. `finish` asks it to end once
/// nothing is being answered. Returns what it came to; `None`: it was ended.
async fn watched<F: Future>(
    mut connection: Pin<&mut F>,
    finish: impl Fn(Pin<&mut F>),
    seat: &Seat,
    limits: &TransportLimits,
) -> Option<F::Output> {
    let mut alarm = Alarm::default();
    let mut told = Order::Serve;
    loop {
        let mut ordered = pin!(seat.ordered());
        let ended = poll_fn(|cx| {
            if let Poll::Ready(output) = connection.as_mut().poll(cx) {
                return Poll::Ready(Ended::Itself(output));
            }
            if ordered.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ended::Ordered);
            }
            alarm.poll(cx, seat, limits).map(|()| Ended::Late)
        });
        match ended.await {
            Ended::Itself(output) => return Some(output),
            Ended::Late => return None,
            Ended::Ordered => {}
        }
        let order = seat.order();
        if order == Order::End {
            return None;
        }
        if order != std::mem::replace(&mut told, order) {
            finish(connection.as_mut());
        }
    }
}

/// Why a connection is not driven on.
enum Ended<T> {
    /// It came to its end.
    Itself(T),
    /// It took longer than it may.
    Late,
    /// It was told something.
    Ordered,
}

/// Goes off when a connection is due. It is set anew only where it would come too late, so that a
/// connection in use hardly touches the timer.
#[derive(Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it goes off.
    at: Duration,
}

impl Alarm {
    fn poll(&mut self, cx: &mut Context<'_>, seat: &Seat, limits: &TransportLimits) -> Poll<()> {
        loop {
            let due = seat.due(limits);
            if let Some(due) = due
                && (self.sleep.is_none() || due < self.at)
            {
                let left = due.saturating_sub(seat.now());
                self.sleep = Some(Box::pin(tokio::time::sleep(left)));
                self.at = due;
            }
            let Some(sleep) = &mut self.sleep else { return Poll::Pending };
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
            if due.is_some_and(|due| due <= seat.now()) {
                return Poll::Ready(());
            }
        }
    }
}
