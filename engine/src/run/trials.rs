//! Runs that may be what ends their process, tried apart from all others.
//!
//! A process takes up what an earlier one left. With whom two processes in a row died before it got
//! on is a suspect, and so is whoever was driven beside it. Suspects are tried in groups, before
//! anything else is driven: half of those that the last process died with first, and if this one
//! dies with them too, the next tries half of these, until one dies with a single run. A group that
//! lives for a while, or gets on, is let go; then come the others of those, then everybody else.
//!
//! Invariants:
//! - While a group is on trial, nothing else begins to be driven.
//! - Only the first group of a process is known to have been alone. A later one is never told to
//!   consist of a single run.
//! - A process that finds no suspect waits for nothing but the reading of what it took up.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::id::LogId;

/// How long a group has to live; twice as long with every further death.
const TRIAL: Duration = Duration::from_secs(5);
/// Deaths beyond those that make a suspect that a trial is prolonged for.
const PROLONGED: u32 = 5;
/// How long the runs of a group have to note that they lived.
const NOTED: Duration = Duration::from_secs(5);
/// How long it may take to read what was taken up, before nobody waits for it any more.
const SWEEP: Duration = Duration::from_secs(5);

/// Why a run is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspicion {
    /// Of how many the group was with which the last process died; 0: it was in none.
    pub group: u32,
    /// How often in a row a process died before the run got on.
    pub deaths: u32,
}

/// Who is tried and who waits, in one process.
pub(crate) struct Trials {
    state: Mutex<State>,
    turn: watch::Sender<Turn>,
}

/// Who may be driven.
#[derive(Clone)]
enum Turn {
    /// Nobody: what was taken up is being read.
    Nobody,
    /// These alone, and what is recorded of them: the size of their group.
    Group(Arc<HashSet<LogId>>, u32, CancellationToken),
    /// Everybody.
    All,
}

#[derive(Default)]
struct State {
    /// Logs that are being read, as long as that is waited for.
    reading: usize,
    /// Every log that there was at the start has been taken up.
    swept: bool,
    suspects: Vec<(LogId, Suspicion)>,
    /// Of the group on trial: those that have not got on.
    tried: HashSet<LogId>,
    /// Groups so far.
    groups: u32,
    over: bool,
}

impl Trials {
    pub(crate) fn new() -> Arc<Self> {
        let (turn, _) = watch::channel(Turn::Nobody);
        Arc::new(Self { state: Mutex::default(), turn })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a log that is taken up. Dropped, it is waited for no more.
    pub(crate) fn take_up(self: &Arc<Self>, log: &LogId) -> Arrival {
        let mut state = self.state();
        let counted = !state.swept;
        state.reading += usize::from(counted);
        Arrival { trials: self.clone(), log: log.clone(), counted }
    }

    /// Everything that there was at the start has been taken up.
    pub(crate) fn swept(self: &Arc<Self>) {
        let mut state = self.state();
        if state.swept {
            return;
        }
        state.swept = true;
        if state.reading == 0 {
            return self.next(&mut state);
        }
        let trials = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SWEEP).await;
            let mut state = trials.state();
            if state.groups == 0 && !state.over {
                trials.next(&mut state);
            }
        });
    }

    fn arrived(self: &Arc<Self>) {
        let mut state = self.state();
        state.reading = state.reading.saturating_sub(1);
        if state.swept && state.reading == 0 && state.groups == 0 && !state.over {
            self.next(&mut state);
        }
    }

    /// Puts the next group on trial, or lets everybody go on.
    fn next(self: &Arc<Self>, state: &mut State) {
        // Those that a process died with last are the likeliest.
        let class = |suspicion: &Suspicion| match suspicion.group {
            0 => u32::MAX,
            group => group,
        };
        let Some(first) = state.suspects.iter().map(|(_, s)| class(s)).min() else {
            state.over = true;
            self.turn.send_replace(Turn::All);
            return;
        };
        // Half of these, then the others of them, then everybody else: whoever is tried later in the
        // same process waits for two groups at most.
        let alike = state.suspects.iter().filter(|(_, s)| class(s) == first).count();
        let (mut left, all) = match state.groups {
            0 => (alike.div_ceil(2), false),
            1 => (alike, false),
            _ => (state.suspects.len(), true),
        };
        let mut deaths = 0;
        let chosen = |(_, suspicion): &mut (LogId, Suspicion)| {
            let chosen = left > 0 && (all || class(suspicion) == first);
            if chosen {
                left -= 1;
                deaths = deaths.max(suspicion.deaths);
            }
            chosen
        };
        let group: HashSet<LogId> =
            state.suspects.extract_if(.., chosen).map(|(log, _)| log).collect();
        let size = u32::try_from(group.len()).unwrap_or(u32::MAX);
        let recorded = if state.groups == 0 { size } else { size.max(2) };
        state.groups += 1;
        state.tried.clone_from(&group);
        let lived = CancellationToken::new();
        self.turn.send_replace(Turn::Group(Arc::new(group), recorded, lived.clone()));
        let (trials, number) = (self.clone(), state.groups);
        let lives = TRIAL * 2_u32.pow(deaths.saturating_sub(2).min(PROLONGED));
        tokio::spawn(async move {
            tokio::time::sleep(lives).await;
            lived.cancel();
            // It is noted of each of them before others are tried.
            tokio::time::sleep(NOTED).await;
            let mut state = trials.state();
            if state.groups == number && !state.over {
                trials.next(&mut state);
            }
        });
    }

    /// A run on trial got on, or is driven no more.
    fn got_on(self: &Arc<Self>, log: &LogId) {
        let mut state = self.state();
        if state.tried.remove(log) && state.tried.is_empty() && !state.over {
            self.next(&mut state);
        }
    }
}

/// A log that was taken up and is not driven yet.
pub(crate) struct Arrival {
    trials: Arc<Trials>,
    log: LogId,
    /// It is waited for.
    counted: bool,
}

impl Arrival {
    /// Waits until the log may be driven.
    pub(crate) async fn admitted(mut self, suspicion: Option<Suspicion>) -> Admission {
        let mut turn = self.trials.turn.subscribe();
        if let Some(suspicion) = suspicion.filter(|_| self.counted) {
            self.trials.state().suspects.push((self.log.clone(), suspicion));
        }
        self.arrive();
        loop {
            let now = turn.borrow_and_update().clone();
            match now {
                Turn::All => return Admission { group: None, trial: None },
                Turn::Group(group, size, lived) if group.contains(&self.log) => {
                    let (trials, log) = (self.trials.clone(), self.log.clone());
                    let trial = Trial { trials, log, lived };
                    return Admission { group: Some(size), trial: Some(trial) };
                }
                Turn::Group(..) | Turn::Nobody => {}
            }
            if turn.changed().await.is_err() {
                return Admission { group: None, trial: None };
            }
        }
    }

    fn arrive(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.trials.arrived();
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.trials.state().suspects.retain(|(log, _)| *log != self.log);
        self.arrive();
    }
}

/// That a log may be driven.
pub(crate) struct Admission {
    /// On trial: how many are tried together.
    pub group: Option<u32>,
    /// Held until the run gets on, or has noted that it lived.
    pub trial: Option<Trial>,
}

/// A run on trial.
pub(crate) struct Trial {
    trials: Arc<Trials>,
    log: LogId,
    lived: CancellationToken,
}

impl Trial {
    /// Cancelled once its group has lived for as long as it had to. Whoever holds it notes that in
    /// the log ([`Fact::Lived`](super::record::Fact::Lived)) before letting go of it.
    pub(crate) fn lived(&self) -> CancellationToken {
        self.lived.clone()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.trials.got_on(&self.log);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Takes up suspects of a group and `others`; gives those that are driven at first, and what is
    /// recorded of them.
    fn first(suspects: &[(&str, u32)], others: &[&str]) -> (Vec<String>, Option<u32>) {
        let trials = Trials::new();
        let mut all = Vec::new();
        for (log, group) in suspects {
            let suspicion = Some(Suspicion { group: *group, deaths: 2 });
            all.push((*log, trials.take_up(&(*log).into()), suspicion));
        }
        all.extend(others.iter().map(|log| (*log, trials.take_up(&(*log).into()), None)));
        trials.swept();
        let mut waiting: Vec<_> = all
            .into_iter()
            .map(|(log, arrival, suspicion)| (log, Box::pin(arrival.admitted(suspicion))))
            .collect();
        let (mut driven, mut group, mut trials) = (Vec::new(), None, Vec::new());
        for _ in 0..2 {
            for (log, admitted) in &mut waiting {
                if driven.contains(&(*log).to_owned()) {
                    continue;
                }
                if let Some(admission) = admitted.as_mut().now_or_never() {
                    driven.push((*log).to_owned());
                    group = admission.group;
                    trials.push(admission.trial);
                }
            }
        }
        driven.sort_unstable();
        (driven, group)
    }

    #[tokio::test]
    async fn half_of_those_that_a_process_died_with_are_tried_apart() {
        let all = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(first(&[], &["a", "b", "c"]), (all, None));
        let some = |logs: &[&str]| logs.iter().map(|log| (*log).to_owned()).collect::<Vec<_>>();
        assert_eq!(first(&[("a", 0)], &["b"]), (some(&["a"]), Some(1)));
        let four = [("a", 0), ("b", 0), ("c", 0), ("d", 0)];
        assert_eq!(first(&four, &["e"]), (some(&["a", "b"]), Some(2)));
        let blamed = [("a", 0), ("b", 2), ("c", 2), ("d", 4)];
        assert_eq!(first(&blamed, &[]), (some(&["b"]), Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_lives_or_gets_on_is_let_go_and_the_others_follow() {
        let trials = Trials::new();
        let suspicion = Some(Suspicion { group: 0, deaths: 2 });
        let [one, two, late] = ["one", "two", "late"].map(|log| trials.take_up(&log.into()));
        trials.swept();
        let after = tokio::spawn(late.admitted(None));
        let second = tokio::spawn(two.admitted(suspicion));
        let first = one.admitted(suspicion).await;
        assert_eq!(first.group, Some(1));
        drop(first);
        // It is not known to have been alone in this process.
        assert_eq!(second.await.unwrap().group, Some(2));
        assert_eq!(after.await.unwrap().group, None);
        let new = trials.take_up(&"new".into()).admitted(None).await;
        assert_eq!(new.group, None);
    }
}
