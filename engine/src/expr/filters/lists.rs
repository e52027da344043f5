//! Filters that look at the items of lists and maps.

use std::collections::{BTreeMap, HashSet, VecDeque};

use serde_json::Value;

use crate::expr::access;
use crate::expr::arguments::Given;
use crate::expr::budget::{Budget, Fault, Outcome};
use crate::expr::checks;
use crate::expr::datum::{Datum, Text};
use crate::expr::filters;
use crate::expr::print::Sink;

pub(super) fn length<'s>(b: &Budget, of: &Datum<'s>, _: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let count = match of {
        Datum::Text(text) => text.as_str().chars().count(),
        Datum::Json(Value::Array(items)) => items.len(),
        Datum::Messages(list) => list.len(),
        Datum::Json(Value::Object(map)) => map.len(),
        Datum::Map(map) => map.entries.len(),
        Datum::Null => return Err(Fault::new("null has no length")),
        other => b.sequence(other)?.items.len(),
    };
    Ok(Datum::count(count))
}

pub(super) fn first<'s>(b: &Budget, of: &Datum<'s>, _: &mut Given<'s>) -> Outcome<Datum<'s>> {
    end_of(b, of, 0)
}

pub(super) fn last<'s>(b: &Budget, of: &Datum<'s>, _: &mut Given<'s>) -> Outcome<Datum<'s>> {
    end_of(b, of, -1)
}

fn end_of<'s>(b: &Budget, of: &Datum<'s>, index: i128) -> Outcome<Datum<'s>> {
    let index = Datum::Int(index);
    match of {
        Datum::Text(_) | Datum::List(_) | Datum::Messages(_) | Datum::Json(Value::Array(_)) => {
            access::item(b, of, &index)
        }
        Datum::Null | Datum::Undefined { silent: true } => {
            Err(Fault::new(format!("{} has no items", of.kind())))
        }
        _ => access::item(b, &Datum::List(b.sequence(of)?), &index),
    }
}

/// `default(other, falsy)`: in place of what is not there, or is not true.
pub(super) fn default<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let other = given.take("default_value").map_or_else(|| b.made(""), Ok)?;
    let falsy = given.take("boolean").map_or(Ok(false), |yes| yes.is_true())?;
    Ok(if of.is_undefined() || falsy && !of.is_true()? { other } else { of.clone() })
}

/// `attr(name)`: an attribute or an item.
pub(super) fn attr<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    access::item(b, of, &given.needed("name")?)
}

/// Keys and values of a map, in pairs.
pub(super) fn items<'s>(b: &Budget, of: &Datum<'s>, _: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let Some(pairs) = b.pairs(of)? else {
        let of = of.clone().defined()?;
        return Err(Fault::new(format!("{} has no pairs of key and value", of.kind())));
    };
    let mut items = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        items.push(b.list(vec![key.into(), value])?);
    }
    b.list(items)
}

pub(super) fn reverse<'s>(b: &Budget, of: &Datum<'s>, _: &mut Given<'s>) -> Outcome<Datum<'s>> {
    if let Some(text) = of.as_text() {
        return b.made(&text.chars().rev().collect::<String>());
    }
    if matches!(of, Datum::Null) {
        return Err(Fault::new("null cannot be reversed"));
    }
    b.list(b.sequence(of)?.items.iter().rev().cloned().collect())
}

/// `batch(count, fill_with)`: lists of so many items.
pub(super) fn batch<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let count = given.count("count")?.filter(|count| *count > 0);
    let count = count.ok_or_else(|| Fault::new("`batch` needs a count of at least 1"))?;
    let fill = given.take("fill_with");
    let list = b.sequence(of)?;
    let mut batches = Vec::new();
    for items in list.items.chunks(count) {
        b.slots(items.len())?;
        let mut items = items.to_vec();
        if let Some(fill) = &fill {
            b.slots(count - items.len())?;
            items.resize(count, fill.clone());
        }
        batches.push(b.list(items)?);
    }
    b.list(batches)
}

/// `slice(count, fill_with)`: so many lists, as long as each other or one longer.
pub(super) fn slice<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let count = given.count("count")?.filter(|count| *count > 0);
    let count = count.ok_or_else(|| Fault::new("`slice` needs a count of at least 1"))?;
    let fill = given.take("fill_with");
    let list = b.sequence(of)?;
    b.slots(count.saturating_add(list.items.len()))?;
    let (each, longer) = (list.items.len() / count, list.items.len() % count);
    let (mut slices, mut from) = (Vec::new(), 0);
    for i in 0..count {
        let to = from + each + usize::from(i < longer);
        let mut items = list.items[from..to].to_vec();
        if let (Some(fill), true) = (&fill, i >= longer) {
            items.push(fill.clone());
        }
        slices.push(b.list(items)?);
        from = to;
    }
    b.list(slices)
}

/// `select(test, …)`: items for which it holds; `reject` keeps the others.
pub(super) fn select<'s>(
    b: &Budget,
    of: &Datum<'s>,
    given: &mut Given<'s>,
    keep: bool,
) -> Outcome<Datum<'s>> {
    chosen(b, of, None, given, keep)
}

/// `selectattr(path, test, …)`: the same of what each item holds under a path.
pub(super) fn select_by<'s>(
    b: &Budget,
    of: &Datum<'s>,
    given: &mut Given<'s>,
    keep: bool,
) -> Outcome<Datum<'s>> {
    let path = given.text("attribute")?;
    let path = path.ok_or_else(|| Fault::new("the argument `attribute` is missing"))?;
    chosen(b, of, Some(&path), given, keep)
}

fn chosen<'s>(
    b: &Budget,
    of: &Datum<'s>,
    path: Option<&Text<'s>>,
    given: &mut Given<'s>,
    keep: bool,
) -> Outcome<Datum<'s>> {
    let test = match given.text("test")? {
        None => None,
        Some(name) => Some(
            checks::find(name.as_str())
                .ok_or_else(|| Fault::new(format!("no test is named `{}`", name.as_str())))?,
        ),
    };
    let rest = given.rest();
    let mut chosen = Vec::new();
    for item in &b.sequence(of)?.items {
        b.slots(1 + rest.len())?;
        b.spend(1)?;
        let looked_at = match path {
            Some(path) => access::path(b, item, path.as_str())?,
            None => item.clone(),
        };
        let holds = match test {
            Some(test) => test.holds(b, &looked_at, Given::new(rest.clone(), Vec::new()))?,
            None => !looked_at.is_undefined() && looked_at.is_true()?,
        };
        if holds == keep {
            chosen.push(item.clone());
        }
    }
    b.list(chosen)
}

/// `map(attribute=path, default=…)`, or `map(filter, …)`.
pub(super) fn map<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let list = b.sequence(of)?;
    b.slots(list.items.len())?;
    let mut made = Vec::with_capacity(list.items.len());
    if let Some(key) = given.named("attribute") {
        let default = given.named("default");
        for item in &list.items {
            b.spend(1)?;
            let found = match key.as_text() {
                Some(path) => access::path(b, item, path),
                None => access::item(b, item, &key),
            };
            made.push(match (found, &default) {
                (Ok(found), _) if !found.is_undefined() => found,
                (_, Some(default)) => default.clone(),
                (found, None) => found?,
            });
        }
        return b.list(made);
    }
    let Some(name) = given.text("filter")? else {
        return Err(Fault::new("`map` needs a filter's name, or `attribute`"));
    };
    let Some(filter) = filters::find(name.as_str()) else {
        return Err(Fault::new(format!("no filter is named `{}`", name.as_str())));
    };
    let (rest, named) = (given.rest(), given.rest_named());
    for item in &list.items {
        b.slots(rest.len() + named.len())?;
        let args = Given::new(rest.clone(), named.clone());
        made.push(filter.apply(b, item, args)?);
    }
    b.list(made)
}

/// `unique(attribute, case_sensitive)`: of items that are the same the first.
pub(super) fn unique<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let path = given.named_text("attribute")?;
    let exact = given.flag("case_sensitive")?;
    let (mut seen, mut firsts) = (HashSet::new(), Vec::new());
    for item in &b.sequence(of)?.items {
        let looked_at = match &path {
            Some(path) => access::path(b, item, path.as_str())?,
            None => item.clone(),
        };
        b.slots(4)?;
        if seen.insert(identity(b, &looked_at, exact)?) {
            firsts.push(item.clone());
        }
    }
    b.list(firsts)
}

/// A text that two values have in common if they are equal, and only then.
fn identity(b: &Budget, datum: &Datum<'_>, exact: bool) -> Outcome<String> {
    let mut text = Sink::new(b);
    match datum {
        Datum::Text(one) if !exact => {
            b.bytes(one.as_str().len())?;
            text.identity(&Datum::Text(Text::Made(one.as_str().to_lowercase().into())))?;
        }
        other => text.identity(other)?,
    }
    Ok(text.into_text())
}

/// `chain(…)`: one list after the other; of maps the entries of all, the last one counting.
pub(super) fn chain<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let mut all = VecDeque::from([of.clone()]);
    all.extend(given.rest());
    if all.iter().all(|one| one.kind() == "a map") {
        let mut entries = BTreeMap::new();
        for map in &all {
            entries.extend(b.pairs(map)?.unwrap_or_default());
        }
        return b.map(entries);
    }
    let mut items = Vec::new();
    for list in &all {
        let list = b.sequence(list)?;
        b.slots(list.items.len())?;
        items.extend(list.items.iter().cloned());
    }
    b.list(items)
}

/// `zip(…)`: the first items, the second items, … as long as every list has one.
pub(super) fn zip<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let mut all = vec![b.sequence(of)?];
    for other in given.rest() {
        all.push(b.sequence(&other)?);
    }
    let shortest = all.iter().map(|list| list.items.len()).min().unwrap_or_default();
    let mut zipped = Vec::new();
    for i in 0..shortest {
        b.slots(all.len())?;
        zipped.push(b.list(all.iter().map(|list| list.items[i].clone()).collect())?);
    }
    b.list(zipped)
}
