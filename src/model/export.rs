//! Export for PyTorch: the same numbers under the names that the authors' code loads.
//!
//! The file is safetensors. To each running mean belongs a counter `num_batches_tracked`, an int64 scalar, which a strict
//! `load_state_dict` expects; it is 0, and matters only to a batch norm without momentum.
//!
//! Centroids leave as a linear head: minus the squared distance to centroid c is 2 c·x − |c|² − |x|², and the last term is the same
//! for all clusters, so weight 2c and bias −|c|² give the same probabilities.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView, serialize};

use super::error::{ModelError, Result};
use super::import::names::{COUNTER, Layout};
use kinset_artifact::encoder::{ClassifierCard, HeadKind, Tensors, Weights};
use kinset_artifact::error::ArtifactError;
use kinset_base::fs;

/// The tensors of a classifier with heads that are linear.
///
/// # Errors
/// [`ModelError::NoPlace`] for centroids of features that are brought to unit length first, or of a projection: no linear layer on
/// the backbone is that.
pub fn with_linear_heads(card: &ClassifierCard, tensors: &Tensors) -> Result<Tensors> {
    let mut linear = tensors.clone();
    if card.encoder.architecture.projection.is_some() {
        let what = "heads that read the projection instead of the backbone".to_owned();
        return Err(ModelError::NoPlace { what });
    }
    if card.kind == HeadKind::Bottleneck || card.committee {
        return Err(ModelError::NoPlace { what: "heads with a bottleneck, or that decide together".into() });
    }
    if card.normalize_features {
        let what = format!("heads ({:?}) that read features of unit length", card.kind).to_lowercase();
        return Err(ModelError::NoPlace { what });
    }
    if card.kind == HeadKind::Centroids
        && let Some(Weights { shape, values }) = linear.remove("centroids")
    {
        let dim = shape.get(1).copied().unwrap_or(1).max(1);
        let bias = values.chunks_exact(dim).map(|row| -row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() as f32).collect();
        let weight = values.iter().map(|value| 2.0 * value).collect();
        linear.insert("cluster_head.0.bias", vec![shape[0]], bias);
        linear.insert("cluster_head.0.weight", shape, weight);
    }
    Ok(linear)
}

/// Writes tensors under the names of a family of files; returns those names, sorted.
///
/// # Errors
/// [`ModelError::NoPlace`] if the family has no name for one of them; a file that cannot be written.
pub fn save(tensors: &Tensors, layout: Layout, path: &Path) -> Result<Vec<String>> {
    let zero = 0_i64.to_le_bytes();
    let alexnet = tensors.get("backbone.fc1.0.weight").is_some();
    let mut floats = Vec::with_capacity(tensors.len());
    for (name, weights) in tensors.iter() {
        let theirs = layout.theirs(name, alexnet).ok_or_else(|| ModelError::NoPlace { what: format!("`{name}`") })?;
        floats.push((theirs, weights, weights.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()));
    }
    let failed = |error: safetensors::SafeTensorError| {
        ModelError::File(Box::new(ArtifactError::Encode { path: path.display().to_string(), detail: error.to_string() }))
    };
    let mut views = Vec::with_capacity(2 * floats.len());
    for (name, weights, bytes) in &floats {
        views.push((name.clone(), TensorView::new(Dtype::F32, weights.shape.clone(), bytes).map_err(failed)?));
        if let Some(norm) = name.strip_suffix("running_mean") {
            views.push((format!("{norm}{COUNTER}"), TensorView::new(Dtype::I64, Vec::new(), &zero).map_err(failed)?));
        }
    }
    views.sort_by(|(a, _), (b, _)| a.cmp(b));
    let names = views.iter().map(|(name, _)| name.clone()).collect();
    let file = serialize(views, None).map_err(failed)?;
    fs::write_atomic(path, &file).map_err(|error| ModelError::File(Box::new(error.into())))?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use serde_json::json;

    use super::*;
    use crate::import::{self, Wanted};
    use crate::params::values;
    use crate::testing::{fill, wave};
    use crate::{ClassifierNet, EncoderNet, HeadChoice, Mode, architecture};
    use kinset_artifact::encoder::{Backbone, Classifier, Encoder, Normalization, Projection, ProjectionKind, Stem};
    use kinset_base::seed::Seed;

    fn plain() -> Normalization {
        Normalization::new(vec![0.0; 3], vec![1.0; 3])
    }

    fn encoder(backbone: Backbone, stem: Stem, projection: Option<ProjectionKind>) -> EncoderNet {
        let projection = projection.map(|kind| Projection { kind, dim: 5 });
        let shape = architecture(backbone, stem, 2, 3, 32, projection).unwrap();
        let net = EncoderNet::init(&shape, Seed::new(1), &Device::Cpu).unwrap();
        fill(net.params());
        net
    }

    fn classifier(net: &EncoderNet) -> Classifier {
        let net = ClassifierNet::init(net, 4, 2, None, Seed::new(2), &Device::Cpu).unwrap();
        fill(net.params());
        let choice = HeadChoice { head: 1, chosen_by: "a test".into(), losses: vec![] };
        Classifier { card: net.card(plain(), choice).unwrap(), tensors: net.to_tensors().unwrap() }
    }

    #[test]
    fn what_goes_out_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        for (layout, backbone, stem, projection) in [
            (Layout::Scan, Backbone::Resnet18, Stem::Stl, Some(ProjectionKind::Mlp)),
            (Layout::Scan, Backbone::Resnet18, Stem::Cifar, None),
            (Layout::Moco, Backbone::Resnet50, Stem::Imagenet, Some(ProjectionKind::Mlp)),
            (Layout::And, Backbone::Resnet18, Stem::Cifar, Some(ProjectionKind::Linear)),
        ] {
            let net = encoder(backbone, stem, projection);
            let there = Encoder { card: net.card(plain()), tensors: net.to_tensors().unwrap() };
            let names = save(&there.tensors, layout, &path).unwrap();
            assert_eq!(names.len(), there.tensors.len() + there.card.buffers.len() / 2, "one counter per batch norm");
            let wanted = Wanted { stem: Some(stem), ..Wanted::default() };
            let found = import::find(&fs::read(&path).unwrap(), &wanted).unwrap();
            assert_eq!(found.layout(), layout);
            assert_eq!(found.encoder(32, &plain()).unwrap(), there, "{layout:?}");
        }
    }

    #[test]
    fn what_a_family_has_no_name_for_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let net = encoder(Backbone::Resnet18, Stem::Cifar, Some(ProjectionKind::Mlp));
        let error = save(&net.to_tensors().unwrap(), Layout::And, &dir.path().join("x")).unwrap_err();
        assert!(matches!(&error, ModelError::NoPlace { what } if what.contains("contrastive_head.0")), "{error}");
        let error = save(&classifier(&net).tensors, Layout::Moco, &dir.path().join("x")).unwrap_err();
        assert!(matches!(&error, ModelError::NoPlace { what } if what.contains("cluster_head")), "{error}");
    }

    #[test]
    fn centroids_leave_as_a_linear_head_with_the_same_probabilities() {
        let net = encoder(Backbone::ResnetTiny, Stem::Cifar, None);
        let centroids: Vec<f32> = (0..3 * 8).map(|i| (i as f32 * 0.7).sin() * 0.3).collect();
        let choice = || HeadChoice { head: 0, chosen_by: String::new(), losses: vec![] };
        let made = ClassifierNet::from_centroids(&net, &centroids, false, &Device::Cpu).unwrap();
        let card = made.card(plain(), choice()).unwrap();
        let linear = with_linear_heads(&card, &made.to_tensors().unwrap()).unwrap();
        let card = ClassifierCard { kind: HeadKind::Linear, ..card };
        let other = ClassifierNet::from_tensors(&card, &linear, &Device::Cpu).unwrap();
        let images = wave(&[5, 3, 12, 12], 0.03, 0.0, 1.0);
        let probabilities = |net: &ClassifierNet| {
            let logits = net.logits(0, &net.features(&images, Mode::Eval).unwrap()).unwrap();
            values(&candle_nn::ops::softmax(&logits, candle_core::D::Minus1).unwrap()).unwrap()
        };
        for (a, b) in probabilities(&made).iter().zip(probabilities(&other)) {
            assert!((a - b).abs() < 1e-6, "{a} is not {b}");
        }
        let unit = ClassifierNet::from_centroids(&net, &centroids, true, &Device::Cpu).unwrap();
        let error = with_linear_heads(&unit.card(plain(), choice()).unwrap(), &unit.to_tensors().unwrap()).unwrap_err();
        assert!(error.to_string().contains("unit length"), "{error}");
    }

    /// Leaves networks and what they make of two images where `tests/interop_torch.py` finds them.
    #[test]
    fn networks_of_each_stem_are_left_for_pytorch() {
        let Some(folder) = std::env::var_os("KINSET_INTEROP_DIR") else { return };
        let folder = Path::new(&folder).join("torch");
        fs::create_folders(&folder).unwrap();
        let mut told = Vec::new();
        for (name, backbone, stem, size) in [
            ("cifar", Backbone::Resnet18, Stem::Cifar, 32),
            ("stl", Backbone::Resnet18, Stem::Stl, 96),
            ("imagenet", Backbone::Resnet50, Stem::Imagenet, 64),
        ] {
            let images: Tensor = wave(&[2, 3, size, size], 0.01, 0.0, 1.0);
            let net = encoder(backbone, stem, Some(ProjectionKind::Mlp));
            let made = classifier(&net);
            let heads = ClassifierNet::from_tensors(&made.card, &made.tensors, &Device::Cpu).unwrap();
            let features = net.features(&images, Mode::Eval).unwrap();
            save(&net.to_tensors().unwrap(), Layout::Scan, &folder.join(format!("{name}-encoder.safetensors"))).unwrap();
            save(&made.tensors, Layout::Scan, &folder.join(format!("{name}-classifier.safetensors"))).unwrap();
            told.push(json!({
                "name": name, "size": size, "features": values(&features).unwrap(),
                "projection": values(&net.project(&features, Mode::Eval).unwrap()).unwrap(),
                "logits": values(&heads.all_logits(&heads.features(&images, Mode::Eval).unwrap()).unwrap()).unwrap(),
            }));
        }
        fs::write_atomic(&folder.join("expected.json"), &serde_json::to_vec(&told).unwrap()).unwrap();
    }
}
