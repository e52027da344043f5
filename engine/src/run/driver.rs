//! Drives one log forward: takes its inputs, runs its tasks, and writes down what becomes true.
//!
//! Invariants:
//! - A result counts only once its record is stored.
//! - A failed task lets its siblings finish; then its graph has failed.
//! - What reaches nothing is computed where the driver stands, several steps to an append: nobody
//!   sees one before it is stored, and one that is lost is computed again. Before a task begins that
//!   may reach something, all that was written down is stored.
//! - Other tasks run beside the driver, and end with it.
//! - Cancels, answers, limits and the end of the process are looked at after at most [`STRIDE`]
//!   steps that need no waiting, and no turn of the loop takes longer than [`SLICE`] but by one
//!   poll of one task: tasks that never wait keep nobody waiting, in this run or another.
//! - A run whose live tasks all wait for people is let go of until somebody answers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::graph::GraphNode;
use crate::id::RunId;
use crate::journal::{JournalError, ReleaseInfo};
use crate::node::{Done, NodeError, Outcome, Work};
use crate::observer::NodeEnd;
use crate::run::attempt::Finished;
use crate::run::commands::Commands;
use crate::run::end;
use crate::run::inbox::{self, Course};
use crate::run::instance::GraphInstance;
use crate::run::launch::HandedOut;
use crate::run::leases::HeldLease;
use crate::run::record::{Called, EndStatus, Fact, RunError, Waiting};
use crate::run::settle::{Depth, RunEnd, depth};
use crate::run::shared::Shared;
use crate::run::start;
use crate::run::task::{Failure, TaskResult, split};
use crate::run::trials::{Arrival, Trial};
use crate::run::writer::Writer;
use crate::run::writes::admit;
use crate::span;

/// How long a driver goes on before it lets others have its thread.
const SLICE: Duration = Duration::from_millis(1);

/// How often it goes on with what needs no waiting before it looks at what reaches it from outside,
/// which costs as much as a short step.
const STRIDE: usize = 64;

/// How many moves are made before the clock is looked at; what is computed looks at it by itself.
const LOOK: u32 = 8;

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
    held: Arc<HeldLease>,
    signals: Signals,
    arrival: Arrival,
) -> Result<(), JournalError> {
    let driven = drive_on(&shared, &held, signals, arrival).await;
    // Before the lease is given back: whoever claims the log next says so after that.
    shared.live.end(&held.lease).await;
    shared.journal.release(&held.lease, &driven?).await
}

async fn drive_on(
    shared: &Arc<Shared>,
    held: &Arc<HeldLease>,
    mut signals: Signals,
    arrival: Arrival,
) -> Result<ReleaseInfo, JournalError> {
    let mut writer = tokio::select! {
        writer = start::open(shared, held, arrival) => writer?,
        // It is given back as it was found.
        Ok(_) = signals.hand_back.wait_for(|back| *back) => return Ok(ReleaseInfo::default()),
    };
    loop {
        if writer.log.run.as_ref().is_some_and(|run| run.waiting.is_none()) {
            let mut driver = Driver::new(shared.clone(), writer, signals.clone());
            driver.run().await?;
            writer = driver.writer;
        }
        let mut seen = None;
        if *signals.hand_back.borrow() || !inbox::take(shared, &mut writer, &mut seen).await? {
            let rest = ReleaseInfo { wake_ms: inbox::next_expiry(&writer), seen };
            if let Some(log) = writer.into_stored() {
                shared.kept.put(&held.lease.log, log);
            }
            return Ok(rest);
        }
    }
}

/// Longer than any process lives.
const FOREVER: Duration = Duration::from_hours(24 * 365);

/// A task that runs, or the run itself.
pub(super) struct RunningTask {
    pub(super) span: Span,
    /// When its attempt began or begins, on the monotonic clock.
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
    answer: Awaited,
    /// Its result may be taken again.
    caches: bool,
}

/// Whether a task waits for the answer to a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Awaited {
    /// It does not.
    #[default]
    No,
    /// It does.
    Yes,
    /// One came since it was launched, which it has not seen.
    Came,
}

impl RunningTask {
    /// `at`: when its attempt begins, on the monotonic clock. `node`: what it is a task of; `None`
    /// for the run.
    pub(super) fn new(span: Span, at: Duration, node: Option<&GraphNode>) -> Self {
        let (abort, pulse, calls, answer) = Default::default();
        let leaf = node.is_some_and(|node| matches!(node.work, Work::Pure(_) | Work::Leaf(_)));
        let caches = node.is_some_and(|node| node.policy.cache.is_some());
        let kind = node.map_or("graph", |node| node.kind);
        Self { span, at, abort, pulse, kind, calls, leaf, answer, caches }
    }

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
    /// Those that run beside the driver.
    tasks: JoinSet<Finished>,
    pub(super) commands: Commands,
    /// The run under the empty path, and the tasks that are live.
    pub(super) live: BTreeMap<Arc<str>, RunningTask>,
    /// Tasks that do work of their own right now.
    working: usize,
    /// Instances in which something happened, to be settled, the innermost first. One may stand
    /// here more than once.
    touched: BinaryHeap<Depth>,
    /// Tasks that may be launched, in order.
    pub(super) ready: VecDeque<Arc<str>>,
    /// Tasks that have ended and may have no record of that.
    pub(super) unrecorded: Vec<Arc<str>>,
    /// Items of lists that were handed out, by the path of the list's task.
    pub(super) items: BTreeMap<Arc<str>, HandedOut>,
    /// What is asked changed: another question may expire next.
    pub(super) asked: bool,
    /// When the driver's turn began, on the monotonic clock.
    turn: Duration,
    /// What that clock said when it was last read.
    pub(super) clock: Duration,
}

impl Driver {
    fn new(shared: Arc<Shared>, writer: Writer, signals: Signals) -> Self {
        let now = shared.services.env.monotonic();
        Self {
            turn: now,
            clock: now,
            shared,
            writer,
            signals,
            tasks: JoinSet::new(),
            commands: Commands::default(),
            live: BTreeMap::new(),
            working: 0,
            touched: BinaryHeap::new(),
            ready: VecDeque::new(),
            unrecorded: Vec::new(),
            items: BTreeMap::new(),
            asked: false,
        }
    }

    /// Runs until the run has ended, waits for somebody, or is given back.
    async fn run(&mut self) -> Result<(), JournalError> {
        self.open();
        self.stride().await?;
        let deadline = tokio::time::sleep(self.time_left());
        let expiry = tokio::time::sleep(self.expiry_left());
        tokio::pin!(deadline, expiry);
        // The log may have received something before this driver listened.
        self.signals.inbox.notify_one();
        let held = self.writer.held.clone();
        while self.goes_on() {
            self.take_turns().await;
            let lived = self.writer.trial.as_ref().map(Trial::lived);
            if std::mem::take(&mut self.asked) {
                expiry.set(tokio::time::sleep(self.expiry_left()));
            }
            tokio::select! {
                biased;
                () = held.lost() => return Err(JournalError::Fenced(held.lease.log.clone())),
                Ok(()) = self.signals.hand_back.changed() => return self.hand_back().await,
                () = &mut deadline => return self.out_of_time().await,
                () = cancelled(lived) => self.lived().await?,
                () = self.signals.inbox.notified() => self.look_into_inbox().await?,
                () = &mut expiry => self.expire().await?,
                appended = self.writer.appended() => self.writer.finish_append(appended).await?,
                command = self.commands.next() => self.obey(command).await?,
                () = std::future::ready(()), if self.is_unsettled() => self.advance().await?,
                Some(finished) = self.tasks.join_next() => self.finished(finished.ok()).await?,
                // No task has ended that is not taken in.
                () = std::future::ready(()), if self.is_unstored() || self.is_idle() => {
                    self.rest().await?;
                }
            }
            self.stride().await?;
        }
        Ok(())
    }

    /// Goes on for as long as nothing has to be waited for, within the driver's turn.
    async fn stride(&mut self) -> Result<(), JournalError> {
        for _ in 0..STRIDE {
            if !self.goes_on() || self.turn_is_over() {
                break;
            }
            if self.is_unsettled() {
                self.advance().await?;
            } else if let Some(finished) = self.tasks.try_join_next() {
                self.finished(finished.ok()).await?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Its trial is over, and the process lives.
    async fn lived(&mut self) -> Result<(), JournalError> {
        self.writer.push(Fact::Lived {})?;
        self.writer.store_all().await?;
        self.writer.trial = None;
        Ok(())
    }

    /// Lets others have the thread, once this driver has had it for long enough.
    async fn take_turns(&mut self) {
        tokio::task::coop::consume_budget().await;
        let env = self.shared.services.env.clone();
        if env.monotonic().saturating_sub(self.turn) >= SLICE {
            tokio::task::yield_now().await;
            self.turn = env.monotonic();
        }
    }

    /// Whether others wait for the thread.
    fn turn_is_over(&self) -> bool {
        self.shared.services.env.monotonic().saturating_sub(self.turn) >= SLICE
    }

    pub(super) fn goes_on(&self) -> bool {
        self.writer.log.run.as_ref().is_some_and(|run| run.waiting.is_none())
    }

    /// The run's own graph.
    pub(super) fn root(&self) -> Option<&GraphInstance> {
        self.writer.log.run.as_ref()?.root.as_ref()
    }

    pub(super) fn root_mut(&mut self) -> Option<&mut GraphInstance> {
        self.writer.log.run.as_mut()?.root.as_mut()
    }

    pub(super) fn instance(&self, path: &str) -> Option<&GraphInstance> {
        self.root()?.instance(path)
    }

    /// Notes that something happened in the instance at `path`.
    pub(super) fn touch(&mut self, path: &Arc<str>) {
        let touched = depth(path);
        if self.touched.peek() != Some(&touched) {
            self.touched.push(touched);
        }
    }

    fn is_unsettled(&self) -> bool {
        !self.touched.is_empty() || !self.ready.is_empty()
    }

    fn is_unstored(&self) -> bool {
        !self.unrecorded.is_empty() || self.writer.pending()
    }

    /// Whether no task does anything.
    fn is_idle(&self) -> bool {
        self.working == 0 && self.commands.is_empty() && !self.is_unsettled()
    }

    /// Opens the run's span, and makes ready what can run.
    fn open(&mut self) {
        let Some(run) = &self.writer.log.run else { return };
        let span = span::invoke_workflow(&run.started);
        if let Some(traceparent) = &run.started.traceparent {
            self.shared.services.trace.adopt(&span, traceparent);
        }
        let tasks = run.root.as_ref().map(|root| &root.tasks);
        let ready = tasks.into_iter().flat_map(crate::run::task::Tasks::iter);
        self.ready = ready.filter(|t| !t.has_ended()).map(|t| t.path.clone()).collect();
        let running = RunningTask::new(span, self.clock, None);
        self.live.insert("".into(), running);
        self.touch(&"".into());
    }

    pub(super) fn span(&self, path: &str) -> Option<&Span> {
        self.live.get(path).map(|running| &running.span)
    }

    /// Adds the future of a task that has begun.
    pub(super) fn spawn(
        &mut self,
        path: &Arc<str>,
        pulse: Arc<Notify>,
        work: impl Future<Output = Finished> + Send + 'static,
    ) {
        let Some(running) = self.live.get_mut(path) else { return };
        let abort = self.tasks.spawn(work.instrument(running.span.clone()));
        (running.abort, running.pulse) = (Some(abort), Some(pulse));
        self.working += usize::from(running.leaf);
    }

    /// Until `limits.timeout`.
    fn time_left(&self) -> Duration {
        self.limit_left().unwrap_or(FOREVER).min(FOREVER)
    }

    /// Until `limits.timeout`; `None` without one.
    pub(super) fn limit_left(&self) -> Option<Duration> {
        let limit = self.root()?.graph.limits.run_timeout();
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
        let failure = Failure { error: limit, path: "".into() };
        self.end(EndStatus::Failed, Some(end::explain(&failure)), None).await
    }

    /// Questions whose time is over have their answer.
    async fn expire(&mut self) -> Result<(), JournalError> {
        self.asked = true;
        inbox::expire(&self.shared, &mut self.writer)?;
        self.take_answers();
        self.writer.flush().await
    }

    /// Takes in the end of a task, and of others that have ended by now.
    async fn finished(&mut self, first: Option<Finished>) -> Result<(), JournalError> {
        let mut next = Some(first);
        while let Some(finished) = next {
            if let Some(finished) = finished {
                self.take_end(finished).await?;
            }
            if self.turn_is_over() {
                break;
            }
            next = self.tasks.try_join_next().map(Result::ok);
        }
        Ok(())
    }

    async fn take_end(&mut self, finished: Finished) -> Result<(), JournalError> {
        let Finished { path, took, outcome } = finished;
        let Some(running) = self.live.get(&path) else { return Ok(()) };
        let leaf = running.leaf;
        self.working -= usize::from(leaf);
        // What it asked before it ended is written first: it happened.
        while let Some(command) = self.commands.take() {
            self.take_command(command).await?;
        }
        match outcome {
            Ok(Outcome::Suspend(_)) => self.suspend(&path),
            Ok(Outcome::Done(done)) => return self.end_task(&path, took, self.admit(&path, done)),
            Err(error) => {
                if !leaf {
                    self.stop_inside(&path);
                }
                self.close_calls(&path)?;
                let failure = Arc::new(Failure { error, path: path.clone() });
                return self.end_task(&path, took, Err(failure));
            }
        }
        Ok(())
    }

    /// What a node wants to write, completed and checked.
    pub(super) fn admit(&self, path: &Arc<str>, done: Done) -> Result<Done, Arc<Failure>> {
        let Some(run) = &self.writer.log.run else { return Ok(done) };
        let Some(instance) = self.instance(split(path).0) else { return Ok(done) };
        let place = (&run.started.run, &**path);
        let writes = admit(done.writes, &instance.graph.channels, place, self.shared.limits());
        let fail = |error| Arc::new(Failure { error, path: path.clone() });
        Ok(Done { writes: writes.map_err(fail)?, goto: done.goto })
    }

    /// The task waits for an answer, unless one came while it ran, which it did not see.
    fn suspend(&mut self, path: &Arc<str>) {
        if self.live.get(path).is_some_and(|running| running.answer == Awaited::Came) {
            self.live.remove(path);
            self.ready.push_back(path.clone());
        } else if let Some(running) = self.live.get_mut(path) {
            running.answer = Awaited::Yes;
        }
    }

    /// Ends an attempt: another one follows, or the task has its result.
    pub(super) fn end_task(
        &mut self,
        path: &Arc<str>,
        took: Duration,
        done: Result<Done, Arc<Failure>>,
    ) -> Result<(), JournalError> {
        let running = self.live.remove(path);
        if let Some(running) = &running {
            running.stop();
        }
        self.items.remove(path);
        self.conclude(path, running.as_ref(), took, done)
    }

    /// Takes in what an attempt came to.
    pub(super) fn conclude(
        &mut self,
        path: &Arc<str>,
        running: Option<&RunningTask>,
        took: Duration,
        done: Result<Done, Arc<Failure>>,
    ) -> Result<(), JournalError> {
        let error = done.as_ref().err().map(|failure| failure.error.clone());
        if let Some(running) = running {
            span::node_ended(&running.span, error.as_ref());
            self.observe(path, running, took, error.as_ref());
        }
        match (&error, &done) {
            (Some(error), _) if self.retry(path, error)? => return Ok(()),
            (_, Ok(done)) if running.is_some_and(|running| running.caches) => {
                self.keep(path, done);
            }
            (_, Ok(_) | Err(_)) => {}
        }
        self.note_result(path, result(done, took));
        Ok(())
    }

    /// Notes how a task ended; its record follows.
    pub(super) fn note_result(&mut self, path: &Arc<str>, result: TaskResult) {
        let (outer, id) = split(path);
        let instance = self.root_mut().and_then(|root| root.instance_mut(outer).ok());
        let outer = instance.map_or_else(
            || outer.into(),
            |instance| {
                instance.end_task(id, result);
                instance.path.clone()
            },
        );
        if let Some(handed_out) = self.items.get_mut(&outer) {
            handed_out.ended();
        }
        self.unrecorded.push(path.clone());
        self.touch(&outer);
    }

    fn observe(&self, path: &str, task: &RunningTask, took: Duration, error: Option<&NodeError>) {
        let Some(run) = &self.writer.log.run else { return };
        let (model_calls, tool_calls) = task.calls;
        let id = path.rsplit('/').next().unwrap_or(path);
        self.shared.services.observer.node(&NodeEnd {
            graph: &run.started.graph,
            node: id.rsplit_once(':').map_or(id, |(node, _)| node),
            kind: task.kind,
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
            if let Some(running) = self.live.get_mut(path) {
                let (models, tools) = &mut running.calls;
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
            if let Some(running) = self.live.remove(&task) {
                running.stop();
                self.working -= usize::from(running.leaf && running.answer != Awaited::Yes);
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
                Some(running) if running.answer == Awaited::Yes => {
                    self.live.remove(&path);
                    self.ready.push_back(path);
                }
                Some(running) => running.answer = Awaited::Came,
                None => {}
            }
        }
    }

    /// Commits steps that are complete and launches what can run, as far as the driver's turn goes.
    async fn advance(&mut self) -> Result<(), JournalError> {
        self.clock = self.shared.services.env.monotonic();
        for moves in 1.. {
            if let Some(first) = self.touched.pop() {
                while self.touched.peek() == Some(&first) {
                    self.touched.pop();
                }
                let (_, Reverse(path)) = first;
                if let Some(end) = self.settle(&path)? {
                    return self.end_as(end).await;
                }
            } else if let Some(path) = self.ready.front() {
                if self.writer.pending() && self.reaches_out(path) {
                    self.store().await?;
                } else if let Some(path) = self.ready.pop_front() {
                    self.launch(&path)?;
                }
            } else {
                break;
            }
            if moves % LOOK == 0 {
                self.clock = self.shared.services.env.monotonic();
            }
            if self.clock.saturating_sub(self.turn) >= SLICE || self.writer.is_full() {
                break;
            }
        }
        match (self.writer.pending(), self.touched.is_empty()) {
            (false, _) => Ok(()),
            (true, true) => self.store().await,
            // What has ended here may end with its step: it needs no record of its own.
            (true, false) => self.writer.flush().await,
        }
    }

    /// Stores what was written down, and what ended before its siblings.
    async fn store(&mut self) -> Result<(), JournalError> {
        self.record_early()?;
        self.writer.flush().await
    }

    /// Stores what is left to store; then the run waits, if only people can do something.
    async fn rest(&mut self) -> Result<(), JournalError> {
        if self.is_unstored() {
            self.store().await?;
        }
        if self.goes_on() && self.is_idle() { self.wait().await } else { Ok(()) }
    }

    async fn end_as(&mut self, end: RunEnd) -> Result<(), JournalError> {
        match end {
            RunEnd::Finished => self.end(EndStatus::Finished, None, None).await,
            RunEnd::Failed(failure) => {
                self.end(EndStatus::Failed, Some(end::explain(&failure)), None).await
            }
        }
    }

    /// Every live task waits for a person.
    async fn wait(&mut self) -> Result<(), JournalError> {
        let Some(run) = &self.writer.log.run else { return Ok(()) };
        let asked: Vec<_> =
            run.root.as_ref().map(GraphInstance::open_questions).unwrap_or_default();
        if asked.is_empty() {
            let error = NodeError::Internal("nothing is left that could go on".into());
            let failure = Arc::new(Failure { error, path: "".into() });
            return self.end_as(RunEnd::Failed(failure)).await;
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
            Course::End(status, error, by) => self.end(status, error, by).await,
            Course::On if self.writer.pending() => {
                self.take_answers();
                self.writer.flush().await
            }
            Course::On => Ok(()),
        }
    }

    /// Drops every task: their connections close.
    fn stop(&mut self) {
        if !self.tasks.is_empty() {
            self.tasks = JoinSet::new();
        }
        self.commands = Commands::default();
        self.live.clear();
        self.working = 0;
        self.touched.clear();
        self.ready.clear();
        self.items.clear();
    }

    /// Ends the run: stops its tasks, answers what is left unanswered, and writes the last record.
    async fn end(
        &mut self,
        status: EndStatus,
        error: Option<RunError>,
        by: Option<RunId>,
    ) -> Result<(), JournalError> {
        if let (Some(running), Some(run)) = (self.live.get(""), &self.writer.log.run) {
            span::workflow_ended(&running.span, error.as_ref());
            let services = &self.shared.services;
            let (env, observer) = (&services.env, &services.observer);
            let cancelled = (status == EndStatus::Cancelled).then_some("cancelled");
            let why = error.as_ref().map(|error| error.code.as_str()).or(cancelled);
            let took = env.monotonic().saturating_sub(running.at);
            observer.run(&run.started.graph, took, why);
        }
        self.take_what_happened().await?;
        self.stop();
        if status == EndStatus::Failed {
            self.record_early()?;
        }
        end::close(&self.shared, &mut self.writer, status, error, by)?;
        self.writer.store_all().await
    }

    async fn hand_back(&mut self) -> Result<(), JournalError> {
        self.take_what_happened().await?;
        self.stop();
        self.record_early()?;
        self.writer.push(Fact::Handed {})?;
        self.writer.store_all().await
    }
}

/// Until a token is cancelled; for ever without one.
async fn cancelled(token: Option<CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// A task's result, from what its node gave.
pub(super) fn result(done: Result<Done, Arc<Failure>>, took: Duration) -> TaskResult {
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match done {
        Ok(Done { writes, goto }) => TaskResult { took_ms, writes, goto, ..Default::default() },
        Err(failure) => TaskResult { took_ms, failure: Some(failure), ..Default::default() },
    }
}
