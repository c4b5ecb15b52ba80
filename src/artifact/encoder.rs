//! Stored networks: an encoder (image → features) and a classifier (encoder + heads), as tensors and a card.
//!
//! Tensors are safetensors, written canonically: names sorted, no free metadata, so equal weights are equal bytes and any tool
//! that knows the format opens them. The card is JSON that a person can read; it says how the tensors fit together. Parameters
//! (moved by training) and buffers (running statistics) are named apart, and loading is strict both ways: a tensor too few means
//! a silently random layer, a tensor too many means another network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{ArtifactError, Result, display};
use super::graph::Graph;
use super::meta::{read_json, write_json};
pub use super::vit_config::{Family, Filter, Resize, Transformer};
use super::{Artifact, Draft, DraftFile, Stored};
use kinset_base::fs;

/// What a network's first layers look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// 3×3, stride 1, no pooling.
    Cifar,
    /// 3×3, stride 2, no pooling.
    Strided,
    /// 3×3, stride 1, then a 2×2 pool of stride 2.
    Stl,
    /// 7×7, stride 2, then a 3×3 pool of stride 2; of `alexnet` 11×11, stride 4.
    Imagenet,
}

impl Stem {
    /// As settings call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cifar => "cifar",
            Self::Strided => "strided",
            Self::Stl => "stl",
            Self::Imagenet => "imagenet",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backbone {
    /// Basic blocks, 2-2-2-2.
    Resnet18,
    /// Basic blocks, 3-4-6-3.
    Resnet34,
    /// Bottlenecks, 3-4-6-3.
    Resnet50,
    /// Basic blocks, one per stage: for small pictures on a CPU.
    ResnetTiny,
    /// Five convolutions and two fully connected layers with batch norm: AND's published table.
    Alexnet,
    /// No network: the pixels themselves, in `[0, 1]`, as features.
    Pixels,
    Vit,
    /// Any network, as a graph of ONNX's operators.
    Graph,
    /// No network and no pixels: features that were made elsewhere.
    Features,
}

/// What lies between the features and the contrastive loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProjectionKind {
    /// Linear, ReLU, linear.
    Mlp,
    /// Linear, batch norm, ReLU, linear.
    #[serde(rename = "mlp_norm")]
    MlpNorm,
    /// One linear layer.
    Linear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Projection {
    pub kind: ProjectionKind,
    /// Its output dimension, P.
    pub dim: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    pub backbone: Backbone,
    pub stem: Stem,
    /// Channels of the first stage, or of the first convolution; 64 in the papers.
    pub width: usize,
    /// Channels of the input: 1 or 3.
    pub channels: usize,
    /// Side of the square input, pixels.
    pub size: usize,
    /// Dimension of the features, D.
    pub features: usize,
    pub projection: Option<Projection>,
    /// The rest of the shape of a transformer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transformer: Option<Transformer>,
    /// The operators of a graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
}

impl Architecture {
    /// Numbers per image that come out: P where there is a projection, else D.
    pub fn output(&self) -> usize {
        self.projection.map_or(self.features, |projection| projection.dim)
    }
}

/// What pictures go through before the first layer: brought to the network's size, then, of values in `[0, 1]`,
/// `(x - mean) / std` per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Subtracted, one per channel.
    pub mean: Vec<f32>,
    /// Divided by, one per channel.
    pub std: Vec<f32>,
    /// How they are brought to size, where the network came with a way; else bilinear, the shorter side to the size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
}

impl Normalization {
    /// By these statistics, brought to size in the usual way.
    pub fn new(mean: Vec<f32>, std: Vec<f32>) -> Self {
        Self { mean, std, resize: None }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderCard {
    pub architecture: Architecture,
    pub normalization: Normalization,
    /// Tensors that training moves, in the network's order.
    pub parameters: Vec<String>,
    /// Tensors that training keeps as statistics, in the network's order.
    pub buffers: Vec<String>,
}

impl EncoderCard {
    /// The names of all its tensors.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().chain(&self.buffers).map(String::as_str)
    }

    /// The first contradiction in it, in words.
    fn contradiction(&self) -> Option<String> {
        let shape = &self.architecture;
        let Normalization { mean, std, .. } = &self.normalization;
        if !matches!(shape.channels, 1 | 3) {
            return Some(format!("`channels` is {}; 1 or 3 was expected", shape.channels));
        }
        for (name, value) in [("width", shape.width), ("size", shape.size), ("features", shape.features)] {
            if value == 0 {
                return Some(format!("`{name}` is 0"));
            }
        }
        if mean.len() != shape.channels || std.len() != shape.channels {
            let (channels, mean, std) = (shape.channels, mean.len(), std.len());
            return Some(format!("{channels} channels are normalized by {mean} means and {std} deviations"));
        }
        if !mean.iter().all(|m| m.is_finite()) || !std.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Some(format!("the input cannot be normalized by means {mean:?} and deviations {std:?}"));
        }
        if shape.projection.is_some_and(|p| p.dim == 0) {
            return Some("the projection's `dim` is 0".into());
        }
        if (shape.backbone == Backbone::Vit) != shape.transformer.is_some() {
            return Some("a transformer's shape belongs to the backbone `vit`, and to no other".into());
        }
        if (shape.backbone == Backbone::Graph) != shape.graph.is_some() {
            return Some("operators belong to the backbone `graph`, and to no other".into());
        }
        if let Some(resize) = self.normalization.resize
            && resize.shorter < shape.size
        {
            let (shorter, size) = (resize.shorter, shape.size);
            return Some(format!("images are resized to {shorter} pixels, but the crop is {size}"));
        }
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// `cluster_head.{h}.weight` `[K, D]` and `cluster_head.{h}.bias` `[K]`: logits. With a hidden layer of U units:
    /// `cluster_head.{h}.0` `[U, D]`, ReLU, `cluster_head.{h}.2` `[K, U]`.
    Linear,
    /// `centroids` `[K, D]`: the nearest one wins.
    Centroids,
    /// `cluster_head.{h}.0` `[U, D]`, GELU, `cluster_head.{h}.2` `[V, U]`, to unit length, `cluster_head.{h}.last.weight` `[K, V]`.
    Bottleneck,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierCard {
    /// The encoder below the heads. If it has a projection, the heads read that; else they read the backbone.
    pub encoder: EncoderCard,
    /// Clusters, K.
    pub clusters: usize,
    /// Heads, H.
    pub heads: usize,
    /// The head to use, from 0.
    pub head: usize,
    /// How it was chosen, in words; never by labels.
    pub chosen_by: String,
    /// The loss of each head at the moment of choice; empty where nothing was to be chosen.
    pub head_losses: Vec<f64>,
    pub kind: HeadKind,
    /// Units of the hidden layer of each head, U; without one, heads are linear.
    pub hidden: Option<usize>,
    /// Width of what is brought to unit length before the last layer, V.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bottleneck: Option<usize>,
    /// True if features are scaled to unit length before the head.
    pub normalize_features: bool,
    /// True if all heads decide, by the mean of their probabilities: their clusters stand in one order.
    #[serde(default, skip_serializing_if = "is_false")]
    pub committee: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl ClassifierCard {
    pub fn head_parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (k, d) = (self.clusters, self.encoder.architecture.output());
        let layer = |name: String, outputs: usize, inputs: usize| {
            [(format!("{name}.weight"), vec![outputs, inputs]), (format!("{name}.bias"), vec![outputs])]
        };
        match (self.kind, self.hidden) {
            (HeadKind::Centroids, _) => vec![("centroids".into(), vec![k, d])],
            (HeadKind::Linear, None) => (0..self.heads).flat_map(|h| layer(format!("cluster_head.{h}"), k, d)).collect(),
            (HeadKind::Linear, Some(u)) => (0..self.heads)
                .flat_map(|h| {
                    [layer(format!("cluster_head.{h}.0"), u, d), layer(format!("cluster_head.{h}.2"), k, u)]
                        .into_iter()
                        .flatten()
                })
                .collect(),
            (HeadKind::Bottleneck, hidden) => {
                let (u, v) = (hidden.unwrap_or(0), self.bottleneck.unwrap_or(0));
                (0..self.heads)
                    .flat_map(|h| {
                        let last = [(format!("cluster_head.{h}.last.weight"), vec![k, v])];
                        let before = [layer(format!("cluster_head.{h}.0"), u, d), layer(format!("cluster_head.{h}.2"), v, u)];
                        before.into_iter().flatten().chain(last)
                    })
                    .collect()
            }
        }
    }

    /// The first contradiction in it, in words.
    fn contradiction(&self) -> Option<String> {
        let Self { clusters, heads, head, head_losses, kind, .. } = self;
        if *clusters == 0 || *heads == 0 {
            return Some(format!("{heads} heads with {clusters} clusters decide nothing"));
        }
        if head >= heads {
            return Some(format!("`head` is {head}, but there are {heads} heads, counted from 0"));
        }
        if *kind == HeadKind::Centroids && *heads != 1 {
            return Some(format!("centroids are one head, not {heads}"));
        }
        if self.hidden == Some(0) || (self.hidden.is_some() && *kind == HeadKind::Centroids) {
            return Some(format!("a hidden layer of {:?} units does not fit heads that are {kind:?}", self.hidden));
        }
        let narrow = *kind == HeadKind::Bottleneck;
        if narrow != self.bottleneck.is_some() || (narrow && self.hidden.is_none()) || self.bottleneck == Some(0) {
            let (hidden, bottleneck) = (self.hidden, self.bottleneck);
            return Some(format!("a bottleneck of {bottleneck:?} after {hidden:?} units does not fit heads that are {kind:?}"));
        }
        if self.committee && *kind == HeadKind::Centroids {
            return Some("distances to centroids are not probabilities, so they cannot be averaged".into());
        }
        if !head_losses.is_empty() && head_losses.len() != *heads {
            return Some(format!("{} losses for {heads} heads", head_losses.len()));
        }
        if !head_losses.iter().all(|loss| loss.is_finite()) {
            return Some(format!("the losses of the heads are {head_losses:?}"));
        }
        self.encoder.contradiction()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its values, last axis fastest.
    pub values: Vec<f32>,
}

/// Named tensors, ordered by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensors(BTreeMap<String, Weights>);

impl Tensors {
    /// Adds a tensor, or replaces the one of that name.
    ///
    /// # Panics
    /// If the values do not fill the shape.
    pub fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) {
        let name = name.into();
        assert_eq!(shape.iter().product::<usize>(), values.len(), "the values of `{name}` do not fill its shape {shape:?}");
        self.0.insert(name, Weights { shape, values });
    }

    pub fn get(&self, name: &str) -> Option<&Weights> {
        self.0.get(name)
    }

    pub fn remove(&mut self, name: &str) -> Option<Weights> {
        self.0.remove(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Weights)> {
        self.0.iter().map(|(name, weights)| (name.as_str(), weights))
    }

    /// Their names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes them as safetensors: F32, sorted by name, no free metadata. Equal tensors give equal bytes.
    ///
    /// # Errors
    /// If the file cannot be written, or the names alone exceed the format's 100 MB.
    pub fn save(&self, path: &Path) -> Result<()> {
        Self::save_these(self.0.iter().collect(), path)
    }

    /// Writes some of a network's tensors.
    fn save_these(tensors: Vec<(&String, &Weights)>, path: &Path) -> Result<()> {
        let failed = |e: safetensors::SafeTensorError| ArtifactError::Encode { path: display(path), detail: e.to_string() };
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(_, w)| w.values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let mut views = Vec::with_capacity(bytes.len());
        for ((name, weights), bytes) in tensors.into_iter().zip(&bytes) {
            views.push((name, TensorView::new(Dtype::F32, weights.shape.clone(), bytes).map_err(failed)?));
        }
        let file = serialize(views, None).map_err(failed)?;
        Ok(fs::write_atomic(path, &file)?)
    }

    /// Reads a file of F32 tensors.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or holds another number type, infinities or NaN.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(path, &fs::read(path)?)
    }

    /// Reads the bytes of a file; the path is for messages.
    fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| ArtifactError::Damaged { path: display(path), detail: e.to_string() })?;
        let mut tensors = Self::default();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                let found = format!("{:?}", view.dtype());
                return Err(ArtifactError::TensorType { path: display(path), name: name.to_owned(), found });
            }
            let (values, _) = view.data().as_chunks::<4>();
            let values: Vec<f32> = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
            if let Some(row) = values.iter().position(|v| !v.is_finite()) {
                let value = values[row].to_string();
                return Err(ArtifactError::NotFinite { path: display(path), column: name.to_owned(), row, value });
            }
            tensors.0.insert(name.to_owned(), Weights { shape: view.shape().to_vec(), values });
        }
        Ok(tensors)
    }

    fn check_names<'a>(&self, path: &Path, listed: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let mut unexpected: Vec<String> = self.names().map(str::to_owned).collect();
        let mut missing = Vec::new();
        for name in listed {
            match unexpected.iter().position(|found| found == name) {
                Some(place) => drop(unexpected.remove(place)),
                None => missing.push(name.to_owned()),
            }
        }
        if missing.is_empty() && unexpected.is_empty() {
            return Ok(());
        }
        Err(ArtifactError::TensorNames { path: display(path), missing, unexpected })
    }
}

/// A network from images to features.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    pub card: EncoderCard,
    /// The tensors the card lists.
    pub tensors: Tensors,
}

artifact!(Encoder, "encoder", ["encoder.json", "encoder.safetensors"], label_free);

impl Encoder {
    /// Writes `encoder.json` and `encoder.safetensors` into a folder.
    pub fn save(&self, dir: &Path) -> Result<Draft<Self>> {
        let (json, tensors) = (dir.join("encoder.json"), dir.join("encoder.safetensors"));
        self.check(&json, &tensors)?;
        write_json(&json, Self::KIND, &self.card)?;
        self.tensors.save(&tensors)?;
        Ok(Draft::new(vec![plain("encoder.json", &json), plain("encoder.safetensors", &tensors)]))
    }

    /// Reads both files.
    ///
    /// # Errors
    /// If a file cannot be read or is damaged, or the tensors are not exactly those the card lists.
    pub fn load(stored: &Stored<Self>) -> Result<Self> {
        let (json, tensors) = (stored.file("encoder.json"), stored.file("encoder.safetensors"));
        let encoder = Self { card: read_json(json, Self::KIND)?, tensors: Tensors::load(tensors)? };
        encoder.check(json, tensors)?;
        Ok(encoder)
    }

    fn check(&self, json: &Path, tensors: &Path) -> Result<()> {
        if let Some(what) = self.card.contradiction() {
            return Err(ArtifactError::Contradiction { path: display(json), what });
        }
        self.tensors.check_names(tensors, self.card.names())
    }
}

/// A network from images to clusters.
#[derive(Clone, Debug, PartialEq)]
pub struct Classifier {
    pub card: ClassifierCard,
    /// The tensors of the encoder and of all heads.
    pub tensors: Tensors,
}

artifact!(Classifier, "classifier", [CARD, HEADS, BODY], label_free);

const CARD: &str = "classifier.json";
const HEADS: &str = "classifier.safetensors";
/// The tensors of a classifier's encoder. They have a file of their own, so that a store keeps an encoder that stays as it was
/// once, however many classifiers stand on it.
const BODY: &str = "classifier-encoder.safetensors";

impl Classifier {
    /// Writes `classifier.json`, the heads as `classifier.safetensors` and the encoder as `classifier-encoder.safetensors` into a
    /// folder.
    pub fn save(&self, dir: &Path) -> Result<Draft<Self>> {
        let files = [CARD, HEADS, BODY].map(|name| plain(name, &dir.join(name)));
        let [json, heads, body] = files.each_ref().map(|file| file.path.as_path());
        self.check(json, heads)?;
        write_json(json, Self::KIND, &self.card)?;
        let of_encoder: BTreeSet<&str> = self.card.encoder.names().collect();
        let (bottom, top) = self.tensors.0.iter().partition::<Vec<_>, _>(|(name, _)| of_encoder.contains(name.as_str()));
        Tensors::save_these(top, heads)?;
        Tensors::save_these(bottom, body)?;
        Ok(Draft::new(files.into()))
    }

    /// Reads the card alone: what kind of head it is, without its weights.
    pub fn card(stored: &Stored<Self>) -> Result<ClassifierCard> {
        read_json(stored.file(CARD), Self::KIND)
    }

    /// Reads all files.
    ///
    /// # Errors
    /// If a file cannot be read or is damaged, or the tensors are not exactly those of the encoder and the heads.
    pub fn load(stored: &Stored<Self>) -> Result<Self> {
        let [json, heads, body] = [CARD, HEADS, BODY].map(|name| stored.file(name));
        let card: ClassifierCard = read_json(json, Self::KIND)?;
        let (mut tensors, encoder) = (Tensors::load(heads)?, Tensors::load(body)?);
        encoder.check_names(body, card.encoder.names())?;
        tensors.0.extend(encoder.0);
        let classifier = Self { card, tensors };
        classifier.check(json, heads)?;
        Ok(classifier)
    }

    fn check(&self, json: &Path, tensors: &Path) -> Result<()> {
        if let Some(what) = self.card.contradiction() {
            return Err(ArtifactError::Contradiction { path: display(json), what });
        }
        // More heads than tensors: say so without building a list as long as a damaged card claims.
        if self.card.kind != HeadKind::Centroids && self.card.heads > self.tensors.len() {
            let what = format!("the card names {} heads, the file contains {} tensors", self.card.heads, self.tensors.len());
            return Err(ArtifactError::Contradiction { path: display(json), what });
        }
        let heads = self.card.head_parameters();
        self.tensors.check_names(tensors, self.card.encoder.names().chain(heads.iter().map(|(name, _)| name.as_str())))?;
        for (name, shape) in &heads {
            if let Some(found) = self.tensors.get(name).filter(|weights| weights.shape != *shape) {
                let what = format!("`{name}` has the shape {:?}; {shape:?} was expected", found.shape);
                return Err(ArtifactError::Contradiction { path: display(tensors), what });
            }
        }
        Ok(())
    }
}

/// A file whose digest is that of its bytes.
fn plain(name: &'static str, path: &Path) -> DraftFile {
    DraftFile { name, path: path.to_owned(), logical: None }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::stored;

    fn card() -> EncoderCard {
        EncoderCard {
            architecture: Architecture {
                backbone: Backbone::ResnetTiny,
                stem: Stem::Cifar,
                width: 4,
                channels: 1,
                size: 8,
                features: 2,
                projection: Some(Projection { kind: ProjectionKind::Mlp, dim: 3 }),
                transformer: None,
                graph: None,
            },
            normalization: Normalization::new(vec![0.5], vec![0.25]),
            parameters: vec!["backbone.conv1.weight".into()],
            buffers: vec!["backbone.bn1.running_mean".into()],
        }
    }

    fn encoder() -> Encoder {
        let mut tensors = Tensors::default();
        tensors.insert("backbone.conv1.weight", vec![2, 1, 1, 2], vec![0.1, -2.0, 3.5, f32::MIN_POSITIVE]);
        tensors.insert("backbone.bn1.running_mean", vec![2], vec![0.0, -0.0]);
        Encoder { card: card(), tensors }
    }

    fn classifier() -> Classifier {
        let mut tensors = encoder().tensors;
        for h in 0..2 {
            tensors.insert(format!("cluster_head.{h}.weight"), vec![3, 3], vec![0.5; 9]);
            tensors.insert(format!("cluster_head.{h}.bias"), vec![3], vec![0.0; 3]);
        }
        let card = ClassifierCard {
            encoder: card(),
            clusters: 3,
            heads: 2,
            head: 1,
            chosen_by: "lowest loss on the training images".into(),
            head_losses: vec![-1.5, -1.75],
            kind: HeadKind::Linear,
            hidden: None,
            bottleneck: None,
            normalize_features: false,
            committee: false,
        };
        Classifier { card, tensors }
    }

    #[test]
    fn networks_come_back_as_they_were_and_equal_ones_are_equal_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let draft = encoder().save(dir.path()).unwrap();
        assert_eq!(Encoder::load(&stored(&draft)).unwrap(), encoder());
        let first = fs::read(&draft.files[1].path).unwrap();
        encoder().save(dir.path()).unwrap();
        assert_eq!(first, fs::read(&draft.files[1].path).unwrap());
        let draft = classifier().save(dir.path()).unwrap();
        assert_eq!(Classifier::load(&stored(&draft)).unwrap(), classifier());
        assert_eq!(first, fs::read(&draft.files[2].path).unwrap(), "a store keeps the encoder of both once");
    }

    #[test]
    fn an_encoder_without_weights_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let mut pixels = encoder();
        (pixels.card.parameters, pixels.card.buffers, pixels.tensors) = (vec![], vec![], Tensors::default());
        pixels.card.architecture.backbone = Backbone::Pixels;
        assert_eq!(Encoder::load(&stored(&pixels.save(dir.path()).unwrap())).unwrap(), pixels);
    }

    #[test]
    fn tensors_too_few_and_too_many_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = encoder();
        other.tensors.insert("backbone.fc.weight", vec![1], vec![1.0]);
        other.tensors.remove("backbone.bn1.running_mean");
        let text = other.save(dir.path()).unwrap_err().to_string();
        assert!(
            text.contains("missing `backbone.bn1.running_mean`") && text.contains("unexpected `backbone.fc.weight`"),
            "{text}"
        );
    }

    #[test]
    fn cards_that_contradict_themselves_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |change: fn(&mut Classifier)| {
            let mut classifier = classifier();
            change(&mut classifier);
            classifier.save(dir.path()).unwrap_err().to_string()
        };
        assert!(refuse(|c| c.card.head = 2).contains("counted from 0"));
        assert!(refuse(|c| c.card.head_losses = vec![1.0]).contains("1 losses for 2 heads"));
        assert!(refuse(|c| c.card.encoder.architecture.channels = 4).contains("1 or 3"));
        assert!(refuse(|c| c.card.encoder.normalization.std = vec![0.0]).contains("cannot be normalized"));
        assert!(refuse(|c| c.card.clusters = 4).contains("[3, 3]"));
        assert!(refuse(|c| c.card.heads = usize::MAX).contains("losses"));
        assert!(refuse(|c| c.card.bottleneck = Some(2)).contains("bottleneck"));
        assert!(refuse(|c| c.card.kind = HeadKind::Bottleneck).contains("bottleneck"));
    }

    #[test]
    fn another_number_type_and_nan_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let view = TensorView::new(Dtype::F64, vec![1], &[0; 8]).unwrap();
        fs::write_atomic(&path, &serialize([("w", view)], None).unwrap()).unwrap();
        assert!(matches!(Tensors::load(&path).unwrap_err(), ArtifactError::TensorType { .. }));
        let mut tensors = Tensors::default();
        tensors.insert("w", vec![2], vec![0.0, f32::NAN]);
        tensors.save(&path).unwrap();
        assert!(matches!(Tensors::load(&path).unwrap_err(), ArtifactError::NotFinite { row: 1, .. }));
    }

    #[test]
    fn unknown_fields_and_other_kinds_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let draft = encoder().save(dir.path()).unwrap();
        let text = fs::read_text(&draft.files[0].path).unwrap();
        let change = |from: &str, to: &str| {
            assert!(text.contains(from), "{text}");
            fs::write_atomic(&draft.files[0].path, text.replace(from, to).as_bytes()).unwrap();
            Encoder::load(&stored(&draft)).unwrap_err()
        };
        assert!(matches!(change("\"width\"", "\"wide\""), ArtifactError::Json { .. }));
        assert!(matches!(change("\"artifact\": \"encoder\"", "\"artifact\": \"classifier\""), ArtifactError::WrongKind { .. }));
        assert!(matches!(change("\"format\": 1", "\"format\": 99"), ArtifactError::WrongFormat { .. }));
    }

    proptest! {
        #[test]
        fn changed_bytes_never_panic(place in 0_usize..400, byte: u8, cut in 0_usize..400) {
            static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
                let dir = tempfile::tempdir().unwrap();
                fs::read(&encoder().save(dir.path()).unwrap().files[1].path).unwrap()
            });
            let mut bytes = FILE.clone();
            let length = bytes.len();
            bytes[place % length] = byte;
            bytes.truncate(if cut % 2 == 0 { length } else { cut % length });
            let _ = Tensors::parse(Path::new("x.safetensors"), &bytes);
        }
    }
}
