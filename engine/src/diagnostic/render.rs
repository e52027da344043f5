//! Findings as a person reads them in a terminal: each with its source line and a caret.
//!
//! Invariants:
//! - Only what is around a finding is handed to the renderer, which would otherwise go through the
//!   whole file for every one, and fails on lines of more than 65,535 characters.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, MietteError,
    MietteSpanContents, SourceCode, SourceSpan, SpanContents,
};

use super::{Finding, Severity, lines};

/// Findings as a person reads them in a terminal: each with its source line and a caret.
/// `sources` holds the texts by path; a finding without one is shown as a line.
#[must_use]
pub fn render(findings: &[Finding], sources: &BTreeMap<String, String>, color: bool) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_context_lines(1);
    let mut text = String::new();
    for finding in findings {
        let excerpt = sources.get(&finding.path).map(|source| Excerpt::of(source, finding));
        let shown = excerpt.is_some_and(|excerpt| render_one(&handler, &mut text, excerpt).is_ok());
        if !shown {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{finding}");
        }
    }
    text
}

fn render_one(
    handler: &GraphicalReportHandler,
    text: &mut String,
    excerpt: Excerpt<'_>,
) -> std::fmt::Result {
    let finding = excerpt.finding;
    let severity = match finding.severity {
        Severity::Error => miette::Severity::Error,
        Severity::Warning => miette::Severity::Warning,
    };
    let diagnostic = MietteDiagnostic::new(&finding.message)
        .with_severity(severity)
        .with_code(finding.code)
        .with_help(&finding.fix)
        .with_label(LabeledSpan::underline((excerpt.at, excerpt.length)));
    let report = Shown { diagnostic, excerpt };
    handler.render_report(text, &report)
}

/// Characters of a line that are shown on either side of a finding: no terminal is wider, and the
/// renderer's own columns have 16 bits.
const WINDOW: usize = 120;

/// The lines around a finding, without what is far from it.
#[derive(Debug)]
struct Excerpt<'f> {
    finding: &'f Finding,
    text: String,
    /// The number of the first line, from 0.
    line: usize,
    /// Where the finding's word begins, and how long it is, in bytes of `text`.
    at: usize,
    length: usize,
}

impl<'f> Excerpt<'f> {
    fn of(source: &str, finding: &'f Finding) -> Self {
        let before = |n: u32| usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
        let (row, column) = (before(finding.line), before(finding.column));
        let first = row.saturating_sub(1);
        let mut excerpt = Self { finding, text: String::new(), line: first, at: 0, length: 0 };
        for (number, line) in lines(source).enumerate().skip(first).take(3) {
            let begin = excerpt.text.len();
            let cut = if number == row { column.saturating_sub(WINDOW) } else { 0 };
            let from = line.char_indices().nth(cut).map_or(line.len(), |(at, _)| at);
            let shown = &line[from..];
            let end = shown.char_indices().nth(2 * WINDOW).map_or(shown.len(), |(at, _)| at);
            if cut > 0 {
                excerpt.text.push('…');
            }
            excerpt.text.push_str(&shown[..end]);
            if number == row {
                let dots = if cut > 0 { '…'.len_utf8() } else { 0 };
                let at = shown.char_indices().nth(column - cut).map_or(end, |(at, _)| at).min(end);
                let word = shown[at..end].find([' ', ',', ':', ']', '}']).unwrap_or(end - at);
                excerpt.at = begin + dots + at;
                excerpt.length = word.max(usize::from(at < end));
            }
            if end < shown.len() {
                excerpt.text.push('…');
            }
            excerpt.text.push('\n');
        }
        excerpt
    }
}

impl SourceCode for Excerpt<'_> {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let contents = self.text.as_str().read_span(span, before, after)?;
        // Without lines around it this is where the finding is said to stand.
        let column = match usize::try_from(self.finding.column) {
            Ok(column) if before == 0 => column.saturating_sub(1),
            _ => contents.column(),
        };
        Ok(Box::new(MietteSpanContents::new_named(
            self.finding.path.clone(),
            contents.data(),
            *contents.span(),
            self.line + contents.line(),
            column,
            contents.line_count(),
        )))
    }
}

/// A finding with its excerpt, as the renderer takes it.
#[derive(Debug)]
struct Shown<'f> {
    diagnostic: MietteDiagnostic,
    excerpt: Excerpt<'f>,
}

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.diagnostic.fmt(f)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.diagnostic.code()
    }

    fn severity(&self) -> Option<miette::Severity> {
        self.diagnostic.severity()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.diagnostic.help()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.diagnostic.labels()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.excerpt)
    }
}
