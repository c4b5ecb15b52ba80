//! Networks of other exporters, read and run; files that are refused.

use std::sync::LazyLock;

use candle_core::{Device, Tensor};
use proptest::prelude::*;
use prost::Message;
use rayon::ThreadPoolBuilder;
use serde_json::Value;

use super::*;
use crate::onnx::messages::Model;
use crate::params::values;
use crate::testing::{assert_near, numbers, wave};
use crate::{EncoderNet, Mode};
use kinset_artifact::encoder::{Encoder, Normalization};

const MOBILE: &[u8] = include_bytes!("../../../../tests/golden/onnx/mobile.onnx");
const TOKENS: &[u8] = include_bytes!("../../../../tests/golden/onnx/tokens.onnx");

fn net(read: &Read) -> EncoderNet {
    let card = read.card(Normalization::new(vec![0.0; 3], vec![1.0; 3]));
    EncoderNet::from_tensors(&card, &read.tensors, &Device::Cpu).unwrap()
}

fn pictures(size: usize) -> Tensor {
    (wave(&[3, 3, size, size], 0.013, 0.2, 0.5) + 0.5).unwrap()
}

fn wanted(output: Option<&str>, pool: Option<Pool>, size: Option<usize>) -> Wanted {
    Wanted { output: output.map(str::to_owned), pool, size, ..Wanted::default() }
}

/// Made by `tests/golden/onnx/encoders.py`.
#[test]
fn features_are_those_of_onnxruntime() {
    let golden: Value = serde_json::from_str(include_str!("../../../../tests/golden/onnx/encoders.json")).unwrap();
    let all = |file: &str, output: &str| numbers(&golden[file][output]["values"]);
    for output in ["embedding", "logits"] {
        let read = encoder(MOBILE, &wanted(Some(output), None, None)).unwrap();
        assert_eq!((read.architecture.size, read.values), (17, Values::Inside));
        let found = net(&read).features(&pictures(17), Mode::Eval).unwrap();
        assert_near(output, &values(&found).unwrap(), &all("mobile", output), 2e-5);
    }
    assert_eq!(encoder(MOBILE, &Wanted::default()).unwrap().output, "embedding");
    let tokens = all("tokens", "last_hidden_state");
    for pool in [Pool::First, Pool::Mean] {
        let read = encoder(TOKENS, &wanted(None, Some(pool), Some(12))).unwrap();
        assert_eq!(read.values, Values::Unknown);
        let found = values(&net(&read).features(&pictures(12), Mode::Eval).unwrap()).unwrap();
        let pooled = tokens.chunks_exact(10 * 8).flat_map(|picture| match pool {
            Pool::First => picture[..8].to_vec(),
            Pool::Mean => (0..8).map(|d| picture.chunks_exact(8).map(|token| token[d]).sum::<f64>() / 10.0).collect(),
        });
        assert_near("tokens", &found, &pooled.collect::<Vec<_>>(), 2e-5);
    }
}

#[test]
fn what_exporters_spell_out_is_one_operator_again() {
    let read = encoder(TOKENS, &wanted(None, Some(Pool::First), Some(12))).unwrap();
    let graph = read.architecture.graph.unwrap();
    let count = |operator: &str| graph.nodes.iter().filter(|node| node.operator == operator).count();
    assert_eq!(["Gelu", "LayerNormalization", "Erf", "ReduceMean", "Constant"].map(count), [1, 3, 0, 0, 0]);
}

#[test]
fn what_is_read_comes_back_from_what_is_written() {
    for (bytes, pool, size) in [(MOBILE, None, 17), (TOKENS, Some(Pool::First), 12)] {
        let read = encoder(bytes, &wanted(None, pool, Some(size))).unwrap();
        let features = net(&read).features(&pictures(size), Mode::Eval).unwrap();
        let written = crate::onnx::encoder(Encoder {
            card: read.card(Normalization::new(vec![0.0; 3], vec![1.0; 3])),
            tensors: read.tensors.clone(),
        });
        let again = encoder(&written.unwrap().bytes, &wanted(Some("features"), None, None)).unwrap();
        let found = net(&again).features(&pictures(size), Mode::Eval).unwrap();
        let same: Vec<f64> = values(&features).unwrap().into_iter().map(f64::from).collect();
        assert_near("again", &values(&found).unwrap(), &same, 1e-6);
        assert_eq!(again.prepared.unwrap()["size"], size);
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads_or_on_who_is_in_the_batch() {
    let read = encoder(MOBILE, &Wanted::default()).unwrap();
    let net = net(&read);
    let pictures = Tensor::cat(&vec![pictures(17); 3], 0).unwrap();
    let run = |threads: usize| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| values(&net.features(&pictures, Mode::Eval).unwrap()).unwrap())
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn no_gradient_reaches_it_and_nothing_in_it_trains() {
    let net = net(&encoder(MOBILE, &Wanted::default()).unwrap());
    assert_eq!(net.params().parameters().count(), 0);
    assert!(!net.features(&pictures(17), Mode::Train).unwrap().track_op());
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let refuse = |bytes: &[u8], wanted: &Wanted| encoder(bytes, wanted).unwrap_err().to_string();
    assert!(refuse(b"abc", &Wanted::default()).contains("no ONNX file"));
    let text = refuse(MOBILE, &wanted(Some("x"), None, None));
    assert!(text.contains("no output `x`; it has `logits`, `embedding`"), "{text}");
    let text = refuse(TOKENS, &wanted(None, None, Some(12)));
    assert!(text.contains("[batch, 10, 8]") && text.contains("`pool = \"mean\"`"), "{text}");
    assert!(refuse(MOBILE, &wanted(None, Some(Pool::Mean), None)).contains("`pool` has nothing to do"));
    assert!(refuse(MOBILE, &wanted(None, None, Some(224))).contains("[?, 3, 17, 17]: `size` is 224"));
    let changed = |change: &dyn Fn(&mut Model)| {
        let mut model = Model::decode(MOBILE).unwrap();
        change(&mut model);
        encoder(&model.encode_to_vec(), &Wanted::default()).unwrap_err()
    };
    let named = |model: &mut Model, operator: &str| {
        model.graph.as_mut().unwrap().node.iter_mut().find(|node| node.op_type.as_deref() == Some(operator)).unwrap().op_type =
            Some("Einsum".into());
    };
    let error = changed(&|model| named(model, "HardSwish"));
    // In the words of the file.
    assert_eq!(error.to_string(), "cannot run the operator `Einsum` that makes `/made/19`: kinset does not have it");
    let text = changed(&|model| model.opset_import[0].version = Some(7)).to_string();
    assert!(text.contains("operator set 7"), "{text}");
    let text =
        changed(&|model| model.graph.as_mut().unwrap().output.iter_mut().for_each(|o| o.name = Some("y".into()))).to_string();
    assert!(text.contains("name one with `output`"), "{text}");
    let text = changed(&|model| model.graph.as_mut().unwrap().initializer[0].data_location = Some(1)).to_string();
    assert!(text.contains("another file"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn changed_bytes_never_panic(
        tokens: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        static FILES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [MOBILE.to_vec(), TOKENS.to_vec()]);
        let mut bytes = FILES[usize::from(tokens)].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let pool = tokens.then_some(Pool::First);
        if let Ok(read) = encoder(&bytes, &wanted(None, pool, Some(if tokens { 12 } else { 17 }))) {
            let card = read.card(Normalization::new(vec![0.0; read.architecture.channels], vec![1.0; read.architecture.channels]));
            let _ = EncoderNet::from_tensors(&card, &read.tensors, &Device::Cpu);
        }
    }
}
