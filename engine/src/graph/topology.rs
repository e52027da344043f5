//! The graph as petgraph sees it: for analysis and pictures. Running never reads it.
//!
//! A join is a vertex of its own: its sources lead to it, and it leads to its target.

use petgraph::graph::{DiGraph, NodeIndex as Vertex};
use petgraph::visit;
use petgraph::visit::{EdgeRef as _, Reversed};

use crate::graph::NodeIndex;

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

    /// `alive[n]`: a task of node `n` can still reach `from` without passing `join`.
    pub(super) fn alive(&self, from: NodeIndex, join: usize) -> Vec<bool> {
        let shut = self.join(join);
        let without = visit::NodeFiltered::from_fn(&self.arcs, |vertex| vertex != shut);
        let back = Reversed(&without);
        let mut alive = vec![false; self.nodes];
        let mut walk = visit::Dfs::new(back, self.node(from));
        while let Some(vertex) = walk.next(back) {
            if let Place::Node(node) = self.arcs[vertex] {
                alive[node] = true;
            }
        }
        alive
    }

    /// Strongly connected components, those that others lead to first.
    pub(super) fn components(&self) -> Components {
        let lists = petgraph::algo::tarjan_scc(&self.arcs);
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
