//! Stages that several processes compute together: the same bytes under the same key as one process, whatever is killed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::cluster::{QUICK, Slurm, contents, wait_until, workers_of};
use super::harness::{Bench, files_below};

/// Neighbors of so many images.
fn plain(images: usize) -> String {
    format!(
        "name = 'many'\ndevice = 'cpu'\n\
         [data.train]\ndataset = 'synthetic'\nimages = {images}\nclasses = 3\nsize = 8\n\
         [stage.pixels]\nkind = 'pixels'\nimages = 'data.train'\n\
         [stage.features]\nkind = 'embed'\nimages = 'data.train'\nencoder = 'pixels'\n\
         [stage.neighbors]\nkind = 'neighbors'\nfeatures = 'features'\nk = 7\n\
         [stage.outliers]\nkind = 'outliers'\nneighbors = 'neighbors'\n"
    )
}

/// Images whose neighbors take a second.
const MANY: usize = 20_000;
/// Images in as many stripes as there may be parts, and some.
const IMAGES: usize = 2000;

fn rule(parts: usize) -> String {
    format!("[[rule]]\nkind = ['neighbors']\nsplit = {parts}\n")
}

/// Stripes that are kept.
fn stripes(bench: &Bench) -> Vec<PathBuf> {
    let work = files_below(&bench.path("artifacts/store/work"));
    work.into_iter().filter(|path| path.to_string_lossy().contains("/shared/unfinished-")).collect()
}

#[test]
fn any_number_of_parts_leaves_what_one_process_does() {
    let one = Bench::with(&plain(IMAGES));
    let expected = one.run(&["--no-report"]).done();
    for parts in [2, 7] {
        let bench = Bench::with(&plain(IMAGES));
        bench.write("cluster.toml", rule(parts));
        let plan = bench.kinset(&["plan", "p.toml", "--json", "--executor", "local:2"]);
        let planned: Vec<&serde_json::Value> =
            plan.json["stages"].as_array().unwrap().iter().filter(|stage| stage["parts"] == parts).collect();
        assert_eq!(planned.len(), 1, "{}", plan.out);
        let said = bench.run(&["--no-report", "--executor", "local:2"]).done();
        assert_eq!(said.ran(), expected.ran(), "{}", said.err);
        assert!(said.err.contains(&format!("part {parts} of {parts}")), "{}", said.err);
        assert_eq!(said.digests(), expected.digests());
        assert!(contents(&one) == contents(&bench), "the same records and the same blobs");
        assert!(stripes(&bench).is_empty(), "they go when the result is there");
        bench.assert_sound("after parts");
        assert_eq!(bench.run(&["--no-report", "--executor", "local:2"]).done().ran().len(), 0);
    }
}

#[test]
fn what_lists_are_re_ranked_from_and_a_small_table_are_cut_as_well() {
    let text = plain(60).replace("k = 7\n", "k = 7\nrerank = { k1 = 9, k2 = 3 }\n");
    let one = Bench::with(&text);
    let expected = one.run(&["--no-report"]).done().digests();
    let bench = Bench::with(&text);
    // More parts than stripes: some have nothing to do.
    bench.write("cluster.toml", rule(3));
    assert_eq!(bench.run(&["--no-report", "--executor", "local:2"]).done().digests(), expected);
    assert!(contents(&one) == contents(&bench));
}

/// Waits until a part has kept a stripe.
fn wait_for_a_stripe(bench: &Bench) {
    wait_until("a stripe", || !stripes(bench).is_empty());
}

#[test]
fn stripes_outlive_whoever_is_killed() {
    let text = plain(MANY);
    let args = ["run", "p.toml", "--json", "--no-report"];
    let with_parts = [&args[..], &["--executor", "local:2"]].concat();
    let one = Bench::with(&text);
    let expected = one.kinset(&args).done().digests();
    let bench = Bench::with(&text);
    bench.write("cluster.toml", rule(4));
    // The watching process, and with it its workers.
    let running = bench.start("first", &with_parts);
    wait_for_a_stripe(&bench);
    let kept = stripes(&bench);
    let before: Vec<_> = kept.iter().map(|path| fs::metadata(path).unwrap().modified().unwrap()).collect();
    assert!(running.kill());
    // A worker: the stage has failed, and says so.
    let mut running = bench.start("second", &with_parts);
    assert!(running.wait_for("of 4"), "{}", running.said());
    let Some(worker) = workers_of(&running).pop() else { panic!("no worker: {}", running.said()) };
    assert!(Command::new("kill").args(["-9", &worker.to_string()]).status().unwrap().success());
    let said = running.end();
    assert_eq!((said.exit, said.those("failed")), (5, vec!["neighbors"]), "{}", said.err);
    assert!(said.err.contains("its process was killed"), "{}", said.err);
    for (path, before) in kept.iter().zip(before) {
        assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), before, "computed again: {}", path.display());
    }
    // One that is damaged is computed again.
    fs::write(&kept[0], "x").unwrap();
    let said = bench.kinset(&with_parts).done();
    assert!(said.err.contains("the saved progress in") && said.err.contains("is damaged"), "{}", said.err);
    assert_eq!(said.digests(), expected);
    assert!(contents(&one) == contents(&bench));
    bench.assert_sound("after kills");
}

#[test]
fn one_process_takes_the_stripes_that_parts_have_left() {
    let text = plain(MANY);
    let bench = Bench::with(&text);
    bench.write("cluster.toml", rule(4));
    let running = bench.start("first", &["run", "p.toml", "--json", "--no-report", "--executor", "local:2"]);
    wait_for_a_stripe(&bench);
    running.signal("INT");
    let said = running.end();
    assert_eq!((said.exit, said.those("stopped")), (75, vec!["neighbors", "outliers"]), "{}", said.err);
    assert!(!stripes(&bench).is_empty());
    let said = bench.run(&["--no-report"]).done();
    assert_eq!(said.digests(), Bench::with(&text).run(&["--no-report"]).done().digests());
    bench.assert_sound("after a stop");
}

#[test]
fn parts_are_an_array_of_slurm_and_what_follows_waits_for_them() {
    let one = Bench::with(&plain(IMAGES));
    let expected = one.run(&["--no-report"]).done();
    let slurm = Slurm::with(&plain(IMAGES), &format!("{QUICK}{}", rule(3)));
    let rehearsal = slurm.run(&["--dry-run", "scripts"]).done();
    assert_eq!(rehearsal.exit, 0);
    let files = files_below(&slurm.bench.path("scripts"));
    assert!(files.iter().any(|path| path.ends_with("04-neighbors-parts.sbatch")), "{files:?}");
    let submit = fs::read_to_string(slurm.bench.path("scripts/submit.sh")).unwrap();
    assert!(submit.contains("j05=$(sbatch --parsable --dependency=afterok:${j03}:${j04} 05-neighbors.sbatch)"), "{submit}");
    let said = slurm.run(&[]).done();
    assert_eq!(said.ran(), expected.ran(), "{}", said.err);
    assert_eq!(said.digests(), expected.digests());
    assert!(contents(&one) == contents(&slurm.bench));
    // Four stages, parts, and what reads them.
    assert_eq!(slurm.calls("sbatch").len(), 6);
    assert!(slurm.scripts()[3].contains("#SBATCH --array=0-2\n"), "{}", slurm.scripts()[3]);
    let listed = slurm.kinset(&["jobs", "p.toml", "--json"]).done();
    let names: Vec<&str> =
        listed.json["jobs"].as_array().unwrap().iter().map(|job| job["stages"][0].as_str().unwrap()).collect();
    assert!(names.contains(&"neighbors (part 2 of 3)"), "{names:?}");
    let log = slurm.kinset(&["jobs", "p.toml", "--log", "neighbors"]).done();
    assert!(log.out.contains("neighbors"), "{}", log.out);
    slurm.bench.assert_sound("after jobs");
}

#[test]
fn who_comes_back_finds_the_parts_at_work_and_one_that_fails_fails_its_stage() {
    let text = plain(MANY);
    let expected = Bench::with(&text).run(&["--no-report"]).done().digests();
    let rules = format!("{QUICK}{}", rule(3));
    let slurm = Slurm::with(&text, &rules);
    let running = slurm.start("first", &[]);
    wait_for_a_stripe(&slurm.bench);
    assert!(running.kill());
    let said = slurm.run(&[]).done();
    assert_eq!(said.json["jobs"]["submitted"], 0, "{}", said.err);
    assert!(said.json["jobs"]["attached"].as_u64() >= Some(2), "parts, and who puts them together: {}", said.err);
    assert_eq!(said.digests(), expected);

    let slurm = Slurm::with(&text, &rules);
    let running = slurm.start("first", &[]);
    wait_for_a_stripe(&slurm.bench);
    let cancelled = slurm.kinset(&["jobs", "p.toml", "--cancel", "neighbors (part 1 of 3)"]);
    assert_eq!(cancelled.exit, 0, "{}", cancelled.err);
    let said = running.end();
    assert_eq!((said.exit, said.those("failed")), (5, vec!["neighbors"]), "{}", said.err);
    assert!(said.err.contains("its job was cancelled") && said.err.contains("neighbors-parts"), "{}", said.err);
    let said = slurm.run(&[]).done();
    assert_eq!(said.digests(), expected);
}
