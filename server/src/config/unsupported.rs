//! What the design has and this version has not: named, never silently ignored.

use exile_engine::document::child;

use super::complaint::Complaint;
use super::file::ConfigFile;

/// Everything in the file that this version cannot do.
#[must_use]
pub(super) fn complaints(file: &ConfigFile) -> Vec<Complaint> {
    let mut found = Vec::new();
    sections(file, &mut found);
    store(file, &mut found);
    aliases(file, &mut found);
    if file.traces.content {
        let fix = "write `content: false`, or leave it out";
        found.push(complaint("/traces/content", "content in traces", fix));
    }
    found
}

fn sections(file: &ConfigFile, found: &mut Vec<Complaint>) {
    let sections = [
        ("http_tools", &file.http_tools),
        ("mcp_servers", &file.mcp_servers),
        ("plugins", &file.plugins),
        ("collections", &file.collections),
    ];
    for (name, value) in sections {
        if value.is_some() {
            let fix = "take the section out";
            found.push(complaint(&format!("/{name}"), &format!("`{name}`"), fix));
        }
    }
}

fn store(file: &ConfigFile, found: &mut Vec<Complaint>) {
    if file.store.database.as_deref().is_some_and(|d| d != "sqlite" && !d.is_empty()) {
        let fix = "write `sqlite`, or leave it out; if it is a variable, unset that";
        found.push(complaint("/store/database", "a database other than `sqlite`", fix));
    }
    if file.store.redis.as_deref().is_some_and(|r| !r.is_empty()) {
        let fix = "leave it out; if it is a variable, unset that";
        found.push(complaint("/store/redis", "Redis", fix));
    }
}

fn aliases(file: &ConfigFile, found: &mut Vec<Complaint>) {
    for name in file.models.keys() {
        let place = child("/models", name);
        if name == "embedding" {
            found.push(complaint(&place, "an embedding model", "take the alias out"));
        }
    }
}

fn complaint(place: &str, what: &str, fix: &str) -> Complaint {
    Complaint {
        place: place.to_owned(),
        code: exile_engine::diagnostic::code::NOT_SUPPORTED,
        message: format!("{what} is not supported by this version"),
        fix: fix.to_owned(),
    }
}
