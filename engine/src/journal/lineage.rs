//! Which records are a log's history, when runs went back and logs began as forks of others.
//!
//! Invariant: the numbers of a history rise. A log that is a fork numbers above all that its
//! parent had handed out, and a record that goes back has a number above all before it.

use crate::run::record::Number;

/// Where a log went back: the record `number` follows the record `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Number of the [`Forked`](crate::run::record::Fact::Forked) record.
    pub number: Number,
    /// The number that it goes on from.
    pub at: Number,
}

/// One log of a line of forks, the youngest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Where it went back, in order.
    pub cuts: Vec<Cut>,
    /// The number up to which the next one of the line, its parent, belongs to it.
    pub parent_at: Option<Number>,
}

/// Neighbouring records of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which log of the line.
    pub line: usize,
    /// The first number.
    pub from: Number,
    /// The last number.
    pub to: Number,
}

/// The history of the first log of a line as of the number `at`, oldest records first.
#[must_use]
pub fn spans(lines: &[Line], mut at: Number) -> Vec<Span> {
    let mut spans = Vec::new();
    for (line, Line { cuts, parent_at }) in lines.iter().enumerate() {
        while let Some(cut) = cuts.iter().rfind(|cut| cut.number <= at) {
            spans.push(Span { line, from: cut.number, to: at });
            // What claims to follow itself or a later record is damaged; it must not loop.
            at = cut.at.min(cut.number.saturating_sub(1));
        }
        spans.push(Span { line, from: 0, to: at });
        let Some(parent_at) = parent_at else { break };
        at = at.min(*parent_at);
    }
    spans.reverse();
    spans
}

/// The spans from the number `start` on.
#[must_use]
pub fn since(spans: &[Span], start: Number) -> Vec<Span> {
    let rest = spans.iter().filter(|span| span.to >= start);
    rest.map(|span| Span { from: span.from.max(start), ..*span }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Cut, Line, Span, since, spans};

    fn line(cuts: &[(u64, u64)], parent_at: Option<u64>) -> Line {
        let cuts = cuts.iter().map(|&(at, number)| Cut { number, at }).collect();
        Line { cuts, parent_at }
    }

    /// The numbers of ten records of one log that belong to its history.
    fn left(lines: &[Line], at: u64) -> Vec<u64> {
        let spans = spans(lines, at);
        (1..=10).filter(|n| spans.iter().any(|s| (s.from..=s.to).contains(n))).collect()
    }

    #[test]
    fn a_log_that_never_went_back_is_its_history() {
        assert_eq!(left(&[line(&[], None)], 10), (1..=10).collect::<Vec<_>>());
        assert_eq!(left(&[line(&[], None)], 3), [1, 2, 3]);
    }

    #[test]
    fn what_was_gone_back_over_is_left_out_and_is_there_as_of_then() {
        let lines = [line(&[(2, 6), (7, 9)], None)];
        assert_eq!(left(&lines, 5), [1, 2, 3, 4, 5]);
        assert_eq!(left(&lines, 8), [1, 2, 6, 7, 8]);
        assert_eq!(left(&lines, 10), [1, 2, 6, 7, 9, 10]);
    }

    #[test]
    fn going_back_into_what_was_left_brings_it_back() {
        assert_eq!(left(&[line(&[(2, 6), (4, 9)], None)], 10), [1, 2, 3, 4, 9, 10]);
    }

    #[test]
    fn forks_of_forks_read_their_parents_up_to_where_they_began() {
        let lines = [line(&[(25, 31)], Some(25)), line(&[(7, 21)], Some(7)), line(&[(2, 5)], None)];
        let span = |line, from, to| Span { line, from, to };
        let all = spans(&lines, 40);
        let expected = [
            span(2, 0, 2),
            span(2, 5, 7),
            span(1, 0, 7),
            span(1, 21, 25),
            span(0, 0, 25),
            span(0, 31, 40),
        ];
        assert_eq!(all, expected);
        assert_eq!(since(&all, 23), [span(1, 23, 25), span(0, 23, 25), span(0, 31, 40)]);
    }

    #[test]
    fn a_damaged_cut_ends() {
        assert_eq!(left(&[line(&[(9, 5)], None)], 6), [1, 2, 3, 4, 5, 6]);
    }
}
