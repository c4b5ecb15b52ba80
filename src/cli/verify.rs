//! `kinset verify`: the check of everything in the store against its hash, and against what the stages declare.

use clap::Args;
use serde_json::json;

use super::args::PlaceArgs;
use super::common::Answer;
use super::terminal;
use crate::base::fault::Exit;
use crate::base::unit;
use crate::registry;
use crate::store::Store;

/// Check every file in the store against its hash; --repair removes damaged results
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kinset verify --repair")]
pub struct VerifyArgs {
    /// Remove damaged results, so that the next run computes them again
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    places: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VerifyArgs) -> Answer {
    let store = if args.repair { Store::open(&args.places.artifacts)? } else { Store::open_existing(&args.places.artifacts)? };
    let found = store.verify(args.repair, Some(&registry::catalog()))?;
    if args.json {
        let findings: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
        terminal::print_json(&json!({
            "records": found.records, "manifests": found.manifests, "blobs": found.blobs, "bytes": found.bytes,
            "findings": findings, "repaired": found.repaired,
        }))?;
    } else {
        let mut text = format!(
            "{} records, {} manifests, {} blobs, {}\n",
            found.records,
            found.manifests,
            found.blobs,
            unit::bytes(found.bytes)
        );
        for finding in &found.findings {
            text.push_str(&format!("  {finding}\n"));
        }
        let ours = found.findings.iter().any(|finding| finding.ours);
        text.push_str(match (found.is_clean(), ours, found.repaired) {
            (true, ..) => "no damage found\n",
            (_, false, _) => {
                "no damage found, but some files do not belong to the store or come from a newer kinset; they are unchanged\n"
            }
            (_, true, true) => "repaired: damaged results were removed; the next run computes them again\n",
            (_, true, false) => "hint: `kinset verify --repair` removes damaged results; the next run computes them again\n",
        });
        terminal::print(&text)?;
    }
    Ok(if found.is_clean() || found.repaired { Exit::Done } else { Exit::Store })
}
