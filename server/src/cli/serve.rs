//! `exile serve`: takes the home, says where it listens, serves until it is told to stop.

use std::sync::Arc;

use exile_engine::span::TraceLink;
use tokio::signal::unix::{SignalKind, signal};

use super::error::CliError;
use super::terminal::Terminal;
use crate::config::Config;
use crate::config::home::Home;
use crate::process::compose::{Duty, Server};

pub(super) async fn run(
    config: &Config,
    trace: Arc<dyn TraceLink>,
    terminal: &mut Terminal,
) -> Result<(), CliError> {
    // Before anything listens: a signal that comes early must not kill a server that just began.
    let (mut term, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let home = Home::at(&config.places.home)?;
    let Some(held) = home.hold()? else { return Err(held_by_another(&home)) };
    let server = Server::start(config, held, trace, (config.bind, Duty::Everything)).await?;
    server.report();
    let (url, sign_in) = (server.url(), server.sign_in_link().await?);
    if terminal.json() {
        terminal.value(&serde_json::json!({ "listening": url, "sign_in": sign_in }))?;
    } else {
        terminal.line(&format!("exile listening on {url} · sign in once: {sign_in}"))?;
    }
    let failed = tokio::select! {
        _ = term.recv() => false,
        _ = interrupt.recv() => false,
        () = server.ended() => true,
    };
    let patience = config.limits.transport.shutdown;
    tracing::info!(?patience, "stopping what is in flight; a second signal ends at once");
    tokio::select! {
        () = server.stop() => {}
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    if failed {
        return Err(CliError::Run("the server ended by itself; the log says why".into()));
    }
    Ok(())
}

fn held_by_another(home: &Home) -> CliError {
    let holder = match home.listening() {
        Some(l) => format!("process {} serves {} at {}", l.pid, home.path().display(), l.url),
        None => format!("another process holds {}", home.path().display()),
    };
    CliError::Held(format!("{holder}; stop it, or choose another --home"))
}
