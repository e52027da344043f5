//! What loading finds in nodes of these kinds, all at once, each with its line and its fix.

use expect_test::{Expect, expect};

use crate::stage::findings;

const SKILL: &str = "skill: desk\nsystem: You work.\ntools: [double]\n";

/// A graph with channels `messages`, `out` (a number) and these nodes, one after the other.
fn check(nodes: &str, expected: Expect) {
    let names: Vec<&str> = nodes.lines().filter_map(|l| l.split(": ").next()).collect();
    let nodes: Vec<String> = nodes.lines().map(|line| format!("  {line}")).collect();
    let nodes = nodes.join("\n");
    let graph = format!(
        "graph: test\nmode: linear\nstate:\n  messages: {{ reduce: messages }}\n  \
         out: {{ type: number }}\nnodes:\n{nodes}\norder: [{}]\n",
        names.join(", ")
    );
    expected.assert_eq(&findings(&graph, &[SKILL]).join("\n"));
}

#[test]
fn good_nodes_have_no_findings() {
    check(
        "a: { kind: llm, skill: desk, tools: [double], model: fast, tool_choice: double }
b: { kind: tools }
c: { kind: agent, skill: desk, max_turns: 3, temperature: 0.5, reasoning: high }
d: { kind: tool, tool: double, args: { x: 1 }, into: out }
e: { kind: set, set: { out: out + 1 } }",
        expect![[""]],
    );
}

#[test]
fn names_that_nobody_knows() {
    check(
        "a: { kind: llm, skill: dsek, model: fats, tools: [duoble], into: uot }
b: { kind: agent, tools: [mail__*], system: '{{ messagse }}' }
c: { kind: tool, tool: doble, into: out }
d: { kind: set, set: { oout: 1, out: ouut + 1 } }
e: { kind: llm, tool_choice: tripel }",
        expect![[r#"
            7: unknown_skill
            7: unknown_model
            7: an `llm` with `into` or `output` cannot call tools: nothing could run the calls → make it an `agent`, or remove `tools`
            7: unknown_tool
            7: unknown_channel
            8: unknown_tool
            8: unknown_variable
            9: unknown_tool
            10: unknown_channel
            10: unknown_variable
            11: unknown_tool"#]],
    );
}

#[test]
fn keys_and_values_that_no_kind_takes() {
    check(
        "a: { kind: llm, temperature: 3, max_tokens: 0, reasoning: hihg }
b: { kind: agent, promt: hi, output: {} }
c: { kind: set, set: {} }
d: { kind: tool, args: { x: 1 } }
e: { kind: llm, output: { type: objekt }, into: out }",
        expect![[r#"
            7: invalid_value
            7: invalid_value
            7: invalid_value
            8: unknown_key
            8: unknown_key
            9: invalid_value
            10: missing_key
            11: invalid_schema"#]],
    );
}

#[test]
fn things_that_cannot_work() {
    check(
        "a: { kind: llm, tools: [double], into: out }
b: { kind: llm, skill: desk, tools: [fails] }
c: { kind: tool, tool: double, args: { x: one, y: 2 } }
d: { kind: set, set: { out: true } }
e: { kind: llm, into: messages }
f: { kind: tool, tool: double }",
        expect![[r#"
            7: an `llm` with `into` or `output` cannot call tools: nothing could run the calls → make it an `agent`, or remove `tools`
            8: `fails` is not among the tools of skill `desk` → name one of its tools (double), or add it there
            9: `double` does not take these arguments: /x: "one" is not of type "number"; Additional properties are not allowed ('y' was unexpected) → see `exile tool list` for the arguments of `double`
            10: literal_type
            11: `messages` holds messages, and `into` writes a value → remove `into`, or name another channel
            12: `double` does not take these arguments: "x" is a required property → see `exile tool list` for the arguments of `double`"#]],
    );
}

#[test]
fn a_model_needs_something_to_read() {
    let graph = "graph: test
mode: linear
state:
  out: {}
nodes:
  a: { kind: llm, into: out }
  b: { kind: agent }
  c: { kind: tools }
order: [a, b, c]
";
    expect![[r#"
        6: it has nothing to send: no channel `messages` and no `prompt` → declare `messages: { reduce: messages }` under `state`, or add `prompt: …`
        7: unknown_channel
        8: unknown_channel"#]].assert_eq(&findings(graph, &[]).join("\n"));
}

#[test]
fn a_node_that_handles_a_failure_may_read_it_wherever_it_reads() {
    let graph = |mend: &str| {
        format!(
            "graph: test\nstate:\n  messages: {{ reduce: messages }}\n  out: {{ type: number }}\n  \
             list: {{ type: array, default: [] }}\nnodes:\n  \
             a: {{ kind: tool, tool: double, args: {{ x: 1 }}, into: out, on_error: mend }}\n  \
             mend: {mend}\nedges:\n  - {{ from: START, to: a }}\n  - {{ from: a, to: END }}\n  \
             - {{ from: mend, to: END }}\n"
        )
    };
    for mend in [
        "{ kind: llm, model: fast, prompt: \"{{ error.message }}\" }",
        "{ kind: agent, skill: desk, system: \"{{ error.node }}\" }",
        "{ kind: tool, tool: double, args: { x: \"{{ error.item }}\" } }",
        "{ kind: set, set: { out: error.item } }",
        "{ kind: human, ask: \"{{ error.code }}: go on?\" }",
        "{ kind: map, over: \"[error.code]\", as: code, into: list, \
         node: { kind: set, set: { result: \"code ~ error.message\" } } }",
    ] {
        assert_eq!(findings(&graph(mend), &[SKILL]), Vec::<String>::new(), "{mend}");
    }
    let misspelt = "{ kind: set, set: { out: eror.item } }";
    assert_eq!(findings(&graph(misspelt), &[SKILL]), ["8: unknown_variable"]);
    let shadowed = "{ kind: map, over: list, as: error, into: list, \
                    node: { kind: set, set: { result: error } } }";
    assert_eq!(findings(&graph(shadowed), &[SKILL]), Vec::<String>::new());
}
