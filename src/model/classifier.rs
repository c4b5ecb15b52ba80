//! Classifiers: networks from features to clusters.

use candle_core::{D, Device, Tensor};

use super::encoder::{EncoderNet, features_alone};
use super::error::{ModelError, Result};
use super::head::Linear;
use super::init::Init;
use super::norm::Mode;
use super::params::{Builder, Params};
use kinset_artifact::encoder::{ClassifierCard, EncoderCard, HeadKind, Normalization, Tensors, Weights};
use kinset_base::seed::Seed;
use kinset_kernel::{gelu, l2_normalize, linear, relu};

/// The most clusters that are accepted.
const MOST: usize = 1 << 20;
const MOST_HEADS: usize = 1024;
/// The widest hidden layer that is accepted.
const WIDEST: usize = 65_536;

#[derive(Clone, Debug)]
enum Head {
    Linear(Linear),
    Hidden(Linear, Linear),
    Centroids(Tensor),
    /// GELU between, unit length before the last.
    Bottleneck(Linear, Linear, Tensor),
}

/// How a head was chosen, without labels.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadChoice {
    /// The head, counted from 0.
    pub head: usize,
    /// The criterion, in words.
    pub chosen_by: String,
    /// The loss of every head by that criterion.
    pub losses: Vec<f64>,
}

/// What a classifier is, apart from its encoder: see [`ClassifierCard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadsShape {
    /// Clusters, K.
    pub clusters: usize,
    /// Heads, H.
    pub heads: usize,
    pub kind: HeadKind,
    /// Units of their hidden layer.
    pub hidden: Option<usize>,
    /// Width of what is brought to unit length before the last layer.
    pub bottleneck: Option<usize>,
    /// Whether features are scaled to unit length before the heads.
    pub normalize: bool,
    /// Whether all heads decide together.
    pub committee: bool,
}

impl HeadsShape {
    /// Linear heads, or ones with a hidden layer.
    pub fn linear(clusters: usize, heads: usize, hidden: Option<usize>) -> Self {
        Self { clusters, heads, kind: HeadKind::Linear, hidden, bottleneck: None, normalize: false, committee: false }
    }

    pub fn of(card: &ClassifierCard) -> Self {
        let &ClassifierCard { clusters, heads, kind, hidden, bottleneck, normalize_features, committee, .. } = card;
        Self { clusters, heads, kind, hidden, bottleneck, normalize: normalize_features, committee }
    }
}

/// An encoder and H heads of K clusters each.
///
/// Tensor names: those of the backbone, then `cluster_head.{h}.weight` `[K, D]` and `.bias` `[K]`, or `centroids` `[K, D]`.
#[derive(Clone, Debug)]
pub struct ClassifierNet {
    encoder: EncoderNet,
    heads: Vec<Head>,
    shape: HeadsShape,
    params: Params,
}

impl ClassifierNet {
    /// New heads on an encoder, which loses its projection: linear, or with a hidden layer of so many units. The encoder's
    /// numbers are shared, not copied.
    ///
    /// # Errors
    /// [`ModelError::Architecture`] for fewer than 2 clusters or no head.
    pub fn init(
        encoder: &EncoderNet,
        clusters: usize,
        heads: usize,
        hidden: Option<usize>,
        seed: Seed,
        device: &Device,
    ) -> Result<Self> {
        let shape = HeadsShape::linear(clusters, heads, hidden);
        Self::build(encoder.without_projection()?, shape, Builder::fresh(seed, device))
    }

    /// These heads on an encoder. They read its projection if it has one.
    ///
    /// # Errors
    /// [`ModelError::Weights`] if they are not exactly heads of this shape, [`ModelError::NotFinite`].
    pub fn with_heads(encoder: &EncoderNet, shape: HeadsShape, heads: &Tensors, device: &Device) -> Result<Self> {
        Self::build(encoder.clone(), shape, Builder::restored(heads, device)?)
    }

    /// New heads of this shape on an encoder. They read its projection if it has one.
    pub fn over(encoder: &EncoderNet, shape: HeadsShape, seed: Seed, device: &Device) -> Result<Self> {
        Self::build(encoder.clone(), shape, Builder::fresh(seed, device))
    }

    /// One head that prefers the nearest centroid: logit `k` is minus the squared distance to centroid `k`. It reads the
    /// encoder's projection if that has one: [`EncoderNet::without_projection`] makes it read the backbone.
    ///
    /// # Shapes
    /// `centroids`: `[K, D]`, row-major; of unit-length features if `normalize_features`.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the numbers are not rows of D, [`ModelError::NotFinite`].
    pub fn from_centroids(encoder: &EncoderNet, centroids: &[f32], normalize_features: bool, device: &Device) -> Result<Self> {
        let dim = encoder.architecture().output();
        let clusters = centroids.len() / dim;
        if clusters * dim != centroids.len() {
            let wanted = format!("centroids of {dim} features");
            return Err(ModelError::Input { wanted, found: vec![centroids.len()] });
        }
        let mut tensors = Tensors::default();
        tensors.insert("centroids", vec![clusters, dim], centroids.to_vec());
        let kind = HeadKind::Centroids;
        let shape = HeadsShape { kind, normalize: normalize_features, ..HeadsShape::linear(clusters, 1, None) };
        Self::build(encoder.clone(), shape, Builder::restored(&tensors, device)?)
    }

    /// A classifier from its card and numbers. Names and shapes must agree both ways.
    pub fn from_tensors(card: &ClassifierCard, tensors: &Tensors, device: &Device) -> Result<Self> {
        let (mut body, mut top) = (Tensors::default(), Tensors::default());
        for (name, Weights { shape, values }) in tensors.iter() {
            let part = if is_head(name) { &mut top } else { &mut body };
            part.insert(name, shape.clone(), values.clone());
        }
        let encoder = card.encoder.clone();
        // Both halves are tried before either is reported, so that the list is whole.
        let built = EncoderNet::from_tensors(&encoder, &body, device);
        let shape = HeadsShape::of(card);
        match built {
            Ok(encoder) => {
                let net = Self::build(encoder, shape, Builder::restored(&top, device)?)?;
                net.check(card.head)?;
                Ok(net)
            }
            Err(ModelError::Weights(mut all)) => {
                let dim = encoder.architecture.output();
                if let Err(ModelError::Weights(rest)) = build_heads(shape, dim, Builder::restored(&top, device)?) {
                    all.missing.extend(rest.missing);
                    all.unexpected.extend(rest.unexpected);
                    all.misshapen.extend(rest.misshapen);
                }
                Err(ModelError::Weights(all))
            }
            Err(other) => Err(other),
        }
    }

    /// The heads of a classifier without its encoder, for features that are there already.
    pub fn heads_alone(card: &ClassifierCard, tensors: &Tensors, device: &Device) -> Result<Self> {
        let mut heads = Tensors::default();
        for (name, Weights { shape, values }) in tensors.iter().filter(|(name, _)| is_head(name)) {
            heads.insert(name, shape.clone(), values.clone());
        }
        let body = EncoderNet::init(&features_alone(card.encoder.architecture.output())?, Seed::new(0), device)?;
        let net = Self::with_heads(&body, HeadsShape::of(card), &heads, device)?;
        net.check(card.head)?;
        Ok(net)
    }

    fn build(encoder: EncoderNet, shape: HeadsShape, builder: Builder) -> Result<Self> {
        let (heads, top) = build_heads(shape, encoder.architecture().output(), builder)?;
        let mut params = encoder.params().clone();
        for (name, role, var) in top.iter() {
            params.push(name, role, var.clone())?;
        }
        Ok(Self { encoder, heads, shape, params })
    }

    /// Its encoder. A projection is there only if the heads read it.
    pub fn encoder(&self) -> &EncoderNet {
        &self.encoder
    }

    /// All its numbers: backbone, then heads.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The numbers of its heads alone, shared: what head-only training moves.
    pub fn head_params(&self) -> Params {
        self.params.subset(is_head)
    }

    /// K.
    pub fn clusters(&self) -> usize {
        self.shape.clusters
    }

    /// H.
    pub fn heads(&self) -> usize {
        self.heads.len()
    }

    /// The numbers, off the device.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] if training diverged; if the device fails.
    pub fn to_tensors(&self) -> Result<Tensors> {
        self.params.to_tensors()
    }

    /// All about it but its numbers.
    ///
    /// # Errors
    /// [`ModelError::Head`] if the chosen head is not there.
    pub fn card(&self, normalization: Normalization, choice: HeadChoice) -> Result<ClassifierCard> {
        self.check(choice.head)?;
        Ok(ClassifierCard {
            encoder: self.encoder.card(normalization),
            clusters: self.shape.clusters,
            heads: self.heads.len(),
            head: choice.head,
            chosen_by: choice.chosen_by,
            head_losses: choice.losses,
            kind: self.shape.kind,
            hidden: self.shape.hidden,
            bottleneck: self.shape.bottleneck,
            normalize_features: self.shape.normalize,
            committee: self.shape.committee,
        })
    }

    fn check(&self, head: usize) -> Result<&Head> {
        self.heads.get(head).ok_or(ModelError::Head { head, heads: self.heads.len() })
    }

    /// What the heads read: the encoder's projection if it has one, else its backbone's output.
    pub fn features(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        self.read(self.encoder.features(images, mode)?, mode)
    }

    /// What the heads read, of the backbone's output.
    ///
    /// # Shapes
    /// `backbone`: `[B, D]`. Returns `[B, D]`, or `[B, P]` if the encoder has a projection.
    pub fn read(&self, backbone: Tensor, mode: Mode) -> Result<Tensor> {
        if self.encoder.architecture().projection.is_some() { self.encoder.project(&backbone, mode) } else { Ok(backbone) }
    }

    /// What a head makes of features.
    ///
    /// # Shapes
    /// `features`: `[B, D]`, unnormalized. Returns `[B, K]`.
    pub fn logits(&self, head: usize, features: &Tensor) -> Result<Tensor> {
        let features = if self.shape.normalize { l2_normalize(features)? } else { features.clone() };
        match self.check(head)? {
            Head::Linear(linear) => linear.forward(&features),
            Head::Hidden(first, second) => second.forward(&relu(&first.forward(&features)?)?),
            Head::Bottleneck(first, second, last) => {
                let narrow = l2_normalize(&second.forward(&gelu(&first.forward(&features)?)?)?)?;
                Ok(linear(&narrow, last, &Tensor::zeros(last.dim(0)?, last.dtype(), last.device())?)?)
            }
            Head::Centroids(centroids) => {
                let products = features.matmul(&centroids.t()?)?;
                let own = features.sqr()?.sum_keepdim(D::Minus1)?;
                let theirs = centroids.sqr()?.sum(D::Minus1)?;
                Ok((products * 2.0)?.broadcast_sub(&own)?.broadcast_sub(&theirs)?)
            }
        }
    }

    /// What all heads make of features, head by head.
    ///
    /// # Shapes
    /// `features`: `[B, D]`, unnormalized. Returns `[B, H·K]`.
    pub fn all_logits(&self, features: &Tensor) -> Result<Tensor> {
        let linear: Option<Vec<&Linear>> =
            self.heads.iter().map(|head| if let Head::Linear(linear) = head { Some(linear) } else { None }).collect();
        if let Some(layers) = linear {
            let features = if self.shape.normalize { l2_normalize(features)? } else { features.clone() };
            return Linear::side_by_side(&layers, &features);
        }
        let each = (0..self.heads.len()).map(|head| self.logits(head, features)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&each, 1)?)
    }

    pub fn is_committee(&self) -> bool {
        self.shape.committee
    }

    /// The same heads, each deciding alone.
    pub fn apart(&self) -> Result<Self> {
        let shape = HeadsShape { committee: false, ..self.shape };
        Self::build(self.encoder.clone(), shape, Builder::shared(&self.head_params(), true))
    }

    /// The probabilities that count: those of this head, or the mean of all where they decide together.
    ///
    /// # Shapes
    /// `features`: `[B, D]`, unnormalized. Returns `[B, K]`, rows of sum 1.
    pub fn decide(&self, head: usize, features: &Tensor) -> Result<Tensor> {
        let of = |head| Ok::<_, ModelError>(candle_nn::ops::softmax(&self.logits(head, features)?, D::Minus1)?);
        if !self.shape.committee {
            return of(head);
        }
        let mut sum = of(0)?;
        for head in 1..self.heads() {
            sum = (sum + of(head)?)?;
        }
        Ok((sum / self.heads() as f64)?)
    }

    /// The classifier with this head alone, now number 0; the numbers are shared.
    ///
    /// # Errors
    /// [`ModelError::Head`] if there is no such head, [`ModelError::Committee`] if none decides alone.
    pub fn keep_head(&self, head: usize) -> Result<Self> {
        self.check(head)?;
        if self.shape.committee {
            return Err(ModelError::Committee);
        }
        let prefix = format!("cluster_head.{head}.");
        let top = match self.shape.kind {
            HeadKind::Linear | HeadKind::Bottleneck => {
                self.params.renamed(|name| name.strip_prefix(&prefix).map(|rest| format!("cluster_head.0.{rest}")))
            }
            HeadKind::Centroids => self.head_params(),
        };
        Self::build(self.encoder.clone(), HeadsShape { heads: 1, ..self.shape }, Builder::shared(&top, true))
    }

    /// The same numbers, seen without recording: see [`EncoderNet::frozen`].
    pub fn frozen(&self) -> Result<Self> {
        Self::build(self.encoder.frozen()?, self.shape, Builder::shared(&self.head_params(), false))
    }

    /// The same numbers, with an encoder that no gradient reaches under heads that learn.
    pub fn with_frozen_encoder(&self) -> Result<Self> {
        Ok(Self { encoder: self.encoder.frozen()?, ..self.clone() })
    }

    /// An equal classifier with numbers of its own.
    pub fn duplicate(&self) -> Result<Self> {
        Self::build(self.encoder.duplicate()?, self.shape, Builder::shared(&self.head_params().duplicate()?, true))
    }

    /// The card of its encoder, for an artifact of the backbone alone.
    pub fn encoder_card(&self, normalization: Normalization) -> EncoderCard {
        self.encoder.card(normalization)
    }
}

fn build_heads(shape: HeadsShape, features: usize, mut builder: Builder) -> Result<(Vec<Head>, Params)> {
    let wrong = |field: &'static str, found: usize, wanted: String| {
        Err(ModelError::Architecture { field, found: found.to_string(), wanted })
    };
    if !(2..=MOST).contains(&shape.clusters) {
        return wrong("clusters", shape.clusters, format!("2 to {MOST}"));
    }
    if !(1..=MOST_HEADS).contains(&shape.heads) {
        return wrong("heads", shape.heads, format!("1 to {MOST_HEADS}"));
    }
    if let Some(units) = shape.hidden
        && !(1..=WIDEST).contains(&units)
    {
        return wrong("hidden", units, format!("1 to {WIDEST} units"));
    }
    let heads = match shape.kind {
        HeadKind::Linear => (0..shape.heads)
            .map(|head| {
                let name = format!("cluster_head.{head}");
                Ok(match shape.hidden {
                    None => Head::Linear(Linear::build(&mut builder, &name, features, shape.clusters)?),
                    Some(units) => Head::Hidden(
                        Linear::build(&mut builder, &format!("{name}.0"), features, units)?,
                        Linear::build(&mut builder, &format!("{name}.2"), units, shape.clusters)?,
                    ),
                })
            })
            .collect::<Result<_>>()?,
        HeadKind::Bottleneck => {
            let (Some(units), Some(width)) = (shape.hidden, shape.bottleneck.filter(|width| (1..=WIDEST).contains(width)))
            else {
                return wrong("bottleneck", shape.bottleneck.unwrap_or(0), format!("1 to {WIDEST}, after hidden units"));
            };
            (0..shape.heads)
                .map(|head| {
                    let name = format!("cluster_head.{head}");
                    let first = Linear::build(&mut builder, &format!("{name}.0"), features, units)?;
                    let second = Linear::build(&mut builder, &format!("{name}.2"), units, width)?;
                    let init = Init::Linear { inputs: width };
                    let last = builder.parameter(&format!("{name}.last.weight"), &[shape.clusters, width], init)?;
                    Ok(Head::Bottleneck(first, second, last))
                })
                .collect::<Result<_>>()?
        }
        HeadKind::Centroids if shape.heads != 1 => return wrong("heads", shape.heads, "centroids are one head".into()),
        HeadKind::Centroids => {
            vec![Head::Centroids(builder.parameter("centroids", &[shape.clusters, features], Init::Zeros)?)]
        }
    };
    Ok((heads, builder.finish()?))
}

fn is_head(name: &str) -> bool {
    name == "centroids" || name.starts_with("cluster_head.")
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::super::params::values;
    use super::*;
    use crate::architecture;
    use crate::testing::{assert_near, wave};
    use kinset_artifact::encoder::{Backbone, Projection, ProjectionKind, Stem};

    fn encoder() -> EncoderNet {
        let projection = Some(Projection { kind: ProjectionKind::Linear, dim: 3 });
        let shape = architecture(Backbone::ResnetTiny, Stem::Cifar, 2, 1, 8, projection).unwrap();
        EncoderNet::init(&shape, Seed::new(1), &Device::Cpu).unwrap()
    }

    fn net(heads: usize) -> ClassifierNet {
        ClassifierNet::init(&encoder(), 4, heads, None, Seed::new(2), &Device::Cpu).unwrap()
    }

    fn choice(head: usize) -> HeadChoice {
        HeadChoice { head, chosen_by: "lowest loss".into(), losses: vec![] }
    }

    fn card(net: &ClassifierNet, head: usize) -> ClassifierCard {
        net.card(Normalization::new(vec![0.0], vec![1.0]), choice(head)).unwrap()
    }

    #[test]
    fn heads_stand_on_the_backbone_and_start_apart_but_reproducibly() {
        let (net, alone) = (net(3), net(1));
        assert_eq!((net.heads(), net.clusters()), (3, 4));
        assert!(net.params().iter().all(|(name, ..)| !name.starts_with("contrastive_head")));
        assert_eq!(net.head_params().len(), 6);
        assert_eq!(net.params().len(), encoder().without_projection().unwrap().params().len() + 6);
        let features = wave(&[5, 8], 0.4, 0.0, 1.0);
        let logits = |net: &ClassifierNet, head: usize| values(&net.logits(head, &features).unwrap()).unwrap();
        assert_ne!(logits(&net, 0), logits(&net, 1));
        assert_eq!(logits(&net, 0), logits(&alone, 0));
        assert!(matches!(net.logits(3, &features), Err(ModelError::Head { head: 3, heads: 3 })));
    }

    #[test]
    fn a_classifier_survives_its_tensors_and_both_halves_are_checked() {
        let net = net(2);
        let tensors = net.to_tensors().unwrap();
        let again = ClassifierNet::from_tensors(&card(&net, 1), &tensors, &Device::Cpu).unwrap();
        assert_eq!(again.to_tensors().unwrap(), tensors);
        let mut wrong = tensors.clone();
        wrong.remove("backbone.conv1.weight");
        wrong.remove("cluster_head.1.bias");
        wrong.insert("contrastive_head.weight", vec![1], vec![0.0]);
        let error = ClassifierNet::from_tensors(&card(&net, 1), &wrong, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("`backbone.conv1.weight`, `cluster_head.1.bias`"), "{error}");
        assert!(error.contains("unexpected: `contrastive_head.weight`"), "{error}");
        assert!(net.card(Normalization::new(vec![0.0], vec![1.0]), choice(2)).is_err());
    }

    #[test]
    fn the_kept_head_is_number_zero_and_shares_its_numbers() {
        let net = net(3);
        let kept = net.keep_head(2).unwrap();
        let features = wave(&[5, 8], 0.4, 0.0, 1.0);
        let logits = |net: &ClassifierNet, head: usize| values(&net.logits(head, &features).unwrap()).unwrap();
        assert_eq!(logits(&kept, 0), logits(&net, 2));
        assert_eq!(kept.heads(), 1);
        let bias = kept.params().get("cluster_head.0.bias").unwrap();
        bias.set(&(bias.as_detached_tensor() + 1.0).unwrap()).unwrap();
        assert_eq!(logits(&kept, 0), logits(&net, 2));
        assert!(net.keep_head(3).is_err());
    }

    #[test]
    fn centroids_prefer_the_nearest_and_logits_are_minus_squared_distances() {
        let centroids: Vec<f32> = (0..16).map(|i| if i / 8 == 0 { 0.5 } else { i as f32 * 0.1 }).collect();
        let backbone = encoder().without_projection().unwrap();
        let net = ClassifierNet::from_centroids(&backbone, &centroids, false, &Device::Cpu).unwrap();
        let features = wave(&[3, 8], 0.4, 0.0, 1.0);
        let rows = features.to_vec2::<f32>().unwrap();
        let distance = |row: &[f32], k: usize| -> f64 {
            row.iter().zip(&centroids[8 * k..8 * k + 8]).map(|(a, b)| f64::from(a - b).powi(2)).sum()
        };
        let wanted: Vec<f64> = rows.iter().flat_map(|row| [-distance(row, 0), -distance(row, 1)]).collect();
        assert_near("logits", &values(&net.logits(0, &features).unwrap()).unwrap(), &wanted, 1e-6);
        let again = ClassifierNet::from_tensors(&card(&net, 0), &net.to_tensors().unwrap(), &Device::Cpu).unwrap();
        assert_eq!(again.to_tensors().unwrap(), net.to_tensors().unwrap());
        assert_eq!(net.keep_head(0).unwrap().params().len(), net.params().len());
        assert!(ClassifierNet::from_centroids(&backbone, &centroids[..15], false, &Device::Cpu).is_err());
    }

    #[test]
    fn all_heads_at_once_say_what_each_says_alone() {
        for hidden in [None, Some(7)] {
            let net = ClassifierNet::init(&encoder(), 4, 3, hidden, Seed::new(2), &Device::Cpu).unwrap();
            let features = wave(&[5, 8], 0.7, 0.1, 1.0);
            let all = net.all_logits(&features).unwrap();
            assert_eq!(all.dims(), [5, 12]);
            for head in 0..3 {
                let own = values(&all.narrow(1, head * 4, 4).unwrap()).unwrap();
                let alone: Vec<f64> =
                    values(&net.logits(head, &features).unwrap()).unwrap().iter().map(|&x| x.into()).collect();
                assert_near("logits", &own, &alone, 1e-6);
            }
        }
    }

    #[test]
    fn normalized_features_lose_their_length() {
        let centroids: Vec<f32> = (0..16).map(|i| (i as f32).sin()).collect();
        let backbone = encoder().without_projection().unwrap();
        let net = ClassifierNet::from_centroids(&backbone, &centroids, true, &Device::Cpu).unwrap();
        let features = wave(&[3, 8], 0.4, 0.0, 1.0);
        let longer = (&features * 7.0).unwrap();
        let logits = |x: &Tensor| values(&net.logits(0, x).unwrap()).unwrap();
        let wanted: Vec<f64> = logits(&features).iter().map(|&v| f64::from(v)).collect();
        assert_near("logits", &logits(&longer), &wanted, 1e-6);
    }

    #[test]
    fn centroids_on_an_encoder_with_a_projection_read_the_projection() {
        let centroids = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let net = ClassifierNet::from_centroids(&encoder(), &centroids, false, &Device::Cpu).unwrap();
        let images = wave(&[4, 1, 8, 8], 0.05, 0.0, 1.0);
        let read = net.features(&images, Mode::Eval).unwrap();
        let projected = encoder().project(&encoder().features(&images, Mode::Eval).unwrap(), Mode::Eval).unwrap();
        assert_eq!(values(&read).unwrap(), values(&projected).unwrap());
        assert_eq!(net.logits(0, &read).unwrap().dims(), [4, 2]);
        let again = ClassifierNet::from_tensors(&card(&net, 0), &net.to_tensors().unwrap(), &Device::Cpu).unwrap();
        assert_eq!(values(&again.features(&images, Mode::Eval).unwrap()).unwrap(), values(&read).unwrap());
    }

    #[test]
    fn heads_with_a_hidden_layer_survive_their_tensors_and_rectify_in_between() {
        let hidden = |units| ClassifierNet::init(&encoder(), 4, 2, Some(units), Seed::new(2), &Device::Cpu);
        let net = hidden(5).unwrap();
        let shape = |name: &str| net.params().get(name).unwrap().dims().to_vec();
        assert_eq!((shape("cluster_head.1.0.weight"), shape("cluster_head.1.2.weight")), (vec![5, 8], vec![4, 5]));
        let again = ClassifierNet::from_tensors(&card(&net, 1), &net.to_tensors().unwrap(), &Device::Cpu).unwrap();
        let features = wave(&[3, 8], 0.4, 0.0, 1.0);
        let logits = |net: &ClassifierNet, head| values(&net.logits(head, &features).unwrap()).unwrap();
        assert_eq!(logits(&again, 1), logits(&net, 1));
        assert_eq!(logits(&net.keep_head(1).unwrap(), 0), logits(&net, 1));
        // With every hidden unit held below zero, only the last bias is left.
        let bias = net.params().get("cluster_head.1.0.bias").unwrap();
        bias.set(&(bias.as_detached_tensor() - 100.0).unwrap()).unwrap();
        let last = values(net.params().get("cluster_head.1.2.bias").unwrap()).unwrap();
        assert_eq!(logits(&net, 1), last.repeat(3));
        for units in [0, 1 << 40] {
            assert!(matches!(hidden(units), Err(ModelError::Architecture { field: "hidden", .. })), "{units}");
        }
    }

    #[test]
    fn a_committee_decides_by_the_mean_of_its_heads_and_none_of_them_leaves_it() {
        let alone = net(3);
        let shape = HeadsShape { committee: true, ..HeadsShape::linear(4, 3, None) };
        let body = encoder().without_projection().unwrap();
        let heads = alone.head_params().to_tensors().unwrap();
        let together = ClassifierNet::with_heads(&body, shape, &heads, &Device::Cpu).unwrap();
        let features = wave(&[5, 8], 0.4, 0.0, 1.0);
        let each: Vec<Vec<f32>> = (0..3).map(|head| values(&alone.decide(head, &features).unwrap()).unwrap()).collect();
        let wanted: Vec<f64> = (0..20).map(|i| each.iter().map(|p| f64::from(p[i])).sum::<f64>() / 3.0).collect();
        assert_near("mean", &values(&together.decide(0, &features).unwrap()).unwrap(), &wanted, 1e-6);
        assert!(matches!(together.keep_head(1), Err(ModelError::Committee)));
        let again = ClassifierNet::from_tensors(&card(&together, 1), &together.to_tensors().unwrap(), &Device::Cpu).unwrap();
        assert_near("again", &values(&again.decide(1, &features).unwrap()).unwrap(), &wanted, 1e-6);
    }

    #[test]
    fn heads_on_features_that_were_made_elsewhere_sort_features_and_no_images() {
        let shape = features_alone(8).unwrap();
        let body = EncoderNet::init(&shape, Seed::new(1), &Device::Cpu).unwrap();
        let kind = HeadKind::Bottleneck;
        let shape = HeadsShape { kind, bottleneck: Some(3), normalize: true, ..HeadsShape::linear(4, 2, Some(5)) };
        let net = ClassifierNet::over(&body, shape, Seed::new(2), &Device::Cpu).unwrap();
        assert_eq!(net.params().len(), 10);
        let features = wave(&[5, 8], 0.4, 0.0, 1.0);
        let logits = |net: &ClassifierNet, head| values(&net.logits(head, &features).unwrap()).unwrap();
        let again = ClassifierNet::from_tensors(&card(&net, 1), &net.to_tensors().unwrap(), &Device::Cpu).unwrap();
        assert_eq!(logits(&again, 1), logits(&net, 1));
        assert_eq!(logits(&net.keep_head(1).unwrap(), 0), logits(&net, 1));
        let image = Tensor::zeros((1, 1, 1, 1), DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(net.features(&image, Mode::Eval), Err(ModelError::NoImages)));
        assert!(features_alone(0).is_err());
    }

    #[test]
    fn under_a_frozen_encoder_only_heads_get_gradients() {
        let net = net(2).with_frozen_encoder().unwrap();
        let images = wave(&[4, 1, 8, 8], 0.05, 0.0, 1.0);
        let features = net.features(&images, Mode::Eval).unwrap();
        let loss = net.logits(0, &features).unwrap().sqr().unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        let with: Vec<&str> =
            net.params().parameters().filter(|(_, var)| grads.get(var.as_tensor()).is_some()).map(|(name, _)| name).collect();
        assert_eq!(with, ["cluster_head.0.weight", "cluster_head.0.bias"]);
        let frozen = net.frozen().unwrap();
        assert!(!frozen.logits(0, &features).unwrap().track_op());
        let apart = net.duplicate().unwrap();
        assert_eq!(apart.to_tensors().unwrap(), net.to_tensors().unwrap());
    }

    #[test]
    fn too_few_clusters_or_heads_are_refused() {
        for (clusters, heads) in [(1, 1), (4, 0), (0, 1), (4, 1 << 40)] {
            let result = ClassifierNet::init(&encoder(), clusters, heads, None, Seed::new(2), &Device::Cpu);
            assert!(matches!(result, Err(ModelError::Architecture { .. })), "{clusters} {heads}");
        }
        let images = Tensor::zeros((1, 1, 8, 8), DType::F32, &Device::Cpu).unwrap();
        assert!(net(1).features(&images, Mode::Eval).is_ok());
    }
}
