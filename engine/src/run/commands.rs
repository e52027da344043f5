//! What tasks ask of their driver while they run, written down: calls that begin and end, questions,
//! deltas.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::journal::JournalError;
use crate::run::context::Command;
use crate::run::driver::Driver;
use crate::run::end;
use crate::run::record::{Callee, Fact};
use crate::run::task::split;

/// The way from the tasks of a run to its driver. It is made when the first task begins that may use
/// it: many runs have none.
#[derive(Default)]
pub(super) struct Commands(Option<(mpsc::Sender<Command>, mpsc::Receiver<Command>)>);

/// What tasks may ask before the driver takes it in.
const WAITING: usize = 256;

impl Commands {
    /// A task's end.
    pub(super) fn sender(&mut self) -> mpsc::Sender<Command> {
        self.0.get_or_insert_with(|| mpsc::channel(WAITING)).0.clone()
    }

    /// The next command, once there is one. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Command {
        match &mut self.0 {
            Some((_, commands)) => match commands.recv().await {
                Some(command) => command,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// The next command, if there is one.
    pub(super) fn take(&mut self) -> Option<Command> {
        self.0.as_mut()?.1.try_recv().ok()
    }

    /// Whether nothing was asked that is yet to be taken in.
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|(_, commands)| commands.is_empty())
    }
}

impl Driver {
    /// Does what tasks ask, as much as has come in, in one append.
    pub(super) async fn obey(&mut self, first: Command) -> Result<(), JournalError> {
        let mut command = Some(first);
        while let Some(next) = command {
            self.take_command(next).await?;
            command = self.commands.take();
        }
        self.writer.flush().await
    }

    /// Writes down what tasks have done and not yet seen written down, before they are dropped. What
    /// they ask to do is never done.
    pub(super) async fn take_what_happened(&mut self) -> Result<(), JournalError> {
        while let Some(command) = self.commands.take() {
            if matches!(command, Command::Called { .. } | Command::Delta { .. }) {
                self.take_command(command).await?;
            }
        }
        Ok(())
    }

    /// Writes down what a task asks.
    pub(super) async fn take_command(&mut self, command: Command) -> Result<(), JournalError> {
        match command {
            Command::Intent(mut intent, ack) => {
                self.beat(&intent.task);
                if end::is_unsafe(&intent) {
                    self.writer.at_once();
                }
                intent.again = self.made_again(&intent.task, &intent.call, &intent.to);
                self.writer.push(Fact::Intent(intent))?;
                self.writer.acknowledge(ack);
            }
            Command::Asked(asked, ack) => {
                self.beat(&asked.task);
                self.writer.push(Fact::Asked(asked))?;
                self.asked = true;
                if let Some(ack) = ack {
                    self.writer.acknowledge(ack);
                }
            }
            Command::Delta { task, call, shown, delta } => {
                self.beat(&task);
                self.writer.delta(task, call, shown, delta).await?;
            }
            Command::Called { called, message, ack } => {
                self.beat(&called.task);
                if let Some(message) = message {
                    let answers = called.tool.is_some();
                    let shown = called.shown || (answers && self.shows(&called.task));
                    self.writer.message(Arc::new(message), shown);
                }
                self.count(&called);
                self.writer.called(*called)?;
                self.writer.acknowledge(ack);
            }
        }
        Ok(())
    }

    /// Whether something of this message was streamed before and is void now.
    fn made_again(&mut self, task: &str, call: &Arc<str>, to: &Callee) -> bool {
        let streamed = self.writer.void(task, call);
        let task = self.root().and_then(|root| root.task(task));
        let begun = task.is_some_and(|t| t.void.contains(call) || t.open.contains_key(call));
        matches!(to, Callee::Model(_)) && (streamed || begun)
    }

    /// A task did something: it, and every task around it, is not silent.
    fn beat(&self, task: &str) {
        let mut path = task;
        loop {
            if let Some(pulse) = self.live.get(path).and_then(|running| running.pulse.as_ref()) {
                pulse.notify_one();
            }
            match split(path).0 {
                "" => return,
                outer => path = outer,
            }
        }
    }

    /// Whether the graph that a task belongs to talks to the user.
    fn shows(&self, task: &str) -> bool {
        self.instance(split(task).0).is_some_and(|instance| instance.graph.shown)
    }
}
