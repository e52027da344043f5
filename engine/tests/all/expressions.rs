//! The expression language: values in, values out.

use std::sync::Arc;

use exile_engine::expr::{Expression, NodeFailure, Scope, Template, ValueTemplate};
use exile_engine::id::{ConversationId, RunId, UserId};
use exile_engine::limits::ExpressionLimits;
use exile_engine::state::{Channel, ChannelType, ChannelValue, Channels, Reducer, State};
use serde_json::{Value, json};

pub fn state(values: &Value) -> State {
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

pub fn scope() -> Scope {
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
    let most = ExpressionLimits::default().result;
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    assert!(render(endless).unwrap_err().contains("expression_steps"));
    let long = format!("{{{{ 'x' * {} }}}}", most + 1);
    assert!(render(&long).unwrap_err().contains("4MiB allowed (`limits: { expression_result }`"));
    assert_eq!(render(&format!("{{{{ 'x' * {most} }}}}")).unwrap().len(), most);
    let error = eval(&format!("'x' * {}", most + 1)).unwrap_err();
    assert!(error.contains("expression_result"), "{error}");
    let error = Expression::compile(&"n + ".repeat(20_000)).unwrap_err();
    assert!(error.message.contains("64KiB allowed (`limits: { expression_source }`"), "{error}");
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
        let expression = Expression::compile(source).unwrap();
        let reads = expression.reads();
        reads.iter().map(|read| (read.name.clone(), read.at)).collect::<Vec<_>>()
    };
    assert_eq!(reads("'m' ~ x.m ~ m"), [("x".to_owned(), 6), ("m".to_owned(), 12)]);
    assert_eq!(reads("range(n) | list"), [("n".to_owned(), 6)]);
    let template =
        Template::compile("m {{ a.m }}{# m #}{% for x in m %}{{ x }}{% endfor %}").unwrap();
    let found: Vec<_> = template.reads().iter().map(|read| (&*read.name, read.at)).collect();
    assert_eq!(found, [("a", 5), ("m", 30)]);
}

#[test]
fn reading_one_message_of_many_copies_only_that_message() {
    let big = "x".repeat(1 << 18);
    let mut messages: Vec<Value> = (0..100).map(|_| json!({ "content": big })).collect();
    messages.push(json!({ "content": "last" }));
    let state = state(&json!({ "messages": messages }));
    // A copy of the channel would be over the limit of a result.
    let last = Expression::compile("messages[-1].content").unwrap();
    assert_eq!(last.eval(&state, &scope()).unwrap(), json!("last"));
    let ChannelValue::Json(value) = state.get("messages").unwrap() else { panic!() };
    let before = Arc::strong_count(value);
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
    let names: Vec<&str> = read.reads().iter().map(|read| &*read.name).collect();
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

#[test]
fn only_like_is_compared_with_like() {
    let unlike = [
        ("'3' > 5", "the text \"3\" cannot be compared with the number 5"),
        ("'n/a' > 5", "the text \"n/a\" cannot be compared with the number 5"),
        ("none > 5", "null cannot be compared with the number 5"),
        ("[1] < 2", "a list cannot be compared with the number 2"),
        ("true > 0", "true cannot be compared with the number 0"),
        ("{'a': 1} <= {'a': 2}", "a map and a map cannot be compared"),
        ("none >= none", "null and null cannot be compared"),
        ("[1, 'a'] < [1, 2]", "the text \"a\" cannot be compared with the number 2"),
        ("1 < 2 < 'x'", "the number 2 cannot be compared with the text \"x\""),
        ("amount > name", "the number 12.5 cannot be compared with the text \"Ada\""),
        ("deep.none < n", "null cannot be compared with the number 3"),
        ("n > 2 and tags > 5", "a list cannot be compared with the number 5"),
        ("'x' * 50 > 5", "xxx\"… cannot be compared with the number 5"),
        ("[1, 'a'] | sort", "cannot be compared"),
        ("[none, none] | sort", "no order"),
        ("[{'a': 1}, {'a': 'x'}] | sort(attribute='a')", "cannot be compared"),
        ("[{'a': 1, 'b': 1}, {'a': 1, 'b': 'x'}] | sort(attribute='a, b')", "cannot be compared"),
        ("[1, '2'] | min", "cannot be compared"),
        ("['2', 1] | max", "cannot be compared"),
        ("orders | max(attribute='id') > 5", "a map cannot be compared with the number 5"),
        ("{'a': 1, 'b': 'x'} | dictsort(by='value')", "cannot be compared"),
        ("[{'a': 1}, {'a': 'x'}] | groupby('a')", "cannot be compared"),
        ("['3', 4] | select('gt', 3)", "the text \"3\" cannot be compared with the number 3"),
        ("['3'] | select('>=', 3) | list", "cannot be compared"),
        ("['3'] | reject('lessthan', 3)", "cannot be compared"),
        ("orders | selectattr('id', 'lt', 3)", "cannot be compared"),
        ("orders | rejectattr('id', 'le', 3)", "cannot be compared"),
        ("'3' is gt 5", "cannot be compared"),
        ("'3' is lessthan(5)", "cannot be compared"),
        ("5 is ge '3'", "cannot be compared"),
    ];
    for (source, words) in unlike {
        let error = eval(source).unwrap_err();
        assert!(error.contains(words), "{source}: {error}");
        let template = render(&format!("{{% if ({source}) %}}x{{% endif %}}")).unwrap_err();
        assert!(template.contains(words), "{source}: {template}");
    }
    let never_equal = ["'3' == 3", "none == 0", "true == 1", "[] == {}", "'' == none", "[1] == 1"];
    for source in never_equal {
        assert_eq!(eval(source), Ok(json!(false)), "{source}");
        assert_eq!(eval(&source.replace("==", "!=")), Ok(json!(true)), "{source}");
    }
    let like = [
        "2 > 1.5",
        "1 == 1.0",
        "'a' < 'b'",
        "[1, 'a'] < [1, 'b']",
        "true > false",
        "'3' in ['3', 3]",
        "3 not in ['3']",
        "9007199254740993 > 9007199254740992.0",
        "18446744073709551615 > -1",
        "(['b', 'a'] | sort) == ['a', 'b']",
        "([2, 1.5] | max) == 2",
        "1 < 1e300",
        "-1e300 < 1",
    ];
    for source in like {
        assert_eq!(eval(source), Ok(json!(true)), "{source}");
    }
}

#[test]
fn a_number_is_kept_to_the_digit_or_refused() {
    let kept = [
        ("9223372036854775807 + 1", json!(9_223_372_036_854_775_808_u64)),
        ("18446744073709551615", json!(u64::MAX)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("18446744073709551614 + 1", json!(u64::MAX)),
        ("[9223372036854775807, 1] | sum", json!(9_223_372_036_854_775_808_u64)),
        ("'18446744073709551615' | int", json!(u64::MAX)),
        ("'0.1' | float", json!(0.1)),
        ("2 ** 63", json!(9_223_372_036_854_775_808_u64)),
        ("0.1 + 0.2", json!(0.1 + 0.2)),
        ("1e300", json!(1e300)),
        ("0x7FFFFFFFFFFFFFFF", json!(i64::MAX)),
        ("1_000_000", json!(1_000_000)),
        ("9007199254740992 / 2", json!(4_503_599_627_370_496.0)),
    ];
    for (source, value) in kept {
        assert_eq!(eval(source), Ok(value), "{source}");
    }
    let refused = [
        ("12345678901234567890123", "64 bits"),
        ("18446744073709551616", "64 bits"),
        ("18446744073709551615 + 1", "64 bits"),
        ("0 - 9223372036854775808 - 1", "64 bits"),
        ("-9223372036854775809", "64 bits"),
        ("9223372036854775807 * 9223372036854775807", "64 bits"),
        ("2 ** 64", "64 bits"),
        ("10 ** 99999999999", "64 bits"),
        ("[18446744073709551615, 1] | sum", "64 bits"),
        ("orders | sum(start=18446744073709551615, attribute='amount')", "64 bits"),
        ("'12345678901234567890123' | int", "64 bits"),
        ("'12345678901234567890123' | int(0)", "64 bits"),
        ("'1e400' | int", "64 bits"),
        ("1e300 | int", "64 bits"),
        ("1e400", "more digits than a number can keep"),
        ("0.1234567890123456789", "more digits than a number can keep"),
        ("9007199254740993.0", "more digits"),
        ("'0.1234567890123456789' | float", "more digits"),
        ("'1e400' | float(0)", "more digits"),
        ("9007199254740993 | float", "more digits"),
        ("9007199254740993 + 0.5", "more digits"),
        ("9007199254740993 / 3", "more digits"),
        ("1e308 * 10", "no finite number"),
        ("1e308 + 1e308", "no finite number"),
        ("10.0 ** 400", "no finite number"),
        ("18446744073709551615 | round(-1)", "64 bits"),
    ];
    for (source, words) in refused {
        let error = eval(source).unwrap_err();
        assert!(error.contains(words), "{source}: {error}");
        assert!(render(&format!("{{{{ {source} }}}}")).is_err(), "{source}");
    }
}
