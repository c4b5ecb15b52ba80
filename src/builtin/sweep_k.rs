//! A sweep over the number of clusters: k-means for many K and several seeds on cached features, or clusterings that are given,
//! compared without labels.
//!
//! | criterion | what it says | one value per |
//! |---|---|---|
//! | `inertia` | sum of squared distances to the centers (k-means only) | K and seed |
//! | `silhouette` | how much nearer images are to their own cluster than to the next, −1–1, on a sample | K and seed |
//! | `size_entropy` | entropy of the cluster sizes, nats | K and seed |
//! | `balance` | the same as a share of ln K: 1 if all clusters are equally large | K and seed |
//! | `ari`, `nmi` | mean agreement with the other seeds of this K: stability | K and seed, if there are two seeds |
//! | `score` | mean silhouette (if above 0) · mean `ari`: what the recommendation looks at | K |
//!
//! The silhouette alone likes few large clusters or none in particular, stability alone likes 2; clusters worth having are both
//! apart from each other and found again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::auto_k::{drawn, rows_of, smallest_and_largest};
use kinset_artifact::assignments::{AssignmentTable, Assignments};
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::k_table::{KPoint, KSweep, KTable};
use kinset_artifact::{Draft, Stored};
use kinset_base::stop::Stopped;
use kinset_kernel::gemm::Gemm;
use kinset_math::entropy::entropy_of_counts;
use kinset_math::kmeans::{KMeans, Progress};
use kinset_math::silhouette::{Distances, silhouette};
use kinset_math::stability::agreements;
use kinset_stage::{Complaint, Context, Stage, StageError, Stop};
use kinset_train::distinct::warn_of_equal_images;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// The smallest K.
        min: usize = 2, min 2;
        /// The largest K.
        max: usize = 20;
        /// From one K to the next.
        step: usize = 1, min 1;
        /// Clusterings per K; stability needs two.
        seeds: usize = 5, min 1;
        /// Independent starts of each clustering; the one with the least inertia is kept (as `kmeans` has it).
        restarts: usize = 10, min 1;
        /// Most iterations of a start.
        iterations: usize = 300, min 1;
        /// Stop when centers move less than this share of the mean variance.
        tolerance: f64 = 1e-4, not_negative;
        /// Silhouettes are measured on at most so many images, drawn at random; memory grows with its square.
        sample: usize = 2048, within 3..=LARGEST;
    }
    and order
}

/// The largest sample: its table of pairs takes 2 GiB.
const LARGEST: usize = 16_384;

impl Config {
    fn order(&self) -> Option<Complaint> {
        smallest_and_largest(self.min, self.max)
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, D]`.
        features: Stored<Features>,
        /// Clusterings of the same images to compare instead of k-means; those of one K count as its seeds.
        given: Option<Vec<Stored<Assignments>>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The criteria at every K and seed, and the K that is recommended.
        table: Draft<KTable>,
    }
}

/// Comparison of numbers of clusters.
#[derive(Debug)]
pub struct SweepK;

impl Stage for SweepK {
    const KIND: &'static str = "sweep_k";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "compare numbers of clusters without labels: silhouette, balance, stability";
    const SEEDED: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let features = FeatureTable::load(&input.features)?;
        let n = features.len();
        let given = given(input.given.as_deref().unwrap_or_default(), &features)?;
        let sample = drawn(n, config.sample, cx.seed);
        let distances = Distances::new(&rows_of(&features.values, features.dim, &sample), features.dim, &cx.stop)?;
        let unfinished = cx.unfinished("sweep_k 2");
        let (mut swept, mut progress): (Swept, Progress) = unfinished.load()?.unwrap_or_default();
        if given.is_empty() {
            let max = cx.fitting("max", config.max, Config::default().max, config.min..=n, n)?;
            warn_of_equal_images(&features.values, features.dim, config.min..=max, cx);
            let range: Vec<usize> = (config.min..=max).step_by(config.step).collect();
            let bar = cx.bar((range.len() * config.seeds) as u64, "clusterings");
            let done = swept.scores.len() * config.seeds + swept.clusterings.len();
            if done > 0 {
                cx.note(format!("resuming after {done} of {} clusterings", range.len() * config.seeds));
                bar.advance(done as u64);
            }
            for k in range.into_iter().skip(swept.scores.len()) {
                let method = KMeans {
                    clusters: k,
                    restarts: config.restarts,
                    iterations: config.iterations,
                    tolerance: config.tolerance,
                    balance: 0.0,
                };
                for seed in swept.clusterings.len()..config.seeds {
                    let (rows, seed) = ((&features.values[..], features.dim), cx.seed.at(k as u64).at(seed as u64));
                    let fit = method.go_on(rows, &Gemm, seed, &cx.stop, &mut progress, |progress| {
                        unfinished.save_when_due(&(&swept, progress))
                    });
                    let fit = unfinished.save_when_stopped(fit, &(&swept, &progress))?;
                    progress = Progress::default();
                    let labels = fit.labels.iter().map(|&label| label as i32).collect();
                    swept.clusterings.push(Clustering { labels, inertia: Some(fit.inertia) });
                    bar.advance(1);
                }
                let clusterings = std::mem::take(&mut swept.clusterings);
                let measured = swept.measure(k, &clusterings, &distances, &sample, &cx.stop);
                if measured.is_err() {
                    swept.clusterings = clusterings;
                }
                unfinished.save_when_stopped(measured, &(&swept, &progress))?;
            }
        } else {
            for (k, clusterings) in &given {
                swept.measure(*k, clusterings, &distances, &sample, &cx.stop)?;
            }
        }
        let Swept { mut points, scores, .. } = swept;
        for &(k, score) in &scores {
            points.push(KPoint { k: k as u32, seed: 0, criterion: "score".into(), value: score });
            cx.metric(k as u64, "score", score);
        }
        let chosen = recommended(&scores);
        let rule = "the largest product of mean silhouette (if above 0) and mean adjusted Rand index between seeds (1 with one \
                    seed), the smaller K of equals";
        cx.note(format!("{chosen} clusters have {rule}"));
        let table = KSweep { points, chosen, rule: rule.into(), votes: BTreeMap::new() };
        Ok(Out { table: table.save(&cx.out("table")?)? })
    }
}

/// What a sweep has done so far.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Swept {
    /// Of each K that was measured, the smallest first.
    points: Vec<KPoint>,
    scores: Vec<(usize, f64)>,
    /// Of the next K, one for each seed.
    clusterings: Vec<Clustering>,
}

impl Swept {
    /// Compares the clusterings of one K; nothing is changed if it is asked to stop.
    fn measure(
        &mut self,
        k: usize,
        clusterings: &[Clustering],
        distances: &Distances,
        sample: &[usize],
        stop: &Stop,
    ) -> Result<(), Stopped> {
        let score = compare(k, clusterings, distances, sample, &mut self.points, stop)?;
        self.scores.push((k, score));
        Ok(())
    }
}

/// One way to sort all images.
#[derive(Debug, Serialize, Deserialize)]
struct Clustering {
    labels: Vec<i32>,
    inertia: Option<f64>,
}

/// The clusterings that are wired, by K.
fn given(stored: &[Stored<Assignments>], features: &FeatureTable) -> Result<BTreeMap<usize, Vec<Clustering>>, StageError> {
    let mut by_k: BTreeMap<usize, Vec<Clustering>> = BTreeMap::new();
    for one in stored {
        let table = AssignmentTable::load(one)?;
        if table.ids != features.ids {
            return Err(StageError::Mismatch {
                what: format!("the assignments of `{}` are not of the images that the features are of", one.origin()),
                hint: "connect `predict` stages and features of the same images".into(),
            });
        }
        by_k.entry(table.clusters).or_default().push(Clustering { labels: table.cluster, inertia: None });
    }
    Ok(by_k)
}

/// Adds the criteria of all clusterings of one K to `points`; returns their score.
fn compare(
    k: usize,
    clusterings: &[Clustering],
    distances: &Distances,
    sample: &[usize],
    points: &mut Vec<KPoint>,
    stop: &Stop,
) -> Result<f64, Stopped> {
    let labelings: Vec<&[i32]> = clusterings.iter().map(|one| one.labels.as_slice()).collect();
    let agreements = agreements(&labelings, stop)?;
    let (mut tightness, mut stability) = (0.0, 0.0);
    for (seed, one) in clusterings.iter().enumerate() {
        let mut sizes = vec![0_u64; k];
        for &label in &one.labels {
            if let Ok(label) = usize::try_from(label) {
                sizes[label] += 1;
            }
        }
        let seen: Vec<i32> = sample.iter().map(|&row| one.labels[row]).collect();
        // All in one cluster: nothing is apart from anything.
        let silhouette = silhouette(distances, &seen, k).unwrap_or(0.0);
        let entropy = entropy_of_counts(&sizes);
        let agreement = agreements.get(seed).copied();
        tightness += silhouette;
        stability += agreement.map_or(1.0, |with| with.ari);
        let most = (k as f64).ln();
        let values = [
            ("inertia", one.inertia),
            ("silhouette", Some(silhouette)),
            ("size_entropy", Some(entropy)),
            ("balance", Some(if most > 0.0 { entropy / most } else { 1.0 })),
            ("ari", agreement.map(|with| with.ari)),
            ("nmi", agreement.map(|with| with.nmi)),
        ];
        for (criterion, value) in values {
            if let Some(value) = value {
                points.push(KPoint { k: k as u32, seed: seed as u32, criterion: criterion.into(), value });
            }
        }
    }
    let count = clusterings.len().max(1) as f64;
    Ok((tightness / count).max(0.0) * stability / count)
}

/// The K of the highest score, the smaller of equals.
fn recommended(scores: &[(usize, f64)]) -> usize {
    let mut best: Option<(usize, f64)> = None;
    for &(k, score) in scores {
        if best.is_none_or(|(_, most)| score > most) {
            best = Some((k, score));
        }
    }
    best.map_or(1, |(k, _)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clustering(labels: &[i32]) -> Clustering {
        Clustering { labels: labels.to_vec(), inertia: None }
    }

    #[test]
    fn two_far_pairs_found_again_score_high_and_a_coin_scores_low() {
        let distances = Distances::new(&[0.0, 1.0, 10.0, 11.0], 1, &Stop::default()).unwrap();
        let sample = [0, 1, 2, 3];
        let mut points = Vec::new();
        let good = compare(
            2,
            &[clustering(&[0, 0, 1, 1]), clustering(&[1, 1, 0, 0])],
            &distances,
            &sample,
            &mut points,
            &Stop::default(),
        )
        .unwrap();
        let silhouette = f64::midpoint(9.5 / 10.5, 8.5 / 9.5);
        assert!((good - silhouette).abs() < 1e-12, "{good}");
        let of = |criterion: &str| points.iter().filter(|p| p.criterion == criterion).map(|p| p.value).collect::<Vec<_>>();
        assert_eq!((of("ari").len(), of("inertia").len()), (2, 0));
        assert!(of("balance").iter().all(|b| (b - 1.0).abs() < 1e-12));
        assert!(of("size_entropy").iter().all(|h| (h - 2_f64.ln()).abs() < 1e-12));
        let coin = compare(
            2,
            &[clustering(&[0, 0, 1, 1]), clustering(&[0, 1, 0, 1])],
            &distances,
            &sample,
            &mut Vec::new(),
            &Stop::default(),
        )
        .unwrap();
        assert!(coin <= 0.0, "{coin}");
    }

    #[test]
    fn one_seed_has_no_stability_and_one_cluster_no_silhouette() {
        let distances = Distances::new(&[0.0, 1.0, 10.0, 11.0], 1, &Stop::default()).unwrap();
        let mut points = Vec::new();
        let score = compare(3, &[clustering(&[1, 1, 1, 1])], &distances, &[0, 1, 2, 3], &mut points, &Stop::default()).unwrap();
        assert!(score.abs() < 1e-12);
        assert!(points.iter().all(|point| point.value.is_finite() && point.criterion != "ari"), "{points:?}");
    }

    #[test]
    fn the_highest_score_is_recommended_and_the_smaller_of_equals() {
        assert_eq!(recommended(&[(2, 0.1), (3, 0.4), (4, 0.4)]), 3);
        assert_eq!(recommended(&[(2, 0.0), (3, 0.0)]), 2);
    }
}
