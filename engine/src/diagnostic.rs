//! What is wrong with a file: where, why, and what to do.
//!
//! Invariants:
//! - Checking never stops at the first finding; a file's findings come sorted by place.
//! - Codes are stable: they are part of the API, and each has a file in the tests that raises it.

mod render;

use std::collections::BTreeSet;

pub use self::render::render;

/// One thing found in a file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Stable, e.g. `unknown_channel`; all are in [`code`].
    pub code: &'static str,
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// As given to the loader.
    pub path: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file does not load.
    Error,
    /// It loads; something is probably not meant.
    Warning,
}

/// A position in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl Place {
    /// The first character of a file.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// Findings of one file that are shown, the first ones; what is beyond them is counted.
pub const FINDINGS_LIMIT: usize = 100;

/// Longest message or fix of a finding, in characters: a file may hold a name of a megabyte.
const TEXT_LIMIT: usize = 600;

pub(crate) fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Finding {
    /// What keeps the file from being used.
    #[must_use]
    pub fn error(
        code: &'static str,
        path: &str,
        place: Place,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity: Severity::Error,
            path: path.to_owned(),
            line: place.line,
            column: place.column,
            message: shortened(message.into()),
            fix: shortened(fix.into()),
        }
    }

    /// The same finding, as a warning.
    #[must_use]
    pub fn warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// Whether it keeps the file from being used.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// A text without its middle, if it is too long.
fn shortened(text: String) -> String {
    let half = TEXT_LIMIT / 2;
    // Counting characters costs; most texts are far from the limit.
    if text.len() <= TEXT_LIMIT || text.chars().nth(TEXT_LIMIT).is_none() {
        return text;
    }
    let end = text.char_indices().rev().nth(half).map_or(0, |(at, _)| at);
    let start: String = text.chars().take(half).collect();
    format!("{start}…{}", &text[end..])
}

/// `path:line:column: error[code]: message (fix)`.
impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, severity, path, line, column, message, fix } = self;
        let severity = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{path}:{line}:{column}: {severity}[{code}]: {message}; {fix}")
    }
}

/// Whether anything among `findings` keeps the file from being used.
#[must_use]
pub fn any_error(findings: &[Finding]) -> bool {
    findings.iter().any(Finding::is_error)
}

/// In the order of a reader: by file, line and column; the same thing once. Where YAML itself
/// cannot say what a value is, nothing more is said about that value.
pub fn sort(findings: &mut Vec<Finding>) {
    let unclear = [code::BOOLEAN_WORD, code::KEY_NOT_TEXT, code::NUMBER_DIGITS, code::TAG];
    let place = |f: &Finding| (f.path.clone(), f.line, f.column);
    let places: BTreeSet<_> =
        findings.iter().filter(|f| unclear.contains(&f.code)).map(place).collect();
    findings.retain(|f| unclear.contains(&f.code) || !places.contains(&place(f)));
    let key = |f: &Finding| (f.path.clone(), f.line, f.column, f.code, f.message.clone());
    findings.sort_by_cached_key(key);
    findings.dedup();
}

/// Keeps the first findings of a file and says how many more there are, so that a file of mistakes
/// does not become a flood of them. They are sorted already.
pub(crate) fn bound(findings: &mut Vec<Finding>) {
    let more = findings.len().saturating_sub(FINDINGS_LIMIT);
    let Some(first) = findings.first().filter(|_| more > 0) else { return };
    let path = first.path.clone();
    // Warnings give way to errors; both stay in the order of their places.
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let mut warnings = FINDINGS_LIMIT.saturating_sub(errors);
    findings.retain(|finding| {
        let stays = finding.is_error() || warnings > 0;
        warnings -= usize::from(!finding.is_error() && stays);
        stays
    });
    findings.truncate(FINDINGS_LIMIT);
    findings.push(too_many(&path, Place::START, more, errors > 0));
}

/// There is more wrong with a file than is shown.
pub(crate) fn too_many(path: &str, place: Place, more: usize, error: bool) -> Finding {
    let message = match more {
        0 => "there is more wrong with this file than is shown".to_owned(),
        more => format!("there are {more} more findings in this file"),
    };
    let finding = Finding::error(code::TOO_MANY_FINDINGS, path, place, message, "mend these first");
    if error { finding } else { finding.warning() }
}

/// The lines of a text, without their ends. YAML ends a line with LF, CR, or both.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return (!text.is_empty()).then_some(text);
        };
        let after = &text[end..];
        rest = after.strip_prefix("\r\n").or_else(|| after.get(1..));
        Some(&text[..end])
    })
}

/// Longest name that is compared with others, in bytes.
const NAME_LIMIT: usize = 128;

/// The known name closest to `name`, if one is close enough to be what was meant.
#[must_use]
pub fn closest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // Comparing costs; among that many names, or of that length, the closest would mean little.
    let known = known.into_iter().take(1_000);
    let known = known.filter(|known| known.len() <= NAME_LIMIT && name.len() <= NAME_LIMIT);
    let lower = name.to_lowercase();
    let far = name.chars().count().div_ceil(3).min(3);
    known
        .map(|known| (strsim::damerau_levenshtein(&lower, &known.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, known)| (*distance, std::cmp::Reverse(same_start(name, known))))
        .map(|(_, known)| known)
}

/// Characters that both begin with: who types `node` rather left out a letter than mistook one.
fn same_start(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

/// The fix for an unknown name: the closest known one, else all of them.
#[must_use]
pub fn suggest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    if let Some(close) = closest(name, known.iter().copied()) {
        return format!("did you mean `{close}`?");
    }
    known.sort_unstable();
    match known.as_slice() {
        [] => "there are none yet".to_owned(),
        [first @ .., last] if known.len() <= 20 => {
            let all: Vec<String> = first.iter().map(|name| format!("`{name}`, ")).collect();
            format!("there are: {}`{last}`", all.concat())
        }
        many => format!("there are {} names; `{}` is one", many.len(), many[0]),
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// The codes of findings.
        pub mod code {
            $($(#[$doc])* pub const $name: &str = $text;)*

            /// Every code.
            pub const ALL: &[&str] = &[$($text),*];
        }
    };
}

codes! {
    /// The file is larger than 1 MB, or holds more values than a file may.
    TOO_LARGE = "too_large";
    /// There is more wrong with the file than is shown.
    TOO_MANY_FINDINGS = "too_many_findings";
    /// The file has not been looked at as a whole yet; it will be, without a restart.
    NOT_CHECKED_YET = "not_checked_yet";
    /// A graph whose nodes have more ways through it than can be looked at.
    TOO_MANY_PATHS = "too_many_paths";
    /// A number that cannot be kept to the digit.
    NUMBER_DIGITS = "number_digits";
    /// Aliases that multiply into more values than a file may hold.
    ALIAS_BOMB = "alias_bomb";
    /// Lists and maps inside each other beyond any use.
    TOO_DEEP = "too_deep";
    /// The text is no YAML.
    SYNTAX = "syntax";
    /// An alias without its anchor.
    UNKNOWN_ALIAS = "unknown_alias";
    /// A second document after `---`.
    SEVERAL_DOCUMENTS = "several_documents";
    /// A YAML tag.
    TAG = "tag";
    /// A key that is a list or a map.
    KEY_NOT_TEXT = "key_not_text";
    /// One key twice in a map.
    DUPLICATE_KEY = "duplicate_key";
    /// `yes`, `no`, `on`, `off` without quotes.
    BOOLEAN_WORD = "boolean_word";
    /// `${X}` without quotes inside `{ }` or `[ ]`.
    UNQUOTED_VARIABLE = "unquoted_variable";
    /// The file cannot be read, or is outside the folder.
    UNREADABLE = "unreadable";
    /// The file is neither a graph nor a skill.
    NOT_A_GRAPH = "not_a_graph";
    /// A key that means nothing here.
    UNKNOWN_KEY = "unknown_key";
    /// A key that must be there.
    MISSING_KEY = "missing_key";
    /// A value of the wrong type.
    WRONG_TYPE = "wrong_type";
    /// A value of the right type that is not allowed.
    INVALID_VALUE = "invalid_value";
    /// Designed, but not part of this version.
    NOT_SUPPORTED = "not_supported";
    /// A name with characters that names do not have, or that is taken.
    INVALID_NAME = "invalid_name";
    /// Two files or entries of one name.
    DUPLICATE_NAME = "duplicate_name";
    /// No such kind of node.
    UNKNOWN_KIND = "unknown_kind";
    /// No such node.
    UNKNOWN_NODE = "unknown_node";
    /// No such tool.
    UNKNOWN_TOOL = "unknown_tool";
    /// No such skill.
    UNKNOWN_SKILL = "unknown_skill";
    /// The skill does not load.
    BROKEN_SKILL = "broken_skill";
    /// No such graph.
    UNKNOWN_GRAPH = "unknown_graph";
    /// The graph does not load.
    BROKEN_GRAPH = "broken_graph";
    /// A graph that contains itself.
    ENDLESS_GRAPH = "endless_graph";
    /// Too many graphs inside one another.
    NESTED_TOO_DEEP = "nested_too_deep";
    /// No such alias or provider.
    UNKNOWN_MODEL = "unknown_model";
    /// No such channel.
    UNKNOWN_CHANNEL = "unknown_channel";
    /// The channel merges writes in another way than the node needs.
    WRONG_REDUCER = "wrong_reducer";
    /// A name in an expression or template that is no channel.
    UNKNOWN_VARIABLE = "unknown_variable";
    /// An expression or template that does not compile.
    EXPRESSION = "expression";
    /// `{{ }}` inside an expression.
    BRACES_IN_EXPRESSION = "braces_in_expression";
    /// `hello` where `'hello'` was meant.
    BARE_WORD = "bare_word";
    /// A literal that the channel's type does not admit.
    LITERAL_TYPE = "literal_type";
    /// A JSON Schema that is none.
    INVALID_SCHEMA = "invalid_schema";
    /// A node's keys do not make sense together.
    INVALID_NODE = "invalid_node";
    /// A graph without nodes.
    EMPTY_GRAPH = "empty_graph";
    /// No line from START.
    NO_START = "no_start";
    /// A line that leaves END, enters START, or joins one of them.
    INVALID_LINE = "invalid_line";
    /// The same line twice.
    DUPLICATE_LINE = "duplicate_line";
    /// A node that no line from START leads to.
    UNREACHABLE_NODE = "unreachable_node";
    /// A node that no line leaves.
    NO_WAY_ON = "no_way_on";
    /// Only `when` lines and no `otherwise`.
    NO_OTHERWISE = "no_otherwise";
    /// `otherwise` without any `when`.
    NO_WHEN = "no_when";
    /// `when` or `otherwise` on a line with several sources.
    CONDITION_ON_JOIN = "condition_on_join";
    /// A join that waits for more sources than it has.
    JOIN_COUNT = "join_count";
    /// `goto` gives a node that its `among` does not list.
    GOTO_OUTSIDE = "goto_outside";
    /// `cache` on a node that may call what is not `pure`.
    UNSAFE_CACHE = "unsafe_cache";
    /// `cache` on a node that reads what is never the same twice.
    USELESS_CACHE = "useless_cache";
    /// A cycle that goes on until a limit ends the run.
    ENDLESS_CYCLE = "endless_cycle";
    /// Two nodes that can run at the same time write a channel without a reducer.
    PARALLEL_WRITE = "parallel_write";
    /// `schedule: dataflow`: a node reads what another writes at the same time.
    PARALLEL_READ = "parallel_read";
    /// A node that can be fired twice, by lines of different lengths.
    SUGGEST_JOIN = "suggest_join";
}
