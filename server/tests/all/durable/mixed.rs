//! Graphs put together by chance: lists, graphs inside, loops, and slow nodes beside instant ones,
//! under both schedules.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::plan::{Seeded, number};

/// How many there are.
const COUNT: u64 = 8;

/// Each of them, by its name. `EXILE_SEED` says which eight.
pub(super) static MIXED: LazyLock<Vec<(&'static str, &'static str)>> = LazyLock::new(|| {
    let seed = number("EXILE_SEED", 1);
    let mixed = |n| -> (&'static str, &'static str) {
        let name = format!("mixed_{n}");
        let text = Mixture::new(Seeded(seed * COUNT + n)).text(&name, n % 2 == 0);
        // They are needed for as long as the tests run.
        (name.leak(), text.leak())
    };
    (0..COUNT).map(mixed).collect()
});

/// A graph in the making.
struct Mixture {
    dice: Seeded,
    state: String,
    nodes: String,
    edges: String,
    /// Where the next block begins.
    from: String,
}

impl Mixture {
    fn new(dice: Seeded) -> Self {
        let (state, nodes, edges) = Default::default();
        Self { dice, state, nodes, edges, from: "START".to_owned() }
    }

    fn text(mut self, name: &str, dataflow: bool) -> String {
        for block in 0..4 {
            match self.dice.below(5) {
                0 => self.instant(block),
                1 => self.list(block),
                2 => self.inside(block),
                3 => self.cycle(block),
                _ => self.beside(block),
            }
        }
        self.line("END");
        let schedule = if dataflow { "schedule: dataflow\n" } else { "" };
        let Self { state, nodes, edges, .. } = self;
        format!(
            "graph: {name}\n{schedule}state:\n  name: {{ type: string }}\n  n: {{ reduce: sum, \
             default: 0, scope: run }}\n{state}nodes:\n{nodes}edges:\n{edges}"
        )
    }

    fn channel(&mut self, name: &str, rest: &str) {
        writeln!(self.state, "  {name}: {{ {rest}scope: run }}").unwrap();
    }

    fn node(&mut self, name: &str, what: &str) {
        writeln!(self.nodes, "  {name}: {{ {what} }}").unwrap();
    }

    /// From where the last block ended.
    fn line(&mut self, to: &str) {
        writeln!(self.edges, "  - {{ from: {}, to: {to} }}", self.from).unwrap();
    }

    fn effect(&mut self) -> &'static str {
        ["looks", "puts", "acts"][usize::try_from(self.dice.below(3)).unwrap()]
    }

    /// A node that ends at once.
    fn instant(&mut self, block: u32) {
        let name = format!("set_{block}");
        self.node(&name, "kind: set, set: { n: '1' }");
        self.line(&name);
        self.from = name;
    }

    /// A call, or a node that ends at once, for each item of a list.
    fn list(&mut self, block: u32) {
        let name = format!("list_{block}");
        let (tool, at_once) = (self.effect(), 1 + self.dice.below(3));
        self.channel(&format!("r{block}"), "");
        let over = format!("[name ~ ' {block}a', name ~ ' {block}b', name ~ ' {block}c']");
        let call = format!("{{ kind: tool, tool: {tool}, args: {{ what: \"{{{{ item }}}}\" }} }}");
        self.node(
            &name,
            &format!(
                "kind: map, over: \"{over}\", as: item, concurrency: {at_once}, node: {call}, \
                 into: r{block}"
            ),
        );
        self.line(&name);
        self.from = name;
    }

    /// A graph with calls of its own.
    fn inside(&mut self, block: u32) {
        let name = format!("inside_{block}");
        self.channel(&format!("r{block}"), "");
        let who = format!("name ~ ' {block}'");
        self.node(
            &name,
            &format!("kind: graph, graph: inner, with: {{ who: \"{who}\" }}, into: r{block}"),
        );
        self.line(&name);
        self.from = name;
    }

    /// A node that fires itself.
    fn cycle(&mut self, block: u32) {
        let (name, count) = (format!("again_{block}"), format!("c{block}"));
        let rounds = 2 + self.dice.below(4);
        self.channel(&count, "type: integer, default: 0, ");
        self.node(&name, &format!("kind: set, set: {{ {count}: '{count} + 1', n: '1' }}"));
        self.line(&name);
        let when = format!("when: '{count} < {rounds}'");
        writeln!(self.edges, "  - {{ from: {name}, to: {name}, {when} }}").unwrap();
        let after = format!("after_{block}");
        self.node(&after, "kind: set, set: { n: '1' }");
        writeln!(self.edges, "  - {{ from: {name}, to: {after}, otherwise: true }}").unwrap();
        self.from = after;
    }

    /// A slow call beside nodes that end at once, and what waits for both.
    fn beside(&mut self, block: u32) {
        let [slow, one, two, both] =
            ["slow", "one", "two", "both"].map(|name| format!("{name}_{block}"));
        let tool = self.effect();
        self.channel(&format!("r{block}"), "");
        let what = format!("{{{{ name }}}} slow {block}");
        self.node(
            &slow,
            &format!("kind: tool, tool: {tool}, args: {{ what: \"{what}\" }}, into: r{block}"),
        );
        for name in [&one, &two, &both] {
            self.node(name, "kind: set, set: { n: '1' }");
        }
        self.line(&slow);
        self.line(&one);
        writeln!(self.edges, "  - {{ from: {one}, to: {two} }}").unwrap();
        writeln!(self.edges, "  - {{ from: [{slow}, {two}], to: {both} }}").unwrap();
        self.from = both;
    }
}
