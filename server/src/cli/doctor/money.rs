//! What models cost, and whether it can be counted.

use exile_engine::model::ModelRef;
use exile_engine::model::card::Catalogue;
use exile_engine::model::price::Price;
use exile_nodes::providers::mock;

use super::{Check, State};
use crate::config::Config;
use crate::usage::Money;

/// The currency that is counted in, and the prices of the models that aliases lead to.
pub(super) fn checks(config: &Config, catalogue: &Catalogue, models: &[ModelRef]) -> Vec<Check> {
    let money = Money::new(&config.currency);
    let mut checks = vec![currency(config)];
    for model in models.iter().filter(|model| &*model.provider != mock::NAME) {
        let card = catalogue.card(model);
        let prices = card.prices.as_ref().map(|cell| &*cell.value).unwrap_or_default();
        checks.push(price(&money, model, prices));
    }
    checks
}

fn currency(config: &Config) -> Check {
    let currency = &config.currency;
    let rates = currency.rates.iter().map(|(name, rate)| format!("1 {name} = {rate}"));
    let rates: Vec<String> = rates.collect();
    let detail = match &*rates {
        [] => currency.unit.clone(),
        rates => format!("{} ({})", currency.unit, rates.join(", ")),
    };
    let is_code = |name: &str| name.len() == 3 && name.chars().all(|c| c.is_ascii_uppercase());
    let wrong_rate = |rate: &f64| !rate.is_finite() || *rate <= 0.0;
    if !std::iter::once(&currency.unit).chain(currency.rates.keys()).all(|name| is_code(name)) {
        let detail = format!("{detail}: write codes of ISO 4217, e.g. CNY");
        return Check { what: "currency", state: State::Bad, detail };
    }
    if currency.rates.values().any(wrong_rate) {
        let detail = format!("{detail}: a rate must be above 0");
        return Check { what: "currency", state: State::Bad, detail };
    }
    Check { what: "currency", state: State::Good, detail }
}

fn price(money: &Money, model: &ModelRef, prices: &[Price]) -> Check {
    let what = "price";
    let Some(first) = prices.first() else {
        let detail = format!(
            "{model}: none is known, so that no cost is shown and no quota of money counts it; \
             write one below `catalogue` in exile.yaml"
        );
        return Check { what, state: State::Note, detail };
    };
    if let Some(price) = prices.iter().find(|price| money.rate(price).is_none()) {
        let (unit, other) = (money.unit(), &price.currency);
        let detail = format!(
            "{model}: in {other}, and `currency` does not say what a {other} is worth in {unit}, so \
             that no cost is shown and no quota of money counts it"
        );
        return Check { what, state: State::Bad, detail };
    }
    let detail = format!(
        "{model}: {} in, {} out, {} for a million tokens",
        first.input, first.output, first.currency
    );
    Check { what, state: State::Good, detail }
}
