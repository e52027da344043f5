//! Native tools: one file each, and one line in [`all`].
//!
//! Absent on purpose: checking arguments against the schema and bounding results, which the
//! [`ToolRegistry`](exile_engine::tool::ToolRegistry) does for every tool.

mod calculator;
mod current_time;
mod http_get;

use std::sync::Arc;

use exile_engine::http::Http;
use exile_engine::tool::{DynTool, ToolSet, Typed};
use jiff::tz::TimeZone;

pub use calculator::{Answer, CalculatorError, calculate};

/// The tools that come with exile.
pub struct NativeTools(Vec<Arc<dyn DynTool>>);

impl ToolSet for NativeTools {
    fn tools(&self) -> Vec<Arc<dyn DynTool>> {
        self.0.clone()
    }
}

/// Every native tool. `http` is the tools' client, which the outbound guard limits to public
/// addresses and `outbound.allow`; `timezone` is the installation's.
#[must_use]
pub fn all(http: Arc<dyn Http>, timezone: TimeZone) -> NativeTools {
    NativeTools(vec![
        Typed::native(calculator::Calculator),
        Typed::native(current_time::CurrentTime::new(timezone)),
        Typed::native(http_get::HttpGet::new(http)),
    ])
}
