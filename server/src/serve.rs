//! The listening socket, from the first request to the last.

use std::io;
use std::sync::Arc;
use std::time::Duration;

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
    let stop = shutdown.clone();
    let serving = axum::serve(listener, routes::router(app))
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
