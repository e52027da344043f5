//! What `llm` and `agent` have in common: how a question to a model is made from the node's keys,
//! its skill, and what the conversation chose.
//!
//! Who wins:
//! - skill: the node's, else the conversation's.
//! - model: the node's, else the conversation's, else the skill's, else the alias `default`. What
//!   a user chose for a conversation goes before what a skill's author preferred.
//! - temperature, reasoning: the node's, else the skill's.
//! - tools: those of the skill that the node's list also names; without a skill, the node's list;
//!   without both, none.
//! - system: the conversation's (if the user reads the answer), the skill's, the node's.

use std::sync::Arc;

use exile_engine::expr::Template;
use exile_engine::graph::build::Build;
use exile_engine::message::{Message, Role};
use exile_engine::model::{Effort, ToolChoice};
use exile_engine::node::NodeError;
use exile_engine::run::context::{Cx, ModelCall};
use exile_engine::skill::Skill;
use exile_engine::state::{Reducer, State};
use exile_engine::tool::{ToolSpec, matches};

use super::MESSAGES;

/// The alias of a node that nobody chose a model for.
const DEFAULT_MODEL: &str = "default";

/// Whom a node asks, and what may be called; checked.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    pub skill: Option<Arc<str>>,
    pub model: Option<Arc<str>>,
    pub temperature: Option<f64>,
    pub reasoning: Option<Effort>,
    pub max_tokens: Option<u32>,
    pub allowed: Allowed,
    /// Names and patterns of tools that a person must agree to, besides the skill's.
    pub approve: Vec<String>,
    /// The answer is the conversation's, not another node's.
    pub to_user: bool,
    /// The answer is watched while it is written.
    pub shown: bool,
}

/// The texts of one question.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// The node's own `system`, rendered.
    pub system: String,
    /// The conversation so far.
    pub messages: Vec<Arc<Message>>,
    /// The node's `prompt`, rendered, and before which message it stands.
    pub prompt: Option<(usize, String)>,
}

impl Ask {
    /// The question, with the tools that the model may call.
    pub(super) fn question(
        &self,
        cx: &Cx,
        call: &str,
        texts: Texts,
        tools: Vec<ToolSpec>,
    ) -> Result<ModelCall, NodeError> {
        let skill = self.skill(cx)?.map(|s| &**s);
        let conversation = cx.options().system_prompt.as_deref().filter(|_| self.to_user);
        let system =
            [conversation.unwrap_or_default(), skill.map_or("", |s| &s.system), &texts.system];
        let say = |role, text: &str| Arc::new(Message::text(cx.message_id(), role, text));
        let mut messages: Vec<Arc<Message>> = system
            .iter()
            .map(|text| text.trim())
            .filter(|text| !text.is_empty())
            .map(|text| say(Role::System, text))
            .collect();
        let head = messages.len();
        messages.extend(texts.messages);
        if let Some((at, prompt)) = texts.prompt {
            messages.insert((head + at).min(messages.len()), say(Role::User, &prompt));
        }
        Ok(ModelCall {
            call: call.to_owned(),
            model: self.model(cx, skill).to_owned(),
            messages,
            tools,
            tool_choice: ToolChoice::Auto,
            temperature: self.temperature.or(skill.and_then(|s| s.temperature)),
            max_tokens: self.max_tokens,
            output_schema: None,
            reasoning: self.reasoning.or(skill.and_then(|s| s.reasoning)),
            shown: self.shown,
        })
    }

    /// The node's skill, else the conversation's.
    pub(super) fn skill<'c>(&self, cx: &'c Cx) -> Result<Option<&'c Arc<Skill>>, NodeError> {
        let name = self.skill.as_deref().or(cx.options().skill.as_deref());
        name.map(|name| cx.skill(name)).transpose()
    }

    /// The tools that the model may call.
    pub(super) fn tools(&self, cx: &Cx) -> Result<Vec<ToolSpec>, NodeError> {
        let skill = self.skill(cx)?;
        Ok(self.allowed.of(skill.map(|s| s.tools.as_slice()), cx.tools().specs()))
    }

    /// Whether a person must agree before the tool is called.
    pub(super) fn needs_approval(&self, cx: &Cx, tool: &str) -> Result<bool, NodeError> {
        let skill = self.skill(cx)?.into_iter().flat_map(|skill| &skill.approve);
        Ok(self.approve.iter().chain(skill).any(|pattern| matches(pattern, tool)))
    }

    /// Whom it is put to: an alias or `provider/model`.
    pub(super) fn model<'a>(&'a self, cx: &'a Cx, skill: Option<&'a Skill>) -> &'a str {
        let chosen = self.model.as_deref().or(cx.options().model.as_deref());
        chosen.or(skill.and_then(|s| s.model.as_deref())).unwrap_or(DEFAULT_MODEL)
    }
}

/// A node's `tools`: names and patterns; `None` where it has no such key.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowed(pub Option<Vec<String>>);

impl Allowed {
    /// Of `specs`, those that both the skill (if there is one) and the node (if it says) name. A
    /// node without a skill and without a list of its own may call nothing.
    pub(super) fn of<'s>(
        &self,
        skill: Option<&[String]>,
        specs: impl Iterator<Item = &'s ToolSpec>,
    ) -> Vec<ToolSpec> {
        specs.filter(|spec| self.names(skill, &spec.name)).cloned().collect()
    }

    /// Whether a call of that tool is allowed.
    pub(super) fn names(&self, skill: Option<&[String]>, tool: &str) -> bool {
        let covers = |patterns: &[String]| patterns.iter().any(|p| matches(p, tool));
        match (skill, &self.0) {
            (None, None) => false,
            (skill, node) => skill.is_none_or(covers) && node.as_deref().is_none_or(covers),
        }
    }
}

/// The keys that both kinds have, as they stand in the YAML.
pub(super) struct Keys<'k> {
    pub skill: Option<&'k String>,
    pub model: Option<&'k String>,
    pub system: bool,
    pub prompt: bool,
    pub tools: Option<&'k Vec<String>>,
    pub approve: Option<&'k Vec<String>>,
    pub into: Option<&'k String>,
}

/// What the common keys compile to.
pub(super) struct Checked {
    pub ask: Ask,
    /// The node's own.
    pub skill: Option<Arc<Skill>>,
    pub system: Option<Template>,
    pub prompt: Option<Template>,
    /// Where the answer goes; the conversation if `None`.
    pub into: Option<Arc<str>>,
    /// Whether the conversation is sent.
    pub conversation: bool,
}

impl Keys<'_> {
    /// Checks them, reporting everything at once.
    pub(super) fn check(&self, build: &mut Build<'_>) -> Option<Checked> {
        let skill = self.skill.map(|name| build.skill(&["skill"], name));
        let model = self.model.map(|name| build.model(&["model"], name));
        let system = self.system.then(|| build.template(&["system"]));
        let prompt = self.prompt.then(|| build.template(&["prompt"]));
        let allowed = self.tools.map(|list| build.tools(&["tools"], list));
        if let (Some(Some(skill)), Some(list)) = (&skill, self.tools) {
            narrows(build, skill, list);
        }
        let approve = self.approve.map(|list| build.tools(&["approve"], list));
        let into = self.into.map(|name| written(build, name));
        if into.is_none() {
            build.writes_reduced(&[], MESSAGES, Reducer::Messages)?;
        }
        let conversation = build.channels().get(MESSAGES).is_some();
        if conversation {
            build.reads(&[], MESSAGES);
        } else if !self.prompt {
            build.report(
                &[],
                "it has nothing to send: no channel `messages` and no `prompt`",
                "declare `messages: { reduce: messages }` under `state`, or add `prompt: …`",
            );
        }
        let skill = found(skill)?;
        let ask = Ask {
            skill: skill.as_ref().map(|s| s.name.clone()),
            model: found(model)?,
            allowed: Allowed(allowed),
            approve: approve.unwrap_or_default(),
            to_user: into.is_none(),
            shown: into.is_none() && build.shown(),
            ..Ask::default()
        };
        let (system, prompt, into) = (found(system)?, found(prompt)?, found(into)?);
        Some(Checked { ask, skill, system, prompt, into, conversation })
    }
}

/// A key that is there but was reported keeps the node from being built.
#[allow(clippy::option_option, reason = "absent, reported, or found")]
pub(super) fn found<T>(key: Option<Option<T>>) -> Option<Option<T>> {
    match key {
        None => Some(None),
        Some(reported) => reported.map(Some),
    }
}

/// The channel of `into`, which takes a value and not a message.
pub(super) fn written(build: &mut Build<'_>, into: &str) -> Option<Arc<str>> {
    let reducer = build.channels().get(into).map(|c| c.reduce);
    if reducer == Some(Reducer::Messages) {
        let message = format!("`{into}` holds messages, and `into` writes a value");
        build.report(&["into"], message, "remove `into`, or name another channel");
        return None;
    }
    build.writes(&["into"], into)
}

/// Notes which tools a node may call: those of its list, else of its skill, else any, since the
/// conversation's skill decides.
pub(super) fn may_call(build: &mut Build<'_>, skill: Option<&Skill>, allowed: &Allowed) {
    let any = ["*".to_owned()];
    let patterns = match (&allowed.0, skill) {
        (Some(list), _) => list,
        (None, Some(skill)) => &skill.tools,
        (None, None) => &any[..],
    };
    build.calls_tools(patterns);
}

/// A node can only narrow its skill's tools.
fn narrows(build: &mut Build<'_>, skill: &Skill, list: &[String]) {
    for (i, name) in list.iter().enumerate() {
        let literal = name.trim_end_matches('*');
        let overlaps = |p: &String| matches(p, literal) || matches(name, p.trim_end_matches('*'));
        if !skill.tools.iter().any(overlaps) {
            let message = format!("`{name}` is not among the tools of skill `{}`", skill.name);
            let fix =
                format!("name one of its tools ({}), or add it there", skill.tools.join(", "));
            build.report(&["tools", &i.to_string()], message, fix);
        }
    }
}

/// Renders a template at a key of the node.
pub(super) fn render(
    template: Option<&Template>,
    key: &str,
    state: &State,
    scope: &exile_engine::expr::Scope,
) -> Result<Option<String>, NodeError> {
    let text = |t: &Template| t.render(state, scope).map_err(|e| NodeError::expression(key, &e));
    template.map(text).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_node_only_narrows_its_skill_and_nothing_means_nothing() {
        for (skill, node, tool, allowed) in [
            (None, None, "calculator", false),
            (None, Some(list(&["calc*"])), "calculator", true),
            (Some(list(&["*"])), None, "calculator", true),
            (Some(list(&[])), None, "calculator", false),
            (Some(list(&["crm__*"])), Some(list(&["*"])), "calculator", false),
            (Some(list(&["crm__*"])), Some(list(&["crm__get"])), "crm__get", true),
            (Some(list(&["crm__*"])), Some(list(&["crm__get"])), "crm__put", false),
            (Some(list(&["crm__*"])), Some(list(&[])), "crm__get", false),
        ] {
            let node = Allowed(node);
            assert_eq!(node.names(skill.as_deref(), tool), allowed, "{skill:?} {node:?} {tool}");
        }
    }
}
