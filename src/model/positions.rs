//! Position embeddings, interpolated: those learned for one square grid of patches, resized for a grid of more or fewer.
//!
//! Interpolation is linear in what was learned and separates into rows and columns, so it is a matrix, twice applied: any device
//! can do it, and gradients pass.

use candle_core::{Device, Tensor};

use super::error::Result;

/// Weights that make `to` positions of `from`, bicubic as PyTorch's `interpolate(align_corners=False)` has it. With `antialias`
/// the kernel widens where there will be fewer, and is Keys' of −½ instead of −¾.
///
/// # Shapes
/// Returns `[to, from]`, row-major; rows sum to 1.
fn weights(from: usize, to: usize, antialias: bool) -> Vec<f32> {
    let scale = from as f64 / to as f64;
    let mut all = vec![0.0; to * from];
    for (place, row) in all.chunks_exact_mut(from).enumerate() {
        if antialias {
            let wide = scale.max(1.0);
            let centre = scale * (place as f64 + 0.5);
            let first = (centre - 2.0 * wide + 0.5).max(0.0) as usize;
            let end = ((centre + 2.0 * wide + 0.5) as usize).min(from);
            let each: Vec<f64> = (first..end).map(|x| keys(-0.5, (x as f64 - centre + 0.5) / wide)).collect();
            let total: f64 = each.iter().sum();
            for (x, weight) in (first..end).zip(each) {
                row[x] += (weight / total) as f32;
            }
        } else {
            let centre = scale * (place as f64 + 0.5) - 0.5;
            let before = centre.floor();
            for step in -1..=2 {
                // Beyond the border stands what is at the border.
                let x = (before + f64::from(step)).clamp(0.0, (from - 1) as f64) as usize;
                row[x] += keys(-0.75, before + f64::from(step) - centre) as f32;
            }
        }
    }
    all
}

/// Keys' cubic kernel.
///
/// # Paper
/// Keys 1981, "Cubic convolution interpolation for digital image processing", eq. 15 (there a = −½).
pub(super) fn keys(a: f64, x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

/// Learned positions of `from`² patches as those of `to`².
///
/// # Shapes
/// `learned`: `[from², D]`, row by row of the grid. Returns `[to², D]`.
pub(super) fn resized(learned: &Tensor, from: usize, to: usize, antialias: bool) -> Result<Tensor> {
    if from == to {
        return Ok(learned.clone());
    }
    let dim = learned.dim(1)?;
    let weights = Tensor::from_vec(weights(from, to, antialias), (to, from), &Device::Cpu)?
        .to_device(learned.device())?
        .to_dtype(learned.dtype())?;
    let along = |grid: &Tensor, others: usize| weights.matmul(&grid.reshape((from, others * dim))?)?.reshape((to, others, dim));
    let rows = along(learned, from)?;
    let both = along(&rows.transpose(0, 1)?.contiguous()?, to)?;
    Ok(both.transpose(0, 1)?.contiguous()?.reshape((to * to, dim))?)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::params::values;
    use crate::testing::{assert_near, numbers, wave};

    /// Written by `tests/golden/encoders/towers.py`.
    #[test]
    fn positions_are_interpolated_as_in_pytorch() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/encoders/expected.json")).unwrap();
        for case in golden["positions"].as_array().unwrap() {
            let (from, to) = (case["from"].as_u64().unwrap() as usize, case["to"].as_u64().unwrap() as usize);
            let antialias = case["antialias"].as_bool().unwrap();
            let found = resized(&wave(&[from * from, 3], 0.7, 0.2, 1.0), from, to, antialias).unwrap();
            assert_near(&format!("{from} to {to}"), &values(&found).unwrap(), &numbers(&case["values"]), 2e-6);
        }
    }

    #[test]
    fn the_same_grid_is_left_alone_and_even_ones_stay_even() {
        let learned = wave(&[9, 2], 0.3, 0.0, 1.0);
        assert_eq!(values(&resized(&learned, 3, 3, false).unwrap()).unwrap(), values(&learned).unwrap());
        for (from, to, antialias) in [(3, 7, false), (7, 3, false), (7, 3, true), (1, 4, true), (4, 1, false)] {
            let even = Tensor::full(2.5_f32, (from * from, 1), &Device::Cpu).unwrap();
            let found = values(&resized(&even, from, to, antialias).unwrap()).unwrap();
            assert!(found.iter().all(|v| (v - 2.5).abs() < 1e-5), "{from} to {to}: {found:?}");
        }
    }
}
