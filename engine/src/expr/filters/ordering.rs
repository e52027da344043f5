//! Filters that put items in order. What has no order among itself is an error: see `compare.rs`.

use std::cmp::Ordering;
use std::mem;

use crate::expr::access;
use crate::expr::arguments::Given;
use crate::expr::budget::{Budget, Fault, Outcome};
use crate::expr::compare::{order, sorted};
use crate::expr::datum::{Datum, Text};

/// What an item is ordered by, and the item.
type Keyed<'s> = (Datum<'s>, Datum<'s>);

/// How items are ordered.
struct Rule {
    exact: bool,
    reverse: bool,
}

impl Rule {
    fn of(given: &mut Given<'_>) -> Outcome<Self> {
        Ok(Self { exact: given.flag("case_sensitive")?, reverse: given.flag("reverse")? })
    }

    /// What is compared: texts in small letters, unless case counts.
    fn key<'s>(&self, b: &Budget, datum: Datum<'s>) -> Outcome<Datum<'s>> {
        match datum {
            Datum::Text(text) if !self.exact => {
                b.bytes(text.as_str().len())?;
                Ok(Datum::Text(Text::Made(text.as_str().to_lowercase().into())))
            }
            other => Ok(other),
        }
    }

    fn sort<'s>(&self, b: &Budget, items: Vec<Keyed<'s>>) -> Outcome<Vec<Keyed<'s>>> {
        let mut compare = |x: &Keyed<'s>, y: &Keyed<'s>| {
            let order = order(b, &x.0, &y.0)?;
            Ok(if self.reverse { order.reverse() } else { order })
        };
        sorted(items, &mut compare)
    }
}

/// `sort(attribute, reverse, case_sensitive)`; of several attributes (`a, b`) the later ones
/// decide among equals.
pub(super) fn sort<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let rule = Rule::of(given)?;
    let paths = given.named_text("attribute")?;
    let list = b.sequence(of)?;
    b.slots(2 * list.items.len())?;
    let mut keyed = Vec::with_capacity(list.items.len());
    for item in &list.items {
        let key = match &paths {
            None => rule.key(b, item.clone())?,
            Some(paths) if !paths.as_str().contains(',') => {
                rule.key(b, access::path(b, item, paths.as_str())?)?
            }
            Some(paths) => {
                let mut parts = Vec::new();
                let paths = paths.as_str().split(',').map(str::trim);
                for path in paths.filter(|path| !path.is_empty()) {
                    parts.push(rule.key(b, access::path(b, item, path)?)?);
                }
                b.list(parts)?
            }
        };
        keyed.push((key, item.clone()));
    }
    b.list(rule.sort(b, keyed)?.into_iter().map(|(_, item)| item).collect())
}

/// `dictsort(by, reverse, case_sensitive)`: keys and values in pairs, by key or by value.
pub(super) fn dictsort<'s>(
    b: &Budget,
    of: &Datum<'s>,
    given: &mut Given<'s>,
) -> Outcome<Datum<'s>> {
    let rule = Rule::of(given)?;
    let by_value = given.named_text("by")?.is_some_and(|by| by.as_str() == "value");
    let Some(pairs) = b.pairs(of)? else {
        let of = of.clone().defined()?;
        return Err(Fault::new(format!("{} has no keys to be sorted by", of.kind())));
    };
    let mut keyed = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let key = Datum::from(key);
        let by = if by_value { value.clone() } else { key.clone() };
        keyed.push((rule.key(b, by)?, b.list(vec![key, value])?));
    }
    b.list(rule.sort(b, keyed)?.into_iter().map(|(_, pair)| pair).collect())
}

/// `groupby(attribute, default, case_sensitive)`: groups of what is equal, in order, each with its
/// `grouper`, which is that of its first item, and its `list`.
pub(super) fn groupby<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    let path = given.text("attribute")?;
    let path = path.ok_or_else(|| Fault::new("the argument `attribute` is missing"))?;
    let rule = Rule { exact: given.flag("case_sensitive")?, reverse: false };
    let default = given.named("default");
    let list = b.sequence(of)?;
    b.slots(2 * list.items.len())?;
    let mut keyed = Vec::with_capacity(list.items.len());
    for item in &list.items {
        let label = match (access::path(b, item, path.as_str()), &default) {
            (Ok(found), _) if !found.is_undefined() => found,
            (_, Some(default)) => default.clone(),
            (found, None) => found?,
        };
        keyed.push((rule.key(b, label.clone())?, b.list(vec![label, item.clone()])?));
    }
    let (mut groups, mut members) = (Vec::new(), Vec::new());
    let mut open: Option<Keyed<'s>> = None;
    for (key, labelled) in rule.sort(b, keyed)? {
        let same = match &open {
            Some((last, _)) => order(b, last, &key)? == Ordering::Equal,
            None => false,
        };
        if !same {
            let label = access::item(b, &labelled, &Datum::Int(0))?;
            if let Some((_, label)) = open.replace((key, label)) {
                groups.push(group(b, label, mem::take(&mut members))?);
            }
        }
        members.push(access::item(b, &labelled, &Datum::Int(1))?);
    }
    if let Some((_, label)) = open {
        groups.push(group(b, label, members)?);
    }
    b.list(groups)
}

fn group<'s>(b: &Budget, label: Datum<'s>, members: Vec<Datum<'s>>) -> Outcome<Datum<'s>> {
    let members = b.list(members)?;
    Ok(Datum::List(b.list_of(vec![label, members], &["grouper", "list"])?))
}

/// `min(attribute, case_sensitive)`; undefined where there is no item.
pub(super) fn min<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    extreme(b, of, given, Ordering::Less)
}

/// The same, for the largest.
pub(super) fn max<'s>(b: &Budget, of: &Datum<'s>, given: &mut Given<'s>) -> Outcome<Datum<'s>> {
    extreme(b, of, given, Ordering::Greater)
}

fn extreme<'s>(
    b: &Budget,
    of: &Datum<'s>,
    given: &mut Given<'s>,
    wanted: Ordering,
) -> Outcome<Datum<'s>> {
    let rule = Rule { exact: given.flag("case_sensitive")?, reverse: false };
    let path = given.named_text("attribute")?;
    let mut best: Option<Keyed<'s>> = None;
    for item in &b.sequence(of)?.items {
        let key = match &path {
            Some(path) => access::path(b, item, path.as_str())?,
            None => item.clone(),
        };
        let key = rule.key(b, key.defined()?)?;
        let better = match &best {
            Some((known, _)) => order(b, &key, known)? == wanted,
            None => true,
        };
        if better {
            best = Some((key, item.clone()));
        }
    }
    Ok(best.map_or(Datum::UNDEFINED, |(_, item)| item))
}
