//! Where names, filters and tests stand in a source. The library tells which names a source
//! reads, not where; this is only for places and for spelling, never for meaning.

/// The words of a source that are code, without those inside strings, comments and plain text.
pub(super) struct Words<'s> {
    list: Vec<Word<'s>>,
}

struct Word<'s> {
    text: &'s str,
    at: usize,
    /// The last character before it that is no space.
    before: Option<char>,
}

impl<'s> Words<'s> {
    /// Of an expression: all of it is code.
    pub(super) fn of_expression(source: &'s str) -> Self {
        let mut words = Self { list: Vec::new() };
        words.scan(source, 0);
        words
    }

    /// Of a template: code is what stands in `{{ … }}` and `{% … %}`.
    pub(super) fn of_template(source: &'s str) -> Self {
        let mut words = Self { list: Vec::new() };
        let mut at = 0;
        while let Some(open) = source[at..].find('{').map(|found| at + found) {
            let rest = &source[open..];
            at = match rest.as_bytes().get(1) {
                Some(b'#') => rest.find("#}").map_or(source.len(), |end| open + end + 2),
                Some(b'{') => words.scan_until(source, open + 2, "}}"),
                Some(b'%') if is_raw(&rest[2..]) => {
                    rest.find("endraw").map_or(source.len(), |end| open + end)
                }
                Some(b'%') => words.scan_until(source, open + 2, "%}"),
                _ => open + 1,
            };
        }
        words
    }

    /// Where a variable of that name first stands.
    pub(super) fn variable(&self, name: &str) -> Option<usize> {
        let reads = |word: &&Word<'_>| word.text == name && !matches!(word.before, Some('.' | '|'));
        self.list.iter().find(reads).map(|word| word.at)
    }

    /// Names after `|`.
    pub(super) fn filters(&self) -> impl Iterator<Item = (&'s str, usize)> {
        self.list.iter().filter(|word| word.before == Some('|')).map(|word| (word.text, word.at))
    }

    /// Names after `is` and `is not`.
    pub(super) fn tests(&self) -> impl Iterator<Item = (&'s str, usize)> {
        self.list.iter().enumerate().filter_map(|(i, word)| {
            let earlier = |back: usize| i.checked_sub(back).map(|at| self.list[at].text);
            let tested = earlier(1) == Some("is") && word.text != "not"
                || earlier(1) == Some("not") && earlier(2) == Some("is");
            tested.then_some((word.text, word.at))
        })
    }

    fn scan_until(&mut self, source: &'s str, from: usize, close: &str) -> usize {
        let end = code_end(&source[from..], close).map_or(source.len(), |end| from + end);
        self.scan(&source[from..end], from);
        end
    }

    fn scan(&mut self, code: &'s str, base: usize) {
        let mut chars = code.char_indices().peekable();
        let mut before = None;
        while let Some((at, c)) = chars.next() {
            if c == '\'' || c == '"' {
                skip_string(&mut chars, c);
            } else if c.is_alphabetic() || c == '_' {
                let mut end = at + c.len_utf8();
                while let Some((next, c)) = chars.next_if(|(_, c)| c.is_alphanumeric() || *c == '_')
                {
                    end = next + c.len_utf8();
                }
                self.list.push(Word { text: &code[at..end], at: base + at, before });
            }
            if !c.is_whitespace() {
                before = Some(c);
            }
        }
    }
}

/// Whether a block's code opens verbatim text.
fn is_raw(code: &str) -> bool {
    code.trim_start_matches(['-', '+', ' ']).starts_with("raw")
}

/// Texts that an expression gives as they stand: `'a'`, both of `'a' if x else 'b'`, the items of
/// `['a', 'b']`. What it works out is not among them.
pub(super) fn outcomes(source: &str) -> Vec<(&str, usize)> {
    let (begin, end) = (source.find(|c: char| !c.is_whitespace()), source.trim_end().len());
    let list = begin.filter(|at| source[*at..end].starts_with('['));
    match list.and_then(|at| Some((at, code_end(&source[at + 1..end], "]")? + at + 1))) {
        Some((at, close)) if close + 1 == end => given(&source[..close], at + 1, &[","]),
        _ => given(source, 0, &["if", "else"]),
    }
}

/// Texts of `source` from a byte on that stand alone between these words.
fn given<'s>(source: &'s str, from: usize, between: &[&str]) -> Vec<(&'s str, usize)> {
    let mut tokens: Vec<(&str, usize)> = Vec::new();
    let mut chars = source[from..].char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let at = from + at;
        if c == '\'' || c == '"' {
            skip_string(&mut chars, c);
        } else if c.is_alphanumeric() || c == '_' {
            while chars.next_if(|(_, c)| c.is_alphanumeric() || *c == '_').is_some() {}
        } else if c.is_whitespace() {
            continue;
        }
        let end = chars.peek().map_or(source.len(), |(next, _)| from + next);
        tokens.push((&source[at..end], at));
    }
    let edge = |token: Option<&(&str, usize)>| token.is_none_or(|(t, _)| between.contains(t));
    let alone = |i: usize| {
        // The condition of an `if` is not what it gives.
        let condition = i.checked_sub(1).is_some_and(|before| tokens[before].0 == "if");
        !condition && edge(i.checked_sub(1).and_then(|i| tokens.get(i))) && edge(tokens.get(i + 1))
    };
    let text = |token: &'s str| {
        let inner = token.strip_prefix(['\'', '"'])?.strip_suffix(['\'', '"'])?;
        (!inner.contains('\\')).then_some(inner)
    };
    let given = tokens.iter().enumerate().filter(|(i, _)| alone(*i));
    given.filter_map(|(_, (token, at))| Some((text(token)?, *at))).collect()
}

type Chars<'c> = std::iter::Peekable<std::str::CharIndices<'c>>;

fn skip_string(chars: &mut Chars<'_>, quote: char) {
    let mut escaped = false;
    for (_, c) in chars.by_ref() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => break,
            _ => {}
        }
    }
}

/// Where `close` first stands outside strings.
fn code_end(code: &str, close: &str) -> Option<usize> {
    let mut chars = code.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\'' || c == '"' {
            skip_string(&mut chars, c);
        } else if code[at..].starts_with(close) {
            return Some(at);
        }
    }
    None
}

/// Whether template braces stand in what should be an expression, outside strings; where.
pub(super) fn braces(source: &str) -> Option<usize> {
    ["{{", "{%"].iter().filter_map(|open| code_end(source, open)).min()
}
