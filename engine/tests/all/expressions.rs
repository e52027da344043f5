//! The expression language: values in, values out.

use std::sync::Arc;

use exile_engine::expr::{Expression, NodeFailure, RESULT_LIMIT, Scope, Template, ValueTemplate};
use exile_engine::id::{ConversationId, RunId, UserId};
use exile_engine::state::{Channel, ChannelType, Channels, Reducer, State};
use serde_json::{Value, json};

fn state(values: &Value) -> State {
    let channel = |(name, value): (&String, &Value)| Channel {
        name: name.as_str().into(),
        kind: ChannelType::Any,
        reduce: Reducer::Replace,
        initial: Arc::new(value.clone()),
        scope: exile_engine::state::Scope::Log,
    };
    let values = values.as_object().unwrap();
    State::new(Arc::new(Channels::new(values.iter().map(channel).collect())))
}

fn scope() -> Scope {
    Scope {
        user: UserId::from("user_1"),
        run: RunId::from("run_1"),
        graph: "desk".into(),
        conversation: Some(ConversationId::from("conv_1")),
        now: "2026-11-22T08:00:00Z".parse().unwrap(),
        error: None,
    }
}

fn sample() -> State {
    state(&json!({
        "n": 3,
        "amount": 12.5,
        "name": "Ada",
        "tags": ["b", "a"],
        "orders": [{ "id": "x", "amount": 2 }, { "id": "y", "amount": 5 }],
        "deep": { "list": [{ "text": "<hi> & 你好" }], "none": null },
        "messages": [{ "role": "user", "content": "first" }, { "role": "user", "content": "last" }],
    }))
}

fn eval(source: &str) -> Result<Value, String> {
    let expression = Expression::compile(source).map_err(|error| error.message)?;
    expression.eval(&sample(), &scope()).map_err(|error| error.message)
}

fn render(source: &str) -> Result<String, String> {
    let template = Template::compile(source).map_err(|error| error.message)?;
    template.render(&sample(), &scope()).map_err(|error| error.message)
}

#[test]
fn expressions_give_json_and_integers_stay_integers() {
    let cases = [
        ("n + 1", json!(4)),
        ("n * 2 - 10", json!(-4)),
        ("amount * 2", json!(25.0)),
        ("name ~ '!'", json!("Ada!")),
        ("n > 2 and name == 'Ada'", json!(true)),
        ("[n, tags[0], none]", json!([3, "b", null])),
        ("{'k': n}", json!({ "k": 3 })),
        ("orders | map(attribute='amount') | sum", json!(7)),
        ("orders | selectattr('amount', 'gt', 3) | list", json!([{ "id": "y", "amount": 5 }])),
        ("orders[-1].id", json!("y")),
        ("messages[-1].content", json!("last")),
        ("tags | sort", json!(["a", "b"])),
        ("tags + ['c']", json!(["b", "a", "c"])),
        ("deep", json!({ "list": [{ "text": "<hi> & 你好" }], "none": null })),
        ("deep.none", json!(null)),
        ("tags == ['b', 'a']", json!(true)),
        ("'a' in tags", json!(true)),
        ("'list' in deep", json!(true)),
        ("orders | length", json!(2)),
        ("deep.missing is defined", json!(false)),
        ("deep.missing | default('x')", json!("x")),
        ("user.id ~ ' ' ~ run.id ~ ' ' ~ run.graph", json!("user_1 run_1 desk")),
        ("conversation.id", json!("conv_1")),
        ("now", json!("2026-11-22T08:00:00Z")),
        ("18446744073709551615", json!(u64::MAX)),
    ];
    for (source, expected) in cases {
        assert_eq!(eval(source), Ok(expected), "{source}");
    }
}

#[test]
fn what_is_undefined_or_no_json_is_an_error_that_quotes_the_source() {
    let fails = |source: &str, word: &str| {
        let error = eval(source).unwrap_err();
        assert!(error.contains(word), "{source}: {error}");
    };
    fails("missing", "missing");
    fails("deep.missing", "undefined");
    fails("deep.missing.more", "undefined");
    fails("orders[5].id", "undefined");
    fails("n / 0", "n / 0");
    fails("name + 1", "name + 1");
    fails("340282366920938463463374607431768211455", "64 bits");
    fails("", "empty");
    fails("n | nope", "nope");
    fails("n is nope", "nope");
}

#[test]
fn a_condition_is_true_or_false_and_nothing_else() {
    let test = |source: &str| Expression::compile(source).unwrap().test(&sample(), &scope());
    assert_eq!(test("n > 2"), Ok(true));
    assert_eq!(test("not tags"), Ok(false));
    for source in ["n", "name", "tags", "deep.none"] {
        assert!(test(source).unwrap_err().message.contains("neither true nor false"), "{source}");
    }
}

#[test]
fn templates_give_text() {
    let cases = [
        ("plain", "plain"),
        ("Hi {{ name }}, {{ n }} of {{ amount }}", "Hi Ada, 3 of 12.5"),
        ("{% for o in orders %}{{ o.id }}{% if not loop.last %}, {% endif %}{% endfor %}", "x, y"),
        ("{{ deep.list | tojson }}", r#"[{"text":"<hi> & 你好"}]"#),
        ("{{ deep.list[0].text }}", "<hi> & 你好"),
        ("{{ orders | map(attribute='id') | join(', ') }}", "x, y"),
        ("{% set total = n * 2 %}{{ total }}", "6"),
        ("{# no #}{% raw %}{{ verbatim | nope }}{% endraw %}", "{{ verbatim | nope }}"),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
    }
    assert_eq!(
        render("{{ {'a': [1]} | tojson(indent=2) }}").unwrap(),
        "{\n  \"a\": [\n    1\n  ]\n}"
    );
}

#[test]
fn a_template_reaches_nothing_outside() {
    for source in ["{% include '/etc/passwd' %}", "{% import 'x' as y %}", "{% extends 'x' %}"] {
        assert!(Template::compile(source).is_err(), "{source}");
    }
    assert!(render("{{ debug() }}").is_err());
    assert!(render("{{ missing }}").is_err());
}

#[test]
fn work_and_length_are_bounded() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    assert!(render(endless).unwrap_err().contains("too long"));
    let long = format!("{{{{ 'x' * {} }}}}", RESULT_LIMIT + 1);
    assert!(render(&long).unwrap_err().contains("allowed"));
    assert_eq!(render(&format!("{{{{ 'x' * {RESULT_LIMIT} }}}}")).unwrap().len(), RESULT_LIMIT);
    let error = eval(&format!("'x' * {}", RESULT_LIMIT + 1)).unwrap_err();
    assert!(error.contains("allowed"), "{error}");
    assert!(Expression::compile(&"n + ".repeat(20_000)).is_err());
    assert!(Expression::compile(&format!("{}n{}", "(".repeat(5000), ")".repeat(5000))).is_err());
}

#[test]
fn a_value_that_is_one_template_keeps_its_type() {
    let yaml = json!({
        "id": "{{ orders[0].id }}",
        "amount": "{{ orders[1].amount }}",
        "list": ["{{ tags }}", " {{- n -}} ", "n is {{ n }}", "{{ n }}{{ n }}", 7],
        "map": "{{ {'a': {'b': 1}} }}",
        "text": "no { template }",
    });
    let template = ValueTemplate::compile(&yaml).unwrap();
    assert_eq!(template.literal(), None);
    assert_eq!(
        template.eval(&sample(), &scope()).unwrap(),
        json!({
            "id": "x",
            "amount": 5,
            "list": [["b", "a"], 3, "n is 3", "33", 7],
            "map": { "a": { "b": 1 } },
            "text": "no { template }",
        })
    );
    let names: Vec<String> = template.reads().into_iter().map(|read| read.name).collect();
    assert_eq!(names, ["orders", "orders", "tags", "n", "n", "n"]);
    let fixed = json!({ "a": [1, "b", null] });
    assert_eq!(ValueTemplate::compile(&fixed).unwrap().literal(), Some(fixed));
}

#[test]
fn names_are_found_where_they_stand() {
    let reads = |source: &str| {
        let reads = Expression::compile(source).unwrap().reads();
        reads.into_iter().map(|read| (read.name, read.at)).collect::<Vec<_>>()
    };
    assert_eq!(reads("'m' ~ x.m ~ m"), [("x".to_owned(), 6), ("m".to_owned(), 12)]);
    assert_eq!(reads("range(n) | list"), [("n".to_owned(), 6)]);
    let template =
        Template::compile("m {{ a.m }}{# m #}{% for x in m %}{{ x }}{% endfor %}").unwrap();
    let found: Vec<_> = template.reads().into_iter().map(|read| (read.name, read.at)).collect();
    assert_eq!(found, [("a".to_owned(), 5), ("m".to_owned(), 30)]);
}

#[test]
fn reading_one_message_of_many_copies_only_that_message() {
    let big = "x".repeat(RESULT_LIMIT);
    let mut messages: Vec<Value> = (0..1000).map(|_| json!({ "content": big })).collect();
    messages.push(json!({ "content": "last" }));
    let state = state(&json!({ "messages": messages }));
    // A copy of the channel would be a thousand times over every limit of a result.
    let last = Expression::compile("messages[-1].content").unwrap();
    assert_eq!(last.eval(&state, &scope()).unwrap(), json!("last"));
    let before = Arc::strong_count(state.get("messages").unwrap());
    assert_eq!(before, 2, "the state is shared again once the evaluation has ended");
}

#[test]
fn a_failure_is_read_where_one_is_handled_and_a_channel_of_its_name_comes_first() {
    let failure = NodeFailure {
        code: "tool_failed".into(),
        message: "the shop is shut".into(),
        node: "lookup".into(),
        item: Some(14),
    };
    let handled =
        |item| Scope { error: Some(Arc::new(NodeFailure { item, ..failure.clone() })), ..scope() };
    let source = "[error.code, error.message, error.node, error.item]";
    let read = Expression::compile(source).unwrap();
    let names: Vec<String> = read.reads().into_iter().map(|read| read.name).collect();
    assert_eq!(names, ["error"]);
    assert_eq!(
        read.eval(&sample(), &handled(Some(14))).unwrap(),
        json!(["tool_failed", "the shop is shut", "lookup", 14])
    );
    let item = Expression::compile("error.item is none").unwrap();
    assert_eq!(item.eval(&sample(), &handled(None)).unwrap(), json!(true));
    assert!(read.eval(&sample(), &scope()).unwrap_err().message.contains("undefined"));
    let there = Expression::compile("error is defined").unwrap();
    assert_eq!(there.eval(&sample(), &scope()).unwrap(), json!(false));
    assert_eq!(there.eval(&sample(), &handled(None)).unwrap(), json!(true));
    let channel = state(&json!({ "error": "a channel" }));
    let whole = Expression::compile("error").unwrap();
    assert_eq!(whole.eval(&channel, &handled(None)).unwrap(), json!("a channel"));
}
