//! k-means, the baseline of every learned clustering.
//!
//! Lloyd's iterations (Lloyd 1982) from greedy k-means++ starts (Arthur and Vassilvitskii 2007; 2 + ln K candidates per center,
//! as scikit-learn has it), several restarts, the least inertia wins: no label is looked at. Stopping rule and tolerance follow
//! scikit-learn, so published baselines can be met.
//!
//! Distances come from products, |x|² − 2 x·c + |c|², and products from whoever can do them fast: the kernel crate implements
//! [`Products`]; [`Plain`] needs nothing. Data are centered first, which keeps the cancellation harmless. Sums run in double
//! precision over fixed pieces: the same bits for any number of threads.
//!
//! With [`KMeans::balance`] large clusters cost more: the mean squared distance less `balance` × the total variance × the entropy of
//! the cluster sizes is lowered. It is SCAN's entropy term (Van Gansbeke et al. 2020, eq. 2) in k-means; that a center's distance rises
//! with its share of the rows is frequency-sensitive competitive learning (Banerjee and Ghosh 2004). Where two clusterings have nearly
//! the same inertia, one that joins two groups and halves a third among them, the even one is found.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::cosine::dot;
use kinset_base::seed::{Rng, Seed};
use kinset_base::stop::{Stop, Stopped};

/// Scalar products of rows, the one hot operation of k-means.
pub trait Products: Sync {
    /// Writes `a · bᵀ` to `out` [A, B], for `a` [A, D] and `b` [B, D], all row-major. Called from many threads at once; each
    /// product must depend on nothing but its two rows, the shapes and the machine.
    fn products(&self, a: &[f32], b: &[f32], dim: usize, out: &mut [f32]);
}

/// Products one by one, in double precision: slow, and right on any machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Products for Plain {
    fn products(&self, a: &[f32], b: &[f32], dim: usize, out: &mut [f32]) {
        let columns = b.len() / dim;
        for (x, out) in a.chunks(dim).zip(out.chunks_mut(columns.max(1))) {
            for (y, out) in b.chunks(dim).zip(out) {
                *out = dot(x, y) as f32;
            }
        }
    }
}

/// How to run it. The defaults are scikit-learn's, but for ten restarts as in the papers' baselines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KMeans {
    /// K.
    pub clusters: usize,
    /// Independent starts; the one with the least inertia is kept.
    pub restarts: usize,
    /// Most iterations of one start.
    pub iterations: usize,
    /// Stop when the squared shift of all centers is at most this share of the mean variance of a feature.
    pub tolerance: f64,
    /// Weight of the entropy of the cluster sizes (nats), in total variances; 0 is k-means.
    pub balance: f64,
}

impl KMeans {
    /// K clusters, 10 restarts, at most 300 iterations, tolerance 1e-4, sizes as they come.
    pub fn new(clusters: usize) -> Self {
        Self { clusters, restarts: 10, iterations: 300, tolerance: 1e-4, balance: 0.0 }
    }
}

/// Iterations in which the prices of clusters follow their sizes; then they stand, so that the centers can settle.
const PRICED: usize = 50;
/// The part of the way to its price that a cluster's goes in an iteration: at once, rows would go to and fro.
const STEP: f64 = 0.3;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// [K, D].
    pub centers: Vec<f32>,
    /// `[N]`, the nearest center of each row (ties: lower number), after prices where clusters have them.
    pub labels: Vec<u32>,
    /// Sum of squared distances of rows to their centers.
    pub inertia: f64,
    /// Iterations of the winning start.
    pub iterations: usize,
    /// False if the winning start ran out of iterations.
    pub converged: bool,
}

/// Where a fit is, to be kept and gone on from: all that [`KMeans::go_on`] does not compute again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Starts that are over.
    over: usize,
    /// The best of them, its centers around the mean of the rows.
    best: Option<Fit>,
    start: Start,
}

/// Where a start is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Start {
    /// Rows that k-means++ chose so far.
    chosen: Vec<usize>,
    /// `[N]`, squared distance of each row to the nearest of them.
    nearest: Vec<f32>,
    /// [K, D], around the mean of the rows; nothing before all are chosen.
    centers: Vec<f32>,
    /// `[N]`; nothing before the first iteration.
    labels: Vec<u32>,
    /// `[K]`, what is added to the squared distance from each center; nothing before the first iteration, or without balance.
    prices: Vec<f64>,
    iterations: usize,
    /// The labels stayed as they were.
    settled: bool,
    converged: bool,
}

impl Progress {
    /// How many starts are over.
    pub fn starts(&self) -> usize {
        self.over
    }

    /// True if it can be that of a fit of these shapes.
    fn fits(&self, method: &KMeans, rows: usize, dim: usize) -> bool {
        let Start { chosen, nearest, centers, labels, prices, .. } = &self.start;
        let size = method.clusters * dim;
        chosen.len() <= method.clusters
            && chosen.iter().all(|&row| row < rows)
            && nearest.len() == if chosen.is_empty() { 0 } else { rows }
            && (centers.is_empty() || (centers.len() == size && chosen.len() == method.clusters))
            && (labels.is_empty() || labels.len() == rows)
            && prices.len() == if labels.is_empty() || method.balance == 0.0 { 0 } else { method.clusters }
            && self.best.as_ref().is_none_or(|best| best.centers.len() == size && best.labels.len() == rows)
            && self.over <= method.restarts
            && (self.over == 0) == self.best.is_none()
    }
}

/// Rows per parallel piece for K columns of products: fixed, and small enough for the products to stay in a core's cache.
fn piece(columns: usize) -> usize {
    (131_072 / columns.max(1)).clamp(32, 1024)
}

/// Members per partial sum of a center.
const MEMBERS: usize = 2048;

impl KMeans {
    /// Clusters the rows [N, D].
    ///
    /// # Errors
    /// If it is asked to stop.
    ///
    /// # Panics
    /// If there are fewer rows than clusters, no cluster, no restart, no feature, a ragged table, or a number that is not finite.
    pub fn fit(&self, rows: &[f32], dim: usize, products: &impl Products, seed: Seed, stop: &Stop) -> Result<Fit, Stopped> {
        self.go_on((rows, dim), products, seed, stop, &mut Progress::default(), |_| Ok(()))
    }

    /// The same from where another call stopped, to the same bits. `each` hears of every step, and may keep the progress or break
    /// off; after an error `progress` is where it was left, whole.
    ///
    /// # Errors
    /// If it is asked to stop, or `each` says so.
    ///
    /// # Panics
    /// As [`KMeans::fit`].
    pub fn go_on<E: From<Stopped>>(
        &self,
        (rows, dim): (&[f32], usize),
        products: &impl Products,
        seed: Seed,
        stop: &Stop,
        progress: &mut Progress,
        mut each: impl FnMut(&Progress) -> Result<(), E>,
    ) -> Result<Fit, E> {
        let (data, k) = (Centered::new(rows, dim), self.clusters);
        assert!(self.restarts > 0, "k-means needs a start");
        assert!(k > 0 && k <= data.len(), "k-means needs at least one row per cluster: {} rows, {k} clusters", data.len());
        if !progress.fits(self, data.len(), dim) {
            *progress = Progress::default();
        }
        while progress.over < self.restarts {
            let fit = self.start(&data, products, seed.at(progress.over as u64), stop, progress, &mut each)?;
            let cost = |fit: &Fit| fit.inertia + self.price_of_sizes(&data, &fit.labels);
            if progress.best.as_ref().is_none_or(|best| cost(&fit) < cost(best)) {
                progress.best = Some(fit);
            }
            (progress.over, progress.start) = (progress.over + 1, Start::default());
            each(progress)?;
        }
        let Some(mut best) = progress.best.clone() else { unreachable!("there is at least one start") };
        data.restore(&mut best.centers);
        Ok(best)
    }

    /// One start on centered data; the centers are centered too.
    fn start<E: From<Stopped>>(
        &self,
        data: &Centered,
        products: &impl Products,
        seed: Seed,
        stop: &Stop,
        progress: &mut Progress,
        each: &mut impl FnMut(&Progress) -> Result<(), E>,
    ) -> Result<Fit, E> {
        let tolerance = self.tolerance * data.variance;
        let mut seeding = Seeding::new(self.clusters, data.len(), &progress.start, seed);
        while progress.start.chosen.len() < self.clusters {
            data.choose(&mut progress.start, &mut seeding, products, stop)?;
            each(progress)?;
        }
        let start = &mut progress.start;
        if start.centers.is_empty() {
            start.centers = start.chosen.iter().flat_map(|&row| data.row(row).iter().copied()).collect();
        }
        while progress.start.iterations < self.iterations && !progress.start.converged {
            let start = &mut progress.start;
            let nearest = data.nearest(&start.centers, &start.prices, products, stop)?;
            let moved = data.means(&nearest, &start.centers);
            let shift: f64 = start.centers.iter().zip(&moved).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
            start.iterations += 1;
            let moving = self.balance > 0.0 && start.iterations <= PRICED;
            start.settled = !moving && nearest == start.labels;
            start.converged = start.settled || (!moving && shift <= tolerance);
            if moving {
                self.follow(data, &nearest, &mut start.prices);
            }
            (start.labels, start.centers) = (nearest, moved);
            each(progress)?;
        }
        let start = &progress.start;
        let labels =
            if start.settled { start.labels.clone() } else { data.nearest(&start.centers, &start.prices, products, stop)? };
        let inertia = data.distances(&labels, &start.centers).iter().sum();
        let Start { centers, iterations, converged, .. } = start.clone();
        Ok(Fit { centers, labels, inertia, iterations, converged })
    }

    /// What the sizes of the clusters add to the inertia: −`balance` × total variance × N × entropy.
    fn price_of_sizes(&self, data: &Centered, labels: &[u32]) -> f64 {
        if self.balance == 0.0 {
            return 0.0;
        }
        let shares = shares(labels, self.clusters);
        let ordered: f64 = shares.iter().filter(|share| **share > 0.0).map(|share| share * share.ln()).sum();
        self.balance * data.total() * labels.len() as f64 * ordered
    }

    /// Moves the prices towards what one more row in each cluster adds to [`KMeans::price_of_sizes`].
    fn follow(&self, data: &Centered, labels: &[u32], prices: &mut Vec<f64>) {
        prices.resize(self.clusters, 0.0);
        // An empty cluster is as cheap as one of a single row.
        let least = 1.0 / labels.len() as f64;
        for (price, share) in prices.iter_mut().zip(shares(labels, self.clusters)) {
            *price += STEP * (self.balance * data.total() * (share.max(least).ln() + 1.0) - *price);
        }
    }
}

/// Of each cluster the share of the rows.
fn shares(labels: &[u32], clusters: usize) -> Vec<f64> {
    let mut counts = vec![0_usize; clusters];
    for &label in labels {
        counts[label as usize] += 1;
    }
    counts.into_iter().map(|count| count as f64 / labels.len() as f64).collect()
}

/// The draws of k-means++, which begin anew with the stream of a start and pass over those of the rows that are chosen already.
struct Seeding {
    trials: usize,
    first: usize,
    rng: Rng,
}

impl Seeding {
    fn new(clusters: usize, rows: usize, start: &Start, seed: Seed) -> Self {
        let (trials, mut rng) = (2 + (clusters as f64).ln() as usize, seed.rng());
        let first = rng.below(rows);
        for _ in 0..start.chosen.len().saturating_sub(1) * trials {
            rng.unit();
        }
        Self { trials, first, rng }
    }
}

/// The nearest center of each row [N, D], as `fit` decides it (ties: lower number): how rows that were not fitted are assigned.
///
/// # Errors
/// If it is asked to stop.
///
/// # Panics
/// If there is no center or a table is ragged.
pub fn assign(rows: &[f32], centers: &[f32], dim: usize, products: &impl Products, stop: &Stop) -> Result<Vec<u32>, Stopped> {
    assert!(!centers.is_empty() && centers.len().is_multiple_of(dim), "centers must be [K, D] with K > 0");
    // Centered on the mean of the centers, for the same reason as in `fit`; the nearest stays the nearest.
    let mean = column_means(centers, dim);
    let shifted = |table: &[f32]| subtract(table, &mean);
    let data = Centered { rows: shifted(rows), dim, mean: Vec::new(), variance: 0.0, squares: Vec::new() };
    data.nearest(&shifted(centers), &[], products, stop)
}

/// The rows around their mean, and what is asked of them again and again.
struct Centered {
    rows: Vec<f32>,
    dim: usize,
    mean: Vec<f64>,
    /// Mean over features of the variance.
    variance: f64,
    /// Squared length of each row.
    squares: Vec<f32>,
}

impl Centered {
    fn new(rows: &[f32], dim: usize) -> Self {
        assert!(dim > 0 && rows.len().is_multiple_of(dim), "rows must be [N, D] with D > 0");
        assert!(rows.iter().all(|x| x.is_finite()), "k-means cannot place a number that is not finite");
        let mean = column_means(rows, dim);
        let rows = subtract(rows, &mean);
        let exact: Vec<f64> = rows.par_chunks(dim).map(|row| dot(row, row)).collect();
        let variance = exact.iter().sum::<f64>() / rows.len().max(1) as f64;
        let squares = exact.into_iter().map(|x| x as f32).collect();
        Self { rows, dim, mean, variance, squares }
    }

    fn len(&self) -> usize {
        self.rows.len() / self.dim
    }

    /// The sum over features of the variance.
    fn total(&self) -> f64 {
        self.variance * self.dim as f64
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.dim..(row + 1) * self.dim]
    }

    /// Puts centers back where the data were.
    fn restore(&self, centers: &mut [f32]) {
        for center in centers.chunks_mut(self.dim) {
            center.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x = (f64::from(*x) + mean) as f32);
        }
    }

    /// Greedy k-means++: of a few candidates drawn by squared distance, the next center is the one that lowers the sum most.
    fn choose(&self, start: &mut Start, seeding: &mut Seeding, products: &impl Products, stop: &Stop) -> Result<(), Stopped> {
        let Start { chosen, nearest, .. } = start;
        if chosen.is_empty() {
            *nearest = self.closer(&[seeding.first], None, products, stop)?;
            chosen.push(seeding.first);
            return Ok(());
        }
        let total = sum(nearest);
        let mut draws: Vec<f64> = (0..seeding.trials).map(|_| seeding.rng.unit() * total).collect();
        draws.sort_unstable_by(f64::total_cmp);
        let mut candidates = draw(nearest, &draws);
        candidates.dedup();
        if candidates.is_empty() {
            // Every row coincides with a center: the first row that is not one yet keeps the centers in number.
            candidates.extend((0..self.len()).find(|row| !chosen.contains(row)));
        }
        let (width, options) = (candidates.len(), self.closer(&candidates, Some(nearest), products, stop)?);
        let mut potentials = vec![0.0; width];
        for row in options.chunks(width) {
            potentials.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        // Ties: the first.
        let best = (0..width).min_by(|&a, &b| potentials[a].total_cmp(&potentials[b]));
        let Some(option) = best else { unreachable!("there are fewer centers than rows, so a row is left to choose") };
        chosen.push(candidates[option]);
        *nearest = options.into_iter().skip(option).step_by(width).collect();
        Ok(())
    }

    /// [N, candidates]: the squared distance of each row to each candidate, or to the nearest center if that is closer.
    fn closer(
        &self,
        candidates: &[usize],
        nearest: Option<&[f32]>,
        products: &impl Products,
        stop: &Stop,
    ) -> Result<Vec<f32>, Stopped> {
        let width = candidates.len();
        let points: Vec<f32> = candidates.iter().flat_map(|&row| self.row(row).iter().copied()).collect();
        let piece = piece(width);
        let mut table = vec![0.0_f32; self.len() * width];
        table.par_chunks_mut(piece * width).zip(self.rows.par_chunks(piece * self.dim)).enumerate().try_for_each(
            |(number, (out, rows))| {
                stop.check()?;
                products.products(rows, &points, self.dim, out);
                for (i, out) in out.chunks_mut(width).enumerate() {
                    let row = number * piece + i;
                    for (x, &candidate) in out.iter_mut().zip(candidates) {
                        let scale = self.squares[row] + self.squares[candidate];
                        let distance = scale - 2.0 * *x;
                        // Below the rounding of the product two rows are one.
                        let distance = if distance > scale * 1e-6 { distance } else { 0.0 };
                        *x = nearest.map_or(distance, |nearest| distance.min(nearest[row]));
                    }
                }
                Ok(())
            },
        )?;
        Ok(table)
    }

    /// `prices`: `[K]`, added to the squared distances; none if it is empty.
    fn nearest(&self, centers: &[f32], prices: &[f64], products: &impl Products, stop: &Stop) -> Result<Vec<u32>, Stopped> {
        let k = centers.len() / self.dim;
        let price = |c: usize| prices.get(c).copied().unwrap_or(0.0);
        let half = |(c, center): (usize, &[f32])| (dot(center, center) / 2.0 + price(c) / 2.0) as f32;
        let half_squares: Vec<f32> = centers.chunks(self.dim).enumerate().map(half).collect();
        let piece = piece(k);
        let mut labels = vec![0_u32; self.len()];
        labels.par_chunks_mut(piece).zip(self.rows.par_chunks(piece * self.dim)).try_for_each_init(
            Vec::new,
            |table, (labels, rows)| {
                stop.check()?;
                table.resize(labels.len() * k, 0.0);
                products.products(rows, centers, self.dim, table);
                labels.iter_mut().zip(table.chunks(k)).for_each(|(label, products)| *label = winner(products, &half_squares));
                Ok(())
            },
        )?;
        Ok(labels)
    }

    /// Squared distance of each row to its center.
    fn distances(&self, labels: &[u32], centers: &[f32]) -> Vec<f64> {
        labels
            .par_iter()
            .enumerate()
            .map(|(row, &label)| {
                let center = &centers[label as usize * self.dim..][..self.dim];
                self.row(row).iter().zip(center).map(|(&x, &c)| (f64::from(x) - f64::from(c)).powi(2)).sum()
            })
            .collect()
    }

    /// The mean of each cluster. An empty cluster gets the row that is farthest from its own center (as scikit-learn does); if
    /// every row sits on its center, it stays where it was.
    fn means(&self, labels: &[u32], centers: &[f32]) -> Vec<f32> {
        let k = centers.len() / self.dim;
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); k];
        for (row, &label) in labels.iter().enumerate() {
            members[label as usize].push(row);
        }
        self.fill_empty(&mut members, labels, centers);
        let pieces: Vec<(usize, &[usize])> =
            members.iter().enumerate().flat_map(|(c, rows)| rows.chunks(MEMBERS).map(move |rows| (c, rows))).collect();
        let partial: Vec<Vec<f64>> = pieces
            .par_iter()
            .map(|(_, rows)| {
                let mut sum = vec![0.0; self.dim];
                for &row in *rows {
                    sum.iter_mut().zip(self.row(row)).for_each(|(sum, &x)| *sum += f64::from(x));
                }
                sum
            })
            .collect();
        let mut sums = vec![0.0; k * self.dim];
        for ((c, _), partial) in pieces.iter().zip(&partial) {
            sums[c * self.dim..][..self.dim].iter_mut().zip(partial).for_each(|(sum, x)| *sum += x);
        }
        let mut moved = centers.to_vec();
        for ((center, sum), rows) in moved.chunks_mut(self.dim).zip(sums.chunks(self.dim)).zip(&members) {
            if !rows.is_empty() {
                center.iter_mut().zip(sum).for_each(|(x, sum)| *x = (sum / rows.len() as f64) as f32);
            }
        }
        moved
    }

    fn fill_empty(&self, members: &mut [Vec<usize>], labels: &[u32], centers: &[f32]) {
        let empty: Vec<usize> = (0..members.len()).filter(|&c| members[c].is_empty()).collect();
        if empty.is_empty() {
            return;
        }
        let distances = self.distances(labels, centers);
        let mut farthest: Vec<usize> = (0..labels.len()).filter(|&row| distances[row] > 0.0).collect();
        farthest.sort_unstable_by(|&a, &b| distances[b].total_cmp(&distances[a]).then(a.cmp(&b)));
        let mut donors = farthest.into_iter();
        for cluster in empty {
            // A cluster does not give its last member away.
            let Some(row) = donors.find(|&row| members[labels[row] as usize].len() > 1) else { return };
            members[labels[row] as usize].retain(|&member| member != row);
            members[cluster].push(row);
        }
    }
}

/// Distances that are compared side by side.
const LANES: usize = 8;
/// Up to so many, comparing them one by one takes less time than putting the lanes together.
const FEW: usize = 32;

/// The number of the center that is nearest to a row x (ties: lower number), from its products with all centers and |c|² / 2 of
/// each: |x − c|² / 2 without |x|², which is the same for all. 0 if no distance is a number.
fn winner(products: &[f32], half_squares: &[f32]) -> u32 {
    if products.len() < FEW {
        let (mut least, mut winner) = (f32::INFINITY, 0);
        for (center, (product, half)) in products.iter().zip(half_squares).enumerate() {
            let distance = half - product;
            if distance < least {
                (least, winner) = (distance, center as u32);
            }
        }
        return winner;
    }
    // Each lane keeps its own, so that the compiler can compare them in one instruction.
    let (mut least, mut winners) = ([f32::INFINITY; LANES], [0_u32; LANES]);
    for (block, (products, halves)) in products.chunks(LANES).zip(half_squares.chunks(LANES)).enumerate() {
        let mut compare = |lane: usize, product: f32, half: f32| {
            let distance = half - product;
            let closer = distance < least[lane];
            least[lane] = if closer { distance } else { least[lane] };
            winners[lane] = if closer { (block * LANES + lane) as u32 } else { winners[lane] };
        };
        if let (Some(products), Some(halves)) = (products.as_array::<LANES>(), halves.as_array::<LANES>()) {
            (0..LANES).for_each(|lane| compare(lane, products[lane], halves[lane]));
        } else {
            products.iter().zip(halves).enumerate().for_each(|(lane, (&product, &half))| compare(lane, product, half));
        }
    }
    let best = least.into_iter().zip(winners).min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    best.map_or(0, |(_, winner)| winner)
}

/// Rows at these places of the cumulated weights (ascending); a place beyond the end by rounding takes the last row that
/// has weight. Nothing if no row has weight.
fn draw(weights: &[f32], places: &[f64]) -> Vec<usize> {
    let (mut rows, mut upto, mut last) = (Vec::with_capacity(places.len()), 0.0, None);
    for (row, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            upto += f64::from(weight);
            last = Some(row);
            while rows.len() < places.len() && places[rows.len()] < upto {
                rows.push(row);
            }
        }
    }
    while let (true, Some(row)) = (rows.len() < places.len(), last) {
        rows.push(row);
    }
    rows
}

/// Sum of f32 in double precision, in order.
fn sum(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x)).sum()
}

/// The mean row.
pub(super) fn column_means(rows: &[f32], dim: usize) -> Vec<f64> {
    let mut mean = vec![0.0; dim];
    for row in rows.chunks(dim) {
        mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let n = (rows.len() / dim).max(1) as f64;
    for sum in &mut mean {
        *sum /= n;
    }
    mean
}

fn subtract(rows: &[f32], mean: &[f64]) -> Vec<f32> {
    let mut rows = rows.to_vec();
    rows.par_chunks_mut(mean.len()).for_each(|row| row.iter_mut().zip(mean).for_each(|(x, m)| *x = (f64::from(*x) - m) as f32));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `per` points around each of `k` corners of a cube with unit noise; corners `gap` apart.
    fn blobs(k: usize, per: usize, gap: f64, seed: u64) -> Vec<f32> {
        let mut rng = Seed::new(seed).rng();
        (0..k * per)
            .flat_map(|i| (0..4).map(move |d| ((i / per) >> d & 1) as f64 * gap))
            .map(|corner| (corner + rng.normal()) as f32)
            .collect()
    }

    #[test]
    fn separated_blobs_are_found() {
        let rows = blobs(8, 50, 20.0, 1);
        let fit = KMeans::new(8).fit(&rows, 4, &Plain, Seed::new(2), &Stop::default()).unwrap();
        for blob in fit.labels.chunks(50) {
            assert!(blob.iter().all(|l| *l == blob[0]), "a blob was split");
        }
        let mut names: Vec<u32> = fit.labels.chunks(50).map(|blob| blob[0]).collect();
        names.sort_unstable();
        assert_eq!(names, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(fit.converged);
        assert!((fit.inertia / 400.0 - 4.0).abs() < 0.5, "{}", fit.inertia);
        assert_eq!(assign(&rows, &fit.centers, 4, &Plain, &Stop::default()).unwrap(), fit.labels);
    }

    #[test]
    fn balance_halves_what_is_large_where_k_means_halves_what_is_wide() {
        // Three groups, the first far wider than the others: two of its halves are worth more inertia than the gap of the others.
        let mut rows: Vec<f32> = (0..40).map(|row| row as f32 * 0.5).collect();
        rows.extend((0..160).map(|row| 40.0 + (row % 2) as f32 * 3.0 + (row % 7) as f32 * 0.1));
        rows.extend((0..100).map(|row| -30.0 + (row % 5) as f32 * 0.1));
        let fit = |balance| {
            let method = KMeans { balance, ..KMeans::new(4) };
            method.fit(&rows, 1, &Plain, Seed::new(1), &Stop::default()).unwrap()
        };
        let sizes = |fit: &Fit| {
            let mut sizes: Vec<f64> = shares(&fit.labels, 4).into_iter().map(|share| (share * 300.0).round()).collect();
            sizes.sort_by(f64::total_cmp);
            sizes
        };
        let (plain, even) = (fit(0.0), fit(0.2));
        assert_eq!(sizes(&plain), [20.0, 20.0, 100.0, 160.0]);
        assert_eq!(sizes(&even), [40.0, 80.0, 80.0, 100.0]);
        assert!(plain.inertia < even.inertia && even.converged);
    }

    #[test]
    fn a_balanced_fit_that_was_stopped_goes_on_to_the_same_bits() {
        let rows = blobs(5, 30, 2.0, 8);
        let method = KMeans { restarts: 2, balance: 0.3, ..KMeans::new(6) };
        let whole = method.fit(&rows, 4, &Plain, Seed::new(5), &Stop::default()).unwrap();
        let (mut progress, mut calls) = (Progress::default(), 0);
        let found = loop {
            let mut left = 7;
            let ran = method.go_on((&rows, 4), &Plain, Seed::new(5), &Stop::default(), &mut progress, |_| {
                left -= 1;
                if left == 0 { Err(Stopped) } else { Ok(()) }
            });
            calls += 1;
            if let Ok(fit) = ran {
                break fit;
            }
        };
        assert!(calls > 5 && found == whole, "{calls}");
    }

    #[test]
    fn the_winner_is_the_first_of_the_nearest_however_many_there_are() {
        let mut rng = Seed::new(3).rng();
        for k in 1..100 {
            // Few values, so that there are ties.
            let mut draw = || (0..k).map(|_| rng.below(4) as f32).collect::<Vec<_>>();
            let (products, halves) = (draw(), draw());
            let expected = (0..k).min_by(|&a, &b| (halves[a] - products[a]).total_cmp(&(halves[b] - products[b])));
            assert_eq!(winner(&products, &halves) as usize, expected.unwrap(), "{k} centers");
        }
    }

    #[test]
    fn hand_values_in_one_dimension() {
        let fit = KMeans::new(2).fit(&[1.0, 2.0, 10.0, 12.0], 1, &Plain, Seed::new(0), &Stop::default()).unwrap();
        let mut centers = fit.centers.clone();
        centers.sort_unstable_by(f32::total_cmp);
        assert!((centers[0] - 1.5).abs() < 1e-6 && (centers[1] - 11.0).abs() < 1e-6, "{centers:?}");
        assert!((fit.inertia - 2.5).abs() < 1e-5);
    }

    #[test]
    fn limits_one_cluster_one_row_each_and_all_rows_equal() {
        let one = KMeans::new(1).fit(&[0.0, 1.0, 5.0], 1, &Plain, Seed::new(0), &Stop::default()).unwrap();
        assert!((one.centers[0] - 2.0).abs() < 1e-6 && (one.inertia - 14.0).abs() < 1e-5);
        let each = KMeans::new(3).fit(&[0.0, 1.0, 5.0], 1, &Plain, Seed::new(0), &Stop::default()).unwrap();
        assert!(each.inertia < 1e-9);
        let same = KMeans::new(3).fit(&[7.0; 8], 2, &Plain, Seed::new(0), &Stop::default()).unwrap();
        assert!(same.inertia < 1e-9 && same.centers.iter().all(|c| (c - 7.0).abs() < 1e-6));
    }

    #[test]
    fn an_empty_cluster_gets_the_farthest_row() {
        let data = Centered::new(&[-3.0, -1.0, 0.0, 4.0], 1);
        let moved = data.means(&[0, 0, 0, 0], &[0.0, 100.0]);
        assert!((moved[1] - 4.0).abs() < 1e-6 && (moved[0] + 4.0 / 3.0).abs() < 1e-6, "{moved:?}");
    }

    #[test]
    fn a_large_offset_does_not_blur_the_clusters() {
        let rows: Vec<f32> = blobs(4, 40, 10.0, 5).iter().map(|x| x + 5000.0).collect();
        let fit = KMeans::new(4).fit(&rows, 4, &Plain, Seed::new(1), &Stop::default()).unwrap();
        assert!(fit.labels.chunks(40).all(|blob| blob.iter().all(|l| *l == blob[0])));
        assert_eq!(assign(&rows, &fit.centers, 4, &Plain, &Stop::default()).unwrap(), fit.labels);
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let rows = blobs(16, 300, 2.0, 3);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                KMeans { restarts: 2, ..KMeans::new(16) }.fit(&rows, 4, &Plain, Seed::new(4), &Stop::default()).unwrap()
            })
        };
        let (one, three) = (run(1), run(3));
        assert_eq!(one, three);
        assert_eq!(one.inertia.to_bits(), three.inertia.to_bits());
    }

    #[test]
    fn a_fit_that_is_stopped_again_and_again_ends_in_the_same_bits() {
        let rows = blobs(6, 40, 3.0, 7);
        let method = KMeans { restarts: 3, ..KMeans::new(6) };
        let whole = Stop::after(u64::MAX);
        let expected = method.fit(&rows, 4, &Plain, Seed::new(5), &whole).unwrap();
        for looks in [1, 2, 5] {
            let (mut progress, mut stops) = (Progress::default(), 0);
            let fit = loop {
                match method.go_on((&rows, 4), &Plain, Seed::new(5), &Stop::after(looks), &mut progress, |_| Ok(())) {
                    Ok(fit) => break fit,
                    Err(Stopped) => stops += 1,
                }
            };
            assert_eq!(fit, expected, "{looks}");
            assert!(stops > 2, "{looks}: stopped {stops} times");
        }
        assert!(whole.looks() as usize >= 3 * (6 + 2), "{}", whole.looks());
    }

    #[test]
    fn a_stop_is_looked_for_within_one_pass_over_the_rows() {
        let looks = |per: usize| {
            let stop = Stop::after(u64::MAX);
            let rows = blobs(4, per, 3.0, 7);
            KMeans { restarts: 1, iterations: 1, ..KMeans::new(4) }.fit(&rows, 4, &Plain, Seed::new(5), &stop).unwrap();
            stop.looks()
        };
        let (few, many) = (looks(256), looks(256 * 40));
        assert!(many >= 30 * few, "{few} looks at 1024 rows, {many} at 40 times as many");
    }

    #[test]
    fn progress_of_other_shapes_is_not_gone_on_from() {
        let rows = blobs(4, 10, 9.0, 1);
        let expected = KMeans::new(4).fit(&rows, 4, &Plain, Seed::new(5), &Stop::default()).unwrap();
        let mut progress = Progress::default();
        let stopped: Result<Fit, Stopped> =
            KMeans::new(9).go_on((&rows, 4), &Plain, Seed::new(5), &Stop::after(20), &mut progress, |_| Ok(()));
        assert_eq!(stopped, Err(Stopped));
        let fit: Result<Fit, Stopped> =
            KMeans::new(4).go_on((&rows, 4), &Plain, Seed::new(5), &Stop::default(), &mut progress, |_| Ok(()));
        assert_eq!(fit.unwrap(), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_result_is_a_fixed_point_of_its_own_rules(
            rows in prop::collection::vec(-10_i32..10, 12..80),
            k in 1_usize..5,
            seed in 0_u64..1000,
        ) {
            let rows: Vec<f32> = rows[..rows.len() / 2 * 2].iter().map(|&x| x as f32).collect();
            let fit = KMeans { restarts: 3, tolerance: 0.0, ..KMeans::new(k) }.fit(&rows, 2, &Plain, Seed::new(seed), &Stop::default()).unwrap();
            prop_assert!(fit.converged);
            let distance = |row: &[f32], c: usize| (row[0] - fit.centers[c * 2]).powi(2) + (row[1] - fit.centers[c * 2 + 1]).powi(2);
            let mut inertia = 0.0;
            for (row, &label) in rows.chunks(2).zip(&fit.labels) {
                let own = distance(row, label as usize);
                prop_assert!((0..k).all(|c| distance(row, c) >= own - 1e-3));
                inertia += f64::from(own);
            }
            prop_assert!((inertia - fit.inertia).abs() <= 1e-3 * (1.0 + inertia));
        }
    }
}
