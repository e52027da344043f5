//! The calls of one run: none again that has a result, none twice that is unsafe, and no further
//! attempt than there may be.

use std::collections::BTreeMap;

use exile_engine::run::record::{Called, Callee, EndStatus, Fact, Intent, Reply};
use exile_engine::tool::Effect;

use super::check::{Case, Findings};

/// What is known of one unsafe call.
#[derive(Default)]
struct Unsafe {
    intended: usize,
    /// Times that a person let it be made again.
    allowed: usize,
    /// The life in which it was begun and not ended.
    open_since: Option<u32>,
    /// It was put before a person.
    seen: bool,
}

impl Case<'_> {
    /// A call whose result was stored in one life is made in no later one, and what a run recorded
    /// as a model's answer is an answer to that run.
    pub(super) fn calls_once(&self) -> Vec<String> {
        let called = self.records().filter_map(|(record, life)| match &record.fact {
            Fact::Called(called) if succeeded(called) => Some((called, life)),
            _ => None,
        });
        let mut complaints = Vec::new();
        for (called, life) in called {
            let Some(key) = self.key_of(called) else { continue };
            if !key.starts_with(&self.key(&called.task, "")) {
                complaints.push(format!("{} took the answer to {key}", called.task));
            }
            let Some(calls) = self.came.get(key.as_str()) else { continue };
            if calls.iter().any(|call| call.life > life) {
                complaints.push(format!("{} was recorded and made again", called.call));
            }
        }
        complaints
    }

    /// The key under which a recorded call arrived.
    fn key_of(&self, called: &Called) -> Option<String> {
        let number = called.model.as_ref().and_then(|model| model.usage).map(|usage| usage.input);
        match number {
            Some(number) => Some(self.numbered[&number].key.clone()),
            None => called.tool.as_ref().map(|_| self.key(&called.task, &called.call)),
        }
    }

    fn key(&self, task: &str, call: &str) -> String {
        format!("{}/{task}/{call}", self.run.id)
    }

    /// Each unsafe call was intended before it was made, was made once unless a person said
    /// otherwise, and came before a person if a process died in it and its run was to go on.
    pub(super) fn unsafe_calls(&self, findings: &mut Findings) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut watched: BTreeMap<String, Unsafe> = BTreeMap::new();
        for (record, life) in self.records() {
            match &record.fact {
                Fact::Intent(intent) if is_unsafe(intent) => {
                    let call = watched.entry(self.key(&intent.task, &intent.call)).or_default();
                    call.intended += 1;
                    call.open_since = Some(life);
                }
                Fact::Waiting(waiting) => {
                    for intent in &waiting.open {
                        watched.entry(self.key(&intent.task, &intent.call)).or_default().seen =
                            true;
                    }
                }
                Fact::Resolved(resolved) if !resolved.call.is_empty() => {
                    let call = watched.entry(self.key(&resolved.task, &resolved.call)).or_default();
                    call.allowed += 1;
                }
                Fact::Called(called) => {
                    let Some(call) = watched.get_mut(&self.key(&called.task, &called.call)) else {
                        continue;
                    };
                    if call.open_since.take().is_some_and(|since| since < life) && !call.seen {
                        complaints.push(format!("{} was settled by no person", called.call));
                    }
                }
                _ => {}
            }
        }
        let cancelled = self.ended().is_some_and(|(end, _)| end.status == EndStatus::Cancelled);
        for (key, call) in &watched {
            let came = self.came.get(key.as_str()).map_or(0, Vec::len);
            findings.attended += usize::from(call.seen);
            if came > call.intended {
                let story = self.story(key);
                complaints
                    .push(format!("{key} came {came} times, intended {}: {story}", call.intended));
            }
            if call.intended > 1 + call.allowed {
                complaints.push(format!("{key} was begun {} times without leave", call.intended));
            }
            if call.open_since.is_some() && !call.seen && !cancelled {
                complaints.push(format!("{key} stayed open"));
            }
        }
        let stray = self
            .arrivals()
            .filter(|(key, calls)| calls[0].effect == "unsafe" && !watched.contains_key(*key));
        complaints.extend(stray.map(|(key, _)| format!("{key} came without being intended")));
        complaints
    }

    /// Attempts are counted over every death, and in a fork from where its origin was.
    pub(super) fn retries(&self, findings: &mut Findings) -> Vec<String> {
        let mut attempts: BTreeMap<&str, u32> = BTreeMap::new();
        let mut complaints = Vec::new();
        for record in &self.history.records {
            match &record.record.fact {
                Fact::Started(_) => attempts.clear(),
                Fact::Retried(retried) => {
                    let attempt = attempts.entry(&retried.task).or_insert(1);
                    *attempt += 1;
                    if *attempt != retried.attempt {
                        let (task, told) = (&retried.task, retried.attempt);
                        complaints.push(format!("attempt {attempt} of {task} is told as {told}"));
                    }
                }
                _ => {}
            }
        }
        let own = self.records().filter(|(record, _)| matches!(record.fact, Fact::Retried(_)));
        findings.retried += own.count();
        complaints
    }

    /// What the log says of one call, and when it came, each with the life.
    fn story(&self, key: &str) -> String {
        let about = |task: &str, call: &str| self.key(task, call) == key;
        let told = self.records().filter_map(|(record, life)| match &record.fact {
            Fact::Intent(i) if about(&i.task, &i.call) => Some(format!("{life}: intended")),
            Fact::Called(c) if about(&c.task, &c.call) => {
                Some(format!("{life}: called {:?}", c.reply))
            }
            Fact::Resolved(r) if about(&r.task, &r.call) => Some(format!("{life}: resolved")),
            Fact::Waiting(w) if w.attention.is_some() => Some(format!("{life}: attention")),
            Fact::Resumed { .. } => Some(format!("{life}: taken over")),
            Fact::Started(_) => Some(format!("{life}: started")),
            Fact::Forked(_) => Some(format!("{life}: forked")),
            _ => None,
        });
        let came = self.came.get(key).into_iter().flatten();
        let came = came.map(|call| format!("{}: came as {}", call.life, call.number));
        told.chain(came).collect::<Vec<_>>().join(", ")
    }
}

fn succeeded(called: &Called) -> bool {
    match &called.reply {
        Reply::Message { failed, .. } => failed.is_none(),
        Reply::Value(_) | Reply::Asked { .. } => true,
        Reply::ToolFailed(_) | Reply::ModelFailed { .. } => false,
    }
}

fn is_unsafe(intent: &Intent) -> bool {
    matches!(intent.to, Callee::Tool { effect: Effect::Unsafe, .. })
}
