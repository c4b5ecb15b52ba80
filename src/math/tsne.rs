//! t-SNE, a map of a table of features in two dimensions: rows that are close stay close (van der Maaten and Hinton 2008,
//! "Visualizing data using t-SNE").
//!
//! As in today's tools: a start from principal components (Kobak and Berens 2019), attraction along the nearest neighbors only,
//! momentum, gains, early exaggeration and a learning rate of N / 48. The repulsion is exact, every pair of points, so this is for a few
//! thousand rows. Distances between far groups mean nothing, and neither does the size of a group.
//!
//! Every point's force is summed by one thread in a fixed order: the same picture for any number of threads.

use rayon::prelude::*;

use super::euclid::distance2;
use super::pca::principal;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tsne {
    /// About how many neighbors each point listens to.
    pub perplexity: f64,
    /// Steps with attraction exaggerated, so that groups can pass each other.
    pub early: usize,
    /// Steps after them.
    pub late: usize,
}

impl Default for Tsne {
    fn default() -> Self {
        Self { perplexity: 30.0, early: 250, late: 500 }
    }
}

/// By how much attraction is exaggerated early.
const EXAGGERATION: f64 = 12.0;
/// Points summed side by side; fixed.
const LANES: usize = 8;

impl Tsne {
    /// Where each row lies on paper: x and y, the mean at 0.
    ///
    /// # Shapes
    /// `rows` [N, D]; result `[N]`.
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the length.
    pub fn place(&self, rows: &[f32], dim: usize) -> Vec<[f64; 2]> {
        assert!(dim > 0 && rows.len().is_multiple_of(dim), "rows must be [N, D] with D > 0");
        let n = rows.len() / dim;
        let mut points = start(rows, dim, n);
        // Three points are a triangle whatever is done to them.
        if n < 4 {
            return points;
        }
        let attraction = affinities(rows, dim, self.perplexity.min((n - 1) as f64 / 3.0));
        let rate = (n as f64 / EXAGGERATION / 4.0).max(50.0);
        let (mut speed, mut gain) = (vec![[0.0_f64; 2]; n], vec![[1.0_f64; 2]; n]);
        for step in 0..self.early + self.late {
            let (exaggeration, momentum) = if step < self.early { (EXAGGERATION, 0.5) } else { (1.0, 0.8) };
            let gradient = gradient(&points, &attraction, exaggeration);
            for point in 0..n {
                for axis in 0..2 {
                    let (slope, speed, gain) = (gradient[point][axis], &mut speed[point][axis], &mut gain[point][axis]);
                    *gain = if slope * *speed < 0.0 { *gain + 0.2 } else { (*gain * 0.8).max(0.01) };
                    *speed = momentum * *speed - rate * *gain * slope;
                    points[point][axis] += *speed;
                }
            }
        }
        center(&mut points);
        points
    }
}

/// The first two principal components, the first with a standard deviation of 1e-4.
fn start(rows: &[f32], dim: usize, n: usize) -> Vec<[f64; 2]> {
    if n == 0 {
        return Vec::new();
    }
    let pca = principal(rows, dim, 2);
    let spread = (pca.scores.chunks_exact(pca.count).map(|row| row[0] * row[0]).sum::<f64>() / n as f64).sqrt();
    let scale = if spread > 0.0 { 1e-4 / spread } else { 0.0 };
    pca.scores.chunks_exact(pca.count).map(|row| [row[0] * scale, row.get(1).map_or(0.0, |y| y * scale)]).collect()
}

fn center(points: &mut [[f64; 2]]) {
    for axis in 0..2 {
        let mean = points.iter().map(|point| point[axis]).sum::<f64>() / points.len().max(1) as f64;
        for point in &mut *points {
            point[axis] -= mean;
        }
    }
}

/// For each row the rows it is drawn to and how much, by row; all of them sum to 1.
fn affinities(rows: &[f32], dim: usize, perplexity: f64) -> Vec<Vec<(u32, f64)>> {
    let n = rows.len() / dim;
    let wanted = ((3.0 * perplexity).ceil() as usize).clamp(1, n - 1);
    let row = |i: usize| &rows[i * dim..(i + 1) * dim];
    let one_way: Vec<Vec<(u32, f64)>> = (0..n)
        .into_par_iter()
        .map(|i| {
            let mut others: Vec<(f64, u32)> =
                (0..n).filter(|&j| j != i).map(|j| (distance2(row(i), row(j)), j as u32)).collect();
            let nearer = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
            if wanted < others.len() {
                others.select_nth_unstable_by(wanted - 1, nearer);
                others.truncate(wanted);
            }
            others.sort_unstable_by(nearer);
            weights(&others, perplexity)
        })
        .collect();
    let mut both: Vec<Vec<(u32, f64)>> = vec![Vec::new(); n];
    for (i, list) in one_way.iter().enumerate() {
        for &(j, p) in list {
            let half = p / (2.0 * n as f64);
            both[i].push((j, half));
            both[j as usize].push((i as u32, half));
        }
    }
    for list in &mut both {
        // Stable, so equal pairs add up in a fixed order.
        list.sort_by_key(|pair| pair.0);
        list.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1 += later.1;
            }
            same
        });
    }
    both
}

/// Gaussian weights over squared distances whose entropy is that of `perplexity` equal ones; they sum to 1.
fn weights(near: &[(f64, u32)], perplexity: f64) -> Vec<(u32, f64)> {
    let least = near.first().map_or(0.0, |pair| pair.0);
    let goal = perplexity.ln();
    let (mut low, mut high, mut precision) = (0.0_f64, f64::INFINITY, 1.0_f64);
    let mean = near.iter().map(|pair| pair.0 - least).sum::<f64>() / near.len().max(1) as f64;
    if mean > 0.0 {
        precision = 1.0 / mean;
    }
    let mut found = Vec::new();
    for _ in 0..64 {
        found = near.iter().map(|&(d, j)| (j, (-(d - least) * precision).exp())).collect();
        let sum: f64 = found.iter().map(|pair: &(u32, f64)| pair.1).sum();
        let mean = found.iter().zip(near).map(|(pair, (d, _))| pair.1 * (d - least)).sum::<f64>() / sum;
        let entropy = sum.ln() + precision * mean;
        for pair in &mut found {
            pair.1 /= sum;
        }
        if (entropy - goal).abs() < 1e-6 {
            break;
        }
        if entropy > goal {
            low = precision;
            precision = if high.is_finite() { low.midpoint(high) } else { precision * 2.0 };
        } else {
            high = precision;
            precision = low.midpoint(high);
        }
    }
    found
}

/// Where the cost rises, for each point.
fn gradient(points: &[[f64; 2]], attraction: &[Vec<(u32, f64)>], exaggeration: f64) -> Vec<[f64; 2]> {
    // Single precision and one array per axis, so that the loop over all pairs runs in vectors.
    let x: Vec<f32> = points.iter().map(|point| point[0] as f32).collect();
    let y: Vec<f32> = points.iter().map(|point| point[1] as f32).collect();
    let repulsion: Vec<[f64; 3]> = (0..points.len()).into_par_iter().with_min_len(32).map(|i| repelled(&x, &y, i)).collect();
    let total: f64 = repulsion.iter().map(|force| force[2]).sum::<f64>().max(f64::MIN_POSITIVE);
    (0..points.len())
        .into_par_iter()
        .with_min_len(32)
        .map(|i| {
            let mut force = [-repulsion[i][0] / total, -repulsion[i][1] / total];
            for &(j, p) in &attraction[i] {
                let other = points[j as usize];
                let apart = [points[i][0] - other[0], points[i][1] - other[1]];
                let pull = exaggeration * p / (1.0 + apart[0] * apart[0] + apart[1] * apart[1]);
                force[0] += pull * apart[0];
                force[1] += pull * apart[1];
            }
            [4.0 * force[0], 4.0 * force[1]]
        })
        .collect()
}

/// What pushes a point away, not yet normalized: Σ q² Δx, Σ q² Δy, Σ q, with q = 1 / (1 + Δ²) over all other points.
fn repelled(x: &[f32], y: &[f32], i: usize) -> [f64; 3] {
    let (own_x, own_y) = (x[i], y[i]);
    let mut sums = [[0.0_f32; LANES]; 3];
    let mut wide = [0.0_f64; 3];
    // Single precision sums stay short.
    for (x, y) in x.chunks(64 * LANES).zip(y.chunks(64 * LANES)) {
        for lanes in &mut sums {
            lanes.fill(0.0);
        }
        let [sum_x, sum_y, sum_q] = &mut sums;
        let (mut xs, mut ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
        for (x, y) in xs.by_ref().zip(ys.by_ref()) {
            for lane in 0..LANES {
                let (dx, dy) = (own_x - x[lane], own_y - y[lane]);
                let q = 1.0 / (1.0 + dx * dx + dy * dy);
                sum_q[lane] += q;
                sum_x[lane] += q * q * dx;
                sum_y[lane] += q * q * dy;
            }
        }
        for (lane, (&x, &y)) in xs.remainder().iter().zip(ys.remainder()).enumerate() {
            let (dx, dy) = (own_x - x, own_y - y);
            let q = 1.0 / (1.0 + dx * dx + dy * dy);
            sum_q[lane] += q;
            sum_x[lane] += q * q * dx;
            sum_y[lane] += q * q * dy;
        }
        for (wide, lanes) in wide.iter_mut().zip(&sums) {
            *wide += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
        }
    }
    // The point itself has pushed with q = 1 and no direction.
    wide[2] -= 1.0;
    wide
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::seed::Seed;

    /// Three groups of points in ten dimensions.
    fn groups(each: usize) -> Vec<f32> {
        let mut rng = Seed::new(4).rng();
        (0..3 * each)
            .flat_map(|row| {
                let mut point = [0.0_f32; 10];
                for x in &mut point {
                    *x = 0.3 * rng.normal() as f32;
                }
                point[row % 3] += 5.0;
                point
            })
            .collect()
    }

    #[test]
    fn groups_stay_groups_on_paper() {
        let points = Tsne::default().place(&groups(60), 10);
        assert!(points.iter().flatten().all(|x| x.is_finite()));
        // The nearest other point of each belongs to its group.
        let same = (0..points.len())
            .filter(|&i| {
                let distance = |j: usize| (points[i][0] - points[j][0]).powi(2) + (points[i][1] - points[j][1]).powi(2);
                let nearest = (0..points.len()).filter(|&j| j != i).min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
                nearest.is_some_and(|j| j % 3 == i % 3)
            })
            .count();
        assert!(same >= 178, "{same} of 180");
    }

    #[test]
    fn affinities_sum_to_one_and_have_the_perplexity_asked_for() {
        let rows = groups(40);
        let list = affinities(&rows, 10, 10.0);
        let sum: f64 = list.iter().flatten().map(|pair| pair.1).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        let near: Vec<(f64, u32)> = (1..40).map(|j| (f64::from(j) * 0.1, j as u32)).collect();
        let entropy: f64 = weights(&near, 8.0).iter().map(|(_, p)| -p * p.ln()).sum();
        assert!((entropy.exp() - 8.0).abs() < 1e-3, "{}", entropy.exp());
    }

    #[test]
    fn the_gradient_is_that_of_the_divergence() {
        let rows = groups(4);
        let list = affinities(&rows, 10, 3.0);
        let mut rng = Seed::new(9).rng();
        let points: Vec<[f64; 2]> = (0..12).map(|_| [rng.normal(), rng.normal()]).collect();
        let cost = |points: &[[f64; 2]]| -> f64 {
            let q = |i: usize, j: usize| {
                1.0 / (1.0 + (points[i][0] - points[j][0]).powi(2) + (points[i][1] - points[j][1]).powi(2))
            };
            let total: f64 =
                (0..12).flat_map(|i| (0..12).filter(move |&j| j != i).map(move |j| (i, j))).map(|(i, j)| q(i, j)).sum();
            let of = |(i, pairs): (usize, &Vec<(u32, f64)>)| -> f64 {
                pairs.iter().map(|&(j, p)| p * (p / (q(i, j as usize) / total)).ln()).sum()
            };
            list.iter().enumerate().map(of).sum()
        };
        let slope = gradient(&points, &list, 1.0);
        for point in 0..12 {
            for axis in 0..2 {
                let (mut up, mut down) = (points.clone(), points.clone());
                up[point][axis] += 1e-4;
                down[point][axis] -= 1e-4;
                let measured = (cost(&up) - cost(&down)) / 2e-4;
                assert!((measured - slope[point][axis]).abs() < 1e-5, "{measured} and {}", slope[point][axis]);
            }
        }
    }

    #[test]
    fn few_points_and_equal_points_do_no_harm() {
        assert!(Tsne::default().place(&[], 3).is_empty());
        assert_eq!(Tsne::default().place(&[1.0, 2.0], 2), [[0.0, 0.0]]);
        let points = Tsne::default().place(&[0.5; 40], 4);
        assert!(points.iter().flatten().all(|x| x.is_finite()), "{points:?}");
    }

    #[test]
    fn one_thread_and_five_give_the_same_bits() {
        let rows = groups(50);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Tsne { early: 20, late: 20, ..Tsne::default() }.place(&rows, 10))
        };
        assert_eq!(with(1), with(5));
    }
}
