//! Sources that would take a process's memory, stack or time: refused when they are compiled, or
//! ended by a limit that the error names. Everything here runs on a thread with half the stack that
//! a worker has.

use std::fmt::Write as _;

use exile_engine::expr::{Expression, Template};
use exile_engine::limits::ExpressionLimits;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::expressions::{scope, state};

/// Half of what a worker of the server, and a thread of a test, has.
const STACK: usize = 1024 * 1024;

fn on_a_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap()
}

fn values() -> Value {
    let text = "y".repeat(100_000);
    json!({
        "n": 3,
        "text": text,
        "list": vec!["item"; 1000],
        "map": { "a": [1, 2, 3], "b": { "c": "d" } },
    })
}

/// What a template gives, how long it may be, or why it gives nothing.
fn render(source: &str, limits: ExpressionLimits) -> Result<String, String> {
    let template = Template::compile_within(source, limits).map_err(|error| error.message)?;
    template.render(&state(&values()), &scope()).map_err(|error| error.message)
}

fn eval(source: &str, limits: ExpressionLimits) -> Result<Value, String> {
    let expression = Expression::compile_within(source, limits).map_err(|error| error.message)?;
    expression.eval(&state(&values()), &scope()).map_err(|error| error.message)
}

#[test]
fn a_source_that_nests_too_deep_is_refused_when_it_is_compiled() {
    let deep = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    on_a_small_stack(move || {
        for times in [1_000, 7_000] {
            let expressions = [
                deep("1+", "1", "", times),
                deep("(", "1", ")", times),
                deep("[", "1", "]", times),
                deep("{1:", "1", "}", times),
                deep("not ", "n", "", times),
                deep("-", "1", "", times),
                deep("- ", "1", "", times),
                deep("", "n", ".a", times),
                deep("", "n", "[0]", times),
                deep("", "n", "[1:]", times),
                deep("", "n", "|abs", times),
                deep("", "n", " is none", times),
                deep("", "n", "(1)", times),
                deep("f(", "1", ")", times),
                deep("", "1", "~1", times),
                deep("", "1", "**1", times),
                deep("", "1", " in n", times),
                deep("", "1", "<2", times),
                deep("", "1", " and n", times),
                deep("", "1", " if n else 1", times),
                deep("", "1", " if n", times),
                deep("1 if ", "n", " else 1", times),
                deep("n[", "0", "]", times),
                deep("n|map(", "'abs'", ")", times),
            ];
            for source in expressions {
                let error = Expression::compile(&source).unwrap_err();
                let known = ["inside one another", "recursion", "64KiB", "unexpected", "compared"];
                let start = &source[..40];
                assert!(known.iter().any(|k| error.message.contains(k)), "{start}: {error}");
                assert!(Template::compile(&format!("{{{{ {source} }}}}")).is_err(), "{start}");
                assert!(Template::compile(&format!("{{% if {source} %}}x{{% endif %}}")).is_err());
                assert!(Template::compile(&format!("{{% set x = {source} %}}")).is_err());
            }
            let templates = [
                deep("{% if n %}", "x", "{% endif %}", times),
                deep("{% for x in n %}", "x", "{% endfor %}", times),
                deep("{% with a=1 %}", "x", "{% endwith %}", times),
                deep("{% filter upper %}", "x", "{% endfilter %}", times),
                deep("{% set x %}", "x", "{% endset %}", times),
                deep("{% autoescape n %}", "x", "{% endautoescape %}", times),
                deep("{% if n %}", "x", "", times),
                format!("{{% if n %}}{}{{% endif %}}", "{% elif n %}x".repeat(times)),
                deep("{% if n %}{% else %}", "x", "{% endif %}", times),
                deep("{% set ", "(a", ")", times),
                format!("{{% set {}a{} = 1 %}}", "(".repeat(times), ")".repeat(times)),
                format!("{{% for {}a{} in n %}}", "(".repeat(times), ")".repeat(times)),
                format!("{{% set a{} = 1 %}}", ".a".repeat(times)),
                format!("{{% filter {}a %}}{{% endfilter %}}", "upper|".repeat(times)),
                format!("{{% set a | {}a %}}{{% endset %}}", "upper|".repeat(times)),
            ];
            for source in templates {
                assert!(Template::compile(&source).is_err(), "{}", &source[..40]);
            }
        }
    });
}

#[test]
fn what_stands_side_by_side_does_not_nest() {
    let many = 2_000;
    on_a_small_stack(move || {
        let list = format!("[{}]", "map.a[0] + 1, ".repeat(many));
        assert_eq!(
            eval(&list, ExpressionLimits::default()).unwrap().as_array().unwrap().len(),
            many
        );
        let text = "{{ n + 1 }}{% if n %}x{% endif %}".repeat(many / 2);
        assert_eq!(render(&text, ExpressionLimits::default()).unwrap().len(), many);
        // The deepest that passes can be evaluated, too.
        for source in [
            format!("1{}", "+1".repeat(190)),
            format!("{}1{}", "(".repeat(33), ")".repeat(33)),
            format!("{}1{}", "[".repeat(33), "]".repeat(33)),
            format!("{}1{}", "range(".repeat(28), ")|length".repeat(28)),
            format!("n{}", "|string".repeat(190)),
            format!("{}n", "not ".repeat(200)),
            format!("{}1", "-".repeat(200)),
            format!("{}1", "1 if n else ".repeat(66)),
        ] {
            eval(&source, ExpressionLimits::default()).unwrap();
        }
        for open in
            ["{% if n %} endif", "{% for x in 'a' %} endfor", "{% filter upper %} endfilter"]
        {
            let (open, end) = open.rsplit_once(' ').unwrap();
            let inner = format!("{{{{ {}'X'{} }}}}", "(".repeat(33), ")".repeat(33));
            let close = format!("{{% {end} %}}").repeat(20);
            let blocks = format!("{}{inner}{close}", open.repeat(20));
            assert_eq!(render(&blocks, ExpressionLimits::default()).unwrap(), "X");
        }
        let cases = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif n == 3 %}x".repeat(70));
        assert_eq!(render(&cases, ExpressionLimits::default()).unwrap(), "x");
    });
}

#[test]
fn values_that_hold_themselves_or_nest_without_end_cannot_be_made() {
    on_a_small_stack(|| {
        let limits = ExpressionLimits { steps: 50_000_000, ..ExpressionLimits::default() };
        for (source, word) in [
            ("{% set n = namespace() %}{% set n.x = n %}{{ n }}", "cannot stand inside"),
            ("{% set n = namespace() %}{% set n.x = [n] %}{{ n }}", "cannot stand inside"),
            ("{% set n = namespace(x=namespace()) %}", "cannot stand inside"),
            ("{% for x in [1] %}{% set l = [loop] %}{% endfor %}", "cannot stand inside"),
            ("{% for x in [1] %}{{ loop.changed(loop) }}{% endfor %}", "cannot stand inside"),
            (
                "{% set n = namespace(x=[]) %}{% for i in range(50000) %}{% set n.x = [n.x] %}{% endfor %}",
                "limits: { nesting }",
            ),
            (
                "{% set n = namespace(x={}) %}{% for i in range(50000) %}{% set n.x = {'a': n.x} %}{% endfor %}",
                "limits: { nesting }",
            ),
            (
                "{% set n = namespace(x=[]) %}{% for i in range(50000) %}{% set n.x = dict(a=n.x) %}{% endfor %}",
                "limits: { nesting }",
            ),
            (
                "{% set n = namespace(x=[1]) %}{% for i in range(50000) %}{% set n.x = n.x | batch(1) %}{% endfor %}",
                "limits: { nesting }",
            ),
            ("{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}", "too deep inside"),
            ("{% for x in [[]] recursive %}{{ loop([[x]]) }}{% endfor %}", "limits: { nesting }"),
        ] {
            let error = render(source, limits).unwrap_err();
            assert!(error.contains(word), "{source}: {error}");
        }
        let nested = format!("{}1{}", "[".repeat(30), "]".repeat(30));
        let shallow = ExpressionLimits { nesting: 20, ..limits };
        assert!(eval(&nested, shallow).unwrap_err().contains("limits: { nesting }"));
        let in_the_state = eval("[[map]]", ExpressionLimits { nesting: 3, ..limits }).unwrap_err();
        assert!(in_the_state.contains("deeper than 3 levels"), "{in_the_state}");
    });
}

/// Each doubles what it is given, forty times over: without a limit all memory is taken.
#[test]
fn doubling_ends_at_a_limit_that_the_error_names() {
    let doublings = [
        "x ~ x",
        "x * 2",
        "x + x",
        "[x, x]",
        "{'a': x, 'b': x}",
        "dict(a=x, b=x)",
        "x | replace('', x)",
        "[x, x] | join",
        "[x, x] | join(x)",
        "x[:] + x",
        "'%s%s' | format(x, x)",
        "(x ~ '\n') * 2 | indent(99)",
        "[x, x] | tojson",
        "[x, x] | pprint",
        "[x, x] | string",
        "(x | list) + (x | list)",
        "x | chain(x) | list",
        "[x] | chain([x])",
        "[x, x] | batch(1)",
        "[x, x] | sum(start=[])",
        "x | escape ~ x | escape",
        "[x, x] | map('string') | join",
        "[x, x] | slice(1)",
        "[x] | zip([x])",
        "x | upper ~ x | title",
        "[x, x] | unique | list ~ x",
        "{'a': x, 'b': x} | items",
        "[x, x] | groupby('0')",
        "range(n) | list ~ x ~ x",
    ];
    let limits = ExpressionLimits { steps: 20_000, result: 200_000, ..ExpressionLimits::default() };
    on_a_small_stack(move || {
        for start in ["'ab'", "list", "map"] {
            for doubling in doublings {
                let mut unrolled = format!("{{% set x = {start} %}}");
                for _ in 0..60 {
                    write!(unrolled, "{{% set x = {doubling} %}}").unwrap();
                }
                let looped = format!(
                    "{{% set n = namespace(x={start}) %}}{{% for i in range(60) %}}{{% set x = n.x %}}\
                     {{% set n.x = {} %}}{{% endfor %}}",
                    doubling.replace("range(n)", "range(3)")
                );
                for (source, used) in [(&unrolled, "x"), (&looped, "n.x")] {
                    for use_of in [
                        format!("{{{{ {used} }}}}"),
                        format!("{{{{ {used} == {used} }}}}"),
                        format!("{{{{ {used} in [{used}] }}}}"),
                        format!("{{{{ [{used}, {used}] | sort | unique | length }}}}"),
                        format!("{{% for y in {used} %}}{{{{ y }}}}{{% endfor %}}"),
                        format!("{{% set t %}}{{{{ {used} }}}}{{% endset %}}"),
                    ] {
                        let source = format!("{source}{use_of}");
                        // Ends, whatever comes of it; a text is within the limit.
                        if let Ok(text) = render(&source, limits) {
                            assert!(text.len() <= limits.result);
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_limit_that_ends_a_source_is_named_with_its_key() {
    let small = ExpressionLimits { result: 1000, steps: 10_000, ..ExpressionLimits::default() };
    on_a_small_stack(move || {
        for (source, key) in [
            ("{{ 'x' * 1001 }}", "expression_result"),
            ("{{ text }}", "expression_result"),
            ("{{ list }}", "expression_result"),
            ("{{ list | tojson }}", "expression_result"),
            ("{{ list | join }}", "expression_result"),
            (
                "{% set x %}{% for i in range(200) %}{{ 'abcdefghij' }}{% endfor %}{% endset %}",
                "expression_result",
            ),
            ("{{ '%9999d' | format(1) }}", "expression_result"),
            ("{{ 'a\nb' | indent(9999) }}", "expression_result"),
            ("{{ 'ab' | replace('', 'x' * 900) }}", "expression_result"),
            ("{{ range(100000000000) }}", "expression_steps"),
            ("{{ range(0 - 9223372036854775807, 9223372036854775807) }}", "expression_steps"),
            ("{{ [0] * 100000000000 }}", "expression_steps"),
            ("{{ [0] | batch(100000000000, 0) }}", "expression_steps"),
            ("{{ [0] | slice(100000000000) }}", "expression_steps"),
            (
                "{% for a in range(999) %}{% for b in range(999) %}{% endfor %}{% endfor %}",
                "expression_steps",
            ),
            ("{% for i in range(999) %}{{ text == text ~ 'a' }}{% endfor %}", "expression_"),
            (
                "{% for i in range(999) %}{% set x = text | length %}{% endfor %}",
                "expression_steps",
            ),
        ] {
            let error = render(source, small).unwrap_err();
            assert!(error.contains(&format!("limits: {{ {key}")), "{source}: {error}");
        }
        let long = ExpressionLimits { source: 10, ..small };
        assert!(
            render("{{ n }} is more", long).unwrap_err().contains("limits: { expression_source }")
        );
    });
}

#[test]
fn real_documents_fit() {
    on_a_small_stack(|| {
        let joined = render("{{ [text, text, text] | join('\n') }}", ExpressionLimits::default());
        assert_eq!(joined.unwrap().len(), 300_002);
        let parts = render(
            "{% for part in list %}{{ loop.index }}. {{ part }}: {{ text[:300] }}\n{% endfor %}",
            ExpressionLimits::default(),
        );
        assert!(parts.unwrap().len() > 300_000);
        let megabyte = eval("text * 11", ExpressionLimits::default()).unwrap();
        assert_eq!(megabyte.as_str().unwrap().len(), 1_100_000);
    });
}

/// Pieces of the language, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "{# ",
        " #}",
        "{%- ",
        " -%}",
        "if ",
        "else",
        "elif ",
        "endif",
        "for ",
        " in ",
        "endfor",
        "set ",
        " = ",
        "endset",
        "with ",
        "endwith",
        "filter ",
        "endfilter",
        "raw ",
        "endraw",
        "recursive",
        "loop",
        "namespace()",
        "n",
        "n.x",
        "text",
        "list",
        "map",
        "x",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        ".",
        "|",
        "~",
        "+",
        "-",
        "*",
        "**",
        "/",
        "//",
        "%",
        "==",
        "<",
        ">=",
        "not ",
        "and ",
        "or ",
        "is ",
        "upper",
        "join",
        "tojson",
        "list",
        "range(",
        "9999999",
        "0",
        "1e3",
        "'a'",
        "'",
        "\"",
        "\n",
        " ",
        "{% set n = namespace(x=list) %}",
        "{% for i in range(99) %}",
        "{% endfor %}",
        "{% if n %}",
        "{% endif %}",
        "{% set n.x = [n.x, n.x] %}",
        "{% set x = x ~ x %}",
        "{{ n.x }}",
        "{% set x = [x, x] %}",
        "{{ loop(list) }}",
        "{% for y in list recursive %}",
        "你",
    ]);
    prop::collection::vec(piece, 1..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn no_source_takes_more_than_its_limits(source in pieces(), repeats in 1_usize..200) {
        let limits = ExpressionLimits { steps: 50_000, result: 100_000, ..ExpressionLimits::default() };
        on_a_small_stack(move || {
            for source in [source.repeat(repeats), source.clone(), format!("{{{{ {source} }}}}")] {
                if let Ok(text) = render(&source, limits) {
                    assert!(text.len() <= limits.result);
                }
                let _ = eval(&source, limits);
            }
        });
    }
}
