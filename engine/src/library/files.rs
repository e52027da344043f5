//! The files of a folder, read with care: their size, their links, and what is no file.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use crate::bundle::Source;
use crate::diagnostic::{Finding, Place, code};
use crate::limits::FileLimits;
use crate::size::Size;
use crate::yaml;

/// What the files of a folder say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `*.yaml`, by name.
    pub graphs: Vec<Source>,
    /// `skills/*.yaml`, by name.
    pub skills: Vec<Source>,
    /// About those that cannot be read at all.
    pub unread: Vec<Finding>,
}

impl Files {
    /// Reads a folder. A folder that is not there holds nothing.
    #[must_use]
    pub fn read(folder: &Path, limits: &FileLimits) -> Self {
        let label = folder.file_name().map_or("graphs".into(), |name| name.to_string_lossy());
        Self::read_as(folder, &label, limits)
    }

    /// `label` stands for the folder in findings and bundles.
    pub(super) fn read_as(folder: &Path, label: &str, limits: &FileLimits) -> Self {
        let mut unread = Vec::new();
        let mut good = |files: Vec<Result<Source, Finding>>| -> Vec<Source> {
            files.into_iter().filter_map(|file| file.map_err(|f| unread.push(f)).ok()).collect()
        };
        let mut room = Room::of(limits);
        let skills = folder.join("skills");
        let skills = good(files(folder, &skills, &format!("{label}/skills"), &mut room));
        let graphs = good(files(folder, folder, label, &mut room));
        Self { graphs, skills, unread }
    }
}

/// What the files of a folder may hold, and how much of that is left.
pub(super) struct Room<'l> {
    limits: &'l FileLimits,
    left: usize,
}

impl<'l> Room<'l> {
    pub(super) fn of(limits: &'l FileLimits) -> Self {
        Self { limits, left: limits.folder }
    }

    /// Reads a file, unless there is no room left for it.
    fn read(&mut self, path: &Path, shown: &str) -> Result<Source, Finding> {
        let source = read(path, shown, self.limits)?;
        let Some(left) = self.left.checked_sub(source.text.len()) else {
            let limit = Size(self.limits.folder);
            let message =
                format!("the files of this folder hold more than {limit} together (`folder_size`)");
            let fix = "remove some; or raise `limits: { folder_size }` in exile.yaml";
            return Err(Finding::error(code::TOO_LARGE, shown, Place::START, message, fix));
        };
        self.left = left;
        Ok(source)
    }
}

/// The YAML files of a folder, by name; none if it is not there. What cannot be read, lies outside
/// `root`, or finds no room, is a finding.
pub(super) fn files(
    root: &Path,
    folder: &Path,
    label: &str,
    room: &mut Room<'_>,
) -> Vec<Result<Source, Finding>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![Err(unreadable(label, &error.to_string()))],
    };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| [".yaml", ".yml"].iter().any(|end| name.ends_with(end)))
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    let inside = |path: &Path| -> io::Result<bool> {
        Ok(path.canonicalize()?.starts_with(root.canonicalize()?))
    };
    names
        .iter()
        .map(|name| {
            let (path, shown) = (folder.join(name), format!("{label}/{name}"));
            match inside(&path) {
                Ok(true) => room.read(&path, &shown),
                Ok(false) => Err(unreadable(&shown, "it is a link that leads outside the folder")),
                Err(error) => Err(unreadable(&shown, &error.to_string())),
            }
        })
        .collect()
}

/// Reads one file, unless it is too large to be looked at.
pub(super) fn read(path: &Path, shown: &str, limits: &FileLimits) -> Result<Source, Finding> {
    let failed = |error: io::Error| unreadable(shown, &error.to_string());
    let known = fs::metadata(path).map_err(failed)?;
    // Reading anything else, such as a pipe, may never end.
    if !known.is_file() {
        return Err(unreadable(shown, "it is no regular file"));
    }
    let within = |bytes: u64| yaml::too_large(shown, bytes, limits).map_or(Ok(()), Err);
    within(known.len())?;
    let mut text = String::new();
    // It may have grown since.
    let most = limits.size as u64 + 1;
    File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)).map_err(failed)?;
    within(text.len() as u64)?;
    Ok(Source { path: shown.to_owned(), text })
}

fn unreadable(path: &str, why: &str) -> Finding {
    let fix = "it must be a readable UTF-8 file inside the folder";
    Finding::error(code::UNREADABLE, path, Place::START, format!("cannot be read: {why}"), fix)
}
