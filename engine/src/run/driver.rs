//! Drives one log forward: takes its inputs, runs its tasks, and writes down what becomes true.
//!
//! Invariants:
//! - A result counts only once its record is stored.
//! - A failed task lets its siblings finish; then its graph has failed.
//! - Tasks run inside the driver's own future: while it writes, none of them moves, and dropping
//!   one closes its connections.
//! - A run whose live tasks all wait for people is let go of until somebody answers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{AbortHandle, BoxFuture, abortable};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{Instrument as _, Span};

use crate::id::RunId;
use crate::journal::{JournalError, Lease, Rest};
use crate::node::{Done, NodeError, Outcome};
use crate::observer::NodeEnd;
use crate::run::attempt::Finished;
use crate::run::context::Command;
use crate::run::end;
use crate::run::frame::{Frame, TaskResult, split};
use crate::run::inbox::{self, Verdict};
use crate::run::record::{Called, EndStatus, Fact, RunError, Waiting};
use crate::run::settle::Settled;
use crate::run::shared::Shared;
use crate::run::start;
use crate::run::writer::Writer;
use crate::span;

/// What reaches a driver from its process.
#[derive(Clone)]
pub(crate) struct Signals {
    /// Something was sent to the log.
    pub inbox: Arc<Notify>,
    /// True: give the log back as it is.
    pub hand_back: watch::Receiver<bool>,
}

/// Drives a claimed log until nothing is left to do, or until it must be given back. `held_until`
/// is when the lease lapses at the earliest, on the monotonic clock.
pub(crate) async fn drive(
    shared: Arc<Shared>,
    lease: Lease,
    held_until: Duration,
    signals: Signals,
) -> Result<(), JournalError> {
    let mut writer = start::open(&shared, &lease, held_until).await?;
    loop {
        if writer.log.run.as_ref().is_some_and(|run| run.waiting.is_none()) {
            let mut driver = Driver::new(shared.clone(), writer, signals.clone());
            driver.run().await?;
            writer = driver.writer;
        }
        let mut seen = None;
        if *signals.hand_back.borrow() || !inbox::take(&shared, &mut writer, &mut seen).await? {
            let rest = Rest { wake_ms: inbox::next_expiry(&writer), seen };
            return shared.journal.release(&writer.lease, &rest).await;
        }
    }
}

/// Longer than any process lives.
const FOREVER: Duration = Duration::from_hours(24 * 365);

type Running = BoxFuture<'static, Option<Finished>>;

/// Something that has begun.
pub(super) struct Begun {
    pub(super) span: Span,
    /// When, on the monotonic clock.
    pub(super) at: Duration,
    /// Ends its future.
    abort: Option<AbortHandle>,
    /// Tells its signs of life.
    pub(super) pulse: Option<Arc<Notify>>,
    /// The node's kind.
    kind: &'static str,
    /// Calls of models and of tools that ended inside of it.
    calls: (u32, u32),
    /// It does work of its own; else there is a graph inside.
    leaf: bool,
    /// It waits for an answer.
    suspended: bool,
    /// An answer came since it was launched.
    answered: bool,
}

impl Begun {
    fn stop(&self) {
        if let Some(abort) = &self.abort {
            abort.abort();
        }
    }
}

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Writer,
    signals: Signals,
    tasks: FuturesUnordered<Running>,
    pub(super) commands: (mpsc::Sender<Command>, mpsc::Receiver<Command>),
    /// The run under the empty path, and the tasks that are live.
    pub(super) live: BTreeMap<Arc<str>, Begun>,
    /// Tasks that do work of their own right now.
    working: usize,
    /// What is asked changed: another question may expire next.
    pub(super) asked: bool,
}

impl Driver {
    fn new(shared: Arc<Shared>, writer: Writer, signals: Signals) -> Self {
        let (tasks, commands) = (FuturesUnordered::new(), mpsc::channel(256));
        let (live, working, asked) = (BTreeMap::new(), 0, false);
        Self { shared, writer, signals, tasks, commands, live, working, asked }
    }

    /// Runs until the run has ended, waits for somebody, or is given back.
    async fn run(&mut self) -> Result<(), JournalError> {
        self.open_span();
        self.advance().await?;
        let mut renewal = tokio::time::interval(self.shared.lease / 3);
        renewal.reset();
        let deadline = tokio::time::sleep(self.time_left());
        let expiry = tokio::time::sleep(self.expiry_left());
        tokio::pin!(deadline, expiry);
        // The log may have received something before this driver listened.
        self.signals.inbox.notify_one();
        while self.goes_on() {
            if std::mem::take(&mut self.asked) {
                expiry.set(tokio::time::sleep(self.expiry_left()));
            }
            tokio::select! {
                biased;
                Some(command) = self.commands.1.recv() => self.obey(command).await?,
                Some(finished) = self.tasks.next() => self.finished(finished).await?,
                landed = self.writer.landing() => landed?,
                () = self.signals.inbox.notified() => self.look_into_inbox().await?,
                () = &mut deadline => return self.out_of_time().await,
                () = &mut expiry => self.expire().await?,
                _ = renewal.tick() => self.writer.renew().await?,
                Ok(()) = self.signals.hand_back.changed() => return self.hand_back().await,
            }
        }
        Ok(())
    }

    fn goes_on(&self) -> bool {
        self.writer.log.run.as_ref().is_some_and(|run| run.waiting.is_none())
    }

    pub(super) fn frame(&self) -> Option<&Frame> {
        self.writer.log.run.as_ref()?.root.as_ref()
    }

    pub(super) fn frame_mut(&mut self) -> Option<&mut Frame> {
        self.writer.log.run.as_mut()?.root.as_mut()
    }

    fn open_span(&mut self) {
        let Some(run) = &self.writer.log.run else { return };
        let span = span::invoke_workflow(&run.started);
        if let Some(traceparent) = &run.started.traceparent {
            self.shared.services.trace.adopt(&span, traceparent);
        }
        self.begun("".into(), span, "graph", false);
    }

    pub(super) fn span(&self, path: &str) -> Span {
        self.live.get(path).map_or_else(Span::none, |b| b.span.clone())
    }

    pub(super) fn begun(&mut self, path: Arc<str>, span: Span, kind: &'static str, leaf: bool) {
        let at = self.shared.services.env.monotonic();
        let (abort, pulse, calls, suspended, answered) = Default::default();
        let begun = Begun { span, at, abort, pulse, kind, calls, leaf, suspended, answered };
        self.live.insert(path, begun);
    }

    /// Adds the future of a task that has begun.
    pub(super) fn spawn(
        &mut self,
        path: &Arc<str>,
        pulse: Arc<Notify>,
        work: impl Future<Output = Finished> + Send + 'static,
    ) {
        let Some(begun) = self.live.get_mut(path) else { return };
        let (work, abort) = abortable(work.instrument(begun.span.clone()));
        (begun.abort, begun.pulse) = (Some(abort), Some(pulse));
        (begun.suspended, begun.answered) = (false, false);
        self.working += usize::from(begun.leaf);
        self.tasks.push(Box::pin(async { work.await.ok() }));
    }

    /// Until `limits.timeout`.
    fn time_left(&self) -> Duration {
        self.limit_left().unwrap_or(FOREVER).min(FOREVER)
    }

    /// Until `limits.timeout`; `None` without one.
    pub(super) fn limit_left(&self) -> Option<Duration> {
        let limit = self.frame()?.graph.limits.timeout?;
        let run = self.writer.log.run.as_ref()?;
        let spent = run.spent_ms(self.shared.services.env.now().as_millisecond());
        Some(limit.saturating_sub(Duration::from_millis(spent)))
    }

    /// Until the next question expires. A timer may fire a little before the wall clock says so,
    /// so there is always something left to wait for.
    fn expiry_left(&self) -> Duration {
        let Some(at) = inbox::next_expiry(&self.writer) else { return FOREVER };
        let now = self.shared.services.env.now().as_millisecond();
        let left = u64::try_from(at.saturating_sub(now)).unwrap_or(0).max(1);
        Duration::from_millis(left).min(FOREVER)
    }

    /// `limits.timeout` ends the run.
    async fn out_of_time(&mut self) -> Result<(), JournalError> {
        let limit = NodeError::Limit("the run took longer than `limits.timeout`".into());
        let error = end::explain(None, &limit);
        self.end(EndStatus::Failed, Some(error), None).await
    }

    /// Questions whose time is over have their answer.
    async fn expire(&mut self) -> Result<(), JournalError> {
        self.asked = true;
        inbox::expire(&self.shared, &mut self.writer)?;
        self.take_answers();
        self.advance().await
    }

    /// Takes in the end of a task, and of all others that have ended by now.
    async fn finished(&mut self, first: Option<Finished>) -> Result<(), JournalError> {
        let mut next = Some(first);
        while let Some(finished) = next {
            if let Some(finished) = finished {
                self.take_end(finished).await?;
            }
            next = self.tasks.next().now_or_never().flatten();
        }
        self.advance().await
    }

    async fn take_end(&mut self, finished: Finished) -> Result<(), JournalError> {
        let Finished { path, took, outcome } = finished;
        let Some(begun) = self.live.get(&path) else { return Ok(()) };
        let leaf = begun.leaf;
        self.working -= usize::from(leaf);
        // What it asked before it ended is written first: it happened.
        while let Ok(command) = self.commands.1.try_recv() {
            self.take_command(command).await?;
        }
        match outcome {
            Ok(Outcome::Suspend(_)) => self.suspend(&path),
            Ok(Outcome::Done(done)) => return self.end_task(&path, took, Ok(done)),
            Err(error) => {
                if !leaf {
                    self.stop_inside(&path);
                }
                self.close_calls(&path)?;
                return self.end_task(&path, took, Err(error));
            }
        }
        Ok(())
    }

    /// The task waits for an answer, unless one came while it ran, which it did not see.
    fn suspend(&mut self, path: &str) {
        if self.live.get(path).is_some_and(|begun| begun.answered) {
            self.live.remove(path);
        } else if let Some(begun) = self.live.get_mut(path) {
            begun.suspended = true;
        }
    }

    /// Ends an attempt: another one follows, or the task has its result.
    pub(super) fn end_task(
        &mut self,
        path: &Arc<str>,
        took: Duration,
        done: Result<Done, NodeError>,
    ) -> Result<(), JournalError> {
        if let Some(begun) = self.live.remove(path) {
            begun.stop();
            span::node_ended(&begun.span, done.as_ref().err());
            self.observe(path, &begun, took, done.as_ref().err());
        }
        match &done {
            Err(error) if self.retry(path, error)? => return Ok(()),
            Err(_) => {}
            Ok(done) => self.keep(path, done),
        }
        let result = result(done, took);
        if let Some(task) = self.frame_mut().and_then(|f| f.task_mut(path)) {
            task.result = Some(result);
        }
        Ok(())
    }

    fn observe(&self, path: &str, begun: &Begun, took: Duration, error: Option<&NodeError>) {
        let Some(run) = &self.writer.log.run else { return };
        let (model_calls, tool_calls) = begun.calls;
        let task = path.rsplit('/').next().unwrap_or(path);
        self.shared.services.observer.node(&NodeEnd {
            graph: &run.started.graph,
            node: task.rsplit_once(':').map_or(task, |(node, _)| node),
            kind: begun.kind,
            took,
            model_calls,
            tool_calls,
            error: error.map(NodeError::code),
        });
    }

    /// A call ended: it counts for its task and for every task around that.
    pub(super) fn count(&mut self, called: &Called) {
        let mut path = &*called.task;
        loop {
            if let Some(begun) = self.live.get_mut(path) {
                let (models, tools) = &mut begun.calls;
                *(if called.tool.is_some() { tools } else { models }) += 1;
            }
            match split(path).0 {
                "" => return,
                outer => path = outer,
            }
        }
    }

    /// Stops the tasks inside a task.
    fn stop_inside(&mut self, path: &Arc<str>) {
        let inside = format!("{path}/");
        let below = self.live.range::<str, _>((Bound::Excluded(&**path), Bound::Unbounded));
        let below: Vec<Arc<str>> = below
            .map(|(path, _)| path.clone())
            .take_while(|p| p.starts_with(&**path))
            .filter(|p| p.starts_with(&inside))
            .collect();
        for task in below {
            if let Some(begun) = self.live.remove(&task) {
                begun.stop();
                self.working -= usize::from(begun.leaf && !begun.suspended);
            }
        }
    }

    /// Answers arrived: tasks that wait for them run again.
    fn take_answers(&mut self) {
        let Some(root) = self.writer.log.run.as_ref().and_then(|run| run.root.as_ref()) else {
            return;
        };
        let mut again = Vec::new();
        root.walk_live(&mut |_, task| {
            if task.asks.values().any(|q| q.answer.is_some()) {
                again.push(task.path.clone());
            }
        });
        for path in again {
            match self.live.get_mut(&path) {
                Some(begun) if begun.suspended => {
                    self.live.remove(&path);
                }
                Some(begun) => begun.answered = true,
                None => {}
            }
        }
    }

    /// Commits every step that is complete, stores what ended before its siblings, and launches
    /// what can run.
    pub(super) async fn advance(&mut self) -> Result<(), JournalError> {
        loop {
            match self.settle("")? {
                Settled::Waiting => {}
                Settled::Moved => continue,
                Settled::Finished => return self.end(EndStatus::Finished, None, None).await,
                Settled::Failed(task, error) => {
                    let error = end::explain(task.as_deref(), &error);
                    return self.end(EndStatus::Failed, Some(error), None).await;
                }
            }
            if self.launch() {
                break;
            }
        }
        self.store_early()?;
        if self.writer.pending() {
            self.writer.flush().await?;
        }
        if self.working == 0 && self.commands.1.is_empty() { self.wait().await } else { Ok(()) }
    }

    /// Every live task waits for a person.
    async fn wait(&mut self) -> Result<(), JournalError> {
        let Some(run) = &self.writer.log.run else { return Ok(()) };
        let asked: Vec<_> = run.root.as_ref().map(Frame::open_questions).unwrap_or_default();
        if asked.is_empty() {
            let error = NodeError::Internal("nothing is left that could go on".into());
            return self.end(EndStatus::Failed, Some(end::explain(None, &error)), None).await;
        }
        let asked = asked.iter().map(|asked| crate::run::record::Asked::clone(asked)).collect();
        let run = run.started.run.clone();
        self.stop();
        let waiting = Waiting { run, asked, attention: None, open: Vec::new() };
        self.writer.push(Fact::Waiting(Box::new(waiting)))?;
        self.writer.store_all().await
    }

    async fn look_into_inbox(&mut self) -> Result<(), JournalError> {
        match inbox::while_running(&self.shared, &mut self.writer).await? {
            Verdict::End(status, error, by) => self.end(status, error, by).await,
            Verdict::On if self.writer.pending() => {
                self.take_answers();
                self.advance().await
            }
            Verdict::On => Ok(()),
        }
    }

    /// Drops every task: their connections close.
    fn stop(&mut self) {
        self.tasks.clear();
        self.commands = mpsc::channel(256);
        self.live.clear();
        self.working = 0;
    }

    /// Ends the run: stops its tasks, answers what is left unanswered, and writes the last record.
    async fn end(
        &mut self,
        status: EndStatus,
        error: Option<RunError>,
        by: Option<RunId>,
    ) -> Result<(), JournalError> {
        if let (Some(begun), Some(run)) = (self.live.get(""), &self.writer.log.run) {
            span::workflow_ended(&begun.span, error.as_ref());
            let services = &self.shared.services;
            let (env, observer) = (&services.env, &services.observer);
            let cancelled = (status == EndStatus::Cancelled).then_some("cancelled");
            let why = error.as_ref().map(|error| error.code.as_str()).or(cancelled);
            let took = env.monotonic().saturating_sub(begun.at);
            observer.run(&run.started.graph, took, why);
        }
        self.stop();
        if status == EndStatus::Failed {
            self.store_early()?;
        }
        end::close(&self.shared, &mut self.writer, status, error, by)?;
        self.writer.store_all().await?;
        self.shared.live.reset(&self.writer.lease.log).await;
        Ok(())
    }

    async fn hand_back(&mut self) -> Result<(), JournalError> {
        self.stop();
        self.writer.push(Fact::Handed {})?;
        self.writer.store_all().await?;
        self.shared.live.reset(&self.writer.lease.log).await;
        Ok(())
    }

    /// The tasks that are live, by path, so that others are launched.
    pub(super) fn lives(&self, path: &str) -> bool {
        self.live.contains_key(path)
    }
}

/// A task's result, from what its node gave.
pub(super) fn result(done: Result<Done, NodeError>, took: Duration) -> TaskResult {
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match done {
        Ok(Done { writes, goto }) => TaskResult { took_ms, writes, goto, ..Default::default() },
        Err(error) => TaskResult { took_ms, error: Some(error), ..Default::default() },
    }
}
