//! Arithmetic: precedence, exact decimals, typed errors, and that no text makes it panic.

use exile_engine::tool::{ToolAnswer, ToolErrorKind};
use exile_plugins::native::calculate;
use proptest::prelude::*;
use serde_json::json;

use crate::http_get::Silent;
use crate::{call, failure};

/// Each line is `expression = result as JSON`.
fn check(lines: &str) {
    for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (expression, expected) = line.rsplit_once(" = ").unwrap();
        let answer = calculate(expression).map(|a| serde_json::to_string(&a).unwrap());
        assert_eq!(answer.as_deref(), Ok(expected), "{expression}");
    }
}

/// Each line is `expression ! error`.
fn check_errors(lines: &str) {
    for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (expression, expected) = line.rsplit_once(" ! ").unwrap();
        let error = calculate(expression).expect_err(expression).to_string();
        assert_eq!(error, expected, "{expression}");
    }
}

#[test]
fn operators_bind_as_in_mathematics() {
    check(
        "1 + 2 * 3 = 7
         (1 + 2) * 3 = 9
         10 - 4 - 3 = 3
         100 / 10 / 2 = 5
         2 ^ 3 ^ 2 = 512
         2 ** 10 = 1024
         -2 ^ 2 = -4
         2 ^ -1 = 0.5
         --3 + +2 = 5
         -(4 - 9) = 5
         7 % 3 = 1
         -7 % 3 = 2
         7 % -3 = -2
         （6 × 7） ÷ 2 − 1 = 20",
    );
}

#[test]
fn decimals_carry_no_noise() {
    check(
        "0.1 + 0.2 = 0.3
         1.1 * 3 = 3.3
         0.3 - 0.1 = 0.2
         19.99 * 100 = 1999
         1 / 3 * 3 = 1
         1 / 3 = 0.333333333333333
         2 / 3 + 1 / 3 = 1
         sqrt(2) * sqrt(2) = 2
         sqrt(2) * sqrt(2) - 2 = 0
         sin(pi) = 0
         cos(pi / 2) = 0
         0 * -1 = 0
         2 ^ 100 = 1.26765060022823e+30",
    );
}

#[test]
fn no_digit_of_an_exact_result_is_lost() {
    check(
        "123456789 * 987654321 = 121932631112635269
         2 ^ 64 = \"18446744073709551616\"
         0.12345678901234567890 + 1 = \"1.1234567890123456789\"
         9007199254740993 + 0.5 = \"9007199254740993.5\"
         1.5e3 + 2E-2 = 1500.02
         1e-9 * 1 = 1e-9",
    );
}

#[test]
fn functions_and_constants() {
    check(
        "sqrt(16) = 4
         abs(-2.5) = 2.5
         round(2.5) = 3
         round(-2.5) = -3
         round(2 / 3, 2) = 0.67
         round(1.005, 2) = 1.01
         floor(-1.5) = -2
         ceil(1.2) = 2
         min(3, 1, 2) = 1
         MAX(3, 7.5) = 7.5
         ln(e) = 1
         log10(1000) = 3
         sin(pi / 6) = 0.5
         tan(0) = 0
         cos(0) + e ^ 0 = 2",
    );
}

#[test]
fn what_has_no_result_says_why() {
    check_errors(
        "1 / 0 ! division by zero
         5 % (2 - 2) ! division by zero
         0 ^ -1 ! division by zero
         sqrt(-1) ! the square root of a negative number is not a real number
         (-8) ^ 0.5 ! a fractional power of a negative number is not a real number
         ln(0) ! the logarithm of zero or less is not a real number
         10 ^ 400 ! the result is too large (above 1.8e308)
         1e999999 ! the result is too large (above 1.8e308)
         1 + ! expected a number, a name, a sign or `(` at position 4, found the end
         (1 + 2 ! expected an operator or `)` at position 7, found the end
         2 (3) ! expected an operator or the end at position 3, found `(`
         1,000 ! expected an operator or the end at position 2, found `,` (write numbers without thousands separators)
         1.2.3 ! expected a number, a name, a sign or `(` at position 1, found the number 1.2.3
         1 = 1 ! `=` at position 3 is not part of an expression
         min() ! min takes one argument or more, separated by commas
         sqrt(1, 2) ! sqrt takes one argument
         round(1, 0.5) ! round takes a number and at most 28 digits",
    );
    let unknown = calculate("import(1)").unwrap_err().to_string();
    assert!(
        unknown.starts_with("`import` is unknown; there are the functions sqrt, "),
        "{unknown}"
    );
}

#[test]
fn length_and_depth_are_capped() {
    let deep = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
    check(&format!("{} = 1", deep(40)));
    check_errors(&format!("{} ! the expression nests deeper than 50 levels", deep(60)));
    check_errors(&format!("{}1 ! the expression nests deeper than 50 levels", "-".repeat(60)));
    check(&format!("{}1 = 500", "1+".repeat(499)));
    check_errors(&format!(
        "{}1 ! the expression has 1001 characters, at most 1000 are allowed",
        "1+".repeat(500)
    ));
}

#[tokio::test]
async fn the_tool_answers_a_number_or_an_error_that_the_model_reads() {
    let answer = call(Silent, "calculator", json!({ "expression": "0.1 + 0.2" })).await;
    assert_eq!(answer, ToolAnswer::Done(json!(0.3)));
    let (kind, message) = failure(call(Silent, "calculator", json!({ "expression": "1/0" })).await);
    assert_eq!((kind, message.as_str()), (ToolErrorKind::InvalidArgs, "division by zero"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}") {
        let _ = calculate(&text);
    }

    #[test]
    fn no_expression_makes_it_panic(
        text in "([0-9.e]{1,30}|[-+*/%^(), ]|pi|(sqrt|round|max|ln|tan|floor)\\(){0,40}",
    ) {
        if let Ok(answer) = calculate(&text) {
            prop_assert!(serde_json::to_value(answer).is_ok_and(|v| !v.is_null()));
        }
    }

    #[test]
    fn sums_of_money_are_exact(a in -1_000_000_000_i64..1_000_000_000, b in 0_i64..1_000_000_000) {
        let text = format!("{a} / 100 + {b} / 100 - {a} / 100");
        let expected = calculate(&format!("{b} / 100"));
        prop_assert_eq!(calculate(&text), expected);
    }

    #[test]
    fn quotient_and_remainder_make_up_the_number(a in any::<i32>(), b in 1_i32..10_000) {
        let text = format!("floor({a} / {b}) * {b} + {a} % {b} - {a}");
        prop_assert_eq!(calculate(&text).map(|a| serde_json::to_string(&a).unwrap()), Ok("0".into()));
    }
}
