//! Every configured provider and alias, and what a name stands for.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::breaker::Breakers;
use super::card::Catalogue;
use super::meter::{Bill, Meter, Payer};
use super::{ModelRef, Provider};

/// An alias of `exile.yaml`, its environment already chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelAlias {
    /// What it stands for.
    pub model: ModelRef,
    /// What it stands for when a run belongs to one of these businesses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub business: BTreeMap<String, ModelRef>,
    /// Who is asked next if that one fails, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<ModelRef>,
    /// What becomes of an answer that breaks off.
    #[serde(default, skip_serializing_if = "AfterFirstToken::is_fail")]
    pub after_first_token: AfterFirstToken,
}

impl From<ModelRef> for ModelAlias {
    fn from(model: ModelRef) -> Self {
        let (business, fallback, after_first_token) = Default::default();
        Self { model, business, fallback, after_first_token }
    }
}

/// What becomes of an answer that breaks off after somebody may have seen its beginning. Nothing
/// is ever spliced: what was streamed stands in the log as what it is, or is void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AfterFirstToken {
    /// The call fails.
    #[default]
    Fail,
    /// What was streamed is void (`message.reset`), and the whole answer is asked for again.
    Restart,
}

impl AfterFirstToken {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_fail(&self) -> bool {
        *self == Self::Fail
    }
}

/// Who is asked, in order, and what becomes of an answer that breaks off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Never empty; each once.
    pub models: Vec<ModelRef>,
    /// See there.
    pub after_first_token: AfterFirstToken,
}

/// Every configured provider and alias.
#[derive(Clone, Default)]
pub struct Models {
    providers: IndexMap<String, Arc<dyn Provider>>,
    aliases: Aliases,
    catalogue: Arc<Catalogue>,
    breakers: Arc<Breakers>,
    meter: Option<Arc<dyn Meter>>,
}

/// The aliases of one configuration: the part of it that a run's bundle pins.
pub type Aliases = BTreeMap<String, ModelAlias>;

impl Models {
    /// A registry of these providers, by their names, and these aliases.
    #[must_use]
    pub fn new(providers: Vec<Arc<dyn Provider>>, aliases: Aliases) -> Self {
        let providers = providers.into_iter().map(|p| (p.name().to_owned(), p)).collect();
        Self { providers, aliases, ..Self::default() }
    }

    /// With what is known of models.
    #[must_use]
    pub fn with_catalogue(self, catalogue: Catalogue) -> Self {
        Self { catalogue: Arc::new(catalogue), ..self }
    }

    /// With somebody who counts what calls cost.
    #[must_use]
    pub fn with_meter(self, meter: Arc<dyn Meter>) -> Self {
        Self { meter: Some(meter), ..self }
    }

    /// What is known of models.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Who failed too often.
    #[must_use]
    pub fn breakers(&self) -> &Breakers {
        &self.breakers
    }

    /// The bill of a call, if anybody counts.
    pub(super) fn bill(&self, payer: &Payer) -> Option<Box<dyn Bill>> {
        self.meter.as_ref().map(|meter| meter.open(payer))
    }

    /// The aliases, for a bundle to pin.
    #[must_use]
    pub fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    /// What `name` (an alias or `provider/model`) stands for, for a run of that business.
    #[must_use]
    pub fn resolve(aliases: &Aliases, name: &str, business: Option<&str>) -> Option<ModelRef> {
        match aliases.get(name) {
            Some(alias) => {
                let chosen = business.and_then(|b| alias.business.get(b));
                Some(chosen.unwrap_or(&alias.model).clone())
            }
            None => ModelRef::parse(name),
        }
    }

    /// Who is asked under `name`, for a run of that business: what it stands for, then its
    /// fallback.
    #[must_use]
    pub fn chain(aliases: &Aliases, name: &str, business: Option<&str>) -> Option<Chain> {
        let first = Self::resolve(aliases, name, business)?;
        let alias = aliases.get(name);
        let mut models = vec![first];
        for model in alias.into_iter().flat_map(|alias| &alias.fallback) {
            if !models.contains(model) {
                models.push(model.clone());
            }
        }
        let after_first_token = alias.map(|alias| alias.after_first_token).unwrap_or_default();
        Some(Chain { models, after_first_token })
    }

    /// Whether a graph may name it: an alias, or a model of a configured provider.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.aliases.contains_key(name)
            || ModelRef::parse(name).is_some_and(|m| self.providers.contains_key(&*m.provider))
    }

    /// Names that [`knows`](Self::knows) accepts, for suggestions.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let providers = self.providers.keys().map(|p| format!("{p}/…"));
        self.aliases.keys().cloned().chain(providers).collect()
    }

    /// The provider of that name.
    #[must_use]
    pub fn provider(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.providers.get(name)
    }

    /// Every provider, in the order of the configuration.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.providers.values()
    }
}
