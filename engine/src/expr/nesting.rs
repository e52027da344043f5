//! Refuses a source that nests too deep before it is parsed.
//!
//! The library's parser recurses where a source nests, and what it makes is dropped recursively:
//! `1+1+…` of 15 KB would end the process. The tokens are the library's own, so this sees exactly
//! what the parser will see; where a source has no more tokens, the parser stops too and says why.
//!
//! Invariants:
//! - What passes takes at most [`OPERATIONS`] in one expression and [`BLOCKS`] around it, counted so
//!   that nothing passes which is deeper, and so that what stands side by side (items, arguments,
//!   statements) does not add up.
//! - A unit stands for 4 KiB of stack where nothing is optimised: parsing the deepest that passes
//!   takes less than half of what a worker has.
//! - One pass, and memory for the open brackets alone.

use minijinja::machinery::{Token, tokenize};

use crate::expr::ExprError;

/// Operations inside one another in one expression: an operator, filter, test or attribute is one,
/// a pair of brackets [`BRACKETS`].
const OPERATIONS: usize = 200;

/// What a pair of brackets counts.
const BRACKETS: usize = 6;

/// Statements inside one another: `elif` is one, a block [`BLOCK`].
const BLOCKS: usize = 80;

/// What a block counts.
const BLOCK: usize = 4;

/// An open bracket, or the whole expression.
#[derive(Default)]
struct Level {
    /// Operations since the last comma.
    here: usize,
    /// Most operations between two commas, with what nests in them.
    most: usize,
}

#[derive(Default)]
struct Scan {
    /// At least one, the expression itself.
    levels: Vec<Level>,
    /// Operations of the levels around the innermost.
    around: usize,
    /// What each open block and its `elif`s count.
    blocks: Vec<usize>,
    blocks_deep: usize,
    /// In a statement: its first word, and whether it assigns.
    statement: Option<Statement>,
}

struct Statement {
    keyword: Option<String>,
    assigns: bool,
}

/// Checks an expression, or a template.
pub(super) fn check(source: &str, is_expression: bool) -> Result<(), ExprError> {
    let mut scan = Scan { levels: vec![Level::default()], ..Scan::default() };
    for token in tokenize(source, is_expression, minijinja::syntax::SyntaxConfig::default()) {
        let Ok((token, span)) = token else { return Ok(()) };
        let at = usize::try_from(span.start_offset).unwrap_or_default();
        if !scan.token(&token) {
            let message = format!(
                "more than {OPERATIONS} operations or {} brackets inside one another; take it apart",
                OPERATIONS / BRACKETS
            );
            return Err(ExprError::new(message, Some(at)));
        }
        if scan.blocks_deep > BLOCKS {
            let message = format!(
                "more than {} blocks or {BLOCKS} `elif`s inside one another; take them apart",
                BLOCKS / BLOCK
            );
            return Err(ExprError::new(message, Some(at)));
        }
    }
    Ok(())
}

impl Scan {
    /// Whether what is open after this token is not too deep.
    fn token(&mut self, token: &Token<'_>) -> bool {
        match token {
            Token::VariableStart | Token::BlockStart => {
                self.levels = vec![Level::default()];
                self.around = 0;
                let block = matches!(token, Token::BlockStart);
                self.statement = block.then_some(Statement { keyword: None, assigns: false });
            }
            Token::BlockEnd => self.statement_ends(),
            Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => self.open(),
            Token::BracketClose | Token::ParenClose | Token::BraceClose => self.close(),
            Token::Comma | Token::Colon => {
                if let Some(level) = self.levels.last_mut() {
                    level.here = 0;
                }
            }
            Token::Assign => {
                if let (Some(statement), 1) = (&mut self.statement, self.levels.len()) {
                    statement.assigns = true;
                }
            }
            Token::Ident(word) => self.word(word),
            Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::FloorDiv
            | Token::Pow
            | Token::Mod
            | Token::Dot
            | Token::Tilde
            | Token::Pipe
            | Token::Eq
            | Token::Ne
            | Token::Gt
            | Token::Gte
            | Token::Lt
            | Token::Lte => self.operation(1),
            Token::TemplateData(_)
            | Token::VariableEnd
            | Token::Str(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Int128(_)
            | Token::Float(_) => {}
        }
        let here = self.levels.last().map_or(0, |level| level.here);
        self.around + here <= OPERATIONS
    }

    fn operation(&mut self, count: usize) {
        if let Some(level) = self.levels.last_mut() {
            level.here += count;
            level.most = level.most.max(level.here);
        }
    }

    fn open(&mut self) {
        self.around += BRACKETS + self.levels.last().map_or(0, |level| level.here);
        self.levels.push(Level::default());
    }

    /// What was inside is one operand now, as deep as its deepest part.
    fn close(&mut self) {
        // A bracket too many is the parser's to report.
        if self.levels.len() < 2 {
            return;
        }
        if let Some(inner) = self.levels.pop() {
            self.around -= BRACKETS + self.levels.last().map_or(0, |level| level.here);
            self.operation(inner.most + 1);
        }
    }

    fn word(&mut self, word: &str) {
        match &mut self.statement {
            Some(statement) if statement.keyword.is_none() => {
                statement.keyword = Some(word.to_owned());
            }
            _ if word == "else" => self.operation(2),
            _ if matches!(word, "and" | "or" | "not" | "in" | "is" | "if") => self.operation(1),
            _ => {}
        }
    }

    fn statement_ends(&mut self) {
        let Some(Statement { keyword: Some(keyword), assigns }) = self.statement.take() else {
            return;
        };
        match keyword.as_str() {
            "for" | "if" | "with" | "filter" | "autoescape" => self.blocks.push(BLOCK),
            "set" if !assigns => self.blocks.push(BLOCK),
            "elif" => {
                if let Some(block) = self.blocks.last_mut() {
                    *block += 1;
                }
            }
            word if word.starts_with("end") => {
                self.blocks.pop();
            }
            _ => {}
        }
        self.blocks_deep = self.blocks.iter().sum();
    }
}
