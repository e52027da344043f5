//! The cut of the bytes never shows, and memory is bounded.

use super::*;

/// Every event that a piece completes.
fn all(events: &mut Events, mut piece: &[u8]) -> Result<Vec<String>, SseError> {
    std::iter::from_fn(|| events.next(&mut piece).transpose()).collect()
}

/// Feeds `wire` whole, then cut in two at every byte, then byte by byte.
fn check(wire: &str, expected: &[&str]) {
    let bytes = wire.as_bytes();
    let cuts = (0..=bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]);
    for pieces in cuts.chain([bytes.chunks(1).collect()]) {
        let mut events = Events::default();
        let mut seen = Vec::new();
        for piece in pieces {
            seen.extend(all(&mut events, piece).unwrap());
        }
        seen.extend(events.finish().unwrap());
        assert_eq!(seen, expected);
    }
}

#[test]
fn the_cut_of_the_bytes_never_shows() {
    check(
        "\u{feff}: keep-alive\n\ndata: {\"a\":\"\u{4f60}\u{597d} \u{1f600}\"}\r\n\r\n: OPENROUTER PROCESSING\r\
         event: x\nid: 7\ndata:one\ndata: two\r\rdata\n\ndatabase: no\n\ndata: [DONE]",
        &["{\"a\":\"\u{4f60}\u{597d} \u{1f600}\"}", "one\ntwo", "", "[DONE]"],
    );
}

#[test]
fn an_endless_line_is_refused_at_the_limit() {
    let mut events = Events::default();
    let piece = vec![b'x'; 64 * 1024];
    let taken = (0..1024).take_while(|_| all(&mut events, &piece).is_ok()).count();
    assert_eq!(taken, EVENT_LIMIT / piece.len());
}

#[test]
fn many_data_lines_are_one_event_under_one_limit() {
    let mut events = Events::default();
    let line = format!("data: {}\n", "x".repeat(100 * 1024));
    let taken = (0..100).take_while(|_| all(&mut events, line.as_bytes()).is_ok()).count();
    assert_eq!(taken, 10);
}

#[test]
fn bytes_that_are_no_text_are_an_error() {
    assert_eq!(all(&mut Events::default(), b"data: \xff\xfe\n\n"), Err(SseError::NotText));
}

#[test]
fn what_stands_behind_an_event_does_not_hinder_it() {
    let mut events = Events::default();
    let wire = [b"data: first\n\ndata: \xff\n\n".as_slice(), &vec![b'x'; EVENT_LIMIT + 1]].concat();
    let mut rest = &wire[..];
    assert_eq!(events.next(&mut rest), Ok(Some("first".into())));
    assert_eq!(events.next(&mut rest), Err(SseError::NotText));
}
