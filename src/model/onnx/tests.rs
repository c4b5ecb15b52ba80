//! Comparison of ONNX files with their networks: every kind of network and head, written, read back, and run operator by operator.

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::{Device, Tensor};
use prost::Message;
use serde_json::json;

use super::messages::Model;
use super::{File, classifier, encoder, runtime, write};
use crate::params::values;
use crate::testing::{assert_near, fill, wave};
use crate::{ClassifierNet, EncoderNet, HeadChoice, HeadsShape, Mode, ModelError, architecture, features_alone, tower};
use kinset_artifact::encoder::{
    Architecture, Backbone, Classifier, Encoder, EncoderCard, Family, Filter, HeadKind, Normalization, Projection,
    ProjectionKind, Resize, Stem, Transformer,
};
use kinset_base::fault::{Exit, Fault};
use kinset_base::fs;
use kinset_base::seed::Seed;
use kinset_kernel::l2_normalize;

const DINOV2: Transformer =
    Transformer { family: Family::Dinov2, depth: 2, heads: 2, patch: 4, grid: 3, hidden: 12, registers: 2, output: None };
const CLIP: Transformer = Transformer { family: Family::Clip, registers: 0, output: Some(5), ..DINOV2 };

fn normalization(channels: usize) -> Normalization {
    Normalization::new([0.5, 0.25, 0.125][..channels].to_vec(), [0.25, 0.5, 0.75][..channels].to_vec())
}

fn built(shape: &Architecture) -> EncoderNet {
    let net = EncoderNet::init(shape, Seed::new(1), &Device::Cpu).unwrap();
    fill(net.params());
    net
}

fn residual(backbone: Backbone, stem: Stem, size: usize, projection: Option<ProjectionKind>) -> EncoderNet {
    let projection = projection.map(|kind| Projection { kind, dim: 5 });
    let channels = if stem == Stem::Strided { 1 } else { 3 };
    built(&architecture(backbone, stem, 2, channels, size, projection).unwrap())
}

/// One of each, by name.
fn encoders() -> Vec<(&'static str, EncoderNet)> {
    use Backbone::{Alexnet, Pixels, Resnet18, Resnet34, Resnet50, ResnetTiny};
    vec![
        ("resnet_tiny-strided", residual(ResnetTiny, Stem::Strided, 28, Some(ProjectionKind::Mlp))),
        ("resnet_tiny-cifar", residual(ResnetTiny, Stem::Cifar, 13, None)),
        ("resnet18-cifar", residual(Resnet18, Stem::Cifar, 32, Some(ProjectionKind::Linear))),
        ("resnet34-stl", residual(Resnet34, Stem::Stl, 24, None)),
        ("resnet18-stl", residual(Resnet18, Stem::Stl, 31, Some(ProjectionKind::MlpNorm))),
        ("resnet50-imagenet", residual(Resnet50, Stem::Imagenet, 64, Some(ProjectionKind::Mlp))),
        ("alexnet-cifar", residual(Alexnet, Stem::Cifar, 32, Some(ProjectionKind::Linear))),
        ("alexnet-imagenet", residual(Alexnet, Stem::Imagenet, 67, None)),
        ("pixels", residual(Pixels, Stem::Cifar, 6, None)),
        ("dinov2", built(&tower(Transformer { registers: 0, ..DINOV2 }, 6, 12).unwrap())),
        ("dinov2-registers-larger", built(&tower(DINOV2, 6, 20).unwrap())),
        ("clip-smaller", built(&tower(CLIP, 8, 8).unwrap())),
    ]
}

fn card(net: &EncoderNet) -> EncoderCard {
    net.card(normalization(net.architecture().channels))
}

fn stored(net: &EncoderNet) -> Encoder {
    Encoder { card: card(net), tensors: net.to_tensors().unwrap() }
}

/// Pictures of values 0 to 1, and the same as the network takes them.
fn pictures(card: &EncoderCard, count: usize) -> (Tensor, Tensor) {
    let &Architecture { channels, size, .. } = &card.architecture;
    let pictures = ((wave(&[count, channels, size, size], 0.013, 0.2, 1.0) + 1.0).unwrap() / 2.0).unwrap();
    let each = |numbers: &[f32]| Tensor::from_slice(numbers, (1, channels, 1, 1), &Device::Cpu).unwrap();
    let centred = pictures.broadcast_sub(&each(&card.normalization.mean)).unwrap();
    let seen = centred.broadcast_div(&each(&card.normalization.std)).unwrap();
    (pictures, seen)
}

fn read(file: &File) -> Model {
    Model::decode(file.bytes.as_slice()).unwrap()
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    values(tensor).unwrap().into_iter().map(f64::from).collect()
}

/// Runs a file and compares what comes out with this, by name.
#[track_caller]
fn assert_gives(what: &str, file: &File, input: &Tensor, wanted: &[(&str, Tensor)]) {
    let found = runtime::run(&read(file), input);
    for (name, wanted) in wanted {
        assert_eq!(found[*name].dims(), wanted.dims(), "{what}: {name}");
        assert_near(&format!("{what}: {name}"), &values(&found[*name]).unwrap(), &doubles(wanted), 2e-5);
    }
}

#[test]
fn every_encoder_gives_its_features_and_what_embed_makes_of_them() {
    for (name, net) in encoders() {
        let stored = stored(&net);
        let (pictures, seen) = pictures(&stored.card, 3);
        let features = net.features(&seen, Mode::Eval).unwrap();
        let embedding = match net.architecture().projection {
            Some(_) => net.project(&features, Mode::Eval).unwrap(),
            None => l2_normalize(&features).unwrap(),
        };
        let file = encoder(stored).unwrap();
        assert_gives(name, &file, &pictures, &[("features", features), ("embedding", embedding)]);
    }
}

/// A classifier with heads of this shape, and names of the shapes.
fn classifiers(net: &EncoderNet) -> Vec<(&'static str, ClassifierNet)> {
    let linear = HeadsShape::linear(4, 3, None);
    let bottleneck = HeadsShape { kind: HeadKind::Bottleneck, hidden: Some(6), bottleneck: Some(3), ..linear };
    let shapes = [
        ("linear", linear),
        ("linear-unit", HeadsShape { normalize: true, ..linear }),
        ("hidden", HeadsShape { hidden: Some(7), ..linear }),
        ("bottleneck", bottleneck),
        ("committee", HeadsShape { committee: true, ..linear }),
        ("committee-bottleneck", HeadsShape { committee: true, ..bottleneck }),
    ];
    let mut all: Vec<_> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let net = ClassifierNet::over(net, shape, Seed::new(2), &Device::Cpu).unwrap();
            fill(net.params());
            (name, net)
        })
        .collect();
    let dim = net.architecture().output();
    let centroids: Vec<f32> = (0..4 * dim).map(|i| (i as f32 * 0.7).sin() * 0.3).collect();
    for (name, unit) in [("centroids", false), ("centroids-unit", true)] {
        all.push((name, ClassifierNet::from_centroids(net, &centroids, unit, &Device::Cpu).unwrap()));
    }
    all
}

fn chosen(net: &ClassifierNet) -> Classifier {
    let choice = HeadChoice { head: net.heads() - 1, chosen_by: "a test".into(), losses: vec![] };
    let channels = net.encoder().architecture().channels;
    Classifier { card: net.card(normalization(channels), choice).unwrap(), tensors: net.to_tensors().unwrap() }
}

/// What comes out, by name.
fn decided(net: &ClassifierNet, head: usize, read: &Tensor) -> Vec<(&'static str, Tensor)> {
    let probabilities = net.decide(head, read).unwrap();
    let cluster = probabilities.argmax(1).unwrap();
    vec![("probabilities", probabilities), ("cluster", cluster)]
}

#[test]
fn every_head_decides_as_it_does_here_on_the_backbone_and_on_the_projection() {
    for projection in [None, Some(ProjectionKind::Mlp)] {
        let net = residual(Backbone::ResnetTiny, Stem::Cifar, 12, projection);
        for (name, net) in classifiers(&net) {
            let stored = chosen(&net);
            let (pictures, seen) = pictures(&stored.card.encoder, 5);
            let wanted = decided(&net, stored.card.head, &net.features(&seen, Mode::Eval).unwrap());
            assert_gives(&format!("{name}, {projection:?}"), &classifier(stored, &[]).unwrap(), &pictures, &wanted);
        }
    }
}

#[test]
fn heads_that_never_knew_an_encoder_read_features() {
    let net = built(&features_alone(6).unwrap());
    for (name, net) in classifiers(&net) {
        let stored = chosen(&net);
        let features = wave(&[5, 6], 0.9, 0.1, 1.0);
        let wanted = decided(&net, stored.card.head, &features);
        let file = classifier(stored, &[]).unwrap();
        assert_eq!(file.input.to_string(), "features [batch, 6]");
        assert_gives(name, &file, &features, &wanted);
    }
    let nothing = encoder(stored(&net)).unwrap_err();
    assert!(matches!(nothing, ModelError::NoImages), "{nothing}");
}

#[test]
fn a_picture_without_features_is_no_number_but_zero_in_the_embedding() {
    let net = residual(Backbone::Pixels, Stem::Cifar, 2, None);
    let plain = Encoder { card: net.card(Normalization::new(vec![0.0; 3], vec![1.0; 3])), ..stored(&net) };
    let black = Tensor::zeros((2, 3, 2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    let found = runtime::run(&read(&encoder(plain).unwrap()), &black);
    assert!(values(&found["embedding"]).unwrap().iter().all(|&v| v == 0.0));
}

#[test]
fn a_file_is_sound_names_its_ports_and_reads_all_its_numbers() {
    let nets = encoders();
    let heads = classifiers(&nets[0].1);
    let files = nets.iter().map(|(_, net)| encoder(stored(net)).unwrap());
    for file in files.chain(heads.iter().map(|(_, net)| classifier(chosen(net), &[]).unwrap())) {
        let model = read(&file);
        assert_eq!((model.ir_version, model.opset_import.len(), model.opset_import[0].version), (Some(8), 1, Some(17)));
        let graph = model.graph.unwrap();
        let read: BTreeSet<&String> = graph.node.iter().flat_map(|node| &node.input).collect();
        let idle: Vec<_> = graph.initializer.iter().filter(|tensor| !read.contains(tensor.name.as_ref().unwrap())).collect();
        assert!(idle.is_empty(), "{idle:?}");
        let made: BTreeSet<&String> = graph.node.iter().flat_map(|node| &node.output).collect();
        let ports = |ports: &[super::messages::ValueInfo]| -> Vec<String> {
            ports.iter().map(|port| port.name.clone().unwrap()).collect()
        };
        assert_eq!(ports(&graph.input), [file.input.name]);
        assert_eq!(ports(&graph.output), file.outputs.iter().map(|port| port.name).collect::<Vec<_>>());
        assert!(graph.output.iter().all(|port| made.contains(port.name.as_ref().unwrap())));
        assert!(graph.node.iter().all(|node| made.contains(node.name.as_ref().unwrap()) && node.output.len() == 1));
        assert_eq!(model.metadata_props.len(), 1);
        assert_eq!(model.metadata_props[0].value.as_deref(), Some(file.about.to_string().as_str()));
    }
}

#[test]
fn a_file_says_how_pictures_are_prepared_and_what_the_network_is() {
    let net = built(&tower(CLIP, 8, 8).unwrap());
    let mut held = stored(&net);
    held.card.normalization.resize = Some(Resize { shorter: 10, filter: Filter::Bicubic });
    let file = encoder(held.clone()).unwrap();
    assert_eq!(
        file.about["input"],
        json!({
            "name": "images", "shape": ["batch", 3, 8, 8], "mode": "RGB", "values": [0, 1], "shorter": 10, "filter": "bicubic",
            "size": 8,
        })
    );
    assert_eq!(file.about["encoder"], serde_json::to_value(&held.card).unwrap());
    assert!(file.input.words.contains("10 pixels (bicubic, with antialias), 8 × 8"), "{}", file.input.words);
    assert_eq!(file.outputs[0].to_string(), "embedding [batch, 5]");
    let gray = classifier(chosen(&classifiers(&residual(Backbone::ResnetTiny, Stem::Strided, 28, None))[0].1), &[]).unwrap();
    assert_eq!(gray.about["input"]["mode"], "L");
    assert_eq!((&gray.about["input"]["shorter"], &gray.about["input"]["filter"]), (&json!(28), &json!("bilinear")));
    assert_eq!(gray.about["classifier"]["head"], 2);
    assert_eq!(
        gray.outputs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["probabilities [batch, 4]", "cluster [batch]"]
    );
}

#[test]
fn the_same_network_is_the_same_bytes_and_only_the_chosen_head_is_in_them() {
    let net = residual(Backbone::ResnetTiny, Stem::Cifar, 8, None);
    let heads = classifiers(&net);
    let once = chosen(&heads[0].1);
    let first = classifier(once.clone(), &[]).unwrap().bytes;
    assert_eq!(first, classifier(once.clone(), &[]).unwrap().bytes);
    let names = ["shirts", "shoes"].map(String::from);
    let named = classifier(once.clone(), &names).unwrap();
    assert_eq!(named.about["names"], serde_json::json!(names));
    assert_ne!(named.bytes, first, "they stand in the file as well");
    let mut other = once.clone();
    other.tensors.insert("cluster_head.0.bias", vec![4], vec![9.0; 4]);
    assert_eq!(first, classifier(other, &[]).unwrap().bytes, "a head that does not count");
    let mut other = once;
    other.tensors.insert("cluster_head.2.bias", vec![4], vec![9.0; 4]);
    assert_ne!(first, classifier(other, &[]).unwrap().bytes);
}

#[test]
fn numbers_that_are_missing_left_over_or_of_another_shape_are_all_named() {
    for (name, net) in encoders().into_iter().filter(|(name, _)| *name != "pixels") {
        let whole = stored(&net);
        for missing in whole.card.parameters.iter().chain(&whole.card.buffers) {
            let mut part = whole.clone();
            part.tensors.remove(missing);
            let Err(ModelError::Weights(found)) = encoder(part) else { panic!("{name} without {missing}") };
            assert_eq!(found.missing, std::slice::from_ref(missing), "{name}");
        }
    }
    let mut wrong = stored(&residual(Backbone::ResnetTiny, Stem::Cifar, 8, None));
    wrong.tensors.insert("backbone.fc.weight", vec![1], vec![0.0]);
    wrong.tensors.insert("backbone.bn1.bias", vec![3], vec![0.0; 3]);
    let Err(ModelError::Weights(found)) = encoder(wrong) else { panic!("it was written") };
    assert_eq!(found.unexpected, ["backbone.fc.weight"]);
    assert_eq!(found.misshapen, [("backbone.bn1.bias".to_owned(), vec![2], vec![3])]);
    let net = &classifiers(&residual(Backbone::ResnetTiny, Stem::Cifar, 8, None));
    for (name, net) in net {
        let mut part = chosen(net);
        let (last, _) = part.card.head_parameters().pop().unwrap();
        part.tensors.remove(&last);
        let Err(ModelError::Weights(found)) = classifier(part, &[]) else { panic!("{name} without {last}") };
        assert_eq!(found.missing, [last], "{name}");
    }
}

#[test]
fn cards_that_no_network_has_are_refused_before_anything_is_drawn() {
    let net = residual(Backbone::ResnetTiny, Stem::Cifar, 8, None);
    let mut card = stored(&net);
    card.card.architecture.features = 7;
    assert!(matches!(encoder(card), Err(ModelError::Architecture { field: "features", .. })));
    let mut card = stored(&built(&tower(CLIP, 8, 8).unwrap()));
    card.card.architecture.size = 9;
    assert!(matches!(encoder(card), Err(ModelError::Architecture { field: "size", .. })));
    let mut card = chosen(&classifiers(&net)[0].1);
    card.card.head = 3;
    assert!(matches!(classifier(card, &[]), Err(ModelError::Head { head: 3, heads: 3 })));
}

#[test]
fn what_is_longer_than_a_message_of_protobuf_is_told_with_its_length() {
    let file = encoder(stored(&residual(Backbone::ResnetTiny, Stem::Cifar, 8, None))).unwrap();
    let (model, length) = (read(&file), file.bytes.len());
    assert_eq!(write::encoded(&model, length).unwrap(), file.bytes);
    let error = write::encoded(&model, length - 1).unwrap_err();
    assert!(matches!(error, ModelError::TooLarge { bytes } if bytes == length as u64));
    assert!(error.exit() == Exit::Usage && error.hint().unwrap().contains(".safetensors"), "{error}");
}

/// Leaves files and what the networks say where `tests/interop_onnx.py` finds them.
#[test]
fn networks_of_each_kind_are_left_for_onnxruntime() {
    let Some(folder) = std::env::var_os("KINSET_INTEROP_DIR") else { return };
    let folder = Path::new(&folder).join("onnx");
    fs::create_folders(&folder).unwrap();
    let mut told = Vec::new();
    let mut leave = |name: String, file: &File, input: &Tensor, wanted: &[(&str, Tensor)]| {
        fs::write_atomic(&folder.join(format!("{name}.onnx")), &file.bytes).unwrap();
        let outputs: serde_json::Map<_, _> = wanted
            .iter()
            .map(|(name, tensor)| ((*name).to_owned(), json!(doubles(&tensor.to_dtype(candle_core::DType::F32).unwrap()))))
            .collect();
        told.push(json!({ "name": name, "input": doubles(input), "outputs": outputs }));
    };
    for (name, net) in encoders() {
        let stored = stored(&net);
        let (pictures, seen) = pictures(&stored.card, 2);
        let features = net.features(&seen, Mode::Eval).unwrap();
        let embedding = match net.architecture().projection {
            Some(_) => net.project(&features, Mode::Eval).unwrap(),
            None => l2_normalize(&features).unwrap(),
        };
        leave(name.to_owned(), &encoder(stored).unwrap(), &pictures, &[("features", features), ("embedding", embedding)]);
        for (head, net) in classifiers(&net) {
            let stored = chosen(&net);
            let wanted = decided(&net, stored.card.head, &net.features(&seen, Mode::Eval).unwrap());
            leave(format!("{name}-{head}"), &classifier(stored, &[]).unwrap(), &pictures, &wanted);
        }
    }
    for (head, net) in classifiers(&built(&features_alone(6).unwrap())) {
        let (stored, features) = (chosen(&net), wave(&[5, 6], 0.9, 0.1, 1.0));
        let wanted = decided(&net, stored.card.head, &features);
        leave(format!("features-{head}"), &classifier(stored, &[]).unwrap(), &features, &wanted);
    }
    fs::write_atomic(&folder.join("expected.json"), &serde_json::to_vec(&told).unwrap()).unwrap();
}
