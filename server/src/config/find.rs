//! Where `exile.yaml`, the home and the graphs are.

use std::path::{Path, PathBuf};

use super::{ConfigError, Flags, Surroundings, Variables};

/// Files and folders of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `exile.yaml`, if there is one.
    pub config: Option<PathBuf>,
    /// The home.
    pub home: PathBuf,
    /// The folder of graphs; `None`: those in the binary.
    pub graphs: Option<PathBuf>,
}

/// `exile.yaml`: as named, else the nearest one above the working folder.
pub(super) fn config(surroundings: &Surroundings) -> Result<Option<PathBuf>, ConfigError> {
    let named = surroundings.flags.config.clone();
    let named = named.or_else(|| surroundings.variables.get("EXILE_CONFIG").map(PathBuf::from));
    let Some(named) = named else {
        let nearest = surroundings.folder.ancestors().map(|f| f.join("exile.yaml"));
        return Ok(nearest.into_iter().find(|path| path.is_file()));
    };
    let path = surroundings.folder.join(named);
    match path.metadata() {
        Ok(_) => Ok(Some(path)),
        Err(source) => Err(ConfigError::Read { path, source }),
    }
}

/// The other places; those that nobody names are beside `exile.yaml`, or in the working folder.
pub(super) fn places(
    flags: &Flags,
    variables: &Variables,
    base: &Path,
    config: Option<PathBuf>,
) -> Result<Places, ConfigError> {
    let named = |flag: &Option<PathBuf>, name: &str| {
        flag.clone().or_else(|| variables.get(name).map(PathBuf::from))
    };
    let graphs = match named(&flags.graphs, "EXILE_GRAPHS") {
        Some(folder) if folder.is_dir() => Some(folder),
        Some(folder) => {
            return Err(ConfigError::Value {
                name: "the folder of graphs (--graphs or EXILE_GRAPHS)",
                value: folder.display().to_string(),
                why: "there is no such folder".to_owned(),
            });
        }
        None => Some(base.join("graphs")).filter(|beside| beside.is_dir()),
    };
    Ok(Places {
        config,
        home: named(&flags.home, "EXILE_HOME").unwrap_or_else(|| base.join(".exile")),
        graphs,
    })
}
