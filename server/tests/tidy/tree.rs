//! A listing of the repository's text files.

use std::fs;
use std::io;
use std::path::Path;

/// Folders that hold nothing written by hand.
const SKIPPED: &[&str] = &[".git", ".exile", "target", "node_modules"];

/// Files by their path from the root, with `/` between parts, sorted.
pub(crate) struct Tree {
    pub(crate) files: Vec<SourceFile>,
}

/// One file.
pub(crate) struct SourceFile {
    pub(crate) path: String,
    /// Empty for files that are not text.
    pub(crate) text: String,
}

impl Tree {
    /// Reads everything below `root`.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        visit(root, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    /// A sample.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| SourceFile {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        Self { files: files.iter().map(file).collect() }
    }

    /// The file of that path.
    pub(crate) fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether a folder of that path holds anything.
    pub(crate) fn holds(&self, folder: &str) -> bool {
        let inside =
            |path: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        self.files.iter().any(|file| inside(&file.path))
    }

    /// Rust files, tests included.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|f| Path::new(&f.path).extension().is_some_and(|e| e == "rs"))
    }

    /// Rust files that are shipped: no tests, no benches.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = &SourceFile> {
        self.rust().filter(|f| {
            let parts: Vec<&str> = f.path.split('/').collect();
            !parts.iter().any(|p| matches!(*p, "tests" | "benches" | "tests.rs"))
        })
    }

    /// The manifests of crates, with the folder of each.
    pub(crate) fn manifests(&self) -> impl Iterator<Item = (&str, &SourceFile)> {
        self.files.iter().filter_map(|f| Some((f.path.strip_suffix("/Cargo.toml")?, f)))
    }
}

impl SourceFile {
    /// The text without what follows `//` on a line: comments may name anything.
    pub(crate) fn code(&self) -> String {
        self.text
            .lines()
            .map(|l| l.split("//").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Whether the code holds `word` as a whole identifier.
    pub(crate) fn names(&self, word: &str) -> bool {
        let code = self.code();
        let part = |c: char| c.is_alphanumeric() || c == '_';
        code.match_indices(word).any(|(at, _)| {
            !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part)
        })
    }
}

fn visit(folder: &Path, prefix: &str, files: &mut Vec<SourceFile>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            visit(&entry.path(), &format!("{prefix}{name}/"), files)?;
        } else if kind.is_file() {
            let text = String::from_utf8(fs::read(entry.path())?).unwrap_or_default();
            files.push(SourceFile { path: format!("{prefix}{name}"), text });
        }
    }
    Ok(())
}
