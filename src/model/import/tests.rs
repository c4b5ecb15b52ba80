//! Files that PyTorch wrote, and files that nobody should: see `tests/golden/pretrained/make.py`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use candle_core::{D, Device};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::params::values;
use crate::testing::{assert_near, numbers, wave};
use crate::{ClassifierNet, EncoderNet, Mode, ModelError};
use kinset_artifact::encoder::{Backbone, Normalization, ProjectionKind, Stem};
use kinset_base::fs;
use kinset_base::pickle::PickleError;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/pretrained")
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(&folder().join(name)).unwrap()
}

static EXPECTED: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&fs::read_text(&folder().join("expected.json")).unwrap()).unwrap());

fn plain() -> Normalization {
    Normalization::new(vec![0.0; 3], vec![1.0; 3])
}

fn stem(stem: Stem) -> Wanted {
    Wanted { stem: Some(stem), ..Wanted::default() }
}

/// What is to be said of each file.
fn files() -> Vec<(&'static str, Wanted)> {
    vec![
        ("scan_pretext.pth.tar", stem(Stem::Cifar)),
        ("scan_pretext_zip.pth.tar", stem(Stem::Cifar)),
        ("scan_model.pth.tar", stem(Stem::Stl)),
        ("nnm_checkpoint.pth.tar", stem(Stem::Cifar)),
        ("ruc.t7", Wanted { part: Some("net2".into()), ..stem(Stem::Cifar) }),
        ("gray.pth.tar", stem(Stem::Cifar)),
        ("and.ckpt", stem(Stem::Cifar)),
        ("moco.pth.tar", Wanted::default()),
    ]
}

#[test]
fn every_file_gives_the_features_and_logits_that_pytorch_gives() {
    for (name, wanted) in files() {
        let expected = &EXPECTED["files"][name];
        let size = expected["size"].as_u64().unwrap() as usize;
        let channels = expected["channels"].as_u64().unwrap() as usize;
        let images = wave(&[2, channels, size, size], 0.01, 0.0, 1.0);
        let plain = || Normalization::new(vec![0.0; channels], vec![1.0; channels]);
        let found = find(&bytes(name), &wanted).unwrap();
        let encoder = found.encoder(size, &plain()).unwrap();
        let net = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &Device::Cpu).unwrap();
        let features = net.features(&images, Mode::Eval).unwrap();
        assert_near(name, &values(&features).unwrap(), &numbers(&expected["features"]), 1e-4);
        assert_eq!(encoder.card.architecture.projection.is_none(), expected["projection"].is_null(), "{name}");
        if !expected["projection"].is_null() {
            let projected = values(&net.project(&features, Mode::Eval).unwrap()).unwrap();
            assert_near(name, &projected, &numbers(&expected["projection"]), 1e-4);
        }
        let classifier = found.classifier(size, &plain()).unwrap();
        assert_eq!(classifier.is_some(), !expected["logits"].is_null(), "{name}");
        if let Some(classifier) = classifier {
            let net = ClassifierNet::from_tensors(&classifier.card, &classifier.tensors, &Device::Cpu).unwrap();
            let logits = net.logits(classifier.card.head, &net.features(&images, Mode::Eval).unwrap()).unwrap();
            assert_eq!(logits.dim(D::Minus1).unwrap(), classifier.card.clusters);
            assert_near(name, &values(&logits).unwrap(), &numbers(&expected["logits"]), 1e-4);
        }
    }
}

#[test]
fn shapes_and_heads_are_read_off_the_tensors() {
    let found = |name: &str| {
        let wanted = files().into_iter().find(|(file, _)| *file == name).unwrap().1;
        find(&bytes(name), &wanted).unwrap()
    };
    let scan = found("scan_model.pth.tar").classifier(96, &plain()).unwrap().unwrap().card;
    assert_eq!((scan.clusters, scan.heads, scan.head), (4, 3, 2), "the NumPy scalar says 2");
    assert_eq!(scan.chosen_by, "as the imported file says");
    let moco = found("moco.pth.tar");
    assert_eq!((moco.layout(), moco.left_out() > 322), (Layout::Moco, true));
    let shape = moco.encoder(64, &plain()).unwrap().card.architecture;
    assert_eq!((shape.backbone, shape.stem, shape.width, shape.features), (Backbone::Resnet50, Stem::Imagenet, 1, 32));
    assert_eq!(shape.projection.unwrap().kind, ProjectionKind::Mlp);
    let and = found("and.ckpt").encoder(32, &plain()).unwrap().card.architecture;
    assert_eq!((and.backbone, and.projection.unwrap().kind), (Backbone::Resnet18, ProjectionKind::Linear));
}

#[test]
fn the_zip_and_the_legacy_stream_say_the_same() {
    let read = |name: &str| find(&bytes(name), &stem(Stem::Cifar)).unwrap().encoder(32, &plain()).unwrap();
    assert_eq!(read("scan_pretext.pth.tar"), read("scan_pretext_zip.pth.tar"));
}

#[test]
fn safetensors_are_read_under_the_same_names() {
    let there = find(&bytes("scan_pretext.pth.tar"), &stem(Stem::Cifar)).unwrap().encoder(32, &plain()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    there.tensors.save(&path).unwrap();
    assert_eq!(find(&fs::read(&path).unwrap(), &stem(Stem::Cifar)).unwrap().encoder(32, &plain()).unwrap(), there);
}

#[test]
fn what_a_file_does_not_say_must_be_said() {
    let fault = |name: &str, wanted: Wanted| find(&bytes(name), &wanted).unwrap_err();
    assert!(matches!(fault("scan_pretext.pth.tar", Wanted::default()), ImportError::WhichStem));
    assert!(matches!(fault("scan_pretext.pth.tar", stem(Stem::Imagenet)), ImportError::Stem { .. }));
    let several = fault("ruc.t7", stem(Stem::Cifar));
    assert_eq!(several.to_string(), "it contains several networks: `net1`, `net2`");
    let none = fault("ruc.t7", Wanted { part: Some("net3".into()), ..stem(Stem::Cifar) });
    assert_eq!(none.to_string(), "it contains no network `net3`; it has `net1`, `net2`");
    let head = fault("scan_model.pth.tar", Wanted { head: Some(3), ..stem(Stem::Stl) });
    assert!(matches!(head, ImportError::NoHead { head: 3, heads: 3 }));
    let chosen = find(&bytes("scan_model.pth.tar"), &Wanted { head: Some(1), ..stem(Stem::Stl) }).unwrap();
    assert_eq!(chosen.classifier(96, &plain()).unwrap().unwrap().card.head, 1);
}

#[test]
fn missing_and_unexpected_tensors_are_listed_by_both_names() {
    let there = find(&bytes("scan_pretext.pth.tar"), &stem(Stem::Cifar)).unwrap().encoder(32, &plain()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = there.tensors.clone();
    tensors.remove("backbone.layer4.1.bn2.weight");
    tensors.remove("backbone.bn1.running_var");
    tensors.insert("module.backbone.fc.weight", vec![1], vec![0.5]);
    let path = dir.path().join("x.safetensors");
    tensors.save(&path).unwrap();
    let found = find(&fs::read(&path).unwrap(), &stem(Stem::Cifar)).unwrap();
    let Err(ModelError::Weights(mismatch)) = found.encoder(32, &plain()) else { panic!("it was loaded") };
    assert_eq!(mismatch.missing, ["backbone.bn1.running_var", "backbone.layer4.1.bn2.weight"]);
    assert_eq!(mismatch.unexpected, ["module.backbone.fc.weight"], "as the file calls it");
    // A file without its last stage is told apart from a smaller network.
    let mut tensors = there.tensors;
    let last: Vec<String> = tensors.names().filter(|name| name.starts_with("backbone.layer4")).map(str::to_owned).collect();
    for name in &last {
        tensors.remove(name);
    }
    tensors.save(&path).unwrap();
    let found = find(&fs::read(&path).unwrap(), &stem(Stem::Cifar)).unwrap();
    let Err(ModelError::Weights(mismatch)) = found.encoder(32, &plain()) else { panic!("it was loaded") };
    assert_eq!(mismatch.missing.len(), last.len(), "{mismatch}");
}

#[test]
fn a_file_that_wants_to_call_something_is_refused_by_the_name_of_it() {
    let system = find(&bytes("bad_system.pth"), &Wanted::default()).unwrap_err();
    assert!(matches!(&system, ImportError::Pickle(PickleError::Refused { name }) if name == "posix.system"), "{system}");
    assert!(system.to_string().contains("only tensors and plain containers"), "{system}");
    let eval = find(&bytes("bad_eval.pth"), &Wanted::default()).unwrap_err();
    assert!(matches!(&eval, ImportError::Pickle(PickleError::Refused { name }) if name.contains("eval")), "{eval}");
}

#[test]
fn foreign_and_cut_files_are_told_apart() {
    let fault = |bytes: &[u8]| find(bytes, &stem(Stem::Cifar)).unwrap_err();
    assert!(matches!(fault(b""), ImportError::Foreign { .. }));
    assert!(fault(b"<html> not found").to_string().contains("`3c 68 74 6d"), "{}", fault(b"<html> not found"));
    for name in ["scan_pretext.pth.tar", "scan_pretext_zip.pth.tar"] {
        let whole = bytes(name);
        for part in 1..40 {
            let length = whole.len() * part / 40;
            let error = fault(&whole[..length]);
            assert!(!matches!(error, ImportError::Foreign { .. }) || length < 15, "{name} cut at {length}: {error}");
        }
    }
    assert!(matches!(
        fault(&bytes("scan_pretext.pth.tar")[..60_000]),
        ImportError::Pickle(PickleError::Truncated { what: "a storage", .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_bytes_never_panic(
        file in 0_usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
            ["scan_pretext.pth.tar", "scan_pretext_zip.pth.tar", "scan_model.pth.tar", "and.ckpt", "bad_system.pth"].map(bytes).into()
        });
        let mut bytes = FILES[file].clone();
        for (at, value, early) in changes {
            // The pickle stands at the beginning, and most of what can go wrong with it.
            let reach = if early { bytes.len().min(12_000) } else { bytes.len() };
            let at = at.index(reach);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(found) = find(&bytes, &stem(Stem::Cifar)) {
            let _ = found.encoder(32, &plain());
            let _ = found.classifier(32, &plain());
        }
    }
}
