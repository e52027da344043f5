//! What each fact does to a graph that is running, and which facts may not stand.
//!
//! Invariants:
//! - A fact about a task names one that is live; about a call, one that was begun.
//! - A task that is tried again forgets what failed and what models said; what tools did stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::node::NodeError;
use crate::run::context::Recorded;
use crate::run::frame::{Answer, Frame, Question, Task, TaskResult, hydrate, split};
use crate::run::record::{
    Answered, Asked, Called, Edited, Fact, Intent, Reply, Resolved, Retried, Step, TaskDone,
};
use crate::state::MessageMap;

impl Frame {
    /// Applies a fact about tasks, here or further in.
    pub(super) fn advance(
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
            Fact::Step(step) => self.at(&step.path)?.step(step, at_ms, messages),
            Fact::Resolved(resolved) => self.resolved(resolved),
            Fact::Edited(edited) => self.at(&edited.path)?.edited(edited, at_ms, messages),
            Fact::Resumed { .. } | Fact::Handed {} | Fact::Waiting(_) => Ok(()),
            Fact::Started(_)
            | Fact::Forked(_)
            | Fact::Migrated { .. }
            | Fact::Ended(_)
            | Fact::Snapshot { .. } => Err("not a fact of a task".to_owned()),
        }
    }

    fn at(&mut self, path: &str) -> Result<&mut Self, String> {
        self.frame_mut(path).ok_or(format!("no graph runs at `{path}`"))
    }

    fn live(&mut self, path: &str) -> Result<&mut Task, String> {
        let task = self.task_mut(path).ok_or(format!("no task `{path}` is live"))?;
        if task.result.is_some() {
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
        let path = &retried.task;
        let task = self.task_mut(path).ok_or(format!("no task `{path}` is live"))?;
        let wait = i64::try_from(retried.wait_ms).unwrap_or(i64::MAX);
        task.again(retried.attempt, at_ms.saturating_add(wait))
    }

    fn done(&mut self, done: &TaskDone, messages: &MessageMap) -> Result<(), String> {
        let frame = self.at(split(&done.task).0)?;
        let writes = hydrate(&frame.graph, &done.writes, messages)?;
        let task = frame.task_mut(&done.task).ok_or(format!("no task `{}` is live", done.task))?;
        if task.result.as_ref().is_some_and(|r| r.recorded) {
            return Err(format!("task `{}` has ended", done.task));
        }
        let TaskDone { took_ms, error, goto, cached, .. } = done.clone();
        if error.is_none() {
            // What a graph that failed inside leaves behind is decided when the run ends.
            task.inner = None;
        }
        task.result = Some(TaskResult { took_ms, writes, goto, error, cached, recorded: true });
        Ok(())
    }

    fn step(&mut self, step: &Step, at_ms: i64, messages: &MessageMap) -> Result<(), String> {
        if self.flows() {
            let ended = |t: &Task| {
                step.done.iter().any(|d| d.task == t.id) || step.recorded.contains(&t.id)
            };
            self.tasks.retain(|t| !ended(t));
        } else {
            for task in &self.tasks {
                let listed = step.done.iter().any(|d| d.task == task.id);
                if !listed && !task.result.as_ref().is_some_and(|r| r.recorded) {
                    return Err(format!("task `{}` has not ended", task.path));
                }
            }
            self.tasks.clear();
        }
        Arc::make_mut(&mut self.state).apply(&step.delta, messages).map_err(|e| e.to_string())?;
        self.begin(&step.fired, at_ms)
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
        if let Some(fired) = &edited.fired {
            self.tasks.clear();
            return self.begin(fired, at_ms);
        }
        // What is live begins again from the changed state; what its calls gave stands.
        for task in &mut self.tasks {
            task.state = self.state.clone();
        }
        Ok(())
    }
}

impl Task {
    /// Makes the task live again, here and further in, for all that did not succeed.
    fn again(&mut self, attempt: u32, not_before_ms: i64) -> Result<(), String> {
        if self.result.as_ref().is_some_and(|r| r.error.is_none()) {
            return Err(format!("task `{}` did not fail", self.path));
        }
        self.result = None;
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
        if let Some(inner) = &mut self.inner {
            for task in &mut inner.tasks {
                if task.result.as_ref().is_none_or(|r| r.error.is_some()) {
                    task.again(1, not_before_ms)?;
                }
            }
        }
        Ok(())
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
