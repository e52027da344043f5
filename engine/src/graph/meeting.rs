//! Which nodes can run at the same time.
//!
//! One run is looked at through *pairs* of its flows. A flow is a task, or an arrival that waits
//! in a slot of a join.
//!
//! - A pair begins where one task fires two others (a fork; START is one). Lines that exclude each
//!   other (`when` and `otherwise`, lines and `goto`, anything and `on_error`) begin none.
//! - `superstep`: the tasks of a pair go on together. `dataflow`: one goes on while the other is
//!   still running, so that every task of one flow is paired with every task of the other.
//! - An arrival waits while the other flow can fill another slot of a join that needs it. A join
//!   that counts can go on before that, and absorbs the other flow when it arrives.
//! - Two flows that fire one node in the same step, or wait in one join, are one from then on: the
//!   pair ends. So it does at END.
//!
//! Two nodes *meet* if some pair holds a task of each. Two that never meet are ordered: in every
//! run each task of the one ends before a task of the other begins that read what it wrote, or
//! only one of them runs. They meet *surely* if nothing but lines without conditions leads from
//! the fork to both. Errs towards meeting: what keeps a third flow from filling a slot is not
//! looked at.

use std::collections::{BTreeMap, HashMap};

use petgraph::Direction;
use petgraph::graph::NodeIndex as Vertex;

use crate::graph::check::Checked;
use crate::graph::topology::{Place, Take};
use crate::graph::{Branch, Needs, NodeIndex, Schedule};

/// Pairs that are looked at; more are found only in graphs that no person wrote.
const PAIR_LIMIT: usize = 1_000_000;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    a: Flow,
    b: Flow,
    /// The join that a flow fired before the other could fill a slot of it; whether it was `b`.
    ahead: Option<(usize, bool)>,
}

/// Where a flow can go; `None` if it ends there. Whether it always does.
type Move = (Option<Flow>, bool);

/// Whether an arrival goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    Waits,
    May,
    Does,
}

struct JoinView {
    target: NodeIndex,
    needs: Needs,
    /// Sources, and from which nodes each can still be reached.
    slots: Vec<(NodeIndex, Vec<bool>)>,
}

struct Explorer {
    schedule: Schedule,
    moves: Vec<Vec<Move>>,
    joins: Vec<JoinView>,
    seen: HashMap<Pair, bool>,
    fresh: Vec<Pair>,
}

/// Whether one task can take both ways.
pub(super) fn both(branch: Branch, a: Take, b: Take) -> bool {
    match (a, b) {
        (Take::Error, _) | (_, Take::Error) => false,
        (Take::Goto, Take::Goto) => true,
        (Take::Goto, _) | (_, Take::Goto) => false,
        (Take::Always, _) | (_, Take::Always) | (Take::Otherwise, Take::Otherwise) => true,
        (Take::When, Take::When) => branch == Branch::All,
        _ => false,
    }
}

/// Every two nodes that meet.
pub(super) fn meetings(checked: &Checked<'_>) -> Meetings {
    let mut explorer = Explorer::of(checked);
    explorer.forks(checked);
    while let Some(pair) = explorer.fresh.pop() {
        explorer.go_on(pair);
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

impl Explorer {
    fn of(checked: &Checked<'_>) -> Self {
        let topology = checked.topology;
        let source = |vertex: Vertex| match topology.arcs[vertex] {
            Place::Node(node) => Some(node),
            Place::Start | Place::End | Place::Join(_) => None,
        };
        let join = |(join, needs): (usize, &Needs)| {
            let vertex = topology.join(join);
            let sources = topology.arcs.neighbors_directed(vertex, Direction::Incoming);
            let slots = sources.filter_map(source).map(|from| (from, topology.alive(from, join)));
            let target = topology.arcs.neighbors(vertex).find_map(source)?;
            Some(JoinView { target, needs: *needs, slots: slots.collect() })
        };
        let nodes = 0..checked.names.len();
        Self {
            schedule: checked.schedule,
            moves: nodes.map(|node| moves(checked, topology.node(node))).collect(),
            joins: checked.needs.iter().enumerate().filter_map(join).collect(),
            seen: HashMap::new(),
            fresh: Vec::new(),
        }
    }

    fn forks(&mut self, checked: &Checked<'_>) {
        let topology = checked.topology;
        let reached = topology.reachable();
        for fork in topology.arcs.node_indices().filter(|v| reached[v.index()]) {
            let (out, moves) = (topology.out(fork), moves(checked, fork));
            for (i, (_, a)) in out.iter().enumerate() {
                for (j, (_, b)) in out.iter().enumerate().skip(i + 1) {
                    let ends = (moves[i].0, moves[j].0);
                    if let (Some(to_a), Some(to_b)) = ends
                        && to_a != to_b
                        && both(checked.branch(fork), a.take, b.take)
                    {
                        let pair = Pair { a: to_a, b: to_b, ahead: None };
                        self.settle(pair, moves[i].1 && moves[j].1);
                    }
                }
            }
        }
    }

    /// What a pair that was seen becomes.
    fn go_on(&mut self, pair: Pair) {
        let sure = self.seen.get(&pair).copied().unwrap_or_default();
        let (of_a, of_b) = (self.moves(pair.a), self.moves(pair.b));
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
        if once && a == b || self.absorbed(pair, a, true) || self.absorbed(pair, b, false) {
            return;
        }
        self.settle(Pair { a, b, ..pair }, sure);
    }

    /// Whether a flow comes to a join that the other one has fired already.
    fn absorbed(&self, pair: Pair, flow: Flow, fired_by_b: bool) -> bool {
        matches!((flow, pair.ahead), (Flow::Slot { join, .. }, Some((fired, by_b)))
            if join == fired && by_b == fired_by_b)
    }

    /// Lets arrivals go on that need not wait, and notes what comes of it.
    fn settle(&mut self, pair: Pair, sure: bool) {
        if let (Flow::Slot { join: a, .. }, Flow::Slot { join: b, .. }) = (pair.a, pair.b)
            && a == b
        {
            return;
        }
        let (mut a, mut b) = (self.goes(pair.a, pair.b), self.goes(pair.b, pair.a));
        if (a, b) == (Some(Goes::Waits), Some(Goes::Waits)) {
            // Each waits for what only the other could bring.
            (a, b) = (Some(Goes::May), Some(Goes::May));
        }
        if let Some(does) = a.filter(|goes| *goes != Goes::Waits) {
            self.settle(self.fired(pair, false), sure && does == Goes::Does);
        }
        if let Some(does) = b.filter(|goes| *goes != Goes::Waits) {
            self.settle(self.fired(pair, true), sure && does == Goes::Does);
        }
        if a != Some(Goes::Does) && b != Some(Goes::Does) {
            self.note(pair, sure);
        }
    }

    /// `None` for a task.
    fn goes(&self, flow: Flow, other: Flow) -> Option<Goes> {
        let Flow::Slot { join, from } = flow else { return None };
        let (join, late) = (&self.joins[join], self.late(join, from, other));
        Some(match join.needs {
            Needs::Count(1) => Goes::Does,
            Needs::Count(count) if count < join.slots.len() => Goes::May,
            Needs::All | Needs::Count(_) if late => Goes::Waits,
            Needs::All => Goes::Does,
            Needs::Count(_) => Goes::May,
        })
    }

    /// Whether `other` can still fill a slot of the join besides that of `from`.
    fn late(&self, join: usize, from: NodeIndex, other: Flow) -> bool {
        let at = match other {
            Flow::Task(node) => node,
            Flow::Slot { join, .. } => self.joins[join].target,
        };
        self.joins[join].slots.iter().any(|(source, alive)| *source != from && alive[at])
    }

    /// The pair after one of its arrivals has fired its join.
    fn fired(&self, pair: Pair, by_b: bool) -> Pair {
        let (flow, other) = if by_b { (pair.b, pair.a) } else { (pair.a, pair.b) };
        let Flow::Slot { join, from } = flow else { return pair };
        let counts = matches!(self.joins[join].needs, Needs::Count(_));
        let ahead =
            if counts && self.late(join, from, other) { Some((join, by_b)) } else { pair.ahead };
        let task = Flow::Task(self.joins[join].target);
        if by_b { Pair { b: task, ahead, ..pair } } else { Pair { a: task, ahead, ..pair } }
    }

    fn note(&mut self, pair: Pair, sure: bool) {
        let Pair { a, b, ahead } = pair;
        let swapped = Pair { a: b, b: a, ahead: ahead.map(|(join, by_b)| (join, !by_b)) };
        let pair = if b < a { swapped } else { pair };
        if self.seen.len() >= PAIR_LIMIT && !self.seen.contains_key(&pair) {
            return;
        }
        let known = self.seen.get(&pair).copied();
        if known.is_none() || known == Some(false) && sure {
            self.seen.insert(pair, sure);
            self.fresh.push(pair);
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
