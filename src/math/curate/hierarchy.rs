//! Hierarchical k-means with resampling: clusters that spread over what a pool shows, not over how often it shows it.
//!
//! From the definition in "Automatic Data Curation for Self-Supervised Learning: A Clustering-Based Approach" (Vo et al. 2024, arXiv
//! 2405.15613). k-means puts most of its centers where most of the points are. Two things flatten that. *Levels*: the centers of a
//! level are the points of the next, and there are fewer of them where the pool is dense than there are images. *Resampling*: of each
//! cluster only the points nearest to its center are kept, the same number of each, and clustered anew; all points then go to the
//! nearest of the new centers. Clusters are the cells of Euclidean k-means; a level forgets clusters that nothing fell to.
//!
//! The points of the first level stream by ([`Points`]). Memory holds a number, a distance and a sample of some rows per cluster; the
//! sample is clustered first, and its centers are moved by passes over all points. Sums run in the order of rows and blocks have one
//! size, so neither threads nor the way a pool is cut changes a bit.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::blind;
use crate::cosine::dot;
use crate::kmeans::{self, KMeans, Products};
use kinset_base::seed::Seed;
use kinset_base::stop::{Stop, Stopped};

/// Points that stream by at a time; fixed, as the products of a row may depend on how many stand beside it.
pub const BLOCK: usize = 1 << 14;
/// Rows and centers of a tile of products, which stays in a core's cache.
const TILE: usize = 512;
/// Points per center of the sample that is clustered first, and the least number of them.
const SAMPLE: (usize, usize) = (32, 1 << 14);
/// Passes over all points end when the sum of squared distances falls by less than this share.
const SETTLED: f64 = 1e-3;

/// What hears of blocks of rows, with the number of the first.
pub type Take<'a, E> = &'a mut dyn FnMut(usize, &[f32]) -> Result<(), E>;

/// Points that need not fit memory.
pub trait Points {
    /// What can go wrong with them.
    type Error: From<Stopped>;

    /// How many, N.
    fn count(&self) -> usize;

    /// D.
    fn dim(&self) -> usize;

    /// Some of them, `[rows, D]`; `rows` ascend.
    ///
    /// # Errors
    /// If they cannot be read.
    fn some(&self, rows: &[u32]) -> Result<Vec<f32>, Self::Error>;

    /// Passes on all from a row, a multiple of [`BLOCK`], [`BLOCK`] at a time (at the end fewer), with the row of the first.
    ///
    /// # Errors
    /// If they cannot be read, or `take` says so.
    fn blocks(&self, from: usize, take: Take<'_, Self::Error>) -> Result<(), Self::Error>;
}

/// How to cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Clusters of each level, falling; the first is of images.
    pub clusters: Vec<usize>,
    /// Resampling steps of each level.
    pub resamples: usize,
    /// Points nearest to each center that a resampling keeps.
    pub nearest: usize,
    /// Most iterations of k-means on a sample.
    pub iterations: usize,
    /// Most passes over all points by which the centers of the first sample are moved.
    pub passes: usize,
}

/// One level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// [K, D], of clusters that hold something.
    pub centers: Vec<f32>,
    /// `[points]`, the cluster of each image, or of each cluster of the level below.
    pub labels: Vec<u32>,
    /// `[points]`, squared Euclidean distance to its center.
    pub squares: Vec<f32>,
}

/// Where it is, to be kept and gone on from; with it goes where the clustering of a sample is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Levels that are over.
    pub levels: Vec<Level>,
    /// Clusterings of this level that are over: the first of all points, the others of resampled ones.
    round: usize,
    /// [K, D] of the round; nothing before its sample is clustered.
    centers: Vec<f32>,
    /// Passes of the round that are over.
    passes: usize,
    /// Sum of squared distances in the last of them.
    inertia: Option<f64>,
    pass: Pass,
    /// What the last round found.
    found: Level,
}

/// A pass over the points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Pass {
    labels: Vec<u32>,
    squares: Vec<f32>,
    inertia: f64,
    /// [K, D] and `[K]`: sums and numbers of each cluster's points; nothing if the centers stay.
    sums: Vec<f64>,
    counts: Vec<u64>,
}

impl Progress {
    /// Clusterings of this level that are over.
    pub fn rounds(&self) -> usize {
        self.round
    }

    /// True if it can be that of this work.
    fn fits(&self, method: &Hierarchy, points: usize, dim: usize) -> bool {
        let sizes = self.levels.iter().map(|level| level.centers.len() / dim);
        let below: Vec<usize> = std::iter::once(points).chain(sizes).collect();
        let rows = below[self.levels.len()];
        let whole = |level: &Level, rows: usize| {
            let k = level.centers.len() / dim;
            level.centers.len() == k * dim
                && (level.labels.len(), level.squares.len()) == (rows, rows)
                && level.labels.iter().all(|&label| (label as usize) < k)
        };
        let Pass { labels, squares, sums, counts, .. } = &self.pass;
        self.levels.len() <= method.clusters.len()
            && self.levels.iter().zip(&below).all(|(level, &rows)| !level.centers.is_empty() && whole(level, rows))
            && self.round <= method.resamples
            && (self.round == 0) == self.found.labels.is_empty()
            && (self.round == 0 || whole(&self.found, rows))
            && self.centers.len().is_multiple_of(dim)
            && labels.len() == squares.len()
            && (labels.len() == rows || labels.len() < rows && labels.len().is_multiple_of(BLOCK))
            && labels.iter().all(|&label| (label as usize) < self.centers.len() / dim)
            && (sums.is_empty() || (sums.len(), counts.len() * dim) == (self.centers.len(), self.centers.len()))
    }
}

impl Hierarchy {
    /// Clusters the points, from where another call stopped, to the same bits. `each` hears of every step, and may keep the progress
    /// or break off; after an error both parts of it are where they were left, whole.
    ///
    /// # Errors
    /// If points cannot be read, it is asked to stop, or `each` says so.
    ///
    /// # Panics
    /// If there is no level, a level without clusters, or more clusters than points.
    pub fn go_on<P: Points>(
        &self,
        points: &P,
        products: &impl Products,
        seed: Seed,
        stop: &Stop,
        (progress, sample): (&mut Progress, &mut kmeans::Progress),
        mut each: impl FnMut(&Progress, &kmeans::Progress) -> Result<(), P::Error>,
    ) -> Result<Vec<Level>, P::Error> {
        assert!(self.clusters.first().is_some_and(|&first| first <= points.count()), "clusters need points");
        if !progress.fits(self, points.count(), points.dim()) {
            (*progress, *sample) = (Progress::default(), kmeans::Progress::default());
        }
        while let Some(&clusters) = self.clusters.get(progress.levels.len()) {
            let number = progress.levels.len();
            let seed = seed.at(number as u64);
            let found = match progress.levels.last() {
                None => self.level(points, clusters, products, seed, stop, (&mut *progress, &mut *sample), &mut each)?,
                Some(below) => {
                    let table = Table { values: below.centers.clone(), dim: points.dim(), error: std::marker::PhantomData };
                    self.level(&table, clusters, products, seed, stop, (&mut *progress, &mut *sample), &mut each)?
                }
            };
            *progress = Progress { levels: std::mem::take(&mut progress.levels), ..Progress::default() };
            progress.levels.push(found);
            each(progress, sample)?;
        }
        Ok(progress.levels.clone())
    }

    /// One level: a clustering of all points, then of resampled ones, again and again.
    #[expect(clippy::too_many_arguments, reason = "what a clustering needs, and where it is")]
    fn level<P: Points>(
        &self,
        points: &P,
        clusters: usize,
        products: &impl Products,
        seed: Seed,
        stop: &Stop,
        (progress, sample): (&mut Progress, &mut kmeans::Progress),
        each: &mut impl FnMut(&Progress, &kmeans::Progress) -> Result<(), P::Error>,
    ) -> Result<Level, P::Error> {
        let (n, dim) = (points.count(), points.dim());
        while progress.round <= self.resamples {
            let (round, first) = (progress.round, progress.round == 0);
            if progress.centers.is_empty() {
                let rows = if first {
                    blind::random(n, SAMPLE.1.max(SAMPLE.0 * clusters), seed.branch("sample"))
                } else {
                    nearest(&progress.found, dim, self.nearest)
                };
                let values = points.some(&rows)?;
                let clusters = clusters.min(rows.len());
                let method = KMeans { restarts: 1, iterations: self.iterations, ..KMeans::new(clusters) };
                let seed = seed.at(round as u64);
                let fit = method.go_on((&values, dim), products, seed, stop, sample, |sample| each(progress, sample))?;
                // All points were in it: nothing is left to be moved.
                progress.passes = if first && rows.len() < n { 0 } else { self.passes };
                (progress.centers, *sample) = (fit.centers, kmeans::Progress::default());
            }
            loop {
                let moves = progress.passes < self.passes;
                pass(points, products, moves, stop, (&mut *progress, &*sample), each)?;
                let Pass { labels, squares, inertia, sums, counts } = std::mem::take(&mut progress.pass);
                let settled = progress.inertia.is_some_and(|last| last - inertia < SETTLED * last);
                if !moves || settled {
                    let centers = std::mem::take(&mut progress.centers);
                    progress.found = Level { centers, labels, squares };
                    break;
                }
                (progress.passes, progress.inertia) = (progress.passes + 1, Some(inertia));
                for ((center, sum), &count) in progress.centers.chunks_mut(dim).zip(sums.chunks(dim)).zip(&counts) {
                    if count > 0 {
                        center.iter_mut().zip(sum).for_each(|(x, sum)| *x = (sum / count as f64) as f32);
                    }
                }
                each(progress, sample)?;
            }
            (progress.round, progress.passes, progress.inertia) = (round + 1, 0, None);
            if progress.round <= self.resamples {
                each(progress, sample)?;
            }
        }
        let mut found = std::mem::take(&mut progress.found);
        found.drop_empty(dim);
        Ok(found)
    }
}

/// Gives all points that are left of a pass to their nearest centers.
fn pass<P: Points>(
    points: &P,
    products: &impl Products,
    moves: bool,
    stop: &Stop,
    (progress, sample): (&mut Progress, &kmeans::Progress),
    each: &mut impl FnMut(&Progress, &kmeans::Progress) -> Result<(), P::Error>,
) -> Result<(), P::Error> {
    let dim = points.dim();
    let centers = Centers::new(progress.centers.clone(), dim);
    if moves && progress.pass.sums.is_empty() {
        progress.pass.sums = vec![0.0; centers.values.len()];
        progress.pass.counts = vec![0; centers.values.len() / dim];
    }
    let from = progress.pass.labels.len();
    if from == points.count() {
        return Ok(());
    }
    points.blocks(from, &mut |_, rows| {
        let (labels, squares) = centers.nearest(rows, products, stop)?;
        let pass = &mut progress.pass;
        pass.inertia += squares.iter().map(|&square| f64::from(square)).sum::<f64>();
        if moves {
            add(rows, dim, &labels, &mut pass.sums, &mut pass.counts);
        }
        pass.labels.extend(labels);
        pass.squares.extend(squares);
        each(progress, sample)
    })
}

impl Level {
    /// How many clusters.
    pub fn clusters(&self, dim: usize) -> usize {
        self.centers.len() / dim
    }

    /// Forgets clusters without points.
    fn drop_empty(&mut self, dim: usize) {
        let mut used = vec![false; self.clusters(dim)];
        self.labels.iter().for_each(|&label| used[label as usize] = true);
        let mut number = 0;
        let renamed: Vec<u32> = used
            .iter()
            .map(|used| {
                number += u32::from(*used);
                number.saturating_sub(1)
            })
            .collect();
        self.labels.iter_mut().for_each(|label| *label = renamed[*label as usize]);
        let kept = self.centers.chunks(dim).zip(&used).filter(|(_, used)| **used);
        self.centers = kept.flat_map(|(center, _)| center.iter().copied()).collect();
    }
}

/// Centers in memory: the points of a higher level.
struct Table<E> {
    values: Vec<f32>,
    dim: usize,
    error: std::marker::PhantomData<E>,
}

impl<E: From<Stopped>> Points for Table<E> {
    type Error = E;

    fn count(&self) -> usize {
        self.values.len() / self.dim
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn some(&self, rows: &[u32]) -> Result<Vec<f32>, E> {
        Ok(rows.iter().flat_map(|&row| &self.values[row as usize * self.dim..][..self.dim]).copied().collect())
    }

    fn blocks(&self, from: usize, take: Take<'_, E>) -> Result<(), E> {
        let blocks = self.values[from * self.dim..].chunks(BLOCK * self.dim);
        blocks.enumerate().try_for_each(|(block, rows)| take(from + block * BLOCK, rows))
    }
}

/// The points nearest to the center of each cluster, at most so many of each; ascending.
fn nearest(level: &Level, dim: usize, most: usize) -> Vec<u32> {
    let mut rows: Vec<u32> = members(&level.labels, level.clusters(dim))
        .into_par_iter()
        .flat_map_iter(|mut rows| {
            let square = |row: &u32| level.squares[*row as usize];
            rows.sort_unstable_by(|a, b| square(a).total_cmp(&square(b)).then(a.cmp(b)));
            rows.truncate(most);
            rows
        })
        .collect();
    rows.sort_unstable();
    rows
}

/// The points of each cluster, ascending.
pub fn members(labels: &[u32], clusters: usize) -> Vec<Vec<u32>> {
    let mut members = vec![Vec::new(); clusters];
    for (row, &label) in (0..).zip(labels) {
        members[label as usize].push(row);
    }
    members
}

/// Adds rows to the sums of their clusters, each sum in the order of rows.
fn add(rows: &[f32], dim: usize, labels: &[u32], sums: &mut [f64], counts: &mut [u64]) {
    let members = members(labels, counts.len());
    sums.par_chunks_mut(dim).zip(counts).zip(&members).for_each(|((sum, count), members)| {
        *count += members.len() as u64;
        for &row in members {
            sum.iter_mut().zip(&rows[row as usize * dim..][..dim]).for_each(|(sum, &x)| *sum += f64::from(x));
        }
    });
}

/// Centers, and what is asked of them again and again.
struct Centers {
    values: Vec<f32>,
    dim: usize,
    /// |c|² / 2.
    half_squares: Vec<f32>,
}

impl Centers {
    fn new(values: Vec<f32>, dim: usize) -> Self {
        let half_squares = values.chunks(dim).map(|center| (dot(center, center) / 2.0) as f32).collect();
        Self { values, dim, half_squares }
    }

    /// The nearest center of each row (ties: lower number), and the squared distance to it.
    fn nearest(&self, rows: &[f32], products: &impl Products, stop: &Stop) -> Result<(Vec<u32>, Vec<f32>), Stopped> {
        let n = rows.len() / self.dim;
        let (mut labels, mut squares) = (vec![0_u32; n], vec![0.0_f32; n]);
        let pieces = labels.par_chunks_mut(TILE).zip(squares.par_chunks_mut(TILE)).zip(rows.par_chunks(TILE * self.dim));
        pieces.try_for_each_init(Vec::new, |tile, ((labels, squares), rows)| {
            stop.check()?;
            // |x − c|² / 2 without |x|², which is the same for all centers.
            let mut least = vec![f32::INFINITY; labels.len()];
            for (number, centers) in self.values.chunks(TILE * self.dim).enumerate() {
                let first = number * TILE;
                let halves = &self.half_squares[first..first + centers.len() / self.dim];
                tile.resize(labels.len() * halves.len(), 0.0);
                products.products(rows, centers, self.dim, tile);
                for ((x, label), least) in tile.chunks(halves.len()).zip(labels.iter_mut()).zip(&mut least) {
                    for (at, (&product, &half)) in x.iter().zip(halves).enumerate() {
                        if half - product < *least {
                            (*least, *label) = (half - product, (first + at) as u32);
                        }
                    }
                }
            }
            for ((row, &label), square) in rows.chunks(self.dim).zip(&*labels).zip(squares) {
                let center = &self.values[label as usize * self.dim..][..self.dim];
                *square = row.iter().zip(center).map(|(&x, &c)| (f64::from(x) - f64::from(c)).powi(2)).sum::<f64>() as f32;
            }
            Ok(())
        })?;
        Ok((labels, squares))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmeans::Plain;

    fn method() -> Hierarchy {
        Hierarchy { clusters: vec![24, 6], resamples: 2, nearest: 3, iterations: 20, passes: 2 }
    }

    /// `dense` points around one place, `sparse` around each of three others.
    fn uneven(dense: usize, sparse: usize) -> Table<Stopped> {
        let mut rng = Seed::new(1).rng();
        let sizes = [dense, sparse, sparse, sparse];
        let places = sizes.iter().enumerate().flat_map(|(place, &size)| std::iter::repeat_n(place, size));
        let values =
            places.flat_map(|place| [place / 2, place % 2]).map(|at| (20.0 * at as f64 + rng.normal()) as f32).collect();
        Table { values, dim: 2, error: std::marker::PhantomData }
    }

    fn run(method: &Hierarchy, points: &Table<Stopped>) -> Vec<Level> {
        let mut progress = (Progress::default(), kmeans::Progress::default());
        let (progress, sample) = (&mut progress.0, &mut progress.1);
        method.go_on(points, &Plain, Seed::new(4), &Stop::default(), (progress, sample), |_, _| Ok(())).unwrap()
    }

    #[test]
    fn every_point_is_in_its_nearest_cluster_and_no_cluster_is_empty() {
        let points = uneven(900, 60);
        let mut below = points.values.clone();
        for (level, most) in run(&method(), &points).iter().zip([24, 6]) {
            let centers: Vec<&[f32]> = level.centers.chunks(2).collect();
            assert!(centers.len() <= most && centers.len() > most / 2, "{}", centers.len());
            let square = |row: &[f32], center: &[f32]| (row[0] - center[0]).powi(2) + (row[1] - center[1]).powi(2);
            for ((row, &label), &found) in below.chunks(2).zip(&level.labels).zip(&level.squares) {
                let own = square(row, centers[label as usize]);
                assert!((own - found).abs() <= 1e-3 * (1.0 + own));
                assert!(centers.iter().all(|center| square(row, center) >= own - 1e-3 * (1.0 + own)));
            }
            assert!(members(&level.labels, centers.len()).iter().all(|members| !members.is_empty()));
            below.clone_from(&level.centers);
        }
    }

    #[test]
    fn resampling_moves_clusters_from_where_most_points_are() {
        let points = uneven(3000, 30);
        let dense = |resamples| {
            let level = &run(&Hierarchy { clusters: vec![40], resamples, ..method() }, &points)[0];
            level.centers.chunks(2).filter(|center| center[0] < 10.0 && center[1] < 10.0).count()
        };
        let (without, with) = (dense(0), dense(4));
        assert!(with < without, "{without} of 40 clusters are among the {} densest points, resampled {with}", 3000);
    }

    #[test]
    fn a_sample_is_clustered_first_and_its_centers_are_moved_by_passes() {
        // More than one block, and more than the sample holds.
        let points = uneven(40_000, 500);
        let inertia = |passes| {
            let level = &run(&Hierarchy { clusters: vec![4], resamples: 0, passes, iterations: 1, ..method() }, &points)[0];
            assert_eq!(level.labels.len(), 41_500);
            level.squares.iter().map(|&square| f64::from(square)).sum::<f64>()
        };
        let (still, moved) = (inertia(0), inertia(5));
        assert!(moved < still, "{still} and {moved}");
    }

    #[test]
    fn neither_threads_nor_stops_change_a_bit() {
        let points = uneven(20_000, 300);
        let method = Hierarchy { clusters: vec![30, 5], iterations: 4, ..method() };
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let whole = |threads| pool(threads).install(|| run(&method, &points));
        let expected = whole(1);
        assert_eq!(whole(3), expected);
        for looks in [60, 100, 200] {
            let (mut progress, mut sample, mut stops) = (Progress::default(), kmeans::Progress::default(), 0);
            let found = loop {
                let stop = Stop::after(looks);
                let at = (&mut progress, &mut sample);
                match method.go_on(&points, &Plain, Seed::new(4), &stop, at, |_, _| Ok(())) {
                    Ok(found) => break found,
                    Err(Stopped) => stops += 1,
                }
            };
            assert!(stops > 2, "{looks}: stopped {stops} times");
            assert_eq!(found, expected, "{looks}");
        }
    }

    #[test]
    fn progress_of_other_shapes_is_not_gone_on_from() {
        let points = uneven(300, 40);
        let (mut progress, mut sample) = (Progress::default(), kmeans::Progress::default());
        let stopped = |_: &Progress, _: &kmeans::Progress| Ok::<(), Stopped>(());
        let other = Hierarchy { clusters: vec![50, 20, 3], ..method() };
        let at = (&mut progress, &mut sample);
        other.go_on(&uneven(500, 9), &Plain, Seed::new(4), &Stop::default(), at, stopped).unwrap();
        let at = (&mut progress, &mut sample);
        let found = method().go_on(&points, &Plain, Seed::new(4), &Stop::default(), at, stopped).unwrap();
        assert_eq!(found, run(&method(), &points));
    }
}
