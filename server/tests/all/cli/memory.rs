//! Memory that large bodies took is given back to the system once they are answered.

use std::thread;

use serde_json::json;

use super::installation::Installation;

/// Bytes of each body.
const LARGE: usize = 12_000_000;

/// Bodies that are sent at the same time.
const AT_ONCE: usize = 6;

/// What may be left of all of them, in kilobytes: less than one of them.
const LEFT_KB: u64 = 10_000;

#[test]
fn large_bodies_leave_nothing_behind() {
    let place = Installation::bare();
    let server = place.serve();
    let small = json!({ "graph": "chat", "input": { "messages": "hi" } }).to_string();
    assert_eq!(server.ask("POST", "/api/runs/wait", &small).status, 200);
    let idle = server.memory_kb();
    let messages = [
        json!({ "role": "system", "content": "x".repeat(LARGE) }),
        json!({ "role": "user", "content": "hi" }),
    ];
    let body = json!({ "model": "mock/mock", "messages": messages }).to_string();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let answer = server.ask("POST", "/v1/chat/completions", &body);
                assert_eq!(answer.status, 200, "{answer:?}");
            });
        }
    });
    let left = server.memory_kb().saturating_sub(idle);
    assert!(left < LEFT_KB, "{left} kB were left");
    assert_eq!(server.terminate().code, 0);
}
