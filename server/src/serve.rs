//! The listening socket, from the first request to the last.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::routes;

/// Answers requests until `shutdown`; then takes no new connection, lets requests in flight go on
/// for `drain`, and cuts off what is left (streams of runs that go on elsewhere, mostly).
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    shutdown: CancellationToken,
    drain: Duration,
) -> io::Result<()> {
    // Each piece of a stream leaves at once, not together with the next one.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection may hold small pieces back");
        }
    });
    let stop = shutdown.clone();
    let serving = axum::serve(listener, routes::router(app).into_make_service())
        .with_graceful_shutdown(async move { stop.cancelled().await });
    let patience = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = patience => {
            tracing::warn!("some requests were still being answered and were cut off");
            Ok(())
        }
    }
}
