//! What every statement of the store costs, as SQLite plans it.
//!
//! The statements are read from the sources of `server/src/store`, so that a new one is here by
//! being there: each is planned over an empty, migrated file and may read a whole table, or sort
//! what no index sorts, only if it is named in [`MEANT`] with the reason why. What every turn and
//! page stands on is named in [`HOT`] with the index that it must use.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use exile_server::store;
use sqlx::{ConnectOptions as _, Row as _, SqliteConnection};

use super::Home;

/// Statements that may read a whole table or sort what they found: the file, words of theirs, and
/// why that is meant.
const MEANT: &[(&str, &str, &str)] = &[
    ("mod.rs", "SELECT count(*) FROM exile_probe", "a table of at most one row"),
    ("mod.rs", "FROM sqlite_schema", "the tables of the file, at its opening"),
    (
        "quotas.rs",
        "FROM exile_quota ORDER BY kind",
        "all that an operator set, which is the answer",
    ),
    ("journal.rs", "WHERE worker NOT NULL", "at the opening of the file alone"),
    ("runs.rs", "WITH status (name)", "a page of each status, of which there are seven"),
    ("everybody.rs", "WITH status (name)", "a page of each status, of which there are seven"),
    ("backup.rs", "FROM sqlite_schema", "the tables of the file, before a backup"),
    ("conversations.rs", "UNION SELECT log FROM exile_run", "what is deleted: one conversation"),
    ("history.rs", "WITH RECURSIVE line", "where one log went back, which its history is made of"),
    ("messages.rs", "WHERE m.id = ?1 AND r.owner = ?2", "the places of one message"),
    ("messages.rs", "ORDER BY k.key", "the messages that are named, which is the answer"),
    ("skills.rs", "ORDER BY name", "every skill, which is the answer"),
    ("sign_in.rs", "DELETE FROM exile_sign_in WHERE expires_at", "links of ten minutes"),
    ("sign_in.rs", "DELETE FROM exile_session WHERE seen_at", "sessions, a few for each person"),
    ("users.rs", "WHERE role = 'admin'", "users, looked through when one of them is changed"),
    ("users.rs", "DELETE FROM exile_sign_in", "links of ten minutes"),
    ("retention/orphans.rs", "FROM exile_blob_doubt WHERE since", "what came into doubt lately"),
    ("retention/orphans.rs", "$.migrate.bundle", "inputs that nobody has read yet"),
    ("retention/log.rs", "UNION SELECT first - 1 FROM exile_run", "places in one log, each once"),
    ("usage_report.rs", "GROUP BY k0", "a report over a stretch of time"),
    ("usage_report.rs", "SELECT u.at FROM", "a stretch of time, up to the first row of a report"),
    ("spent.rs", "u.outcome = 'open'", "calls that were open when the process ended"),
];

/// What every turn, page and check stands on: the file, words of the statement, and how it finds its
/// rows. Another index would find them too, by going through all that an owner has.
const HOT: &[(&str, &str, &str)] = &[
    ("append.rs", "SET head = m.value", "exile_log_1 (id=?)"),
    ("append.rs", "WITH good", "exile_log_1 (id=?)"),
    ("conversations.rs", "SELECT * FROM exile_llm_conversation WHERE owner", "owner=? AND rowid<?"),
    ("everybody.rs", "WHERE r.seq < ?1", "r USING INTEGER PRIMARY KEY (rowid<?)"),
    ("everybody.rs", "SELECT s.value AS status", "exile_run_by_status (status=?)"),
    ("everybody.rs", "WHERE r.status = ?3 AND r.seq", "exile_run_by_status (status=? AND rowid<?)"),
    ("everybody.rs", "WHERE r.graph = ?4", "exile_run_by_graph (graph=? AND status=? AND rowid<?)"),
    ("everybody.rs", "WITH status (name)", "exile_run_by_graph (graph=? AND status=? AND rowid<?)"),
    ("everybody.rs", "SELECT * FROM exile_llm_conversation", "PRIMARY KEY (rowid<?)"),
    ("history.rs", "AND number >= coalesce(", "PRIMARY KEY (log=? AND number>?)"),
    (
        "history.rs",
        "SELECT max(r.number)",
        "exile_record_snapshot (log=? AND number>? AND number<?)",
    ),
    ("history.rs", "SELECT r.number, r.version", "(log=? AND number>? AND number<?)"),
    ("idempotency.rs", "SELECT * FROM", "(owner=? AND key=? AND route=?)"),
    ("idempotency.rs", "WHERE rowid IN", "exile_idempotency_begun (begun_at<?)"),
    ("journal.rs", "SELECT l.id, r.first, r.last", "exile_run_1 (id=?)"),
    ("journal.rs", "SELECT l.key, l.head", "exile_run_open (log=?)"),
    ("journal.rs", "SELECT id, body FROM exile_input", "exile_input_unread (log=?)"),
    ("journal.rs", "enough (owner)", "exile_log_free (owner>?)"),
    ("journal.rs", "ORDER BY lease_until LIMIT 1", "exile_log_lapsed (lease_until<?)"),
    ("keys.rs", "WHERE digest = ?1", "(digest=?)"),
    ("messages.rs", "octet_length(content)", "_shown (log=? AND number>? AND number<?)"),
    ("messages.rs", "m.number BETWEEN ?3", "_shown (log=? AND number>? AND number<?)"),
    ("messages.rs", "m.log = ?1 ORDER BY m.seq", "exile_llm_message_log (log=?)"),
    ("retention.rs", "WHERE changed < ?1", "exile_log_changed (changed<?)"),
    ("retention/orphans.rs", "EXISTS (SELECT 1 FROM exile_bundle", "exile_run_bundle (bundle=?)"),
    ("retention/orphans.rs", "$.migrate.bundle", "exile_input_unread"),
    ("retention/orphans.rs", "SELECT blob, 0 FROM", "exile_run_kept (log=?)"),
    ("retention/log.rs", "AS used", "exile_run_kept (log=?)"),
    ("retention/log.rs", "SELECT first - 1 FROM exile_run", "exile_run_kept (log=?)"),
    ("retention/log.rs", "SELECT min(ended_at)", "exile_run_kept (log=?)"),
    ("retention/log.rs", "SET kept = NULL", "exile_run_kept (log=?)"),
    ("retention/log.rs", "SELECT id FROM exile_llm_message", "_hidden (log=? AND number<?)"),
    ("runs.rs", "WHERE r.id = ?1", "exile_run_1 (id=?)"),
    ("runs.rs", "WHERE c.id = ?1", "exile_run_conversation (conversation=? AND status=?)"),
    ("runs.rs", "WHERE r.owner = ?1 AND r.seq", "exile_run_owner (owner=? AND rowid<?)"),
    ("runs.rs", "r.owner = ?1 AND r.status", "(owner=? AND status=? AND rowid<?)"),
    ("runs.rs", "r.graph = ?6 AND r.status", "(owner=? AND graph=? AND status=? AND rowid<?)"),
    ("runs.rs", "WITH status (name)", "(owner=? AND graph=? AND status=? AND rowid<?)"),
    ("runs.rs", "c.owner = ?1 AND r.seq", "exile_run_log (log=? AND rowid<?)"),
    ("runs.rs", "c.owner = ?1 AND r.graph", "exile_run_log (log=? AND rowid<?)"),
    ("runs.rs", "c.owner = ?1 AND r.status", "(conversation=? AND status=? AND rowid<?)"),
    ("runs.rs", "FROM json_each(?1) w", "PRIMARY KEY (log=? AND number=?)"),
    (
        "spent.rs",
        "WHERE kind = ?1 AND subject = ?2",
        "(kind=? AND subject=? AND slot_ms=? AND from_ms>? AND from_ms<?)",
    ),
    (
        "spent.rs",
        "WITH RECURSIVE named",
        "(kind=? AND subject=? AND slot_ms=? AND from_ms>? AND from_ms<?)",
    ),
    ("spent.rs", "SELECT max(at) FROM exile_usage", "exile_usage_at"),
    ("spent.rs", "slot_ms = ?1 AND from_ms < ?2", "exile_spent_from (slot_ms=? AND from_ms<?)"),
    ("spent.rs", "u.outcome = 'open'", "exile_usage_open"),
    ("usage.rs", "WHERE at < ?1", "exile_usage_at (at<?)"),
    ("usage_report.rs", "u.owner = ?10", "exile_usage_owner (owner=? AND at>? AND at<?)"),
];

/// A statement, or several that are sent together, and where they stand.
struct Statement {
    file: String,
    text: String,
}

impl Statement {
    /// Each of them alone.
    fn parts(&self) -> impl Iterator<Item = Statement> {
        let parts = self.text.split(';').map(str::trim).filter(|text| !text.is_empty());
        parts.map(|text| Statement { file: self.file.clone(), text: text.to_owned() })
    }

    /// The numbers of its parameters.
    fn parameters(&self) -> BTreeSet<usize> {
        let numbers = self.text.split('?').skip(1);
        let digits = |rest: &str| rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        numbers.filter_map(|rest| rest[..digits(rest)].parse().ok()).collect()
    }
}

/// The string literals of a source, those of `concat!` put together, as far as they are SQL.
fn statements(file: &str, source: &str, shared: &[(String, String)]) -> Vec<Statement> {
    let mut parts = macros(source);
    parts.extend_from_slice(shared);
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find('"') {
        let before = rest[..at].trim_end();
        let (text, after) = if before.ends_with("concat!(") {
            joined(&rest[at..], &parts)
        } else {
            literal(&rest[at..])
        };
        rest = after;
        let comment = before.rsplit('\n').next().is_some_and(|line| line.contains("//"));
        let sql = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "BEGIN"];
        if !comment && sql.iter().any(|word| text.trim_start().starts_with(word)) {
            found.push(Statement { file: file.into(), text });
        }
    }
    found
}

fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// One literal, and what follows it.
fn literal(source: &str) -> (String, &str) {
    let mut escaped = false;
    let mut characters = source.char_indices().skip(1);
    let end = characters.find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    let end = end.map_or(source.len(), |(at, _)| at);
    let text = source[1..end].replace("\\\n", "").replace("\\\"", "\"");
    (text, &source[(end + 1).min(source.len())..])
}

/// The literals and `name!()` up to the end of a `concat!`.
fn joined<'s>(mut source: &'s str, parts: &[(String, String)]) -> (String, &'s str) {
    let mut all = String::new();
    loop {
        source = source.trim_start_matches([',', ' ', '\n']);
        if source.starts_with('"') {
            let (text, after) = literal(source);
            all += &text;
            source = after;
        } else if let Some((name, after)) = source.split_once("!()")
            && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        {
            all += &parts.iter().find(|(known, _)| known == name).expect(name).1;
            source = after;
        } else {
            return (all, source);
        }
    }
}

/// What each `macro_rules! name { () => { … } }` of a source stands for.
fn macros(source: &str) -> Vec<(String, String)> {
    let mut parts: Vec<(String, String)> = Vec::new();
    for definition in source.split("macro_rules! ").skip(1) {
        let (name, body) = definition.split_once(" {").unwrap();
        let body = body.trim_start().strip_prefix("() => {").unwrap().trim_start();
        let body = body.strip_prefix("concat!(").unwrap_or(body);
        let text = joined(body, &parts).0;
        parts.push((name.to_owned(), text));
    }
    parts
}

/// The sources of a folder and of those in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut here: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    here.sort();
    let (folders, mut found): (Vec<_>, Vec<_>) = here.into_iter().partition(|path| path.is_dir());
    found.retain(|path| path.extension().is_some_and(|e| e == "rs"));
    found.extend(folders.iter().flat_map(|folder| files(folder)));
    found
}

/// Every statement of the store.
fn all() -> Vec<Statement> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut sources = Vec::new();
    for path in files(&folder) {
        let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        if name != "tests.rs" {
            let source = std::fs::read_to_string(&path).unwrap();
            sources.push((name, without_tests(&source).to_owned()));
        }
    }
    // A text that a file takes from another one is that of its `pub(super) use name;`.
    let lent = |source: &String| {
        let mut parts = macros(source);
        parts.retain(|(name, _)| source.contains(&format!("pub(super) use {name};")));
        parts
    };
    let shared: Vec<_> = sources.iter().flat_map(|(_, source)| lent(source)).collect();
    let all = sources.iter().flat_map(|(name, source)| statements(name, source, &shared));
    all.collect()
}

/// How SQLite goes about a statement.
async fn plan(connection: &mut SqliteConnection, statement: &Statement) -> Vec<String> {
    let explain = format!("EXPLAIN QUERY PLAN {}", statement.text);
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(explain)).fetch_all(connection).await;
    let rows = rows.unwrap_or_else(|e| panic!("{}: {e}: {}", statement.file, statement.text));
    rows.iter().map(|row| row.get("detail")).collect()
}

/// What is wrong with a plan.
fn faults(statement: &Statement, plan: &[String]) -> Vec<String> {
    let tables = tables(&statement.text);
    let wrong = |line: &&String| {
        let scanned = line.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
        let whole = scanned.is_some_and(|table| tables.contains(table));
        (whole && !line.contains("VIRTUAL TABLE"))
            || line.contains("TEMP B-TREE")
            || line.contains("AUTOMATIC")
    };
    let mut faults: Vec<String> = plan.iter().filter(wrong).cloned().collect();
    // A parameter that may be left out leaves its index unused: it takes a text of its own.
    let optional = |(at, _): (usize, &str)| {
        let before = statement.text[..at].trim_end_matches(|c: char| c.is_ascii_digit());
        before.ends_with('?')
    };
    if statement.text.match_indices(" IS NULL OR").any(optional) {
        faults.push("a parameter that may be left out".to_owned());
    }
    faults
}

/// The tables that a statement names, and the names that it gives them.
fn tables(text: &str) -> BTreeSet<&str> {
    let mut tables = BTreeSet::new();
    let words: Vec<&str> =
        text.split([' ', '\n', '(', ')', ',']).filter(|w| !w.is_empty()).collect();
    for pair in words.windows(3) {
        if pair[0].starts_with("exile_") || pair[0] == "sqlite_schema" {
            tables.insert(pair[0]);
            tables.insert(if pair[1] == "AS" { pair[2] } else { pair[1] });
        }
    }
    tables.extend(words.iter().filter(|word| word.starts_with("exile_")));
    tables
}

#[tokio::test]
async fn no_statement_costs_more_than_it_gives() {
    let home = Home::new().await;
    let mut connection = store::options(&home.database()).connect().await.unwrap();
    let statements: Vec<_> = all().iter().flat_map(Statement::parts).collect();
    assert!(statements.len() > 90, "{}: the sources are read wrongly", statements.len());
    let mut found = Vec::new();
    let mut unused: BTreeSet<_> = (0..MEANT.len()).collect();
    let mut unmet: BTreeSet<_> = (0..HOT.len()).collect();
    for statement in &statements {
        let Statement { file, text } = statement;
        if ["BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"].contains(&text.as_str()) {
            continue;
        }
        let plan = plan(&mut connection, statement).await;
        let named =
            |(_, (f, words, _)): &(usize, &(&str, &str, &str))| f == file && text.contains(words);
        for (n, (_, _, how)) in HOT.iter().enumerate().filter(named) {
            unmet.remove(&n);
            if !plan.iter().any(|line| line.contains(how)) {
                found.push(format!("{file}: not by {how}, but {}: in\n{text}", plan.join(", ")));
            }
        }
        let faults = faults(statement, &plan);
        match MEANT.iter().enumerate().find(named) {
            _ if faults.is_empty() => {}
            Some((n, _)) => _ = unused.remove(&n),
            None => found.push(format!("{file}: {}: in\n{text}", faults.join(", "))),
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n\n"));
    let unused: Vec<_> = unused.into_iter().map(|n| MEANT[n]).collect();
    assert!(unused.is_empty(), "nothing of the kind is there any more: {unused:?}");
    let unmet: Vec<_> = unmet.into_iter().map(|n| HOT[n]).collect();
    assert!(unmet.is_empty(), "no such statement is there any more: {unmet:?}");
}

/// Of statements that are sent together sqlx takes a number that one of them leaves out for a
/// parameter without a number, and leaves the rest of a statement without values (NULL) once it has
/// counted more of these than there are values (`SqliteArguments::bind`).
#[test]
fn every_parameter_of_statements_that_are_sent_together_has_a_value() {
    for together in all() {
        let values = together.parameters().last().copied().unwrap_or(0);
        let mut unnumbered = 0;
        for statement in together.parts() {
            let numbers = statement.parameters();
            for number in 1..=numbers.last().copied().unwrap_or(0) {
                if !numbers.contains(&number) {
                    unnumbered += 1;
                }
                let (file, text) = (&statement.file, &statement.text);
                let found = numbers.contains(&number) || unnumbered <= values;
                assert!(found, "{file}: the parameters after ?{number} stay NULL in\n{text}");
            }
        }
    }
}
