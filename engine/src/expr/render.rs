//! Renders the statements of a template.
//!
//! Names work as in the library: `for` and `with` have names of their own, those of a `for` are
//! forgotten from item to item; `if` has none.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::expr::budget::{Fault, Outcome};
use crate::expr::datum::{Datum, List, Loop, Text};
use crate::expr::eval::Eval;
use crate::expr::print::Sink;
use crate::expr::syntax::{For, Node, Step, Target};

/// How statements ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Continue,
    Break,
}

impl<'b, 's> Eval<'b, 's> {
    /// Renders a whole template.
    pub(super) fn render(&mut self, steps: &'s [Step]) -> Outcome<String> {
        let mut out = Sink::new(self.budget);
        self.steps(steps, &mut out)?;
        Ok(out.into_text())
    }

    fn steps(&mut self, steps: &'s [Step], out: &mut Sink<'b>) -> Outcome<Flow> {
        self.deeper()?;
        let mut flow = Flow::On;
        for step in steps {
            flow = self.step(step, out)?;
            if flow != Flow::On {
                break;
            }
        }
        self.shallower();
        Ok(flow)
    }

    fn step(&mut self, step: &'s Step, out: &mut Sink<'b>) -> Outcome<Flow> {
        self.budget.spend(1)?;
        match step {
            Step::Text(text) => out.push(text)?,
            Step::Print(node) => {
                let value = self.value(node)?;
                out.print(&value).map_err(|fault| fault.at(node.place))?;
            }
            Step::For(each) => self.begin_each(each, out)?,
            Step::If(branches, otherwise) => return self.branch(branches, otherwise, out),
            Step::With(names, body) => return self.with(names, body, out),
            Step::Set(target, value) => {
                let value = self.value(value)?;
                self.assign(target, value)?;
            }
            Step::SetText(target, filter, body) => {
                return self.set_text(target, filter.as_ref(), body);
            }
            Step::Filter(filter, body) => return self.filter_text(filter, body, out),
            Step::Do(call) => drop(self.value(call)?),
            Step::Continue => return Ok(Flow::Continue),
            Step::Break => return Ok(Flow::Break),
        }
        Ok(Flow::On)
    }

    fn begin_each(&mut self, each: &'s For, out: &mut Sink<'b>) -> Outcome<()> {
        let over = self.value(&each.over)?;
        let items = self.budget.sequence(&over).map_err(|fault| fault.at(each.over.place))?;
        self.each(each, &items, 0, out)
    }

    fn branch(
        &mut self,
        branches: &'s [(Node, Vec<Step>)],
        otherwise: &'s [Step],
        out: &mut Sink<'b>,
    ) -> Outcome<Flow> {
        for (condition, body) in branches {
            if self.holds(condition)? {
                return self.steps(body, out);
            }
        }
        self.steps(otherwise, out)
    }

    fn holds(&mut self, condition: &'s Node) -> Outcome<bool> {
        self.value(condition)?.is_true().map_err(|fault| fault.at(condition.place))
    }

    fn with(
        &mut self,
        names: &'s [(Target, Node)],
        body: &'s [Step],
        out: &mut Sink<'b>,
    ) -> Outcome<Flow> {
        self.frames.push(Vec::new());
        for (target, value) in names {
            let value = self.value(value)?;
            self.assign(target, value)?;
        }
        let flow = self.steps(body, out)?;
        self.frames.pop();
        Ok(flow)
    }

    fn set_text(
        &mut self,
        target: &'s Target,
        filter: Option<&'s Node>,
        body: &'s [Step],
    ) -> Outcome<Flow> {
        let (text, flow) = self.captured(body)?;
        let value = match filter {
            Some(filter) => self.filtered(filter, text)?,
            None => text,
        };
        self.assign(target, value)?;
        Ok(flow)
    }

    fn filter_text(
        &mut self,
        filter: &'s Node,
        body: &'s [Step],
        out: &mut Sink<'b>,
    ) -> Outcome<Flow> {
        let (text, flow) = self.captured(body)?;
        let value = self.filtered(filter, text)?;
        out.print(&value).map_err(|fault| fault.at(filter.place))?;
        Ok(flow)
    }

    /// What statements render, as a value.
    fn captured(&mut self, body: &'s [Step]) -> Outcome<(Datum<'s>, Flow)> {
        let mut text = Sink::new(self.budget);
        let flow = self.steps(body, &mut text)?;
        Ok((Datum::Text(Text::Made(text.into_text().into())), flow))
    }

    fn filtered(&mut self, filter: &'s Node, text: Datum<'s>) -> Outcome<Datum<'s>> {
        self.piped = Some(text);
        self.value(filter)
    }

    /// Runs the loop that something stands in again, over other items; what it renders.
    pub(super) fn again(&mut self, around: &Loop<'s>, over: &Datum<'s>) -> Outcome<Datum<'s>> {
        let Some(each) = around.again else {
            return Err(Fault::new("only a loop marked `recursive` can be called"));
        };
        let items = self.budget.sequence(over)?;
        let mut text = Sink::new(self.budget);
        self.each(each, &items, around.depth + 1, &mut text)?;
        Ok(Datum::Text(Text::Made(text.into_text().into())))
    }

    fn each(
        &mut self,
        each: &'s For,
        items: &Rc<List<'s>>,
        depth: usize,
        out: &mut Sink<'b>,
    ) -> Outcome<()> {
        let items = match &each.only {
            Some(only) => self.only(each, only, items)?,
            None => items.clone(),
        };
        if items.items.is_empty() {
            return self.steps(&each.otherwise, out).map(drop);
        }
        let around = Rc::new(Loop {
            items: items.clone(),
            index: Cell::new(0),
            depth,
            last: RefCell::new(None),
            again: each.recursive.then_some(each),
        });
        self.frames.push(Vec::new());
        for (i, item) in items.items.iter().enumerate() {
            self.budget.spend(1)?;
            around.index.set(i);
            self.begin(Some(&around));
            self.assign(&each.target, item.clone())?;
            if self.steps(&each.body, out)? == Flow::Break {
                break;
            }
        }
        self.frames.pop();
        Ok(())
    }

    /// The items for which a condition holds.
    fn only(
        &mut self,
        each: &'s For,
        condition: &'s Node,
        items: &List<'s>,
    ) -> Outcome<Rc<List<'s>>> {
        let mut chosen = Vec::new();
        self.frames.push(Vec::new());
        for item in &items.items {
            self.begin(None);
            self.assign(&each.target, item.clone())?;
            if self.holds(condition)? {
                self.budget.slots(1)?;
                chosen.push(item.clone());
            }
        }
        self.frames.pop();
        self.budget.list_of(chosen, &[])
    }

    /// Forgets the names of the item before.
    fn begin(&mut self, around: Option<&Rc<Loop<'s>>>) {
        if let Some(frame) = self.frames.last_mut() {
            frame.clear();
            frame.extend(around.map(|around| ("loop", Datum::Loop(around.clone()))));
        }
    }

    fn assign(&mut self, target: &'s Target, value: Datum<'s>) -> Outcome<()> {
        match target {
            Target::Name(name) => {
                let Some(frame) = self.frames.last_mut() else { return Ok(()) };
                match frame.iter_mut().find(|(known, _)| *known == &**name) {
                    Some((_, old)) => *old = value,
                    None => frame.push((name, value)),
                }
                Ok(())
            }
            Target::List(targets) => {
                let list = match &value {
                    Datum::Text(_) => None,
                    other => Some(self.budget.sequence(other)?),
                };
                let parts = list.as_ref().map_or(0, |list| list.items.len());
                let Some(list) = list.filter(|list| list.items.len() == targets.len()) else {
                    let (kind, wanted) = (value.kind(), targets.len());
                    return Err(Fault::new(format!(
                        "{kind} of {parts} cannot be taken apart into {wanted} names"
                    )));
                };
                targets
                    .iter()
                    .zip(&list.items)
                    .try_for_each(|(target, item)| self.assign(target, item.clone()))
            }
            Target::Attribute(of, name) => match self.value(of)? {
                Datum::Namespace(namespace) => namespace.set(self.budget, Text::Lent(name), value),
                other => {
                    let kind = other.defined()?.kind();
                    let message =
                        format!("only a namespace's names can be set, not those of {kind}");
                    Err(Fault::new(message).at(of.place))
                }
            },
        }
    }
}
