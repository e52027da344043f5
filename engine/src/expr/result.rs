//! From an evaluation's values to JSON. Numbers are kept; what JSON cannot hold is an error.

use serde_json::{Map, Number, Value};

use crate::expr::budget::{Budget, Fault, Outcome};
use crate::expr::datum::{Datum, Key, undefined};

/// Bytes that a value takes besides its text.
const VALUE: usize = size_of::<u64>();

/// The JSON of a result. A value of the state is copied as it is; what was made anew counts, with
/// all that it took from the state, as it will be written out.
pub(super) fn to_json(budget: &Budget, datum: &Datum<'_>) -> Outcome<Value> {
    match datum {
        Datum::Json(value) => return Ok((*value).clone()),
        Datum::Messages(list) => return Ok(list.to_json()),
        _ => {}
    }
    Converter { budget, bytes: 0 }.convert(datum, budget.nesting())
}

struct Converter<'b> {
    budget: &'b Budget,
    bytes: usize,
}

impl Converter<'_> {
    /// `levels`: how many more may nest.
    fn convert(&mut self, datum: &Datum<'_>, levels: usize) -> Outcome<Value> {
        self.take(VALUE)?;
        let inside = || levels.checked_sub(1).ok_or_else(|| self.budget.too_deep());
        Ok(match datum {
            Datum::Undefined { .. } => return undefined(),
            Datum::Null => Value::Null,
            Datum::Bool(yes) => Value::Bool(*yes),
            Datum::Int(whole) => Value::Number(number(*whole)?),
            Datum::Float(float) => Number::from_f64(*float)
                .map(Value::Number)
                .ok_or_else(|| Fault::new("it gives a number that JSON has not"))?,
            Datum::Text(text) => {
                self.take(text.as_str().len())?;
                Value::String(text.as_str().to_owned())
            }
            Datum::Json(value) => {
                self.count(value, levels)?;
                (*value).clone()
            }
            Datum::Messages(list) => {
                let inside = inside()?;
                let whole = (0..list.len()).filter_map(|place| list.json(place));
                whole
                    .map(|message| self.count(message, inside).map(|()| message.clone()))
                    .collect::<Outcome<_>>()?
            }
            Datum::List(list) => {
                let levels = inside()?;
                let item = |item| self.convert(item, levels);
                Value::Array(list.items.iter().map(item).collect::<Outcome<_>>()?)
            }
            Datum::Map(map) => {
                let levels = inside()?;
                let mut object = Map::new();
                for (key, value) in &map.entries {
                    let key = key_text(key);
                    self.take(key.len())?;
                    object.insert(key, self.convert(value, levels)?);
                }
                Value::Object(object)
            }
            Datum::Namespace(namespace) => {
                let levels = inside()?;
                let mut object = Map::new();
                for (name, value) in &*namespace.values.borrow() {
                    self.take(name.as_str().len())?;
                    object.insert(name.as_str().to_owned(), self.convert(value, levels)?);
                }
                Value::Object(object)
            }
            Datum::Loop(_) => return Err(Fault::new("it gives a loop, which is no JSON value")),
        })
    }

    /// Counts a value of the state that becomes part of what is made.
    fn count(&mut self, value: &Value, levels: usize) -> Outcome<()> {
        let mut open = vec![(value, levels)];
        while let Some((value, levels)) = open.pop() {
            self.take(VALUE)?;
            let inside = levels.checked_sub(1);
            match (value, inside) {
                (Value::Null | Value::Bool(_) | Value::Number(_), _) => {}
                (Value::String(text), _) => self.take(text.len())?,
                (Value::Array(_) | Value::Object(_), None) => return Err(self.budget.too_deep()),
                (Value::Array(items), Some(inside)) => {
                    open.extend(items.iter().map(|item| (item, inside)));
                }
                (Value::Object(fields), Some(inside)) => {
                    for (key, field) in fields {
                        self.take(key.len())?;
                        open.push((field, inside));
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Outcome<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.budget.fits(self.bytes)?;
        self.budget.bytes(bytes)
    }
}

/// A key as JSON has it: text.
fn key_text(key: &Key<'_>) -> String {
    match key {
        Key::Null => "None".to_owned(),
        Key::Bool(yes) => if *yes { "True" } else { "False" }.to_owned(),
        Key::Int(whole) => whole.to_string(),
        Key::Text(text) => text.as_str().to_owned(),
    }
}

fn number(whole: i128) -> Outcome<Number> {
    let signed = i64::try_from(whole).map(Number::from);
    signed
        .or_else(|_| u64::try_from(whole).map(Number::from))
        .map_err(|_| Fault::new(format!("it gives {whole}, which does not fit into 64 bits")))
}
