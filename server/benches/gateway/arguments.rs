//! `--name value`, in any order.

use std::io;
use std::time::Duration;

const KNOWN: &[&str] = &[
    "port",
    "direct",
    "via",
    "key",
    "model",
    "rounds",
    "requests",
    "warm-up",
    "connections",
    "seconds",
    "streams",
    "pid",
    "rate",
    "stream-model",
    "stream-every",
    "sample-seconds",
];

/// What follows the mode.
pub struct Arguments(Vec<(String, String)>);

impl Arguments {
    /// Refuses what no mode knows.
    pub fn read(mut words: impl Iterator<Item = String>) -> io::Result<Self> {
        let mut found = Vec::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").filter(|name| KNOWN.contains(name));
            let name = name.ok_or_else(|| io::Error::other(format!("unknown argument {word}")))?;
            let value = words.next();
            let value = value.ok_or_else(|| io::Error::other(format!("{word} has no value")))?;
            found.push((name.to_owned(), value));
        }
        Ok(Self(found))
    }

    /// The last one given.
    pub fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn needed(&self, name: &str) -> io::Result<&str> {
        self.text(name).ok_or_else(|| io::Error::other(format!("--{name} is missing")))
    }

    pub fn number(&self, name: &str, default: u32) -> io::Result<u32> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|_| io::Error::other(format!("--{name}: {text} is no number")))
    }

    pub fn seconds(&self, name: &str, default: u32) -> io::Result<Duration> {
        Ok(Duration::from_secs(self.number(name, default)?.into()))
    }
}
