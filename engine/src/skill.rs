//! Skills: a system prompt, a tool allow-list and a model under one name, as YAML.
//!
//! `mcp_servers`, `retrieval` and `memory` are checked for their shape only: what
//! reads them is not part of this version, and a skill that has them says what it will need.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::{FINDINGS_LIMIT, Finding, any_error, bound, code, sort};
use crate::document::Document;
use crate::graph::build::{Known, unknown_model, unknown_tool};
use crate::graph::compile::check_name;
use crate::model::Effort;
use crate::shape;

/// A checked skill.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Skill {
    /// As in the YAML.
    pub name: Arc<str>,
    /// What it is for.
    pub description: String,
    /// Goes before the node's own `system`.
    pub system: String,
    /// Alias or `provider/model`.
    pub model: Option<Arc<str>>,
    /// 0.0–2.0.
    pub temperature: Option<f64>,
    /// How hard the model thinks.
    pub reasoning: Option<Effort>,
    /// Names and patterns; empty: no tools.
    pub tools: Vec<String>,
    /// Names and patterns of those that a person must agree to before they are called.
    pub approve: Vec<String>,
}

/// What a model is told and given under one name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "exile skill")]
pub(crate) struct SkillSpec {
    /// Its name: unique, letters, digits, `_` and `-`.
    skill: String,
    /// What it is for.
    #[serde(default)]
    description: String,
    /// Instructions to the model; they go before a node's own `system`.
    #[serde(default)]
    system: String,
    /// An alias or `provider/model`.
    model: Option<String>,
    /// How freely the model chooses its words.
    #[schemars(range(min = 0.0, max = 2.0))]
    temperature: Option<f64>,
    /// How hard the model thinks before it answers; default: as the provider does by itself.
    reasoning: Option<Effort>,
    /// Tools that the model may call, as names and patterns like `crm__*`; no list, no tools.
    #[serde(default)]
    tools: Vec<String>,
    /// Those of its tools that are called only after a person agreed, as names and patterns.
    #[serde(default)]
    approve: Vec<String>,
    /// MCP servers that it needs (checked only in this version).
    #[serde(default, rename = "mcp_servers")]
    _mcp_servers: Vec<String>,
    /// How documents are searched (checked only in this version).
    #[serde(rename = "retrieval")]
    _retrieval: Option<RetrievalSpec>,
    /// What is kept about users (checked only in this version).
    #[serde(rename = "memory")]
    _memory: Option<MemorySpec>,
}

/// How documents are searched before the model answers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RetrievalSpec {
    /// Where to search.
    #[serde(rename = "collections")]
    _collections: Vec<String>,
    /// By words, by meaning, or both.
    #[serde(rename = "mode")]
    _mode: Option<RetrievalMode>,
    /// Chunks at most.
    #[serde(rename = "top_k")]
    #[schemars(range(min = 1))]
    _top_k: Option<u32>,
    /// Whether a reranker orders them.
    #[serde(rename = "rerank")]
    _rerank: Option<bool>,
    /// The lowest final score.
    #[serde(rename = "threshold")]
    _threshold: Option<f64>,
    /// Tokens at most.
    #[serde(rename = "max_tokens")]
    #[schemars(range(min = 1))]
    _max_tokens: Option<u32>,
}

/// What a search compares.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RetrievalMode {
    /// Words and meaning.
    Hybrid,
    /// Words.
    Lexical,
    /// Meaning.
    Vector,
}

/// What is kept about users across conversations.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MemorySpec {
    /// Memories at most that are recalled.
    #[serde(rename = "recall")]
    _recall: Option<u32>,
    /// Whether new ones are kept.
    #[serde(rename = "remember")]
    _remember: Option<bool>,
}

/// Checks a document; `None` if any finding is an error. `known.skills` is not read.
#[must_use]
pub fn compile(document: &Document, known: Known<'_>) -> (Option<Skill>, Vec<Finding>) {
    let spec: SkillSpec = match shape::read(document, document.to_json()) {
        Ok(spec) => spec,
        Err(findings) => return (None, findings),
    };
    let mut findings = Vec::new();
    check_name(document, "/skill", &spec.skill, &mut findings);
    if let Some(model) = &spec.model
        && let Some((message, fix)) = unknown_model(&known, model)
    {
        findings.push(document.error_at(code::UNKNOWN_MODEL, "/model", message, fix));
    }
    for (key, patterns) in [("tools", &spec.tools), ("approve", &spec.approve)] {
        for (i, pattern) in patterns.iter().enumerate() {
            if findings.len() > FINDINGS_LIMIT {
                break;
            }
            if let Some((message, fix)) = unknown_tool(&known, pattern) {
                let at = format!("/{key}/{i}");
                findings.push(document.error_at(code::UNKNOWN_TOOL, &at, message, fix));
            }
        }
    }
    sort(&mut findings);
    bound(&mut findings);
    let skill = Skill {
        name: spec.skill.into(),
        description: spec.description,
        system: spec.system,
        model: spec.model.map(Into::into),
        temperature: spec.temperature,
        reasoning: spec.reasoning,
        tools: spec.tools,
        approve: spec.approve,
    };
    ((!any_error(&findings)).then_some(skill), findings)
}
