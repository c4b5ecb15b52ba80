//! `kinset report`: the results of a pipeline as one page.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::args::ReportArgs;
use super::common::{Answer, outlook};
use super::terminal;
use crate::base::fault::{Exit, chain};
use crate::base::unit;
use crate::pipeline::state::{Known, Outlook};
use crate::report::file;
use crate::report::gather::{Elsewhere, Glance};

pub(super) fn run(args: &ReportArgs) -> Answer {
    outlook(&args.pipeline, |spec, outlook| {
        let glance = Glance::at(outlook, args.stage.as_deref());
        if args.json {
            terminal::print_json(&glance.gather())?;
            return Ok(Exit::Done);
        }
        let path = args.out.clone().unwrap_or_else(|| file::place(&args.pipeline.places.artifacts, &spec.name));
        let bytes = file::write(&glance, &path)?;
        terminal::print(&path.display().to_string())?;
        terminal::say(&format!("one page of {}; it opens without a network", unit::bytes(bytes as u64)));
        Ok(Exit::Done)
    })
}

/// Writes the report at the end of a run with these results, if it says anything new. Whatever goes wrong here, the results stand.
/// `elsewhere` finds pictures of features that were brought along.
pub(super) fn after_run(outlook: &Outlook<'_>, known: &Known, path: PathBuf, elsewhere: Elsewhere<'_>) -> Option<PathBuf> {
    let written = catch_unwind(AssertUnwindSafe(|| {
        // Whether those pictures are still the same is not known.
        let sure = elsewhere.is_empty();
        let glance = Glance::after(outlook, known).with_pictures(elsewhere);
        if sure && file::is_current(&path, glance.fingerprint()) { Ok(0) } else { file::write(&glance, &path) }
    }));
    match written {
        Ok(Ok(_)) => Some(path),
        Ok(Err(error)) => {
            terminal::say(&format!("warning: no report: {}; the results are not touched by this", chain(&error)));
            None
        }
        Err(_) => {
            terminal::say(
                "warning: no report: making it failed, which is a bug of kinset; the results are not touched by this",
            );
            None
        }
    }
}
