//! The silhouette of a clustering: how much nearer rows are to their own cluster than to the next one. No labels are used.
//!
//! All pairs of rows are compared, so this is for samples: N rows need N² distances (8 N² bytes). The distances are computed once
//! and serve every clustering of the same rows.

use rayon::prelude::*;

use kinset_base::stop::{Stop, Stopped};

/// Euclidean distances of all pairs of some rows.
#[derive(Clone, Debug)]
pub struct Distances {
    rows: usize,
    values: Vec<f64>,
}

impl Distances {
    /// Distances of the rows [N, D], each summed in double precision from differences: equal rows are at 0, and the table is
    /// symmetric to the bit.
    ///
    /// # Errors
    /// If it is asked to stop.
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the length.
    pub fn new(rows: &[f32], dim: usize, stop: &Stop) -> Result<Self, Stopped> {
        assert!(dim > 0 && rows.len().is_multiple_of(dim), "rows must be [N, D] with D > 0");
        let n = rows.len() / dim;
        let mut values = vec![0.0; n * n];
        values.par_chunks_mut(n.max(1)).zip(rows.par_chunks(dim)).try_for_each(|(out, a)| {
            stop.check()?;
            for (out, b) in out.iter_mut().zip(rows.chunks(dim)) {
                *out = square(a, b).sqrt();
            }
            Ok(())
        })?;
        Ok(Self { rows: n, values })
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub fn of(&self, row: usize) -> &[f64] {
        &self.values[row * self.rows..(row + 1) * self.rows]
    }
}

/// Squared distance of two rows, in eight fixed lanes.
pub fn square(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    for (x, y) in a.chunks(8).zip(b.chunks(8)) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += (f64::from(x) - f64::from(y)).powi(2);
        }
    }
    lanes.iter().sum()
}

/// Mean silhouette, −1 to 1: of each row (b − a) / max(a, b), a its mean distance to the others of its cluster, b the least mean
/// distance to another cluster; 0 for a row that is alone in its cluster. Rows below 0 (in no cluster) do not take part. `None`
/// with fewer than two clusters in use, where nothing can be said.
///
/// # Paper
/// Rousseeuw 1987, "Silhouettes", as scikit-learn has it.
///
/// # Panics
/// If there is not one label per row, or one is not below `clusters`.
pub fn silhouette(distances: &Distances, labels: &[i32], clusters: usize) -> Option<f64> {
    assert_eq!(labels.len(), distances.len(), "one label per row");
    let mut sizes = vec![0_usize; clusters];
    for &label in labels {
        if let Ok(label) = usize::try_from(label) {
            sizes[label] += 1;
        }
    }
    if sizes.iter().filter(|&&size| size > 0).count() < 2 {
        return None;
    }
    let each: Vec<f64> = (0..labels.len())
        .into_par_iter()
        .filter_map(|row| {
            let own = usize::try_from(labels[row]).ok()?;
            if sizes[own] == 1 {
                return Some(0.0);
            }
            let mut sums = vec![0.0; clusters];
            for (&distance, &label) in distances.of(row).iter().zip(labels) {
                if let Ok(label) = usize::try_from(label) {
                    sums[label] += distance;
                }
            }
            let inside = sums[own] / (sizes[own] - 1) as f64;
            let others = (0..clusters).filter(|&c| c != own && sizes[c] > 0).map(|c| sums[c] / sizes[c] as f64);
            let outside = others.fold(f64::INFINITY, f64::min);
            let larger = inside.max(outside);
            // Rows that coincide with all others are no nearer to one cluster than to another.
            Some(if larger > 0.0 { (outside - inside) / larger } else { 0.0 })
        })
        .collect();
    Some(each.iter().sum::<f64>() / each.len() as f64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What `tests/golden/and/make.py` wrote.
    #[derive(serde::Deserialize)]
    pub(crate) struct Golden {
        pub(crate) silhouettes: Vec<(Vec<i32>, f64)>,
        pub(crate) labelings: Vec<Vec<i32>>,
        pub(crate) ari: f64,
        pub(crate) nmi: f64,
        pub(crate) eigenvalues: Vec<f64>,
    }

    pub(crate) fn golden() -> Golden {
        serde_json::from_str(include_str!("../../tests/golden/and/clusters.json")).unwrap()
    }

    /// The rows of `clusters` in `make.py`.
    pub(crate) fn rows() -> Vec<f32> {
        let mut rows = Vec::new();
        for i in 0..60 {
            let row: Vec<f64> =
                (0..4).map(|d| (0.5 + 0.7 * f64::from(i) + 1.3 * f64::from(d) + 0.21 * f64::from(i * d)).sin()).collect();
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            rows.extend(
                row.iter().enumerate().map(|(d, x)| (x / length + if d == 0 { f64::from(i % 3) * 1.5 } else { 0.0 }) as f32),
            );
        }
        rows
    }

    #[test]
    fn silhouettes_are_those_of_scikit_learn() {
        let distances = Distances::new(&rows(), 4, &Stop::default()).unwrap();
        for (labels, expected) in golden().silhouettes {
            let clusters = labels.iter().max().map_or(0, |&most| most as usize + 1);
            let found = silhouette(&distances, &labels, clusters).unwrap();
            assert!((found - expected).abs() < 1e-6, "{clusters} clusters: {found} instead of {expected}");
        }
    }

    #[test]
    fn hand_values_and_limits() {
        let distances = Distances::new(&[0.0, 1.0, 10.0, 11.0], 1, &Stop::default()).unwrap();
        let found = silhouette(&distances, &[0, 0, 1, 1], 2).unwrap();
        let expected = f64::midpoint(9.5 / 10.5, 8.5 / 9.5);
        assert!((found - expected).abs() < 1e-12, "{found}");
        assert_eq!(silhouette(&distances, &[0; 4], 3), None, "one cluster in use");
        assert_eq!(silhouette(&distances, &[0, 1, 2, 3], 4), Some(0.0), "everybody alone");
        let same = Distances::new(&[2.0; 4], 1, &Stop::default()).unwrap();
        assert_eq!(silhouette(&same, &[0, 0, 1, 1], 2), Some(0.0), "all rows equal");
        let without = silhouette(&distances, &[0, 0, 1, -1], 2).unwrap();
        assert!((without - (9.0 / 10.0 + 8.0 / 9.0) / 3.0).abs() < 1e-12, "a row in no cluster is not there: {without}");
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let rows: Vec<f32> = (0..3000).map(|i| ((i * 37 % 101) as f32).sin()).collect();
        let labels: Vec<i32> = (0..600).map(|i| i % 7).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| silhouette(&Distances::new(&rows, 5, &Stop::default()).unwrap(), &labels, 7).unwrap().to_bits())
        };
        assert_eq!(run(1), run(3));
    }
}
