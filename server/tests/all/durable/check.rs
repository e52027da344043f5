//! Whether a history is one that could be promised: nothing acknowledged is lost, nothing recorded
//! is done again, nothing unsafe is done twice, and everything comes to the end that it would have
//! come to without a single kill.
//!
//! The log, what workers acknowledged, and what arrived upstream are three witnesses that know
//! nothing of one another; the engine's own replay is the fourth.

use std::collections::{BTreeMap, BTreeSet};

use exile_engine::id::{LogId, RunId};
use exile_engine::journal::History;
use exile_engine::run::record::{EndStatus, Ended, Fact, Numbered, Record};
use serde_json::Value;

use super::counter::Call;
use super::log::{Log, Run, by_run};
use super::plan::Plan;

/// The state that a graph ends with if nothing happens to it, by the graph's name.
pub(super) type Expected = BTreeMap<&'static str, Value>;

/// What is wrong, in words; and how much there was to be wrong.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) complaints: Vec<String>,
    pub(super) runs: usize,
    pub(super) records: usize,
    pub(super) calls: usize,
    /// Unsafe calls that a person had to look at.
    pub(super) attended: usize,
    /// Calls that a death interrupted and that were made again.
    pub(super) again: usize,
    /// Attempts that followed a failed one.
    pub(super) retried: usize,
    /// Runs that made way for another one.
    pub(super) displaced: usize,
    /// Runs that began where a displaced one had begun.
    pub(super) rolled_back: usize,
    /// Runs that began in the middle of another one.
    pub(super) forked: usize,
}

impl std::ops::AddAssign for Findings {
    fn add_assign(&mut self, more: Self) {
        self.complaints.extend(more.complaints);
        self.runs += more.runs;
        self.records += more.records;
        self.calls += more.calls;
        self.attended += more.attended;
        self.again += more.again;
        self.retried += more.retried;
        self.displaced += more.displaced;
        self.rolled_back += more.rolled_back;
        self.forked += more.forked;
    }
}

/// What the file holds.
pub(super) struct Stored {
    /// The records of each log.
    pub(super) logs: BTreeMap<LogId, History>,
    /// What led to the last record of each run, wherever it stands.
    pub(super) runs: BTreeMap<RunId, History>,
    /// The status of each run's row.
    pub(super) rows: BTreeMap<String, String>,
}

/// One run, everything that is known of it.
pub(super) struct Case<'a> {
    pub(super) run: &'a Run,
    pub(super) log: &'a Log,
    /// Its own records.
    pub(super) own: &'a [&'a Numbered],
    /// What led to its last record.
    pub(super) history: &'a History,
    /// Calls that arrived, by key.
    pub(super) came: &'a BTreeMap<&'a str, Vec<&'a Call>>,
    /// Calls that arrived, by number.
    pub(super) numbered: &'a BTreeMap<u64, &'a Call>,
}

impl<'a> Case<'a> {
    /// Its own records with the life that stored each.
    pub(super) fn records(&self) -> impl Iterator<Item = (&'a Record, u32)> {
        let known = &self.log.known;
        self.own.iter().map(|r| (&*r.record, known.get(&r.number).map_or(u32::MAX, |k| k.life)))
    }

    /// How it ended, and the life in which it did.
    pub(super) fn ended(&self) -> Option<(&'a Ended, u32)> {
        self.records().find_map(|(record, life)| match &record.fact {
            Fact::Ended(ended) => Some((&**ended, life)),
            _ => None,
        })
    }

    /// The calls that arrived in its name.
    pub(super) fn arrivals(&self) -> impl Iterator<Item = (&'a str, &'a Vec<&'a Call>)> {
        let prefix = format!("{}/", self.run.id);
        let from = self.came.range::<str, _>((
            std::ops::Bound::Included(prefix.as_str()),
            std::ops::Bound::Unbounded,
        ));
        let all: Vec<_> = from.take_while(|(key, _)| key.starts_with(&prefix)).collect();
        all.into_iter().map(|(key, calls)| (*key, calls))
    }
}

/// Looks at every log of a plan.
pub(super) fn check(plan: &Plan, stored: &Stored, calls: &[Call], expected: &Expected) -> Findings {
    let mut came: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        came.entry(&call.key).or_default().push(call);
    }
    let numbered = calls.iter().map(|call| (call.number, call)).collect();
    let mut findings = Findings { calls: calls.len(), ..Findings::default() };
    let mut checked: BTreeSet<&RunId> = BTreeSet::new();
    for log in plan.logs.values() {
        let history = &stored.logs[&log.id];
        findings.records += history.records.len();
        let runs = by_run(history.records.iter().map(|r| (&r.record.fact, r)));
        let named = |complaint| format!("{}: {complaint}", log.id);
        findings.complaints.extend(lost(log, history).into_iter().map(named));
        findings.complaints.extend(log.out_of_order(&runs).into_iter().map(named));
        let refused = log.runs.iter().filter(|run| run.refused);
        let row = |run: &Run| stored.rows.get(run.id.as_str());
        let taken = refused.filter(|run| row(run).is_some() || runs.contains_key(&run.id));
        findings.complaints.extend(taken.map(|run| format!("{} was refused and is there", run.id)));
        let mut cases = Vec::new();
        for run in log.runs.iter().filter(|run| !run.refused) {
            let Some(own) = runs.get(&run.id) else {
                findings.complaints.push(format!("{} never began", run.id));
                continue;
            };
            let (history, came, numbered) = (&stored.runs[&run.id], &came, &numbered);
            cases.push(Case { run, log, own, history, came, numbered });
            checked.insert(&run.id);
        }
        for (place, case) in cases.iter().enumerate() {
            let complaints = [
                case.calls_once(),
                case.unsafe_calls(&mut findings),
                case.retries(&mut findings),
                case.ends_once(row(case.run)),
                case.succession(&cases[..place], stored, &mut findings),
                case.comes_to(expected),
            ];
            let (id, graph, durability) = (&case.run.id, case.run.graph, case.run.durability);
            let place = format!("{} of {} ({graph}, {durability:?})", id, log.id);
            let named = |complaint| format!("{place}, {:?}: {complaint}", case.run.begins);
            findings.complaints.extend(complaints.into_iter().flatten().map(named));
        }
        findings.runs += cases.len();
    }
    findings.complaints.extend(repeated(&came, &mut findings.again));
    findings
}

/// What was acknowledged, or read once, and is not there as it was.
fn lost(log: &Log, history: &History) -> Vec<String> {
    let there: BTreeMap<_, _> = history.records.iter().map(|r| (r.number, &*r.record)).collect();
    let lost = log.known.iter().filter(|(number, k)| there.get(*number) != Some(&&k.record));
    let told = |acknowledged| if acknowledged { "acknowledged" } else { "read" };
    lost.map(|(n, k)| format!("record {n} was {} and is lost", told(k.acknowledged))).collect()
}

/// Calls that one process made again although they had succeeded; counts those that several
/// processes made.
fn repeated(came: &BTreeMap<&str, Vec<&Call>>, again: &mut usize) -> Vec<String> {
    let mut complaints = Vec::new();
    for (key, calls) in came {
        let mut lives: BTreeMap<u32, bool> = BTreeMap::new();
        for call in calls {
            if lives.insert(call.life, call.fails) == Some(false) {
                complaints.push(format!("{key} succeeded and came again from one process"));
            }
        }
        *again += lives.len() - 1;
    }
    complaints
}

impl Case<'_> {
    /// It ended, once, as its row says, and nothing was done in its name afterwards.
    fn ends_once(&self, row: Option<&String>) -> Vec<String> {
        let mut complaints = Vec::new();
        let ends = |(record, _): &(&Record, u32)| matches!(record.fact, Fact::Ended(_));
        if self.records().filter(ends).count() != 1 {
            complaints.push("it did not end once".to_owned());
        }
        let Some((ended, life)) = self.ended() else { return complaints };
        let status = match ended.status {
            EndStatus::Finished => "finished",
            EndStatus::Failed => "failed",
            EndStatus::Cancelled => "cancelled",
        };
        if row.is_none_or(|row| row != status) {
            complaints.push(format!("it is {status}, and its row says {row:?}"));
        }
        let late = self.arrivals().filter(|(_, calls)| calls.iter().any(|c| c.life > life));
        complaints.extend(late.map(|(key, _)| format!("{key} came after its end")));
        complaints
    }
}
