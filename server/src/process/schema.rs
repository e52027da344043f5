//! JSON Schemas of the files that people write, for editors and for `exile schema`.
//!
//! They are generated from the types that read the files and kept in `graphs/schema/`, so that an
//! editor finds them beside the graphs; a test fails when the two differ.

use exile_engine::schema;

use crate::config::ConfigFile;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `graphs/*.yaml`.
    Graph,
    /// `graphs/skills/*.yaml`.
    Skill,
    /// `exile.yaml`.
    Config,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Graph, Self::Skill, Self::Config];

    /// As in `graphs/schema/NAME.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Graph => "graph",
            Self::Skill => "skill",
            Self::Config => "config",
        }
    }

    /// The schema (draft-07, the newest that YAML editors speak), as it is stored.
    #[must_use]
    pub fn text(self) -> String {
        let schema = match self {
            Self::Graph => schema::graph(&exile_nodes::kinds::all()),
            Self::Skill => schema::skill(),
            Self::Config => schema::of::<ConfigFile>("config"),
        };
        format!("{schema:#}\n")
    }
}
