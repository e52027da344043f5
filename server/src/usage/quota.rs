//! Quotas: how much of what a user, a key, a business or a model may take, in which time.
//!
//! Invariants:
//! - Of users, keys and businesses each has counters of its own: `*` stands for every one that has
//!   no entry. An entry of its own stands in place of `*`, never beside it.
//! - A pattern of models is one pot, which all its models draw on.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::calendar::Per;
use super::counters::{Counter, Reservation};

/// Quotas as written, by the name of whom they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaFile {
    /// A user's name, or `*`: each user without an entry.
    pub user: BTreeMap<String, Allowance>,
    /// A key's id, or `*`: each key without an entry. Names of keys are their users' to choose.
    pub key: BTreeMap<String, Allowance>,
    /// A business, or `*`: each business without an entry.
    pub business: BTreeMap<String, Allowance>,
    /// `provider/model`, or the beginning of such names and a `*`: all of them together.
    pub model: BTreeMap<String, Allowance>,
}

impl QuotaFile {
    /// The section of a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> &BTreeMap<String, Allowance> {
        match kind {
            Kind::User => &self.user,
            Kind::Key => &self.key,
            Kind::Business => &self.business,
            Kind::Model => &self.model,
        }
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, kind: Kind) -> &mut BTreeMap<String, Allowance> {
        match kind {
            Kind::User => &mut self.user,
            Kind::Key => &mut self.key,
            Kind::Business => &mut self.business,
            Kind::Model => &mut self.model,
        }
    }
}

/// What may be taken.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Allowance {
    /// Calls to models, e.g. `60/min`, or a list like `[60/min, 1000/day]`.
    #[serde(skip_serializing_if = "Rates::is_empty", deserialize_with = "whole")]
    #[schemars(with = "Whole")]
    #[schema(value_type = Option<Vec<String>>)]
    pub requests: Rates,
    /// Tokens of requests and answers, e.g. `200000/day`.
    #[serde(skip_serializing_if = "Rates::is_empty", deserialize_with = "whole")]
    #[schemars(with = "Whole")]
    #[schema(value_type = Option<Vec<String>>)]
    pub tokens: Rates,
    /// What they cost, in the unit of `currency`, e.g. `300/month`.
    #[serde(skip_serializing_if = "Rates::is_empty")]
    #[schema(value_type = Option<Vec<String>>)]
    pub money: Rates,
}

impl Allowance {
    /// Every limit.
    pub fn limits(&self) -> impl Iterator<Item = (Unit, &Rate)> {
        let all = [
            (Unit::Requests, &self.requests),
            (Unit::Tokens, &self.tokens),
            (Unit::Money, &self.money),
        ];
        all.into_iter().flat_map(|(unit, rates)| rates.0.iter().map(move |rate| (unit, rate)))
    }
}

/// Limits of one unit, at most one for each length of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates(Vec<Rate>);

impl Rates {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for Rates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        };
        let mut rates: Vec<Rate> = Vec::with_capacity(texts.len());
        for text in texts {
            let rate: Rate = text.parse().map_err(serde::de::Error::custom)?;
            if rates.iter().any(|other| other.per == rate.per) {
                let twice = format!("`{text}` is the second limit for its length of time");
                return Err(serde::de::Error::custom(twice));
            }
            rates.push(rate);
        }
        Ok(Self(rates))
    }
}

/// Of what comes in whole pieces.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Rates, D::Error> {
    let rates = Rates::deserialize(deserializer)?;
    match rates.0.iter().find(|rate| !rate.micros.is_multiple_of(Rate::ONE)) {
        Some(rate) => Err(serde::de::Error::custom(format!(
            "`{rate}` is not a whole number; only money may be"
        ))),
        None => Ok(rates),
    }
}

impl Serialize for Rates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl JsonSchema for Rates {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rates".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        one_or_many(r"^[0-9]+(\.[0-9]{1,6})?/(min|day|month)$")
    }
}

/// The schema of limits of what comes in whole pieces.
struct Whole;

impl JsonSchema for Whole {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WholeRates".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        one_or_many("^[0-9]+/(min|day|month)$")
    }
}

fn one_or_many(pattern: &str) -> Schema {
    json_schema!({ "anyOf": [
        { "type": "string", "pattern": pattern },
        { "type": "array", "items": { "type": "string", "pattern": pattern } },
    ] })
}

/// A limit, written `60/min`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In millionths.
    micros: u64,
    /// In how much time.
    pub per: Per,
}

impl Rate {
    const ONE: u64 = 1_000_000;

    /// How much of it there is, as it is counted: money in millionths.
    #[must_use]
    pub fn amount(&self, unit: Unit) -> u64 {
        if unit == Unit::Money { self.micros } else { self.micros / Self::ONE }
    }

    /// How much of it there is, in whole units.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.micros / Self::ONE
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is no limit; write a number, a slash and min, day or month: 60/min")
        };
        let (amount, per) = text.split_once('/').ok_or_else(wrong)?;
        let per = Per::ALL.into_iter().find(|known| known.as_str() == per).ok_or_else(wrong)?;
        let (units, decimals) = amount.split_once('.').unwrap_or((amount, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(units) || !digits(decimals) || decimals.len() > 6 {
            return Err(wrong());
        }
        let units: u64 = units.parse().map_err(|_| wrong())?;
        let millionths: u64 = format!("{decimals:0<6}").parse().map_err(|_| wrong())?;
        let micros = units.checked_mul(Self::ONE).and_then(|units| units.checked_add(millionths));
        Ok(Self { micros: micros.ok_or_else(wrong)?, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.micros / Self::ONE)?;
        let rest = self.micros % Self::ONE;
        if rest > 0 {
            write!(f, ".{}", format!("{rest:06}").trim_end_matches('0'))?;
        }
        write!(f, "/{}", self.per.as_str())
    }
}

/// Whose a quota is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A user's.
    User,
    /// A key's.
    Key,
    /// A business's.
    Business,
    /// That of models.
    Model,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::User, Self::Key, Self::Business, Self::Model];

    /// As written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Key => "key",
            Self::Business => "business",
            Self::Model => "model",
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Calls.
    Requests,
    /// Tokens of requests and answers.
    Tokens,
    /// Millionths of the unit of currency.
    Money,
}

impl Unit {
    /// Every unit.
    pub const ALL: [Self; 3] = [Self::Requests, Self::Tokens, Self::Money];

    /// As written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Money => "money",
        }
    }
}

/// Who spends, by names and ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// The user's id and name.
    pub user: (&'a str, &'a str),
    /// The key's id.
    pub key: Option<&'a str>,
    /// The business.
    pub business: Option<&'a str>,
    /// `provider/model`, once that is known.
    pub model: Option<&'a str>,
}

/// A limit that somebody takes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// What it is counted on.
    pub counter: Counter,
    /// How much there is.
    pub rate: Rate,
    /// The name that people know its owner by.
    pub name: String,
}

impl Limit {
    /// So much of it, in the window of `now`.
    pub(super) fn reserve(&self, amount: u64, now: Timestamp, zone: &TimeZone) -> Reservation {
        let counter = self.counter.clone();
        let (window, limit) = (counter.per.window(now, zone), self.rate.amount(counter.unit));
        Reservation { counter, window, limit, amount }
    }
}

/// The limits that somebody takes from.
#[must_use]
pub(super) fn limits(quotas: &QuotaFile, subject: &Subject<'_>) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut add = |kind, id: &str, name: &str, allowance: &Allowance| {
        limits.extend(allowance.limits().map(|(unit, rate)| Limit {
            counter: Counter { kind, subject: id.into(), unit, per: rate.per },
            rate: rate.clone(),
            name: name.to_owned(),
        }));
    };
    let same = |id| (id, id);
    let (key, business) = (subject.key.map(same), subject.business.map(same));
    let owned = [(Kind::User, Some(subject.user)), (Kind::Key, key), (Kind::Business, business)];
    for (kind, who) in owned {
        let Some((id, name)) = who else { continue };
        let section = quotas.of(kind);
        let own = section.get(id).filter(|_| id != "*");
        let own = own.or_else(|| section.get(name).filter(|_| name != "*"));
        if let Some(allowance) = own.or_else(|| section.get("*")) {
            add(kind, id, name, allowance);
        }
    }
    for (pattern, allowance) in &quotas.model {
        if subject.model.is_some_and(|model| covers(pattern, model)) {
            add(Kind::Model, pattern, pattern, allowance);
        }
    }
    limits
}

/// Whether a pattern of models is of that one.
pub(super) fn covers(pattern: &str, model: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => model.starts_with(beginning),
        None => pattern == model,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Allowance, Kind, QuotaFile, Rate, Subject, Unit, limits};

    #[test]
    fn limits_are_read_as_they_are_written() {
        for text in ["60/min", "0.5/day", "5000/month", "0.000001/day"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!("0.5/day".parse::<Rate>().unwrap().amount(Unit::Money), 500_000);
        for wrong in ["60", "60/h", "/min", "-1/min", "1e3/day", "1./day", "0.0000001/day", "x/min"]
        {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        let of = |value| serde_json::from_value::<Allowance>(value);
        let two = of(json!({ "requests": ["60/min", "1000/day"], "money": "0.5/day" })).unwrap();
        assert_eq!(two.limits().count(), 3);
        assert!(of(json!({ "tokens": "0.5/day" })).unwrap_err().to_string().contains("whole"));
        let twice = of(json!({ "requests": ["1/min", "2/min"] })).unwrap_err();
        assert!(twice.to_string().contains("second limit"), "{twice}");
        assert!(of(json!({ "coffee": "1/day" })).is_err());
    }

    #[test]
    fn an_entry_of_ones_own_stands_in_place_of_the_star_and_models_share_a_pot() {
        let quotas: QuotaFile = serde_json::from_value(json!({
            "user": { "*": { "requests": "1/min" }, "alice": { "requests": "9/min" } },
            "key": { "key_1": { "tokens": "5/day" } },
            "business": { "marketing": { "money": "3/day" } },
            "model": { "lab/*": { "money": "7/month" }, "lab/big": { "requests": "2/min" } },
        }))
        .unwrap();
        let of = |user, key, business, model| {
            let subject = Subject { user, key, business, model };
            let limit = |limit: super::Limit| {
                let kind = limit.counter.kind;
                (kind, limit.counter.subject.to_string(), limit.rate.to_string())
            };
            limits(&quotas, &subject).into_iter().map(limit).collect::<Vec<_>>()
        };
        let one = |kind, subject: &str, rate: &str| (kind, subject.to_owned(), rate.to_owned());
        assert_eq!(
            of(("usr_1", "alice"), Some("key_1"), None, None),
            [one(Kind::User, "usr_1", "9/min"), one(Kind::Key, "key_1", "5/day")]
        );
        assert_eq!(
            of(("usr_2", "bob"), None, Some("marketing"), Some("lab/big")),
            [
                one(Kind::User, "usr_2", "1/min"),
                one(Kind::Business, "marketing", "3/day"),
                one(Kind::Model, "lab/*", "7/month"),
                one(Kind::Model, "lab/big", "2/min"),
            ]
        );
        assert_eq!(of(("usr_3", "*"), None, Some("sales"), Some("shop/x")).len(), 1);
    }
}
