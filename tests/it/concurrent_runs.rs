//! Two runs at once over one store.

use std::collections::BTreeMap;

use super::harness::{Bench, WHOLE, WHOLE_NODES};

/// [`WHOLE`], with a first training that takes long enough to be met.
fn slow() -> String {
    let changed = WHOLE.replacen("epochs = 2", "epochs = 25", 1);
    assert_ne!(changed, *WHOLE);
    changed
}

#[test]
fn two_runs_at_once_compute_each_stage_once() {
    let bench = Bench::with(&slow());
    let mut first = bench.start("first", &["run", "p.toml", "--json"]);
    assert!(first.wait_for("runs  pretext"), "{}", first.said());
    let second = bench.start("second", &["run", "p.toml", "--json"]);
    let (one, two) = (first.id(), second.id());
    let (first, second) = (first.end().done(), second.end().done());

    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for stage in first.ran().into_iter().chain(second.ran()) {
        *times.entry(stage).or_default() += 1;
    }
    let once: BTreeMap<&str, usize> = WHOLE_NODES.iter().map(|&stage| (stage, 1)).collect();
    assert_eq!(times, once, "each stage ran once, in one of the two\n{}\n{}", first.err, second.err);
    for said in [&first, &second] {
        let others = said.states().into_iter().filter(|(_, state)| !["ran", "adopted", "fresh"].contains(state));
        assert_eq!(others.collect::<Vec<_>>(), []);
    }
    assert!(second.those("adopted").contains(&"pretext"), "{}", second.err);
    assert_eq!(first.digests(), second.digests());

    let waits: Vec<&str> = second.err.lines().filter(|line| line.contains("waits  pretext")).collect();
    assert!(waits.iter().any(|line| line.contains(&format!("process {one} "))), "{two} says for whom: {}", second.err);
    bench.assert_sound("after two runs at once");
    assert_eq!(bench.run(&[]).done().ran().len(), 0);
}

#[test]
fn two_runs_from_the_very_start_share_the_work() {
    let bench = Bench::with(&WHOLE);
    let both = [bench.start("a", &["run", "p.toml", "--json"]), bench.start("b", &["run", "p.toml", "--json"])];
    let both = both.map(|running| running.end().done());
    let ran: usize = both.iter().map(|said| said.ran().len()).sum();
    assert_eq!(ran, WHOLE_NODES.len(), "{}\n{}", both[0].err, both[1].err);
    assert_eq!(both[0].digests(), both[1].digests());
    bench.assert_sound("after two runs at once");
}

#[test]
fn repetitions_that_do_not_differ_yet_do_not_wait_for_each_other() {
    let pipeline = r#"
        name = "repeated"
        [data.train]
        dataset = "synthetic"
        limit = 60
        [stage.pixels]
        kind = "pixels"
        images = "data.train"
        [stage.features]
        kind = "embed"
        images = "data.train"
        encoder = "pixels"
        [stage.neighbors]
        kind = "neighbors"
        features = "features"
        k = 3
        [stage.clusters]
        kind = "kmeans"
        features = "features"
        encoder = "pixels"
        clusters = 3
        [repeat]
        from = "features"
        seeds = 3
    "#;
    let said = Bench::with(pipeline).run(&["--threads", "4"]).done();
    assert!(!said.err.contains("waits"), "{}", said.err);
    let ran = ["data.train", "pixels", "features@1", "neighbors@1", "clusters@1", "clusters@2", "clusters@3"];
    let mut found = said.ran();
    found.sort_unstable();
    let mut wanted = ran;
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    let fresh = said.those("fresh");
    assert_eq!(fresh, ["features@2", "features@3", "neighbors@2", "neighbors@3"]);
}

#[test]
fn a_run_told_not_to_wait_says_who_is_at_it() {
    let bench = Bench::with(&slow());
    let mut first = bench.start("first", &["run", "p.toml"]);
    assert!(first.wait_for("runs  pretext"));
    let second = bench.run(&["--no-wait", "--until", "pretext"]);
    assert_eq!(second.exit, 5, "{}", second.err);
    assert_eq!(second.those("failed"), ["pretext"]);
    for words in ["another run is computing this stage", &format!("process {}", first.id()), "hint", "--no-wait"] {
        assert!(second.err.contains(words), "`{words}` is not in: {}", second.err);
    }
    assert_eq!(first.end().exit, 0, "the other is not disturbed");
    bench.assert_sound("after a refusal");
}

#[test]
fn the_dead_hold_nothing() {
    let bench = Bench::with(&slow());
    let mut first = bench.start("first", &["run", "p.toml"]);
    assert!(first.wait_for("runs  pretext"));
    assert!(first.kill());
    let second = bench.run(&["--no-wait"]).done();
    assert!(second.ran().contains(&"pretext"));
    bench.assert_sound("after a death");
}

#[test]
fn who_waits_for_one_that_dies_does_the_work_itself() {
    let bench = Bench::with(&slow());
    let mut first = bench.start("first", &["run", "p.toml"]);
    assert!(first.wait_for("runs  pretext"));
    let mut second = bench.start("second", &["run", "p.toml", "--json"]);
    assert!(second.wait_for("waits  pretext"), "{}", second.said());
    assert!(first.kill());
    let second = second.end().done();
    assert!(second.ran().contains(&"pretext"), "{}", second.err);
    assert_eq!(second.digests(), Bench::with(&slow()).run(&[]).done().digests());
    // What the dead had half written goes when a run finds the store to itself.
    assert_eq!(bench.run(&[]).done().ran().len(), 0);
    bench.assert_sound("after a death");
}

#[test]
fn who_waits_can_be_stopped() {
    let bench = Bench::with(&slow());
    let mut first = bench.start("first", &["run", "p.toml"]);
    assert!(first.wait_for("runs  pretext"));
    let mut second = bench.start("second", &["run", "p.toml", "--json"]);
    assert!(second.wait_for("waits  pretext"), "{}", second.said());
    second.signal("INT");
    assert_eq!(second.end().exit, 75);
    assert_eq!(first.end().exit, 0, "the other is not disturbed");
    bench.assert_sound("after a stop");
}
