//! The rules that every stage keeps. Loops over the registry: who adds a stage adds no line here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use candle_core::Device;
use kinset::base::search_path::DataPaths;
use kinset::pipeline::spec::{self, Node, Request};
use kinset::pipeline::state::{Inputs, Known, Outlook};
use kinset::registry;
use kinset::stage::testing::Heard;
use kinset::stage::{AnyDraft, AnyStage, Context, Share, StageError, Stop};
use kinset::store::Store;
use kinset::store::blob::NewFile;
use kinset::store::digest::Digest;
use kinset::store::record::Lookup;
use serde_json::Value;

use super::harness::{Bench, WHOLE, WHOLE_NODES, ground, methods, tiny_stage};

#[test]
fn every_stage_says_what_it_does_in_the_same_form() {
    let mut kinds = Vec::new();
    for stage in registry::all() {
        let kind = stage.kind();
        assert!(
            kind.starts_with(|c: char| c.is_ascii_lowercase())
                && kind.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
            "`{kind}` is not in snake_case"
        );
        assert!(!kinds.contains(&kind), "`{kind}` is there twice");
        kinds.push(kind);
        assert!(stage.version() >= 1, "{kind}");
        let summary = stage.summary();
        assert!((10..=100).contains(&summary.chars().count()), "{kind}: one line, `{summary}`");
        assert!(!summary.ends_with('.') && !summary.contains('\n'), "{kind}: `{summary}`");
        assert!(!stage.outputs().is_empty(), "{kind} writes nothing");
        for name in stage.ports().iter().map(|port| port.name).chain(stage.outputs().iter().map(|output| output.name)) {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{kind}: `{name}`");
            assert!(stage.default_settings().get(name).is_none() || stage.outputs().iter().any(|o| o.name == name));
        }
    }
}

#[test]
fn every_method_has_a_full_card_and_reads_no_labels() {
    for stage in registry::all() {
        let Some(card) = stage.card() else { continue };
        let parts = [
            ("paper", card.paper),
            ("reads", card.reads),
            ("writes", card.writes),
            ("idea", card.idea),
            ("loss", card.loss),
            ("selection", card.selection),
            ("as_in_paper", card.as_in_paper),
            ("unlike_paper", card.unlike_paper),
            ("expect", card.expect),
        ];
        for (part, text) in parts {
            assert!(text.trim().len() >= 5, "{}: its sign says nothing of `{part}`", stage.kind());
        }
        assert!(card.paper.contains("20"), "{}: a paper has a year: {}", stage.kind(), card.paper);
        for port in stage.ports() {
            assert!(!["labels", "scores"].contains(&port.artifact), "{} reads {}", stage.kind(), port.artifact);
        }
    }
}

#[test]
fn default_settings_are_without_complaint_and_come_back_unchanged() {
    for stage in registry::all() {
        let settings = stage.default_settings();
        assert!(settings.is_object(), "{}", stage.kind());
        // What has no default is empty, and must be said: a source its data set, imported weights their file. That is all.
        for complaint in stage.check_settings(&settings) {
            assert_eq!(settings.get(&complaint.path), Some(&"".into()), "{}: {complaint:?}", stage.kind());
        }
        assert_eq!(stage.normalize(&settings).unwrap(), settings, "{}", stage.kind());
    }
}

#[test]
fn settings_enter_the_key_without_gaps_and_with_the_numbers_a_person_would_write() {
    for stage in registry::all() {
        let mut settings = stage.default_settings();
        if stage.kind() == "ingest" {
            settings["dataset"] = "stl10".into();
        }
        let text = serde_json::to_string(&stage.manifest(&settings).unwrap()).unwrap();
        assert!(!text.contains("null"), "{}: {text}", stage.kind());
        for word in text.split([':', ',', '[', ']', '{', '}']) {
            let widened = word.parse::<f64>().is_ok_and(|number| f64::from(number as f32).to_bits() == number.to_bits())
                && word.len() > 10;
            assert!(!widened, "{}: {word} in {text}", stage.kind());
        }
    }
    let pretrained = registry::find("pretrained").unwrap();
    let mut settings = pretrained.default_settings();
    settings["mean"] = vec![0.4914_f32].into();
    assert_ne!(settings["mean"][0], 0.4914, "JSON widens 32 bits");
    assert_eq!(pretrained.manifest(&settings).unwrap().settings()["mean"][0], 0.4914);
}

/// How long each is trained.
const EPOCHS: u32 = 12;

#[test]
fn every_method_learns_something_easy() {
    for method in methods() {
        let kind = method.kind();
        let bench = Bench::with(&format!("{}{}", ground("tiny", 96, 8), tiny_stage("it", method, EPOCHS)));
        bench.run(&["--until", "it"]).done();
        let losses: Vec<f64> =
            bench.metrics("tiny", "it").into_iter().filter(|(name, _)| name == "loss").map(|(_, value)| value).collect();
        assert_eq!(losses.len(), EPOCHS as usize, "{kind}: one loss per epoch");
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let third = losses.len() / 3;
        let (early, late) = (mean(&losses[..third]), mean(&losses[losses.len() - third..]));
        println!("{kind}: loss {early:.4} → {late:.4}");
        assert!(late < early, "{kind} learns nothing: {losses:?}");
    }
}

#[test]
fn every_method_fits_the_batch_nobody_chose_to_a_small_set() {
    for method in methods() {
        let kind = method.kind();
        // MoCo's queue is a multiple of the batch, and each of AND's five rounds takes an epoch.
        let epochs = if kind == "and" { 5 } else { 1 };
        let stage = tiny_stage("it", method, epochs).replace("batch = 16\n", "").replace("queue = 16\n", "");
        let bench = Bench::with(&format!("{}{stage}", ground("tiny", 48, 2)));
        let said = bench.run(&["--until", "it"]).done();
        let card: Value = serde_json::from_slice(&fs::read(bench.path("artifacts/tiny/it/stage.json")).unwrap()).unwrap();
        let chosen = card["notes"]["chosen"].as_str().unwrap_or_default();
        println!("{kind}: {chosen}");
        // TURTLE takes all images where there are fewer.
        assert_eq!(chosen.starts_with("`batch` "), kind != "turtle", "{kind}: {card}");
        assert!(chosen.lines().all(|line| said.err.contains(&format!("it: {line}"))), "{kind}: {}", said.err);
    }
}

#[test]
fn a_small_set_gets_as_many_epochs_as_it_takes() {
    let heads = registry::find("scan_heads").unwrap();
    let stage = tiny_stage("it", heads, 1).replace("batch = 16\n", "").replace("epochs = 1\n", "");
    let bench = Bench::with(&format!("{}{stage}", ground("tiny", 48, 2)));
    bench.run(&["--until", "it"]).done();
    let losses = bench.metrics("tiny", "it").into_iter().filter(|(name, _)| name == "loss").count();
    assert_eq!(losses, 2000, "epochs of one step of 30 images");
}

#[test]
fn every_stage_repeats_itself_byte_for_byte() {
    let bench = Bench::with(&WHOLE);
    let first = bench.run(&[]).done();
    let kinds: Vec<&str> =
        first.json["stages"].as_array().unwrap().iter().map(|stage| stage["kind"].as_str().unwrap()).collect();
    for stage in registry::all() {
        assert!(kinds.contains(&stage.kind()), "{kinds:?}: no `{}`", stage.kind());
    }
    // The engine itself compares a forced result with the stored one, and calls a difference our bug.
    let second = bench.run(&["--force"]).done();
    assert_eq!(second.ran(), *WHOLE_NODES);
    assert_eq!(second.digests(), first.digests());
    let elsewhere = Bench::with(&WHOLE).run(&[]).done();
    assert_eq!(elsewhere.digests(), first.digests(), "in another place");
}

/// What a stage gives in this folder after so many shares of it, as digests by output, or that it has stopped.
fn outcome(
    stage: &dyn AnyStage,
    node: &Node,
    inputs: &Inputs,
    (folder, store, places): (&Path, &Store, &DataPaths),
    stop: &Stop,
    shares: usize,
) -> Option<BTreeMap<String, Digest>> {
    let (work, shared, out) = (folder.join("work"), folder.join("shared"), store.draft().unwrap());
    fs::create_dir_all(&work).unwrap();
    fs::create_dir_all(&shared).unwrap();
    let seed = Outlook::seed(node);
    let heard = Heard::default();
    let cx = Context::new(&node.name, Device::Cpu, seed, places, stop.clone(), work, out.path().to_owned(), &heard)
        .with_shared((shares > 0).then_some(shared));
    for number in 0..shares {
        match stage.share(&node.settings, &inputs.offers, Share { number, of: shares }, &cx) {
            Ok(()) => {}
            Err(StageError::Stopped) => return None,
            Err(error) => panic!("{}: {error}", node.name),
        }
    }
    let drafts = match stage.run(&node.settings, &inputs.offers, &cx) {
        Ok(drafts) => drafts,
        Err(StageError::Stopped) => return None,
        Err(error) => panic!("{}: {error}", node.name),
    };
    let content = |draft: &AnyDraft| {
        let files: Vec<_> =
            draft.files.iter().map(|file| NewFile { name: file.name, path: &file.path, logical: file.logical }).collect();
        store.publish_output(draft.artifact, &files).unwrap().content
    };
    Some(drafts.iter().map(|draft| (draft.output.to_owned(), content(draft))).collect())
}

#[test]
fn every_stage_stops_when_it_is_asked_and_goes_on_to_the_same_bytes() {
    let bench = Bench::with(&WHOLE);
    bench.run(&[]).done();
    let spec = spec::check(Path::new("p.toml"), &WHOLE, &Request::default(), &registry::catalog()).unwrap();
    let (store, places) = (Store::open(&bench.path("artifacts")).unwrap(), DataPaths::new(bench.path(""), None, None));
    let outlook = Outlook { spec: &spec, registry: registry::catalog(), store: &store, places: &places, devices: "cpu".into() };
    let (mut known, mut kinds) = (Known::new(), BTreeSet::new());
    for &index in &spec.order {
        let node = &spec.nodes[index];
        let inputs = outlook.inputs(node, &known).unwrap();
        let Lookup::Hit(record) = store.lookup(&inputs.manifest.key()).unwrap() else { panic!("{} did not run", node.name) };
        let expected: BTreeMap<String, Digest> =
            record.outputs.iter().map(|(name, output)| (name.clone(), output.content)).collect();
        known.insert(index, record);
        // One of each kind.
        if !kinds.insert(node.kind.clone()) {
            continue;
        }
        let stage = outlook.stage(node).unwrap();
        let run = |folder: &Path, stop: &Stop| outcome(stage, node, &inputs, (folder, &store, &places), stop, 0);
        let folder = bench.path(format!("stops/{}", node.kind));
        let never = Stop::after(u64::MAX);
        assert_eq!(run(&folder.join("whole"), &never).as_ref(), Some(&expected), "{}", node.kind);
        let looks = never.looks();
        println!("{}: {looks} looks", node.kind);
        assert!(looks > 0, "{} never looks whether it shall stop", node.kind);
        // Asked before it begins, at its second look, half-way, and at its last.
        for after in BTreeSet::from([0, 1.min(looks - 1), looks / 2, looks - 1]) {
            let folder = folder.join(after.to_string());
            assert_eq!(run(&folder, &Stop::after(after)), None, "{} did not stop at look {after} of {looks}", node.kind);
            // Once more: what it went on from must be as good as what it began with.
            let _ = run(&folder, &Stop::after(looks / 3));
            let found = run(&folder, &Stop::default());
            assert_eq!(found.as_ref(), Some(&expected), "{}, stopped at look {after} of {looks}", node.kind);
        }
        for shares in [1, 2, 7].into_iter().filter(|_| stage.shared()) {
            let folder = folder.join(format!("of-{shares}"));
            let run = |stop: &Stop| outcome(stage, node, &inputs, (&folder, &store, &places), stop, shares);
            assert_eq!(run(&Stop::after(0)), None, "{shares} shares of {} did not stop", node.kind);
            assert_eq!(run(&Stop::default()).as_ref(), Some(&expected), "{shares} shares of {}", node.kind);
        }
    }
    assert_eq!(kinds.len(), registry::all().count());
}
