//! `exile schema`: the JSON Schema of graphs, skills and `exile.yaml`, for editors.

use clap::{Args, ValueEnum};

use super::error::CliError;
use super::terminal::Terminal;
use crate::process::schema::Subject;

/// Print the JSON Schema of a kind of file.
#[derive(Args)]
pub(super) struct Schema {
    /// Which kind
    #[arg(value_enum)]
    file: File,
}

/// A kind of file.
#[derive(Clone, Copy, ValueEnum)]
enum File {
    /// graphs/*.yaml
    Graph,
    /// graphs/skills/*.yaml
    Skill,
    /// exile.yaml
    Config,
}

impl Schema {
    pub(super) fn run(&self, terminal: &mut Terminal) -> Result<(), CliError> {
        let subject = match self.file {
            File::Graph => Subject::Graph,
            File::Skill => Subject::Skill,
            File::Config => Subject::Config,
        };
        terminal.line(subject.text().trim_end())
    }
}
