//! From a source to the tree that is evaluated. The only file beside `nesting.rs` that names the
//! library's parser, whose interface is not stable: its version is pinned in `Cargo.toml`.
//!
//! What the language of the library has and this one has not is refused here, by name: blocks,
//! includes, imports and macros are not compiled in at all, escaping for HTML has no use in prompts.
//!
//! Invariants:
//! - Nothing is folded: a comparison of two constants is made, and refused, like any other.
//! - A number is kept to the digit or refused.
//! - What a source reads is what it looks up and does not define itself; of a name that it defines
//!   from itself (`{% set n = n + 1 %}`) the first is read.

use std::collections::BTreeSet;

use minijinja::machinery::ast::{self, BinOpKind, CompareOpKind, UnaryOpKind};
use minijinja::machinery::{Span, parse as parse_template, parse_expr};
use minijinja::{ErrorKind, Value};

use crate::expr::syntax::{
    Arguments, Callee, Choice, Comparison, Constant, For, Node, Operator, Place, Slice, Step,
    Target, What,
};
use crate::expr::{ExprError, Read, checks, excerpt, filters, functions, nesting};
use crate::json;
use crate::limits::ExpressionLimits;
use crate::size::Size;

/// A source that was understood.
pub(super) struct Parsed<T> {
    pub(super) tree: T,
    /// Names that it needs from outside, in the order of their first places.
    pub(super) reads: Vec<Read>,
}

/// Parses an expression.
pub(super) fn expression(
    source: &str,
    limits: &ExpressionLimits,
) -> Result<Parsed<Node>, ExprError> {
    bounded(source, limits)?;
    if source.trim().is_empty() {
        return Err(ExprError::new("an expression cannot be empty", Some(0)));
    }
    nesting::check(source, true)?;
    let tree = parse_expr(source).map_err(|error| syntax_error(&error, source))?;
    let mut reader = Reader::new(source);
    let tree = reader.node(&tree)?;
    Ok(Parsed { tree, reads: reader.reads })
}

/// Parses a template.
pub(super) fn template(
    source: &str,
    limits: &ExpressionLimits,
) -> Result<Parsed<Vec<Step>>, ExprError> {
    bounded(source, limits)?;
    nesting::check(source, false)?;
    let syntax = minijinja::syntax::SyntaxConfig::default();
    let tree = parse_template(source, "template", syntax).map_err(|e| syntax_error(&e, source))?;
    let mut reader = Reader::new(source);
    let tree = match &tree {
        ast::Stmt::Template(template) => reader.steps(&template.children)?,
        other => vec![reader.step(other)?],
    };
    Ok(Parsed { tree, reads: reader.reads })
}

fn bounded(source: &str, limits: &ExpressionLimits) -> Result<(), ExprError> {
    if source.len() <= limits.source {
        return Ok(());
    }
    let message = format!(
        "{} bytes are more than the {} allowed (`limits: {{ expression_source }}` in exile.yaml)",
        source.len(),
        Size(limits.source)
    );
    Err(ExprError::new(message, Some(0)))
}

fn syntax_error(error: &minijinja::Error, source: &str) -> ExprError {
    let range = error.range().filter(|range| source.get(range.clone()).is_some());
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::SyntaxError, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    let place = range.clone().and_then(|range| source.get(range)).unwrap_or(source);
    ExprError::new(format!("{what} in `{}`", excerpt(place)), range.map(|range| range.start))
}

struct Reader<'s> {
    source: &'s str,
    reads: Vec<Read>,
    read: BTreeSet<String>,
    /// Names that are defined, by block.
    defined: Vec<BTreeSet<String>>,
}

type Parse<T> = Result<T, ExprError>;

impl<'s> Reader<'s> {
    fn new(source: &'s str) -> Self {
        let defined = vec![BTreeSet::new()];
        Self { source, reads: Vec::new(), read: BTreeSet::new(), defined }
    }

    fn refuse<T>(place: Place, message: impl Into<String>) -> Parse<T> {
        Err(ExprError::new(message, Some(offset(place.from))))
    }

    /// Goes down to the leftmost part first and comes back up: `a.b + c | d` nests to the left, and
    /// costs no stack.
    fn node(&mut self, expr: &ast::Expr<'_>) -> Parse<Node> {
        let (mut around, mut first) = (Vec::new(), expr);
        while let Some(inner) = left(first) {
            around.push(first);
            first = inner;
        }
        let first = self.first(first)?;
        around.into_iter().rev().try_fold(first, |inner, expr| self.around(expr, inner))
    }

    /// An expression that begins with no other.
    fn first(&mut self, expr: &ast::Expr<'_>) -> Parse<Node> {
        let place = place(expr.span());
        let what = match expr {
            ast::Expr::Const(constant) => self.constant(&constant.value, place)?,
            ast::Expr::Var(name) => self.name(name.id, place),
            ast::Expr::List(list) => What::List(self.nodes(&list.items)?),
            ast::Expr::Tuple(tuple) => What::List(self.nodes(&tuple.items)?),
            ast::Expr::Map(map) => {
                let keys = self.nodes(&map.keys)?;
                What::Map(keys.into_iter().zip(self.nodes(&map.values)?).collect())
            }
            ast::Expr::UnaryOp(unary) => {
                let of = Box::new(self.node(&unary.expr)?);
                match unary.op {
                    UnaryOpKind::Not => What::Not(of),
                    UnaryOpKind::Neg => What::Negative(of),
                }
            }
            ast::Expr::Filter(filter) => self.filter(None, filter, place)?,
            ast::Expr::Call(call) => self.call(call, place)?,
            _ => return Self::refuse(place, "this cannot be understood"),
        };
        Ok(Node { what, place })
    }

    /// An expression around the one that it begins with.
    fn around(&mut self, expr: &ast::Expr<'_>, inner: Node) -> Parse<Node> {
        let (from, of) = (inner.place.from, place(expr.span()));
        let what = match expr {
            ast::Expr::BinOp(binary) => binary_of(binary.op, inner, self.node(&binary.right)?),
            ast::Expr::Compare(chain) => {
                let link = |op: &ast::CompareOp<'_>| Ok((comparison(op.op), self.node(&op.expr)?));
                let chain = chain.ops.iter().map(link).collect::<Parse<_>>()?;
                What::Compare(Box::new(inner), chain)
            }
            ast::Expr::IfExpr(choice) => What::Choice(Box::new(Choice {
                test: self.node(&choice.test_expr)?,
                yes: inner,
                no: self.optional(choice.false_expr.as_ref())?,
            })),
            ast::Expr::GetAttr(attribute) => {
                What::Attribute(Box::new(inner), attribute.name.into())
            }
            ast::Expr::GetItem(item) => {
                What::Item(Box::new((inner, self.node(&item.subscript_expr)?)))
            }
            ast::Expr::Slice(slice) => What::Slice(Box::new(Slice {
                of: inner,
                start: self.optional(slice.start.as_ref())?,
                stop: self.optional(slice.stop.as_ref())?,
                step: self.optional(slice.step.as_ref())?,
            })),
            ast::Expr::Filter(filter) => self.filter(Some(Box::new(inner)), filter, of)?,
            ast::Expr::Test(test) => self.test(inner, test, of)?,
            ast::Expr::Call(call) => match call.identify_call() {
                ast::CallType::Method(_, name) => {
                    let arguments = Box::new(self.arguments(&call.args)?);
                    What::Method(Box::new(inner), name.into(), arguments)
                }
                _ => return Self::refuse(of, "only functions and methods can be called"),
            },
            _ => return Self::refuse(of, "this cannot be understood"),
        };
        Ok(Node { what, place: Place { from, ..of } })
    }

    fn nodes(&mut self, exprs: &[ast::Expr<'_>]) -> Parse<Vec<Node>> {
        exprs.iter().map(|expr| self.node(expr)).collect()
    }

    fn optional(&mut self, expr: Option<&ast::Expr<'_>>) -> Parse<Option<Node>> {
        expr.map(|expr| self.node(expr)).transpose()
    }

    fn constant(&self, value: &Value, place: Place) -> Parse<What> {
        let range = offset(place.from)..offset(place.to);
        let written = self.source.get(range).unwrap_or_default().trim().replace('_', "");
        let decimal =
            !matches!(written.as_bytes(), [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..]);
        if value.is_number() && decimal && !json::keeps_digits(&written) {
            let number = excerpt(&written);
            let why = if written.contains(['.', 'e', 'E']) {
                "has more digits than a number can keep"
            } else {
                "does not fit into 64 bits"
            };
            return Self::refuse(place, format!("{number} {why}; write it as a text, in quotes"));
        }
        Ok(What::Constant(if value.is_none() {
            Constant::Null
        } else if let Some(text) = value.as_str() {
            Constant::Text(text.into())
        } else if value.is_integer() {
            let whole = u64::try_from(value.clone()).map(i128::from);
            match whole {
                Ok(whole) => Constant::Int(whole),
                Err(_) => return Self::refuse(place, "a whole number must fit into 64 bits"),
            }
        } else if value.is_number() {
            Constant::Float(f64::try_from(value.clone()).unwrap_or_default())
        } else {
            Constant::Bool(value.is_true())
        }))
    }

    fn name(&mut self, name: &str, place: Place) -> What {
        let known = self.defined.iter().any(|names| names.contains(name));
        if !known && functions::find(name).is_none() && self.read.insert(name.to_owned()) {
            self.reads.push(Read { name: name.to_owned(), at: offset(place.from) });
        }
        What::Name(name.into())
    }

    fn filter(
        &mut self,
        input: Option<Box<Node>>,
        filter: &ast::Filter<'_>,
        place: Place,
    ) -> Parse<What> {
        let Some(id) = filters::find(filter.name) else {
            return Self::refuse(place, format!("no filter is named `{}`", filter.name));
        };
        Ok(What::Filter(input, id, Box::new(self.arguments(&filter.args)?)))
    }

    fn test(&mut self, of: Node, test: &ast::Test<'_>, place: Place) -> Parse<What> {
        let Some(id) = checks::find(test.name) else {
            return Self::refuse(place, format!("no test is named `{}`", test.name));
        };
        Ok(What::Test(Box::new(of), id, Box::new(self.arguments(&test.args)?)))
    }

    /// A function, or a loop that is run again.
    fn call(&mut self, call: &ast::Call<'_>, place: Place) -> Parse<What> {
        let ast::CallType::Function(name) = call.identify_call() else {
            return Self::refuse(place, "only functions and methods can be called");
        };
        let callee = if let Some(function) = functions::find(name) {
            Callee::Function(function)
        } else {
            // A name that nobody defines is found as every other one is.
            let _ = self.name(name, place);
            Callee::Loop(name.into())
        };
        Ok(What::Call(callee, Box::new(self.arguments(&call.args)?)))
    }

    fn arguments(&mut self, args: &[ast::CallArg<'_>]) -> Parse<Arguments> {
        let mut arguments = Arguments::default();
        for arg in args {
            match arg {
                ast::CallArg::Pos(expr) => arguments.positional.push((self.node(expr)?, false)),
                ast::CallArg::PosSplat(expr) => {
                    arguments.positional.push((self.node(expr)?, true));
                }
                ast::CallArg::Kwarg(name, expr) => {
                    arguments.named.push((Some((*name).into()), self.node(expr)?));
                }
                ast::CallArg::KwargSplat(expr) => arguments.named.push((None, self.node(expr)?)),
            }
        }
        Ok(arguments)
    }

    fn steps(&mut self, statements: &[ast::Stmt<'_>]) -> Parse<Vec<Step>> {
        statements.iter().map(|statement| self.step(statement)).collect()
    }

    /// Statements whose names end with them.
    fn block(&mut self, statements: &[ast::Stmt<'_>]) -> Parse<Vec<Step>> {
        self.defined.push(BTreeSet::new());
        let steps = self.steps(statements);
        self.defined.pop();
        steps
    }

    fn step(&mut self, statement: &ast::Stmt<'_>) -> Parse<Step> {
        Ok(match statement {
            ast::Stmt::Template(template) => {
                return Self::refuse(place(template.span()), "a template inside a template");
            }
            ast::Stmt::EmitRaw(raw) => Step::Text(raw.raw.into()),
            ast::Stmt::EmitExpr(emit) => Step::Print(self.node(&emit.expr)?),
            ast::Stmt::ForLoop(each) => Step::For(Box::new(self.each(each)?)),
            ast::Stmt::IfCond(condition) => self.condition(condition)?,
            ast::Stmt::WithBlock(with) => {
                self.defined.push(BTreeSet::new());
                let mut names = Vec::with_capacity(with.assignments.len());
                for (target, value) in &with.assignments {
                    let value = self.node(value)?;
                    names.push((self.target(target)?, value));
                }
                let body = self.steps(&with.body)?;
                self.defined.pop();
                Step::With(names, body)
            }
            ast::Stmt::Set(set) => {
                let value = self.node(&set.expr)?;
                Step::Set(self.target(&set.target)?, value)
            }
            ast::Stmt::SetBlock(set) => {
                let body = self.block(&set.body)?;
                let filter = self.optional(set.filter.as_ref())?;
                Step::SetText(self.target(&set.target)?, filter, body)
            }
            ast::Stmt::FilterBlock(block) => {
                let body = self.block(&block.body)?;
                Step::Filter(self.node(&block.filter)?, body)
            }
            ast::Stmt::AutoEscape(block) => {
                let message = "`autoescape` is not part of this language: nothing is escaped";
                return Self::refuse(place(block.span()), message);
            }
            ast::Stmt::Continue(_) => Step::Continue,
            ast::Stmt::Break(_) => Step::Break,
            ast::Stmt::Do(call) => {
                let place = place(call.span());
                Step::Do(match call.call.identify_call() {
                    ast::CallType::Method(of, name) => {
                        let of = Box::new(self.node(of)?);
                        let arguments = Box::new(self.arguments(&call.call.args)?);
                        Node { what: What::Method(of, name.into(), arguments), place }
                    }
                    _ => Node { what: self.call(&call.call, place)?, place },
                })
            }
        })
    }

    fn condition(&mut self, condition: &ast::IfCond<'_>) -> Parse<Step> {
        let mut branches = vec![(self.node(&condition.expr)?, self.block(&condition.true_body)?)];
        let mut rest = &condition.false_body;
        // `elif` is an `if` alone in the `else` of the one before it.
        while let [ast::Stmt::IfCond(next)] = rest.as_slice() {
            branches.push((self.node(&next.expr)?, self.block(&next.true_body)?));
            rest = &next.false_body;
        }
        Ok(Step::If(branches, self.block(rest)?))
    }

    fn each(&mut self, each: &ast::ForLoop<'_>) -> Parse<For> {
        let over = self.node(&each.iter)?;
        self.defined.push(BTreeSet::from(["loop".to_owned()]));
        let target = self.target(&each.target)?;
        let only = self.optional(each.filter_expr.as_ref())?;
        let body = self.steps(&each.body)?;
        self.defined.pop();
        let otherwise = self.block(&each.else_body)?;
        Ok(For { target, over, only, recursive: each.recursive, body, otherwise })
    }

    fn target(&mut self, target: &ast::Expr<'_>) -> Parse<Target> {
        let at = place(target.span());
        Ok(match target {
            ast::Expr::Var(name) => {
                if let Some(names) = self.defined.last_mut() {
                    names.insert(name.id.to_owned());
                }
                Target::Name(name.id.into())
            }
            ast::Expr::List(list) => {
                Target::List(list.items.iter().map(|t| self.target(t)).collect::<Parse<_>>()?)
            }
            ast::Expr::GetAttr(attribute) => {
                Target::Attribute(self.node(&attribute.expr)?, attribute.name.into())
            }
            _ => return Self::refuse(at, "nothing can be assigned here"),
        })
    }
}

/// What an expression begins with.
fn left<'a, 's>(expr: &'a ast::Expr<'s>) -> Option<&'a ast::Expr<'s>> {
    match expr {
        ast::Expr::BinOp(binary) => Some(&binary.left),
        ast::Expr::Compare(chain) => Some(&chain.expr),
        ast::Expr::IfExpr(choice) => Some(&choice.true_expr),
        ast::Expr::GetAttr(attribute) => Some(&attribute.expr),
        ast::Expr::GetItem(item) => Some(&item.expr),
        ast::Expr::Slice(slice) => Some(&slice.expr),
        ast::Expr::Filter(filter) => filter.expr.as_ref(),
        ast::Expr::Test(test) => Some(&test.expr),
        ast::Expr::Call(call) => match call.identify_call() {
            ast::CallType::Function(_) => None,
            ast::CallType::Method(of, _) | ast::CallType::Object(of) => Some(of),
        },
        _ => None,
    }
}

fn binary_of(op: BinOpKind, left: Node, right: Node) -> What {
    let compare =
        |comparison, left, right| What::Compare(Box::new(left), vec![(comparison, right)]);
    let operate = |operator, left, right| What::Binary(operator, Box::new((left, right)));
    match op {
        BinOpKind::ScAnd => What::And(Box::new((left, right))),
        BinOpKind::ScOr => What::Or(Box::new((left, right))),
        BinOpKind::Eq => compare(Comparison::Eq, left, right),
        BinOpKind::Ne => compare(Comparison::Ne, left, right),
        BinOpKind::Lt => compare(Comparison::Lt, left, right),
        BinOpKind::Lte => compare(Comparison::Le, left, right),
        BinOpKind::Gt => compare(Comparison::Gt, left, right),
        BinOpKind::Gte => compare(Comparison::Ge, left, right),
        BinOpKind::In => compare(Comparison::In, left, right),
        BinOpKind::Add => operate(Operator::Add, left, right),
        BinOpKind::Sub => operate(Operator::Sub, left, right),
        BinOpKind::Mul => operate(Operator::Mul, left, right),
        BinOpKind::Div => operate(Operator::Div, left, right),
        BinOpKind::FloorDiv => operate(Operator::FloorDiv, left, right),
        BinOpKind::Rem => operate(Operator::Rem, left, right),
        BinOpKind::Pow => operate(Operator::Pow, left, right),
        BinOpKind::Concat => operate(Operator::Concat, left, right),
    }
}

fn comparison(op: CompareOpKind) -> Comparison {
    match op {
        CompareOpKind::Eq => Comparison::Eq,
        CompareOpKind::Ne => Comparison::Ne,
        CompareOpKind::Lt => Comparison::Lt,
        CompareOpKind::Lte => Comparison::Le,
        CompareOpKind::Gt => Comparison::Gt,
        CompareOpKind::Gte => Comparison::Ge,
        CompareOpKind::In => Comparison::In,
        CompareOpKind::NotIn => Comparison::NotIn,
    }
}

fn place(span: Span) -> Place {
    Place { from: span.start_offset, to: span.end_offset }
}

fn offset(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}
