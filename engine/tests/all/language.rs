//! The language means what it means to the library that parses it, but where exile is stricter:
//! the same sources evaluated by both.

use std::collections::BTreeMap;

use exile_engine::expr::{Expression, Template};
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value as Theirs, context};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::expressions::{scope, state};

fn values() -> Value {
    json!({
        "deep": { "list": [{ "text": "<hi> & 你好" }], "none": null },
        "empty": [],
        "flags": [true, false, true],
        "half": 0.5,
        "n": 3,
        "name": "Ada Lovelace",
        "no": false,
        "orders": [
            { "amount": 2, "id": "x", "kind": "b" },
            { "amount": 5, "id": "y", "kind": "a" },
            { "amount": 1, "id": "z", "kind": "b" },
        ],
        "text": "one two\nthree  four\n",
        "tree": [{ "kids": [{ "kids": [], "name": "b" }], "name": "a" }],
        "words": ["b", "A", "c", "a"],
    })
}

fn of_json(value: &Value) -> Theirs {
    match value {
        Value::Null => ().into(),
        Value::Bool(yes) => (*yes).into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, float) => float.into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(of_json).collect::<Vec<_>>().into(),
        Value::Object(map) => {
            let map: BTreeMap<_, _> = map.iter().map(|(k, v)| (k.clone(), of_json(v))).collect();
            Theirs::from_pairs(map)
        }
    }
}

/// `==` as exile has it: to the library `1 == true`, and everything would follow from that.
fn same(a: &Theirs, b: &Theirs) -> bool {
    let listed = |value: &Theirs| -> Vec<Theirs> { value.try_iter().unwrap().collect() };
    match (a.kind(), b.kind()) {
        (ValueKind::Bool, ValueKind::Bool) => a.is_true() == b.is_true(),
        (ValueKind::Bool, _) | (_, ValueKind::Bool) => false,
        (ValueKind::Seq | ValueKind::Iterable, ValueKind::Seq | ValueKind::Iterable) => {
            let (a, b) = (listed(a), listed(b));
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| same(a, b))
        }
        (ValueKind::Map, ValueKind::Map) => {
            let at = |map: &Theirs, key: &Theirs| map.get_item(key).unwrap();
            let alike = |key: &Theirs| same(&at(a, key), &at(b, key));
            a.len() == b.len() && listed(a).iter().all(alike)
        }
        _ => a == b,
    }
}

/// `in`, likewise.
fn within(library: &minijinja::State, item: Theirs, all: Theirs) -> Result<bool, minijinja::Error> {
    if matches!(all.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(all.try_iter()?.any(|other| same(&item, &other)));
    }
    let found = library.env().compile_expression("item in all")?.eval(context! { item, all })?;
    Ok(found.is_true())
}

/// `unique`, likewise, which takes texts of other cases for the same.
fn distinct(all: &Theirs) -> Result<Vec<Theirs>, minijinja::Error> {
    let folded = |value: &Theirs| value.as_str().map_or(value.clone(), |s| s.to_lowercase().into());
    let mut kept: Vec<Theirs> = Vec::new();
    for item in all.try_iter()? {
        if !kept.iter().any(|known| same(&folded(known), &folded(&item))) {
            kept.push(item);
        }
    }
    Ok(kept)
}

/// `reverse` that gives a list: the library gives something lazy, which it orders after every list.
fn turned(library: &minijinja::State, all: Theirs) -> Result<Theirs, minijinja::Error> {
    let turned = library.env().compile_expression("all | reverse")?.eval(context! { all })?;
    let lazy = turned.kind() == ValueKind::Iterable;
    Ok(if lazy { turned.try_iter()?.collect() } else { turned })
}

/// What the library renders.
fn library(source: &str) -> Result<String, String> {
    let mut library = Environment::new();
    library.set_undefined_behavior(UndefinedBehavior::Strict);
    library.set_auto_escape_callback(|_| AutoEscape::None);
    library.set_fuel(Some(100_000));
    library.add_function("same", |a: Theirs, b: Theirs| same(&a, &b));
    library.add_function("within", within);
    library.add_filter("distinct", distinct);
    library.add_filter("turned", turned);
    library.render_str(source, of_json(&values())).map_err(|error| format!("{error:#}"))
}

fn ours(source: &str) -> Result<String, String> {
    let template = Template::compile(source).map_err(|error| error.message)?;
    template.render(&state(&values()), &scope()).map_err(|error| error.message)
}

const EXPRESSIONS: &[&str] = &[
    "n",
    "n + 1",
    "n - 10",
    "n * half",
    "n / 2",
    "7 // 2",
    "-7 // 2",
    "7 % -3",
    "-7.5 % 2",
    "7.5 // 2",
    "2 ** 10",
    "2 ** -1",
    "2.0 ** 3",
    "1 + 2 * 3 - 4",
    "-n",
    "--n",
    "-(n)",
    "true + true",
    "0x1F + 0b11 + 0o17 + 1_000",
    "1.50",
    "1e3",
    "100000000000000000000.0",
    "half",
    "'a' + 'b'",
    "'a' * 3",
    "3 * 'a'",
    "'a' * -1",
    "[1] + [2, 3]",
    "[1, 2] * 2",
    "(1, 2) | length",
    "name",
    "name ~ n ~ none ~ true ~ half ~ [1, 'x'] ~ {'k': \"it's\"}",
    "[1, 'a', none, true, 1.0, [2], {'k': 'v'}, 'it\\'s \"q\"', 'l\\n\\t\\\\']",
    "{'b': 1, 'a': [1]}",
    "{1: 'x', none: 2}",
    "deep",
    "orders",
    "empty",
    "n == 3",
    "n == 3.0",
    "n != '3'",
    "n == '3'",
    "none == none",
    "[1, 2] == [1, 2.0]",
    "{'a': 1} == {'a': 1}",
    "{'a': 1} == {'a': 2}",
    "deep == deep",
    "orders[0] == orders[1]",
    "n > 2",
    "n >= 3.0",
    "half < 1",
    "'a' < 'b'",
    "'ab' >= 'a'",
    "[1, 2] < [1, 3]",
    "[1] < [1, 0]",
    "1 < 2 < 3",
    "1 < 3 > 2 == 2",
    "3 > 2 > 2",
    "false < true",
    "n > 2 and name",
    "no or 'x'",
    "no and missing",
    "n or missing",
    "not no",
    "not empty",
    "'a' in words",
    "'z' not in words",
    "'Ada' in name",
    "'list' in deep",
    "3 in [1, 3]",
    "'x' if n else 'y'",
    "'x' if no else 'y'",
    "'x' if no",
    "1 if no else 2 if no else 3",
    "words[0]",
    "words[-1]",
    "words[1:3]",
    "words[:2]",
    "words[-2:]",
    "words[::-1]",
    "words[::2]",
    "words[3:0:-2]",
    "name[0]",
    "name[-1]",
    "name[:3]",
    "name[::-1]",
    "name[4:100]",
    "none[1:]",
    "deep.list[0].text",
    "deep['list'][0]['text']",
    "orders.0.id",
    "deep.none",
    "deep.list.0.text",
    "deep.missing is defined",
    "deep.missing is undefined",
    "missing is defined",
    "deep.missing | default('x')",
    "missing | d(1)",
    "no | default('x', true)",
    "none | default('x')",
    "n is odd",
    "n is even",
    "4 is even",
    "n is divisibleby 3",
    "n is divisibleby(2)",
    "n is number",
    "half is float",
    "n is integer",
    "name is string",
    "words is sequence",
    "deep is mapping",
    "words is iterable",
    "none is none",
    "no is false",
    "n is not none",
    "no is boolean",
    "name is startingwith 'Ada'",
    "name is endingwith('x')",
    "'abc' is lower",
    "'ABC' is upper",
    "n is eq 3",
    "n is gt 2",
    "n is lessthan(2)",
    "n is in [1, 3]",
    "1 is sameas 1.0",
    "'upper' is filter",
    "'nope' is test",
    "name | upper",
    "name | lower",
    "name | title",
    "'hELLO wORLD' | capitalize",
    "'ab cd-ef (gh' | title",
    "'  x ' | trim",
    "'xxaxx' | trim('x')",
    "name | replace('a', 'o')",
    "'aaaa' | replace('a', 'b', 2)",
    "text | lines",
    "text | split",
    "'a,b,,c' | split(',')",
    "'a b c d' | split(none, 2)",
    "'a-b-c' | split('-', 1)",
    "text | indent",
    "text | indent(2, true)",
    "text | indent(width=3, blank=true)",
    "'%s is %d or %5.2f' | format(name, n, half)",
    "'%(a)s' | format(a=1)",
    "'<a & \"b\">' | escape",
    "words | join(', ')",
    "orders | map(attribute='id') | join('-')",
    "orders | join(', ', 'id')",
    "words | join",
    "words | first",
    "words | last",
    "name | first",
    "name | last",
    "deep | first",
    "words | length",
    "name | length",
    "deep | count",
    "words | reverse",
    "name | reverse",
    "words | sort",
    "words | sort(reverse=true)",
    "words | sort(case_sensitive=true)",
    "orders | sort(attribute='amount') | map(attribute='id')",
    "orders | sort(attribute='kind,amount') | map(attribute='id') | list",
    "words | unique",
    "[1, 1.0, '1', 2, [1], [1]] | unique",
    "words | unique(case_sensitive=true)",
    "orders | unique(attribute='kind') | map(attribute='id')",
    "words | min",
    "words | max",
    "orders | min(attribute='amount')",
    "[] | min is undefined",
    "[3, 1, 2] | max",
    "orders | sum(attribute='amount')",
    "[1, 2.5] | sum",
    "[] | sum",
    "[1] | sum(start=10)",
    "[[1], [2]] | sum(start=[])",
    "orders | map(attribute='nope', default=0)",
    "words | map('upper')",
    "orders | selectattr('amount', 'gt', 1) | map(attribute='id')",
    "flags | select",
    "flags | reject",
    "orders | rejectattr('kind', 'eq', 'b') | map(attribute='id')",
    "[1, 2, 3] | select('odd')",
    "orders | map(attribute='amount') | map('float') | list",
    "range(5) | batch(2)",
    "range(5) | batch(2, 'x')",
    "range(7) | slice(3)",
    "range(7) | slice(3, 'x')",
    "range(2, 8, 3)",
    "range(5, 0, -2) | list",
    "range(0)",
    "deep | items",
    "deep | dictsort",
    "{'b': 1, 'A': 2} | dictsort",
    "{'b': 1, 'A': 2} | dictsort(by='value', reverse=true)",
    "words | list",
    "name | list",
    "[1] | chain([2], [3]) | list",
    "{'a': 1} | chain({'b': 2}) | items | list",
    "[1, 2] | zip(['a', 'b'])",
    "'12' | int",
    "'0x1F' | int(base=16)",
    "'x' | int(7)",
    "'3.7' | int",
    "3.9 | int",
    "-3.9 | int",
    "true | int",
    "'2.5' | float",
    "3 | float",
    "2.567 | round(2)",
    "2.5 | round",
    "1234 | round(-2)",
    "2.1 | round(0, 'ceil')",
    "-3 | abs",
    "-2.5 | abs",
    "n | string",
    "words | string",
    "n | bool",
    "dict(a=1, b=[2])",
    "dict({'a': 1}, b=2)",
    "orders | map(attribute='id') | sort | first",
    "name.split is defined",
    "namespace(a=1).a",
    "deep | pprint",
    "[] | pprint",
    "[1, {'a': [2]}] | pprint",
    "'x' | safe",
    "words | attr('nope') is undefined",
    "range(*[1, 4])",
    "dict(**{'a': 1})",
    "(1, 2)[0]",
    "[words[0], words[1]] | join('+')",
];

const TEMPLATES: &[&str] = &[
    "plain",
    "",
    "a\n",
    "a\n\n",
    "{{ n }}\n{{ n }}\n",
    "{# no #}x{#- no -#} y",
    "{% raw %}{{ verbatim | nope }}{% endraw %}",
    "a {{- n -}} b",
    "a {%- if n %} x {%- endif %} b",
    "{% if no %}a{% elif n %}b{% else %}c{% endif %}",
    "{% if no %}a{% else %}c{% endif %}",
    "{% if no %}a{% else %}{% if n %}b{% endif %}{% endif %}",
    "{% for o in orders %}{{ o.id }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for o in orders if o.amount > 1 %}{{ loop.index }}/{{ loop.length }}{{ o.id }} {% endfor %}",
    "{% for x in empty %}x{% else %}none{% endfor %}",
    "{% for c in name %}{{ c }}-{% endfor %}",
    "{% for k in deep %}{{ k }} {% endfor %}",
    "{% for k, v in deep | items %}{{ k }}={{ v }} {% endfor %}",
    "{% for x in words %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.cycle('a', 'b') }} {% endfor %}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.previtem | default('-') }}{{ loop.nextitem | default('-') }} {% endfor %}",
    "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x > 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in words %}{% for y in [1, 2] %}{{ x }}{{ y }}{{ loop.depth }}{% endfor %}{% endfor %}",
    "{% for t in tree recursive %}{{ t.name }}{{ loop.depth }}({{ loop(t.kids) }}){% endfor %}",
    "{% for t in tree recursive %}{{ t.name }}{% set inner = loop(t.kids) %}[{{ inner }}]{% endfor %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(sum=0) %}{% for i in [1, 2] %}{% set ns.sum = ns.sum + i %}{% endfor %}{{ ns.sum }}{{ ns }}",
    "{% if true %}{% set y = 1 %}{% endif %}{{ y }}",
    "{% with a = 1, b = a + 1 %}{{ a }}{{ b }}{% endwith %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set (a, b) = [1, [2]] %}{{ a }}{{ b }}",
    "{% set t %}x{{ n }}{% endset %}[{{ t }}]",
    "{% set t | upper | replace('X', 'y') %}x{{ n }}{% endset %}{{ t }}",
    "{% filter upper | replace('B', 'c') %}a{{ 'b' }}{% endfilter %}",
    "{% do namespace(a=1) %}x",
    "{% for g in orders | groupby('kind') %}{{ g.grouper }}:{% for o in g.list %}{{ o.id }}{% endfor %} {% endfor %}",
    "{% for kind, list in orders | groupby(attribute='kind') %}{{ kind }}{{ list | length }}{% endfor %}",
    "{{ '{{' }} {{ \"%}\" }} { } }} %}",
    "{{ 'x' if no }}|",
    "{{ loop is defined }}",
    "{{ [loop] if no }}",
    "{% for x in words %}{{ loop.index }}{% if loop.first %}{% set first = x %}{% endif %}{{ first is defined }}{% endfor %}",
];

#[test]
fn sources_mean_what_they_mean_to_the_library() {
    let printed = EXPRESSIONS.iter().map(|source| format!("{{{{ {source} }}}}"));
    for source in printed.chain(TEMPLATES.iter().map(|source| (*source).to_owned())) {
        let mut theirs = library(&source).unwrap_or_else(|error| panic!("{source}: {error}"));
        if PAIRS.iter().any(|filter| source.contains(filter)) {
            theirs = theirs.replace('(', "[").replace(')', "]");
        }
        assert_eq!(ours(&source).as_deref(), Ok(&*theirs), "{source}");
    }
}

#[test]
fn what_the_library_refuses_is_refused() {
    for source in [
        "{{ missing }}",
        "{{ deep.missing }}",
        "{{ deep.missing.more }}",
        "{{ missing + 1 }}",
        "{{ not missing }}",
        "{{ missing ~ 'x' }}",
        "{{ missing == 1 }}",
        "{{ 'a' in missing }}",
        "{% if missing %}{% endif %}",
        "{% for x in missing %}{% endfor %}",
        "{% for x in 5 %}{% endfor %}",
        "{{ n / 0 }}",
        "{{ n // 0 }}",
        "{{ n % 0 }}",
        "{{ name + 1 }}",
        "{{ [] - [] }}",
        "{{ -name }}",
        "{{ name.upper() }}",
        "{{ words.append(1) }}",
        "{{ n() }}",
        "{{ 'x' | int }}",
        "{{ 'x' | float }}",
        "{{ none | length }}",
        "{{ n | length }}",
        "{{ n | first }}",
        "{{ n | items }}",
        "{{ n[1:] }}",
        "{{ words[::0] }}",
        "{% set n.x = 1 %}",
        "{% set a, b = [1] %}",
        "{% set a, b = 'xy' %}",
        "{{ name | upper(1) }}",
        "{{ name | replace('a') }}",
        "{{ words | join(d=',', x=1) }}",
        "{{ words | map('nope') }}",
        "{{ words | select('nope') }}",
        "{{ n | nope }}",
        "{{ n is nope }}",
        "{{ range(1, 5, 0) }}",
        "{{ loop.index }}",
        "{% for x in words %}{{ loop(x) }}{% endfor %}",
        "{{ [1, 'x'] | sum }}",
        "{{ none | reverse }}",
        "{{ words | round }}",
        "{{ name | abs }}",
        "{{ '%d' | format('x') }}",
        "{{ n.x.y }}",
        "{{ words | groupby('x.y') }}{{ missing }}",
    ] {
        assert!(library(source).is_err(), "{source}");
        assert!(ours(source).is_err(), "{source}: {:?}", ours(source));
    }
}

/// Filters that give pairs: there are only lists here.
const PAIRS: [&str; 3] = ["| items", "| dictsort", "| zip"];

/// Where exile is stricter than the library, in words of its errors.
const STRICTER: &[&str] = &[
    "cannot be compared",
    "no order",
    "64 bits",
    "more digits",
    "undefined value",
    "no finite number",
    "is no text",
    "is none",
    "cannot stand inside",
    "a map's key",
    "only numbers",
];

/// A source, and the same as the library is to read it.
type Source = (String, String);

/// One source of several.
fn composed(parts: &[&Source], write: impl Fn(&[&str]) -> String) -> Source {
    let all = |one: fn(&Source) -> &str| parts.iter().map(|part| one(part)).collect::<Vec<_>>();
    (write(&all(|part| &part.0)), write(&all(|part| &part.1)))
}

fn operated(a: &Source, operator: &str, b: &Source) -> Source {
    let (ours, theirs) = composed(&[a, b], |of| format!("({} {operator} {})", of[0], of[1]));
    let called = |function: &str| format!("{function}({}, {})", a.1, b.1);
    let theirs = match operator {
        "==" => called("same"),
        "!=" => format!("(not {})", called("same")),
        "in" => called("within"),
        "not in" => format!("(not {})", called("within")),
        _ => theirs,
    };
    (ours, theirs)
}

fn filtered(of: &Source, filter: &str) -> Source {
    let theirs = match filter {
        "unique" => "distinct",
        "reverse" => "turned",
        same => same,
    };
    (format!("({} | {filter})", of.0), format!("({} | {theirs})", of.1))
}

/// Sources of all kinds of operators over all kinds of values.
fn expression() -> impl Strategy<Value = Source> {
    let leaf = prop::sample::select(vec![
        "n",
        "half",
        "name",
        "no",
        "words",
        "deep",
        "orders",
        "none",
        "empty",
        "flags",
        "1",
        "2.5",
        "'a'",
        "''",
        "true",
        "[1, 2]",
        "{'a': 1}",
        "-1",
        "0",
        "deep.none",
        "orders[0].amount",
    ]);
    leaf.prop_map(|leaf| (leaf.to_owned(), leaf.to_owned())).prop_recursive(4, 24, 3, |inner| {
        let binary = prop::sample::select(vec![
            "+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", ">=", "and", "or", "in", "not in",
        ]);
        let filter = prop::sample::select(vec![
            "upper",
            "length",
            "list",
            "first",
            "last",
            "sort",
            "join(',')",
            "string",
            "reverse",
            "default(1)",
            "int(0)",
            "float(0)",
            "abs",
            "min",
            "max",
            "sum",
            "unique",
            "bool",
            "batch(2)",
            "round",
            "map('string')",
            "select",
            "trim",
            "title",
            "tojson | length > 0",
        ]);
        let test = prop::sample::select(vec![
            "defined", "none", "string", "mapping", "odd", "eq 'a'", "gt 1", "in ['a']",
        ]);
        prop_oneof![
            (inner.clone(), binary, inner.clone()).prop_map(|(a, op, b)| operated(&a, op, &b)),
            (inner.clone(), filter).prop_map(|(a, filter)| filtered(&a, filter)),
            (inner.clone(), test)
                .prop_map(|(a, test)| composed(&[&a], |of| format!("({} is {test})", of[0]))),
            (inner.clone(), inner.clone())
                .prop_map(|(a, b)| composed(&[&a, &b], |of| format!("[{}, {}]", of[0], of[1]))),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| composed(
                &[&a, &b, &c],
                |of| format!("({} if {} else {})", of[0], of[1], of[2])
            )),
            (inner.clone(), inner)
                .prop_map(|(a, b)| composed(&[&a, &b], |of| format!("({})[{}]", of[0], of[1]))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn expressions_give_what_the_library_gives_or_say_why_not((source, theirs) in expression()) {
        let [source, theirs] = [source, theirs].map(|source| format!("{{{{ {source} }}}}"));
        match (ours(&source), library(&theirs)) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs, "{}", source),
            (Ok(ours), Err(theirs)) => prop_assert!(
                theirs.contains("tojson"), "{}: gave {:?}, not {}", source, ours, theirs
            ),
            (Err(ours), Ok(theirs)) => prop_assert!(
                STRICTER.iter().any(|words| ours.contains(words)) || source.contains("tojson"),
                "{}: {}, not {:?}", source, ours, theirs
            ),
            (Err(_), Err(_)) => {}
        }
    }
}

#[test]
fn values_keep_their_kind() {
    let eval = |source: &str| {
        Expression::compile(source).unwrap().eval(&state(&values()), &scope()).unwrap()
    };
    assert_eq!(eval("(1, 'a', [none])"), json!([1, "a", [null]]));
    assert_eq!(eval("{1: 2, true: 3, none: 4}"), json!({ "1": 2, "True": 3, "None": 4 }));
    assert_eq!(eval("orders | groupby('kind')")[0][0], json!("a"));
    assert_eq!(
        eval("deep | items"),
        json!([["list", [{ "text": "<hi> & 你好" }]], ["none", null]])
    );
    assert_eq!(eval("6 / 2"), json!(3.0));
    assert_eq!(eval("(-1 % 0.5) | string"), json!("0.0"));
    assert_eq!(eval("(3 % -1.0) | string"), json!("-0.0"));
    assert_eq!(eval("namespace(a=[1])"), json!({ "a": [1] }));
}
