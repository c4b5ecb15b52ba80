//! Measures of how two sets differ (MMD, energy and Fréchet distance, a two-sample test), which need no labels and no model: "more
//! similar" is measured, not assumed.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::frechet;
use crate::kmeans::Products;
use crate::stats;
use kinset_base::stop::{Stop, Stopped};

/// Rows of a parallel piece; fixed, so that no result depends on the number of threads.
const ROWS: usize = 64;
/// Fréchet's distance takes the cube of the dimension; above this it is left out.
pub const FRECHET_UP_TO: usize = 512;

/// How a set differs from a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    pub target_rows: usize,
    pub set_rows: usize,
    pub mean_gap: f64,
    /// Maximum mean discrepancy, squared, unbiased, under a Gaussian kernel (Gretton et al., JMLR 2012, equation 3): about 0
    /// for two samples of one distribution, and then as often below as above.
    pub mmd2: f64,
    /// Energy distance, squared (Székely and Rizzo 2013): 2 E‖x − y‖ − E‖x − x′‖ − E‖y − y′‖.
    pub energy: f64,
    /// Fréchet distance of two Gaussians; none above [`FRECHET_UP_TO`] dimensions or below two rows.
    pub frechet: Option<f64>,
    /// Accuracy of the nearest neighbor at telling the two apart, leave-one-out, on as many rows of each (Lopez-Paz and Oquab,
    /// ICLR 2017): 0.5 if nobody can tell, 1 if everybody can.
    pub two_sample: f64,
    /// What 0.5 would scatter by on so many rows.
    pub two_sample_error: f64,
}

/// Cosines of all rows of `a` with all of `b`, [A, B].
fn cosines(a: &[f32], b: &[f32], dim: usize, products: &impl Products) -> Vec<f32> {
    let columns = b.len() / dim;
    let mut out = vec![0.0; a.len() / dim * columns];
    if columns > 0 {
        let pieces = out.par_chunks_mut(ROWS * columns).zip(a.par_chunks(ROWS * dim));
        pieces.for_each(|(out, a)| products.products(a, b, dim, out));
    }
    out
}

/// Squared distance of two rows of unit length.
fn squared(cosine: f32) -> f64 {
    (2.0 - 2.0 * f64::from(cosine)).max(0.0)
}

/// The kernel's width for [`difference`]: the median distance of rows that are not the same.
///
/// # Shapes
/// `rows` [N, D], of unit length; a sample of what is compared. 1 if there are fewer than two rows, or all are equal.
pub fn median_distance(rows: &[f32], dim: usize, products: &impl Products) -> f64 {
    let n = rows.len() / dim;
    let all = cosines(rows, rows, dim, products);
    let pairs = (0..n).flat_map(|i| (0..i).map(move |j| (i, j)));
    let distances: Vec<f64> = pairs.map(|(i, j)| squared(all[i * n + j]).sqrt()).collect();
    if distances.is_empty() {
        return 1.0;
    }
    let median = stats::median(&distances);
    if median > 0.0 { median } else { 1.0 }
}

/// How a set differs from a target, with a Gaussian kernel of this width.
///
/// # Shapes
/// `target` [T, D], `set` [S, D], of unit length, neither empty.
///
/// # Errors
/// If it is asked to stop.
pub fn difference(
    target: &[f32],
    set: &[f32],
    dim: usize,
    width: f64,
    products: &impl Products,
    stop: &Stop,
) -> Result<Difference, Stopped> {
    let comparable = dim <= FRECHET_UP_TO && target.len() > dim && set.len() > dim;
    let frechet = comparable.then(|| frechet::distance(target, set, dim, stop)).transpose()?;
    stop.check()?;
    let (t, s) = (target.len() / dim, set.len() / dim);
    let (tt, ts, ss) =
        (cosines(target, target, dim, products), cosines(target, set, dim, products), cosines(set, set, dim, products));
    let far = |c: f32| squared(c).sqrt();
    let (within_t, across, within_s) = (Sums::of(&tt, t, true), Sums::of(&ts, s, false), Sums::of(&ss, s, true));
    let mmd2 = discrepancy([&within_t, &within_s, &across], t, s, width);
    let squares = |n: usize| (n * n) as f64;
    let energy = 2.0 * across.sum(far) / (t * s) as f64 - within_t.sum(far) / squares(t) - within_s.sum(far) / squares(s);
    let each = t.min(s);
    let two_sample = told_apart(&tt, &ts, &ss, t, s, each);
    Ok(Difference {
        target_rows: t,
        set_rows: s,
        mean_gap: mean_gap(target, set, dim),
        mmd2,
        energy: energy.max(0.0),
        frechet,
        two_sample,
        two_sample_error: 0.5 / (2.0 * each as f64).sqrt(),
    })
}

/// Only [`Difference::mmd2`], of the same sets.
///
/// # Shapes
/// `target` [T, D], `set` [S, D], of unit length, neither empty.
pub fn mmd2(target: &[f32], set: &[f32], dim: usize, width: f64, products: &impl Products) -> f64 {
    let (t, s) = (target.len() / dim, set.len() / dim);
    let (tt, ts, ss) =
        (cosines(target, target, dim, products), cosines(target, set, dim, products), cosines(set, set, dim, products));
    discrepancy([&Sums::of(&tt, t, true), &Sums::of(&ss, s, true), &Sums::of(&ts, s, false)], t, s, width)
}

fn discrepancy([within_t, within_s, across]: [&Sums<'_>; 3], t: usize, s: usize, width: f64) -> f64 {
    let kernel = |c: f32| (-squared(c) / (2.0 * width * width)).exp();
    let pairs = |n: usize| (n * n.saturating_sub(1)).max(1) as f64;
    within_t.sum(kernel) / pairs(t) + within_s.sum(kernel) / pairs(s) - 2.0 * across.sum(kernel) / (t * s) as f64
}

/// Sums over a table of cosines, without its diagonal if it is of a set with itself.
struct Sums<'a> {
    cosines: &'a [f32],
    width: usize,
    itself: bool,
}

impl<'a> Sums<'a> {
    fn of(cosines: &'a [f32], width: usize, itself: bool) -> Self {
        Self { cosines, width, itself }
    }

    /// In a fixed order: rows one by one, each from the left.
    fn sum(&self, value: impl Fn(f32) -> f64 + Sync) -> f64 {
        let row = |(i, row): (usize, &[f32])| {
            row.iter().enumerate().filter(|(j, _)| !self.itself || *j != i).map(|(_, c)| value(*c)).sum::<f64>()
        };
        let rows: Vec<f64> = self.cosines.par_chunks(self.width.max(1)).enumerate().map(row).collect();
        rows.iter().sum()
    }
}

fn mean_gap(a: &[f32], b: &[f32], dim: usize) -> f64 {
    let mean = |rows: &[f32]| {
        let n = (rows.len() / dim) as f64;
        let mut mean = vec![0.0; dim];
        for row in rows.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / n);
        }
        mean
    };
    mean(a).iter().zip(mean(b)).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt()
}

/// Leave-one-out accuracy of the nearest neighbor on the first `each` rows of both; ties speak for the other set, and half count.
fn told_apart(tt: &[f32], ts: &[f32], ss: &[f32], t: usize, s: usize, each: usize) -> f64 {
    if each < 2 {
        return 0.5;
    }
    let best = |row: &mut dyn Iterator<Item = f32>| row.fold(f32::NEG_INFINITY, f32::max);
    let score = |own: f32, other: f32| if own > other { 1.0 } else { f64::from(u8::from(own >= other)) / 2.0 };
    let mut sum = 0.0;
    for i in 0..each {
        let own = best(&mut (0..each).filter(|&j| j != i).map(|j| tt[i * t + j]));
        sum += score(own, best(&mut (0..each).map(|j| ts[i * s + j])));
        let own = best(&mut (0..each).filter(|&j| j != i).map(|j| ss[i * s + j]));
        sum += score(own, best(&mut (0..each).map(|j| ts[j * s + i])));
    }
    sum / (2 * each) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosine::normalize_rows;
    use crate::kmeans::Plain;
    use kinset_base::seed::Seed;

    fn cloud(n: usize, shift: f64, seed: u64) -> Vec<f32> {
        let mut rng = Seed::new(seed).rng();
        let mut rows: Vec<f32> = (0..n)
            .flat_map(|_| [rng.normal() + shift, rng.normal(), rng.normal() - shift, rng.normal()])
            .map(|x| x as f32)
            .collect();
        assert!(normalize_rows(&mut rows, 4).is_empty());
        rows
    }

    #[test]
    fn two_samples_of_one_distribution_cannot_be_told_apart_and_others_can() {
        let target = cloud(300, 0.0, 1);
        let width = median_distance(&target, 4, &Plain);
        let measure = |shift, seed| difference(&target, &cloud(300, shift, seed), 4, width, &Plain, &Stop::default()).unwrap();
        let (same, near, far) = (measure(0.0, 2), measure(0.5, 3), measure(3.0, 4));
        assert!(same.mmd2.abs() < 5e-3 && (same.two_sample - 0.5).abs() < 3.0 * same.two_sample_error, "{same:?}");
        for (less, more) in [(same, near), (near, far)] {
            assert!(less.mean_gap < more.mean_gap && less.mmd2 < more.mmd2 && less.energy < more.energy);
            assert!(less.frechet < more.frechet && less.two_sample < more.two_sample);
        }
        // The rest of the target lies all around, also where the set is.
        assert!(far.two_sample > 0.8, "{far:?}");
    }

    #[test]
    fn hand_values_of_two_points_each() {
        // x at 0° and 90°, y at 0° and 180°: distances √2 within x, 2 within y, 0, 2, √2, √2 across.
        let (x, y) = ([1.0, 0.0, 0.0, 1.0], [1.0, 0.0, -1.0, 0.0]);
        let found = difference(&x, &y, 2, 1.0, &Plain, &Stop::default()).unwrap();
        let root = 2.0_f64.sqrt();
        assert!((found.energy - (2.0 * (2.0 + 2.0 * root) / 4.0 - 2.0 * root / 4.0 - 4.0 / 4.0)).abs() < 1e-6);
        let k = |square: f64| (-square / 2.0).exp();
        let wanted = k(2.0) + k(4.0) - 2.0 * (1.0 + k(4.0) + 2.0 * k(2.0)) / 4.0;
        assert!((found.mmd2 - wanted).abs() < 1e-6, "{found:?}");
        assert!((found.mean_gap - 0.5_f64.sqrt()).abs() < 1e-6);
        assert!((median_distance(&[1.0, 0.0, 0.0, 1.0, -1.0, 0.0], 2, &Plain) - root).abs() < 1e-6);
        assert!((median_distance(&x[..2], 2, &Plain) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let (a, b) = (cloud(150, 0.0, 5), cloud(170, 0.3, 6));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| difference(&a, &b, 4, 0.9, &Plain, &Stop::default()).unwrap())
        };
        assert_eq!(run(1), run(3));
    }
}
