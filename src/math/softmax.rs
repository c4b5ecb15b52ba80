//! Softmax: probabilities from logits, outside of training (inside, the tensor library keeps the gradient).

use rayon::prelude::*;

const ROWS: usize = 1024;

/// Softmax of each row of logits [N, K]: exp(x − max) over its sum, summed in double precision.
///
/// # Panics
/// If `clusters` is 0 or does not divide the length.
pub fn softmax_rows(logits: &[f32], clusters: usize) -> Vec<f32> {
    assert!(clusters > 0 && logits.len().is_multiple_of(clusters), "logits must be [N, K] with K > 0");
    let mut probabilities = logits.to_vec();
    probabilities.par_chunks_mut(ROWS * clusters).for_each(|rows| rows.chunks_mut(clusters).for_each(softmax));
    probabilities
}

fn softmax(row: &mut [f32]) {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in &mut *row {
        *x = (*x - highest).exp();
        sum += f64::from(*x);
    }
    for x in row {
        *x = (f64::from(*x) / sum) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sum_to_one_and_keep_their_order() {
        let p = softmax_rows(&[0.0, 2_f32.ln(), 0.0, 1000.0, 0.0, -1000.0], 3);
        for (got, want) in p.iter().zip([0.25, 0.5, 0.25, 1.0, 0.0, 0.0]) {
            assert!((got - want).abs() < 1e-7, "{p:?}");
        }
    }
}
