//! From the keys that every kind has to a [`Policy`].

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::diagnostic::{FINDINGS_LIMIT, Finding, code, suggest};
use crate::document::{Document, child};
use crate::expr::Expression;
use crate::graph::build::{Access, Build, Names, ScopeRead};
use crate::graph::spec::{GotoSpec, NodeSpec, RetrySpec};
use crate::graph::text::Texts;
use crate::graph::{Cache, Goto, NodeIndex, OnError, Policy, Retry, Target};
use crate::limits::ExpressionLimits;
use crate::period::Period;
use crate::state::Channels;
use crate::tool::Effect;

/// Reads the common keys of one node.
pub(super) struct Common<'a> {
    pub(super) document: &'a Document,
    pub(super) channels: &'a Channels,
    pub(super) limits: ExpressionLimits,
    /// Nodes by name.
    pub(super) places: &'a HashMap<&'a str, NodeIndex>,
    /// A JSON pointer to the node.
    pub(super) pointer: String,
    /// What its `goto` reads.
    pub(super) reads: Vec<Access>,
    /// The same, besides channels.
    pub(super) scope: Vec<ScopeRead>,
    /// Every node that it names is there.
    pub(super) complete: bool,
    pub(super) findings: &'a mut Vec<Finding>,
}

impl Common<'_> {
    /// All but `cache`, which needs the built node.
    pub(super) fn policy(&mut self, spec: &NodeSpec) -> Policy {
        let timeout = self.positive("timeout", spec.timeout);
        let idle_timeout = self.positive("idle_timeout", spec.idle_timeout);
        if let (Some(all), Some(idle)) = (timeout, idle_timeout)
            && idle >= all
        {
            let message = "`idle_timeout` is never reached: `timeout` ends the attempt first";
            let fix = "make it shorter than `timeout`, or remove it";
            let finding = self.finding(code::INVALID_VALUE, "idle_timeout", message, fix);
            self.findings.push(finding.warning());
        }
        Policy {
            timeout,
            idle_timeout,
            retry: self.retry(spec.retry.as_ref()),
            on_error: self.on_error(spec.on_error.as_deref()),
            cache: None,
            goto: spec.goto.as_ref().and_then(|goto| self.goto(goto)),
        }
    }

    fn positive(&mut self, key: &str, period: Option<Period>) -> Option<Duration> {
        let length = period?.0;
        if length.is_zero() {
            let message = format!("`{key}` must be longer than nothing");
            let fix = "write a length of time such as 30s, or remove the key";
            let finding = self.finding(code::INVALID_VALUE, key, message, fix);
            self.findings.push(finding);
        }
        Some(length)
    }

    fn retry(&mut self, spec: Option<&RetrySpec>) -> Retry {
        let default = Retry::default();
        let waits = match spec {
            None => return default,
            // The schema keeps it far from the end of its type.
            Some(RetrySpec::Attempts(further)) => {
                return Retry { attempts: further.saturating_add(1), ..default };
            }
            Some(RetrySpec::Waits(waits)) => waits,
        };
        let length = |period: Option<Period>| period.map(|period| period.0);
        let wait = length(waits.wait).unwrap_or(default.wait);
        let wait_max = length(waits.max_wait).unwrap_or(default.wait_max.max(wait));
        if wait > wait_max {
            let message = "the first wait is longer than `max_wait` allows";
            let fix = "make `wait` shorter, or `max_wait` longer";
            let finding = self.finding(code::INVALID_VALUE, "retry/max_wait", message, fix);
            self.findings.push(finding);
        }
        Retry { attempts: waits.attempts.saturating_add(1), wait, wait_max }
    }

    fn on_error(&mut self, word: Option<&str>) -> OnError {
        let place = |name: &str| self.places.get(name).copied();
        match word {
            Some(word @ ("fail" | "continue")) if place(word).is_some() => {
                let message = format!("`on_error: {word}` is a word, and a node has that name too");
                let finding =
                    self.finding(code::INVALID_NAME, "on_error", message, "rename the node");
                self.findings.push(finding);
                OnError::Fail
            }
            None | Some("fail") => OnError::Fail,
            Some("continue") => OnError::Continue,
            Some(name @ ("START" | "END")) => {
                let message = format!("`on_error` names a node that is run, not {name}");
                let fix = "write `continue`, or name a node whose line leads there";
                let finding = self.finding(code::INVALID_LINE, "on_error", message, fix);
                self.findings.push(finding);
                OnError::Fail
            }
            Some(name) => {
                if let Some(node) = place(name) {
                    return OnError::Node(node);
                }
                self.unknown("on_error", name, &["continue", "fail"]);
                OnError::Fail
            }
        }
    }

    fn goto(&mut self, spec: &GotoSpec) -> Option<Goto> {
        let (mut among, mut names) = (Vec::new(), Vec::<Arc<str>>::new());
        for (i, name) in spec.among.iter().enumerate() {
            if self.findings.len() > FINDINGS_LIMIT {
                self.complete = false;
                break;
            }
            let at = format!("goto/among/{i}");
            let target = match (name.as_str(), self.places.get(name.as_str())) {
                ("END", _) => Target::End,
                (_, Some(node)) => Target::Node(*node),
                ("START", None) => {
                    let fix = "name the node that the cycle goes back to";
                    let message = "nothing can lead to START";
                    let finding = self.finding(code::INVALID_LINE, &at, message, fix);
                    self.findings.push(finding);
                    continue;
                }
                (name, None) => {
                    self.unknown(&at, name, &["END"]);
                    continue;
                }
            };
            if among.contains(&target) {
                let message = format!("`{name}` is listed twice");
                let finding = self.finding(code::DUPLICATE_NAME, &at, message, "keep one");
                self.findings.push(finding);
                continue;
            }
            among.push(target);
            names.push(name.as_str().into());
        }
        let pointer = format!("{}/goto/to", self.pointer);
        let (document, channels) = (self.document, self.channels);
        let (reads, scope) = (&mut self.reads, &mut self.scope);
        let (limits, findings) = (self.limits, &mut *self.findings);
        let mut texts =
            Texts { document, channels, limits, handles_error: false, reads, scope, findings };
        let Some(to) = texts.expression(&pointer, &spec.to) else {
            self.complete = false;
            return None;
        };
        self.outside(&pointer, &to, spec);
        Some(Goto { to, among, names })
    }

    /// Reports texts that the expression gives as they stand and `among` does not list.
    fn outside(&mut self, pointer: &str, to: &Expression, spec: &GotoSpec) {
        let among: HashSet<&str> = spec.among.iter().map(String::as_str).collect();
        let outside = to.outcomes().into_iter().filter(|(text, _)| !among.contains(text));
        for (text, at) in outside.take(FINDINGS_LIMIT) {
            let message = format!("`goto` gives `{text}`, which `among` does not list");
            let fix = if self.places.contains_key(text) || text == "END" {
                format!("add `{text}` to `among`")
            } else {
                suggest(text, spec.among.iter().map(String::as_str))
            };
            let place = self.document.place_inside(pointer, at);
            let path = self.document.path();
            self.findings.push(Finding::error(code::GOTO_OUTSIDE, path, place, message, fix));
        }
    }

    fn unknown(&mut self, key: &str, name: &str, words: &[&'static str]) {
        self.complete = false;
        let message = format!("no node is named `{name}`");
        let known = self.places.keys().copied().chain(words.iter().copied());
        let finding = self.finding(code::UNKNOWN_NODE, key, message, suggest(name, known));
        self.findings.push(finding);
    }

    fn finding(
        &self,
        code: &'static str,
        key: &str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        self.document.error_at(code, &format!("{}/{key}", self.pointer), message, fix)
    }

    /// `cache`, for a node that was built of these keys of its own.
    pub(super) fn cache(
        &mut self,
        keep: Option<Period>,
        kind: &str,
        own: &Map<String, Value>,
        build: &Build<'_>,
    ) -> Option<Cache> {
        let keep = self.positive("cache", keep)?;
        if let Some(call) = build.brings.call.as_ref().filter(|call| call.effect > Effect::Pure) {
            // A run that has begun goes on with a tool that has changed since, and calls it.
            if build.known.names == Names::Checked {
                let effect = format!("{:?}", call.effect).to_lowercase();
                let message = format!(
                    "{} is `{effect}`: answering from a cache would leave out what it does",
                    call.what
                );
                let fix = "remove `cache`, or let the node call only what is `pure`";
                let at = child(&self.pointer, "cache");
                let finding = self.document.error_at_key(code::UNSAFE_CACHE, &at, message, fix);
                self.findings.push(finding);
            }
            return None;
        }
        if self.never_the_same(build) {
            return None;
        }
        let brings = &build.brings;
        let skills: Vec<_> =
            brings.skills.iter().filter_map(|name| build.known.skills.get(name)).collect();
        let text = json!([kind, own, skills, brings.graphs]).to_string();
        let own = build.scope.iter().map(|read| read.name);
        let scope: BTreeSet<_> = own.chain(brings.scope.iter().copied()).collect();
        let reads: BTreeSet<_> = build.reads.iter().map(|read| read.channel.clone()).collect();
        Some(Cache {
            keep,
            node: crate::hex(&Sha256::digest(text.as_bytes())).into(),
            reads: reads.into_iter().collect(),
            scope: scope.into_iter().collect(),
        })
    }

    /// Reports a node that reads what is never the same twice: its result would never stand for
    /// another one.
    fn never_the_same(&mut self, build: &Build<'_>) -> bool {
        let never = |name: &str| ["now", "run"].contains(&name);
        let fix = "remove `cache`, or write what is needed of it to a channel in a node before this \
                   one, e.g. the day alone";
        let message = |name: &str, reader: &str| {
            format!(
                "`{name}`, which {reader} reads, is never the same twice: nothing would ever be \
                 found in this cache"
            )
        };
        let before = self.findings.len();
        for read in build.scope.iter().filter(|read| never(read.name)) {
            let place = self.document.place_inside(&read.pointer, read.at);
            let (path, message) = (self.document.path(), message(read.name, "the node"));
            self.findings.push(Finding::error(code::USELESS_CACHE, path, place, message, fix));
        }
        for name in build.brings.scope.iter().copied().filter(|name| never(name)) {
            let at = child(&self.pointer, "cache");
            let message = message(name, "what stands inside the node");
            self.findings.push(self.document.error_at_key(code::USELESS_CACHE, &at, message, fix));
        }
        self.findings.len() > before
    }
}
