//! What each fact does to a graph that is running, and which facts may not stand.
//!
//! Invariants:
//! - A fact about a task names one that is live; about a call, one that was begun.
//! - A task that is tried again forgets what failed and what models said; what tools did stands.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::graph::OnError;
use crate::node::NodeError;
use crate::run::context::Recorded;
use crate::run::instance::GraphInstance;
use crate::run::record::{
    Answered, Asked, Called, Edited, Fact, Intent, Reply, Resolved, Retried, Step, TaskDone,
};
use crate::run::task::{Answer, Failure, Question, Task, TaskResult, split};
use crate::run::writes::hydrate;
use crate::state::MessageMap;

impl GraphInstance {
    /// Applies a fact about tasks, here or further in.
    pub(super) fn apply(
        &mut self,
        fact: &Fact,
        at_ms: i64,
        messages: &MessageMap,
    ) -> Result<(), String> {
        match fact {
            Fact::Intent(intent) => self.intent(intent),
            Fact::Called(called) => self.called(called, messages),
            Fact::Asked(asked) => self.asked(asked),
            Fact::Answered(answered) => self.answered(answered, messages),
            Fact::Retried(retried) => self.retried(retried, at_ms),
            Fact::Done(done) => self.done(done, messages),
            Fact::Step(step) => self.instance_mut(&step.path)?.step(step, at_ms, messages),
            Fact::Resolved(resolved) => self.resolved(resolved),
            Fact::Edited(edited) => {
                self.instance_mut(&edited.path)?.edited(edited, at_ms, messages)
            }
            Fact::Resumed { .. } | Fact::Handed {} | Fact::Lived {} | Fact::Waiting(_) => Ok(()),
            Fact::Started(_)
            | Fact::Forked(_)
            | Fact::Migrated { .. }
            | Fact::Ended(_)
            | Fact::Snapshot { .. } => Err("not a fact of a task".to_owned()),
        }
    }

    fn live(&mut self, path: &str) -> Result<&mut Task, String> {
        let task = self.task_mut(path)?;
        if task.has_ended() {
            return Err(format!("task `{path}` has ended"));
        }
        Ok(task)
    }

    fn intent(&mut self, intent: &Intent) -> Result<(), String> {
        let task = self.live(&intent.task)?;
        task.void.remove(&intent.call);
        task.open.insert(intent.call.clone(), intent.clone());
        Ok(())
    }

    fn called(&mut self, called: &Called, messages: &MessageMap) -> Result<(), String> {
        if let Some(usage) = called.model.as_ref().and_then(|model| model.usage) {
            self.count_tokens(&called.task, usage.input.saturating_add(usage.output));
        }
        let task = self.live(&called.task)?;
        let (path, call) = (&called.task, &called.call);
        task.open.remove(call).ok_or(format!("call `{call}` of `{path}` was not begun"))?;
        let message = match &called.reply {
            Reply::Message { id, .. } => {
                Some(messages.get(id).cloned().ok_or(format!("message {id} is missing"))?)
            }
            _ => None,
        };
        let recorded = Recorded { called: Arc::new(called.clone()), message };
        Arc::make_mut(&mut task.replies).insert(call.clone(), recorded);
        Ok(())
    }

    fn asked(&mut self, asked: &Asked) -> Result<(), String> {
        let task = self.live(&asked.task)?;
        if task.asks.get(&asked.call).is_some_and(|q| q.answer.is_none()) {
            return Err(format!(
                "`{}` of `{}` waits for an answer already",
                asked.call, asked.task
            ));
        }
        let question = Question { asked: Arc::new(asked.clone()), answer: None };
        Arc::make_mut(&mut task.asks).insert(asked.call.clone(), question);
        Ok(())
    }

    fn answered(&mut self, answered: &Answered, messages: &MessageMap) -> Result<(), String> {
        let unknown = || format!("nobody asked {}", answered.interrupt);
        let path = self.who_asked(&answered.interrupt).ok_or_else(unknown)?;
        let task = self.live(&path)?;
        let mut questions = Arc::make_mut(&mut task.asks).values_mut();
        let question = questions.find(|q| q.asked.id == answered.interrupt).ok_or_else(unknown)?;
        if question.answer.is_some() {
            return Err(format!("{} was answered before", answered.interrupt));
        }
        let message = match &answered.message {
            Some(id) => Some(messages.get(id).cloned().ok_or(format!("message {id} is missing"))?),
            None => None,
        };
        let (value, expired) = (answered.value.clone(), answered.expired);
        question.answer = Some(Answer { value, message, expired });
        Ok(())
    }

    fn retried(&mut self, retried: &Retried, at_ms: i64) -> Result<(), String> {
        let (outer, id) = split(&retried.task);
        let wait = i64::try_from(retried.wait_ms).unwrap_or(i64::MAX);
        self.instance_mut(outer)?.again(id, retried.attempt, at_ms.saturating_add(wait))
    }

    fn done(&mut self, done: &TaskDone, messages: &MessageMap) -> Result<(), String> {
        let (outer, id) = split(&done.task);
        let instance = self.instance_mut(outer)?;
        instance.open_item(id);
        let writes = hydrate(&instance.graph, &done.writes, messages)?;
        let gone = || format!("no task `{}` is live", done.task);
        let task = instance.tasks.get(id).ok_or_else(gone)?;
        if task.result().is_some_and(|result| result.recorded) {
            return Err(format!("task `{}` has ended", done.task));
        }
        let TaskDone { took_ms, goto, cached, .. } = done.clone();
        let failure = done.error.as_ref().map(|error| {
            let path = done.failed_at.as_ref().unwrap_or(&done.task).clone();
            Arc::new(Failure { error: error.clone(), path })
        });
        let result = TaskResult { took_ms, writes, goto, failure, cached, recorded: true };
        instance.end_task(id, result).ok_or_else(gone)
    }

    fn step(&mut self, step: &Step, at_ms: i64, messages: &MessageMap) -> Result<(), String> {
        let handled = if self.is_dataflow() {
            let ids = step.done.iter().map(|done| &done.task).chain(&step.recorded);
            let ended: Vec<Task> = ids.filter_map(|id| self.tasks.remove(id)).collect();
            self.handled(ended.iter())
        } else {
            if let Some(task) = self.unended(step) {
                return Err(format!("task `{}` has not ended", task.path));
            }
            let handled = self.handled(self.tasks.failed());
            self.tasks.clear();
            handled
        };
        Arc::make_mut(&mut self.state).apply(&step.delta, messages).map_err(|e| e.to_string())?;
        self.begin(&step.activation, at_ms, &handled)
    }

    /// A task whose end neither `step` nor a record of its own says.
    fn unended(&self, step: &Step) -> Option<&Task> {
        let mut unrecorded = self.tasks.iter().filter(|t| !t.result().is_some_and(|r| r.recorded));
        if let [done] = &step.done[..] {
            return unrecorded.find(|task| *task.id != *done.task);
        }
        let listed: HashSet<&str> = step.done.iter().map(|done| &*done.task).collect();
        unrecorded.find(|task| !listed.contains(&*task.id))
    }

    fn resolved(&mut self, resolved: &Resolved) -> Result<(), String> {
        if resolved.task.is_empty() {
            return Ok(());
        }
        let task = self.live(&resolved.task)?;
        let gone = || format!("call `{}` of `{}` is not open", resolved.call, resolved.task);
        task.open.remove(&resolved.call).map(drop).ok_or_else(gone)
    }

    fn edited(&mut self, edited: &Edited, at_ms: i64, messages: &MessageMap) -> Result<(), String> {
        Arc::make_mut(&mut self.state).apply(&edited.delta, messages).map_err(|e| e.to_string())?;
        if let Some(activation) = &edited.activation {
            self.tasks.clear();
            return self.begin(activation, at_ms, &[]);
        }
        // What is live begins again from the changed state; what its calls gave stands.
        let state = self.state.clone();
        for task in self.tasks.iter_mut() {
            task.state = state.clone();
        }
        Ok(())
    }

    /// Makes the tasks live again that failed for good, however deep they lie.
    pub(super) fn begin_again(&mut self, at_ms: i64) -> Result<(), String> {
        let failed = self.tasks.failed().filter(|task| self.is_unhandled(task));
        let failed: Vec<Arc<str>> = failed.map(|task| task.id.clone()).collect();
        for id in &failed {
            self.again(id, 1, at_ms)?;
        }
        let inner = self.tasks.iter_mut().filter(|task| !failed.contains(&task.id));
        let inner = inner.filter(|task| !task.has_ended()).filter_map(|task| task.inner.as_mut());
        for inner in inner {
            inner.begin_again(at_ms)?;
        }
        Ok(())
    }

    /// Whether nothing handles that a task failed.
    pub(super) fn is_unhandled(&self, task: &Task) -> bool {
        self.graph.nodes[task.node].policy.on_error == OnError::Fail
    }

    /// Makes a task live again, here and further in, for all that did not succeed.
    pub(super) fn again(
        &mut self,
        id: &str,
        attempt: u32,
        not_before_ms: i64,
    ) -> Result<(), String> {
        let gone = || format!("no task `{id}` is live");
        let succeeded = |task: &Task| task.has_ended() && task.failure().is_none();
        if self.tasks.get(id).is_some_and(succeeded) {
            return Err(format!("task `{id}` did not fail"));
        }
        let task = self.tasks.reopen(id).ok_or_else(gone)?;
        task.begin_again(attempt, not_before_ms);
        let Some(inner) = &mut task.inner else { return Ok(()) };
        let unfinished = inner.tasks.iter().filter(|task| !succeeded(task));
        let unfinished: Vec<Arc<str>> = unfinished.map(|task| task.id.clone()).collect();
        unfinished.iter().try_for_each(|id| inner.again(id, 1, not_before_ms))
    }
}

impl Task {
    /// Forgets what an attempt did that failed: calls that failed, and what models said.
    fn begin_again(&mut self, attempt: u32, not_before_ms: i64) {
        (self.attempt, self.not_before_ms) = (attempt, not_before_ms);
        let streamed = |(call, reply): (&Arc<str>, &Recorded)| {
            (!reply.called.marks.is_empty()).then(|| call.clone())
        };
        let open: Vec<Arc<str>> = std::mem::take(&mut self.open).into_keys().collect();
        let forgotten: BTreeMap<_, _> = self
            .replies
            .iter()
            .filter(|(_, r)| !r.stands())
            .map(|(c, r)| (c.clone(), r.clone()))
            .collect();
        self.void.extend(open.into_iter().chain(forgotten.iter().filter_map(streamed)));
        Arc::make_mut(&mut self.replies).retain(|call, _| !forgotten.contains_key(call));
        // An answer that was not given in time is asked for again.
        Arc::make_mut(&mut self.asks)
            .retain(|_, q| !q.answer.as_ref().is_some_and(|a| a.expired && a.value.is_null()));
    }
}

impl Recorded {
    /// Whether a further attempt takes this result over.
    fn stands(&self) -> bool {
        match &self.called.reply {
            Reply::Message { failed, .. } => self.called.tool.is_some() && failed.is_none(),
            Reply::Value(_) | Reply::Asked { .. } => true,
            Reply::ToolFailed(_) | Reply::ModelFailed { .. } => false,
        }
    }
}

/// Whether an attempt that failed so may be followed by another: what is certain to happen again
/// is not tried again.
#[must_use]
pub(super) fn retryable(error: &NodeError) -> bool {
    match error {
        NodeError::Provider(error) => error.fault.retry() != crate::model::Retry::Never,
        NodeError::Tool { error, .. } => error.kind.transient(),
        NodeError::Output(_) | NodeError::Timeout { .. } => true,
        NodeError::Expression { .. }
        | NodeError::Write(_)
        | NodeError::Missing { .. }
        | NodeError::Limit(_)
        | NodeError::Expired(_)
        | NodeError::JoinStarved { .. }
        | NodeError::Goto { .. }
        | NodeError::Internal(_) => false,
    }
}
