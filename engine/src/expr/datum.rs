//! The values of an evaluation. They live as long as it does, and lend what the state holds.
//!
//! Invariants:
//! - Whole numbers fit into 64 bits with or without a sign, other numbers are finite: what JSON can
//!   hold.
//! - Lists and maps never change once they are made, hold neither a loop nor a namespace, and nest
//!   at most as deep as [`Budget::nesting`]: there are no cycles, and dropping one takes a bounded
//!   stack. What they share may stand in them any number of times; whoever walks over one pays for
//!   every place.
//! - A map's keys are sorted, as the library sorts them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use crate::expr::budget::{Budget, Fault, Outcome};
use crate::expr::syntax::For;
use crate::state::{ChannelValue, MessageList};

/// One value.
#[derive(Clone, Debug)]
pub(super) enum Datum<'s> {
    /// A name, key or index that is not there. `silent`: what `x if y` gives without `else`, which
    /// prints as nothing.
    Undefined {
        silent: bool,
    },
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Text<'s>),
    /// A list or map of the state.
    Json(&'s Value),
    /// A channel of messages. One of them is read as a map, [`Datum::Json`].
    Messages(&'s MessageList),
    List(Rc<List<'s>>),
    Map(Rc<Map<'s>>),
    Loop(Rc<Loop<'s>>),
    Namespace(Rc<Namespace<'s>>),
}

/// A text of the source or the state, or one that was made.
#[derive(Clone, Debug)]
pub(super) enum Text<'s> {
    Lent(&'s str),
    Made(Rc<str>),
}

#[derive(Debug)]
pub(super) struct List<'s> {
    pub(super) items: Vec<Datum<'s>>,
    /// Names under which the first items can be read too: a group's.
    pub(super) fields: &'static [&'static str],
    depth: usize,
}

#[derive(Debug)]
pub(super) struct Map<'s> {
    pub(super) entries: BTreeMap<Key<'s>, Datum<'s>>,
    depth: usize,
}

/// What a map can have as a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'s> {
    Null,
    Bool(bool),
    Int(i128),
    Text(Text<'s>),
}

/// What `loop` knows.
#[derive(Debug)]
pub(super) struct Loop<'s> {
    pub(super) items: Rc<List<'s>>,
    /// From 0.
    pub(super) index: Cell<usize>,
    /// How many loops of its kind it stands in.
    pub(super) depth: usize,
    /// What `loop.changed` was last given.
    pub(super) last: RefCell<Option<Rc<List<'s>>>>,
    /// The statement, if it may be run again for other items.
    pub(super) again: Option<&'s For>,
}

/// Names whose values can be set from within a loop.
#[derive(Debug, Default)]
pub(super) struct Namespace<'s> {
    pub(super) values: RefCell<BTreeMap<Text<'s>, Datum<'s>>>,
}

impl<'s> Namespace<'s> {
    /// Sets a value; refuses one that could make the namespace hold itself.
    pub(super) fn set(&self, budget: &Budget, name: Text<'s>, value: Datum<'s>) -> Outcome<()> {
        budget.slots(2)?;
        value.storable()?;
        self.values.borrow_mut().insert(name, value);
        Ok(())
    }
}

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Lent(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl std::borrow::Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl<'s> Datum<'s> {
    pub(super) const UNDEFINED: Self = Self::Undefined { silent: false };

    pub(super) fn lent(text: &'s str) -> Self {
        Self::Text(Text::Lent(text))
    }

    /// A value of the state, without copying it.
    pub(super) fn of_json(value: &'s Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(yes) => Self::Bool(*yes),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(whole), _, _) => Self::Int(whole.into()),
                (_, Some(whole), _) => Self::Int(whole.into()),
                (_, _, Some(float)) => Self::Float(float),
                (None, None, None) => Self::Null,
            },
            Value::String(text) => Self::lent(text),
            Value::Array(_) | Value::Object(_) => Self::Json(value),
        }
    }

    /// The value of a channel, without copying it.
    pub(super) fn of_channel(value: &'s ChannelValue) -> Self {
        match value {
            ChannelValue::Json(value) => Self::of_json(value),
            ChannelValue::Messages(list) => Self::Messages(list),
        }
    }

    /// A message of the state at a place.
    pub(super) fn of_message(list: &'s MessageList, place: usize) -> Option<Self> {
        list.json(place).map(Self::of_json)
    }

    /// A count. None is longer than memory, so it fits.
    pub(super) fn count(count: usize) -> Self {
        Self::Int(i128::try_from(count).unwrap_or(i128::MAX))
    }

    /// What kind of value it is, as errors speak of it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined { .. } => "an undefined value",
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Json(Value::Array(_)) | Self::Messages(_) | Self::List(_) => "a list",
            Self::Json(_) | Self::Map(_) => "a map",
            Self::Loop(_) => "a loop",
            Self::Namespace(_) => "a namespace",
        }
    }

    /// Whether a condition takes it for true.
    pub(super) fn is_true(&self) -> Outcome<bool> {
        Ok(match self {
            Self::Undefined { silent } => return if *silent { Ok(false) } else { undefined() },
            Self::Null => false,
            Self::Bool(yes) => *yes,
            Self::Int(whole) => *whole != 0,
            Self::Float(float) => *float != 0.0,
            Self::Text(text) => !text.as_str().is_empty(),
            Self::Json(Value::Array(items)) => !items.is_empty(),
            Self::Messages(list) => !list.is_empty(),
            Self::Json(Value::Object(map)) => !map.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.entries.is_empty(),
            Self::Json(_) | Self::Loop(_) | Self::Namespace(_) => true,
        })
    }

    /// Refuses what is not there.
    pub(super) fn defined(self) -> Outcome<Self> {
        match self {
            Self::Undefined { silent: false } => undefined(),
            there => Ok(there),
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined { .. })
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// A whole number; a float that is one counts, and true as 1.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Bool(yes) => Some((*yes).into()),
            Self::Int(whole) => Some(*whole),
            #[allow(clippy::cast_possible_truncation, reason = "it is whole and far from the ends")]
            Self::Float(float) if float.fract() == 0.0 && float.abs() < 9e15 => {
                Some(*float as i128)
            }
            _ => None,
        }
    }

    /// The same as a map's key.
    pub(super) fn into_key(self) -> Outcome<Key<'s>> {
        Ok(match self {
            Self::Null => Key::Null,
            Self::Bool(yes) => Key::Bool(yes),
            Self::Int(whole) => Key::Int(whole),
            Self::Text(text) => Key::Text(text),
            other => {
                let kind = other.defined()?.kind();
                return Err(Fault::new(format!(
                    "a map's key is a text, a whole number, true, false or null, not {kind}"
                )));
            }
        })
    }

    /// Levels of lists and maps that were made; the state's own do not count.
    fn depth(&self) -> usize {
        match self {
            Self::List(list) => list.depth,
            Self::Map(map) => map.depth,
            _ => 0,
        }
    }

    /// Refuses what cannot stand inside another value.
    fn storable(&self) -> Outcome<()> {
        match self {
            Self::Loop(_) | Self::Namespace(_) => {
                Err(Fault::new(format!("{} cannot stand inside another value", self.kind())))
            }
            _ => Ok(()),
        }
    }
}

impl<'s> From<Key<'s>> for Datum<'s> {
    fn from(key: Key<'s>) -> Self {
        match key {
            Key::Null => Self::Null,
            Key::Bool(yes) => Self::Bool(yes),
            Key::Int(whole) => Self::Int(whole),
            Key::Text(text) => Self::Text(text),
        }
    }
}

impl Budget {
    /// A text that was made.
    pub(super) fn made<'s>(&self, text: &str) -> Outcome<Datum<'s>> {
        self.text(text.len())?;
        Ok(Datum::Text(Text::Made(text.into())))
    }

    /// A list of these.
    pub(super) fn list<'s>(&self, items: Vec<Datum<'s>>) -> Outcome<Datum<'s>> {
        Ok(Datum::List(self.list_of(items, &[])?))
    }

    /// The same, with names for the first items.
    pub(super) fn list_of<'s>(
        &self,
        items: Vec<Datum<'s>>,
        fields: &'static [&'static str],
    ) -> Outcome<Rc<List<'s>>> {
        self.slots(items.len())?;
        let depth = self.depth(items.iter())?;
        Ok(Rc::new(List { items, fields, depth }))
    }

    /// A map of these.
    pub(super) fn map<'s>(&self, entries: BTreeMap<Key<'s>, Datum<'s>>) -> Outcome<Datum<'s>> {
        self.slots(2 * entries.len())?;
        let depth = self.depth(entries.values())?;
        Ok(Datum::Map(Rc::new(Map { entries, depth })))
    }

    /// How deep a list or map of these is.
    fn depth<'a, 's: 'a>(&self, items: impl Iterator<Item = &'a Datum<'s>>) -> Outcome<usize> {
        let mut deepest = 0;
        for item in items {
            item.storable()?;
            deepest = deepest.max(item.depth());
        }
        if deepest >= self.nesting() {
            return Err(self.too_deep());
        }
        Ok(deepest + 1)
    }

    /// Lists and maps nest too deep.
    pub(super) fn too_deep(&self) -> Fault {
        let levels = self.nesting();
        Fault::new(format!(
            "it nests deeper than {levels} levels (`limits: {{ nesting }}` in exile.yaml)"
        ))
    }

    /// The items of whatever can be gone through: a list's items, a map's keys, a text's
    /// characters; none of null.
    pub(super) fn sequence<'s>(&self, of: &Datum<'s>) -> Outcome<Rc<List<'s>>> {
        let items = match of {
            Datum::List(list) => return Ok(list.clone()),
            Datum::Undefined { silent: false } => return undefined(),
            Datum::Undefined { silent: true } | Datum::Null => Vec::new(),
            Datum::Json(Value::Array(items)) => {
                self.slots(items.len())?;
                items.iter().map(Datum::of_json).collect()
            }
            Datum::Messages(list) => {
                self.slots(list.len())?;
                (0..list.len()).filter_map(|place| Datum::of_message(list, place)).collect()
            }
            Datum::Json(Value::Object(map)) => {
                self.slots(map.len())?;
                map.keys().map(|key| Datum::lent(key)).collect()
            }
            Datum::Map(map) => {
                self.slots(map.entries.len())?;
                map.entries.keys().cloned().map(Datum::from).collect()
            }
            Datum::Namespace(namespace) => {
                namespace.values.borrow().keys().cloned().map(Datum::Text).collect()
            }
            Datum::Text(text) => self.characters(text.as_str())?,
            Datum::Bool(_) | Datum::Int(_) | Datum::Float(_) | Datum::Json(_) | Datum::Loop(_) => {
                return Err(Fault::new(format!("{} cannot be gone through", of.kind())));
            }
        };
        self.list_of(items, &[])
    }

    fn characters<'s>(&self, text: &str) -> Outcome<Vec<Datum<'s>>> {
        // A character takes no less than a slot of its own besides the list's.
        self.slots(text.len().saturating_mul(2))?;
        let mut buffer = [0; 4];
        let one = |c: char| Datum::Text(Text::Made(Rc::from(&*c.encode_utf8(&mut buffer))));
        Ok(text.chars().map(one).collect())
    }

    /// The entries of a map; `None` of anything else.
    pub(super) fn pairs<'s>(&self, of: &Datum<'s>) -> Outcome<Option<Vec<(Key<'s>, Datum<'s>)>>> {
        Ok(match of {
            Datum::Json(Value::Object(map)) => {
                self.slots(2 * map.len())?;
                let pair = |(key, value): (&'s String, &'s Value)| {
                    (Key::Text(Text::Lent(key)), Datum::of_json(value))
                };
                Some(map.iter().map(pair).collect())
            }
            Datum::Map(map) => {
                self.slots(2 * map.entries.len())?;
                Some(map.entries.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
            }
            _ => None,
        })
    }
}

/// What is not there was needed.
pub(super) fn undefined<T>() -> Outcome<T> {
    Err(Fault::new("undefined value"))
}
