//! Addresses, and the room on the disk.

use std::net::TcpListener;
use std::path::Path;

use super::{Check, State};
use crate::config::Config;
use crate::config::home::Home;
use crate::http::auth::origin;

/// Below this little is left: a day's rows of a busy server.
const LITTLE: u64 = 1024 * MIB;
/// Below this a server stops taking anything in before long.
const TOO_LITTLE: u64 = 64 * MIB;
const MIB: u64 = 1024 * 1024;

/// Where exile listens, and where people reach it. `held`: a server listens there already.
pub(super) fn addresses(config: &Config, held: bool) -> Vec<Check> {
    let bind = config.bind;
    let mut checks = Vec::new();
    if !held {
        let (state, detail) = match TcpListener::bind(bind) {
            Ok(_) => (State::Good, format!("{bind} is free")),
            Err(error) => (State::Bad, format!("{bind}: {error}; choose another one with `bind`")),
        };
        checks.push(Check { what: "address", state, detail });
    }
    let what = "public address";
    checks.push(match &config.public_url {
        Some(url) if origin::can_hold_sessions(url) => {
            Check { what, state: State::Good, detail: url.clone() }
        }
        Some(url) => {
            let detail = format!("{url}: browsers stay signed in only by https");
            Check { what, state: State::Note, detail }
        }
        None if bind.ip().is_loopback() => {
            let detail = "none; exile listens to this machine alone".to_owned();
            Check { what, state: State::Good, detail }
        }
        None => {
            let detail = format!(
                "none, and exile listens at {bind}: browsers elsewhere stay signed in only by https; \
                 set `public_url` to the address of a proxy that speaks it"
            );
            Check { what, state: State::Note, detail }
        }
    });
    checks
}

/// How much room there is where the home is, and how much it takes.
pub(super) fn space(home: &Path) -> Check {
    let what = "space";
    let free = match rustix::fs::statvfs(home) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => {
            let detail = format!("{}: {error}", home.display());
            return Check { what, state: State::Note, detail };
        }
    };
    let taken = Home::database_in(home).metadata().map_or(0, |file| file.len());
    let state = match free {
        free if free < TOO_LITTLE => State::Bad,
        free if free < LITTLE => State::Note,
        _ => State::Good,
    };
    let detail = format!("{} MiB free, the database takes {} MiB", free / MIB, taken / MIB);
    Check { what, state, detail }
}
