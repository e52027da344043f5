//! What a request needs of a model, and which models of a chain can do it.
//!
//! Two kinds of needs:
//! - Without some a request cannot be answered: tools, images, room for the input. A model that is
//!   known to lack one is never asked; if all of a chain do, that is told before anything is sent.
//! - Others can be done without, at a loss: a schema is then checked and asked for again, parallel
//!   calls come one after the other, a language is understood a little. A model that is known to
//!   lack one is passed over as long as the chain holds one that does not.
//!
//! What nobody knows of a model is no lack.

use std::fmt;
use std::sync::Arc;

use super::card::{Card, Cell};
use super::{ModelRef, ModelRequest};
use crate::message::Role;

/// Something that a request may need of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// To call tools.
    Tools,
    /// To see images, in what was asked last; older ones can be told of.
    Vision,
    /// To call several tools in one answer.
    ParallelTools,
    /// To be held to a JSON Schema.
    JsonSchema,
}

impl Ability {
    /// Whether a model has it; `None`: nobody knows.
    fn of(self, card: &Card) -> Option<bool> {
        let cell = match self {
            Self::Tools => &card.tools,
            Self::Vision => &card.vision,
            Self::ParallelTools => &card.parallel_tools,
            Self::JsonSchema => &card.json_schema,
        };
        cell.as_ref().map(|cell| cell.value)
    }
}

/// What a request needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// What the model must be able to do.
    pub abilities: Vec<Ability>,
    /// Room for that many tokens, at the very least; 0 if there is room in any case.
    pub tokens: u64,
    /// The language of what was asked last, as ISO 639-1; `None`: the letters do not tell.
    pub language: Option<&'static str>,
}

/// What a model is known to lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// An ability.
    Ability(Ability),
    /// The input alone is longer than all that it can take.
    Context {
        /// Tokens of the input, at the very least.
        tokens: u64,
        /// Tokens that it takes.
        room: u64,
    },
    /// It is not made for the language.
    Language(&'static str),
}

impl Lack {
    /// Whether a request can be answered in spite of it.
    #[must_use]
    pub fn bearable(self) -> bool {
        match self {
            Self::Ability(Ability::Tools | Ability::Vision) | Self::Context { .. } => false,
            Self::Ability(Ability::JsonSchema | Ability::ParallelTools) | Self::Language(_) => true,
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ability(Ability::Tools) => f.write_str("calls no tools"),
            Self::Ability(Ability::Vision) => f.write_str("takes no images"),
            Self::Ability(Ability::JsonSchema) => f.write_str("is not held to a JSON Schema"),
            Self::Ability(Ability::ParallelTools) => f.write_str("calls one tool at a time"),
            Self::Context { tokens, room } => {
                write!(f, "takes {room} tokens, and the input has at least {tokens}")
            }
            Self::Language(language) => write!(f, "is not made for `{language}`"),
        }
    }
}

impl Needs {
    /// What a request needs of models that take at least `room` tokens.
    #[must_use]
    pub fn of(request: &ModelRequest, room: Option<u64>) -> Self {
        let texts = || request.messages.iter().map(|message| message.content.as_str());
        // No text has more tokens than bytes: what fits in any case need not be counted.
        let bytes: u64 = texts().map(|text| text.len() as u64).sum();
        let close = room.is_some_and(|room| bytes > room);
        let asked = request.messages.iter().rev().find(|m| m.role == Role::User);
        let needed = [
            (Ability::Tools, !request.tools.is_empty()),
            (Ability::ParallelTools, request.tools.len() > 1),
            (Ability::Vision, asked.is_some_and(|message| !message.images.is_empty())),
            (Ability::JsonSchema, request.output_schema.is_some()),
        ];
        let needed = needed.into_iter().filter(|(_, needed)| *needed);
        Self {
            abilities: needed.map(|(ability, _)| ability).collect(),
            tokens: if close { texts().map(tokens_at_least).sum() } else { 0 },
            language: asked.and_then(|m| language(&m.content)),
        }
    }

    /// What a model of these abilities lacks.
    #[must_use]
    pub fn lacks(&self, card: &Card) -> Vec<Lack> {
        let missing = self.abilities.iter().filter(|ability| ability.of(card) == Some(false));
        let mut lacks: Vec<Lack> = missing.map(|ability| Lack::Ability(*ability)).collect();
        if let Some(Cell { value: room, .. }) = card.context
            && self.tokens > room
        {
            lacks.push(Lack::Context { tokens: self.tokens, room });
        }
        if let Some((language, cell)) = self.language.zip(card.languages.as_ref())
            && !cell.value.iter().any(|known| known == language)
        {
            lacks.push(Lack::Language(language));
        }
        lacks
    }

    /// The models of a chain that can answer, in its order: without those that lack what cannot be
    /// done without, and without those that lack anything as long as another one does not.
    ///
    /// # Errors
    /// What each model lacks, if none can answer.
    pub fn choose(
        &self,
        chain: Vec<(ModelRef, Arc<Card>)>,
    ) -> Result<Vec<ModelRef>, Vec<(ModelRef, Vec<Lack>)>> {
        let lacking: Vec<(ModelRef, Vec<Lack>)> = chain
            .into_iter()
            .map(|(model, card)| {
                let lacks = self.lacks(&card);
                (model, lacks)
            })
            .collect();
        let able = |(_, lacks): &&(ModelRef, Vec<Lack>)| lacks.iter().all(|lack| lack.bearable());
        let whole = lacking.iter().any(|(_, lacks)| lacks.is_empty());
        let chosen: Vec<ModelRef> = lacking
            .iter()
            .filter(able)
            .filter(|(_, lacks)| !whole || lacks.is_empty())
            .map(|(model, _)| model.clone())
            .collect();
        if chosen.is_empty() { Err(lacking) } else { Ok(chosen) }
    }
}

/// How many tokens a text has at the very least, in any vocabulary in use: a word is one, a long
/// one more, and of scripts without spaces two characters may be one.
#[must_use]
pub fn tokens_at_least(text: &str) -> u64 {
    /// Letters of a word that are one token at best.
    const LETTERS: u64 = 12;
    let (mut tokens, mut letters, mut others) = (0, 0_u64, 0_u64);
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            letters += 1;
            continue;
        }
        tokens += letters.div_ceil(LETTERS);
        letters = 0;
        others += u64::from(!c.is_ascii());
    }
    tokens + letters.div_ceil(LETTERS) + others / 2
}

/// The language of a text, where its letters alone tell: scripts that one language writes.
fn language(text: &str) -> Option<&'static str> {
    let (mut han, mut other) = (false, None);
    for c in text.chars() {
        match u32::from(c) {
            0x3040..=0x30ff => return Some("ja"),
            0xac00..=0xd7af => return Some("ko"),
            0x4e00..=0x9fff | 0x3400..=0x4dbf => han = true,
            0x0e00..=0x0e7f => other = Some("th"),
            0x0590..=0x05ff => other = Some("he"),
            0x0370..=0x03ff => other = other.or(Some("el")),
            _ => {}
        }
    }
    if han { Some("zh") } else { other }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Ability, Lack, Needs, language, tokens_at_least};
    use crate::model::ModelRef;
    use std::sync::Arc;

    use crate::model::card::{Card, Catalogue};

    fn chain(models: serde_json::Value) -> Vec<(ModelRef, Arc<Card>)> {
        let claims: crate::model::card::Claims = serde_json::from_value(models).unwrap();
        let names: Vec<ModelRef> = claims.keys().filter_map(|n| ModelRef::parse(n)).collect();
        let catalogue = Catalogue::empty().with(claims, "test");
        names.into_iter().map(|name| (name.clone(), catalogue.card(&name))).collect()
    }

    fn chosen(needs: &Needs, models: serde_json::Value) -> Vec<String> {
        let chosen = needs.choose(chain(models)).unwrap();
        chosen.into_iter().map(|model| model.to_string()).collect()
    }

    #[test]
    fn who_lacks_what_cannot_be_done_without_is_never_asked() {
        let abilities = vec![Ability::Tools, Ability::Vision];
        let needs = Needs { abilities, tokens: 5000, language: None };
        let models = json!({
            "a/deaf": [{ "tools": false, "vision": true }],
            "b/blind": [{ "tools": true, "vision": false }],
            "c/short": [{ "tools": true, "vision": true, "context": 4999 }],
            "d/able": [{ "tools": true, "vision": true, "context": 5000 }],
            "e/unknown": [{}],
        });
        assert_eq!(chosen(&needs, models), ["d/able", "e/unknown"]);
    }

    #[test]
    fn what_can_be_done_without_counts_as_long_as_somebody_has_it() {
        let abilities = vec![Ability::JsonSchema];
        let needs = Needs { abilities, tokens: 0, language: Some("zh") };
        let loose = json!({ "a/loose": [{ "json_schema": false }] });
        assert_eq!(chosen(&needs, loose), ["a/loose"]);
        let both = json!({
            "a/loose": [{ "json_schema": false }],
            "b/english": [{ "json_schema": true, "languages": ["en"] }],
            "c/whole": [{ "json_schema": true, "languages": ["en", "zh"] }],
        });
        assert_eq!(chosen(&needs, both), ["c/whole"]);
    }

    #[test]
    fn who_calls_one_tool_at_a_time_is_passed_over_as_long_as_another_calls_several() {
        let abilities = vec![Ability::Tools, Ability::ParallelTools];
        let needs = Needs { abilities, ..Needs::default() };
        let single = json!({ "a/single": [{ "tools": true, "parallel_tools": false }] });
        assert_eq!(chosen(&needs, single), ["a/single"]);
        let both = json!({
            "a/single": [{ "tools": true, "parallel_tools": false }],
            "b/several": [{ "tools": true, "parallel_tools": true }],
        });
        assert_eq!(chosen(&needs, both), ["b/several"]);
    }

    #[test]
    fn a_chain_that_cannot_answer_says_what_each_model_lacks() {
        let needs = Needs { abilities: vec![Ability::Vision], tokens: 10, language: None };
        let models = json!({ "a/blind": [{ "vision": false, "context": 9 }] });
        let lacking = needs.choose(chain(models)).unwrap_err();
        assert_eq!(
            lacking[0].1,
            [Lack::Ability(Ability::Vision), Lack::Context { tokens: 10, room: 9 }]
        );
    }

    #[test]
    fn tokens_are_never_counted_too_high() {
        for (text, tokens) in [
            ("", 0),
            ("hello world", 2),
            ("internationalization", 2),
            ("退款流程", 2),
            ("fn main() { println!(\"hi\"); }", 4),
        ] {
            assert_eq!(tokens_at_least(text), tokens, "{text}");
        }
    }

    #[test]
    fn letters_tell_some_languages() {
        for (text, expected) in [
            ("你好", Some("zh")),
            ("東京タワー", Some("ja")),
            ("안녕", Some("ko")),
            ("hello", None),
        ] {
            assert_eq!(language(text), expected, "{text}");
        }
    }
}
