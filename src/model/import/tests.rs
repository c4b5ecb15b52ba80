//! Files that PyTorch wrote, and damaged or hostile files: see `tests/golden/pretrained/make.py`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use candle_core::{D, Device};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::params::values;
use crate::testing::{assert_near, numbers, wave};
use crate::{ClassifierNet, EncoderNet, Mode, ModelError};
use kinset_artifact::encoder::{Backbone, Normalization, ProjectionKind, Stem, Tensors, Weights};
use kinset_base::fault::Fault;
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
    tensors.insert("module.backbone.extra.weight", vec![1], vec![0.5]);
    let path = dir.path().join("x.safetensors");
    tensors.save(&path).unwrap();
    let found = find(&fs::read(&path).unwrap(), &stem(Stem::Cifar)).unwrap();
    let Err(ModelError::Weights(mismatch)) = found.encoder(32, &plain()) else { panic!("it was loaded") };
    assert_eq!(mismatch.missing, ["backbone.bn1.running_var", "backbone.layer4.1.bn2.weight"]);
    assert_eq!(mismatch.unexpected, ["module.backbone.extra.weight"], "as the file calls it");
    assert!(
        mismatch.to_string().contains("the nearest network is `resnet18` of width 2; the names begin with `backbone.` ("),
        "{mismatch}"
    );
    let hint = ModelError::Weights(mismatch).hint().unwrap();
    assert!(hint.contains("`prefix = \"backbone.\"`") && hint.contains("`ignore = [\"projector.*\"]`"), "{hint}");
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

/// A file of safetensors with the tensors of a published one under other names, and some more.
fn renamed(by: impl Fn(&str) -> Option<String>, more: &[&str]) -> Vec<u8> {
    let there = find(&bytes("scan_pretext.pth.tar"), &stem(Stem::Cifar)).unwrap().encoder(32, &plain()).unwrap();
    let mut tensors = Tensors::default();
    for (name, Weights { shape, values }) in there.tensors.iter() {
        if let Some(name) = by(name) {
            tensors.insert(name, shape.clone(), values.clone());
        }
    }
    for name in more {
        tensors.insert(*name, vec![1], vec![0.5]);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    tensors.save(&path).unwrap();
    fs::read(&path).unwrap()
}

#[test]
fn networks_of_common_wrappers_are_read_and_what_is_left_is_said() {
    let own = find(&bytes("scan_pretext.pth.tar"), &stem(Stem::Cifar)).unwrap();
    let backbone = |found: &Found| {
        let encoder = found.encoder(32, &plain()).unwrap();
        encoder
            .tensors
            .iter()
            .filter(|(name, _)| name.starts_with("backbone."))
            .map(|(name, w)| (name.to_owned(), w.clone()))
            .collect::<Vec<_>>()
    };
    let below = |prefix: &'static str| move |name: &str| name.strip_prefix("backbone.").map(|name| format!("{prefix}{name}"));
    let cases: [(&str, &[&str], &str); 9] = [
        // torchvision, timm
        ("", &["fc.weight", "fc.bias"], "not read: 2 × `fc.*`"),
        // torch.compile around all of it, and around a part
        ("_orig_mod.", &[], "names without `torch.compile`'s `_orig_mod.`"),
        (
            "model._orig_mod.",
            &["model.fc.weight"],
            "names without `torch.compile`'s `_orig_mod.`, the network is what begins with `model.`; not read: 1 × `model.fc.*`",
        ),
        // solo-learn
        (
            "backbone.",
            &["projector.0.weight", "projector.2.weight", "classifier.weight", "momentum_backbone.layer1.0.conv1.weight"],
            "not read: 2 × `projector.*`, 1 × `classifier.*`, 1 × `momentum_backbone.*`",
        ),
        // Lightning modules of people's own
        ("model.", &[], "the network is what begins with `model.`"),
        ("net.encoder.", &["queue"], "the network is what begins with `net.encoder.`; not read: 1 × `queue`"),
        // data-parallel training inside a module
        (
            "encoder.module.",
            &["encoder.module.fc.0.weight"],
            "the network is what begins with `encoder.module.`; not read: 1 × `encoder.module.fc.*`",
        ),
        // MoCo v3
        (
            "module.base_encoder.",
            &["module.base_encoder.fc.0.weight", "module.momentum_encoder.layer1.0.conv1.weight", "module.predictor.0.weight"],
            "names without data-parallel training's `module.`, the network is what begins with `base_encoder.`; not read: \
             1 × `base_encoder.fc.*`, 1 × `momentum_encoder.*`, 1 × `predictor.*`",
        ),
        ("encoder_q.", &["encoder_k.layer1.0.conv1.weight", "queue"], ""),
    ];
    for (prefix, more, said) in cases {
        let found = find(&renamed(below(prefix), more), &stem(Stem::Cifar)).unwrap_or_else(|error| panic!("{prefix}: {error}"));
        assert!(backbone(&found) == backbone(&own), "{prefix}");
        assert_eq!(found.reading().line(), said, "{prefix}");
    }
    // lightly: an `nn.Sequential` of the layers, without activations where those are functions.
    let numbered = |name: &str| {
        let name = name.strip_prefix("backbone.")?;
        let (layer, rest) = name.split_once('.')?;
        let place = match layer {
            "conv1" => 0,
            "bn1" => 1,
            stage => stage.strip_prefix("layer")?.parse::<usize>().ok()? + 1,
        };
        Some(format!("backbone.{place}.{rest}"))
    };
    let found = find(&renamed(numbered, &["projection_head.layers.0.weight"]), &stem(Stem::Cifar)).unwrap();
    assert!(backbone(&found) == backbone(&own));
    assert_eq!(found.reading().line(), "not read: 1 × `projection_head.*`");
}

#[test]
fn settings_say_which_names_are_meant() {
    let two = renamed(
        |name| name.strip_prefix("backbone.").map(|name| format!("a.{name}")),
        &["b.layer1.0.conv1.weight", "b.conv1.weight", "a.odd.weight"],
    );
    let named = |prefix: Option<&str>, ignore: &[&str]| Wanted {
        names: Names { prefix: prefix.map(str::to_owned), ignore: ignore.iter().map(|&one| one.to_owned()).collect() },
        ..stem(Stem::Cifar)
    };
    let which = find(&two, &named(None, &[])).unwrap_err();
    assert_eq!(which.to_string(), "its networks have the prefixes `a.`, `b.`, and `prefix` selects none of them");
    assert!(which.hint().unwrap().contains("`prefix = \"a.\"`"));
    let found = find(&two, &named(Some("a"), &[])).unwrap();
    let Err(ModelError::Weights(mismatch)) = found.encoder(32, &plain()) else { panic!("it was loaded") };
    assert_eq!(mismatch.unexpected, ["a.odd.weight"]);
    let found = find(&two, &named(Some("a."), &["a.odd"])).unwrap();
    assert!(found.encoder(32, &plain()).is_ok());
    assert_eq!(found.reading().line(), "the network is what begins with `a.`; not read: 2 × `b.*`, 1 × `ignore`");
    assert!(find(&two, &named(None, &["b.*", "*.odd.*"])).unwrap().encoder(32, &plain()).is_ok());
    assert!(matches!(find(&two, &named(Some("c"), &[])), Err(ImportError::NoPrefix { .. })));
}

/// A file as Lightning writes it: the state dict of a published file under `state_dict`, beside what this pickle makes.
fn lightning(beside: &[u8], inside: &[u8]) -> Vec<u8> {
    use std::io::{Read, Write};
    use zip::write::SimpleFileOptions;
    let whole = bytes("scan_pretext_zip.pth.tar");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&whole)).unwrap();
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for place in 0..archive.len() {
        let mut entry = archive.by_index(place).unwrap();
        let (name, mut content) = (entry.name().unwrap().into_owned(), Vec::new());
        entry.read_to_end(&mut content).unwrap();
        if name.ends_with("data.pkl") {
            // The dictionary without its protocol and its end; what is put into it comes after all of its own.
            let body = content.strip_prefix(b"\x80\x02").unwrap().strip_suffix(b".").unwrap();
            let text = |text: &str| [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat();
            content = [
                b"\x80\x02}",
                text("pytorch-lightning_version").as_slice(),
                &text("2.1.0"),
                b"s",
                &text("state_dict"),
                body,
                inside,
                b"s",
                &text("hyper_parameters"),
                beside,
                b"s.",
            ]
            .concat();
        }
        let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        writer.start_file(name, stored).unwrap();
        writer.write_all(&content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// `argparse.Namespace(lr=1)`.
const NAMESPACE: &[u8] = b"cargparse\nNamespace\n)\x81}X\x02\x00\x00\x00lrK\x01sb";

#[test]
fn objects_beside_the_tensors_are_passed_over_and_among_them_refused_by_name() {
    let own = find(&bytes("scan_pretext_zip.pth.tar"), &stem(Stem::Cifar)).unwrap().encoder(32, &plain()).unwrap();
    let found = find(&lightning(NAMESPACE, b""), &stem(Stem::Cifar)).unwrap();
    assert_eq!(found.encoder(32, &plain()).unwrap(), own);
    assert_eq!(found.reading().line(), "the `state_dict` of a Lightning checkpoint");
    // In the state dict itself.
    let inside = [b"X\x04\x00\x00\x00odd_", NAMESPACE, b"s"].concat();
    let error = find(&lightning(b"N", &inside), &stem(Stem::Cifar)).unwrap_err();
    assert!(
        matches!(&error, ImportError::Object { name, class } if name == "odd_" && class == "argparse.Namespace"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("`ignore = [\"odd_\"]`"));
    let ignoring = Wanted { names: Names { prefix: None, ignore: vec!["odd_".into()] }, ..stem(Stem::Cifar) };
    assert_eq!(find(&lightning(b"N", &inside), &ignoring).unwrap().encoder(32, &plain()).unwrap(), own);
    // What would be called is never built, and a file that calls is refused, whatever else is in it.
    let call = b"cposix\nsystem\nX\x02\x00\x00\x00id\x85R";
    let error = find(&lightning(call, b""), &stem(Stem::Cifar)).unwrap_err();
    assert!(matches!(&error, ImportError::Pickle(PickleError::Refused { name }) if name == "posix.system"), "{error}");
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
    assert!(fault(b"\x01\x02 what").to_string().contains("`01 02 20"), "{}", fault(b"\x01\x02 what"));
    assert!(fault(b"<html> not found").to_string().starts_with("it is an HTML page"), "{}", fault(b"<html> not found"));
    let mut npz = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    npz.start_file("arr_0.npy", zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored))
        .unwrap();
    let told = fault(&npz.finish().unwrap().into_inner()).to_string();
    assert!(told.starts_with("it is an archive of NumPy arrays (.npz) without the entry `data.pkl`"), "{told}");
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
