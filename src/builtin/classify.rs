//! Images, or features in their place, and what classifiers say of them.

use kinset_artifact::Stored;
use kinset_artifact::encoder::{Architecture, Classifier, Weights};
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::images::{ImageSet, Images};
use kinset_model::ClassifierNet;
use kinset_stage::{Context, Either, StageError};
use kinset_train::feature_space::{heads_for, side_by_side};
use kinset_train::image_loader::ImageLoader;
use kinset_train::infer;

/// What classifiers are asked about.
pub(super) enum Inputs {
    Images(ImageSet),
    Features(FeatureTable),
}

impl Inputs {
    /// Of the two ports of which the plan connects one.
    ///
    /// # Errors
    /// Features that do not belong together; whatever cannot be read.
    pub(super) fn of(images: &Either<Stored<Images>>, features: &Either<Vec<Stored<Features>>>) -> Result<Self, StageError> {
        if let Some(features) = &features.0 {
            return Ok(Self::Features(side_by_side(features)?));
        }
        let Some(images) = &images.0 else { unreachable!("the plan connects one of both") };
        Ok(Self::Images(ImageSet::open(images)?))
    }

    /// Names of the images, N.
    pub(super) fn ids(&self) -> &[String] {
        match self {
            Self::Images(images) => images.ids(),
            Self::Features(table) => &table.ids,
        }
    }

    /// What each classifier says. Those on equal backbones look at images together.
    ///
    /// # Shapes
    /// `stored`: where each classifier comes from. Returns `[N, K]` of each, row-major; rows sum to 1.
    ///
    /// # Errors
    /// If a classifier does not fit the images or features, or the run is to stop.
    pub(super) fn said(
        &self,
        classifiers: &[Classifier],
        stored: &[Stored<Classifier>],
        cx: &Context<'_>,
    ) -> Result<Vec<Vec<f32>>, StageError> {
        let images = match self {
            Self::Images(images) => images,
            Self::Features(table) => {
                let of = |(classifier, stored): (&Classifier, &Stored<Classifier>)| {
                    of_features(classifier, stored.origin(), table, cx)
                };
                return classifiers.iter().zip(stored).map(of).collect();
            }
        };
        let groups = groups(classifiers);
        let bar = cx.bar((images.len() * groups.len()) as u64, "images");
        let mut said = vec![Vec::new(); classifiers.len()];
        for group in groups {
            let all: Vec<&Classifier> = group.iter().map(|&place| &classifiers[place]).collect();
            for (place, p) in group.into_iter().zip(probabilities(&all, images, cx, |done| bar.advance(done as u64))?) {
                said[place] = p;
            }
        }
        Ok(said)
    }
}

/// What a classifier says of features.
///
/// # Shapes
/// Returns `[N, K]`, row-major; rows sum to 1.
///
/// # Errors
/// Features its heads do not read, or the run is to stop.
pub(super) fn of_features(
    classifier: &Classifier,
    origin: &str,
    table: &FeatureTable,
    cx: &Context<'_>,
) -> Result<Vec<f32>, StageError> {
    let net = heads_for(classifier, origin, table, &cx.device)?;
    infer::of_features(&net, classifier.card.head, &table.values, &cx.device, |_| cx.check())
}

/// What the chosen heads of classifiers on equal backbones say of images.
///
/// # Shapes
/// Returns `[N, K]` of each, row-major; rows sum to 1.
///
/// # Errors
/// If a classifier does not fit the images, or the run is to stop.
pub(super) fn probabilities(
    classifiers: &[&Classifier],
    images: &ImageSet,
    cx: &Context<'_>,
    mut done: impl FnMut(usize),
) -> Result<Vec<Vec<f32>>, StageError> {
    let Some(first) = classifiers.first() else { return Ok(Vec::new()) };
    let card = &first.card.encoder;
    let loader =
        ImageLoader::like(images, card.architecture.channels, card.architecture.size, &card.normalization, &cx.device)?;
    let net = |classifier: &&Classifier| ClassifierNet::from_tensors(&classifier.card, &classifier.tensors, &cx.device);
    let nets = classifiers.iter().map(net).collect::<Result<Vec<_>, _>>()?;
    let heads: Vec<_> = nets.iter().zip(classifiers).map(|(net, classifier)| (net, classifier.card.head)).collect();
    infer::predict_ensemble(&heads, &loader, |images| {
        done(images);
        cx.check()
    })
}

/// Classifiers that see images through equal backbones, so that these need to look only once: their places.
fn groups(classifiers: &[Classifier]) -> Vec<Vec<usize>> {
    fn alike(one: &Classifier, other: &Classifier) -> bool {
        fn body(classifier: &Classifier) -> impl Iterator<Item = (&str, &Weights)> {
            classifier.tensors.iter().filter(|(name, _)| name.starts_with("backbone."))
        }
        let shape = |classifier: &Classifier| Architecture { projection: None, ..classifier.card.encoder.architecture.clone() };
        one.card.encoder.normalization == other.card.encoder.normalization
            && shape(one) == shape(other)
            && body(one).eq(body(other))
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (place, classifier) in classifiers.iter().enumerate() {
        match groups.iter_mut().find(|group| alike(&classifiers[group[0]], classifier)) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use kinset_artifact::encoder::{Backbone, Normalization, Projection, ProjectionKind, Stem};
    use kinset_base::seed::Seed;
    use kinset_model::{EncoderNet, HeadChoice, architecture};

    #[test]
    fn classifiers_on_equal_backbones_look_together_whatever_their_heads_read() {
        let shape = |projection| architecture(Backbone::ResnetTiny, Stem::Cifar, 4, 1, 8, projection).unwrap();
        let projection = Some(Projection { kind: ProjectionKind::Linear, dim: 4 });
        let encoder = |seed, projection| EncoderNet::init(&shape(projection), Seed::new(seed), &Device::Cpu).unwrap();
        let classifier = |net: &ClassifierNet, mean: f64| {
            let choice = HeadChoice { head: 0, chosen_by: "test".into(), losses: vec![] };
            let card = net.card(Normalization::new(vec![mean as _], vec![1.0]), choice).unwrap();
            Classifier { card, tensors: net.to_tensors().unwrap() }
        };
        let (one, other) = (encoder(1, projection), encoder(2, None));
        let heads = |encoder: &EncoderNet, clusters| {
            ClassifierNet::init(encoder, clusters, 2, None, Seed::new(7), &Device::Cpu).unwrap()
        };
        let centroids = ClassifierNet::from_centroids(&one, &[0.5; 12], true, &Device::Cpu).unwrap();
        let all = [
            classifier(&heads(&one, 3), 0.0),
            classifier(&heads(&other, 3), 0.0),
            classifier(&centroids, 0.0),
            classifier(&heads(&one, 5), 0.0),
            classifier(&heads(&one, 3), 0.5),
        ];
        assert_eq!(groups(&all), [vec![0, 2, 3], vec![1], vec![4]]);
    }
}
