//! A change of state by a person: as a node would write it, or as the caller of a run would.

use std::sync::Arc;

use crate::id::RunId;
use crate::journal::{EditRun, JournalError, Refusal, Verdict};
use crate::message::Message;
use crate::run::fold::RunState;
use crate::run::instance::GraphInstance;
use crate::run::joins::JoinState;
use crate::run::record::{Activation, Edited, Fact};
use crate::run::schedule::{self, EndedNode, LiveNodes, Transition};
use crate::run::standing::RunAt;
use crate::run::writer::Writer;
use crate::run::writes::{beyond, messages_in, too_heavy};
use crate::state::{Delta, State, Writes};

/// Changes the state of the run that goes on or waits, or of what the last one left. What a run
/// waits for it goes on waiting for, unless the change is made in a node's name.
pub(crate) fn edit(writer: &mut Writer, change: EditRun) -> Result<Verdict, JournalError> {
    let limit = writer.limits().state;
    let Some(RunState { root: Some(root), .. }) = writer.log.run.as_ref() else {
        return edit_values(writer, change);
    };
    let Planned { instance, delta, messages, activation } = match plan(root, &change, limit) {
        Ok(planned) => planned,
        Err(why) => return Ok(Verdict::Refused(Refusal::Edit { why })),
    };
    let (path, shown) = (instance.path.clone(), instance.graph.shown);
    for message in messages {
        writer.message(message, shown);
    }
    let waiting = writer.log.run.as_ref().and_then(|run| run.waiting.clone());
    let EditRun { as_node, by, .. } = change;
    let stays = activation.is_none();
    writer.push(Fact::Edited(Box::new(Edited { path, as_node, by, delta, activation })))?;
    if stays && let Some(waiting) = waiting {
        writer.waiting(&waiting)?;
    }
    Ok(Verdict::Taken)
}

/// A change that can be made.
struct Planned<'r> {
    /// Of which graph's state.
    instance: &'r GraphInstance,
    delta: Delta,
    messages: Vec<Arc<Message>>,
    /// What goes on then, if it is made in a node's name.
    activation: Option<Activation>,
}

/// Works a change out before anything of it is kept. `limit`: bytes that the state may take.
fn plan<'r>(
    root: &'r GraphInstance,
    change: &EditRun,
    limit: usize,
) -> Result<Planned<'r>, String> {
    let instance = root
        .instance(&change.path)
        .ok_or_else(|| format!("there is no graph at `{}` any more", change.path))?;
    let graph = &instance.graph;
    let mut state = State::clone(&instance.state);
    let writes = writes_of(change);
    let delta = state.merge([&writes]).map_err(|error| error.to_string())?;
    let messages = messages_in(graph, &writes);
    if let Some(why) = too_heavy(limit, &state, &delta, &messages) {
        return Err(why);
    }
    let said = messages.iter().map(|m| (m.id.clone(), m.clone())).collect();
    state.apply(&delta, &said).map_err(|error| error.to_string())?;
    let follows = |name: &String| {
        let unknown = || format!("the graph has no node `{name}`");
        let node = graph.position(name).ok_or_else(unknown)?;
        let ended = std::iter::once(EndedNode { node, transition: Transition::Lines });
        let (joins, running) = (JoinState::default(), LiveNodes::default());
        let successors = schedule::after(graph, &state, &instance.scope, ended, &joins, &running)
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(Activation {
            toggled: None,
            filled: successors.joins.filled(graph),
            owed: successors.joins.owed(graph),
            ..instance.activation(&successors)
        })
    };
    let activation = change.as_node.as_ref().map(follows).transpose()?;
    Ok(Planned { instance, delta, messages, activation })
}

/// Changes the channels that the last run of a log left.
fn edit_values(writer: &mut Writer, change: EditRun) -> Result<Verdict, JournalError> {
    let last = writer.log.last.as_ref().map(|last| last.run.clone());
    if last.as_ref().is_some_and(|last| *last != change.run) {
        // Another run came after it: its state is the present one.
        return Ok(Verdict::Refused(Refusal::Ended));
    }
    let (delta, messages) = writer.log.edit(&writes_of(&change));
    let said = messages.iter().map(|message| message.weight()).sum::<usize>();
    if let Some(why) = beyond(writer.limits().state, writer.log.weight_after(&delta) + said, &delta)
    {
        return Ok(Verdict::Refused(Refusal::Edit { why }));
    }
    let run: RunId = last.unwrap_or(change.run);
    for message in messages {
        writer.first_message(message, true, &run);
    }
    let (path, by) = ("".into(), change.by);
    let edited = Edited { path, as_node: None, by, delta, activation: None };
    writer.push(Fact::Edited(Box::new(edited)))?;
    Ok(Verdict::Taken)
}

fn writes_of(change: &EditRun) -> Writes {
    change.writes.iter().map(|(name, value)| (name.as_str().into(), value.clone().into())).collect()
}

impl RunAt {
    /// Whether a run that goes on from here can be changed like that. `limit`: bytes that its state
    /// may take.
    ///
    /// # Errors
    /// Why not: a reducer does not take a value, the state gets too large, or what follows the node
    /// cannot be worked out.
    pub fn admits(&self, change: &EditRun, limit: usize) -> Result<(), String> {
        match &self.root {
            Some(root) => plan(root, change, limit).map(|_| ()),
            None => Ok(()),
        }
    }
}
