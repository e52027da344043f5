//! The cut of the bytes never shows, and memory is bounded.

use super::*;

/// Feeds `wire` whole, then cut in two at every byte, then byte by byte.
fn check(wire: &str, expected: &[&str]) {
    let bytes = wire.as_bytes();
    let cuts = (0..=bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]);
    for pieces in cuts.chain([bytes.chunks(1).collect()]) {
        let mut events = Events::default();
        let mut seen = Vec::new();
        for piece in pieces {
            seen.extend(events.feed(piece).unwrap());
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
    let taken = (0..1024).take_while(|_| events.feed(&piece).is_ok()).count();
    assert_eq!(taken, EVENT_LIMIT / piece.len());
}

#[test]
fn many_data_lines_are_one_event_under_one_limit() {
    let mut events = Events::default();
    let line = format!("data: {}\n", "x".repeat(100 * 1024));
    let taken = (0..100).take_while(|_| events.feed(line.as_bytes()).is_ok()).count();
    assert_eq!(taken, 10);
}

#[test]
fn bytes_that_are_no_text_are_an_error() {
    assert_eq!(Events::default().feed(b"data: \xff\xfe\n\n"), Err(SseError::NotText));
}
