//! The graph as petgraph sees it: for analysis and pictures. Running never reads it.
//!
//! A join is a vertex of its own: its sources lead to it, and it leads to its target.

use std::collections::VecDeque;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex as Vertex};
use petgraph::visit;
use petgraph::visit::EdgeRef as _;

use crate::graph::NodeIndex;
use crate::graph::effort::Effort;

/// What a vertex stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Start,
    End,
    Node(NodeIndex),
    Join(usize),
}

/// When an arc is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    Always,
    When,
    Otherwise,
    /// In place of all lines, any number at once: a node's `goto`.
    Goto,
    /// In place of everything else: a node's `on_error`.
    Error,
}

impl Take {
    /// Whether it is a line of the YAML.
    pub(super) fn is_line(self) -> bool {
        !matches!(self, Self::Goto | Self::Error)
    }
}

/// What the YAML says of an arc, as seen from where the arc begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    /// Place in `edges`, or of the second node in `order`.
    Line(usize),
    /// Place in the node's `goto.among`.
    Goto(usize),
    /// The node's `on_error`.
    OnError,
}

/// One line, one source's part of a join, or another way from node to node.
#[derive(Clone, Debug)]
pub(super) struct Arc {
    pub(super) take: Take,
    pub(super) said: Said,
}

/// The topology of one graph.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    pub(super) arcs: DiGraph<Place, Arc>,
    nodes: usize,
    joins: usize,
}

pub(super) fn start() -> Vertex {
    Vertex::new(0)
}

pub(super) fn end() -> Vertex {
    Vertex::new(1)
}

impl Topology {
    pub(super) fn new(nodes: usize) -> Self {
        let mut arcs = DiGraph::with_capacity(nodes + 2, nodes * 2);
        arcs.add_node(Place::Start);
        arcs.add_node(Place::End);
        for node in 0..nodes {
            arcs.add_node(Place::Node(node));
        }
        Self { arcs, nodes, joins: 0 }
    }

    pub(super) fn node(&self, node: NodeIndex) -> Vertex {
        debug_assert!(node < self.nodes, "no such node");
        Vertex::new(2 + node)
    }

    pub(super) fn join(&self, join: usize) -> Vertex {
        debug_assert!(join < self.joins, "no such join");
        Vertex::new(2 + self.nodes + join)
    }

    /// Adds the next join.
    pub(super) fn add_join(&mut self) -> Vertex {
        self.joins += 1;
        self.arcs.add_node(Place::Join(self.joins - 1))
    }

    pub(super) fn connect(&mut self, from: Vertex, to: Vertex, take: Take, said: Said) {
        self.arcs.add_edge(from, to, Arc { take, said });
    }

    /// Arcs that leave a vertex, in the order of the YAML.
    pub(super) fn out(&self, from: Vertex) -> Vec<(Vertex, &Arc)> {
        let mut out: Vec<_> =
            self.arcs.edges(from).map(|edge| (edge.target(), edge.weight())).collect();
        out.reverse();
        out
    }

    /// How many arcs of a kind leave a vertex.
    pub(super) fn count(&self, from: Vertex, take: Take) -> usize {
        self.arcs.edges(from).filter(|edge| edge.weight().take == take).count()
    }

    /// Whether the vertex may fire others in place of its lines and without failing.
    pub(super) fn jumps(&self, from: Vertex) -> bool {
        self.count(from, Take::Goto) > 0
    }

    /// `reached[v]`: some way from START leads to vertex `v`.
    pub(super) fn reachable(&self) -> Vec<bool> {
        let mut reached = vec![false; self.arcs.node_count()];
        let mut walk = visit::Dfs::new(&self.arcs, start());
        while let Some(vertex) = walk.next(&self.arcs) {
            reached[vertex.index()] = true;
        }
        reached
    }

    /// For each source of a join, `alive[n]`: a task of node `n` can still reach it without passing
    /// that join. `None` if that is more than can be looked at.
    ///
    /// All sources at once: every vertex knows which of them it reaches, 64 in a word, and tells
    /// those before it until nothing new is told.
    pub(super) fn alive(
        &self,
        sources: &[NodeIndex],
        join: usize,
        effort: &Effort,
    ) -> Option<Vec<Vec<bool>>> {
        let words = sources.len().div_ceil(64);
        if !effort.spend(words * self.arcs.node_count() + sources.len() * self.nodes / 8) {
            return None;
        }
        let mut reaches = vec![0_u64; words * self.arcs.node_count()];
        let mut queue = VecDeque::new();
        for (place, source) in sources.iter().enumerate() {
            let vertex = self.node(*source);
            reaches[vertex.index() * words + place / 64] |= 1 << (place % 64);
            queue.push_back(vertex);
        }
        let mut queued = vec![false; self.arcs.node_count()];
        while let Some(vertex) = queue.pop_front() {
            queued[vertex.index()] = false;
            let told = reaches[vertex.index() * words..][..words].to_vec();
            for before in self.arcs.neighbors_directed(vertex, Direction::Incoming) {
                if !effort.spend(4 + words) {
                    return None;
                }
                if before == self.join(join) {
                    continue;
                }
                let known = &mut reaches[before.index() * words..][..words];
                let mut new = false;
                for (known, told) in known.iter_mut().zip(&told) {
                    new |= *told & !*known != 0;
                    *known |= told;
                }
                if new && !std::mem::replace(&mut queued[before.index()], true) {
                    queue.push_back(before);
                }
            }
        }
        let reached = |place: usize, node: NodeIndex| {
            let word = reaches[self.node(node).index() * words + place / 64];
            word >> (place % 64) & 1 == 1
        };
        let of = |place| (0..self.nodes).map(|node| reached(place, node)).collect();
        Some((0..sources.len()).map(of).collect())
    }

    /// Strongly connected components, those that others lead to first. Found without recursion: a
    /// file may hold a way of ten thousand nodes.
    pub(super) fn components(&self) -> Components {
        let lists = petgraph::algo::kosaraju_scc(&self.arcs);
        let mut number = vec![0; self.arcs.node_count()];
        for (i, list) in lists.iter().enumerate() {
            for vertex in list {
                number[vertex.index()] = i;
            }
        }
        let cyclic = |list: &Vec<Vertex>| {
            list.len() > 1 || list.first().is_some_and(|v| self.arcs.contains_edge(*v, *v))
        };
        let cyclic = lists.iter().map(cyclic).collect();
        Components { lists, number, cyclic }
    }
}

/// The cycles of a graph.
pub(super) struct Components {
    pub(super) lists: Vec<Vec<Vertex>>,
    /// By vertex: place in `lists`. An arc leads to the same or a smaller number.
    pub(super) number: Vec<usize>,
    /// By component: whether it is a cycle.
    pub(super) cyclic: Vec<bool>,
}

impl Components {
    /// Whether an arc between these lies on a cycle.
    pub(super) fn on_cycle(&self, from: Vertex, to: Vertex) -> bool {
        self.number[from.index()] == self.number[to.index()]
    }
}
