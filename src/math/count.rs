//! Estimators of the number of clusters: six answers from the features alone, and what most of them say.
//!
//! | answer | its idea |
//! |---|---|
//! | [`by_silhouettes`] | the K whose k-means clusters are tightest for their distance |
//! | [`eigengaps`] | where the spectrum of the neighbor graph jumps: nearly separate pieces have nearly zero eigenvalues |
//! | [`modularities`] | the K whose clusters keep most edges of the neighbor graph, beyond chance |
//! | [`dp_means`] | a row farther than √λ from every center opens a cluster |
//! | [`x_means`] | split in two while the Bayesian information criterion gains |
//! | [`g_means`] | split in two while a cluster does not look like one Gaussian |
//!
//! None is right in general; they are for a first guess, to be looked at. The rules and their defaults are those of the automatic
//! K of AND's forks, but for modularity; where they leave something open, the doc of the function says what is done here.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::cosine::{self, dot};
use super::kmeans::{KMeans, Products};
use super::silhouette::{Distances, silhouette, square};
use super::spectral::{Graph, embed};
use super::spectrum;
use kinset_base::seed::Seed;
use kinset_base::stop::{Stop, Stopped};

/// The smallest and the largest K that may come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// At least 2.
    pub min: usize,
    /// At least `min`, below the number of rows.
    pub max: usize,
}

impl Range {
    fn clip(self, k: usize) -> usize {
        k.clamp(self.min, self.max)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub k: usize,
    /// K and what was measured there, for answers that look at every K.
    pub seen: Vec<(usize, f64)>,
}

/// Rows [N, D].
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Row-major.
    pub values: &'a [f32],
    /// D.
    pub dim: usize,
}

impl Rows<'_> {
    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..(row + 1) * self.dim]
    }

    fn of(&self, members: &[usize]) -> Vec<f32> {
        members.iter().flat_map(|&row| self.row(row).iter().copied()).collect()
    }
}

/// The first K with the largest value.
fn best(seen: &[(usize, f64)]) -> Option<usize> {
    let mut winner: Option<(usize, f64)> = None;
    for &(k, value) in seen {
        if winner.is_none_or(|(_, most)| value > most) {
            winner = Some((k, value));
        }
    }
    winner.map(|(k, _)| k)
}

/// The mean silhouette of k-means with K clusters. 0 with fewer than two in use: rows that are all equal, and no K is better than
/// another.
///
/// # Errors
/// If it is asked to stop.
pub fn silhouette_at(
    rows: Rows<'_>,
    distances: &Distances,
    method: KMeans,
    products: &impl Products,
    seed: Seed,
    stop: &Stop,
) -> Result<f64, Stopped> {
    let fit = method.fit(rows.values, rows.dim, products, seed.at(method.clusters as u64), stop)?;
    let labels: Vec<i32> = fit.labels.iter().map(|&label| label as i32).collect();
    Ok(silhouette(distances, &labels, method.clusters).unwrap_or(0.0))
}

/// The answer of silhouettes: the highest wins, the smaller K of equals.
pub fn by_silhouettes(seen: Vec<(usize, f64)>, range: Range) -> Answer {
    Answer { k: best(&seen).unwrap_or(range.min), seen }
}

/// The gaps λ(K+1) − λ(K) in the spectrum of the normalized Laplacian of the neighbor graph, K from 1 to the largest; the K of the
/// largest gap, clipped into the range. The graph is (A + Aᵀ) / 2 for the table A of each row's nearest rows, as scikit-learn's
/// spectral clustering has it (the forks leave the symmetry open).
///
/// # Errors
/// If it is asked to stop.
pub fn eigengaps(distances: &Distances, neighbors: usize, range: Range, stop: &Stop) -> Result<Answer, Stopped> {
    let n = distances.len();
    let mut laplacian = laplacian(distances, neighbors, stop)?;
    let spectrum = spectrum::smallest(&mut laplacian, n, range.max + 1, stop)?;
    let seen: Vec<(usize, f64)> = spectrum.windows(2).enumerate().map(|(i, pair)| (i + 1, pair[1] - pair[0])).collect();
    Ok(Answer { k: range.clip(best(&seen).unwrap_or(range.min)), seen })
}

/// The modularity of spectral clusterings of the neighbor graph, by K; the K of the largest, the smaller of equals. The graph is that of
/// [`eigengaps`], and its embedding is made once: fewer clusters see its first vectors.
///
/// # Source
/// Newman and Girvan 2004, "Finding and evaluating community structure in networks", section IV.
///
/// # Errors
/// If it is asked to stop.
pub fn modularities(
    distances: &Distances,
    neighbors: usize,
    range: Range,
    method: KMeans,
    products: &impl Products,
    seed: Seed,
    stop: &Stop,
) -> Result<Answer, Stopped> {
    let n = distances.len();
    let k = neighbors.min(n.saturating_sub(1));
    if k == 0 {
        return Ok(Answer { k: range.min, seen: Vec::new() });
    }
    let mut index = Vec::with_capacity(n * k);
    for row in 0..n {
        stop.check()?;
        index.extend(nearest(distances, row, k).into_iter().map(|other| other as u32));
    }
    let graph = Graph::of_neighbors(&index, k, k);
    let embedding = embed(&graph, range.max, stop)?;
    let mut seen = Vec::new();
    for clusters in range.min..=range.max {
        let dim = clusters.min(embedding.dim);
        let mut rows: Vec<f32> = embedding.rows.chunks_exact(embedding.dim).flat_map(|row| row[..dim].to_vec()).collect();
        // Rows without a direction stay as they are.
        let _ = cosine::normalize_rows(&mut rows, dim);
        let fit = KMeans { clusters, ..method }.fit(&rows, dim, products, seed.at(clusters as u64), stop)?;
        seen.push((clusters, graph.modularity(&fit.labels, clusters)));
    }
    Ok(Answer { k: best(&seen).unwrap_or(range.min), seen })
}

/// The `k` rows that are nearest to one, in any order; of equal ones the first.
fn nearest(distances: &Distances, row: usize, k: usize) -> Vec<usize> {
    let from = distances.of(row);
    let mut order: Vec<usize> = (0..distances.len()).filter(|&other| other != row).collect();
    if k > 0 && k < order.len() {
        order.select_nth_unstable_by(k - 1, |&a, &b| from[a].total_cmp(&from[b]).then(a.cmp(&b)));
    }
    order.truncate(k);
    order
}

fn laplacian(distances: &Distances, neighbors: usize, stop: &Stop) -> Result<Vec<f64>, Stopped> {
    let n = distances.len();
    let mut graph = vec![0.0; n * n];
    for row in 0..n {
        stop.check()?;
        for other in nearest(distances, row, neighbors) {
            graph[row * n + other] += 0.5;
            graph[other * n + row] += 0.5;
        }
    }
    let degree: Vec<f64> = graph.chunks(n.max(1)).map(|row| row.iter().sum::<f64>()).collect();
    for row in 0..n {
        for other in 0..n {
            let weight = graph[row * n + other];
            let scale = (degree[row] * degree[other]).sqrt();
            let link = if weight > 0.0 { weight / scale } else { 0.0 };
            graph[row * n + other] = if row == other && degree[row] > 0.0 { 1.0 - link } else { -link };
        }
    }
    Ok(graph)
}

/// DP-means: rows in order; one farther than √λ from every center opens a cluster. It starts from the mean of all rows and ends when
/// nothing moves, after `iterations`, or when there are four times more clusters than the range allows. Empty clusters go, and the
/// others are numbered anew.
///
/// # Paper
/// Kulis and Jordan 2012, "Revisiting k-means: New algorithms via Bayesian nonparametrics", algorithm 1.
///
/// # Errors
/// If it is asked to stop.
pub fn dp_means(rows: Rows<'_>, lambda: f64, iterations: usize, range: Range, stop: &Stop) -> Result<Answer, Stopped> {
    let n = rows.values.len() / rows.dim;
    let mut centers: Vec<Vec<f32>> = vec![mean(rows, &(0..n).collect::<Vec<_>>())];
    let mut labels: Vec<usize> = vec![0; n];
    for _ in 0..iterations {
        let mut moved = false;
        for (this, label) in rows.values.chunks(rows.dim).zip(&mut labels) {
            stop.check()?;
            let mut nearest = (f64::INFINITY, 0);
            for (c, center) in centers.iter().enumerate() {
                let distance = square(this, center);
                if distance < nearest.0 {
                    nearest = (distance, c);
                }
            }
            if nearest.0 > lambda {
                centers.push(this.to_vec());
                nearest.1 = centers.len() - 1;
                if centers.len() > 4 * range.max {
                    return Ok(Answer { k: range.max, seen: Vec::new() });
                }
            }
            moved |= *label != nearest.1;
            *label = nearest.1;
        }
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); centers.len()];
        for (row, &label) in labels.iter().enumerate() {
            members[label].push(row);
        }
        let mut names = vec![0; members.len()];
        let mut kept = Vec::new();
        for (c, members) in members.iter().enumerate().filter(|(_, members)| !members.is_empty()) {
            names[c] = kept.len();
            kept.push(mean(rows, members));
        }
        for label in &mut labels {
            *label = names[*label];
        }
        centers = kept;
        if !moved {
            break;
        }
    }
    Ok(Answer { k: range.clip(centers.len()), seen: Vec::new() })
}

fn mean(rows: Rows<'_>, members: &[usize]) -> Vec<f32> {
    let mut sums = vec![0.0_f64; rows.dim];
    for &row in members {
        sums.iter_mut().zip(rows.row(row)).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    sums.iter().map(|sum| (sum / members.len().max(1) as f64) as f32).collect()
}

/// Rounds of splitting after which X-means and G-means rest.
pub const DEPTH: usize = 8;

/// X-means: from `range.min` clusters, each is split in two where the BIC of spherical Gaussians gains more than `threshold`, round
/// after round. Clusters are split on their own rows and not fitted together again.
///
/// # Paper
/// Pelleg and Moore 2000, "X-means", section 3.2, with the variance per feature (theirs forgets the dimension).
///
/// # Errors
/// If it is asked to stop.
pub fn x_means(
    rows: Rows<'_>,
    threshold: f64,
    range: Range,
    method: KMeans,
    products: &impl Products,
    seed: Seed,
    stop: &Stop,
) -> Result<Answer, Stopped> {
    let n = rows.values.len() / rows.dim;
    let all: Vec<usize> = (0..n).collect();
    let floor = 1e-9 * scatter(rows, &all) / (n * rows.dim) as f64;
    let first = KMeans { clusters: range.min, ..method }.fit(rows.values, rows.dim, products, seed.branch("first"), stop)?;
    let mut start = vec![Vec::new(); range.min];
    for (row, &label) in first.labels.iter().enumerate() {
        start[label as usize].push(row);
    }
    start.retain(|members: &Vec<usize>| !members.is_empty());
    splits(rows, start, range, (method, products, seed), stop, |parent, halves, _| {
        bic(rows, halves, floor) - bic(rows, &[parent], floor) > threshold
    })
}

/// G-means: from one cluster, each is split in two where its rows, seen along the line between the two centers, are no Gaussian by
/// the test of Jarque and Bera: their statistic exceeds `threshold` (5.991: 5 % of true Gaussians).
///
/// # Paper
/// Hamerly and Elkan 2003, "Learning the k in k-means", with Jarque–Bera in place of Anderson–Darling, as AND's forks have it.
///
/// # Errors
/// If it is asked to stop.
pub fn g_means(
    rows: Rows<'_>,
    threshold: f64,
    range: Range,
    method: KMeans,
    products: &impl Products,
    seed: Seed,
    stop: &Stop,
) -> Result<Answer, Stopped> {
    let all = vec![(0..rows.values.len() / rows.dim).collect()];
    splits(rows, all, range, (method, products, seed), stop, |parent, _, centers| {
        let (one, two) = centers.split_at(rows.dim);
        let axis: Vec<f32> = one.iter().zip(two).map(|(a, b)| a - b).collect();
        let along: Vec<f64> = parent.iter().map(|&row| dot(rows.row(row), &axis)).collect();
        jarque_bera(&along) > threshold
    })
}

/// Splits clusters in two where `worth` (rows, the two halves, their centers) says so, for some rounds.
fn splits(
    rows: Rows<'_>,
    mut clusters: Vec<Vec<usize>>,
    range: Range,
    (method, products, seed): (KMeans, &impl Products, Seed),
    stop: &Stop,
    worth: impl Fn(&[usize], &[&[usize]], &[f32]) -> bool,
) -> Result<Answer, Stopped> {
    for round in 0..DEPTH {
        let before = clusters.len();
        let mut after = Vec::new();
        for (number, members) in clusters.into_iter().enumerate() {
            // Fewer rows say nothing about their own shape.
            if members.len() < 4 {
                after.push(members);
                continue;
            }
            let own = rows.of(&members);
            let leaf = seed.branch("split").at(round as u64).at(number as u64);
            let fit = KMeans { clusters: 2, ..method }.fit(&own, rows.dim, products, leaf, stop)?;
            let half = |of: u32| -> Vec<usize> {
                members.iter().zip(&fit.labels).filter(|&(_, &label)| label == of).map(|(&row, _)| row).collect()
            };
            let (one, two) = (half(0), half(1));
            if !one.is_empty() && !two.is_empty() && worth(&members, &[&one, &two], &fit.centers) {
                after.extend([one, two]);
            } else {
                after.push(members);
            }
        }
        clusters = after;
        if clusters.len() == before || clusters.len() >= range.max {
            break;
        }
    }
    Ok(Answer { k: range.clip(clusters.len()), seen: Vec::new() })
}

/// Sum of squared distances to the mean.
fn scatter(rows: Rows<'_>, members: &[usize]) -> f64 {
    let center = mean(rows, members);
    members.iter().map(|&row| square(rows.row(row), &center)).sum()
}

/// Bayesian information criterion of spherical Gaussians of one variance: log-likelihood − parameters / 2 · ln R. `floor` keeps the
/// variance of rows that coincide off zero.
fn bic(rows: Rows<'_>, clusters: &[&[usize]], floor: f64) -> f64 {
    let (d, k) = (rows.dim as f64, clusters.len() as f64);
    let count: f64 = clusters.iter().map(|members| members.len() as f64).sum();
    let free = (count - k).max(1.0);
    let variance = (clusters.iter().map(|members| scatter(rows, members)).sum::<f64>() / (d * free)).max(floor).max(1e-300);
    let shares: f64 = clusters.iter().map(|members| members.len() as f64 * (members.len() as f64 / count).ln()).sum();
    let likelihood = shares - count * d / 2.0 * (std::f64::consts::TAU * variance).ln() - d * free / 2.0;
    likelihood - (k - 1.0 + d * k + 1.0) / 2.0 * count.ln()
}

/// The statistic of Jarque and Bera: n/6 · (skewness² + (kurtosis − 3)²/4); 0 if all numbers are equal.
pub fn jarque_bera(numbers: &[f64]) -> f64 {
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    let moment = |power: i32| numbers.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / n;
    let variance = moment(2);
    if numbers.is_empty() || variance <= 1e-12 * mean * mean || variance <= 0.0 {
        return 0.0;
    }
    let skewness = moment(3) / variance.powf(1.5);
    let excess = moment(4) / (variance * variance) - 3.0;
    n / 6.0 * (skewness * skewness + excess * excess / 4.0)
}

/// What most say; the smaller number of equals. `None` of nobody.
pub fn consensus(votes: &[usize]) -> Option<usize> {
    let count = |k: usize| votes.iter().filter(|&&vote| vote == k).count();
    votes.iter().copied().max_by_key(|&k| (count(k), Reverse(k)))
}

#[cfg(test)]
mod tests {
    use super::super::kmeans::Plain;
    use super::super::silhouette::tests as golden;
    use super::*;

    const RANGE: Range = Range { min: 2, max: 12 };

    /// `per` rows with noise of this size around each of `k` unit directions.
    fn blobs(k: usize, per: usize, noise: f64) -> Vec<f32> {
        let mut rng = Seed::new(8).rng();
        let mut rows = Vec::new();
        for i in 0..k * per {
            rows.extend((0..8).map(|d| (f64::from(u8::from(d == i / per)) + noise * rng.normal()) as f32));
        }
        rows
    }

    fn method() -> KMeans {
        KMeans { restarts: 3, ..KMeans::new(2) }
    }

    fn silhouettes(rows: Rows<'_>, distances: &Distances, seed: Seed) -> Answer {
        let at =
            |clusters| silhouette_at(rows, distances, KMeans { clusters, ..method() }, &Plain, seed, &Stop::default()).unwrap();
        by_silhouettes((RANGE.min..=RANGE.max).map(|k| (k, at(k))).collect(), RANGE)
    }

    #[test]
    fn all_five_find_five_separate_balls() {
        let values = blobs(5, 40, 0.03);
        let rows = Rows { values: &values, dim: 8 };
        let distances = Distances::new(&values, 8, &Stop::default()).unwrap();
        let seed = Seed::new(3);
        let by_silhouette = silhouettes(rows, &distances, seed);
        assert_eq!(by_silhouette.k, 5, "{by_silhouette:?}");
        assert_eq!(by_silhouette.seen.len(), 11);
        let by_gap = eigengaps(&distances, 10, RANGE, &Stop::default()).unwrap();
        assert_eq!(by_gap.k, 5, "{by_gap:?}");
        assert_eq!(dp_means(rows, 0.5, 50, RANGE, &Stop::default()).unwrap().k, 5);
        assert_eq!(x_means(rows, 0.0, RANGE, method(), &Plain, seed, &Stop::default()).unwrap().k, 5);
        // Two balls of 40 have a statistic of 80/6; at 5.991 one true Gaussian in twenty is split too.
        assert_eq!(g_means(rows, 10.0, RANGE, method(), &Plain, seed, &Stop::default()).unwrap().k, 5);
    }

    #[test]
    fn the_graph_of_five_balls_is_divided_best_into_five() {
        let rows = blobs(5, 30, 0.05);
        let distances = Distances::new(&rows, 8, &Stop::default()).unwrap();
        let (seed, stop) = (Seed::new(3), Stop::default());
        let found = modularities(&distances, 10, RANGE, method(), &Plain, seed, &stop).unwrap();
        assert_eq!((found.k, found.seen.len()), (5, 11));
        // Five equal pieces without an edge between them: 1 − 5 · (1/5)².
        assert!((found.seen[3].1 - 0.8).abs() < 1e-6, "{:?}", found.seen);
        let one = Distances::new(&[1.0; 40], 1, &stop).unwrap();
        assert!(modularities(&one, 5, Range { min: 2, max: 4 }, method(), &Plain, seed, &stop).unwrap().k <= 4);
    }

    #[test]
    fn the_spectrum_of_the_neighbor_graph_is_that_of_numpy() {
        let rows = golden::rows();
        let mut matrix = laplacian(&Distances::new(&rows, 4, &Stop::default()).unwrap(), 5, &Stop::default()).unwrap();
        let found = spectrum::smallest(&mut matrix, 60, 60, &Stop::default()).unwrap();
        for (found, expected) in found.iter().zip(golden::golden().eigenvalues) {
            assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
        }
    }

    #[test]
    fn rows_that_are_all_equal_have_an_answer_and_no_nan() {
        let values = vec![0.5_f32; 8 * 30];
        let rows = Rows { values: &values, dim: 8 };
        let distances = Distances::new(&values, 8, &Stop::default()).unwrap();
        let seed = Seed::new(3);
        let said = silhouettes(rows, &distances, seed);
        assert!(said.k == 2 && said.seen.iter().all(|(_, value)| value.is_finite()), "{said:?}");
        assert!(eigengaps(&distances, 10, RANGE, &Stop::default()).unwrap().seen.iter().all(|(_, value)| value.is_finite()));
        assert_eq!(dp_means(rows, 0.5, 50, RANGE, &Stop::default()).unwrap().k, 2, "one cluster, clipped");
        assert_eq!(x_means(rows, 0.0, RANGE, method(), &Plain, seed, &Stop::default()).unwrap().k, 2);
        assert_eq!(g_means(rows, 5.991, RANGE, method(), &Plain, seed, &Stop::default()).unwrap().k, 2);
    }

    #[test]
    fn dp_means_opens_more_clusters_for_a_smaller_reach_and_stops_at_the_limit() {
        let values = blobs(5, 40, 0.2);
        let rows = Rows { values: &values, dim: 8 };
        let all = |lambda| dp_means(rows, lambda, 50, Range { min: 1, max: 100 }, &Stop::default()).unwrap().k;
        assert!(all(9.0) == 1 && all(0.5) >= 5 && all(0.3) > all(0.9), "{} {} {}", all(9.0), all(0.5), all(0.3));
        assert_eq!(dp_means(rows, 0.0, 50, RANGE, &Stop::default()).unwrap().k, 12);
    }

    #[test]
    fn jarque_bera_by_hand_and_at_its_limits() {
        // Skewness 0, kurtosis 1: 4/6 · (0 + 4/4).
        assert!((jarque_bera(&[-1.0, -1.0, 1.0, 1.0]) - 4.0 / 6.0).abs() < 1e-12);
        assert!(jarque_bera(&[7.0; 9]) == 0.0 && jarque_bera(&[]) == 0.0);
        let mut rng = Seed::new(1).rng();
        let normal: Vec<f64> = (0..4000).map(|_| rng.normal()).collect();
        assert!(jarque_bera(&normal) < 6.0, "{}", jarque_bera(&normal));
        let two: Vec<f64> = normal.iter().enumerate().map(|(i, x)| x + if i % 2 == 0 { 6.0 } else { 0.0 }).collect();
        assert!(jarque_bera(&two) > 100.0);
    }

    #[test]
    fn the_most_frequent_vote_wins_and_the_smaller_of_equals() {
        assert_eq!(consensus(&[10, 50, 10, 3, 3]), Some(3));
        assert_eq!(consensus(&[10, 50, 10, 3, 2]), Some(10));
        assert_eq!(consensus(&[9, 4, 7]), Some(4));
        assert_eq!(consensus(&[]), None);
    }
}
