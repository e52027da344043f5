//! The tools of the fixture: one that reads, and one that pays when the test says so.

use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::tool::{DynTool, Effect, Tool, ToolCx, ToolError, ToolErrorKind, ToolSet, Typed};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{Semaphore, watch};

/// The keys under which `pay` was called.
#[derive(Clone, Default)]
pub(super) struct Paid(watch::Sender<Vec<String>>);

impl Paid {
    /// Whether it was never called.
    pub(super) fn none(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Waits until it was called that often.
    pub(super) async fn reach(&self, times: usize) -> Vec<String> {
        self.0.subscribe().wait_for(|keys| keys.len() >= times).await.unwrap().clone()
    }
}

/// `halve` and `pay`.
pub(super) struct Tools {
    pub(super) gate: Arc<Semaphore>,
    pub(super) paid: Paid,
}

impl ToolSet for Tools {
    fn tools(&self) -> Vec<Arc<dyn DynTool>> {
        let pay = Pay { gate: self.gate.clone(), paid: self.paid.clone() };
        vec![Typed::native(Halve), Typed::native(pay)]
    }
}

struct Halve;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Number {
    n: i64,
}

#[async_trait]
impl Tool for Halve {
    type Args = Number;
    type Output = i64;
    const NAME: &'static str = "halve";
    const DESCRIPTION: &'static str = "Half of an even number.";
    const EFFECT: Effect = Effect::Pure;

    async fn call(&self, _: &ToolCx, args: Number) -> Result<i64, ToolError> {
        match args.n {
            666 => panic!("a tool with a defect"),
            n if n % 2 == 0 => Ok(n / 2),
            n => Err(ToolError::new(ToolErrorKind::Upstream, format!("{n} is odd"))),
        }
    }
}

struct Pay {
    gate: Arc<Semaphore>,
    paid: Paid,
}

#[async_trait]
impl Tool for Pay {
    type Args = Number;
    type Output = i64;
    const NAME: &'static str = "pay";
    const DESCRIPTION: &'static str = "Does something that must not be done twice.";
    const EFFECT: Effect = Effect::Unsafe;

    async fn call(&self, cx: &ToolCx, args: Number) -> Result<i64, ToolError> {
        self.paid.0.send_modify(|keys| keys.push(cx.key.clone()));
        self.gate.acquire().await.unwrap().forget();
        Ok(args.n)
    }
}
