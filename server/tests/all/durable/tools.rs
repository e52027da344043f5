//! Three tools, one of each effect: each tells the counter, under its key, that it was called.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use exile_engine::http::{Http, HttpError, HttpRequest};
use exile_engine::tool::{
    DynTool, Effect, ToolAnswer, ToolCx, ToolError, ToolErrorKind, ToolSet, ToolSpec,
};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

/// The tools of one life of a worker.
pub(super) struct Counted {
    pub(super) upstream: String,
    pub(super) life: u32,
    pub(super) http: Arc<dyn Http>,
}

impl ToolSet for Counted {
    fn tools(&self) -> Vec<Arc<dyn DynTool>> {
        let tool = |name: &str, effect| {
            let schema = json!({
                "type": "object",
                "properties": { "what": { "type": "string" } },
                "required": ["what"],
                "additionalProperties": false,
            });
            let spec = ToolSpec::new(name, "Tells the counter.", schema, effect, "native");
            // What was looked at is somebody else's text: a person must agree to what follows.
            let spec = ToolSpec { taints: effect == Effect::Pure, ..spec };
            let url = format!("{}/tool", self.upstream);
            let tool = CountedTool { spec, url, life: self.life, http: self.http.clone() };
            Arc::new(tool) as Arc<dyn DynTool>
        };
        vec![
            tool("looks", Effect::Pure),
            tool("puts", Effect::Idempotent),
            tool("acts", Effect::Unsafe),
        ]
    }
}

struct CountedTool {
    spec: ToolSpec,
    url: String,
    life: u32,
    http: Arc<dyn Http>,
}

#[async_trait]
impl DynTool for CountedTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, cx: &ToolCx, args: Value) -> ToolAnswer {
        let request = HttpRequest {
            method: "POST".into(),
            url: self.url.clone(),
            headers: vec![
                ("content-type".into(), "application/json".into()),
                ("idempotency-key".into(), cx.key.clone()),
                ("x-effect".into(), json!(self.spec.effect).as_str().unwrap().to_owned()),
                ("x-life".into(), self.life.to_string()),
            ],
            body: Some(Bytes::from(args.to_string())),
            redirects: 0,
            head_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(20),
        };
        let answer = async {
            let response = self.http.send(request).await?;
            let body = response.body.try_fold(Vec::new(), |mut all, piece| async move {
                all.extend_from_slice(&piece);
                Ok(all)
            });
            Ok::<_, HttpError>((response.status, body.await?))
        };
        let failed = |why| ToolAnswer::Failed(ToolError::new(ToolErrorKind::Upstream, why));
        match answer.await {
            Ok((200, bytes)) => ToolAnswer::Done(serde_json::from_slice(&bytes).unwrap()),
            Ok((status, _)) => failed(format!("it answered {status}")),
            Err(error) => failed(error.to_string()),
        }
    }
}
