//! What is said between a test and a worker, one line of JSON each.

use exile_engine::id::{InputId, InterruptId, LogId, RunId};
use exile_engine::journal::{IfActive, Resolution};
use exile_engine::run::record::{Durability, Number, Record};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// From the test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Tell what the store holds of these logs, from these numbers on.
    Read(Vec<(LogId, Number)>),
    /// Begin to run what is due.
    Serve,
    /// Send the start of a run to a log.
    Start {
        log: LogId,
        run: RunId,
        graph: String,
        input: Map<String, Value>,
        durability: Durability,
        if_active: IfActive,
    },
    /// Send that a run goes on from a number of another one: to the log of that one, or to one
    /// that begins with it.
    Fork { log: LogId, run: RunId, graph: String, from: RunId, at: Number },
    /// Send the answer to a question.
    Answer { run: RunId, id: InputId, interrupt: InterruptId, value: Value },
    /// Send what becomes of an open call, or of the run.
    Resolve { run: RunId, id: InputId, call: Option<String>, action: Resolution },
    /// Read the run's stream from its beginning.
    Watch(RunId),
}

/// From the worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// It has opened the store.
    Ready,
    /// The store holds this.
    Holds { log: LogId, records: Vec<(Number, Record)> },
    /// That was everything asked for.
    HasRead,
    /// An append was acknowledged.
    Stored { log: LogId, records: Vec<(Number, Record)> },
    /// An append or a renewal was refused: another worker holds the log.
    Fenced(LogId),
    /// An input was acknowledged.
    Sent(InputId),
    /// The start of a run was refused: another one of its log had not ended.
    Busy(RunId),
    /// The stream that is read gave this.
    Seen { number: Number, name: String, text: Option<String> },
}

/// The id of the input that begins a run.
pub(super) fn start_of(run: &RunId) -> InputId {
    InputId::from(format!("start_{run}"))
}
