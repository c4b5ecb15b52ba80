//! # cli: what did they type, and what do we answer?
//!
//! One file per command. Data go to standard output, talk goes to standard error; messages are lower case without a full stop,
//! values stand in back-ticks, the causes follow, and `hint:` comes last. Colour never says anything alone.
//!
//! Not here: anything else. This is the only room that prints, and nobody imports it but `main`.

pub mod args;
mod common;
mod data;
mod diff;
mod explain;
mod export;
mod gc;
mod graph;
mod init;
mod inspect;
mod methods;
mod plan;
mod plot;
mod predict;
mod report;
mod run;
mod shown;
pub mod similar;
mod status;
mod terminal;
mod verify;
mod version;

use clap::Parser;
use clap::error::ErrorKind;

use crate::base::fault::Exit;
use crate::kernel::isa::Isa;
use args::{Cli, Command};
use common::Failure;

/// Does what was typed; returns how the process should end.
pub fn main() -> Exit {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) if error.kind() == ErrorKind::DisplayVersion && std::env::args_os().any(|arg| arg == "--verbose") => {
            return version::run().unwrap_or_else(|failure| failure.report());
        }
        Err(error) => error.exit(),
    };
    if let Err(fault) = Isa::chosen() {
        return Failure::own(fault).report();
    }
    let result = match command {
        Command::Run(args) => run::run(&args),
        Command::Similar(args) => similar::command::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Gc(args) => gc::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Methods(args) => methods::run(&args),
        Command::Init(args) => init::run(&args),
    };
    result.unwrap_or_else(|failure: Failure| failure.report())
}
