//! How much an installation admits. Every bound stands here under the name that it has below
//! `limits` in `exile.yaml`, with a default that real documents fit into.
//!
//! Absent on purpose: limits of one graph (`limits` in its own file) and limits of sockets, which
//! belong to the server.

use crate::json::Bounds;

/// Bounds of everything that graphs, tools and models hand to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `nesting` and `values`: JSON from outside, and every value that is written to a channel.
    pub json: Bounds,
    /// `tool_result`: bytes of a tool's answer that reach a model or a record; what is longer is
    /// cut.
    pub tool_result: usize,
    /// `state`: bytes that the channels of one graph may take in memory, about.
    pub state: usize,
    /// `map_items`: items of a list that one `map` works on.
    pub map_items: usize,
    /// `cache`: bytes that the results of nodes with `cache` may take in memory, about.
    pub cache: usize,
    /// `histories`: bytes that logs may take in memory between two turns, about, so that the next
    /// turn need not read them.
    pub histories: usize,
    /// `runs`: logs that one process drives at once; others wait in the store.
    pub runs: usize,
    /// Answers of models.
    pub answer: AnswerLimits,
    /// Expressions and templates.
    pub expression: ExpressionLimits,
    /// Graphs, skills and configurations.
    pub files: FileLimits,
}

/// Bounds of one YAML file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimits {
    /// `file_size`: its bytes.
    pub size: usize,
    /// `folder_size`: bytes of all files of its folder together.
    pub folder: usize,
    /// `file_values`: its values, counting every alias as all that it stands for.
    pub values: usize,
    /// `file_expanded`: bytes of its texts and keys, counting every alias as all that it stands
    /// for.
    pub expanded: usize,
    /// `file_checks`: steps of what is looked for in a graph as a whole, such as nodes that can run
    /// at the same time.
    pub checks: u64,
    /// What to do with a file that meets one of these.
    pub beyond: Beyond,
}

/// What to do with a file that is beyond a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// It is at fault.
    Refuse,
    /// It is looked at again later, with more patience.
    Postpone,
}

impl Default for FileLimits {
    fn default() -> Self {
        Self {
            size: 1024 * 1024,
            folder: 16 * 1024 * 1024,
            values: 100_000,
            expanded: 4 * 1024 * 1024,
            checks: 50_000_000,
            beyond: Beyond::Refuse,
        }
    }
}

/// Bounds of one answer of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerLimits {
    /// `answer`: bytes of its text, reasoning and tool calls; also of vectors.
    pub bytes: usize,
    /// `answer_pieces`: pieces that it may come in.
    pub pieces: usize,
}

impl Default for AnswerLimits {
    fn default() -> Self {
        Self { bytes: 16 * 1024 * 1024, pieces: 1_000_000 }
    }
}

/// Bounds of one expression or template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpressionLimits {
    /// `expression_source`: bytes of its source.
    pub source: usize,
    /// `expression_result`: bytes of what it gives, and of every text on the way there.
    pub result: usize,
    /// `expression_steps`: operations of one evaluation; 64 bytes that are made or looked through
    /// are one.
    pub steps: u64,
    /// `nesting`: levels of lists and maps in a value.
    pub nesting: usize,
}

impl Default for ExpressionLimits {
    fn default() -> Self {
        Self {
            source: 64 * 1024,
            result: 4 * 1024 * 1024,
            steps: 500_000,
            nesting: Bounds::DEFAULT.depth,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            json: Bounds::DEFAULT,
            tool_result: 64 * 1024,
            state: 64 * 1024 * 1024,
            map_items: 20_000,
            cache: 64 * 1024 * 1024,
            histories: 64 * 1024 * 1024,
            runs: 16_000,
            answer: AnswerLimits::default(),
            expression: ExpressionLimits::default(),
            files: FileLimits::default(),
        }
    }
}
