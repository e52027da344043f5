//! Where a call's deltas stood in the stream, kept with its record in place of the deltas.

use std::iter::repeat_n;

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
        let mut number = 0;
        let mut rest = [text, reasoning];
        self.each().map_while(move |[distance, mark]| {
            number += distance;
            let (bytes, which) = (usize::try_from(mark / 2).ok()?, (mark % 2) as usize);
            let (piece, tail) = rest[which].split_at_checked(bytes)?;
            rest[which] = tail;
            (!piece.is_empty()).then_some((number, which == 1, piece))
        })
    }

    /// One pair for each delta.
    fn each(&self) -> impl Iterator<Item = [u64; 2]> {
        let mut last = [0; 2];
        self.0.chunks_exact(2).flat_map(move |pair| match *pair {
            [0, more] => repeat_n(last, usize::try_from(more).unwrap_or(usize::MAX)),
            [distance, mark] => {
                last = [distance, mark];
                repeat_n(last, 1)
            }
            _ => repeat_n(last, 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Marks;

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
