//! The choice of one of several classifiers by how well neighbors agree; the first is kept unless another is better.
//!
//! Self-labeling, RUC and NNM start from a clustering and can end below it: on few images they empty or merge clusters. What is asked
//! here reads no labels: how much the cluster of an image says of the cluster of its neighbor, as the mutual information of the two
//! over all pairs, I(c; c′) = Σ p(c, c′) ln p(c, c′) / (p(c) p(c′)). It falls when neighbors come apart, and it falls when clusters are
//! emptied or merged. Heads are trained on this quantity in TEMI (Adaloglou, Michels, Kalisch and Kollmann 2023, arXiv 2303.17896,
//! eq. 3) and IIC (Ji, Henriques and Vedaldi 2019, arXiv 1807.06653, eq. 3); here it compares what was trained.

use kinset_artifact::encoder::Classifier;
use kinset_artifact::features::Features;
use kinset_artifact::images::Images;
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_artifact::{Draft, Stored};
use kinset_math::topk::argmax_rows;
use kinset_stage::{Context, Either, Stage, StageError};
use kinset_train::neighbor_pairs::check_same_images;

use super::classify::Inputs;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// How many of the mined neighbors are compared with each image; fewer, if fewer were mined.
        num_neighbors: usize = 20, min 1;
        /// By what share a later classifier's information has to be above the first one's: 0.01 is one percent.
        margin: f64 = 0.0, not_negative;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// The first is what the others started from.
        classifiers: Vec<Stored<Classifier>>,
        /// `[N, H, W, C]`, the images that are compared.
        images: Either<Stored<Images>>,
        /// `[N, D]`, as the heads read them, in place of images.
        features: Either<Vec<Stored<Features>>>,
        /// `[N, M]`, of the same images.
        neighbors: Stored<Neighbors>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The one that was kept.
        classifier: Draft<Classifier>,
    }
}

/// Choosing between classifiers.
#[derive(Debug)]
pub struct Choose;

impl Stage for Choose {
    const KIND: &'static str = "choose";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "keep the classifier whose clusters neighbors share most; the first unless another is better";
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let neighbors = NeighborTable::load(&input.neighbors)?;
        let used = config.num_neighbors.min(neighbors.k);
        let inputs = Inputs::of(&input.images, &input.features)?;
        check_same_images(&neighbors, inputs.ids(), "neighbors")?;
        let mut classifiers = input.classifiers.iter().map(Classifier::load).collect::<Result<Vec<_>, _>>()?;
        let said = inputs.said(&classifiers, &input.classifiers, cx)?;
        let information_of = |(classifier, said): (&Classifier, &Vec<f32>)| {
            let clusters = classifier.card.clusters;
            let of_row: Vec<i32> = argmax_rows(said, clusters).into_iter().map(|cluster| cluster as i32).collect();
            neighbors.information(&of_row, clusters, used)
        };
        let information: Vec<f64> = classifiers.iter().zip(&said).map(information_of).collect();
        let kept = kept(&information, config.margin);
        let named = input.classifiers.iter().zip(&information).map(|(stored, nats)| format!("{} {nats:.4}", stored.origin()));
        let named = named.collect::<Vec<_>>().join(", ");
        cx.note(format!("keeps `{}`; information between neighbors, in nats: {named}", input.classifiers[kept].origin()));
        let mut classifier = classifiers.swap_remove(kept);
        // Names of stages are no part of a key, so they are no part of a result either.
        let nats = information.iter().map(|nats| format!("{nats:.4}")).collect::<Vec<_>>().join(", ");
        classifier.card.chosen_by = format!(
            "{}; classifiers[{kept}] kept by the information between neighbors, in nats: {nats}",
            classifier.card.chosen_by
        );
        Ok(Out { classifier: classifier.save(&cx.out("classifier")?)? })
    }
}

/// The place of the most information, of that which is above the first by more than `margin`; else the first.
fn kept(information: &[f64], margin: f64) -> usize {
    let least = information[0] * (1.0 + margin);
    let better = (1..information.len()).filter(|&place| information[place] > least);
    better.fold(0, |best, place| if information[place] > information[best] { place } else { best })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::encoder::Tensors;
    use kinset_artifact::features::FeatureTable;
    use kinset_artifact::testing::{ring, stored};
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_model::{HeadChoice, HeadsShape};
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;
    use kinset_train::feature_space::CenteredFeatures;

    #[test]
    fn the_first_is_kept_unless_another_is_better_by_the_margin() {
        for (all, margin, place) in [
            (&[1.0, 0.9][..], 0.0, 0),
            (&[1.0, 1.0], 0.0, 0),
            (&[1.0, 1.1, 1.2], 0.0, 2),
            (&[1.0, 1.1, 1.2], 0.3, 0),
            (&[0.0, 0.0], 0.0, 0),
            (&[1.0, 1.2, 1.2], 0.1, 1),
        ] {
            assert_eq!(kept(all, margin), place, "{all:?} {margin}");
        }
    }

    /// What is chosen of two heads on the halves of a ring, the second by halves, the first by one number of noise; and what is said.
    fn chosen(dir: &Path, origins: [&str; 2]) -> (Classifier, String) {
        let folder = |name: &str| {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let neighbors = ring(24);
        let values = (0..24).flat_map(|row| [if row < 12 { 1.0 } else { -1.0 }, ((row * 7) % 5) as f32 - 2.0]);
        let table = FeatureTable {
            ids: neighbors.ids.clone(),
            dim: 2,
            values: values.collect(),
            normalized: false,
            encoder: "imported".into(),
            layer: "imported".into(),
        };
        let features = stored(&table.save(&folder("features")).unwrap());
        let space = CenteredFeatures::of(&features, None, &Device::Cpu).unwrap();
        let classifiers = [[0.0, 1.0], [1.0, 0.0]].into_iter().zip(origins).map(|([a, b], origin)| {
            let mut heads = Tensors::default();
            heads.insert("cluster_head.0.weight", vec![2, 2], vec![a, b, -a, -b]);
            heads.insert("cluster_head.0.bias", vec![2], vec![0.0; 2]);
            let choice = HeadChoice { head: 0, chosen_by: "a test".into(), losses: Vec::new() };
            let made = space.classifier(HeadsShape::linear(2, 1, None), &heads, choice).unwrap();
            let draft = made.save(&folder(&format!("{a}"))).unwrap();
            let files = draft.files.iter().map(|file| file.path.clone()).collect();
            Stored::new(files, stored(&draft).digest(), origin)
        });
        let (classifiers, features) = (classifiers.collect(), Either(Some(vec![features])));
        let neighbors = stored(&neighbors.save(&folder("neighbors")).unwrap());
        let input = In { classifiers, images: Either(None), features, neighbors };
        let (heard, places) = (Heard::default(), DataPaths::new(dir, None, None));
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), folder("work"), folder("out"), &heard);
        let out = Choose::run(&Config::default(), input, &cx).unwrap();
        (Classifier::load(&stored(&out.classifier)).unwrap(), format!("{:?}", heard.signals()))
    }

    #[test]
    fn the_better_one_is_written_whatever_the_stages_are_called_and_the_note_has_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let (found, said) = chosen(dir.path(), ["base", "refined"]);
        assert!(said.contains("keeps `refined`; information between neighbors, in nats: base 0."), "{said}");
        assert!(found.card.chosen_by.starts_with("a test; classifiers[1] kept by"), "{}", found.card.chosen_by);
        let (again, said) = chosen(dir.path(), ["one", "other"]);
        assert!(said.contains("keeps `other`"), "{said}");
        assert_eq!(found, again);
    }
}
