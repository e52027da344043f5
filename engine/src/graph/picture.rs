//! A graph as Mermaid, DOT and JSON, drawn from petgraph: conditions as labels, joins as points
//! of their own, `goto` and `on_error` as broken lines.

use std::fmt::Write as _;

use petgraph::graph::{DiGraph, NodeIndex as Vertex};
use petgraph::visit::EdgeRef as _;
use serde_json::{Value, json};

use crate::graph::{Graph, GraphNode, Guard, Line, Needs, OnError, Target};

/// The topology with what is written on it.
struct Picture<'g> {
    graph: &'g Graph,
    arcs: DiGraph<Shape<'g>, Label>,
}

struct Label {
    text: String,
    /// Not a line of the YAML.
    broken: bool,
}

enum Shape<'g> {
    Start,
    End,
    Node { name: &'g str, kind: &'g str },
    Join(Needs),
}

/// The graph as a Mermaid flowchart.
#[must_use]
pub fn mermaid(graph: &Graph) -> String {
    let picture = Picture::of(graph);
    let mut text = String::from("flowchart TD\n");
    for vertex in picture.arcs.node_indices() {
        let id = id(vertex);
        let line = match &picture.arcs[vertex] {
            Shape::Start => format!("    {id}([START])"),
            Shape::End => format!("    {id}([END])"),
            Shape::Node { name, kind } => {
                format!("    {id}[\"{}<br/><i>{kind}</i>\"]", escape(name))
            }
            Shape::Join(needs) => format!("    {id}{{{{{}}}}}", word(*needs)),
        };
        push(&mut text, &line);
    }
    for arc in picture.arcs.edge_references() {
        let (from, to) = (id(arc.source()), id(arc.target()));
        let Label { text: label, broken } = arc.weight();
        let arrow = if *broken { "-.->" } else { "-->" };
        let line = match label.as_str() {
            "" => format!("    {from} {arrow} {to}"),
            label => format!("    {from} {arrow}|\"{}\"| {to}", escape(label)),
        };
        push(&mut text, &line);
    }
    text
}

/// The graph for Graphviz.
#[must_use]
pub fn dot(graph: &Graph) -> String {
    let picture = Picture::of(graph);
    let mut text = format!("digraph {:?} {{\n", &*graph.name);
    for vertex in picture.arcs.node_indices() {
        let (label, shape) = match &picture.arcs[vertex] {
            Shape::Start => ("START".to_owned(), "oval"),
            Shape::End => ("END".to_owned(), "oval"),
            Shape::Node { name, kind } => (format!("{name}\n{kind}"), "box"),
            Shape::Join(needs) => (word(*needs), "diamond"),
        };
        push(&mut text, &format!("    {} [label={label:?}, shape={shape}];", id(vertex)));
    }
    for arc in picture.arcs.edge_references() {
        let (from, to) = (id(arc.source()), id(arc.target()));
        let Label { text: label, broken } = arc.weight();
        let style = if *broken { ", style=dashed" } else { "" };
        let line = match label.as_str() {
            "" => format!("    {from} -> {to};"),
            label => format!("    {from} -> {to} [label={label:?}{style}];"),
        };
        push(&mut text, &line);
    }
    text.push_str("}\n");
    text
}

/// The graph as data: `nodes` with name and kind, `edges` with `from` (a list: a join), `to` and
/// `when`, `otherwise`, `join`, `goto` or `on_error`; channels, input, output, schedule,
/// durability and limits.
#[must_use]
pub fn json(graph: &Graph) -> Value {
    let nodes: Vec<Value> =
        graph.nodes.iter().map(|n| json!({ "name": n.name, "kind": n.kind })).collect();
    let sources = std::iter::once(("START", &graph.start))
        .chain(graph.nodes.iter().map(|node| (&*node.name, &node.lines)));
    let mut edges: Vec<Value> = sources
        .flat_map(|(from, lines)| lines.iter().map(move |line| (from, line)))
        .filter_map(|(from, line)| edge(graph, from, line))
        .collect();
    for join in &graph.joins {
        let from: Vec<&str> = join.slots.iter().map(|s| &*graph.nodes[s.from].name).collect();
        let needs = match join.needs {
            Needs::Count(count) if count > 1 => count.into(),
            needs => Value::from(word(needs)),
        };
        edges.push(json!({ "from": from, "to": graph.nodes[join.target].name, "join": needs }));
    }
    for node in &graph.nodes {
        for (to, way) in ways(node) {
            let key = if way == Way::Error { "on_error" } else { "goto" };
            edges.push(json!({ "from": node.name, "to": name(graph, to), key: true }));
        }
    }
    let channels: Vec<Value> = graph
        .channels
        .iter()
        .map(|c| json!({ "name": c.name, "type": c.kind, "reduce": c.reduce, "scope": c.scope }))
        .collect();
    let limits = json!({
        "steps": graph.limits.steps(),
        "timeout_ms": u64::try_from(graph.limits.run_timeout().as_millis()).unwrap_or(u64::MAX),
        "tokens": graph.limits.tokens,
    });
    json!({
        "graph": graph.name,
        "nodes": nodes,
        "edges": edges,
        "state": channels,
        "input": graph.input,
        "output": graph.output,
        "schedule": graph.schedule,
        "durability": graph.durability,
        "limits": limits,
    })
}

/// `None` for a join's part: the join is drawn once.
fn edge(graph: &Graph, from: &str, line: &Line) -> Option<Value> {
    let to = match line.to {
        Target::Slot { .. } => return None,
        to => name(graph, to),
    };
    Some(match &line.guard {
        Guard::Always => json!({ "from": from, "to": to }),
        Guard::When(expression) => json!({ "from": from, "to": to, "when": expression.source() }),
        Guard::Otherwise => json!({ "from": from, "to": to, "otherwise": true }),
    })
}

fn name(graph: &Graph, target: Target) -> &str {
    match target {
        Target::Node(node) => &graph.nodes[node].name,
        Target::End | Target::Slot { .. } => "END",
    }
}

/// How many of its sources a join waits for.
fn word(needs: Needs) -> String {
    match needs {
        Needs::All => "all".into(),
        Needs::Count(1) => "any".into(),
        Needs::Count(count) => count.to_string(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Goto,
    Error,
}

/// Where a node goes other than by its lines.
fn ways(node: &GraphNode) -> impl Iterator<Item = (Target, Way)> {
    let goto = node.policy.goto.iter().flat_map(|goto| &goto.among).map(|to| (*to, Way::Goto));
    let error = match node.policy.on_error {
        OnError::Node(to) => Some((Target::Node(to), Way::Error)),
        OnError::Fail | OnError::Continue => None,
    };
    goto.chain(error)
}

impl<'g> Picture<'g> {
    fn of(graph: &'g Graph) -> Self {
        let mut arcs = DiGraph::new();
        arcs.add_node(Shape::Start);
        for node in &graph.nodes {
            arcs.add_node(Shape::Node { name: &node.name, kind: node.kind });
        }
        for join in &graph.joins {
            arcs.add_node(Shape::Join(join.needs));
        }
        arcs.add_node(Shape::End);
        let mut picture = Self { graph, arcs };
        picture.lines(Vertex::new(0), &graph.start);
        for (node, vertex) in graph.nodes.iter().zip(1..) {
            picture.lines(Vertex::new(vertex), &node.lines);
            for (to, way) in ways(node) {
                let text = if way == Way::Error { "on error" } else { "goto" }.to_owned();
                let label = Label { text, broken: true };
                picture.arcs.add_edge(Vertex::new(vertex), picture.vertex(to), label);
            }
        }
        for (i, join) in graph.joins.iter().enumerate() {
            let from = picture.join(i);
            let label = Label { text: String::new(), broken: false };
            picture.arcs.add_edge(from, Vertex::new(1 + join.target), label);
        }
        picture
    }

    fn lines(&mut self, from: Vertex, lines: &[Line]) {
        for line in lines {
            let text = match &line.guard {
                Guard::Always => String::new(),
                Guard::When(expression) => expression.source().to_owned(),
                Guard::Otherwise => "otherwise".to_owned(),
            };
            self.arcs.add_edge(from, self.vertex(line.to), Label { text, broken: false });
        }
    }

    fn vertex(&self, target: Target) -> Vertex {
        match target {
            Target::Node(node) => Vertex::new(1 + node),
            Target::Slot { join, .. } => self.join(join),
            Target::End => Vertex::new(self.arcs.node_count() - 1),
        }
    }

    fn join(&self, join: usize) -> Vertex {
        Vertex::new(1 + self.graph.nodes.len() + join)
    }
}

fn id(vertex: Vertex) -> String {
    format!("n{}", vertex.index())
}

fn push(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

/// Mermaid reads labels as Markdown-like text; entities are safe in it.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => safe.push_str("#quot;"),
            '<' => safe.push_str("#lt;"),
            '>' => safe.push_str("#gt;"),
            '\n' => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}
