//! A classifier of other features, taught to a linear head on one encoder: so what only features could be sorted with sorts images.
//!
//! Clusterings of joined features, or of several encoders (`turtle`), have no encoder of their own: they cannot be asked about images,
//! exported, or be the start of heads on other features. A head that gives the same images the same clusters can. It sees less, so it
//! agrees on most images, not on all; the share is said.
//!
//! Source: Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", with hard targets; the fit is kinset's own
//! logistic regression.

use kinset_artifact::encoder::{Classifier, Encoder, Tensors};
use kinset_artifact::features::Features;
use kinset_artifact::{Draft, Stored};
use kinset_kernel::gemm::Gemm;
use kinset_math::logistic::Logistic;
use kinset_math::topk::argmax_rows;
use kinset_model::params::values;
use kinset_model::{HeadChoice, HeadsShape};
use kinset_stage::{Context, Stage, StageError};
use kinset_train::feature_space::{CenteredFeatures, check_alike, side_by_side};

use super::classify::of_features;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Weight of the head's squared weights. Features are centered and of mean square 1.
        penalty: f64 = 1e-3, not_negative;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// Whose clusters are learned.
        classifier: Stored<Classifier>,
        /// `[N, D]`, as the classifier reads them; of several encoders in the order of training.
        reads: Vec<Stored<Features>>,
        /// `[N, E]`, of the same images: what the new head reads.
        features: Stored<Features>,
        /// The encoder that `features` come from, so that new images can be sorted; without it, new features can.
        encoder: Option<Stored<Encoder>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The encoder with a linear head.
        classifier: Draft<Classifier>,
    }
}

/// Distillation.
#[derive(Debug)]
pub struct Distill;

impl Stage for Distill {
    const KIND: &'static str = "distill";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "teach the clusters of a classifier to a linear head on the features of another encoder";
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let read = side_by_side(&input.reads)?;
        let space = CenteredFeatures::of(&input.features, input.encoder.as_ref(), &cx.device)?;
        check_alike((&input.reads[0], &read.ids), (&input.features, &space.ids))?;
        let classifier = Classifier::load(&input.classifier)?;
        let (clusters, dim) = (classifier.card.clusters, space.dim());
        let said = of_features(&classifier, input.classifier.origin(), &read, cx)?;
        let labels: Vec<u32> = argmax_rows(&said, clusters).into_iter().map(|cluster| cluster as u32).collect();
        let rows = values(&space.values)?;
        let head = Logistic::new(config.penalty).fit(&rows, dim, &labels, clusters, &Gemm, &cx.stop)?;
        let share = 100.0 * head.agreement(&rows, dim, &labels, &Gemm);
        cx.note(format!(
            "the head gives {share:.1} % of the images the cluster that `{}` gives them",
            input.classifier.origin()
        ));
        let (weight, bias) = space.plain_layer(&head.weight, &head.bias);
        let mut tensors = Tensors::default();
        tensors.insert("cluster_head.0.weight", vec![clusters, dim], weight);
        tensors.insert("cluster_head.0.bias", vec![clusters], bias);
        let choice = HeadChoice { head: 0, chosen_by: "learned from another classifier".into(), losses: vec![head.loss] };
        Ok(Out {
            classifier: space
                .classifier(HeadsShape::linear(clusters, 1, None), &tensors, choice)?
                .save(&cx.out("classifier")?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::features::FeatureTable;
    use kinset_artifact::testing::stored;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;

    const IMAGES: usize = 60;

    /// Features of images in three groups, in turn; each group has a number of its own that is larger.
    fn table(dim: usize, ids: impl Fn(usize) -> String) -> FeatureTable {
        let mut rng = Seed::new(dim as u64).rng();
        let value = |at: usize, noise: f64| 0.1 * noise as f32 + if at % dim == at / dim % 3 { 1.0 } else { 0.0 };
        FeatureTable {
            ids: (0..IMAGES).map(ids).collect(),
            dim,
            values: (0..IMAGES * dim).map(|at| value(at, rng.normal())).collect(),
            normalized: false,
            encoder: "imported".into(),
            layer: "imported".into(),
        }
    }

    /// A classifier of three numbers, each of which is a cluster, taught to a head on five.
    fn taught(dir: &Path, ids: fn(usize) -> String) -> (Result<Classifier, String>, String) {
        let folder = |name: &str| {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let read = stored(&table(3, |row| row.to_string()).save(&folder("read")).unwrap());
        let features = stored(&table(5, ids).save(&folder("features")).unwrap());
        let mut heads = Tensors::default();
        heads.insert("cluster_head.0.weight", vec![3, 3], (0..9).map(|at| if at % 4 == 0 { 1.0 } else { 0.0 }).collect());
        heads.insert("cluster_head.0.bias", vec![3], vec![0.0; 3]);
        let choice = HeadChoice { head: 0, chosen_by: "a test".into(), losses: Vec::new() };
        let space = CenteredFeatures::of(&read, None, &Device::Cpu).unwrap();
        let classifier = space.classifier(HeadsShape::linear(3, 1, None), &heads, choice).unwrap();
        let classifier = stored(&classifier.save(&folder("classifier")).unwrap());
        let (heard, places) = (Heard::default(), DataPaths::new(dir, None, None));
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), folder("work"), folder("out"), &heard);
        let ran = Distill::run(&Config::default(), In { classifier, reads: vec![read], features, encoder: None }, &cx);
        let found = ran.map(|out| Classifier::load(&stored(&out.classifier)).unwrap()).map_err(|error| error.to_string());
        (found, format!("{:?}", heard.signals()))
    }

    #[test]
    fn a_head_on_other_features_sorts_as_the_classifier_does() {
        let dir = tempfile::tempdir().unwrap();
        let (found, said) = taught(dir.path(), |row| row.to_string());
        assert!(said.contains("the head gives 100.0 % of the images"), "{said}");
        let (heard, places) = (Heard::default(), DataPaths::new(dir.path(), None, None));
        let (work, out) = (dir.path().join("work"), dir.path().join("out"));
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), work, out, &heard);
        let table = table(5, |row| row.to_string());
        let said = of_features(&found.unwrap(), "it", &table, &cx).unwrap();
        assert!(argmax_rows(&said, 3).iter().enumerate().all(|(row, &cluster)| cluster == row % 3));
    }

    #[test]
    fn features_of_other_images_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (refused, _) = taught(dir.path(), |row| format!("other {row}"));
        assert!(refused.unwrap_err().contains("of other images"));
    }
}
