//! What is known of one connection: where it stands, what it owes, and when it has had enough time.
//!
//! Invariants:
//! - A connection that owes something (a head, the reading of an answer) has a moment at which it
//!   is cut; one that waits for this server has none.
//! - A reader is cut for taking nothing, never for taking little.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exile_engine::env::Env;
use tokio::sync::Notify;

use super::framing::{Ambiguity, Framing, Position};
use crate::config::TransportLimits;

/// How long a connection that nobody is being answered on may stay once the server stops.
const GRACE: Duration = Duration::from_secs(1);

/// What a connection is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Go on.
    Serve,
    /// Answer what is being answered, and end.
    Finish,
    /// End at once.
    End,
}

/// One connection.
pub(super) struct Seat {
    /// Whom it belongs to.
    pub address: IpAddr,
    /// Its place in the order of arrival.
    pub number: u64,
    env: Arc<dyn Env>,
    order: AtomicU8,
    /// There is a new order.
    ordered: Notify,
    state: Mutex<State>,
}

struct State {
    framing: Framing,
    /// Requests that were handed to the service.
    requests: u64,
    /// Requests that are not answered to their end.
    answering: usize,
    /// When the position changed, or the last answer ended.
    since: Duration,
    /// Answers of which a piece was handed to the connection that it has not asked to go on from,
    /// and since when.
    unread: Vec<(u64, Duration)>,
}

impl Seat {
    pub(super) fn new(address: IpAddr, number: u64, env: Arc<dyn Env>) -> Self {
        let since = env.monotonic();
        let state = State {
            framing: Framing::default(),
            requests: 0,
            answering: 0,
            since,
            unread: Vec::new(),
        };
        let order = AtomicU8::new(Order::Serve as u8);
        Self { address, number, env, order, ordered: Notify::new(), state: Mutex::new(state) }
    }

    /// Gives an order; a weaker one than before changes nothing.
    pub(super) fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.ordered.notify_one();
    }

    pub(super) fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::Finish,
            _ => Order::End,
        }
    }

    /// Waits for a new order.
    pub(super) async fn ordered(&self) {
        self.ordered.notified().await;
    }

    /// Takes in bytes that came.
    pub(super) fn received(&self, bytes: &[u8]) {
        let now = self.now();
        let mut state = self.state();
        let before = state.framing.position();
        state.framing.feed(bytes);
        if state.framing.position() != before {
            state.since = now;
        }
    }

    /// A request begins to be answered; its number on this connection, from 1.
    pub(super) fn begin(self: &Arc<Self>) -> Answering {
        let mut state = self.state();
        state.requests += 1;
        state.answering += 1;
        Answering { seat: self.clone(), number: state.requests }
    }

    /// Whether nobody is being answered.
    pub(super) fn is_idle(&self) -> bool {
        self.state().answering == 0
    }

    /// When the connection is cut if it goes on standing as it does; `None`: never.
    pub(super) fn due(&self, limits: &TransportLimits) -> Option<Duration> {
        let state = self.state();
        let unread = state.unread.iter().map(|(_, since)| *since).min();
        match unread {
            Some(since) => Some(since + limits.write_timeout),
            None if state.answering > 0 => None,
            None => Some(state.since + self.patience(&state, limits)),
        }
    }

    /// How long a connection may stay that nobody is being answered on.
    fn patience(&self, state: &State, limits: &TransportLimits) -> Duration {
        let patience = match state.framing.position() {
            Position::Between if state.requests == 0 => limits.header_timeout,
            Position::Head | Position::Body => limits.header_timeout,
            Position::Between | Position::Unknown => limits.idle_timeout,
        };
        if self.order() == Order::Serve { patience } else { patience.min(GRACE) }
    }

    /// The time that [`due`](Self::due) is told in.
    pub(super) fn now(&self) -> Duration {
        self.env.monotonic()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held while a request is answered, to the last piece of its answer.
pub(super) struct Answering {
    seat: Arc<Seat>,
    number: u64,
}

impl Answering {
    /// Whether it is the first of its connection.
    pub(super) fn is_first(&self) -> bool {
        self.number == 1
    }

    /// Why the head of the request is refused, if it is.
    pub(super) fn ambiguity(&self) -> Option<Ambiguity> {
        self.seat.state().framing.refuses(self.number)
    }

    /// A piece of the answer was handed to the connection.
    pub(super) fn handed(&self) {
        let now = self.seat.now();
        let mut state = self.seat.state();
        match state.unread.iter_mut().find(|(number, _)| *number == self.number) {
            Some((_, since)) => *since = now,
            None => state.unread.push((self.number, now)),
        }
    }

    /// The connection asks for the next piece, and there is none yet.
    pub(super) fn asked(&self) {
        self.seat.state().unread.retain(|(number, _)| *number != self.number);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let now = self.seat.now();
        let mut state = self.seat.state();
        state.unread.retain(|(number, _)| *number != self.number);
        state.answering = state.answering.saturating_sub(1);
        if state.answering == 0 {
            state.since = now;
        }
    }
}
