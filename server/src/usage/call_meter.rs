//! One call, metered: a line of usage for each model that it asked.
//!
//! Invariants:
//! - An attempt that began is settled once: by its answer, its fault, or by whoever drops the meter.
//!   What it spent stays held until the line of its model is written.
//! - Lines are written when the meter is dropped, which is before anybody learns how the call ended.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exile_engine::message::ToolCall;
use exile_engine::model::card::Card;
use exile_engine::model::meter::{Bill, Cap, Exceeded, Payer, Size, Tally};
use exile_engine::model::price::{Micros, Price};
use exile_engine::model::{Delta, ModelRef, ProviderFault, Usage};

use super::counters::{Counter, Reservation, Settled};
use super::quota::{Kind, Limit, Unit};
use super::{BUDGETED, SHARE, UNKNOWN, UsageMeter};
use crate::store::{CANCELLED, OK, OPEN, UsageRow};
use crate::telemetry::metrics::Attempt;

/// Meters one call: reserves before each attempt, settles after it, and writes a row for each model.
pub(super) struct CallMeter {
    meter: Arc<UsageMeter>,
    payer: Payer,
    /// The user's, once somebody had to know.
    name: Option<Arc<str>>,
    lines: Vec<UsageRow>,
    going: Option<Going>,
    /// What attempts that ended spent of what they took, and the places of their lines.
    held: Vec<(usize, Settled)>,
    /// The line of the model that was asked last.
    last: usize,
}

/// An attempt on its way.
struct Going {
    line: usize,
    /// On the monotonic clock.
    began: Duration,
    first: Option<Duration>,
    pieces: u64,
    size: Size,
    said: Tally,
    /// What it costs, and at which rate.
    price: Option<(Price, Micros)>,
    reserved: Vec<Reservation>,
    /// As taking them said.
    age: u64,
}

/// How an attempt ended.
enum End {
    /// With an answer; tokens, if somebody counted them.
    Answered(Option<Usage>),
    /// `true`: whoever failed has worked for it before.
    Failed(&'static str, bool),
    Left,
}

impl CallMeter {
    pub(super) fn new(meter: Arc<UsageMeter>, payer: Payer) -> Self {
        let (lines, held) = Default::default();
        Self { meter, payer, name: None, lines, going: None, held, last: 0 }
    }

    /// The place of a model's line, if it was asked before.
    fn place(&self, model: &ModelRef) -> Option<usize> {
        let of = |line: &UsageRow| *line.provider == *model.provider && *line.model == *model.model;
        self.lines.iter().position(of)
    }

    /// The line of a model, which is made if it is new.
    fn line(&mut self, model: &ModelRef) -> usize {
        if let Some(place) = self.place(model) {
            return place;
        }
        let Payer { owner, key, business, graph, run } = self.payer.clone();
        let (usage, cost, first_ms, estimated, last) = Default::default();
        self.lines.push(UsageRow {
            id: self.meter.env.uuid().simple().to_string(),
            at_ms: self.meter.now().as_millisecond(),
            owner,
            key,
            provider: model.provider.to_string(),
            model: model.model.to_string(),
            business,
            graph,
            run,
            usage,
            cost,
            currency: self.meter.money.unit().to_owned(),
            took_ms: 0,
            first_ms,
            attempts: 0,
            outcome: OPEN.to_owned(),
            estimated,
            last,
        });
        self.lines.len() - 1
    }

    /// What has to be reserved for an attempt that may come to `usage` and `cost`.
    fn reservations(
        &self,
        limits: &[Limit],
        model: &ModelRef,
        usage: Usage,
        cost: Micros,
    ) -> Vec<Reservation> {
        let now = self.meter.now();
        let again = self.place(model).is_some();
        let reservation = |limit: &Limit| {
            let counted = match limit.counter.kind {
                // A call is one request of whoever makes it, and one of each model that it asks.
                Kind::Model => again,
                Kind::User | Kind::Key | Kind::Business => !self.lines.is_empty(),
            };
            let amount = match limit.counter.unit {
                Unit::Requests if counted => return None,
                Unit::Requests => 1,
                Unit::Tokens => usage.input.saturating_add(usage.output),
                Unit::Money => cost,
            };
            Some(limit.reserve(amount, now, &self.meter.zone))
        };
        limits.iter().filter_map(reservation).collect()
    }

    /// How long an answer may get whose request does not say so: as long as the model lets it, or a
    /// share of what is left of the quotas, so that callers beside this one find some, too. `None`:
    /// it costs nothing that is limited.
    async fn cap(
        &self,
        limits: &[Limit],
        card: &Card,
        input: u64,
        price: Option<&(Price, Micros)>,
    ) -> Result<Option<Cap>, ProviderFault> {
        let known = card.output.as_ref().and_then(|cell| u32::try_from(cell.value).ok());
        let own = known.unwrap_or(UNKNOWN);
        let now = self.meter.now();
        let reservations: Vec<Reservation> =
            limits.iter().map(|limit| limit.reserve(0, now, &self.meter.zone)).collect();
        let left = self.meter.left(&reservations).await?;
        let mut cap: Option<Cap> = None;
        for ((limit, reservation), left) in limits.iter().zip(&reservations).zip(left) {
            let tokens = match (limit.counter.unit, price) {
                (Unit::Tokens, _) => Some(left.saturating_sub(input)),
                (Unit::Money, Some((price, rate))) => {
                    let asked = price.of(Usage { input, ..Usage::default() }, *rate);
                    price.answer_for(left.saturating_sub(asked), *rate)
                }
                (Unit::Money, None) | (Unit::Requests, _) => None,
            };
            let Some(tokens) = tokens else { continue };
            let share = u32::try_from(tokens / SHARE).unwrap_or(u32::MAX).max(BUDGETED);
            if cap.as_ref().is_some_and(|cap| cap.tokens <= share.min(own)) {
                continue;
            }
            // What the model itself would not have gone beyond was not cut by any quota.
            let by_quota = share < own || known.is_none();
            let quota = || Box::new(exceeded(limit, reservation, false, now.as_millisecond()));
            cap = Some(Cap { tokens: share.min(own), quota: by_quota.then(quota) });
        }
        Ok(cap)
    }

    /// Ends the attempt that is on its way, if one is.
    fn settle(&mut self, end: &End) {
        let Some(going) = self.going.take() else { return };
        let Some(line) = self.lines.get_mut(going.line) else { return };
        let took = self.meter.env.monotonic().saturating_sub(going.began);
        let guess = || Usage {
            input: going.size.input.about(),
            output: going.said.about(),
            ..Usage::default()
        };
        let (usage, estimated, outcome) = match end {
            End::Answered(Some(usage)) => (*usage, false, OK),
            End::Answered(None) => (guess(), true, OK),
            End::Failed(code, worked) if *worked || going.pieces > 0 => (guess(), true, *code),
            End::Failed(code, _) => (Usage::default(), false, *code),
            End::Left => (guess(), true, CANCELLED),
        };
        let cost = going.price.as_ref().map(|(price, rate)| price.of(usage, *rate));
        line.usage += usage;
        line.cost = if line.attempts == 1 {
            cost
        } else {
            line.cost.zip(cost).map(|(a, b)| a.saturating_add(b))
        };
        line.took_ms += millis(took);
        line.first_ms = going.first.map(|first| millis(first.saturating_sub(going.began)));
        line.estimated |= estimated;
        outcome.clone_into(&mut line.outcome);
        let settled = going.reserved.into_iter().map(|reservation| {
            let spent = match reservation.counter.unit {
                Unit::Requests => reservation.amount,
                Unit::Tokens => usage.input.saturating_add(usage.output),
                Unit::Money => cost.unwrap_or(0),
            };
            let (counter, window, reserved) =
                (reservation.counter, reservation.window, reservation.amount);
            Settled { counter, window, age: going.age, reserved, spent }
        });
        let settled: Vec<Settled> = settled.collect();
        self.meter.counters.settle(&settled);
        self.held.extend(settled.into_iter().map(|settled| (going.line, settled)));
        self.meter.metrics.attempt(&Attempt {
            embeds: going.size.embeds,
            provider: &line.provider,
            model: &line.model,
            graph: line.graph.as_deref().unwrap_or_default(),
            error: if outcome == OK { "" } else { outcome },
            took,
            first: going.first.map(|first| first.saturating_sub(going.began)),
            pieces: going.pieces,
            images: going.size.input.images() > 0,
            usage,
            cost: cost.map(|cost| (cost, self.meter.money.unit())),
        });
    }
}

#[async_trait]
impl Bill for CallMeter {
    async fn reserve(
        &mut self,
        model: &ModelRef,
        size: Size,
    ) -> Result<Option<Cap>, ProviderFault> {
        let meter = self.meter.clone();
        let mut limits = meter.limits(&self.payer, &mut self.name, Some(model)).await?;
        let card = meter.catalogue.card(model);
        let price = card.prices.as_ref();
        let price = price.and_then(|cell| Price::valid(&cell.value, meter.env.now())).cloned();
        let price = price.and_then(|price| meter.money.rate(&price).map(|rate| (price, rate)));
        if price.as_ref().is_some_and(|(price, _)| price.is_free()) {
            // What costs nothing goes on when the money is used up.
            limits.retain(|limit| limit.counter.unit != Unit::Money);
        }
        if price.is_none() && limits.iter().any(|limit| limit.counter.unit == Unit::Money) {
            let unit = meter.money.unit();
            let detail = format!(
                "a quota of money needs to know what it costs: write `prices` of {model} in {unit} \
                 under `catalogue` in exile.yaml, or the rate of their currency under `currency`"
            );
            return Err(ProviderFault::NotSent { detail });
        }
        let input = size.input.at_most();
        let budgeted = limits.iter().any(|limit| limit.counter.unit != Unit::Requests);
        let cap = match size.output {
            _ if !budgeted || size.embeds => None,
            Some(tokens) => Some(Cap { tokens, quota: None }),
            None => self.cap(&limits, &card, input, price.as_ref()).await?,
        };
        let output = cap.as_ref().map(|cap| cap.tokens).or(size.output).unwrap_or(0).into();
        let reserve = Usage { input, output, ..Usage::default() };
        let cost = price.as_ref().map(|(price, rate)| price.of(reserve, *rate));
        let mut reservations = self.reservations(&limits, model, reserve, cost.unwrap_or(0));
        let age = meter.reserve(&mut reservations, &limits).await?;
        let line = self.line(model);
        if line != self.last
            && let Some(other) = self.lines.get(self.last)
        {
            meter.passed_over(other);
        }
        self.last = line;
        let row = &mut self.lines[line];
        row.attempts += 1;
        meter.opened(row, reserve, cost);
        let began = meter.env.monotonic();
        let (first, said, pieces) = Default::default();
        self.going = Some(Going {
            line,
            began,
            first,
            pieces,
            size,
            said,
            price,
            reserved: reservations,
            age,
        });
        Ok(cap)
    }

    fn piece(&mut self, delta: &Delta) {
        let Some(going) = &mut self.going else { return };
        if going.pieces == 0 {
            going.first = Some(self.meter.env.monotonic());
        }
        going.pieces += 1;
        match delta {
            Delta::Text(text) | Delta::Reasoning(text) | Delta::Refusal(text) => {
                going.said.text(text);
            }
        }
    }

    fn answered(&mut self, usage: Option<Usage>, calls: &[ToolCall]) {
        if let Some(going) = &mut self.going {
            for call in calls {
                going.said.text(&call.name);
                going.said.text(&call.arguments);
            }
        }
        self.settle(&End::Answered(usage));
    }

    fn failed(&mut self, fault: &ProviderFault) {
        // An answer that broke off may have been of calls alone, which come at its end.
        let worked = match fault {
            ProviderFault::Truncated { .. } | ProviderFault::Garbage { .. } => true,
            ProviderFault::Timeout { phase, .. } => phase != "first byte",
            _ => false,
        };
        self.settle(&End::Failed(fault.code(), worked));
    }
}

impl Drop for CallMeter {
    fn drop(&mut self) {
        self.settle(&End::Left);
        let last = self.last;
        // A call is one request of whoever makes it, which its first attempt took.
        let of_call =
            |counter: &Counter| counter.unit == Unit::Requests && counter.kind != Kind::Model;
        let counters = self.held.iter().map(|(_, held)| &held.counter);
        let requested: Vec<Counter> = counters.filter(|c| of_call(c)).cloned().collect();
        for (place, mut line) in std::mem::take(&mut self.lines).into_iter().enumerate() {
            line.last = place == last;
            let held = self.held.extract_if(.., |(of, _)| *of == place);
            let held: Vec<Settled> = held.map(|(_, settled)| settled).collect();
            self.meter.closed(line, &held, &requested);
        }
    }
}

/// What is told of a quota that has nothing left.
pub(super) fn exceeded(
    limit: &Limit,
    reservation: &Reservation,
    reserved: bool,
    now_ms: i64,
) -> Exceeded {
    let ms = |span: i64| u64::try_from(span).unwrap_or(0);
    let kind = limit.counter.kind.as_str();
    Exceeded {
        of: format!("{kind} {}", limit.name),
        unit: limit.counter.unit.as_str().to_owned(),
        limit: limit.rate.to_string(),
        amount: limit.rate.whole().max(1),
        window_s: ms(reservation.window.to_ms - reservation.window.from_ms) / 1000,
        // What others hold may come back at any time.
        retry_after_ms: if reserved { 1000 } else { ms(reservation.window.to_ms - now_ms) },
        cut_at: None,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
