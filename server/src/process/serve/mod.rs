//! The listening socket, from the first request to the last.
//!
//! | file | holds |
//! |---|---|
//! | `connection.rs` | one connection, driven |
//! | `seat.rs` | what a connection owes, and when it has had enough time |
//! | `places.rs` | how many there are, and who makes way |
//! | `framing.rs` | where one message ends and the next begins |
//! | `socket.rs`, `sending.rs` | the bytes that come in; the pieces that go out |
//! | `descriptors.rs` | how many files and sockets there may be |
//!
//! Invariants:
//! - A connection costs nothing but its place until it says something, and is cut when it says or
//!   takes nothing for longer than it may.
//! - Whoever comes is taken in, as long as anybody can make way.
//! - When the server stops, every connection is gone within `limits.shutdown` and a second.

mod connection;
mod descriptors;
mod framing;
mod places;
mod seat;
mod sending;
mod socket;

use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::app::App;
use crate::http::peer::Peer;
use crate::http::problem::NO_PLACE;
use crate::process::router;
use connection::Service;
use places::Places;
use seat::Order;

/// How long calls that were cut off have to say so.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long no connection is taken after one could not be.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers requests until `shutdown`; then takes no new connection, lets requests in flight go on
/// for `limits.shutdown`, and cuts off what is left.
pub async fn serve(listener: TcpListener, app: Arc<App>, shutdown: CancellationToken) {
    let limits = &app.settings.limits.transport;
    let open = descriptors::raise();
    let most = descriptors::connections(open.now, limits.connections);
    tracing::info!("takes up to {most} connections: the process may open {open}");
    if most < limits.connections {
        tracing::warn!(
            most,
            wanted = limits.connections,
            "the limit of open files allows for fewer connections than `limits.connections`; raise \
             it, e.g. with LimitNOFILE of systemd or --ulimit of Docker"
        );
    }
    // One address leaves room for another.
    let most_of_one = limits.connections_per_address.unwrap_or(most - most / 5);
    let places = Arc::new(Places::new(most, most_of_one, app.env.clone()));
    let service = Arc::new(Service::new(router::router(app.clone()), limits.clone()));
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => take_in(stream, peer, &places, &service, &connections),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be taken in");
                    places.make_way();
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    connections.close();
    places.tell(Order::Finish);
    if tokio::time::timeout(limits.shutdown, connections.wait()).await.is_ok() {
        return;
    }
    tracing::warn!("some requests were still being answered and were cut off");
    app.cut.cancel();
    app.transport.readers.cancel();
    if tokio::time::timeout(LAST_WORDS, connections.wait()).await.is_err() {
        places.tell(Order::End);
        connections.wait().await;
    }
}

fn take_in(
    stream: TcpStream,
    peer: SocketAddr,
    places: &Arc<Places>,
    service: &Arc<Service>,
    connections: &TaskTracker,
) {
    if let Err(error) = socket::tune(&stream) {
        tracing::debug!(%error, "a connection may hold small pieces back");
    }
    match places.take(peer.ip()) {
        Some(place) => {
            let peer = Peer(peer.ip());
            connections.spawn(connection::answer(stream, peer, place, service.clone()));
        }
        None => send_away(stream),
    }
}

/// Says that there is no place, as far as that can be said at once.
fn send_away(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        // Whoever does not get to read it sees a closed connection.
        let _ = stream.write(NO_PLACE);
    }
}

/// Whether it is about a client that has left already.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}
