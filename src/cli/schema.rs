//! `kinset schema`: what may stand in a pipeline file, for editors.

use std::path::PathBuf;

use clap::Args;

use super::common::Answer;
use super::terminal;
use crate::base::fault::Exit;
use crate::base::output;
use crate::pipeline::schema;
use crate::registry;

/// Print a JSON Schema of pipeline files, with which editors complete, explain and check settings
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset schema --output kinset.schema.json
  kinset schema > ~/.config/kinset.schema.json

Taplo, and with it \"Even Better TOML\" in VS Code, reads the schema that the first line of a file names:
  #:schema kinset.schema.json                  the path is relative to the file")]
pub struct SchemaArgs {
    /// Where to write it [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &SchemaArgs) -> Answer {
    let text = format!("{:#}\n", schema::schema(&registry::catalog()));
    match &args.output {
        None => terminal::print_data(&text)?,
        Some(path) => {
            output::write(path, text.as_bytes())?;
            terminal::say(&format!(
                "wrote `{}`; `#:schema PATH` in the first line of a pipeline file names it",
                path.display()
            ));
        }
    }
    Ok(Exit::Done)
}
