//! What a filter, test, function or method is given, taken one after the other.

use std::collections::VecDeque;

use crate::expr::budget::{Fault, Outcome};
use crate::expr::datum::{Datum, Text};

/// Arguments that are not taken yet.
#[derive(Debug, Default)]
pub(super) struct Given<'s> {
    positional: VecDeque<Datum<'s>>,
    named: Vec<(Text<'s>, Datum<'s>)>,
}

impl<'s> Given<'s> {
    pub(super) fn new(positional: VecDeque<Datum<'s>>, named: Vec<(Text<'s>, Datum<'s>)>) -> Self {
        Self { positional, named }
    }

    /// The next one by its place, else the one of that name.
    pub(super) fn take(&mut self, name: &str) -> Option<Datum<'s>> {
        self.positional.pop_front().or_else(|| self.named(name))
    }

    /// The one of that name.
    pub(super) fn named(&mut self, name: &str) -> Option<Datum<'s>> {
        let place = self.named.iter().position(|(given, _)| given.as_str() == name)?;
        Some(self.named.swap_remove(place).1)
    }

    /// The same, which must be there.
    pub(super) fn needed(&mut self, name: &str) -> Outcome<Datum<'s>> {
        self.take(name).ok_or_else(|| Fault::new(format!("the argument `{name}` is missing")))
    }

    pub(super) fn text(&mut self, name: &str) -> Outcome<Option<Text<'s>>> {
        match self.take(name) {
            None | Some(Datum::Null) => Ok(None),
            Some(datum) => text(name, datum).map(Some),
        }
    }

    /// Like [`text`](Self::text), but by its name only.
    pub(super) fn named_text(&mut self, name: &str) -> Outcome<Option<Text<'s>>> {
        match self.named(name) {
            None | Some(Datum::Null) => Ok(None),
            Some(datum) => text(name, datum).map(Some),
        }
    }

    pub(super) fn int(&mut self, name: &str) -> Outcome<Option<i128>> {
        match self.take(name) {
            None | Some(Datum::Null) => Ok(None),
            Some(datum) => match datum.as_int() {
                Some(whole) => Ok(Some(whole)),
                None => Err(wrong(name, "a whole number", &datum)),
            },
        }
    }

    /// A count of things; 0 where it is negative.
    pub(super) fn count(&mut self, name: &str) -> Outcome<Option<usize>> {
        let count = self.int(name)?;
        Ok(count.map(|count| usize::try_from(count.max(0)).unwrap_or(usize::MAX)))
    }

    /// Whether an option is on, by its name.
    pub(super) fn flag(&mut self, name: &str) -> Outcome<bool> {
        self.named(name).map_or(Ok(false), |datum| datum.is_true())
    }

    /// All that are left by their place.
    pub(super) fn rest(&mut self) -> VecDeque<Datum<'s>> {
        std::mem::take(&mut self.positional)
    }

    /// All that are left by their names.
    pub(super) fn rest_named(&mut self) -> Vec<(Text<'s>, Datum<'s>)> {
        std::mem::take(&mut self.named)
    }

    /// Refuses what was not taken.
    pub(super) fn end(self) -> Outcome<()> {
        if let Some((name, _)) = self.named.first() {
            return Err(Fault::new(format!("no argument is named `{}`", name.as_str())));
        }
        if !self.positional.is_empty() {
            return Err(Fault::new("it has too many arguments"));
        }
        Ok(())
    }
}

fn text<'s>(name: &str, datum: Datum<'s>) -> Outcome<Text<'s>> {
    match datum {
        Datum::Text(text) => Ok(text),
        other => Err(wrong(name, "a text", &other)),
    }
}

fn wrong(name: &str, wanted: &str, got: &Datum<'_>) -> Fault {
    Fault::new(format!("`{name}` must be {wanted}, not {}", got.kind()))
}
