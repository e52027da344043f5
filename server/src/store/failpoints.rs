//! Named places at which a test may end the process, and what is stored there.
//!
//! Armed only by the cargo feature `failpoints`; without it nothing of this is compiled in. The
//! variable `FAILPOINTS`, read when a store is first opened, says what happens where, in the
//! syntax of the crate `fail`: `append.head=5*off->return` ends the process (as a crash does, by
//! a signal) when the sixth append gets there; `pause` and `sleep(ms)` leave the ending to others.
//!
//! A test may also let another request come in between two steps of one ([`with_rival`]).

/// Where.
#[derive(Clone, Copy, Debug)]
pub(super) enum Point {
    /// Nothing of the append is written.
    AppendBegin,
    /// Records and the log's head are written, inside the open transaction.
    AppendHead,
    /// Everything is written, inside the open transaction: rows, inputs and blobs as well.
    AppendRecords,
    /// The next thing is the commit.
    CommitBefore,
    /// Everything is durable; nobody was told.
    CommitAfter,
    /// The writer of the log is about to be told.
    Acknowledged,
    /// Nothing of the input is written.
    SendBefore,
    /// The input is durable; its sender was not told.
    SendAfter,
    /// The lease is durable; the worker was not told.
    ClaimAfter,
    /// The blob is durable; who put it was not told.
    BlobAfter,
}

impl Point {
    /// As `FAILPOINTS` spells it.
    #[cfg(feature = "failpoints")]
    fn name(self) -> &'static str {
        match self {
            Self::AppendBegin => "append.begin",
            Self::AppendHead => "append.head",
            Self::AppendRecords => "append.records",
            Self::CommitBefore => "append.commit.before",
            Self::CommitAfter => "append.commit.after",
            Self::Acknowledged => "append.acknowledged",
            Self::SendBefore => "send.before",
            Self::SendAfter => "send.after",
            Self::ClaimAfter => "claim.after",
            Self::BlobAfter => "put_blob.after",
        }
    }
}

/// Whether something is to happen inside an append's transaction: then it is to take the way that
/// comes by these points.
#[cfg(feature = "failpoints")]
pub(super) fn inside_appends() -> bool {
    let inside = [Point::AppendHead, Point::AppendRecords, Point::CommitBefore].map(Point::name);
    fail::list().iter().any(|(name, _)| inside.contains(&name.as_str()))
}

/// Nothing is: there are no points.
#[cfg(not(feature = "failpoints"))]
pub(super) fn inside_appends() -> bool {
    false
}

/// Reads what the environment says of the points, once.
#[cfg(feature = "failpoints")]
pub(super) fn arm() {
    static ARMED: std::sync::Once = std::sync::Once::new();
    // Kept for as long as the process lives: dropping it would disarm the points.
    ARMED.call_once(|| std::mem::forget(fail::FailScenario::setup()));
}

/// Does nothing: there are no points.
#[cfg(not(feature = "failpoints"))]
pub(super) fn arm() {}

/// Comes by a point.
#[cfg(feature = "failpoints")]
pub(super) fn hit(point: Point) {
    fail::fail_point!(point.name(), |_| std::process::abort());
}

/// Does nothing: there are no points.
#[cfg(not(feature = "failpoints"))]
pub(super) fn hit(_: Point) {}

#[cfg(feature = "failpoints")]
pub use rival::with_rival;

/// Comes by a place at which another request may come in between: before a task writes, and after
/// it has sent an input.
#[cfg(feature = "failpoints")]
pub(super) async fn between() {
    rival::between().await;
}

/// Does nothing: nobody comes in between.
#[cfg(not(feature = "failpoints"))]
pub(super) fn between() -> std::future::Ready<()> {
    std::future::ready(())
}

#[cfg(feature = "failpoints")]
mod rival {
    use std::sync::{Mutex, PoisonError};

    use futures_util::future::BoxFuture;

    tokio::task_local! {
        static RIVAL: Mutex<Rival>;
    }

    struct Rival {
        /// Places that are passed before it acts.
        left: usize,
        act: Option<BoxFuture<'static, ()>>,
    }

    /// Runs `work`; when it comes by its place number `nth` (from 0), `rival` runs from its
    /// beginning to its end before `work` goes on. Gives what `work` gave, and whether it came by so
    /// many places.
    pub async fn with_rival<F: Future>(
        nth: usize,
        rival: BoxFuture<'static, ()>,
        work: F,
    ) -> (F::Output, bool) {
        let rival = Mutex::new(Rival { left: nth, act: Some(rival) });
        let work = async {
            let output = work.await;
            (output, RIVAL.with(|rival| lock(rival).act.is_none()))
        };
        RIVAL.scope(rival, work).await
    }

    pub(super) async fn between() {
        let turn = RIVAL.try_with(|rival| {
            let mut rival = lock(rival);
            match rival.left.checked_sub(1) {
                Some(left) => {
                    rival.left = left;
                    None
                }
                None => rival.act.take(),
            }
        });
        if let Ok(Some(act)) = turn {
            act.await;
        }
    }

    /// The lock guards whole values: nothing panics while it is held.
    fn lock(rival: &Mutex<Rival>) -> std::sync::MutexGuard<'_, Rival> {
        rival.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
