//! Whether a history is one that could be promised: nothing acknowledged is lost, nothing recorded
//! is done again, nothing unsafe is done twice, and everything comes to the end that it would have
//! come to without a single kill.
//!
//! The log, what workers acknowledged, and what arrived upstream are three witnesses that know
//! nothing of one another; the engine's own replay is the fourth.

use std::collections::{BTreeMap, BTreeSet};

use exile_engine::id::RunId;
use exile_engine::journal::History;
use exile_engine::run::fold::{LogState, Programs};
use exile_engine::run::record::{Called, Callee, EndStatus, Fact, Intent, Record};
use exile_engine::tool::Effect;
use serde_json::Value;

use super::counter::Call;
use super::plan::{Plan, Run};

/// The state that a graph ends with if nothing happens to it, by the graph's name.
pub(super) type Expected = BTreeMap<&'static str, Value>;

/// What is wrong, in words; and how much there was to be wrong.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) complaints: Vec<String>,
    pub(super) records: usize,
    pub(super) calls: usize,
    /// Unsafe calls that a person had to look at.
    pub(super) attended: usize,
    /// Calls that a death interrupted and that were made again.
    pub(super) again: usize,
}

/// One run, everything that is known of it.
struct Case<'a> {
    id: &'a RunId,
    run: &'a Run,
    history: &'a History,
    /// Calls that arrived, by key.
    came: &'a BTreeMap<&'a str, Vec<&'a Call>>,
    /// Calls that arrived, by number.
    numbered: &'a BTreeMap<u64, &'a Call>,
}

/// Looks at every run of a plan.
pub(super) fn check(
    plan: &Plan,
    histories: &BTreeMap<RunId, History>,
    calls: &[Call],
    expected: &Expected,
) -> Findings {
    let mut came: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        came.entry(&call.key).or_default().push(call);
    }
    let numbered = calls.iter().map(|call| (call.number, call)).collect();
    let mut findings = Findings { calls: calls.len(), ..Findings::default() };
    for (id, run) in &plan.runs {
        let case = Case { id, run, history: &histories[id], came: &came, numbered: &numbered };
        findings.records += case.history.records.len();
        let complaints = [
            case.stored(),
            case.calls_once(),
            case.unsafe_calls(&mut findings),
            case.ends(expected),
        ];
        let named = |complaint| format!("{id} ({}, {:?}): {complaint}", run.graph, run.durability);
        findings.complaints.extend(complaints.into_iter().flatten().map(named));
    }
    for (key, calls) in &came {
        let lives: BTreeSet<u32> = calls.iter().map(|call| call.life).collect();
        findings.again += lives.len() - 1;
        if lives.len() < calls.len() {
            findings.complaints.push(format!("{key} came twice from one process"));
        }
    }
    findings
}

impl Case<'_> {
    /// The log's records with the life that stored each.
    fn records(&self) -> impl Iterator<Item = (&Record, u32)> {
        self.history.records.iter().map(|r| {
            let life = self.run.known.get(&r.number).map_or(u32::MAX, |known| known.life);
            (&*r.record, life)
        })
    }

    /// What was acknowledged, or read once, is there as it was.
    fn stored(&self) -> Vec<String> {
        let log: BTreeMap<_, _> =
            self.history.records.iter().map(|r| (r.number, &*r.record)).collect();
        let lost = self.run.known.iter().filter(|(number, k)| log.get(*number) != Some(&&k.record));
        let told = |acknowledged| if acknowledged { "acknowledged" } else { "read" };
        lost.map(|(n, k)| format!("record {n} was {} and is lost", told(k.acknowledged))).collect()
    }

    /// A call whose result was stored in one life is made in no later one.
    fn calls_once(&self) -> Vec<String> {
        let called = self.records().filter_map(|(record, life)| match &record.fact {
            Fact::Called(called) => Some((called, life)),
            _ => None,
        });
        let mut complaints = Vec::new();
        for (called, life) in called {
            let Some(calls) = self.key_of(called).and_then(|key| self.came.get(key.as_str()))
            else {
                continue;
            };
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
        format!("{}/{task}/{call}", self.id)
    }

    /// Each unsafe call was intended before it was made, was made once unless a person said
    /// otherwise, and came before a person if a process died in it.
    fn unsafe_calls(&self, findings: &mut Findings) -> Vec<String> {
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
            if call.open_since.is_some() && !call.seen {
                complaints.push(format!("{key} stayed open"));
            }
        }
        let prefix = format!("{}/", self.id);
        let stray = self.came.iter().filter(|(key, calls)| {
            calls[0].effect == "unsafe" && key.starts_with(&prefix) && !watched.contains_key(**key)
        });
        complaints.extend(stray.map(|(key, _)| format!("{key} came without being intended")));
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
            _ => None,
        });
        let came = self.came.get(key).into_iter().flatten();
        let came = came.map(|call| format!("{}: came as {}", call.life, call.number));
        told.chain(came).collect::<Vec<_>>().join(", ")
    }

    /// The run ended, once, as it would have ended.
    fn ends(&self, expected: &Expected) -> Vec<String> {
        let mut ends = self.records().filter_map(|(record, _)| match &record.fact {
            Fact::Ended(ended) => Some(ended),
            _ => None,
        });
        let (Some(ended), None) = (ends.next(), ends.next()) else {
            return vec!["it did not end once".to_owned()];
        };
        if self.run.failed_by_person {
            return Vec::new();
        }
        if ended.status != EndStatus::Finished {
            return vec![format!("it ended as {:?}: {:?}", ended.status, ended.error)];
        }
        match self.state() {
            Err(why) => vec![why],
            Ok(state) => match expected.get(self.run.graph) {
                Some(expected) if *expected != state => {
                    vec![format!("it ended with {state}, not with {expected}")]
                }
                _ => Vec::new(),
            },
        }
    }

    fn state(&self) -> Result<Value, String> {
        final_state(self.run, self.history)
    }
}

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

fn is_unsafe(intent: &Intent) -> bool {
    matches!(intent.to, Callee::Tool { effect: Effect::Unsafe, .. })
}

/// The values of all channels at the end, as any run of the graph would have them.
pub(super) fn final_state(run: &Run, history: &History) -> Result<Value, String> {
    let state = LogState::replay(&history.records, history.messages.clone(), &Programs::default())
        .map_err(|illegal| illegal.to_string())?;
    let text = Value::Object(state.values()).to_string().replace(&run.name, "NAME");
    let mut values: Value = serde_json::from_str(&text).unwrap();
    forget_ids(&mut values);
    Ok(values)
}

/// Ids of messages differ between any two runs.
fn forget_ids(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(forget_ids),
        Value::Object(fields) => {
            fields.retain(|_, v| !v.as_str().is_some_and(|text| text.starts_with("msg_")));
            fields.values_mut().for_each(forget_ids);
        }
        _ => {}
    }
}
