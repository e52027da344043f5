//! Evaluates the tree of an expression. Statements of templates are in `render.rs`.
//!
//! Invariants:
//! - Every operation costs a step, and nests at most [`DEPTH`] deep on the stack, loops that run
//!   themselves again included.
//! - What is undefined is an error wherever it is used; only tests (`is defined`) and filters
//!   (`default`) may be given it.

use std::collections::{BTreeMap, VecDeque};

use crate::expr::arguments::Given;
use crate::expr::budget::{Budget, Fault, Outcome};
use crate::expr::compare;
use crate::expr::datum::{Datum, Key, Loop, Text, undefined};
use crate::expr::syntax::{
    Arguments, Callee, Choice, Comparison, Constant, Node, Operator, Slice, What,
};
use crate::expr::{ERROR_NAME, NodeFailure, Scope, access, checks, filters, numbers, operate};
use crate::state::State;

/// Operations and blocks inside one another while evaluating. A source has fewer (`nesting.rs`), a
/// recursive loop may have any number.
const DEPTH: usize = 300;

/// One evaluation.
pub(super) struct Eval<'b, 's> {
    pub(super) budget: &'b Budget,
    state: &'s State,
    scope: &'s Scope,
    /// Names that are set, the innermost block last.
    pub(super) frames: Vec<Frame<'s>>,
    /// What the filters of a block work on.
    pub(super) piped: Option<Datum<'s>>,
    depth: usize,
}

/// Names of one block, in the order in which they were set.
pub(super) type Frame<'s> = Vec<(&'s str, Datum<'s>)>;

impl<'b, 's> Eval<'b, 's> {
    pub(super) fn new(budget: &'b Budget, state: &'s State, scope: &'s Scope) -> Self {
        Self { budget, state, scope, frames: vec![Vec::new()], piped: None, depth: 0 }
    }

    /// Notes that the evaluation goes one deeper; whoever notes it also takes it back.
    pub(super) fn deeper(&mut self) -> Outcome<()> {
        if self.depth >= DEPTH {
            return Err(Fault::new("loops or operations nest too deep inside one another"));
        }
        self.depth += 1;
        Ok(())
    }

    /// The opposite of [`deeper`](Self::deeper). After an error nothing more is evaluated.
    pub(super) fn shallower(&mut self) {
        self.depth -= 1;
    }

    /// The value of an expression: of what it begins with, and then of one operation after the
    /// other around that. What nests to the left costs no stack.
    pub(super) fn value(&mut self, node: &'s Node) -> Outcome<Datum<'s>> {
        self.deeper()?;
        let (mut around, mut first) = (Vec::new(), node);
        while let Some(inner) = left(&first.what) {
            around.push(first);
            first = inner;
        }
        let mut value = self.first(&first.what).map_err(|fault| fault.at(first.place))?;
        for node in around.into_iter().rev() {
            self.budget.spend(1)?;
            value = self.around(&node.what, value).map_err(|fault| fault.at(node.place))?;
        }
        self.shallower();
        Ok(value)
    }

    /// The value of an expression that begins with no other.
    fn first(&mut self, what: &'s What) -> Outcome<Datum<'s>> {
        self.budget.spend(1)?;
        match what {
            What::Constant(constant) => Ok(of_constant(constant)),
            What::Name(name) => self.name(name),
            What::List(items) => self.list(items),
            What::Map(entries) => self.map(entries),
            What::Not(of) => self.not(of),
            What::Negative(of) => self.negative(of),
            What::Choice(choice) => self.choice(choice),
            What::Call(callee, arguments) => self.call(callee, arguments),
            What::Filter(_, filter, arguments) => {
                let piped = self.piped.take().unwrap_or(Datum::UNDEFINED);
                self.filter(*filter, &piped, arguments)
            }
            What::And(_)
            | What::Or(_)
            | What::Binary(..)
            | What::Compare(..)
            | What::Attribute(..)
            | What::Item(_)
            | What::Slice(_)
            | What::Test(..)
            | What::Method(..) => undefined(),
        }
    }

    /// The value of an expression that begins with this one.
    fn around(&mut self, what: &'s What, first: Datum<'s>) -> Outcome<Datum<'s>> {
        match what {
            What::And(pair) => self.either(pair, first, false),
            What::Or(pair) => self.either(pair, first, true),
            What::Binary(operator, pair) => self.binary(*operator, &first, &pair.1),
            What::Compare(_, chain) => self.compare(first, chain),
            What::Attribute(_, name) => access::attribute(&first, name),
            What::Item(pair) => self.item(&first, &pair.1),
            What::Slice(slice) => self.slice(&first, slice),
            What::Filter(_, filter, arguments) => self.filter(*filter, &first, arguments),
            What::Test(_, test, arguments) => self.test(*test, &first, arguments),
            What::Method(_, name, arguments) => self.method(&first, name, arguments),
            What::Constant(_)
            | What::Name(_)
            | What::List(_)
            | What::Map(_)
            | What::Not(_)
            | What::Negative(_)
            | What::Choice(_)
            | What::Call(..) => Ok(first),
        }
    }

    fn not(&mut self, of: &'s Node) -> Outcome<Datum<'s>> {
        Ok(Datum::Bool(!self.value(of)?.is_true()?))
    }

    fn negative(&mut self, of: &'s Node) -> Outcome<Datum<'s>> {
        numbers::negative(&self.value(of)?.defined()?)
    }

    fn choice(&mut self, choice: &'s Choice) -> Outcome<Datum<'s>> {
        let chosen = if self.value(&choice.test)?.is_true()? {
            Some(&choice.yes)
        } else {
            choice.no.as_ref()
        };
        chosen.map_or(Ok(Datum::Undefined { silent: true }), |node| self.value(node))
    }

    fn binary(
        &mut self,
        operator: Operator,
        left: &Datum<'s>,
        right: &'s Node,
    ) -> Outcome<Datum<'s>> {
        let right = self.value(right)?;
        operate::operate(self.budget, operator, left, &right)
    }

    fn item(&mut self, of: &Datum<'s>, key: &'s Node) -> Outcome<Datum<'s>> {
        let key = self.value(key)?;
        access::item(self.budget, of, &key)
    }

    fn filter(
        &mut self,
        filter: filters::Id,
        of: &Datum<'s>,
        arguments: &'s Arguments,
    ) -> Outcome<Datum<'s>> {
        let given = self.given(arguments)?;
        filter.apply(self.budget, of, given)
    }

    fn test(
        &mut self,
        test: checks::Id,
        of: &Datum<'s>,
        arguments: &'s Arguments,
    ) -> Outcome<Datum<'s>> {
        let given = self.given(arguments)?;
        Ok(Datum::Bool(test.holds(self.budget, of, given)?))
    }

    fn list(&mut self, nodes: &'s [Node]) -> Outcome<Datum<'s>> {
        let mut items = Vec::with_capacity(nodes.len());
        for node in nodes {
            items.push(self.value(node)?.defined()?);
        }
        self.budget.list(items)
    }

    fn map(&mut self, nodes: &'s [(Node, Node)]) -> Outcome<Datum<'s>> {
        let mut entries = BTreeMap::new();
        for (key, value) in nodes {
            let key = self.value(key)?.into_key().map_err(|fault| fault.at(key.place))?;
            entries.insert(key, self.value(value)?.defined()?);
        }
        self.budget.map(entries)
    }

    /// `and`, `or`: the first value if it decides, else the second.
    fn either(
        &mut self,
        pair: &'s (Node, Node),
        first: Datum<'s>,
        decides: bool,
    ) -> Outcome<Datum<'s>> {
        if first.is_true().map_err(|fault| fault.at(pair.0.place))? == decides {
            return Ok(first);
        }
        self.value(&pair.1)
    }

    fn compare(&mut self, first: Datum<'s>, chain: &'s [(Comparison, Node)]) -> Outcome<Datum<'s>> {
        let mut left = first.defined()?;
        for (comparison, node) in chain {
            let right = self.value(node)?.defined()?;
            let holds = match comparison {
                Comparison::Eq => compare::equal(self.budget, &left, &right)?,
                Comparison::Ne => !compare::equal(self.budget, &left, &right)?,
                Comparison::In => compare::contains(self.budget, &right, &left)?,
                Comparison::NotIn => !compare::contains(self.budget, &right, &left)?,
                Comparison::Lt => compare::order(self.budget, &left, &right)?.is_lt(),
                Comparison::Le => compare::order(self.budget, &left, &right)?.is_le(),
                Comparison::Gt => compare::order(self.budget, &left, &right)?.is_gt(),
                Comparison::Ge => compare::order(self.budget, &left, &right)?.is_ge(),
            };
            if !holds {
                return Ok(Datum::Bool(false));
            }
            left = right;
        }
        Ok(Datum::Bool(true))
    }

    fn slice(&mut self, of: &Datum<'s>, slice: &'s Slice) -> Outcome<Datum<'s>> {
        let mut bound =
            |bound: &'s Option<Node>| bound.as_ref().map(|node| self.value(node)).transpose();
        let bounds = [bound(&slice.start)?, bound(&slice.stop)?, bound(&slice.step)?];
        access::slice(self.budget, of, &bounds)
    }

    /// Arguments, with what is spread taken apart.
    fn given(&mut self, arguments: &'s Arguments) -> Outcome<Given<'s>> {
        let mut positional = VecDeque::with_capacity(arguments.positional.len());
        for (node, spread) in &arguments.positional {
            let value = self.value(node)?;
            if *spread {
                let list = self.budget.sequence(&value)?;
                self.budget.slots(list.items.len())?;
                positional.extend(list.items.iter().cloned());
            } else {
                positional.push_back(value);
            }
        }
        let mut named = Vec::with_capacity(arguments.named.len());
        for (name, node) in &arguments.named {
            let value = self.value(node)?;
            let Some(name) = name else {
                let pairs = self
                    .budget
                    .pairs(&value)?
                    .ok_or_else(|| Fault::new(format!("`**` takes a map, not {}", value.kind())))?;
                for (key, value) in pairs {
                    if let Key::Text(name) = key {
                        named.push((name, value));
                    }
                }
                continue;
            };
            named.push((Text::Lent(name), value));
        }
        Ok(Given::new(positional, named))
    }

    fn call(&mut self, callee: &'s Callee, arguments: &'s Arguments) -> Outcome<Datum<'s>> {
        match callee {
            Callee::Function(function) => {
                let given = self.given(arguments)?;
                function.call(self.budget, given)
            }
            Callee::Loop(name) => match self.name(name)? {
                Datum::Loop(around) => {
                    let mut given = self.given(arguments)?;
                    let items = given.needed("items")?;
                    given.end()?;
                    self.again(&around, &items)
                }
                other => Err(Fault::new(format!("`{name}` is {}, no function", other.kind()))),
            },
        }
    }

    fn method(
        &mut self,
        of: &Datum<'s>,
        name: &str,
        arguments: &'s Arguments,
    ) -> Outcome<Datum<'s>> {
        let mut given = self.given(arguments)?;
        match (of, name) {
            (Datum::Loop(around), "cycle") => {
                let mut values = given.rest();
                given.end()?;
                if values.is_empty() {
                    return Err(Fault::new("`loop.cycle` needs values"));
                }
                let place = around.index.get() % values.len();
                Ok(values.swap_remove_back(place).unwrap_or(Datum::UNDEFINED))
            }
            (Datum::Loop(around), "changed") => {
                let values = Vec::from(given.rest());
                given.end()?;
                self.changed(around, values)
            }
            _ => {
                let kind = of.clone().defined()?.kind();
                Err(Fault::new(format!(
                    "{kind} has no method `{name}`; filters are written `| {name}`"
                )))
            }
        }
    }

    /// Whether these are other values than those of the last time.
    fn changed(&mut self, around: &Loop<'s>, values: Vec<Datum<'s>>) -> Outcome<Datum<'s>> {
        let values = self.budget.list_of(values, &[])?;
        let last = around.last.replace(Some(values.clone()));
        let same = match last {
            Some(last) => compare::equal(self.budget, &Datum::List(last), &Datum::List(values))?,
            None => false,
        };
        Ok(Datum::Bool(!same))
    }

    /// A name that is set, a channel, or what is always there.
    fn name(&mut self, name: &str) -> Outcome<Datum<'s>> {
        for frame in self.frames.iter().rev() {
            if let Some((_, value)) = frame.iter().rev().find(|(known, _)| *known == name) {
                return Ok(value.clone());
            }
        }
        let scope = self.scope;
        match name {
            "user" => self.object(&[("id", Datum::lent(scope.user.as_str()))]),
            "run" => self.object(&[
                ("id", Datum::lent(scope.run.as_str())),
                ("graph", Datum::lent(&scope.graph)),
            ]),
            "conversation" => match &scope.conversation {
                Some(id) => self.object(&[("id", Datum::lent(id.as_str()))]),
                None => Ok(Datum::Null),
            },
            "now" => self.budget.made(&scope.now.to_string()),
            name => match (self.state.get(name), &scope.error) {
                (Some(channel), _) => Ok(Datum::of_channel(channel)),
                (None, Some(error)) if name == ERROR_NAME => self.failure(error),
                (None, _) => Ok(Datum::UNDEFINED),
            },
        }
    }

    fn failure(&self, error: &'s NodeFailure) -> Outcome<Datum<'s>> {
        let NodeFailure { code, message, node, item } = error;
        self.object(&[
            ("code", Datum::lent(code)),
            ("message", Datum::lent(message)),
            ("node", Datum::lent(node)),
            ("item", item.map_or(Datum::Null, Datum::count)),
        ])
    }

    fn object(&self, entries: &[(&'s str, Datum<'s>)]) -> Outcome<Datum<'s>> {
        let entry =
            |(name, value): &(&'s str, Datum<'s>)| (Key::Text(Text::Lent(name)), value.clone());
        self.budget.map(entries.iter().map(entry).collect())
    }
}

/// What an expression begins with, and is evaluated first.
fn left(what: &What) -> Option<&Node> {
    match what {
        What::And(pair) | What::Or(pair) | What::Binary(_, pair) | What::Item(pair) => {
            Some(&pair.0)
        }
        What::Compare(of, _)
        | What::Attribute(of, _)
        | What::Test(of, ..)
        | What::Method(of, ..) => Some(of),
        What::Slice(slice) => Some(&slice.of),
        What::Filter(of, ..) => of.as_deref(),
        What::Constant(_)
        | What::Name(_)
        | What::List(_)
        | What::Map(_)
        | What::Not(_)
        | What::Negative(_)
        | What::Choice(_)
        | What::Call(..) => None,
    }
}

fn of_constant(constant: &Constant) -> Datum<'_> {
    match constant {
        Constant::Null => Datum::Null,
        Constant::Bool(yes) => Datum::Bool(*yes),
        Constant::Int(whole) => Datum::Int(*whole),
        Constant::Float(float) => Datum::Float(*float),
        Constant::Text(text) => Datum::lent(text),
    }
}
