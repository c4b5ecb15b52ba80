//! The Fréchet distance of two clouds of points, as if both were Gaussian (Dowson and Landau 1982), known from FID.

use crate::spectrum;
use kinset_base::stop::{Stop, Stopped};

/// ‖μ₁ − μ₂‖² + tr(C₁ + C₂ − 2 (C₁ C₂)^½), with covariances divided by N − 1. Not below 0.
///
/// # Shapes
/// `a` [A, D], `b` [B, D], both of two rows or more.
///
/// # Errors
/// If it is asked to stop.
pub fn distance(a: &[f32], b: &[f32], dim: usize, stop: &Stop) -> Result<f64, Stopped> {
    let ((mean_a, cov_a), (mean_b, cov_b)) = (moments(a, dim), moments(b, dim));
    let gap: f64 = mean_a.iter().zip(&mean_b).map(|(x, y)| (x - y) * (x - y)).sum();
    let trace = |cov: &[f64]| (0..dim).map(|i| cov[i * dim + i]).sum::<f64>();
    // The eigenvalues of C₁ C₂ are those of Lᵀ C₂ L with C₁ = L Lᵀ, which is symmetric.
    let root = cholesky(&cov_a, dim);
    let mut middle = sandwich(&root, &cov_b, dim);
    let squares = spectrum::smallest(&mut middle, dim, dim, stop)?;
    let cross: f64 = squares.into_iter().map(|value| value.max(0.0).sqrt()).sum();
    Ok((gap + trace(&cov_a) + trace(&cov_b) - 2.0 * cross).max(0.0))
}

fn moments(rows: &[f32], dim: usize) -> (Vec<f64>, Vec<f64>) {
    let n = (rows.len() / dim) as f64;
    let mut mean = vec![0.0; dim];
    for row in rows.chunks_exact(dim) {
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / n);
    }
    let mut cov = vec![0.0; dim * dim];
    for row in rows.chunks_exact(dim) {
        let off: Vec<f64> = row.iter().zip(&mean).map(|(x, mean)| f64::from(*x) - mean).collect();
        for (i, x) in off.iter().enumerate() {
            cov[i * dim..(i + 1) * dim].iter_mut().zip(&off).for_each(|(c, y)| *c += x * y / (n - 1.0));
        }
    }
    (mean, cov)
}

/// Lower triangular L with L Lᵀ = `matrix`, which may be singular: directions without variance get a column of zeros.
fn cholesky(matrix: &[f64], dim: usize) -> Vec<f64> {
    let scale = (0..dim).map(|i| matrix[i * dim + i]).fold(0.0, f64::max);
    let mut root = vec![0.0; dim * dim];
    for j in 0..dim {
        let dots = |root: &[f64], i: usize| (0..j).map(|k| root[i * dim + k] * root[j * dim + k]).sum::<f64>();
        let pivot = matrix[j * dim + j] - dots(&root, j);
        if pivot <= scale * 1e-13 {
            continue;
        }
        let pivot = pivot.sqrt();
        root[j * dim + j] = pivot;
        for i in j + 1..dim {
            root[i * dim + j] = (matrix[i * dim + j] - dots(&root, i)) / pivot;
        }
    }
    root
}

/// Lᵀ C L.
fn sandwich(root: &[f64], matrix: &[f64], dim: usize) -> Vec<f64> {
    let product = |a: &dyn Fn(usize, usize) -> f64, b: &[f64]| {
        let mut out = vec![0.0; dim * dim];
        for i in 0..dim {
            for k in 0..dim {
                let x = a(i, k);
                if x != 0.0 {
                    out[i * dim..(i + 1) * dim].iter_mut().zip(&b[k * dim..(k + 1) * dim]).for_each(|(o, y)| *o += x * y);
                }
            }
        }
        out
    };
    let left = product(&|i, k| root[k * dim + i], matrix);
    product(&|i, k| left[i * dim + k], root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::seed::Seed;

    fn cloud(n: usize, scale: [f64; 3], shift: f64, seed: u64) -> Vec<f32> {
        let mut rng = Seed::new(seed).rng();
        (0..n).flat_map(|_| scale.map(|s| (s * rng.normal() + shift) as f32)).collect()
    }

    #[test]
    fn it_is_nought_for_the_same_cloud_and_the_squared_shift_for_a_shifted_one() {
        let a = cloud(500, [1.0, 2.0, 0.5], 0.0, 1);
        assert!(distance(&a, &a, 3, &Stop::default()).unwrap() < 1e-9);
        let shifted: Vec<f32> = a.iter().map(|x| x + 2.0).collect();
        assert!((distance(&a, &shifted, 3, &Stop::default()).unwrap() - 12.0).abs() < 1e-3);
    }

    #[test]
    fn it_is_that_of_the_two_gaussians() {
        // Diagonal covariances: the sum of squared differences of the deviations.
        let (a, b) = (cloud(60_000, [1.0, 2.0, 0.5], 0.0, 2), cloud(60_000, [2.0, 1.0, 1.0], 0.0, 3));
        assert!(
            (distance(&a, &b, 3, &Stop::default()).unwrap() - 2.25).abs() < 0.05,
            "{}",
            distance(&a, &b, 3, &Stop::default()).unwrap()
        );
        // Fewer points than dimensions: no direction without variance breaks it.
        assert!(distance(&a[..6], &b[..6], 3, &Stop::default()).unwrap().is_finite());
    }
}
