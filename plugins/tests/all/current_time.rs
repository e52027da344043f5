//! The clock is the environment's; the zone is the caller's or the installation's.

use exile_engine::tool::{ToolAnswer, ToolErrorKind};
use serde_json::{Value, json};

use crate::http_get::Silent;
use crate::{call, failure};

async fn check(args: Value, expected: Value) {
    assert_eq!(call(Silent, "current_time", args).await, ToolAnswer::Done(expected));
}

#[tokio::test]
async fn it_is_later_in_shanghai_than_in_new_york() {
    check(
        json!({}),
        json!({ "time": "2026-01-01T08:00:00+08:00", "weekday": "Thursday", "timezone": "Asia/Shanghai" }),
    )
    .await;
    check(
        json!({ "timezone": "America/New_York" }),
        json!({ "time": "2025-12-31T19:00:00-05:00", "weekday": "Wednesday", "timezone": "America/New_York" }),
    )
    .await;
    check(
        json!({ "timezone": "UTC" }),
        json!({ "time": "2026-01-01T00:00:00+00:00", "weekday": "Thursday", "timezone": "UTC" }),
    )
    .await;
}

#[tokio::test]
async fn a_missing_zone_may_be_null_or_empty() {
    for timezone in [json!(null), json!("")] {
        let answer = call(Silent, "current_time", json!({ "timezone": timezone })).await;
        let ToolAnswer::Done(value) = answer else { panic!("{answer:?}") };
        assert_eq!(value["timezone"], "Asia/Shanghai");
    }
}

#[tokio::test]
async fn an_unknown_zone_names_a_good_one() {
    for timezone in ["Mars/Olympus", "../../etc/passwd", "Asia/\u{0}Shanghai"] {
        let answer = call(Silent, "current_time", json!({ "timezone": timezone })).await;
        let (kind, message) = failure(answer);
        assert_eq!(kind, ToolErrorKind::InvalidArgs);
        assert!(message.contains("Asia/Shanghai"), "{message}");
    }
}
