//! Drives one log forward: takes its inputs, runs its tasks, and writes down what becomes true.
//!
//! Invariants:
//! - A result counts only once its record is stored.
//! - Tasks of a step run at the same time and read one snapshot.
//! - A failed task lets its siblings finish; then its graph has failed.
//! - Absent on purpose: retry and timeouts of nodes, interrupts, the dataflow schedule.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{Instrument as _, Span};

use crate::journal::{Input, JournalError, Lease};
use crate::node::{Node, NodeError, Outcome, Work};
use crate::run::context::{Command, Cx};
use crate::run::end;
use crate::run::frame::{Frame, TaskResult};
use crate::run::record::{EndStatus, Fact, RunError};
use crate::run::settle::Settled;
use crate::run::shared::{LEASE, Shared};
use crate::run::start;
use crate::run::writer::Writer;
use crate::span;

/// How often a run may be taken over without getting on before it is left to a person.
const CRASHES_MAX: u32 = 3;

/// What reaches a driver from its process.
#[derive(Clone)]
pub(crate) struct Signals {
    /// Something was sent to the log.
    pub inbox: Arc<Notify>,
    /// True: give the log back as it is.
    pub hand_back: watch::Receiver<bool>,
}

/// Drives a claimed log until nothing is left to do, or until it must be given back.
pub(crate) async fn drive(
    shared: Arc<Shared>,
    lease: Lease,
    signals: Signals,
) -> Result<(), JournalError> {
    let mut writer = start::open(&shared, &lease).await?;
    loop {
        if writer.log.run.is_some() {
            let mut driver = Driver::new(shared.clone(), writer, signals.clone());
            driver.run().await?;
            writer = driver.writer;
        }
        if *signals.hand_back.borrow() || !start::next(&shared, &mut writer).await? {
            return shared.journal.release(&writer.lease).await;
        }
    }
}

type Running = BoxFuture<'static, Finished>;

struct Finished {
    path: Arc<str>,
    took: Duration,
    outcome: Result<Outcome, NodeError>,
}

/// Something that has begun: its span, and when on the monotonic clock.
pub(super) struct Begun {
    pub(super) span: Span,
    pub(super) at: Duration,
}

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Writer,
    signals: Signals,
    tasks: FuturesUnordered<Running>,
    commands: (mpsc::Sender<Command>, mpsc::Receiver<Command>),
    /// The run under the empty path, and the tasks that are live.
    pub(super) live: BTreeMap<Arc<str>, Begun>,
}

impl Driver {
    fn new(shared: Arc<Shared>, writer: Writer, signals: Signals) -> Self {
        let tasks = FuturesUnordered::new();
        let commands = mpsc::channel(256);
        Self { shared, writer, signals, tasks, commands, live: BTreeMap::new() }
    }

    /// Runs until the run has ended or is given back.
    async fn run(&mut self) -> Result<(), JournalError> {
        self.open_span();
        if let Some(reason) = self.attention() {
            return self.end(EndStatus::NeedsAttention, Some(reason)).await;
        }
        self.advance().await?;
        let mut renewal = tokio::time::interval(LEASE / 3);
        renewal.reset();
        let deadline = tokio::time::sleep(self.time_left());
        tokio::pin!(deadline);
        // The log may have received a cancel before this driver listened.
        self.signals.inbox.notify_one();
        while self.writer.log.run.is_some() {
            tokio::select! {
                biased;
                Some(command) = self.commands.1.recv() => self.obey(command).await?,
                Some(finished) = self.tasks.next() => self.finished(finished).await?,
                () = self.signals.inbox.notified() => self.look_for_cancel().await?,
                () = &mut deadline => {
                    let limit = NodeError::Limit("the run took longer than `limits.timeout`".into());
                    self.end(EndStatus::Failed, Some(end::explain(None, &limit))).await?;
                }
                _ = renewal.tick() => self.writer.renew().await?,
                Ok(()) = self.signals.hand_back.changed() => return self.hand_back().await,
            }
        }
        Ok(())
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
        self.begun("".into(), span);
    }

    fn span(&self, path: &str) -> Span {
        self.live.get(path).map_or_else(Span::none, |b| b.span.clone())
    }

    fn begun(&mut self, path: Arc<str>, span: Span) {
        let at = self.shared.services.env.monotonic();
        self.live.insert(path, Begun { span, at });
    }

    /// Why the run must wait for a person, if it must.
    fn attention(&self) -> Option<RunError> {
        let run = self.writer.log.run.as_ref()?;
        if run.crashes >= CRASHES_MAX {
            return Some(end::poison(run.crashes));
        }
        run.root.as_ref().and_then(end::open_unsafe_call)
    }

    /// Until `limits.timeout`; without one, longer than any process lives.
    fn time_left(&self) -> Duration {
        const FOREVER: Duration = Duration::from_hours(24 * 365);
        let limit = self.frame().and_then(|f| f.graph.limits.timeout);
        let Some((limit, run)) = limit.zip(self.writer.log.run.as_ref()) else { return FOREVER };
        let now = self.shared.services.env.now().as_millisecond();
        let gone = u64::try_from(now - run.began_ms).unwrap_or(0);
        limit.saturating_sub(Duration::from_millis(gone)).min(FOREVER)
    }

    /// Does what tasks ask, as much as has come in, in one append.
    async fn obey(&mut self, first: Command) -> Result<(), JournalError> {
        let mut command = Some(first);
        while let Some(next) = command {
            match next {
                Command::Intent(intent, ack) => {
                    self.writer.push(Fact::Intent(intent))?;
                    self.writer.acknowledge(ack);
                }
                Command::Delta { task, call, shown, delta } => {
                    self.writer.delta(&task, &call, shown, &delta).await?;
                }
                Command::Called { called, message, ack } => {
                    if let Some(message) = message {
                        let shown = called.shown || self.shows(&called.task);
                        self.writer.message(message, shown);
                    }
                    self.writer.called(*called)?;
                    self.writer.acknowledge(ack);
                }
            }
            command = self.commands.1.try_recv().ok();
        }
        self.writer.flush().await
    }

    /// Whether the graph that a task belongs to talks to the user.
    fn shows(&mut self, task: &str) -> bool {
        let outer = task.rsplit_once('/').map_or("", |(outer, _)| outer);
        self.frame_mut().and_then(|f| f.frame_mut(outer)).is_some_and(|f| f.graph.shown)
    }

    /// Takes in the end of a task, and of all others that have ended by now.
    async fn finished(&mut self, first: Finished) -> Result<(), JournalError> {
        let mut finished = Some(first);
        while let Some(Finished { path, took, outcome }) = finished {
            if let Some(begun) = self.live.remove(&path) {
                span::node_ended(&begun.span, outcome.as_ref().err());
            }
            let result = result(outcome, took);
            if let Some(task) = self.frame_mut().and_then(|f| f.task_mut(&path)) {
                task.result = Some(result);
            }
            finished = self.tasks.next().now_or_never().flatten();
        }
        self.advance().await
    }

    /// Commits every step that is complete, stores what ended before its siblings, and launches
    /// what can run.
    async fn advance(&mut self) -> Result<(), JournalError> {
        loop {
            match self.settle("")? {
                Settled::Waiting => {}
                Settled::Moved => continue,
                Settled::Finished => return self.end(EndStatus::Finished, None).await,
                Settled::Failed(task, error) => {
                    let error = end::explain(task.as_deref(), &error);
                    return self.end(EndStatus::Failed, Some(error)).await;
                }
            }
            break;
        }
        self.store_early()?;
        if self.writer.pending() {
            self.writer.flush().await?;
        }
        self.launch();
        Ok(())
    }

    /// Starts every task that can run and does not.
    fn launch(&mut self) {
        let Some(run) = self.writer.log.run.as_ref() else { return };
        let Some(program) = self.writer.program.clone() else { return };
        let Some(root) = &run.root else { return };
        let mut ready: Vec<(Arc<dyn Node>, Cx, Arc<crate::state::State>)> = Vec::new();
        let mut spans = Vec::new();
        root.walk_live(&mut |frame, task| {
            if self.live.contains_key(&task.path) {
                return;
            }
            let node = &frame.graph.nodes[task.node];
            spans.push((frame.path.clone(), task.path.clone(), node.name.clone(), node.kind));
            if let Work::Leaf(work) = &node.work {
                let cx = Cx {
                    services: self.shared.services.clone(),
                    program: program.clone(),
                    started: run.started.clone(),
                    scope: frame.scope.clone(),
                    task: task.path.clone(),
                    replies: task.replies.clone(),
                    commands: self.commands.0.clone(),
                };
                ready.push((work.clone(), cx, frame.state.clone()));
            }
        });
        for (outer, path, name, kind) in spans {
            let span = span::node(&self.span(&outer), &name, kind, &path);
            self.begun(path, span);
        }
        for (node, cx, state) in ready {
            let span = self.span(&cx.task);
            self.tasks.push(Box::pin(run_task(node, cx, state).instrument(span)));
        }
    }

    async fn look_for_cancel(&mut self) -> Result<(), JournalError> {
        let Some(run) = self.writer.log.run.as_ref().map(|r| r.started.run.clone()) else {
            return Ok(());
        };
        let mut cancelled = false;
        for (id, input) in self.shared.journal.inbox(&self.writer.lease.log).await? {
            if input == (Input::Cancel { run: run.clone() }) {
                self.writer.consume(id);
                cancelled = true;
            }
        }
        if cancelled { self.end(EndStatus::Cancelled, None).await } else { Ok(()) }
    }

    /// Ends the run: stops its tasks (dropping them closes their connections), answers what is
    /// left unanswered, and writes the last record.
    async fn end(
        &mut self,
        status: EndStatus,
        error: Option<RunError>,
    ) -> Result<(), JournalError> {
        self.tasks.clear();
        self.commands = mpsc::channel(256);
        if let Some(begun) = self.live.get("") {
            span::workflow_ended(&begun.span, error.as_ref());
        }
        self.live.clear();
        if status == EndStatus::Failed {
            self.store_early()?;
        }
        end::close(&self.shared, &mut self.writer, status, error)?;
        self.writer.flush().await?;
        self.shared.live.reset(&self.writer.lease.log).await;
        Ok(())
    }

    async fn hand_back(&mut self) -> Result<(), JournalError> {
        self.tasks.clear();
        self.live.clear();
        self.writer.push(Fact::Handed {})?;
        self.writer.flush().await?;
        self.shared.live.reset(&self.writer.lease.log).await;
        Ok(())
    }
}

/// A task's result, from what its node gave.
pub(super) fn result(outcome: Result<Outcome, NodeError>, took: Duration) -> TaskResult {
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match outcome {
        Ok(Outcome { writes }) => TaskResult { took_ms, writes, ..Default::default() },
        Err(error) => TaskResult { took_ms, error: Some(error), ..Default::default() },
    }
}

/// Runs one task; a panic in it is a failure of the task, not of the process.
async fn run_task(node: Arc<dyn Node>, cx: Cx, state: Arc<crate::state::State>) -> Finished {
    let env = cx.services.env.clone();
    let path = cx.task.clone();
    let began = env.monotonic();
    let work = std::panic::AssertUnwindSafe(async { node.run(&cx, &state).await }).catch_unwind();
    let outcome = work.await.unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned());
        Err(NodeError::Internal(what.unwrap_or_else(|| "a panic without words".into())))
    });
    Finished { path, took: env.monotonic().saturating_sub(began), outcome }
}
