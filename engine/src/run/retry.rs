//! What follows a failed attempt: another one, or the end of the calls that it left open.

use std::sync::Arc;

use crate::journal::JournalError;
use crate::model::pause;
use crate::node::NodeError;
use crate::run::apply::retryable;
use crate::run::driver::Driver;
use crate::run::end;
use crate::run::record::{Fact, Intent, Reply, Retried};
use crate::run::resolve;
use crate::run::task::Task;
use crate::tool::{ToolAnswer, ToolError, ToolErrorKind};

impl Driver {
    /// Whether another attempt follows a failed one.
    pub(super) fn retry(
        &mut self,
        path: &Arc<str>,
        error: &NodeError,
    ) -> Result<bool, JournalError> {
        let Some((instance, task)) = self.root().and_then(|root| root.task_in(path)) else {
            return Ok(false);
        };
        let policy = instance.graph.nodes[task.node].policy.retry;
        if task.attempt >= policy.attempts || !retryable(error) || is_unsure(task) {
            return Ok(false);
        }
        let attempt = task.attempt + 1;
        let asked = match error {
            NodeError::Provider(error) => pause::asked_for(&error.fault),
            _ => None,
        };
        let (env, between) = (&*self.shared.services.env, (policy.wait, policy.wait_max));
        let wait = pause::before_retry(env, between, task.attempt - 1, asked);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let retried = Retried { task: path.clone(), attempt, error: error.clone(), wait_ms };
        self.writer.push(Fact::Retried(retried))?;
        self.ready.push_back(path.clone());
        Ok(true)
    }

    /// Closes the calls that a task, or one inside it, left open when it was stopped.
    pub(super) fn close_calls(&mut self, path: &str) -> Result<(), JournalError> {
        let Some(task) = self.root().and_then(|root| root.task(path)) else { return Ok(()) };
        let mut open: Vec<Intent> = task.open.values().cloned().collect();
        if let Some(inner) = &task.inner {
            inner.walk_live(&mut |_, task| open.extend(task.open.values().cloned()));
        }
        for intent in open {
            let kind = if end::is_unsafe(&intent) {
                ToolErrorKind::OutcomeUnknown
            } else {
                ToolErrorKind::Timeout
            };
            let error = ToolError::new(kind, "the node's time was over before this call ended");
            let answer = ToolAnswer::Failed(error);
            let called = resolve::settled(&self.shared, &mut self.writer, &intent, &answer, 0);
            self.writer.called(called)?;
        }
        Ok(())
    }
}

/// Whether an `unsafe` call of this attempt, here or inside, may or may not have happened.
fn is_unsure(task: &Task) -> bool {
    let unknown = |task: &Task| {
        task.replies.values().any(|reply| match &reply.called.reply {
            Reply::ToolFailed(error) => error.kind == ToolErrorKind::OutcomeUnknown,
            _ => false,
        })
    };
    let mut unsure = unknown(task);
    if let Some(inner) = &task.inner {
        inner.walk(&mut |_, task| unsure |= unknown(task));
    }
    unsure
}
