//! What a run says, one speaker after the other: several may speak at the same time, and their texts
//! are told in the order in which they began, none in the middle of another.
//!
//! Invariants:
//! - All that is told is the text of those messages that stand in the end, in whole: what a call
//!   said that failed, or that was made again, is void.
//! - Who began first is told as it comes; what the others say meanwhile is held until it is their
//!   turn, and never more than their answers are long.

use std::collections::VecDeque;

use exile_engine::model::Finish;
use serde_json::Value;

/// A piece of what a run says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// A message begins.
    Begins,
    /// A piece of its text.
    Text(String),
    /// A piece of what was thought before it.
    Reasoning(String),
    /// The message is whole.
    Ends(Option<Finish>),
    /// What was told of the message is void.
    Void,
}

/// Puts what the speakers of a run say in order.
#[derive(Debug, Default)]
pub struct Speakers {
    /// In the order in which they began; the first one is told as it speaks.
    voices: VecDeque<Voice>,
}

/// A call that speaks, or has spoken.
#[derive(Debug)]
struct Voice {
    /// The path of its task.
    task: String,
    /// What is not told yet.
    held: Vec<Chunk>,
    /// Something of it was told.
    told: bool,
    /// It has said everything.
    whole: bool,
}

impl Speakers {
    /// Takes in an event of the run by its name and data, and gives what is to be told now.
    pub fn take(&mut self, name: &str, data: &Value) -> Vec<Chunk> {
        let task = data["task"].as_str().unwrap_or_default();
        let text = || data["text"].as_str().unwrap_or_default().to_owned();
        match name {
            "message.delta" => self.says(task, Chunk::Text(text())),
            "reasoning.delta" => self.says(task, Chunk::Reasoning(text())),
            "model.finished" if data["error"].is_null() => {
                if let Some(voice) = self.speaking(task) {
                    let finish = serde_json::from_value(data["finish"].clone()).ok();
                    voice.held.push(Chunk::Ends(finish));
                    voice.whole = true;
                }
            }
            "model.finished" | "message.reset" => {
                if let Some(voice) = self.speaking(task) {
                    voice.forget();
                }
            }
            // Another process has taken the run over: who was speaking begins again.
            "stream.reset" => {
                self.voices.iter_mut().filter(|voice| !voice.whole).for_each(Voice::forget);
            }
            _ => {}
        }
        self.told()
    }

    fn speaking(&mut self, task: &str) -> Option<&mut Voice> {
        self.voices.iter_mut().find(|voice| voice.task == task && !voice.whole)
    }

    fn says(&mut self, task: &str, chunk: Chunk) {
        if let Some(voice) = self.speaking(task) {
            return voice.held.push(chunk);
        }
        let held = vec![Chunk::Begins, chunk];
        self.voices.push_back(Voice { task: task.to_owned(), held, told: false, whole: false });
    }

    /// What the first speaker has said, and those after it if that one is done.
    fn told(&mut self) -> Vec<Chunk> {
        let mut told = Vec::new();
        while let Some(voice) = self.voices.front_mut() {
            voice.told |= !voice.held.is_empty();
            told.append(&mut voice.held);
            if !voice.whole {
                break;
            }
            self.voices.pop_front();
        }
        told
    }
}

impl Voice {
    /// What it said so far is void, and it has said everything: if it speaks again it is another.
    fn forget(&mut self) {
        self.held.clear();
        if self.told {
            self.held.push(Chunk::Void);
        }
        self.whole = true;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is told of events: `task:text`, `task!` its end, `task?` its failure, `task~` a reset.
    fn told(events: &str) -> String {
        let mut speakers = Speakers::default();
        let mut told = String::new();
        for event in events.split(' ') {
            let (task, rest) = event.split_at(1);
            let (name, data) = match rest {
                "!" => ("model.finished", json!({ "task": task, "finish": "length" })),
                "?" => ("model.finished", json!({ "task": task, "error": { "code": "x" } })),
                "~" => ("message.reset", json!({ "task": task })),
                text => ("message.delta", json!({ "task": task, "text": &text[1..] })),
            };
            let (name, data) =
                if event == "*~" { ("stream.reset", json!({})) } else { (name, data) };
            for chunk in speakers.take(name, &data) {
                match chunk {
                    Chunk::Begins => told.push('<'),
                    Chunk::Text(text) => told.push_str(&text),
                    Chunk::Reasoning(_) => told.push('r'),
                    Chunk::Ends(finish) => {
                        assert_eq!(finish, Some(Finish::Length));
                        told.push('>');
                    }
                    Chunk::Void => told.push('x'),
                }
            }
            told.push(' ');
        }
        told
    }

    #[test]
    fn speakers_are_told_in_the_order_in_which_they_began() {
        assert_eq!(told("a:1 b:2 a:3 b:4 a! b:5 b!"), "<1  3  ><24 5 > ");
        assert_eq!(told("a:1 b:2 b! c:3 a! c:4 c!"), "<1    ><2><3 4 > ");
        assert_eq!(told("a:1 a! a:2 a!"), "<1 > <2 > ", "a task that speaks twice");
    }

    #[test]
    fn what_does_not_stand_in_the_end_is_void() {
        assert_eq!(told("a:1 b:2 b~ b:3 a! b!"), "<1    ><3 > ", "nobody has seen it");
        assert_eq!(told("a:1 a~ a:2 a!"), "<1 x <2 > ");
        assert_eq!(told("a:1 b:2 a? b!"), "<1  x<2 > ");
        assert_eq!(told("a:1 b:2 b! *~ a:3 a!"), "<1   x<2> <3 > ", "what is whole stands");
    }
}
