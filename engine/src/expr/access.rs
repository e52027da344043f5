//! Attributes, items and slices: what a value holds, found without copying the rest of it.

use std::rc::Rc;

use serde_json::Value;

use crate::expr::budget::{Budget, Fault, Outcome};
use crate::expr::datum::{Datum, Key, Loop, Text, undefined};

/// `of.name`; undefined if it has none of that name.
pub(super) fn attribute<'s>(of: &Datum<'s>, name: &str) -> Outcome<Datum<'s>> {
    let found = match of {
        Datum::Undefined { .. } => return undefined(),
        Datum::Json(Value::Object(map)) => map.get(name).map(Datum::of_json),
        Datum::Map(map) => map.entries.get(&Key::Text(Text::Made(name.into()))).cloned(),
        Datum::List(list) => {
            let place = list.fields.iter().position(|field| *field == name);
            place.and_then(|place| list.items.get(place).cloned())
        }
        Datum::Loop(around) => of_loop(around, name),
        Datum::Namespace(namespace) => namespace.values.borrow().get(name).cloned(),
        Datum::Null
        | Datum::Bool(_)
        | Datum::Int(_)
        | Datum::Float(_)
        | Datum::Text(_)
        | Datum::Json(_)
        | Datum::Messages(_) => None,
    };
    Ok(found.unwrap_or(Datum::UNDEFINED))
}

fn of_loop<'s>(around: &Rc<Loop<'s>>, name: &str) -> Option<Datum<'s>> {
    let (index, length) = (around.index.get(), around.items.items.len());
    let item = |place: Option<usize>| {
        place.and_then(|place| around.items.items.get(place).cloned()).unwrap_or(Datum::UNDEFINED)
    };
    Some(match name {
        "index" => Datum::count(index + 1),
        "index0" => Datum::count(index),
        "length" => Datum::count(length),
        "revindex" => Datum::count(length - index),
        "revindex0" => Datum::count(length - index - 1),
        "first" => Datum::Bool(index == 0),
        "last" => Datum::Bool(index + 1 == length),
        "depth" => Datum::count(around.depth + 1),
        "depth0" => Datum::count(around.depth),
        "previtem" => item(index.checked_sub(1)),
        "nextitem" => item(Some(index + 1)),
        _ => return None,
    })
}

/// `of[key]`; undefined if there is none.
pub(super) fn item<'s>(budget: &Budget, of: &Datum<'s>, key: &Datum<'s>) -> Outcome<Datum<'s>> {
    let found = match of {
        Datum::Undefined { .. } => return undefined(),
        Datum::Json(Value::Array(items)) => {
            place(key, items.len()).and_then(|place| items.get(place)).map(Datum::of_json)
        }
        Datum::Messages(list) => {
            place(key, list.len()).and_then(|place| Datum::of_message(list, place))
        }
        Datum::List(list) => match key.as_text() {
            Some(name) => return attribute(of, name),
            None => place(key, list.items.len()).and_then(|p| list.items.get(p).cloned()),
        },
        Datum::Text(text) => {
            budget.bytes(text.as_str().len())?;
            let count = text.as_str().chars().count();
            let found = place(key, count).and_then(|place| text.as_str().chars().nth(place));
            found.map(|c| Datum::Text(Text::Made(c.to_string().into())))
        }
        Datum::Map(map) => map.entries.get(&key.clone().into_key()?).cloned(),
        Datum::Json(_) | Datum::Loop(_) | Datum::Namespace(_) => match key.as_text() {
            Some(name) => return attribute(of, name),
            None => None,
        },
        Datum::Null | Datum::Bool(_) | Datum::Int(_) | Datum::Float(_) => None,
    };
    Ok(found.unwrap_or(Datum::UNDEFINED))
}

/// Where an index leads: a negative one counts from the end.
fn place(key: &Datum<'_>, length: usize) -> Option<usize> {
    let index = key.as_int()?;
    let from = if index < 0 { i128::try_from(length).ok()? + index } else { index };
    usize::try_from(from).ok()
}

/// `of.a.0.b`, as filters name what they look at.
pub(super) fn path<'s>(budget: &Budget, of: &Datum<'s>, path: &str) -> Outcome<Datum<'s>> {
    let mut found = of.clone();
    for part in path.split('.') {
        budget.spend(1)?;
        found = match part.parse::<u64>() {
            Ok(index) => item(budget, &found, &Datum::Int(index.into()))?,
            Err(_) => attribute(&found, part)?,
        };
    }
    Ok(found)
}

/// `of[start:stop:step]`, as in Python.
pub(super) fn slice<'s>(
    budget: &Budget,
    of: &Datum<'s>,
    bounds: &[Option<Datum<'s>>; 3],
) -> Outcome<Datum<'s>> {
    let bound = |bound: &Option<Datum<'s>>| match bound {
        None | Some(Datum::Null) => Ok(None),
        Some(datum) => match datum.as_int() {
            Some(whole) => Ok(Some(whole)),
            None => {
                Err(Fault::new(format!("a slice is cut at whole numbers, not {}", datum.kind())))
            }
        },
    };
    let [start, stop, step] = [bound(&bounds[0])?, bound(&bounds[1])?, bound(&bounds[2])?];
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Fault::new("a slice cannot have steps of 0"));
    }
    match of {
        Datum::Text(text) if step == 1 => {
            let text = text.as_str();
            let from = start.map_or(Ok(0), |start| boundary(budget, text, start))?;
            let to = stop.map_or(Ok(text.len()), |stop| boundary(budget, text, stop))?;
            budget.made(text.get(from..to).unwrap_or_default())
        }
        Datum::Text(text) => {
            budget.slots(text.as_str().len())?;
            let chars: Vec<char> = text.as_str().chars().collect();
            let cut: String =
                places(start, stop, step, chars.len()).filter_map(|i| chars.get(i)).collect();
            budget.made(&cut)
        }
        Datum::Null | Datum::Undefined { silent: true } => budget.list(Vec::new()),
        Datum::Json(Value::Array(items)) => {
            let cut = places(start, stop, step, items.len());
            budget.list(cut.filter_map(|i| items.get(i)).map(Datum::of_json).collect())
        }
        Datum::Messages(list) => {
            let cut = places(start, stop, step, list.len());
            budget.list(cut.filter_map(|place| Datum::of_message(list, place)).collect())
        }
        Datum::List(list) => {
            let cut = places(start, stop, step, list.items.len());
            budget.list(cut.filter_map(|i| list.items.get(i).cloned()).collect())
        }
        Datum::Undefined { silent: false } => undefined(),
        other => Err(Fault::new(format!("{} cannot be sliced", other.kind()))),
    }
}

/// The byte where a character begins, counted from the end if negative; only what lies between is
/// looked at.
fn boundary(budget: &Budget, text: &str, index: i128) -> Outcome<usize> {
    let away = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
    budget.bytes(away.min(text.len()))?;
    Ok(if index < 0 {
        text.char_indices().rev().nth(away - 1).map_or(0, |(at, _)| at)
    } else {
        text.char_indices().nth(away).map_or(text.len(), |(at, _)| at)
    })
}

/// The places that a slice picks out of so many.
fn places(
    start: Option<i128>,
    stop: Option<i128>,
    step: i128,
    length: usize,
) -> impl Iterator<Item = usize> {
    let length = i128::try_from(length).unwrap_or(i128::MAX);
    // Where nothing is picked beyond: before the first going down, after the last going up.
    let (least, most) = if step < 0 { (-1, length - 1) } else { (0, length) };
    let clamp = |at: i128| (if at < 0 { at + length } else { at }).clamp(least, most);
    let first = start.map_or(if step < 0 { most } else { least }, clamp);
    let end = stop.map_or(if step < 0 { least } else { most }, clamp);
    let mut at = first;
    std::iter::from_fn(move || {
        let here = (if step < 0 { at > end } else { at < end }).then_some(at)?;
        at = at.saturating_add(step);
        usize::try_from(here).ok()
    })
}
