//! `kinset man`: manual pages, made from the same definition as the help.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};

use super::args::Cli;
use super::common::{Answer, Failure};
use super::terminal;
use crate::base::fault::{Diagnosis, Exit, Fault, nearest};
use crate::base::{fs, output};

/// Print the manual page of kinset or of a command, or write all pages where `man` finds them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset man run | man -l -
  kinset man --output ~/.local/share/man/man1     then: man kinset, man kinset-run")]
pub struct ManArgs {
    /// The page of this command
    command: Vec<String>,
    /// Write the pages of all commands into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    output: Option<PathBuf>,
}

/// A page that there is not.
#[derive(Debug, thiserror::Error)]
#[error("unknown command `{name}`")]
struct Unknown {
    name: String,
    near: Option<String>,
}

impl Fault for Unknown {
    fn diagnosis(&self) -> Diagnosis {
        let near = self.near.as_ref().map(|near| format!("did you mean `{near}`?"));
        Exit::Usage.code("man::unknown").hint(near.unwrap_or_else(|| "`kinset --help` lists them".into()))
    }
}

pub(super) fn run(args: &ManArgs) -> Answer {
    let pages = pages();
    if let Some(folder) = &args.output {
        fs::create_folders(folder)?;
        for (name, page) in &pages {
            output::write(&folder.join(format!("{name}.1")), page.as_bytes())?;
        }
        terminal::say(&format!("wrote {} pages to `{}`", pages.len(), folder.display()));
        return Ok(Exit::Done);
    }
    let words: Vec<&str> = std::iter::once("kinset").chain(args.command.iter().map(String::as_str)).collect();
    let name = words.join("-");
    let Some((_, page)) = pages.iter().find(|(page, _)| *page == name) else {
        let short = |name: &str| name.trim_start_matches("kinset-").replace('-', " ");
        let near = nearest(&name, pages.iter().map(|(page, _)| page.as_str())).map(short);
        return Err(Failure::own(Unknown { name: short(&name), near }));
    };
    terminal::print_data(page)?;
    Ok(Exit::Done)
}

/// The name and the text of the page of every command.
fn pages() -> Vec<(String, String)> {
    fn add(command: &Command, pages: &mut Vec<(String, String)>) {
        let mut page = Vec::new();
        // Writing into memory does not fail.
        if clap_mangen::Man::new(command.clone()).render(&mut page).is_ok() {
            let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
            pages.push((name, String::from_utf8_lossy(&page).into_owned()));
        }
        command.get_subcommands().filter(|below| below.get_name() != "help").for_each(|below| add(below, pages));
    }
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages);
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options_and_examples() {
        let pages = pages();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.starts_with(&["kinset", "kinset-run"]) && names.contains(&"kinset-data-fetch"), "{names:?}");
        let (_, run) = &pages[1];
        for part in [".TH kinset-run 1", "kinset run pipelines/fashion\\-mini.toml", "\\-\\-checkpoint\\-every"] {
            assert!(run.contains(part), "{part} is not in\n{run}");
        }
    }
}
