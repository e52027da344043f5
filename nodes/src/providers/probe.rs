//! Proves cells of the catalogue against a live endpoint: small questions whose answers show what
//! a model can do.
//!
//! Each question can only be answered as it should be by a model that has the ability: a number
//! that stands in the question alone, a schema that no sentence meets by chance. What cannot be
//! told (the endpoint failed for another reason) is told as unknown.
//!
//! Absent on purpose: context, output and prices. To prove them costs what they limit.

use std::sync::Arc;

use exile_engine::env::Env;
use exile_engine::id::MessageId;
use exile_engine::message::{Image, Message, Role};
use exile_engine::model::card::{Card, Cell};
use exile_engine::model::{
    Delta, ModelRef, ModelReply, ModelRequest, Provider, ProviderFault, ToolChoice,
};
use exile_engine::tool::{Effect, ToolSpec};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Most tokens of each answer; enough for models that think first.
const TOKENS: u32 = 2000;

/// A red square of 64 by 64 points.
const RED: &str = "data:image/png;base64,\
     iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAS0lEQVR42u3PQQkAAAgAsetfWiP4FgYr\
     sKZeS0BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEDgsqnc8OJg6Ln3\
     AAAAAElFTkSuQmCC";

/// What one cell turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The cell's name in the catalogue.
    pub cell: &'static str,
    /// What the catalogue says.
    pub claimed: Option<bool>,
    /// What the model showed; `None`: that could not be told.
    pub seen: Option<bool>,
    /// What it did, or why nothing can be told.
    pub detail: String,
}

impl Proof {
    /// Whether the model is not what the catalogue says.
    #[must_use]
    pub fn drifts(&self) -> bool {
        self.claimed.zip(self.seen).is_some_and(|(claimed, seen)| claimed != seen)
    }
}

/// Asks `model` of `provider` one question after the other.
pub async fn prove(
    provider: &dyn Provider,
    model: &ModelRef,
    card: &Card,
    env: &dyn Env,
) -> Vec<Proof> {
    let claimed = |cell: &Option<Cell<bool>>| cell.as_ref().map(|cell| cell.value);
    let probe = Probe { provider, model, env };
    let mut proofs = Vec::new();
    let mut note = |cell, claim: &Option<Cell<bool>>, (seen, detail): (Option<bool>, String)| {
        proofs.push(Proof { cell, claimed: claimed(claim), seen, detail });
    };
    if claimed(&card.embeddings) == Some(true) {
        note("embeddings", &card.embeddings, probe.embeddings().await);
        return proofs;
    }
    let (streams, thinks) = probe.streaming().await;
    note("streaming", &card.streaming, streams);
    note("reasoning", &card.reasoning, thinks);
    note("tools", &card.tools, probe.tools().await);
    note("parallel_tools", &card.parallel_tools, probe.parallel_tools().await);
    note("json_schema", &card.json_schema, probe.json_schema().await);
    note("vision", &card.vision, probe.vision().await);
    proofs
}

type Seen = (Option<bool>, String);

struct Probe<'a> {
    provider: &'a dyn Provider,
    model: &'a ModelRef,
    env: &'a dyn Env,
}

impl Probe<'_> {
    fn ask(&self, text: &str) -> ModelRequest {
        let said = Message::text(MessageId::new(self.env), Role::User, text);
        ModelRequest {
            model: self.model.model.clone(),
            messages: vec![Arc::new(said)],
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            temperature: None,
            max_tokens: Some(TOKENS),
            output_schema: None,
            reasoning: None,
            further: serde_json::Map::new(),
        }
    }

    /// Whether the answer comes in pieces, and whether it was thought about.
    async fn streaming(&self) -> (Seen, Seen) {
        let request = self.ask("Write the numbers from 1 to 30, separated by commas.");
        let (sender, mut deltas) = mpsc::channel(64);
        let answer = async {
            let reply = self.provider.stream(&request, &sender).await;
            drop(sender);
            reply
        };
        let (mut pieces, mut thoughts) = (0, 0);
        let count = async {
            while let Some(delta) = deltas.recv().await {
                match delta {
                    Delta::Text(_) | Delta::Refusal(_) => pieces += 1,
                    Delta::Reasoning(_) => thoughts += 1,
                }
            }
        };
        let (reply, ()) = futures_util::future::join(answer, count).await;
        match reply {
            Ok(reply) => {
                let tokens = reply.usage.map_or(0, |usage| usage.reasoning);
                let thinks = thoughts > 0 || tokens > 0;
                let thought = format!("{thoughts} pieces of reasoning, {tokens} tokens");
                ((Some(pieces > 1), format!("{pieces} pieces")), (Some(thinks), thought))
            }
            Err(error) => {
                let why = error.fault.to_string();
                ((None, why.clone()), (None, why))
            }
        }
    }

    async fn tools(&self) -> Seen {
        let mut request = self.ask("Note the number 7391 with the tool.");
        request.tools = vec![note_tool("note_number")];
        self.seen(request, |reply| {
            let called = reply.tool_calls.iter().any(|call| call.arguments.contains("7391"));
            (called, calls(reply))
        })
        .await
    }

    async fn parallel_tools(&self) -> Seen {
        let text = "Note the numbers 7391 and 2846, each with a call of its own, both at once.";
        let mut request = self.ask(text);
        request.tools = vec![note_tool("note_number"), note_tool("note_other_number")];
        self.seen(request, |reply| (reply.tool_calls.len() > 1, calls(reply))).await
    }

    /// The question never mentions what the schema demands.
    async fn json_schema(&self) -> Seen {
        let mut request = self.ask("Say hello as JSON.");
        request.output_schema = Some(json!({
            "type": "object",
            "properties": { "zq7": { "type": "integer" }, "xk2": { "type": "boolean" } },
            "required": ["zq7", "xk2"],
            "additionalProperties": false,
        }));
        self.seen(request, |reply| {
            let value: Value = serde_json::from_str(reply.content.trim()).unwrap_or_default();
            let meets = value["zq7"].is_i64() && value["xk2"].is_boolean();
            (meets, reply.content.chars().take(120).collect())
        })
        .await
    }

    async fn vision(&self) -> Seen {
        let mut request = self.ask("Which colour is this? Answer with one word, in English.");
        let picture = Image::parse(RED);
        for message in &mut request.messages {
            Arc::make_mut(message).images.extend(picture.clone());
        }
        self.seen(request, |reply| {
            let red = reply.content.to_lowercase().contains("red");
            (red, reply.content.chars().take(120).collect())
        })
        .await
    }

    async fn embeddings(&self) -> Seen {
        let texts = ["red".to_owned(), "blue".to_owned()];
        match self.provider.embed(&self.model.model, &texts, &serde_json::Map::new()).await {
            Ok(made) => {
                let sizes: Vec<usize> = made.vectors.iter().map(Vec::len).collect();
                (Some(sizes.len() == 2), format!("vectors of {sizes:?} numbers"))
            }
            Err(error) => {
                let refused = matches!(error.fault, ProviderFault::BadRequest { .. });
                (refused.then_some(false), error.fault.to_string())
            }
        }
    }

    /// A refused request shows that the ability is not there; any other failure shows nothing.
    async fn seen(
        &self,
        request: ModelRequest,
        look: impl Fn(&ModelReply) -> (bool, String),
    ) -> Seen {
        match self.provider.complete(&request).await {
            Ok(reply) => {
                let (seen, detail) = look(&reply);
                (Some(seen), detail)
            }
            Err(error) => {
                let refused = matches!(error.fault, ProviderFault::BadRequest { .. });
                (refused.then_some(false), error.fault.to_string())
            }
        }
    }
}

fn calls(reply: &ModelReply) -> String {
    let call =
        |call: &exile_engine::message::ToolCall| format!("{}({})", call.name, call.arguments);
    let calls: Vec<String> = reply.tool_calls.iter().map(call).collect();
    if calls.is_empty() { "no call".to_owned() } else { calls.join(" ") }
}

fn note_tool(name: &str) -> ToolSpec {
    let parameters = json!({
        "type": "object",
        "properties": { "number": { "type": "integer" } },
        "required": ["number"],
    });
    ToolSpec::new(name, "Notes a number.", parameters, Effect::Pure, "probe")
}
