//! `kinset completions`: what a shell needs to complete commands and options.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::args::Cli;
use super::common::Answer;
use super::terminal;
use crate::base::fault::Exit;

/// Print a script that completes commands and options in a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset completions bash > ~/.local/share/bash-completion/completions/kinset
  kinset completions zsh > ~/.zfunc/_kinset        with fpath+=~/.zfunc before compinit
  kinset completions fish > ~/.config/fish/completions/kinset.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kinset", &mut script);
    terminal::print_data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
