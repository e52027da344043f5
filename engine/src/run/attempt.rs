//! One attempt of a task: the node's work, within its time. What reaches nothing is computed where
//! the driver stands; all else runs beside it, within its time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;

use crate::env::Env;
use crate::expr::Scope;
use crate::node::{Done, Node, NodeError, Outcome, PureNode};
use crate::run::context::Cx;
use crate::state::State;

/// A task whose attempt came to its end.
pub(super) struct Finished {
    pub path: Arc<str>,
    pub took: Duration,
    pub outcome: Result<Outcome, NodeError>,
}

/// How long an attempt may take, and be silent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Time {
    pub timeout: Option<Duration>,
    /// The key that says how long it may take.
    pub key: &'static str,
    pub idle: Option<Duration>,
}

impl Time {
    pub(super) fn limited(self) -> bool {
        self.timeout.is_some() || self.idle.is_some()
    }

    /// Until the time is over; each sign of life begins the silence anew.
    pub(super) async fn over(self, pulse: Arc<Notify>) -> NodeError {
        let after = |period: Option<Duration>| async move {
            match period {
                Some(period) => tokio::time::sleep(period).await,
                None => std::future::pending().await,
            }
        };
        let silence = async {
            loop {
                tokio::select! {
                    biased;
                    () = pulse.notified() => {}
                    () = after(self.idle) => return,
                }
            }
        };
        let (key, period) = tokio::select! {
            () = after(self.timeout) => (self.key, self.timeout),
            () = silence => ("idle_timeout", self.idle),
        };
        let after_ms = u64::try_from(period.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        NodeError::Timeout { key: key.to_owned(), after_ms }
    }
}

/// The time that the run and the nodes around a task have left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    /// When the first of them is over, on the monotonic clock.
    pub until: Option<Duration>,
    /// How long the most impatient of them may be silent.
    pub silence: Option<Duration>,
}

impl Bounds {
    /// Those of a task inside, whose attempt began at `began`.
    pub(super) fn within(self, time: Time, began: Duration) -> Self {
        let until = time.timeout.map(|timeout| began + timeout);
        Self {
            until: self.until.into_iter().chain(until).min(),
            silence: self.silence.into_iter().chain(time.idle).min(),
        }
    }

    /// Whether there is time for a pause at `now`.
    pub(super) fn admit(self, now: Duration, pause: Duration) -> bool {
        self.until.is_none_or(|until| now + pause < until)
            && self.silence.is_none_or(|silence| pause < silence)
    }
}

/// Computes what a node writes that reaches nothing. A panic in it is a failure of the task.
pub(super) fn compute(
    node: &dyn PureNode,
    state: &State,
    scope: &Scope,
) -> Result<Done, NodeError> {
    let work = std::panic::AssertUnwindSafe(|| node.compute(state, scope));
    std::panic::catch_unwind(work).unwrap_or_else(|panic| Err(NodeError::Internal(words(&*panic))))
}

/// The same after a pause.
pub(super) async fn compute_later(
    node: Arc<dyn PureNode>,
    env: Arc<dyn Env>,
    path: Arc<str>,
    (state, scope): (Arc<State>, Scope),
    pause: Duration,
) -> Finished {
    tokio::time::sleep(pause).await;
    let began = env.monotonic();
    let outcome = compute(&*node, &state, &scope).map(Outcome::Done);
    Finished { path, took: env.monotonic().saturating_sub(began), outcome }
}

/// Runs one attempt, after a pause. A panic in it is a failure of the task, not of the process.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` holds each argument twice, and there are as many of these as tasks"
)]
pub(super) fn run(
    node: Arc<dyn Node>,
    cx: Cx,
    state: Arc<State>,
    time: Time,
    (pause, pulse): (Duration, Arc<Notify>),
) -> impl Future<Output = Finished> {
    async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let env = &cx.services.env;
        let began = env.monotonic();
        let work = std::panic::AssertUnwindSafe(async { node.run(&cx, &state).await });
        let work = work
            .catch_unwind()
            .map(|ended| ended.unwrap_or_else(|panic| Err(NodeError::Internal(words(&*panic)))));
        let outcome = if time.limited() {
            tokio::select! {
                biased;
                outcome = work => outcome,
                error = Box::pin(time.over(pulse)) => Err(error),
            }
        } else {
            work.await
        };
        Finished { path: cx.task.clone(), took: env.monotonic().saturating_sub(began), outcome }
    }
}

/// Ends with a failure once the time of a task with a graph inside is over, which begins after a
/// pause.
pub(super) async fn watch(
    path: Arc<str>,
    time: Time,
    (pause, pulse): (Duration, Arc<Notify>),
) -> Finished {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    let error = time.over(pulse).await;
    let took = time.timeout.unwrap_or_default();
    Finished { path, took, outcome: Err(error) }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".into())
}
