//! The graphs and skills that ship, inside the binary: what serves where there is no folder.

use exile_engine::bundle::{Catalog, Source};
use exile_engine::library::Library;

macro_rules! builtin {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../", $path)))),*]
    };
}

/// Path and text of every shipped graph.
const GRAPHS: &[(&str, &str)] = builtin![
    "graphs/agent.yaml",
    "graphs/chat.yaml",
    "graphs/refund-amount.yaml",
    "graphs/refund-desk.yaml",
    "graphs/research.yaml",
];

/// Path and text of every shipped skill.
const SKILLS: &[(&str, &str)] = builtin!["graphs/skills/assistant.yaml"];

/// The library of what ships.
#[must_use]
pub fn library(catalog: &Catalog) -> Library {
    let sources = |files: &[(&str, &str)]| {
        let source = |(path, text): &(&str, &str)| Source {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        files.iter().map(source).collect()
    };
    Library::of(sources(GRAPHS), sources(SKILLS), catalog)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_in_the_binary() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let yaml = |folder: &str| {
            let entries = std::fs::read_dir(root.join(folder)).unwrap();
            let paths = entries.map(|e| e.unwrap().path());
            let paths = paths.filter(|p| p.extension().is_some_and(|e| e == "yaml"));
            let name = |p: std::path::PathBuf| p.file_name().unwrap().to_str().unwrap().to_owned();
            paths.map(|p| format!("{folder}/{}", name(p))).collect::<BTreeSet<_>>()
        };
        let listed = |files: &[(&str, &str)]| {
            files.iter().map(|(path, _)| (*path).to_owned()).collect::<BTreeSet<_>>()
        };
        assert_eq!(listed(GRAPHS), yaml("graphs"));
        assert_eq!(listed(SKILLS), yaml("graphs/skills"));
    }
}
