//! What the shipped tools promise, through the registry that models and graphs call them by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "how a test fails")]

mod calculator;
mod current_time;
mod http_get;

use std::sync::Arc;

use exile_engine::env::StepEnv;
use exile_engine::http::Http;
use exile_engine::tool::{ToolAnswer, ToolCx, ToolErrorKind, ToolRegistry};
use exile_plugins::native;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// Calls a native tool of an installation in Shanghai that reaches the network through `http`.
async fn call(http: impl Http + 'static, tool: &str, args: Value) -> ToolAnswer {
    let timezone = TimeZone::get("Asia/Shanghai").unwrap();
    let registry = ToolRegistry::new(&[&native::all(Arc::new(http), timezone)]).unwrap();
    let env = Arc::new(StepEnv::new());
    let cx = ToolCx {
        key: "call".into(),
        user: "user_1".into(),
        run: None,
        env,
        resumed: None,
        limits: registry.limits().clone(),
    };
    registry.call(&cx, tool, args).await
}

/// A failed answer's kind and message.
fn failure(answer: ToolAnswer) -> (ToolErrorKind, String) {
    match answer {
        ToolAnswer::Failed(error) => (error.kind, error.message),
        ToolAnswer::Done(value) => panic!("answered {value}"),
        ToolAnswer::Ask(question) => panic!("asked {question:?}"),
    }
}

#[tokio::test]
async fn every_tool_refuses_arguments_that_its_schema_does_not_know() {
    for (tool, args) in [
        ("calculator", json!({ "expression": "1", "precision": 3 })),
        ("calculator", json!({ "expression": 1 })),
        ("current_time", json!({ "timezone": 8 })),
        ("http_get", json!({})),
    ] {
        let (kind, message) = failure(call(http_get::Silent, tool, args.clone()).await);
        assert_eq!(kind, ToolErrorKind::InvalidArgs, "{tool} {args}: {message}");
    }
}

#[test]
fn every_tool_only_reads() {
    let tools = native::all(Arc::new(http_get::Silent), TimeZone::UTC);
    let registry = ToolRegistry::new(&[&tools]).unwrap();
    let seen: Vec<_> = registry.specs().map(|s| (s.name.as_str(), s.effect)).collect();
    let pure = exile_engine::tool::Effect::Pure;
    assert_eq!(seen, [("calculator", pure), ("current_time", pure), ("http_get", pure)]);
}
