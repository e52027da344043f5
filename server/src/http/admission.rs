//! Room for bodies: how much of what callers send is held in memory at once.
//!
//! Invariants:
//! - A body of at most [`FREE`] bytes never waits for a larger one; one of at most [`MIDDLE`] bytes
//!   never waits for one above that.
//! - Room is taken before memory is, in one order (bytes, then values), so that nobody who holds
//!   room waits for somebody who waits for it.
//! - Room is given back when the request and its answer are gone, whatever became of them.
//!
//! Absent on purpose: how a body is read (`body.rs`), and what a run holds once it has begun.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::TransportLimits;
use crate::http::held::HeldBody;
use crate::http::problem::Problem;

/// What every body may take without asking for room, in bytes.
pub const FREE: usize = 64 * 1024;
/// Bodies above this queue among themselves, so that smaller ones pass them, in bytes.
const MIDDLE: usize = 1 << 20;
/// What one value of parsed JSON takes beside its text, in bytes.
const VALUE: usize = 80;
/// What room is counted in, in bytes.
const UNIT: usize = 1024;

/// The room that all requests share.
#[derive(Debug)]
pub struct Admission {
    middle: Lane,
    large: Lane,
    /// How long a request waits for room.
    wait: Duration,
}

/// Room for bodies of about the same size.
#[derive(Debug)]
struct Lane {
    bytes: Arc<Semaphore>,
    values: Arc<Semaphore>,
    /// All of it.
    units: u32,
}

impl Admission {
    /// Room of `bodies` bytes, a quarter of it for bodies of middle size.
    #[must_use]
    pub fn new(limits: &TransportLimits) -> Self {
        let middle = Lane::new(limits.bodies / 4);
        let large = Lane::new(limits.bodies - limits.bodies / 4);
        Self { middle, large, wait: limits.body_wait }
    }

    /// Waits for room for so many bytes of a body, and gives it to the request.
    ///
    /// # Errors
    /// [`Problem::Overloaded`]: there was none within the time that a request waits.
    pub async fn hold_bytes(&self, room: &Room, bytes: usize) -> Result<(), Problem> {
        if bytes <= FREE || room.is_held() {
            return Ok(());
        }
        let lane = self.lane(bytes);
        room.keep(self.wait_for(&lane.bytes, lane.cost(bytes)).await?);
        Ok(())
    }

    /// Waits for room for the values that a body of so many bytes turned out to hold.
    ///
    /// # Errors
    /// [`Problem::Overloaded`]: there was none within the time that a request waits.
    pub async fn hold_values(
        &self,
        room: &Room,
        bytes: usize,
        values: usize,
    ) -> Result<(), Problem> {
        let cost = values.saturating_mul(VALUE);
        if cost <= FREE {
            return Ok(());
        }
        let lane = self.lane(bytes);
        room.keep(self.wait_for(&lane.values, lane.cost(cost)).await?);
        Ok(())
    }

    fn lane(&self, bytes: usize) -> &Lane {
        if bytes <= MIDDLE { &self.middle } else { &self.large }
    }

    async fn wait_for(
        &self,
        lane: &Arc<Semaphore>,
        units: u32,
    ) -> Result<OwnedSemaphorePermit, Problem> {
        let waiting = lane.clone().acquire_many_owned(units);
        match tokio::time::timeout(self.wait, waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Problem::Overloaded { retry_after: self.wait }),
        }
    }
}

impl Lane {
    fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        let units = units.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let semaphore = || Arc::new(Semaphore::new(units as usize));
        Self { bytes: semaphore(), values: semaphore(), units }
    }

    /// What so many bytes take; never more than there is, so that everybody gets in alone.
    fn cost(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units)
    }
}

/// The room that one request holds. Clones are of the same request.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<Mutex<Vec<OwnedSemaphorePermit>>>);

impl Room {
    /// Gives back what was taken for a body that turned out to have so many bytes.
    pub fn shrink(&self, bytes: usize) {
        if let Some(permit) = self.held().first_mut() {
            let surplus = permit.num_permits().saturating_sub(bytes.div_ceil(UNIT));
            drop(permit.split(surplus));
        }
    }

    fn is_held(&self) -> bool {
        !self.held().is_empty()
    }

    fn keep(&self, permit: OwnedSemaphorePermit) {
        self.held().push(permit);
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Vec<OwnedSemaphorePermit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a request take room, which it holds until its answer is sent.
pub async fn until_answered(mut request: Request, next: Next) -> Response {
    let room = Room::default();
    request.extensions_mut().insert(room.clone());
    let response = next.run(request).await;
    if room.is_held() {
        return response.map(|body| Body::new(HeldBody::new(body, room)));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(bodies: usize) -> Admission {
        let wait = Duration::from_millis(1);
        Admission::new(&TransportLimits { bodies, body_wait: wait, ..TransportLimits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_holds_up_large_ones_alone() {
        let admission = admission(4 << 20);
        let (first, second, middle) = (Room::default(), Room::default(), Room::default());
        admission.hold_bytes(&first, 32 << 20).await.unwrap();
        assert!(admission.hold_bytes(&second, 2 << 20).await.is_err());
        admission.hold_bytes(&middle, 1 << 20).await.unwrap();
        admission.hold_bytes(&Room::default(), FREE).await.unwrap();
        drop(first);
        admission.hold_bytes(&second, 2 << 20).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn values_take_room_as_bytes_do_and_the_few_of_a_usual_request_take_none() {
        let admission = admission(4 << 20);
        let (first, second) = (Room::default(), Room::default());
        admission.hold_values(&first, 1000, 13_000).await.unwrap();
        assert!(admission.hold_values(&second, 1000, 1000).await.is_err());
        admission.hold_values(&second, 1000, 800).await.unwrap();
        drop(first);
        admission.hold_values(&second, 1000, 1000).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_needed_is_given_back() {
        let admission = admission(4 << 20);
        let (first, second) = (Room::default(), Room::default());
        admission.hold_bytes(&first, 3 << 20).await.unwrap();
        assert!(admission.hold_bytes(&second, 2 << 20).await.is_err());
        first.shrink(100_000);
        admission.hold_bytes(&second, 2 << 20).await.unwrap();
    }
}
