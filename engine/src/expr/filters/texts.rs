//! Filters that make texts, of one text or of many values.

use std::collections::VecDeque;
use std::sync::LazyLock;

use minijinja::value::Kwargs;
use minijinja::{Environment, HtmlEscape, Value};
use serde::Serialize as _;

use crate::expr::access;
use crate::expr::arguments::Given;
use crate::expr::budget::{Budget, Fault, Outcome};
use crate::expr::datum::{Datum, Text};
use crate::expr::print::Sink;
use crate::expr::result;

/// The library's own filters, for single texts and numbers.
static LIBRARY: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut library = Environment::new();
    // A short text can become a long one before it is looked at here.
    library.set_fuel(Some(500_000));
    library
});

/// Any value as a text.
pub(super) fn of<'s>(budget: &Budget, datum: &Datum<'s>) -> Outcome<Text<'s>> {
    if let Datum::Text(text) = datum {
        return Ok(text.clone());
    }
    let mut text = Sink::new(budget);
    text.print(datum)?;
    Ok(Text::Made(text.into_text().into()))
}

/// Applies a filter of the library, which is given single values only.
pub(super) fn library(
    budget: &Budget,
    name: &str,
    of: Value,
    given: &mut Given<'_>,
) -> Outcome<Value> {
    let mut args = vec![of];
    for arg in given.rest() {
        args.push(single(budget, &arg)?);
    }
    let mut named = Vec::new();
    for (name, datum) in given.rest_named() {
        named.push((name.as_str().to_owned(), single(budget, &datum)?));
    }
    if !named.is_empty() {
        args.push(named.into_iter().collect::<Kwargs>().into());
    }
    LIBRARY.empty_state().apply_filter(name, &args).map_err(|error| {
        let why = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        Fault::new(format!("`{name}`: {why}"))
    })
}

fn single(budget: &Budget, datum: &Datum<'_>) -> Outcome<Value> {
    Ok(match datum {
        Datum::Null => ().into(),
        Datum::Bool(yes) => (*yes).into(),
        Datum::Int(whole) => (*whole).into(),
        Datum::Float(float) => (*float).into(),
        other => {
            let text = of(budget, other)?;
            budget.bytes(text.as_str().len())?;
            text.as_str().into()
        }
    })
}

fn by_library<'s>(
    budget: &Budget,
    name: &str,
    datum: &Datum<'s>,
    given: &mut Given<'s>,
) -> Outcome<Datum<'s>> {
    let text = of(budget, datum)?;
    let made = library(budget, name, text.as_str().into(), given)?;
    budget.made(made.as_str().unwrap_or_default())
}

pub(super) fn capitalize<'s>(
    b: &Budget,
    datum: &Datum<'s>,
    given: &mut Given<'s>,
) -> Outcome<Datum<'s>> {
    by_library(b, "capitalize", datum, given)
}

pub(super) fn title<'s>(
    b: &Budget,
    datum: &Datum<'s>,
    given: &mut Given<'s>,
) -> Outcome<Datum<'s>> {
    by_library(b, "title", datum, given)
}

pub(super) fn indent<'s>(
    b: &Budget,
    datum: &Datum<'s>,
    given: &mut Given<'s>,
) -> Outcome<Datum<'s>> {
    by_library(b, "indent", datum, given)
}

pub(super) fn format<'s>(
    b: &Budget,
    datum: &Datum<'s>,
    given: &mut Given<'s>,
) -> Outcome<Datum<'s>> {
    by_library(b, "format", datum, given)
}

pub(super) fn lower<'s>(b: &Budget, datum: &Datum<'s>, _: &mut Given<'s>) -> Outcome<Datum<'s>> {
    b.made(&of(b, datum)?.as_str().to_lowercase())
}

pub(super) fn upper<'s>(b: &Budget, datum: &Datum<'s>, _: &mut Given<'s>) -> Outcome<Datum<'s>> {
    b.made(&of(b, datum)?.as_str().to_uppercase())
}

/// `trim(chars)`: white space if nothing is said.
pub(super) fn trim<'s>(b: &Budget, datum: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let text = of(b, datum)?;
    let trimmed = match given.text("chars")? {
        Some(chars) => {
            let chars: Vec<char> = chars.as_str().chars().collect();
            // Each character may be compared with all of them.
            b.bytes(text.as_str().len().saturating_mul(chars.len()))?;
            text.as_str().trim_matches(&chars[..])
        }
        None => text.as_str().trim(),
    };
    b.made(trimmed)
}

/// `replace(from, to, count)`.
pub(super) fn replace<'s>(
    b: &Budget,
    datum: &Datum<'s>,
    given: &mut Given<'s>,
) -> Outcome<Datum<'s>> {
    let text = of(b, datum)?;
    let (from, to) = (of(b, &given.needed("from")?)?, of(b, &given.needed("to")?)?);
    let most = given.count("count")?.unwrap_or(usize::MAX);
    let (text, from, to) = (text.as_str(), from.as_str(), to.as_str());
    let found = text.matches(from).take(most).count();
    b.fits((text.len() - found * from.len()).saturating_add(found.saturating_mul(to.len())))?;
    b.made(&text.replacen(from, to, most))
}

/// `split(by, maxsplits)`: at white space if nothing is said.
pub(super) fn split<'s>(
    b: &Budget,
    datum: &Datum<'s>,
    given: &mut Given<'s>,
) -> Outcome<Datum<'s>> {
    let text = of(b, datum)?;
    let by = given.text("by")?;
    let most = match given.int("maxsplits")? {
        Some(most) if most >= 0 => usize::try_from(most).unwrap_or(usize::MAX).saturating_add(1),
        _ => usize::MAX,
    };
    let text = text.as_str();
    if let Some(by) = by {
        return pieces(b, text.splitn(most, by.as_str()));
    }
    let (mut rest, mut count) = (text.trim_start(), 0);
    let words = std::iter::from_fn(|| {
        count += 1;
        let end = if count < most { rest.find(char::is_whitespace) } else { None };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after.trim_start();
        (!word.is_empty()).then_some(word)
    });
    pieces(b, words)
}

pub(super) fn lines<'s>(b: &Budget, datum: &Datum<'s>, _: &mut Given<'s>) -> Outcome<Datum<'s>> {
    pieces(b, of(b, datum)?.as_str().lines())
}

fn pieces<'t, 's>(budget: &Budget, pieces: impl Iterator<Item = &'t str>) -> Outcome<Datum<'s>> {
    let mut list = Vec::new();
    for piece in pieces {
        budget.slots(1)?;
        list.push(budget.made(piece)?);
    }
    budget.list(list)
}

pub(super) fn escape<'s>(b: &Budget, datum: &Datum<'s>, _: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let text = of(b, datum)?;
    let special = text.as_str().matches(['<', '>', '&', '"', '\'', '/']).count();
    b.fits(text.as_str().len() + special * "&quot;".len())?;
    b.made(&HtmlEscape(text.as_str()).to_string())
}

/// `join(between, attribute)`.
pub(super) fn join<'s>(b: &Budget, datum: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let between = match given.take("d") {
        None => Text::Lent(""),
        Some(between) => of(b, &between)?,
    };
    let attribute = given.text("attribute")?;
    let mut text = Sink::new(b);
    for (i, item) in b.sequence(datum)?.items.iter().enumerate() {
        b.spend(1)?;
        if i > 0 {
            text.push(between.as_str())?;
        }
        match &attribute {
            Some(path) => text.print(&access::path(b, item, path.as_str())?)?,
            None => text.print(item)?,
        }
    }
    b.made(&text.into_text())
}

/// A value with one item a line.
pub(super) fn pprint<'s>(b: &Budget, datum: &Datum<'s>, _: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let mut text = Sink::new(b);
    text.pretty(datum)?;
    b.made(&text.into_text())
}

/// `tojson(indent)`: JSON text; `indent` says by how many spaces, `true` is two. Nothing is escaped
/// for HTML: models read plain JSON.
pub(super) fn tojson<'s>(
    b: &Budget,
    datum: &Datum<'s>,
    given: &mut Given<'s>,
) -> Outcome<Datum<'s>> {
    let spaces = match given.take("indent") {
        None | Some(Datum::Null | Datum::Bool(false)) => None,
        Some(Datum::Bool(true)) => Some(2),
        Some(count) => {
            let mut count = Given::new(VecDeque::from([count]), Vec::new());
            count.count("indent")?.map(|spaces| spaces.min(8))
        }
    };
    let json = result::to_json(b, datum)?;
    let mut text = Bounded { budget: b, bytes: Vec::new() };
    let written = match spaces {
        None => serde_json::to_writer(&mut text, &json),
        Some(spaces) => {
            let spaces = " ".repeat(spaces);
            let style = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            json.serialize(&mut serde_json::Serializer::with_formatter(&mut text, style))
        }
    };
    written.map_err(|error| Fault::new(error.to_string()))?;
    b.made(&String::from_utf8_lossy(&text.bytes))
}

/// JSON text, which may be many times longer than the values.
struct Bounded<'b> {
    budget: &'b Budget,
    bytes: Vec<u8>,
}

impl std::io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let fits = self.budget.fits(self.bytes.len().saturating_add(bytes.len()));
        fits.map_err(|fault| std::io::Error::other(fault.message().to_owned()))?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
