//! Features as heads are trained on them, centered and scaled, and the encoder that made them if it is known.
//!
//! Heads are trained on features less their mean, times one number, so that a feature is 1 on average, squared: encoders differ in
//! length by orders, and many point all images the same way; a learning rate should not have to know. Mean and number go into the
//! weights of what is written.

use candle_core::{Device, Tensor};

use super::distinct::warn_of_equal_images;
use super::input_cache::row_tensor;
use super::neighbor_pairs::check_same_images;
use kinset_artifact::Stored;
use kinset_artifact::encoder::{Classifier, Encoder, Normalization, Tensors};
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_base::seed::Seed;
use kinset_model::params::values;
use kinset_model::{ClassifierNet, EncoderNet, HeadChoice, HeadsShape, features_alone};
use kinset_stage::{Context, StageError};

/// The mean of features, and the number that makes their mean square 1 without it.
#[derive(Clone, Debug)]
pub struct Centering {
    /// What is taken from them first, `[D]`.
    mean: Vec<f64>,
    /// What they are multiplied by then.
    scale: f64,
}

impl Centering {
    /// Of features `[N, dim]`; none if all rows are the same.
    pub fn of(values: &[f32], dim: usize) -> Option<Self> {
        let mut mean = vec![0.0; dim];
        for row in values.chunks_exact(dim) {
            for (mean, &value) in mean.iter_mut().zip(row) {
                *mean += f64::from(value);
            }
        }
        for mean in &mut mean {
            *mean /= (values.len() / dim) as f64;
        }
        let rows = values.chunks_exact(dim);
        let squares: f64 =
            rows.map(|row| row.iter().zip(&mean).map(|(&v, mean)| (f64::from(v) - mean).powi(2)).sum::<f64>()).sum();
        let scale = (values.len() as f64 / squares).sqrt();
        scale.is_finite().then_some(Self { mean, scale })
    }

    /// Centers and scales rows.
    pub fn apply(&self, values: &mut [f32]) {
        for row in values.chunks_exact_mut(self.mean.len()) {
            for (value, mean) in row.iter_mut().zip(&self.mean) {
                *value = ((f64::from(*value) - mean) * self.scale) as f32;
            }
        }
    }

    /// A layer that reads these features, for features as they came.
    ///
    /// # Shapes
    /// `weight`: `[O, D]`; `bias`: `[O]`. Returns the same.
    pub fn plain_layer(&self, weight: &[f32], bias: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let bias = weight.chunks_exact(self.mean.len()).zip(bias).map(|(row, &bias)| {
            let taken: f64 = row.iter().zip(&self.mean).map(|(&weight, mean)| f64::from(weight) * mean).sum();
            (f64::from(bias) - self.scale * taken) as f32
        });
        let weight = weight.iter().map(|&weight| (f64::from(weight) * self.scale) as f32);
        (weight.collect(), bias.collect())
    }
}

/// Features, centered and scaled.
#[derive(Clone, Debug)]
pub struct CenteredFeatures {
    /// Names of the images, N.
    pub ids: Vec<String>,
    /// `[N, D]`, centered and scaled.
    pub values: Tensor,
    centering: Centering,
    body: EncoderNet,
    normalization: Normalization,
    /// Whether the features came with unit length.
    normalized: bool,
}

impl CenteredFeatures {
    /// Features, and the encoder they come from; without one, what is trained on them sorts features and no images.
    ///
    /// # Errors
    /// Features of another encoder; features that are the same for all images; whatever cannot be read.
    pub fn of(features: &Stored<Features>, encoder: Option<&Stored<Encoder>>, device: &Device) -> Result<Self, StageError> {
        let table = FeatureTable::load(features)?;
        let (body, normalization) = body_of(&table, features, encoder, device)?;
        let Some(centering) = Centering::of(&table.values, table.dim) else {
            return Err(StageError::Mismatch {
                what: format!("all feature vectors of `{}` are identical", features.origin()),
                hint: "check the encoder".into(),
            });
        };
        let FeatureTable { ids, dim, mut values, normalized, .. } = table;
        centering.apply(&mut values);
        let values = Tensor::from_vec(values, (ids.len(), dim), device)?;
        Ok(Self { ids, values, centering, body, normalization, normalized })
    }

    /// Images, N.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Warns if fewer images differ from each other than there are to be clusters.
    ///
    /// # Errors
    /// If the device fails.
    pub fn warn_of_equal_images(&self, clusters: usize, cx: &Context<'_>) -> Result<(), StageError> {
        // Some rows on the way to enough different ones: all are looked at only where there are not enough.
        warn_of_equal_images(&values(&self.values)?, self.dim(), clusters..=clusters, cx);
        Ok(())
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.body.architecture().output()
    }

    /// Features of some images, `[B, D]`.
    pub fn rows(&self, rows: &[usize]) -> Result<Tensor, StageError> {
        Ok(self.values.index_select(&row_tensor(rows, self.values.device())?, 0)?)
    }

    /// Neighbors of these very images.
    ///
    /// # Errors
    /// [`StageError::Mismatch`] if they are of others; whatever cannot be read.
    pub fn neighbors(&self, stored: &Stored<Neighbors>) -> Result<NeighborTable, StageError> {
        let table = NeighborTable::load(stored)?;
        check_same_images(&table, &self.ids, "neighbors")?;
        Ok(table)
    }

    pub fn heads(&self, shape: HeadsShape, seed: Seed) -> Result<ClassifierNet, StageError> {
        let device = self.values.device();
        Ok(ClassifierNet::over(&alone(self.dim(), device)?.0, shape, seed, device)?)
    }

    /// See [`Centering::plain_layer`].
    pub fn plain_layer(&self, weight: &[f32], bias: &[f32]) -> (Vec<f32>, Vec<f32>) {
        self.centering.plain_layer(weight, bias)
    }

    /// Heads that were trained on these features, for features as they came: the layer that reads them is changed, the only one
    /// (`cluster_head.{h}.weight`) or the first (`cluster_head.{h}.0.weight`).
    pub fn plain_heads(&self, heads: &Tensors) -> Tensors {
        let mut all = heads.clone();
        for (name, weight) in heads.iter() {
            let parts: Vec<&str> = name.split('.').collect();
            let Some(stem) = name.strip_suffix("weight") else { continue };
            if let ([_, _, "weight"] | [_, _, "0", "weight"], Some(bias)) =
                (parts.as_slice(), heads.get(&format!("{stem}bias")))
            {
                let (plain, moved) = self.plain_layer(&weight.values, &bias.values);
                all.insert(name, weight.shape.clone(), plain);
                all.insert(format!("{stem}bias"), bias.shape.clone(), moved);
            }
        }
        all
    }

    /// A classifier of heads that read features as they came: see [`CenteredFeatures::plain_heads`]. `shape` need not say whether features are of unit length.
    ///
    /// # Errors
    /// Heads that do not fit the features; [`kinset_model::ModelError::NotFinite`].
    pub fn classifier(&self, shape: HeadsShape, heads: &Tensors, choice: HeadChoice) -> Result<Classifier, StageError> {
        let shape = HeadsShape { normalize: self.normalized, ..shape };
        let net = ClassifierNet::with_heads(&self.body, shape, heads, &Device::Cpu)?;
        Ok(Classifier { card: net.card(self.normalization.clone(), choice)?, tensors: net.to_tensors()? })
    }
}

/// The encoder that heads on features stand on, and what its pictures go through.
///
/// # Errors
/// Features of another encoder.
pub fn body_of(
    table: &FeatureTable,
    features: &Stored<Features>,
    encoder: Option<&Stored<Encoder>>,
    device: &Device,
) -> Result<(EncoderNet, Normalization), StageError> {
    let Some(stored) = encoder else { return alone(table.dim, device) };
    if table.encoder != stored.digest().hex() {
        return Err(StageError::Mismatch {
            what: format!("the features of `{}` do not come from the encoder of `{}`", features.origin(), stored.origin()),
            hint: "connect the encoder that `embed` used".into(),
        });
    }
    if !matches!(table.layer.as_str(), "projection" | "backbone") {
        return Err(StageError::Mismatch {
            what: format!("the features of `{}` are the layer `{}` of its encoder", features.origin(), table.layer),
            hint: "a classifier of images reads the encoder's last layer: set `layer = \"backbone\"` in `embed`, or leave `encoder` out".into(),
        });
    }
    let Encoder { card, tensors } = Encoder::load(stored)?;
    let body = EncoderNet::from_tensors(&card, &tensors, device)?;
    let body = if table.layer == "projection" { body } else { body.without_projection()? };
    Ok((body, card.normalization))
}

/// Checks that features, given with the names of their images, are of the same images in the same order.
///
/// # Errors
/// [`StageError::Mismatch`] if not.
pub fn check_alike(
    (first, ids): (&Stored<Features>, &[String]),
    (other, other_ids): (&Stored<Features>, &[String]),
) -> Result<(), StageError> {
    if ids == other_ids {
        return Ok(());
    }
    Err(StageError::Mismatch {
        what: format!("the features of `{}` and `{}` are of other images", first.origin(), other.origin()),
        hint: "connect features of the same images, in the same order".into(),
    })
}

/// Features of several spaces side by side, as they are: what heads over all of them read.
///
/// # Errors
/// Features of other images than the first; whatever cannot be read.
pub fn side_by_side(features: &[Stored<Features>]) -> Result<FeatureTable, StageError> {
    let tables = features.iter().map(FeatureTable::load).collect::<Result<Vec<_>, _>>()?;
    let mut tables = tables.into_iter().zip(features);
    let Some((mut all, first)) = tables.next() else { unreachable!("the port takes one or more") };
    for (table, stored) in tables {
        check_alike((first, &all.ids), (stored, &table.ids))?;
        let rows = all.values.chunks_exact(all.dim).zip(table.values.chunks_exact(table.dim));
        all.values = rows.flat_map(|(a, b)| a.iter().chain(b).copied()).collect();
        all.dim += table.dim;
        all.normalized = false;
    }
    Ok(all)
}

/// The heads of a classifier, if they read features like these.
pub fn heads_for(
    classifier: &Classifier,
    origin: &str,
    table: &FeatureTable,
    device: &Device,
) -> Result<ClassifierNet, StageError> {
    let reads = classifier.card.encoder.architecture.output();
    if reads != table.dim {
        return Err(StageError::Mismatch {
            what: format!("the heads of `{origin}` read {reads} numbers of an image, and `features` have {}", table.dim),
            hint: "connect the features it was trained on, or others of the same encoders in the same order".into(),
        });
    }
    Ok(ClassifierNet::heads_alone(&classifier.card, &classifier.tensors, device)?)
}

/// What stands for an encoder that is not known.
///
/// # Errors
/// Features of too many numbers.
pub fn alone(dim: usize, device: &Device) -> Result<(EncoderNet, Normalization), StageError> {
    let body = EncoderNet::init(&features_alone(dim)?, Seed::new(0), device)?;
    Ok((body, Normalization::new(vec![0.0], vec![1.0])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_artifact::testing::stored;
    use kinset_model::params::values;

    fn table(scale: f32) -> FeatureTable {
        FeatureTable {
            ids: vec!["a".into(), "b".into()],
            dim: 2,
            values: [1.6, 0.8, 0.2, 0.6].map(|v: f32| v * scale).to_vec(),
            normalized: false,
            encoder: "imported".into(),
            layer: "imported".into(),
        }
    }

    #[test]
    fn features_of_any_length_are_trained_on_as_ones_of_mean_0_and_mean_square_1() {
        for length in [0.01, 1.0, 50.0] {
            let dir = tempfile::tempdir().unwrap();
            let space = CenteredFeatures::of(&stored(&table(length).save(dir.path()).unwrap()), None, &Device::Cpu).unwrap();
            let found = values(&space.values).unwrap();
            let mean = found.iter().map(|v| v * v).sum::<f32>() / 4.0;
            assert!((mean - 1.0).abs() < 1e-6 && (found[0] + found[2]).abs() < 1e-5, "{found:?}");
            let shape = HeadsShape::linear(2, 1, None);
            let mut heads = Tensors::default();
            heads.insert("cluster_head.0.weight", vec![2, 2], vec![1.0, 0.0, 0.0, 1.0]);
            heads.insert("cluster_head.0.bias", vec![2], vec![0.25, 0.0]);
            let choice = HeadChoice { head: 0, chosen_by: "a test".into(), losses: vec![] };
            let made = space.classifier(shape, &space.plain_heads(&heads), choice).unwrap();
            let net = ClassifierNet::from_tensors(&made.card, &made.tensors, &Device::Cpu).unwrap();
            let raw = Tensor::from_vec(table(length).values, (2, 2), &Device::Cpu).unwrap();
            let logits = values(&net.logits(0, &raw).unwrap()).unwrap();
            for (row, logits) in logits.chunks_exact(2).enumerate() {
                let wanted = [found[2 * row] + 0.25, found[2 * row + 1]];
                assert!(logits.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{logits:?} is not {wanted:?}");
            }
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(CenteredFeatures::of(&stored(&table(0.0).save(dir.path()).unwrap()), None, &Device::Cpu).is_err());
    }
}
