//! Streams recorded from real providers, if the folder of them is there (`EXILE_DATA`).

use serde_json::Value;

use crate::facts::{at, hello, stream};
use crate::upstream::{Answer, Upstream};

#[tokio::test]
async fn recorded_answers_assemble() {
    let Ok(folder) = std::env::var("EXILE_DATA") else {
        println!("skipped: EXILE_DATA names no folder");
        return;
    };
    let (mut read, mut failed) = (0, Vec::new());
    for entry in std::fs::read_dir(format!("{folder}/wire")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for record in text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()) {
            let field = |name: &str| record[name].as_str().unwrap_or_default();
            if !field("path").ends_with("/chat/completions") || record["status"] != 200 {
                continue;
            }
            read += 1;
            // Cut into pieces of a prime length, so that every kind of place is cut somewhere.
            let body = field("body").as_bytes();
            let answer = body.chunks(97).fold(Answer::new(200), Answer::bytes);
            let upstream = Upstream::start([answer]).await;
            let provider = at(&upstream, field("provider"));
            let (reply, said, thought) = stream(&provider, &hello("m")).await;
            match reply {
                Ok(reply)
                    if reply.content == said
                        && reply.reasoning.as_deref().unwrap_or_default() == thought => {}
                Ok(reply) => failed.push(format!("{}: {reply:?}", field("name"))),
                Err(error) => failed.push(format!("{}: {error}", field("name"))),
            }
        }
    }
    assert!(read > 0 && failed.is_empty(), "{} of {read}:\n{}", failed.len(), failed.join("\n"));
}
