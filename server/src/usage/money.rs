//! What currencies are worth in the one that this installation counts in.

use std::collections::BTreeMap;

use exile_engine::model::price::{Micros, Price, micros};
use schemars::JsonSchema;
use serde::Deserialize;

/// What money is counted in.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Currency {
    /// ISO 4217, e.g. `CNY`.
    pub unit: String,
    /// What one unit of another currency is worth, e.g. `USD: 7.10`.
    #[serde(flatten)]
    pub rates: BTreeMap<String, f64>,
}

impl Default for Currency {
    fn default() -> Self {
        Self { unit: "USD".into(), rates: BTreeMap::new() }
    }
}

/// Rates of exchange.
#[derive(Clone, Debug)]
pub struct Money {
    unit: String,
    rates: BTreeMap<String, Micros>,
}

impl Money {
    /// Those of a configuration.
    #[must_use]
    pub fn new(currency: &Currency) -> Self {
        let rates = currency.rates.iter().map(|(name, rate)| (name.clone(), micros(*rate)));
        Self { unit: currency.unit.clone(), rates: rates.collect() }
    }

    /// What is counted in, e.g. `CNY`.
    #[must_use]
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// What one unit of the price's currency is worth, in millionths; `None`: nobody said. Nothing
    /// costs nothing in every currency.
    #[must_use]
    pub fn rate(&self, price: &Price) -> Option<Micros> {
        if price.currency == self.unit || price.is_free() {
            return Some(1_000_000);
        }
        self.rates.get(&price.currency).copied()
    }
}
