//! The report of a selection, on whether it looks like the target: every number beside that of as many random images, and none
//! needs a label.

use std::collections::BTreeMap;

use super::config::Quotas;
use super::shards::Shards;
use kinset_artifact::features::FeatureTable;
use kinset_artifact::selection::{Coverage, Nearest, Report, Share};
use kinset_base::seed::Seed;
use kinset_kernel::gemm::Gemm;
use kinset_kernel::neighbors::{self, Search};
use kinset_math::curate::alike::{self, Difference};
use kinset_math::curate::{blind, quota};
use kinset_math::kmeans::{KMeans, assign};
use kinset_math::stats;
use kinset_stage::{StageError, Stop};

/// Rows of each set whose distributions are compared.
const SAMPLE: usize = 2000;
/// Rows that k-means looks at.
pub(super) const CLUSTERED: usize = 20_000;
/// Parts of the target, if nobody says how many.
const PARTS: usize = 10;
/// Width of a histogram's bins, and of the steps of the coverage.
const BIN: f64 = 0.05;

/// The target without repetitions, and what is measured on it.
pub struct Measure<'a> {
    pub(super) pool: &'a Shards,
    pub(super) dim: usize,
    /// Row of the target → place among the kept.
    pub kept: &'a [u32],
    /// `[T′, D]`.
    pub(super) queries: Vec<f32>,
    /// A sample of them.
    pub(super) sample: Vec<f32>,
    /// Of the kernel of the MMD.
    pub(super) width: f64,
    centers: Vec<f32>,
    /// The part of each kept row.
    pub part: Vec<u32>,
    pub(super) seed: Seed,
    pub(super) stop: Stop,
}

/// What is measured on a set of pool images.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    /// For each kept target row the distance to its nearest image of the set; 2 if the set is empty.
    pub nearest: Vec<f64>,
    /// Images by part of the target.
    pub parts: Vec<usize>,
    /// None if the set is empty.
    pub difference: Option<Difference>,
}

impl<'a> Measure<'a> {
    /// Prepares: parts of the target by k-means, the kernel's width.
    pub fn new(
        target: &FeatureTable,
        kept: &'a [u32],
        pool: &'a Shards,
        quotas: Option<Quotas>,
        seed: Seed,
        stop: &Stop,
    ) -> Result<Self, StageError> {
        let dim = target.dim;
        let take = |rows: &mut dyn Iterator<Item = u32>| rows.flat_map(|row| target.row(row as usize)).copied().collect();
        let queries: Vec<f32> = take(&mut kept.iter().copied());
        let sampled = |most: usize, name: &str| blind::random(kept.len(), most, seed.branch(name));
        let sample: Vec<f32> = take(&mut sampled(SAMPLE, "target").into_iter().map(|place| kept[place as usize]));
        // One width for all sets, or their numbers could not be compared.
        let mut both = sample.clone();
        both.extend(pool.rows(&blind::random(pool.len(), SAMPLE, seed.branch("width")))?);
        let width = alike::median_distance(&both, dim, &Gemm);
        let clustered: Vec<f32> = take(&mut sampled(CLUSTERED, "clustered").into_iter().map(|place| kept[place as usize]));
        let clusters = quotas.map_or(PARTS.min(kept.len() / 5), |quotas| quotas.clusters).clamp(1, clustered.len() / dim);
        let method = KMeans { restarts: 3, ..KMeans::new(clusters) };
        let fit = method.fit(&clustered, dim, &Gemm, seed.branch("clusters"), stop)?;
        let part = assign(&queries, &fit.centers, dim, &Gemm, stop)?;
        let stop = stop.clone();
        Ok(Self { pool, dim, kept, queries, sample, width, centers: fit.centers, part, seed, stop })
    }

    /// Kept target images by part.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.centers.len() / self.dim];
        for &part in &self.part {
            sizes[part as usize] += 1;
        }
        sizes
    }

    /// How many images each part is to get of a budget.
    pub fn quotas(&self, quotas: Quotas, budget: usize) -> Vec<usize> {
        quota::shares(&self.sizes(), quotas.power, budget)
    }

    /// The distance of each kept target image to its nearest other one.
    ///
    /// # Errors
    /// If an image has no direction, or it is asked to stop.
    pub fn among_targets(&self) -> Result<Vec<f64>, StageError> {
        if self.kept.len() < 2 {
            return Ok(Vec::new());
        }
        let found = neighbors::nearest(&self.queries, &self.queries, self.dim, 2, &self.stop).map_err(StageError::other)?;
        let nearest = found.index.chunks_exact(2).zip(found.similarity.chunks_exact(2)).enumerate();
        // Itself is among the two, unless two others are copies of it: then the distance is 0 either way.
        Ok(nearest.map(|(row, (index, cosine))| to_distance(cosine[usize::from(index[0] as usize == row)])).collect())
    }

    /// Measures a set of pool rows, which must ascend.
    pub fn of(&self, rows: &[u32], name: &str) -> Result<Looks, StageError> {
        let mut parts = vec![0; self.centers.len() / self.dim];
        if rows.is_empty() {
            return Ok(Looks { nearest: vec![2.0; self.kept.len()], parts, difference: None });
        }
        let mut search = Search::new(&self.queries, self.dim, 1, &self.stop).map_err(StageError::other)?;
        self.pool.stream(rows, |first, values| {
            search.feed(values, first).map_err(StageError::other)?;
            for part in assign(values, &self.centers, self.dim, &Gemm, &self.stop)? {
                parts[part as usize] += 1;
            }
            Ok(())
        })?;
        let nearest = search.finish().map_err(StageError::other)?.similarity.into_iter().map(to_distance).collect();
        let drawn = blind::random(rows.len(), SAMPLE, self.seed.branch(name));
        let drawn: Vec<u32> = drawn.into_iter().map(|place| rows[place as usize]).collect();
        let values = self.pool.rows(&drawn)?;
        let difference = Some(alike::difference(&self.sample, &values, self.dim, self.width, &Gemm, &self.stop)?);
        Ok(Looks { nearest, parts, difference })
    }
}

pub(super) fn to_distance(cosine: f32) -> f64 {
    (1.0 - f64::from(cosine)).clamp(0.0, 2.0)
}

/// A comparison, and distances that further ones start from.
pub struct Compared {
    /// The parts of a report that compare.
    pub report: Report,
    /// For each kept target row the distance to its nearest other one.
    pub among: Vec<f64>,
    /// To its nearest selected image; 2 if nothing was selected.
    pub nearest: Vec<f64>,
}

/// Compares a selection, and as many random images, with the target; rows ascend.
pub fn compare(measure: &Measure<'_>, rows: &[u32], random: &[u32], quotas: Option<&[usize]>) -> Result<Compared, StageError> {
    let (looks, drawn) = (measure.of(rows, "selection")?, measure.of(random, "beside")?);
    let among = measure.among_targets()?;
    let (clusters, total_variation) = shares(&measure.sizes(), &looks, &drawn, quotas);
    let mut difference = BTreeMap::new();
    for (name, looks) in [("selection", &looks), ("random", &drawn)] {
        difference.extend(looks.difference.map(|found| (name.to_owned(), found)));
    }
    let (coverage, nearest) = (coverage(&looks, &drawn), nearest(&among, &looks, &drawn));
    let report = Report { coverage, nearest, difference, clusters, total_variation, ..Report::default() };
    Ok(Compared { report, among, nearest: looks.nearest })
}

/// Shares of the target with an image nearer than each of some distances.
fn coverage(selection: &Looks, random: &Looks) -> Vec<Coverage> {
    let share =
        |nearest: &[f64], distance: f64| nearest.iter().filter(|d| **d < distance).count() as f64 / nearest.len().max(1) as f64;
    let steps = (1..=20).map(|step| f64::from(step) * BIN);
    steps
        .map(|distance| Coverage {
            distance,
            selection: share(&selection.nearest, distance),
            random: share(&random.nearest, distance),
        })
        .collect()
}

/// Histograms of nearest distances.
fn nearest(target: &[f64], selection: &Looks, random: &Looks) -> Nearest {
    const BINS: usize = 40;
    let histogram = |values: &[f64]| stats::histogram(values, 0.0, 2.0, BINS);
    let mut mean = BTreeMap::new();
    for (name, values) in [("target", target), ("selection", &selection.nearest[..]), ("random", &random.nearest[..])] {
        if !values.is_empty() {
            mean.insert(name.to_owned(), stats::mean(values));
        }
    }
    Nearest {
        edges: (0..=BINS).map(|bin| 2.0 * bin as f64 / BINS as f64).collect(),
        target: histogram(target),
        selection: histogram(&selection.nearest),
        random: histogram(&random.nearest),
        mean,
    }
}

/// Shares of parts, and how far those of selection and of random images are from the target's.
fn shares(sizes: &[usize], selection: &Looks, random: &Looks, quotas: Option<&[usize]>) -> (Vec<Share>, BTreeMap<String, f64>) {
    let of = |counts: &[usize]| {
        let all = counts.iter().sum::<usize>().max(1) as f64;
        counts.iter().map(|count| *count as f64 / all).collect::<Vec<f64>>()
    };
    let (target, chosen, drawn) = (of(sizes), of(&selection.parts), of(&random.parts));
    let shares = (0..sizes.len()).map(|cluster| Share {
        cluster,
        target: target[cluster],
        selection: chosen[cluster],
        random: drawn[cluster],
        quota: quotas.map(|quotas| quotas[cluster]),
    });
    let apart = |a: &[f64]| a.iter().zip(&target).map(|(x, y)| (x - y).abs()).sum::<f64>() / 2.0;
    let variation = BTreeMap::from([("selection".to_owned(), apart(&chosen)), ("random".to_owned(), apart(&drawn))]);
    (shares.collect(), variation)
}
