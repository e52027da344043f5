//! What is known of models: the capability matrix, every cell with its source and its day.
//!
//! A catalogue is a list of claims. A claim says where it is from, when that was looked up, and
//! what it says of one model or of all whose name begins alike. Cells are worked out by laying
//! claims over one another: the general below the special, what ships below what an operator
//! writes.
//!
//! Invariant: a cell that no claim fills is unknown, and is never taken for a yes or a no here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ModelRef;
use super::price::Price;

/// Claims by name: `provider/model`, or the beginning of such names and a `*`.
pub type Claims = BTreeMap<String, Vec<Claim>>;

/// What one source says of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Claim {
    /// Where it is from: an address, a document, a probe.
    pub source: Option<String>,
    /// The day of the source, or on which it was looked up.
    #[schemars(with = "Option<String>")]
    pub date: Option<Date>,
    /// It answers piece by piece.
    pub streaming: Option<bool>,
    /// It calls tools.
    pub tools: Option<bool>,
    /// It calls several tools in one answer.
    pub parallel_tools: Option<bool>,
    /// The provider holds its answer to a JSON Schema.
    pub json_schema: Option<bool>,
    /// It takes images.
    pub vision: Option<bool>,
    /// It thinks before it answers.
    pub reasoning: Option<bool>,
    /// It makes vectors of texts.
    pub embeddings: Option<bool>,
    /// Most tokens of a request, with or without the answer's, as the provider counts.
    pub context: Option<u64>,
    /// Most tokens of one answer.
    pub output: Option<u64>,
    /// ISO 639-1 codes of languages that it is made for.
    pub languages: Option<Vec<String>>,
    /// What tokens cost; the first line that is valid counts.
    pub prices: Option<Vec<Price>>,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell<T> {
    /// What is so.
    pub value: T,
    /// Who says so.
    pub source: Arc<str>,
    /// Since when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<Date>,
}

/// All that is known of one model; what is not, is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Card {
    /// It answers piece by piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streaming: Option<Cell<bool>>,
    /// It calls tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Cell<bool>>,
    /// It calls several tools in one answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tools: Option<Cell<bool>>,
    /// The provider holds its answer to a JSON Schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<Cell<bool>>,
    /// It takes images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision: Option<Cell<bool>>,
    /// It thinks before it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Cell<bool>>,
    /// It makes vectors of texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embeddings: Option<Cell<bool>>,
    /// Most tokens of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Cell<u64>>,
    /// Most tokens of one answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Cell<u64>>,
    /// Languages that it is made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub languages: Option<Cell<Vec<String>>>,
    /// What tokens cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prices: Option<Cell<Vec<Price>>>,
}

impl Card {
    /// Lays a claim over what is known.
    fn lay(&mut self, claim: &Claim, layer: &str) {
        let source: Arc<str> = claim.source.as_deref().unwrap_or(layer).into();
        let date = claim.date;
        put(&mut self.streaming, claim.streaming.as_ref(), &source, date);
        put(&mut self.tools, claim.tools.as_ref(), &source, date);
        put(&mut self.parallel_tools, claim.parallel_tools.as_ref(), &source, date);
        put(&mut self.json_schema, claim.json_schema.as_ref(), &source, date);
        put(&mut self.vision, claim.vision.as_ref(), &source, date);
        put(&mut self.reasoning, claim.reasoning.as_ref(), &source, date);
        put(&mut self.embeddings, claim.embeddings.as_ref(), &source, date);
        put(&mut self.context, claim.context.as_ref(), &source, date);
        put(&mut self.output, claim.output.as_ref(), &source, date);
        put(&mut self.languages, claim.languages.as_ref(), &source, date);
        put(&mut self.prices, claim.prices.as_ref(), &source, date);
    }
}

/// Fills a cell, if the claim says something of it.
fn put<T: Clone>(
    cell: &mut Option<Cell<T>>,
    value: Option<&T>,
    source: &Arc<str>,
    date: Option<Date>,
) {
    if let Some(value) = value.cloned() {
        *cell = Some(Cell { value, source: source.clone(), date });
    }
}

/// Claims about all models, in the order in which they are laid over one another.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    entries: Vec<Entry>,
    /// Cards that were worked out already.
    cards: Arc<RwLock<HashMap<ModelRef, Arc<Card>>>>,
}

/// As many cards as are kept: names of models come from callers.
const CARDS: usize = 1024;

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    claims: Vec<Claim>,
    /// What a claim without a source is from.
    layer: &'static str,
}

impl Catalogue {
    /// Nothing is known.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds claims above those that are there. `layer`: what those without a source are from.
    #[must_use]
    pub fn with(mut self, claims: Claims, layer: &'static str) -> Self {
        let mut entries: Vec<Entry> =
            claims.into_iter().map(|(name, claims)| Entry { name, claims, layer }).collect();
        // The general first: what ends in `*`, the shorter before the longer, then whole names.
        entries.sort_by_key(|entry| (!entry.name.ends_with('*'), entry.name.len()));
        self.entries.extend(entries);
        self.cards = Arc::default();
        self
    }

    /// What is known of a model.
    #[must_use]
    pub fn card(&self, model: &ModelRef) -> Arc<Card> {
        // The lock guards whole cards: nothing panics while it is held.
        let known = self.cards.read().unwrap_or_else(PoisonError::into_inner).get(model).cloned();
        if let Some(card) = known {
            return card;
        }
        let card = Arc::new(self.work_out(model));
        let mut cards = self.cards.write().unwrap_or_else(PoisonError::into_inner);
        if cards.len() < CARDS {
            cards.insert(model.clone(), card.clone());
        }
        card
    }

    fn work_out(&self, model: &ModelRef) -> Card {
        let name = model.to_string();
        let mut card = Card::default();
        for entry in self.entries.iter().filter(|entry| entry.covers(&name)) {
            for claim in &entry.claims {
                card.lay(claim, entry.layer);
            }
        }
        card
    }

    /// Whether some model may be had for nothing at that time, as far as names and beginnings of
    /// names have claims of their own. The mock does not count: it answers nothing.
    #[must_use]
    pub fn has_free(&self, at: Timestamp) -> bool {
        let free = |claim: &Claim| {
            let prices = claim.prices.as_deref().unwrap_or_default();
            Price::valid(prices, at).is_some_and(Price::is_free)
        };
        let counts = |entry: &&Entry| !entry.name.starts_with("mock/");
        self.entries.iter().filter(counts).any(|entry| entry.claims.iter().any(free))
    }

    /// Models that have a claim of their own, in order, each once.
    pub fn named(&self) -> impl Iterator<Item = ModelRef> {
        let names: std::collections::BTreeSet<&str> = self
            .entries
            .iter()
            .map(|entry| entry.name.as_str())
            .filter(|n| !n.ends_with('*'))
            .collect();
        names.into_iter().filter_map(ModelRef::parse).collect::<Vec<_>>().into_iter()
    }
}

impl Entry {
    fn covers(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Catalogue, Claims, ModelRef};

    fn claims(value: serde_json::Value) -> Claims {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_special_lies_over_the_general_and_the_operator_over_what_ships() {
        let shipped = claims(json!({
            "lab/big": [{ "source": "a page", "date": "2026-11-01", "vision": true },
                        { "source": "a probe", "date": "2026-11-02", "vision": false }],
            "lab/*": [{ "source": "the lab", "tools": true, "vision": false, "context": 1000 }],
            "*": [{ "source": "assumed", "tools": false, "streaming": true }],
        }));
        let own = claims(json!({ "lab/*": [{ "context": 2000 }] }));
        let catalogue = Catalogue::empty().with(shipped, "shipped").with(own, "exile.yaml");
        let card = catalogue.card(&ModelRef::parse("lab/big").unwrap());
        assert_eq!(
            serde_json::to_value(&card).unwrap(),
            json!({
                "streaming": { "value": true, "source": "assumed" },
                "tools": { "value": true, "source": "the lab" },
                "vision": { "value": false, "source": "a probe", "date": "2026-11-02" },
                "context": { "value": 2000, "source": "exile.yaml" },
            })
        );
        let card = catalogue.card(&ModelRef::parse("shop/small").unwrap());
        assert_eq!(
            (card.tools.as_ref().map(|cell| cell.value), &card.vision),
            (Some(false), &None)
        );
        let named: Vec<String> = catalogue.named().map(|m| m.to_string()).collect();
        assert_eq!(named, ["lab/big"]);
    }
}
