//! The estimated number of clusters: estimators vote on a sample of features, without labels.
//!
//! The automatic K of AND's forks, as a stage of its own: it runs once on finished features, not in every epoch of training. Modularity is
//! not the forks'. It looks at the neighbor graph and not at distances, and has a largest value between few and many clusters: on
//! features of an ImageNet encoder, 18 kinds of clip art gave 18, ten classes of CIFAR 7, where most of the five go to the largest K they may name.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::k_table::{KPoint, KSweep, KTable};
use kinset_artifact::{Draft, Stored};
use kinset_kernel::gemm::Gemm;
use kinset_math::cosine;
use kinset_math::count::{self, Answer, Range, Rows};
use kinset_math::kmeans::KMeans;
use kinset_math::silhouette::Distances;
use kinset_stage::{Complaint, Context, Stage, StageError};
use kinset_train::distinct::warn_of_equal_images;

/// Who may vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Estimator {
    /// The best mean silhouette of k-means over all K.
    Silhouette,
    /// The largest gap in the spectrum of the neighbor graph.
    Eigengap,
    /// Clusters that open where a row is too far from all others.
    Dpmeans,
    /// Splits by the Bayesian information criterion.
    Xmeans,
    /// Splits of what is no Gaussian.
    Gmeans,
    /// The best modularity of spectral clusterings of the neighbor graph over all K.
    Modularity,
}

impl Estimator {
    fn name(self) -> &'static str {
        match self {
            Self::Silhouette => "silhouette",
            Self::Eigengap => "eigengap",
            Self::Dpmeans => "dpmeans",
            Self::Xmeans => "xmeans",
            Self::Gmeans => "gmeans",
            Self::Modularity => "modularity",
        }
    }
}

/// Whose number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// The most frequent vote, the smaller of equals: the fork's.
    Frequent,
    /// That of the first estimator; the others are there to compare.
    First,
}

impl Rule {
    /// The number that votes make, in the order of the estimators.
    fn of(self, votes: &[usize]) -> Option<usize> {
        match self {
            Self::Frequent => count::consensus(votes),
            Self::First => votes.first().copied(),
        }
    }
}

kinset_stage::settings! {
    /// Settings; the defaults are those of the fork's estimator.
    pub struct Config {
        /// The smallest K that may come out.
        min: usize = 2, min 2;
        /// The largest K that may come out.
        max: usize = 50;
        /// Whose number it is; unset: `frequent`, the most frequent vote, the smaller of equals. `first` is the first estimator's.
        rule: Option<Rule> = None;
        /// Who votes. One alone decides.
        estimators: Vec<Estimator> = vec![Estimator::Silhouette, Estimator::Eigengap, Estimator::Dpmeans, Estimator::Xmeans, Estimator::Gmeans];
        /// At most so many images, drawn at random, are looked at; memory grows with its square.
        sample: usize = 2048, within 3..=LARGEST;
        /// Bring features to unit length first; λ is a distance between rows of unit length.
        unit: bool = true;
        /// Independent starts of k-means for each K.
        restarts: usize = 10, min 1;
        /// Most iterations of k-means.
        iterations: usize = 300, min 1;
        /// Neighbors per image in the graph of `eigengap` and `modularity`.
        neighbors: usize = 10, min 1;
        /// Squared distance from which `dpmeans` opens a cluster, λ.
        lambda: f64 = 0.5, not_negative;
        /// Most passes of `dpmeans`.
        passes: usize = 50, min 1;
        /// Gain of the criterion above which `xmeans` splits.
        gain: f64 = 0.0;
        /// Jarque–Bera statistic above which `gmeans` splits; 5.991 splits one true Gaussian in twenty.
        normality: f64 = 5.991, not_negative;
    }
    and combinations
}

/// The largest sample: its tables of pairs take 4 GiB.
const LARGEST: usize = 16_384;

/// What is wrong with a smallest and a largest K.
pub(super) fn smallest_and_largest(min: usize, max: usize) -> Option<Complaint> {
    (max < min).then(|| Complaint::new("max", format!("is {max}, and must not be below `min`, {min}")))
}

impl Config {
    fn combinations(&self) -> Vec<Complaint> {
        let mut voters = self.estimators.clone();
        voters.sort_unstable();
        voters.dedup();
        let named = !voters.is_empty() && voters.len() == self.estimators.len();
        let found = [
            smallest_and_largest(self.min, self.max),
            (!named).then(|| Complaint::new("estimators", "must name at least one, and none twice")),
            (!self.gain.is_finite()).then(|| Complaint::new("gain", format!("is {}, and must be a number", self.gain))),
        ];
        found.into_iter().flatten().collect()
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, D]`.
        features: Stored<Features>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// What each estimator measured and voted, and the K that won.
        table: Draft<KTable>,
    }
}

/// Estimation of the number of clusters.
#[derive(Debug)]
pub struct AutoK;

impl Stage for AutoK {
    const KIND: &'static str = "auto_k";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "estimate the number of clusters from features: estimators vote";
    const SEEDED: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let mut features = FeatureTable::load(&input.features)?;
        let n = features.len().min(config.sample);
        let max = cx.fitting("max", config.max, Config::default().max, config.min..=n.saturating_sub(1), n)?;
        if config.unit {
            let zero = cosine::normalize_rows(&mut features.values, features.dim);
            if let Some(&first) = zero.first() {
                return Err(StageError::Degenerate {
                    code: "auto_k::zero-features",
                    what: format!("{} images have features that are all 0; the first is `{}`", zero.len(), features.ids[first]),
                    hint:
                        "if these images are black or empty, leave them out; else take another encoder, or set `unit = false`"
                            .into(),
                });
            }
        }
        let sample = sampled(&features.values, features.dim, config.sample, cx.seed);
        let rows = Rows { values: &sample, dim: features.dim };
        let distances = Distances::new(&sample, features.dim, &cx.stop)?;
        if distances.of(0).iter().all(|&distance| distance <= 0.0) {
            return Err(StageError::Degenerate {
                code: "auto_k::equal-features",
                what: format!("the features of all {n} images are equal, and equal images form one cluster"),
                hint: "look at the encoder's training curve: it maps all images to the same features".into(),
            });
        }
        warn_of_equal_images(&sample, features.dim, config.min..=max, cx);
        let range = Range { min: config.min, max };
        let method = KMeans { restarts: config.restarts, iterations: config.iterations, ..KMeans::new(config.min) };
        let bar = cx.bar((range.max - range.min + config.estimators.len()) as u64, "estimates");
        let unfinished = cx.unfinished("auto_k 1");
        let mut so_far: SoFar = unfinished.load()?.unwrap_or_default();
        if so_far != SoFar::default() {
            let (answers, all) = (so_far.answers.len(), config.estimators.len());
            cx.note(format!("resuming after {answers} of {all} estimators"));
        }
        for &estimator in config.estimators.iter().skip(so_far.answers.len()) {
            let (seed, stop) = (cx.seed.branch(estimator.name()), &cx.stop);
            let answer = match estimator {
                Estimator::Silhouette => {
                    for clusters in (range.min..=range.max).skip(so_far.seen.len()) {
                        let method = KMeans { clusters, ..method };
                        let found = count::silhouette_at(rows, &distances, method, &Gemm, seed, stop);
                        so_far.seen.push((clusters, unfinished.save_when_stopped(found, &so_far)?));
                        bar.advance(u64::from(clusters < range.max));
                        unfinished.save_when_due(&so_far)?;
                    }
                    Ok(count::by_silhouettes(std::mem::take(&mut so_far.seen), range))
                }
                Estimator::Eigengap => count::eigengaps(&distances, config.neighbors, range, stop),
                Estimator::Modularity => count::modularities(&distances, config.neighbors, range, method, &Gemm, seed, stop),
                Estimator::Dpmeans => count::dp_means(rows, config.lambda, config.passes, range, stop),
                Estimator::Xmeans => count::x_means(rows, config.gain, range, method, &Gemm, seed, stop),
                Estimator::Gmeans => count::g_means(rows, config.normality, range, method, &Gemm, seed, stop),
            };
            so_far.answers.push(unfinished.save_when_stopped(answer, &so_far)?);
            bar.advance(1);
            unfinished.save_when_due(&so_far)?;
        }
        let (mut points, mut votes) = (Vec::new(), BTreeMap::new());
        for (estimator, answer) in config.estimators.iter().zip(so_far.answers) {
            let name = estimator.name();
            let mut tell = |k: usize, criterion: String, value| {
                points.push(KPoint { k: k as u32, seed: 0, criterion, value });
            };
            for &(k, value) in &answer.seen {
                tell(k, name.to_owned(), value);
            }
            tell(answer.k, format!("vote_{name}"), 1.0);
            cx.metric(0, &format!("vote_{name}"), answer.k as f64);
            votes.insert(name.to_owned(), answer.k);
        }
        let all: Vec<usize> = config.estimators.iter().filter_map(|estimator| votes.get(estimator.name()).copied()).collect();
        let rule = config.rule.unwrap_or(Rule::Frequent);
        let Some(chosen) = rule.of(&all) else { unreachable!("there is at least one estimator") };
        cx.metric(0, "estimated_k", chosen as f64);
        let say: Vec<String> = votes.iter().map(|(name, k)| format!("{name} {k}")).collect();
        cx.note(format!("{chosen} clusters: {}", say.join(", ")));
        let table = KSweep { points, chosen, rule: told(rule, config), votes };
        if !table.is_agreed() {
            let (named, all, say) = (table.named_by(), table.votes.len(), say.join(", "));
            cx.warn(match named {
                _ if rule == Rule::First => format!(
                    "estimators disagree ({say}): {chosen} is taken, by {}; if the clusters are too fine or too coarse, say the number \
                     yourself",
                    config.estimators[0].name()
                ),
                1 => format!("no two estimators name the same number of clusters ({say}): {chosen}, the smallest, is a guess"),
                _ => format!("only {named} of {all} estimators name {chosen} clusters ({say}): compare other numbers too"),
            });
        }
        Ok(Out { table: table.save(&cx.out("table")?)? })
    }
}

/// The rule in words.
fn told(rule: Rule, config: &Config) -> String {
    match rule {
        Rule::Frequent => "the most frequent vote, the smaller K of equals".into(),
        Rule::First => format!("the vote of {}", config.estimators[0].name()),
    }
}

/// What the estimators have said so far.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct SoFar {
    /// Of those that are through, in the order of the settings.
    answers: Vec<Answer>,
    /// K and silhouette, while that estimator is at work.
    seen: Vec<(usize, f64)>,
}

/// At most `most` rows, drawn without replacement and kept in their order.
pub(super) fn sampled(values: &[f32], dim: usize, most: usize, seed: kinset_base::seed::Seed) -> Vec<f32> {
    rows_of(values, dim, &drawn(values.len() / dim, most, seed))
}

/// The numbers of at most `most` of `n` rows, ascending.
pub(super) fn drawn(n: usize, most: usize, seed: kinset_base::seed::Seed) -> Vec<usize> {
    if n <= most {
        return (0..n).collect();
    }
    let mut rows = seed.branch("sample").rng().permutation(n);
    rows.truncate(most);
    rows.sort_unstable();
    rows
}

pub(super) fn rows_of(values: &[f32], dim: usize, rows: &[usize]) -> Vec<f32> {
    rows.iter().flat_map(|&row| values[row * dim..(row + 1) * dim].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::seed::Seed;
    use kinset_stage::Settings;

    #[test]
    fn a_sample_is_drawn_once_in_order_and_small_sets_are_taken_whole() {
        let rows = drawn(1000, 50, Seed::new(1));
        assert!(rows.len() == 50 && rows.windows(2).all(|pair| pair[0] < pair[1]) && rows[49] < 1000);
        assert_eq!(rows, drawn(1000, 50, Seed::new(1)));
        assert_ne!(rows, drawn(1000, 50, Seed::new(2)));
        assert_eq!(drawn(5, 50, Seed::new(1)), [0, 1, 2, 3, 4]);
        assert_eq!(sampled(&[1.0, 2.0, 3.0, 4.0], 2, 9, Seed::new(1)), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn the_first_vote_or_the_most_frequent_one_counts() {
        let of = |rule: Rule, votes: &[usize]| rule.of(votes).unwrap();
        assert_eq!(of(Rule::First, &[17, 37, 21, 2, 50]), 17);
        assert_eq!(of(Rule::Frequent, &[17, 37, 21, 2, 50]), 2, "the smallest of votes that nobody shares");
        assert_eq!(of(Rule::Frequent, &[9, 4, 9]), 9);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let wrong =
            Config { min: 1, max: 0, estimators: Vec::new(), sample: 1, lambda: -1.0, gain: f64::NAN, ..Config::default() };
        let fields: Vec<String> = wrong.check().into_iter().map(|complaint| complaint.path).collect();
        assert_eq!(fields, ["min", "sample", "lambda", "max", "estimators", "gain"]);
        let twice = Config { estimators: vec![Estimator::Xmeans; 2], ..Config::default() };
        assert_eq!(twice.check()[0].path, "estimators");
    }
}
