//! What the mock says without a script: an echo, a sum worked out by `calculator`, or the
//! smallest JSON that meets the wanted schema. Chinese is answered in Chinese.

use exile_engine::message::{Message, Role};
use exile_engine::model::{ModelRequest, ToolChoice};
use serde_json::{Map, Value, json};

use super::Turn;

/// The tool that works sums out.
const CALCULATOR: &str = "calculator";

pub(super) fn turn(request: &ModelRequest, last: Option<&Message>) -> Turn {
    let mut turn = Turn { chunk: 8, ..Turn::default() };
    if let Some(schema) = &request.output_schema {
        turn.text = example(schema).to_string();
        return turn;
    }
    let asked = request.messages.iter().rfind(|m| m.role == Role::User).map_or("", |m| &m.content);
    let chinese = asked.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
    let say = |chinese_text: String, english: String| if chinese { chinese_text } else { english };
    let offered = request.tool_choice != ToolChoice::None
        && request.tools.iter().any(|t| t.name == CALCULATOR);
    turn.text = match last {
        Some(result) if result.role == Role::Tool => {
            say(format!("结果是 {}", result.content), format!("The result is {}", result.content))
        }
        Some(_) if offered && let Some(sum) = sum(asked) => {
            let text = say(format!("正在计算 {sum}"), format!("Working out {sum}"));
            turn.calls.push((CALCULATOR.into(), json!({ "expression": sum }).to_string()));
            text
        }
        _ => say(format!("你说：{asked}"), format!("You said: {asked}")),
    };
    turn
}

/// The longest arithmetic expression in a text: numbers, operators and brackets.
fn sum(text: &str) -> Option<String> {
    let text = text.replace('×', "*").replace('÷', "/");
    let part = |c: char| c.is_ascii_digit() || "+-*/^%(). ".contains(c);
    let runs = text.split(|c| !part(c)).map(|run| {
        run.trim_matches([' ', '.', '+', '*', '/', '^', '%']).trim_end_matches(['-', ' '])
    });
    runs.filter(|run| is_sum(run)).max_by_key(|run| run.len()).map(str::to_owned)
}

/// An operator stands between two operands; a date like 2026-11-22 is no sum.
fn is_sum(run: &str) -> bool {
    let operand = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit() || "()".contains(c));
    let between = |(at, _): &(usize, &str)| {
        operand(run[..*at].trim_end().chars().last())
            && operand(run[at + 1..].trim_start_matches([' ', '-']).chars().next())
    };
    let operators = run.match_indices(['+', '-', '*', '/', '^', '%']).filter(between);
    let dashes = run.matches('-').count();
    let date = dashes == 2 && run.chars().all(|c| c.is_ascii_digit() || c == '-');
    !date && operators.count() > 0
}

/// A small value that meets a schema of the usual keywords.
fn example(schema: &Value) -> Value {
    if let Some(fixed) = schema.get("const").or(schema["enum"].get(0)).or(schema.get("default")) {
        return fixed.clone();
    }
    if let Some(one) = ["anyOf", "oneOf", "allOf"].iter().find_map(|k| schema[*k].get(0)) {
        return example(one);
    }
    let kind = schema["type"].as_str().or(schema["type"][0].as_str());
    match kind.unwrap_or(if schema["properties"].is_object() { "object" } else { "string" }) {
        "object" => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let filled: Map<String, Value> =
                properties.map(|(name, inner)| (name.clone(), example(inner))).collect();
            Value::Object(filled)
        }
        "array" => {
            let least = schema["minItems"].as_u64().unwrap_or(0);
            (0..least.min(100)).map(|_| example(&schema["items"])).collect()
        }
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or(json!(0)),
        "boolean" => json!(false),
        "null" => Value::Null,
        _ => json!("[mock]"),
    }
}
