//! Where a call's deltas stood in the stream, kept with its record in place of the deltas.

use serde::{Deserialize, Serialize};

use crate::run::record::Number;

/// Numbers and lengths of a call's deltas, so that a returning reader gets exactly the rest.
///
/// Flat pairs: the distance from the previous delta's number (the first: the number itself), then
/// `bytes * 2`, plus one if the delta was reasoning. Numbers rise, so a distance is never 0: the
/// pair `0, n` stands for the pair before it `n` more times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Marks(Vec<u64>);

impl Marks {
    /// No deltas.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes a delta. `distance`: from the number of the delta before it; the first's own number.
    pub fn push(&mut self, distance: Number, bytes: usize, reasoning: bool) {
        let mark = [distance, bytes as u64 * 2 + u64::from(reasoning)];
        match self.0.as_mut_slice() {
            [.., d, b, 0, more] if [*d, *b] == mark => *more += 1,
            [.., d, b] if [*d, *b] == mark => self.0.extend([0, 1]),
            _ => self.0.extend(mark),
        }
    }

    /// Cuts the call's whole text and reasoning into its deltas: `(number, reasoning?, piece)`.
    /// A mark that does not fit the text (a damaged record) ends the list.
    pub fn split<'t>(
        &self,
        text: &'t str,
        reasoning: &'t str,
    ) -> impl Iterator<Item = (Number, bool, &'t str)> {
        let mut place = Place::default();
        std::iter::from_fn(move || self.next(&mut place, [text, reasoning]))
    }

    /// The delta at a place, which moves on; `None` if there is none, or none that fits the texts.
    /// Deltas that are noted later are found by going on from there.
    pub fn next<'t>(
        &self,
        place: &mut Place,
        [text, reasoning]: [&'t str; 2],
    ) -> Option<(Number, bool, &'t str)> {
        let mut next = *place;
        let mark = self.step(&mut next)?;
        let is_reasoning = mark % 2 == 1;
        let (whole, at) =
            if is_reasoning { (reasoning, &mut next.reasoning) } else { (text, &mut next.text) };
        let end = at.checked_add(usize::try_from(mark / 2).ok()?)?;
        let piece = whole.get(*at..end).filter(|piece| !piece.is_empty())?;
        *at = end;
        *place = next;
        Some((next.number, is_reasoning, piece))
    }

    /// How many deltas from a place on have a number above one, up to another.
    #[must_use]
    pub fn count(&self, mut place: Place, from: Number, to: Number) -> u64 {
        let mut count = 0;
        while self.step(&mut place).is_some() && place.number <= to {
            count += u64::from(place.number > from);
        }
        count
    }

    /// The numbers of the first delta and of the last; `None` without any.
    #[must_use]
    pub fn span(&self) -> Option<(Number, Number)> {
        let first = *self.0.first()?;
        let (mut last, mut distance) = (0, 0);
        for pair in self.0.chunks_exact(2) {
            let times = if pair[0] == 0 { pair[1] } else { 1 };
            distance = if pair[0] == 0 { distance } else { pair[0] };
            last = u64::checked_mul(distance, times)?.checked_add(last)?;
        }
        Some((first, last))
    }

    /// Goes on to the next delta; gives its length and kind as they are noted.
    fn step(&self, place: &mut Place) -> Option<u64> {
        let mut next = *place;
        let [distance, mark] = loop {
            let pair = self.0.get(next.pair..next.pair + 2)?;
            let (repeats, times) = if pair[0] == 0 { (true, pair[1]) } else { (false, 1) };
            if next.taken < times {
                next.taken += 1;
                if !repeats {
                    next.mark = [pair[0], pair[1]];
                }
                break next.mark;
            }
            // The last pair may come to stand for more deltas than it does now.
            self.0.get(next.pair + 2)?;
            (next.pair, next.taken) = (next.pair + 2, 0);
        };
        // What repeats nothing is damaged.
        next.number = next.number.checked_add(distance).filter(|number| *number > place.number)?;
        *place = next;
        Some(mark)
    }
}

/// A place among a call's deltas; by default that of the first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Where its pair begins.
    pair: usize,
    /// How many deltas of the pair came before.
    taken: u64,
    /// The last pair that stands for itself.
    mark: [u64; 2],
    /// The number of the delta before.
    number: Number,
    /// Bytes of the text that came before.
    text: usize,
    /// Bytes of the reasoning that came before.
    reasoning: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Marks, Place};

    proptest! {
        #[test]
        fn what_was_noted_is_cut_again(
            deltas in proptest::collection::vec((1..3_u64, 1..4_usize, any::<bool>()), 0..60),
        ) {
            let (mut marks, mut texts) = (Marks::default(), [String::new(), String::new()]);
            let (mut number, mut noted) = (0, Vec::new());
            for (distance, bytes, reasoning) in deltas {
                number += distance;
                marks.push(distance, bytes, reasoning);
                let piece = "x".repeat(bytes);
                texts[usize::from(reasoning)].push_str(&piece);
                noted.push((number, reasoning, piece));
            }
            let cut: Vec<_> = marks
                .split(&texts[0], &texts[1])
                .map(|(number, reasoning, piece)| (number, reasoning, piece.to_owned()))
                .collect();
            prop_assert_eq!(cut, noted);
        }
    }

    proptest! {
        #[test]
        fn what_is_noted_meanwhile_is_found_by_going_on(
            deltas in proptest::collection::vec((1..3_u64, 1..3_usize, any::<bool>(), any::<bool>()), 0..60),
        ) {
            let (mut marks, mut texts) = (Marks::default(), [String::new(), String::new()]);
            let (mut number, mut place, mut cut) = (0, Place::default(), Vec::new());
            let mut noted = Vec::new();
            for (distance, bytes, reasoning, read) in deltas {
                number += distance;
                marks.push(distance, bytes, reasoning);
                texts[usize::from(reasoning)].push_str(&"x".repeat(bytes));
                noted.push((number, reasoning, bytes));
                while read && let Some(next) = marks.next(&mut place, [&texts[0], &texts[1]]) {
                    cut.push((next.0, next.1, next.2.len()));
                }
            }
            while let Some(next) = marks.next(&mut place, [&texts[0], &texts[1]]) {
                cut.push((next.0, next.1, next.2.len()));
            }
            prop_assert_eq!(cut, noted);
        }
    }

    #[test]
    fn deltas_of_one_length_are_one_mark() {
        let mut marks = Marks::default();
        marks.push(7, 8, false);
        for _ in 0..100 {
            marks.push(1, 8, false);
        }
        marks.push(1, 3, false);
        assert_eq!(serde_json::to_string(&marks).unwrap(), "[7,16,1,16,0,99,1,6]");
    }

    #[test]
    fn a_damaged_mark_ends_the_list() {
        for damaged in ["[1,0,0,18446744073709551615]", "[1,16]", "[0,5]", "[1]"] {
            let marks: Marks = serde_json::from_str(damaged).unwrap();
            assert_eq!(marks.split("text", "").count(), 0, "{damaged}");
        }
    }
}
