//! `kinset schema`: what may stand in a pipeline file, or in a cluster file, for editors.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::common::Answer;
use super::terminal;
use crate::base::fault::Exit;
use crate::base::output;
use crate::pipeline::catalog::Catalog as _;
use crate::pipeline::{dispatch, schema};
use crate::registry;

/// Print a JSON Schema of pipeline files or cluster files, with which editors complete, explain and check settings
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset schema --output kinset.schema.json
  kinset schema > ~/.config/kinset.schema.json
  kinset schema cluster --output cluster.schema.json

Taplo, and with it \"Even Better TOML\" in VS Code, reads the schema that the first line of a file names:
  #:schema kinset.schema.json                  the path is relative to the file")]
pub struct SchemaArgs {
    /// Of which files
    #[arg(value_enum, default_value = "pipeline")]
    of: Of,
    /// Where to write it [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Of {
    /// Pipelines
    Pipeline,
    /// `cluster.toml`
    Cluster,
}

pub(super) fn run(args: &SchemaArgs) -> Answer {
    let catalog = registry::catalog();
    let (schema, file) = match args.of {
        Of::Pipeline => (schema::schema(&catalog), "a pipeline file"),
        Of::Cluster => (dispatch::schema::schema(&catalog.kinds()), "`cluster.toml`"),
    };
    let text = format!("{schema:#}\n");
    match &args.output {
        None => terminal::print_data(&text)?,
        Some(path) => {
            output::write(path, text.as_bytes())?;
            terminal::say(&format!("wrote `{}`; `#:schema PATH` in the first line of {file} names it", path.display()));
        }
    }
    Ok(Exit::Done)
}
