//! `kinset verify`: is everything in the store what it claims to be?

use serde_json::json;

use super::args::VerifyArgs;
use super::common::Answer;
use super::terminal;
use crate::base::fault::Exit;
use crate::base::unit;
use crate::store::Store;

pub(super) fn run(args: &VerifyArgs) -> Answer {
    let store = if args.repair { Store::open(&args.places.artifacts)? } else { Store::open_existing(&args.places.artifacts)? };
    let found = store.verify(args.repair)?;
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
        text.push_str(match (found.is_clean(), found.repaired) {
            (true, _) => "all is well\n",
            (false, true) => "repaired: what was damaged is dropped, and the next run makes it again\n",
            (false, false) => "hint: `kinset verify --repair` drops what is damaged, and the next run makes it again\n",
        });
        terminal::print(&text)?;
    }
    Ok(if found.is_clean() || found.repaired { Exit::Done } else { Exit::Store })
}
