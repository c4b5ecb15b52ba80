//! Faults of what kinset itself keeps: any file below the folder of artifacts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kinset::base::seed::Seed;

use super::super::harness::{Bench, CHEAP, WHOLE, files_below};
use super::kit::{Damage, Digests, Series, attempt, count};

const RUN: [&str; 4] = ["run", "p.toml", "--json", "--no-report"];

/// Files below a folder by what they are: the folders they lie in, without names that are digests, times or stages.
fn by_kind(artifacts: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files_below(artifacts) {
        let within = file.strip_prefix(artifacts).unwrap();
        let parts: Vec<String> = within.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let kind = match parts.as_slice() {
            [store, kind, ..] if store == "store" => format!("store/{kind}"),
            [_, runs, _, ..] if runs == "runs" => "runs".to_owned(),
            _ => format!("view/{}", parts[parts.len() - 1]),
        };
        kinds.entry(kind).or_default().push(file);
    }
    kinds
}

#[test]
fn whatever_becomes_of_any_file_of_the_artifacts_a_repair_and_a_run_make_it_right() {
    let text: &str = if count(0, 1) == 0 { CHEAP } else { &WHOLE };
    let wanted = Bench::with(text).run(&["--no-report"]).done().digests();
    let mut series = Series::new("damage to any file of the artifacts");
    let mut rng = Seed::new(41).branch("artifacts").rng();
    let mut bench = Bench::with(text);
    bench.run(&[]).done();
    for number in 0..count(24, 200) {
        let kinds = by_kind(&bench.path("artifacts"));
        // Every kind of file and every damage meet in turn.
        let (kind, files) = kinds.iter().nth(number % kinds.len()).unwrap();
        let damage = Damage::ALL[(number / kinds.len() + number) % Damage::ALL.len()];
        let file = &files[rng.below(files.len())];
        let how = format!("{kind} {damage:?} ({})", file.strip_prefix(bench.path("artifacts")).unwrap().display());
        damage.to(file, &mut rng).keep();
        if !mends(&mut series, &how, &bench, &wanted) {
            bench = Bench::with(text);
            bench.run(&[]).done();
        }
    }
    series.finish();
}

/// Runs on damage, repairs and runs again; whether the last run gives what was wanted.
fn mends(series: &mut Series, how: &str, bench: &Bench, wanted: &Digests) -> bool {
    let said = attempt(&mut bench.command(&RUN));
    series.ended(how, &said);
    if said.exit == 0 {
        series.same(&format!("{how}: other digests at once"), &said.digests(), wanted);
    }
    series.ended_with(&format!("{how}: repair"), &attempt(&mut bench.command(&["verify", "--repair"])), &[0]);
    series.recovers(how, bench, &RUN, wanted)
}

/// The record of a stage, by the key that its view names.
pub(super) fn record_of(bench: &Bench, pipeline: &str, stage: &str) -> PathBuf {
    let about = fs::read_to_string(bench.path(format!("artifacts/{pipeline}/{stage}/stage.json"))).unwrap();
    let about: serde_json::Value = serde_json::from_str(&about).unwrap();
    let key = about["key"].as_str().unwrap();
    let found = files_below(&bench.path("artifacts/store/records")).into_iter();
    found.into_iter().find(|path| path.to_string_lossy().contains(key)).unwrap()
}

/// The stages whose blobs are flipped below; those that read them run again then.
fn stages(bench: &Bench, pipeline: &str) -> Vec<String> {
    let views = files_below(&bench.path("artifacts").join(pipeline)).into_iter().filter(|path| path.ends_with("stage.json"));
    views.map(|path| path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_flipped_byte_in_any_blob_reaches_no_result_that_stays() {
    let (text, pipeline): (&str, _) = if count(0, 1) == 0 { (CHEAP, "cheap") } else { (&WHOLE, "whole") };
    let mut series = Series::new("flipped bytes in blobs that stages read");
    let mut rng = Seed::new(42).branch("blobs").rng();
    let mut bench = Bench::with(text);
    let wanted = bench.run(&["--no-report"]).done().digests();
    // Each blob with the record that names it; both are named by what is in them, in whatever place.
    let mut blobs = Vec::new();
    for stage in stages(&bench, pipeline) {
        let own = record_of(&bench, pipeline, &stage);
        let record = fs::read_to_string(&own).unwrap();
        for blob in files_below(&bench.path("artifacts/store/blobs")) {
            if record.contains(blob.file_name().unwrap().to_str().unwrap()) {
                let [own, blob] = [&own, &blob].map(|path| path.strip_prefix(bench.path("")).unwrap().to_owned());
                blobs.push((stage.clone(), own, blob));
            }
        }
    }
    for (stage, own, blob) in &blobs {
        for _ in 0..count(2, 4) {
            let how = format!("{} of {stage}", blob.display());
            Damage::Flipped.to(&bench.path(blob), &mut rng).keep();
            // Everything else must be computed again, from the damage or without it.
            for other in files_below(&bench.path("artifacts/store/records")) {
                if other != bench.path(own) {
                    fs::remove_file(other).unwrap();
                }
            }
            if !mends(&mut series, &how, &bench, &wanted) {
                bench = Bench::with(text);
                bench.run(&["--no-report"]).done();
            }
        }
    }
    series.finish();
}

#[test]
fn a_flipped_byte_anywhere_in_a_record_is_seen() {
    let text: &str = if count(0, 1) == 0 { CHEAP } else { &WHOLE };
    let mut series = Series::new("flipped bytes in records");
    let mut rng = Seed::new(43).branch("records").rng();
    let bench = Bench::with(text);
    let wanted = bench.run(&["--no-report"]).done().digests();
    for record in files_below(&bench.path("artifacts/store/records")) {
        for _ in 0..count(3, 12) {
            let damaged = Damage::Flipped.to(&record, &mut rng);
            let how = damaged.first_difference();
            // The store is damaged; `verify` says so.
            series.ended_with(&how, &attempt(&mut bench.command(&["verify"])), &[6]);
            damaged.undo();
        }
        Damage::Flipped.to(&record, &mut rng).keep();
        let said = attempt(&mut bench.command(&RUN));
        series.ended("a run over a flipped record", &said);
        if said.exit == 0 {
            series.same("other digests by a flipped record", &said.digests(), &wanted);
        }
        series.ended_with("a repair", &attempt(&mut bench.command(&["verify", "--repair"])), &[0]);
        series.recovers("after a flipped record", &bench, &RUN, &wanted);
    }
    series.finish();
}
