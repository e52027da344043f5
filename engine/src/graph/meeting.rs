//! Which nodes can run at the same time.
//!
//! One run is looked at through *pairs* of its flows. A flow is a task, or an arrival that waits
//! in a slot of a join.
//!
//! - A pair begins where one task fires two others (a fork; START is one). Lines that exclude each
//!   other (`when` and `otherwise`, lines and `goto`, anything and `on_error`) begin none.
//! - `superstep`: the tasks of a pair go on together. `dataflow`: one goes on while the other is
//!   still running, so that every task of one flow is paired with every task of the other.
//! - An arrival waits in a slot of a join while the other flow can still fill another slot that
//!   the join needs, unless a third flow may have filled that one: there is a pair of such an
//!   arrival and the same other flow.
//! - A join that counts goes on before all have come and absorbs the rest. That is believed only
//!   of joins whose sources run once each (`absorbs`): elsewhere a late arrival counts as new.
//! - Two flows that fire one node in the same step, or wait in one join, are one from then on: the
//!   pair ends. So it does at END.
//!
//! Two nodes *meet* if some pair holds a task of each. Two that never meet never run side by
//! side: a line or a join stands between them, or a run takes only one of them. They meet *surely*
//! if lines without conditions lead from the fork to both. Errs towards meeting, and only where
//! flows pass joins: pairs may stem from different moments of different runs.

use std::collections::{BTreeMap, HashMap};

use petgraph::graph::NodeIndex as Vertex;

use crate::graph::check::Checked;
use crate::graph::effort::Effort;
use crate::graph::lines::Joined;
use crate::graph::topology::{Place, Take};
use crate::graph::{Branch, Needs, NodeIndex, Schedule};

/// Pairs that are kept in mind, some 100 bytes each.
const PAIR_LIMIT: usize = 1_000_000;

/// Steps that looking up a pair takes.
const KEPT: usize = 16;

/// Pairs of nodes that can run at the same time, the smaller first; whether they always do once
/// their fork has run.
pub(super) type Meetings = BTreeMap<(NodeIndex, NodeIndex), bool>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Flow {
    Task(NodeIndex),
    /// Waits in the slot of `from`.
    Slot {
        join: usize,
        from: NodeIndex,
    },
}

impl Flow {
    /// The node that it is at or comes from.
    fn node(self) -> NodeIndex {
        match self {
            Self::Task(node) | Self::Slot { from: node, .. } => node,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    a: Flow,
    b: Flow,
    /// The join that a flow fired before the other could fill a slot of it; whether it was `b`.
    ahead: Option<(usize, bool)>,
}

impl Pair {
    /// Whether a flow comes to a join that the other one has fired already.
    fn absorbs(self, flow: Flow, fired_by_b: bool) -> bool {
        matches!((flow, self.ahead), (Flow::Slot { join, .. }, Some((fired, by_b)))
            if join == fired && by_b == fired_by_b)
    }
}

/// Where a flow can go; `None` if it ends there. Whether it always does.
type Move = (Option<Flow>, bool);

/// Whether an arrival goes on; for certain in all runs that follow such lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    Waits,
    May { sure: bool },
    Does,
}

struct JoinView<'c> {
    target: NodeIndex,
    needs: Needs,
    /// Sources, and from which nodes each can still be reached.
    slots: Vec<(NodeIndex, &'c [bool])>,
    /// It counts, and a flow that comes after it has fired is absorbed.
    absorbs: bool,
}

struct Explorer<'c> {
    effort: &'c Effort,
    schedule: Schedule,
    moves: Vec<Vec<Move>>,
    joins: Vec<JoinView<'c>>,
    tasks: Tasks,
    seen: HashMap<Pair, bool>,
    /// Arrivals (join and source) and the other flows of their pairs.
    arrived: HashMap<(usize, NodeIndex, Flow), bool>,
    fresh: Vec<Pair>,
}

/// Pairs of tasks that are known, as bits: in a graph of many lines the same pair is found again and
/// again.
struct Tasks {
    nodes: usize,
    /// Two bits a pair: seen, and seen as sure.
    bits: Vec<u64>,
}

impl Tasks {
    /// Nodes of the largest graph whose pairs are kept as bits: they take 4 MiB.
    const MOST: usize = 4096;

    fn of(nodes: usize) -> Self {
        let nodes = if nodes <= Self::MOST { nodes } else { 0 };
        Self { nodes, bits: vec![0; (2 * nodes * nodes).div_ceil(64)] }
    }

    /// Where a pair's bits stand: word and shift.
    fn place(&self, pair: Pair) -> Option<(usize, usize)> {
        match pair {
            Pair { a: Flow::Task(a), b: Flow::Task(b), ahead: None } if self.nodes > 0 => {
                let bit = 2 * (a * self.nodes + b);
                Some((bit / 64, bit % 64))
            }
            _ => None,
        }
    }

    /// Whether nothing is new about a pair.
    fn knows(&self, pair: Pair, sure: bool) -> bool {
        let known = self.place(pair).map(|(word, shift)| self.bits[word] >> shift & 3);
        known.is_some_and(|known| if sure { known == 3 } else { known != 0 })
    }

    fn note(&mut self, pair: Pair, sure: bool) {
        if let Some((word, shift)) = self.place(pair) {
            self.bits[word] |= (if sure { 3 } else { 1 }) << shift;
        }
    }
}

/// Whether one task can take both ways.
pub(super) fn both(branch: Branch, a: Take, b: Take) -> bool {
    match (a, b) {
        (Take::Goto, Take::Goto) => true,
        (a, b) if !a.is_line() || !b.is_line() => false,
        (Take::Always, _) | (_, Take::Always) | (Take::Otherwise, Take::Otherwise) => true,
        (Take::When, Take::When) => branch == Branch::All,
        _ => false,
    }
}

/// Every two nodes that meet.
pub(super) fn meetings(checked: &Checked<'_>) -> Meetings {
    let mut explorer = Explorer::of(checked);
    explorer.explore(checked);
    if explorer.find_absorbing() {
        explorer.explore(checked);
    }
    let mut met = Meetings::new();
    for (pair, sure) in explorer.seen {
        if let (Flow::Task(a), Flow::Task(b)) = (pair.a, pair.b)
            && a != b
        {
            *met.entry((a.min(b), a.max(b))).or_default() |= sure;
        }
    }
    met
}

impl<'c> Explorer<'c> {
    fn of(checked: &'c Checked<'_>) -> Self {
        let join = |(joined, alive): (&'c Joined, &'c Vec<Vec<bool>>)| JoinView {
            target: joined.target,
            needs: joined.needs,
            slots: joined.sources.iter().copied().zip(alive.iter().map(Vec::as_slice)).collect(),
            absorbs: false,
        };
        let nodes = 0..checked.names.len();
        Self {
            effort: checked.effort,
            schedule: checked.schedule,
            moves: nodes.map(|node| moves(checked, checked.topology.node(node))).collect(),
            joins: checked.joins.iter().zip(checked.alive).map(join).collect(),
            tasks: Tasks::of(checked.names.len()),
            seen: HashMap::new(),
            arrived: HashMap::new(),
            fresh: Vec::new(),
        }
    }

    fn explore(&mut self, checked: &Checked<'_>) {
        self.seen.clear();
        self.arrived.clear();
        self.fresh.clear();
        self.tasks = Tasks::of(checked.names.len());
        self.forks(checked);
        while let Some(pair) = self.fresh.pop() {
            if !self.go_on(pair) {
                break;
            }
        }
    }

    /// Finds joins that count and no source of which can run again before a late arrival; whether
    /// there are any. Knows what was explored without them.
    fn find_absorbing(&mut self) -> bool {
        let counts = |join: &JoinView| matches!(join.needs, Needs::Count(_));
        let mut absorbs: Vec<bool> = self.joins.iter().map(counts).collect();
        let slots: usize = self.joins.iter().filter(|j| counts(j)).map(|j| j.slots.len()).sum();
        if slots == 0 || !self.effort.spend(slots.saturating_mul(2 * self.seen.len())) {
            return false;
        }
        for pair in self.seen.keys() {
            for (one, other) in [(pair.a, pair.b), (pair.b, pair.a)] {
                let Flow::Task(other) = other else { continue };
                for (join, absorbs) in self.joins.iter().zip(&mut absorbs).filter(|(_, a)| **a) {
                    let again = |(source, alive): &(NodeIndex, &[bool])| {
                        one.node() == *source && alive[other]
                    };
                    *absorbs &= !join.slots.iter().any(again);
                }
            }
        }
        for (join, absorbs) in self.joins.iter_mut().zip(&absorbs) {
            join.absorbs = *absorbs;
        }
        absorbs.contains(&true)
    }

    fn forks(&mut self, checked: &Checked<'_>) {
        let topology = checked.topology;
        let reached = topology.reachable();
        for fork in topology.arcs.node_indices().filter(|v| reached[v.index()]) {
            let (out, moves) = (topology.out(fork), moves(checked, fork));
            if !self.effort.spend(out.len().saturating_mul(out.len())) {
                return;
            }
            for (i, (_, a)) in out.iter().enumerate() {
                for (j, (_, b)) in out.iter().enumerate().skip(i + 1) {
                    let ends = (moves[i].0, moves[j].0);
                    if let (Some(to_a), Some(to_b)) = ends
                        && to_a != to_b
                        && both(checked.branch(fork), a.take, b.take)
                    {
                        let pair = Pair { a: to_a, b: to_b, ahead: None };
                        self.note(pair, moves[i].1 && moves[j].1);
                    }
                }
            }
        }
    }

    /// What a pair that was seen becomes; whether that could be looked at.
    fn go_on(&mut self, pair: Pair) -> bool {
        let sure = self.seen.get(&pair).copied().unwrap_or_default();
        for (flow, other, by_b) in [(pair.a, pair.b, false), (pair.b, pair.a, true)] {
            let Flow::Slot { join, from } = flow else { continue };
            if !self.effort.spend(KEPT * self.joins[join].slots.len()) {
                return false;
            }
            match self.goes(join, from, other) {
                Goes::Waits => {}
                Goes::May { sure: also } => {
                    self.note(self.fired(pair, join, from, by_b), sure && also);
                }
                Goes::Does => {
                    self.note(self.fired(pair, join, from, by_b), sure);
                    return true;
                }
            }
        }
        let (of_a, of_b) = (self.moves(pair.a), self.moves(pair.b));
        let steps = match self.schedule {
            Schedule::Superstep => of_a.len().saturating_mul(of_b.len()),
            Schedule::Dataflow => of_a.len() + of_b.len(),
        };
        if !self.effort.spend(steps) {
            return false;
        }
        match self.schedule {
            Schedule::Superstep => {
                for (a, a_sure) in &of_a {
                    for (b, b_sure) in &of_b {
                        self.step(pair, *a, *b, sure && *a_sure && *b_sure);
                    }
                }
            }
            Schedule::Dataflow => {
                for (a, a_sure) in of_a {
                    self.step(pair, a, Some(pair.b), sure && a_sure);
                }
                for (b, b_sure) in of_b {
                    self.step(pair, Some(pair.a), b, sure && b_sure);
                }
            }
        }
        true
    }

    fn moves(&self, flow: Flow) -> Vec<Move> {
        match flow {
            Flow::Task(node) => self.moves[node].clone(),
            Flow::Slot { .. } => vec![(Some(flow), true)],
        }
    }

    fn step(&mut self, pair: Pair, a: Option<Flow>, b: Option<Flow>, sure: bool) {
        let (Some(a), Some(b)) = (a, b) else { return };
        let once = self.schedule == Schedule::Superstep;
        if once && a == b || pair.absorbs(a, true) || pair.absorbs(b, false) {
            return;
        }
        self.note(Pair { a, b, ..pair }, sure);
    }

    fn goes(&self, join: usize, from: NodeIndex, other: Flow) -> Goes {
        let view = &self.joins[join];
        let mut sure = true;
        let mut filled = 0;
        let mut late = false;
        for (source, alive) in &view.slots {
            let seen = self.arrived.get(&(join, *source, other));
            if *source == from {
                filled += 1;
            } else if let Some(also) = seen {
                filled += 1;
                sure &= *also;
            } else if let Flow::Task(other) = other {
                late |= alive[other];
            }
        }
        let alone = filled == 1;
        match view.needs {
            Needs::Count(1) => Goes::Does,
            Needs::Count(count) if filled >= count => Goes::May { sure },
            Needs::All if late => Goes::Waits,
            Needs::All if alone && matches!(other, Flow::Task(_)) => Goes::Does,
            Needs::All => Goes::May { sure },
            Needs::Count(_) => Goes::Waits,
        }
    }

    /// The pair after one of its arrivals has fired its join.
    fn fired(&self, pair: Pair, join: usize, from: NodeIndex, by_b: bool) -> Pair {
        let (view, other) = (&self.joins[join], if by_b { pair.a } else { pair.b });
        let comes = |(source, alive): &(NodeIndex, &[bool])| {
            *source != from && matches!(other, Flow::Task(other) if alive[other])
        };
        let late = view.absorbs && view.slots.iter().any(comes);
        let ahead = if late { Some((join, by_b)) } else { pair.ahead };
        let task = Flow::Task(view.target);
        if by_b { Pair { b: task, ahead, ..pair } } else { Pair { a: task, ahead, ..pair } }
    }

    fn note(&mut self, pair: Pair, sure: bool) {
        let Pair { a, b, ahead } = pair;
        if let (Flow::Slot { join: a, .. }, Flow::Slot { join: b, .. }) = (a, b)
            && a == b
        {
            return;
        }
        let swapped = Pair { a: b, b: a, ahead: ahead.map(|(join, by_b)| (join, !by_b)) };
        let pair = if b < a { swapped } else { pair };
        if self.tasks.knows(pair, sure) {
            return;
        }
        if !self.effort.spend(KEPT) || self.seen.len() >= PAIR_LIMIT {
            // What is not noted is not looked at.
            self.effort.spend(usize::MAX);
            return;
        }
        let known = self.seen.get(&pair).copied();
        if known.is_none() || known == Some(false) && sure {
            self.seen.insert(pair, sure);
            self.tasks.note(pair, sure);
            self.fresh.push(pair);
            for (flow, other) in [(pair.a, pair.b), (pair.b, pair.a)] {
                if let Flow::Slot { join, from } = flow {
                    *self.arrived.entry((join, from, other)).or_default() |= sure;
                }
            }
        }
    }
}

/// Where a task of a vertex can go, in the order of the arcs.
fn moves(checked: &Checked<'_>, from: Vertex) -> Vec<Move> {
    let topology = checked.topology;
    let jumps = topology.jumps(from);
    let flow = |to: Vertex| match (topology.arcs[to], topology.arcs[from]) {
        (Place::Node(node), _) => Some(Flow::Task(node)),
        (Place::Join(join), Place::Node(from)) => Some(Flow::Slot { join, from }),
        _ => None,
    };
    let out = topology.out(from).into_iter();
    out.map(|(to, arc)| (flow(to), arc.take == Take::Always && !jumps)).collect()
}
