//! The files of a folder, read with care: their size, their links.

use std::fs;
use std::io;
use std::path::Path;

use crate::bundle::Source;
use crate::diagnostic::{Finding, Place, code};
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
    pub fn read(folder: &Path) -> Self {
        let label = folder.file_name().map_or("graphs".into(), |name| name.to_string_lossy());
        Self::read_as(folder, &label)
    }

    /// `label` stands for the folder in findings and bundles.
    pub(super) fn read_as(folder: &Path, label: &str) -> Self {
        let mut unread = Vec::new();
        let mut good = |files: Vec<Result<Source, Finding>>| -> Vec<Source> {
            files.into_iter().filter_map(|file| file.map_err(|f| unread.push(f)).ok()).collect()
        };
        let skills = good(files(folder, &folder.join("skills"), &format!("{label}/skills")));
        let graphs = good(files(folder, folder, label));
        Self { graphs, skills, unread }
    }
}

/// The YAML files of a folder, by name; none if it is not there. What cannot be read, or lies
/// outside `root`, is a finding.
pub(super) fn files(root: &Path, folder: &Path, label: &str) -> Vec<Result<Source, Finding>> {
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
                Ok(true) => read(&path, &shown),
                Ok(false) => Err(unreadable(&shown, "it is a link that leads outside the folder")),
                Err(error) => Err(unreadable(&shown, &error.to_string())),
            }
        })
        .collect()
}

/// Reads one file, unless it is too large to be looked at.
pub(super) fn read(path: &Path, shown: &str) -> Result<Source, Finding> {
    let failed = |error: io::Error| unreadable(shown, &error.to_string());
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > yaml::SIZE_LIMIT as u64 {
        let message = format!("the file has {size} bytes, more than {}", yaml::SIZE_LIMIT);
        let fix = "split it, or move data out of it";
        return Err(Finding::error(code::TOO_LARGE, shown, Place::START, message, fix));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    Ok(Source { path: shown.to_owned(), text })
}

fn unreadable(path: &str, why: &str) -> Finding {
    let fix = "it must be a readable UTF-8 file inside the folder";
    Finding::error(code::UNREADABLE, path, Place::START, format!("cannot be read: {why}"), fix)
}
