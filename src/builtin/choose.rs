//! Of several classifiers the one that neighbors bear out most; the first is kept unless another is better.
//!
//! Self-labeling, RUC and NNM start from a clustering and can end below it: on few images they empty or merge clusters. What is asked
//! here reads no labels: how much the cluster of an image says of the cluster of its neighbor, as the mutual information of the two
//! over all pairs, I(c; c′) = Σ p(c, c′) ln p(c, c′) / (p(c) p(c′)). It falls when neighbors come apart, and it falls when clusters are
//! emptied or merged. Heads are trained on this quantity in TEMI (Adaloglou, Michels, Kalischek and Kollmann 2023, arXiv 2303.17896,
//! eq. 3) and IIC (Ji, Henriques and Vedaldi 2019, arXiv 1807.06653, eq. 3); here it compares what was trained.

use kinset_artifact::encoder::Classifier;
use kinset_artifact::features::Features;
use kinset_artifact::images::Images;
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_artifact::{Draft, Stored};
use kinset_math::partition::{Classes, Clusters, Contingency};
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
    const VERSION: u32 = 1;
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
            information(&argmax_rows(said, clusters), clusters, &neighbors, used)
        };
        let information: Vec<f64> = classifiers.iter().zip(&said).map(information_of).collect();
        let kept = kept(&information, config.margin);
        let told = input.classifiers.iter().zip(&information).map(|(stored, nats)| format!("{} {nats:.4}", stored.origin()));
        let told = format!("information between neighbors, in nats: {}", told.collect::<Vec<_>>().join(", "));
        cx.note(format!("keeps `{}`; {told}", input.classifiers[kept].origin()));
        let mut classifier = classifiers.swap_remove(kept);
        classifier.card.chosen_by = format!("{}; kept of {} by {told}", classifier.card.chosen_by, input.classifiers.len());
        Ok(Out { classifier: classifier.save(&cx.out("classifier")?)? })
    }
}

/// The mutual information of an image's cluster and its neighbor's, in nats, over the first `used` neighbors of every image.
///
/// # Shapes
/// `labels`: `[N]`, below `clusters`.
fn information(labels: &[usize], clusters: usize, neighbors: &NeighborTable, used: usize) -> f64 {
    let pairs =
        || (0..neighbors.len()).flat_map(|row| neighbors.neighbors(row)[..used].iter().map(move |&near| (row, near as usize)));
    let here: Vec<i32> = pairs().map(|(row, _)| labels[row] as i32).collect();
    let there: Vec<i32> = pairs().map(|(_, near)| labels[near] as i32).collect();
    let table = Contingency::new(Clusters { of_row: &here, count: clusters }, Classes { of_row: &there, count: clusters });
    table.mutual_information()
}

/// The place of the most information, of that which is above the first by more than `margin`; else the first.
fn kept(information: &[f64], margin: f64) -> usize {
    let least = information[0] * (1.0 + margin);
    let better = (1..information.len()).filter(|&place| information[place] > least);
    better.fold(0, |best, place| if information[place] > information[best] { place } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring of images, each with its two neighbors.
    fn ring(n: u32) -> NeighborTable {
        NeighborTable {
            ids: (0..n).map(|i| i.to_string()).collect(),
            k: 2,
            index: (0..n).flat_map(|i| [(i + 1) % n, (i + n - 1) % n]).collect(),
            similarity: vec![0.5; 2 * n as usize],
            metric: "cosine".into(),
            exact: true,
            recall: None,
        }
    }

    #[test]
    fn arcs_of_a_ring_say_more_of_their_neighbors_than_one_large_cluster_or_a_mixture() {
        let of = |label: fn(usize) -> usize| information(&(0..1200).map(label).collect::<Vec<_>>(), 4, &ring(1200), 2);
        let arcs = of(|i| i / 300);
        // By hand: 298 of 300 images of an arc have both neighbors in it, and 2 have one in the next arc.
        let (same, next) = (598.0 / 2400.0_f64, 1.0 / 2400.0_f64);
        let by_hand = 4.0 * same * (same * 16.0).ln() + 8.0 * next * (next * 16.0).ln();
        assert!((arcs - by_hand).abs() < 1e-12, "{arcs} {by_hand}");
        assert!(arcs > of(|i| usize::from(i >= 1190) * 3), "all but ten in one cluster");
        assert!(arcs > of(|i| (i / 300).min(2)), "two merged");
        assert!(arcs > of(|i| i * 7919 % 1201 % 4), "mixed");
        assert!(of(|_| 2).abs() < 1e-12);
    }

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
}
