//! What tokens cost, from which day, and at which hours.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time, Weekday};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Usage;

/// The price of a million tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// ISO 4217, e.g. `USD`.
    pub currency: String,
    /// Of a request, for each million tokens.
    pub input: f64,
    /// Of the part of a request that the provider had in its cache; else as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<f64>,
    /// Of the part of a request that was written to the provider's cache; else as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
    /// Of an answer, reasoning included.
    pub output: f64,
    /// The first day on which it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub from: Option<Date>,
    /// The hours at which it is valid; always, if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
}

/// Money in millionths of a unit of its currency.
pub type Micros = u64;

/// Tokens that a price is of.
const PRICED: u128 = 1_000_000;

impl Price {
    /// The price that is valid at that time: the first one in the list.
    #[must_use]
    pub fn valid(prices: &[Self], at: Timestamp) -> Option<&Self> {
        prices.iter().find(|price| {
            let zone = price.when.as_ref().map_or("UTC", |when| when.zone.as_str());
            let Ok(at) = at.in_tz(zone) else { return false };
            price.from.is_none_or(|from| from <= at.date())
                && price.when.as_ref().is_none_or(|when| when.holds(at.datetime()))
        })
    }

    /// What a call costs. `rate`: what one unit of the price's currency is worth in the one that is
    /// asked for, in millionths. Each token is counted once; what is left of a millionth at the end
    /// is rounded, half of one up.
    #[must_use]
    pub fn of(&self, usage: Usage, rate: Micros) -> Micros {
        let plain = usage.input.saturating_sub(usage.cached).saturating_sub(usage.written);
        let parts = [
            (plain, self.input),
            (usage.cached, self.cached.unwrap_or(self.input)),
            (usage.written, self.cache_write.unwrap_or(self.input)),
            (usage.output, self.output),
        ];
        let cost = |(tokens, price): (u64, f64)| u128::from(tokens) * u128::from(micros(price));
        let exact = parts.into_iter().map(cost).fold(0, u128::saturating_add);
        let unit = PRICED * 1_000_000;
        let exact = exact.saturating_mul(u128::from(rate)).saturating_add(unit / 2);
        Micros::try_from(exact / unit).unwrap_or(Micros::MAX)
    }

    /// Whether every token is priced 0.
    #[must_use]
    pub fn is_free(&self) -> bool {
        let parts = [Some(self.input), self.cached, self.cache_write, Some(self.output)];
        parts.into_iter().flatten().all(|price| micros(price) == 0)
    }

    /// How many tokens of an answer can be had for so much money; `None`: any number.
    #[must_use]
    pub fn answer_for(&self, money: Micros, rate: Micros) -> Option<u64> {
        let each = u128::from(micros(self.output)).saturating_mul(u128::from(rate));
        let tokens = u128::from(money).saturating_mul(PRICED * 1_000_000).checked_div(each)?;
        Some(u64::try_from(tokens).unwrap_or(u64::MAX))
    }
}

/// A price as written, exactly, if it has at most six decimals; nothing if it is below zero.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` turns what is below zero, or is no number, into 0, and stops at the end"
)]
pub fn micros(price: f64) -> Micros {
    (price * 1e6).round() as Micros
}

impl When {
    /// Whether it holds at that time of its zone.
    fn holds(&self, at: DateTime) -> bool {
        let day = Day::of(at.weekday());
        (self.days.is_empty() || self.days.contains(&day))
            && self.hours.iter().any(|hours| hours.from <= at.time() && at.time() < hours.to)
    }
}

/// Hours of a week, in a time zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// IANA name, e.g. `Asia/Shanghai`.
    pub zone: String,
    /// Days; every day, if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// `HH:MM-HH:MM`, the end not included.
    pub hours: Vec<Hours>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    fn of(day: Weekday) -> Self {
        match day {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }
}

/// A part of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Hours {
    /// When it begins.
    pub from: Time,
    /// When it is over.
    pub to: Time,
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not of the form HH:MM-HH:MM");
        let time = |text: &str| Time::strptime("%H:%M", text.trim()).map_err(|_| wrong());
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let hours = Self { from: time(from)?, to: time(to)? };
        if hours.from < hours.to { Ok(hours) } else { Err(wrong()) }
    }
}

impl TryFrom<String> for Hours {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from.strftime("%H:%M"), self.to.strftime("%H:%M"))
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Hours, Price};
    use crate::model::Usage;

    fn prices(list: serde_json::Value) -> Vec<Price> {
        serde_json::from_value(list).unwrap()
    }

    #[test]
    fn a_price_is_valid_from_its_day_and_at_its_hours() {
        let peak = json!({ "zone": "Asia/Shanghai", "days": ["mon", "fri"],
            "hours": ["09:00-12:00", "14:00-18:00"] });
        let list = prices(json!([
            { "currency": "USD", "input": 9, "output": 9, "from": "2027-01-01" },
            { "currency": "USD", "input": 2, "output": 2, "when": peak },
            { "currency": "USD", "input": 1, "output": 1 },
        ]));
        let at = |time: &str| Price::valid(&list, time.parse().unwrap()).map(micros_of);
        // Friday, 2026-11-27; eight hours ahead of UTC.
        let cases = [
            ("2026-11-27T00:59:59Z", 1),
            ("2026-11-27T01:00:00Z", 2),
            ("2026-11-27T03:59:59Z", 2),
            ("2026-11-27T04:00:00Z", 1),
            ("2026-11-27T06:00:00Z", 2),
            ("2026-11-26T02:00:00Z", 1),
            ("2026-11-29T17:00:00Z", 1),
            ("2026-12-31T23:59:59Z", 1),
            ("2027-01-01T00:00:00Z", 9),
        ];
        for (time, price) in cases {
            assert_eq!(at(time), Some(price * 1_000_000), "{time}");
        }
        assert!(Price::valid(&list[..1], "2026-11-27T00:00:00Z".parse().unwrap()).is_none());
    }

    fn micros_of(price: &Price) -> u64 {
        super::micros(price.input)
    }

    /// The figures were worked out by hand.
    #[test]
    fn a_cost_is_exact_and_counts_each_token_once() {
        let of = |price: serde_json::Value, usage: Usage, rate: u64| {
            prices(json!([price]))[0].of(usage, rate)
        };
        let usage = |input, cached, written, output, reasoning| Usage {
            input,
            cached,
            written,
            output,
            reasoning,
        };
        let one = 1_000_000;
        let gpt = json!({ "currency": "USD", "input": 2.5, "cached": 1.25, "output": 10 });
        // (1000 - 400) × 2.5 + 400 × 1.25 + 300 × 10 = 1500 + 500 + 3000, reasoning within.
        assert_eq!(of(gpt.clone(), usage(1000, 400, 0, 300, 200), one), 5000);
        // 1 × 2.5 = 2.5 millionths: half of one goes up.
        assert_eq!(of(gpt.clone(), usage(1, 0, 0, 0, 0), one), 3);
        assert_eq!(of(gpt.clone(), usage(1, 1, 0, 0, 0), one), 1);
        let flash = json!({ "currency": "USD", "input": 0.15, "cached": 0.003, "output": 0.6 });
        // 100 × 0.15 + 900 × 0.003 + 50 × 0.6 = 15 + 2.7 + 30 = 47.7; × 7.10 = 338.67.
        assert_eq!(of(flash.clone(), usage(1000, 900, 0, 50, 0), one), 48);
        assert_eq!(of(flash, usage(1000, 900, 0, 50, 0), 7_100_000), 339);
        let claude = json!({ "currency": "USD", "input": 3, "cached": 0.3, "cache_write": 3.75,
            "output": 15 });
        // 10 × 3 + 100 × 0.3 + 1000 × 3.75 + 5 × 15 = 30 + 30 + 3750 + 75.
        assert_eq!(of(claude, usage(1110, 100, 1000, 5, 3), one), 3885);
        // More in the cache than there is: never below nothing.
        assert_eq!(of(gpt, usage(1, 2, 0, 0, 0), one), 3);
    }

    #[test]
    fn no_count_and_no_price_is_too_large_to_be_worked_out() {
        let dear = json!({ "currency": "USD", "input": 1e300, "output": 1e300 });
        let most = Usage { input: u64::MAX, output: u64::MAX, ..Usage::default() };
        assert_eq!(prices(json!([dear]))[0].of(most, u64::MAX), u64::MAX);
    }

    #[test]
    fn what_money_buys_costs_no_more_than_it() {
        let price = |output: f64| json!({ "currency": "USD", "input": 1, "output": output });
        let rate = 1_000_000;
        for (output, money, tokens) in [
            (2.0, 10, Some(5)),
            (0.6, 1, Some(1)),
            (0.3, 1, Some(3)),
            (0.0, 1, None),
            (9.0, 0, Some(0)),
        ] {
            let price = &prices(json!([price(output)]))[0];
            assert_eq!(price.answer_for(money, rate), tokens, "{output}");
        }
        let free = prices(json!([{ "currency": "USD", "input": 0, "output": 0 }]));
        let cached = json!([{ "currency": "USD", "input": 0, "cache_write": 1, "output": 0 }]);
        assert!(free[0].is_free() && !prices(cached)[0].is_free());
    }

    #[test]
    fn hours_are_read_as_they_are_written() {
        let hours: Hours = "09:00-12:30".parse().unwrap();
        assert_eq!(hours.to_string(), "09:00-12:30");
        for wrong in ["9-12", "12:00-09:00", "09:00", "25:00-26:00", ""] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
    }
}
