//! Expressions and templates as they are evaluated: a tree that owns its names and constants.
//!
//! Invariants:
//! - No tree is deeper than `nesting.rs` allows its source, so that walking and dropping one takes
//!   a bounded stack.
//! - Filters, tests and functions are known: a name that is none has been refused.

use crate::expr::{checks, filters, functions};

/// Where something stands, in bytes from the source's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) from: u32,
    pub(super) to: u32,
}

/// One expression and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) what: What,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) enum What {
    Constant(Constant),
    Name(Box<str>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Not(Box<Node>),
    Negative(Box<Node>),
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    Binary(Operator, Box<(Node, Node)>),
    /// `a < b < c`: each with the one before it.
    Compare(Box<Node>, Vec<(Comparison, Node)>),
    Choice(Box<Choice>),
    Attribute(Box<Node>, Box<str>),
    Item(Box<(Node, Node)>),
    Slice(Box<Slice>),
    /// Without an input it works on what stands inside its block.
    Filter(Option<Box<Node>>, filters::Id, Box<Arguments>),
    Test(Box<Node>, checks::Id, Box<Arguments>),
    Call(Callee, Box<Arguments>),
    Method(Box<Node>, Box<str>, Box<Arguments>),
}

#[derive(Debug)]
pub(super) enum Constant {
    Null,
    Bool(bool),
    /// Fits into 64 bits, with or without a sign.
    Int(i128),
    Float(f64),
    Text(Box<str>),
}

/// What makes one value of two. Comparing is [`Comparison`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
    Concat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

/// `yes if test else no`.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) test: Node,
    pub(super) yes: Node,
    pub(super) no: Option<Node>,
}

/// `of[start:stop:step]`.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) of: Node,
    pub(super) start: Option<Node>,
    pub(super) stop: Option<Node>,
    pub(super) step: Option<Node>,
}

#[derive(Debug)]
pub(super) enum Callee {
    Function(functions::Id),
    /// The loop of that name, to be run again over other items.
    Loop(Box<str>),
}

/// What a filter, test or function is given.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    /// Those that are spread (`*list`) are marked.
    pub(super) positional: Vec<(Node, bool)>,
    /// Without a name: a map whose entries are the arguments (`**map`).
    pub(super) named: Vec<(Option<Box<str>>, Node)>,
}

/// One statement of a template.
#[derive(Debug)]
pub(super) enum Step {
    Text(Box<str>),
    Print(Node),
    For(Box<For>),
    /// The first body whose condition is true, else the last.
    If(Vec<(Node, Vec<Step>)>, Vec<Step>),
    With(Vec<(Target, Node)>, Vec<Step>),
    Set(Target, Node),
    /// The text of the body, through the filter if there is one.
    SetText(Target, Option<Node>, Vec<Step>),
    Filter(Node, Vec<Step>),
    /// What it gives is dropped.
    Do(Node),
    Continue,
    Break,
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) over: Node,
    /// Which items count.
    pub(super) only: Option<Node>,
    pub(super) recursive: bool,
    pub(super) body: Vec<Step>,
    /// Where there is no item.
    pub(super) otherwise: Vec<Step>,
}

/// What an assignment names.
#[derive(Debug)]
pub(super) enum Target {
    Name(Box<str>),
    List(Vec<Target>),
    /// Of a namespace.
    Attribute(Node, Box<str>),
}
