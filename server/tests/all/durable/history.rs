//! How the runs of a log follow one another, and what each of them comes to: it begins with what
//! the one before it left, or where the one that it displaced or was forked from had begun, and
//! ends as any run of its graph ends.

use std::collections::BTreeMap;

use exile_engine::id::RunId;
use exile_engine::journal::{History, IfActive};
use exile_engine::run::fold::{LogState, Programs};
use exile_engine::run::record::{Called, EndStatus, Fact, Forked, Numbered, Reply};
use serde_json::{Map, Value};

use super::check::{Case, Expected, Findings, Stored};
use super::log::{Begins, Log};
use super::plan::SAID;

/// Channels that turns add to; all others they set anew.
const ADDED_TO: [&str; 2] = ["log", "messages"];

impl Log {
    /// Runs begin in the order in which they were sent, each once.
    pub(super) fn out_of_order(&self, runs: &BTreeMap<RunId, Vec<&Numbered>>) -> Vec<String> {
        let mut begun: Vec<(u64, &RunId)> =
            runs.iter().map(|(run, records)| (records[0].number, run)).collect();
        begun.sort_unstable();
        let sent = self.runs.iter().filter(|run| !run.refused).map(|run| &run.id);
        if begun.iter().map(|(_, run)| *run).eq(sent) {
            return Vec::new();
        }
        vec![format!("its runs were sent as {:?} and began as {begun:?}", self.runs)]
    }
}

impl Case<'_> {
    /// Whether it begins with what it must: `before` are the log's runs before it.
    pub(super) fn succession(
        &self,
        before: &[Self],
        stored: &Stored,
        findings: &mut Findings,
    ) -> Vec<String> {
        let begun = |case: &Self| case.begins_with();
        let displaced: Vec<&Self> =
            before.iter().filter(|case| case.by() == Some(&self.run.id)).collect();
        findings.displaced += displaced.len();
        let (what, with) = match (&self.run.begins, displaced.first()) {
            (Begins::Fork { from, at }, _) => {
                findings.forked += 1;
                let first = &self.own[0].record.fact;
                // From a failure, what failed begins again.
                let again = matches!(first, Fact::Forked(forked) if forked.again);
                let run = Some(self.run.id.clone());
                let forked = Forked { run, from: from.clone(), at: *at, again };
                if *first != Fact::Forked(Box::new(forked)) {
                    return vec![format!("it began as {first:?}")];
                }
                if self.forked_at() != Some(*at) {
                    return vec![format!("it goes on from {:?}", self.forked_at())];
                }
                ("its origin", base(&stored.runs[from]))
            }
            (Begins::Start(IfActive::Rollback), Some(first)) => {
                findings.rolled_back += 1;
                ("the run that it displaced", begun(first))
            }
            (Begins::Start(_), _) => match before.last() {
                Some(last) => {
                    ("the end of the run before it", values(&last.history.records, last.history))
                }
                None => ("nothing", Ok(Value::Object(Map::new()))),
            },
        };
        if begun(self) == with && with.is_ok() {
            return Vec::new();
        }
        vec![format!("it began with {:?}, not with {what}: {with:?}", begun(self))]
    }

    /// It ended as it would have ended, or made way for a run that was sent to take its place.
    pub(super) fn comes_to(&self, expected: &Expected) -> Vec<String> {
        let Some((ended, _)) = self.ended() else { return Vec::new() };
        if let Some(by) = &ended.by {
            let after = self.log.runs.iter().skip_while(|run| run.id != self.run.id).skip(1);
            let displaces = after.filter(|run| run.displaces()).any(|run| run.id == *by);
            let right = displaces && ended.status == EndStatus::Cancelled;
            return if right { Vec::new() } else { vec![format!("{by} ended it: {ended:?}")] };
        }
        if self.failed_by_person() {
            return Vec::new();
        }
        if ended.status != EndStatus::Finished {
            return vec![format!("it ended as {:?}: {:?}", ended.status, ended.error)];
        }
        let (begun, state) = match (self.begins_with(), self.state()) {
            (Ok(begun), Ok(state)) => (begun, state),
            (Err(why), _) | (_, Err(why)) => return vec![why],
        };
        let Some(mut right) = expected.get(self.run.graph).cloned() else { return Vec::new() };
        let begun = self.anonymous(&begun);
        for channel in ADDED_TO {
            if let (Some(Value::Array(old)), Some(Value::Array(new))) =
                (begun.get(channel), right.get_mut(channel))
            {
                new.splice(0..0, old.clone());
            }
        }
        if state == right {
            return Vec::new();
        }
        vec![format!("it ended with {state}, not with {right}")]
    }

    fn by(&self) -> Option<&RunId> {
        self.ended().and_then(|(ended, _)| ended.by.as_ref())
    }

    /// The number that its first record follows.
    fn forked_at(&self) -> Option<u64> {
        let first = self.own[0].number;
        let records = &self.history.records;
        let place = records.iter().position(|r| r.number == first)?;
        Some(records[place.checked_sub(1)?].number)
    }

    /// Whether a person said that one of its calls failed: it need not come to the usual end.
    fn failed_by_person(&self) -> bool {
        let records = &self.history.records;
        let said = |called: &Called| match &called.reply {
            Reply::Message { failed: Some(error), .. } | Reply::ToolFailed(error) => {
                error.message == SAID
            }
            _ => false,
        };
        records[start(records)..].iter().any(|r| match &r.record.fact {
            Fact::Called(called) => said(called),
            _ => false,
        })
    }

    /// The channels before its first input.
    fn begins_with(&self) -> Result<Value, String> {
        base(self.history)
    }

    /// The values of all channels at its end, as any run of the graph would have them.
    fn state(&self) -> Result<Value, String> {
        values(&self.history.records, self.history).map(|values| self.anonymous(&values))
    }

    /// Without what differs between any two runs: the name, and ids of messages.
    fn anonymous(&self, values: &Value) -> Value {
        anonymous(values, &self.run.name)
    }
}

/// The values of all channels at the end of a history, as any run of the graph would have them.
pub(super) fn final_state(name: &str, history: &History) -> Result<Value, String> {
    values(&history.records, history).map(|values| anonymous(&values, name))
}

fn anonymous(values: &Value, name: &str) -> Value {
    let mut values = serde_json::from_str(&values.to_string().replace(name, "NAME")).unwrap();
    forget_ids(&mut values);
    values
}

/// Where the last run of a history begins.
fn start(records: &[Numbered]) -> usize {
    records.iter().rposition(|r| matches!(r.record.fact, Fact::Started(_))).unwrap()
}

/// The channels before the last run of a history.
fn base(history: &History) -> Result<Value, String> {
    values(&history.records[..start(&history.records)], history)
}

fn values(records: &[Numbered], history: &History) -> Result<Value, String> {
    LogState::replay(records, history.messages.clone(), &Programs::default())
        .map(|state| Value::Object(state.values()))
        .map_err(|illegal| illegal.to_string())
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
