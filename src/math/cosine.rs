//! Cosine similarity: how alike two directions are. Rows of unit length make it a plain product.

use rayon::prelude::*;

/// Rows per parallel piece; fixed, so that no result depends on the number of threads.
const ROWS: usize = 1024;

/// Lengths below this count as zero: the floor PyTorch's `normalize` divides by.
pub const FLOOR: f64 = 1e-12;

/// Scalar product of two f32 vectors in double precision. Each product is exact in f64; the sum runs in eight fixed lanes, so
/// `dot(a, b)` and `dot(b, a)` are the same bits on every machine and instruction set.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    let (mut a, mut b) = (a.chunks_exact(8), b.chunks_exact(8));
    for (x, y) in a.by_ref().zip(b.by_ref()) {
        for lane in 0..8 {
            lanes[lane] += f64::from(x[lane]) * f64::from(y[lane]);
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(a.remainder().iter().zip(b.remainder())) {
        *lane += f64::from(x) * f64::from(y);
    }
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}

pub fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// Cosine of the angle between two vectors, −1 to 1; 0 if one of them is zero (length below [`FLOOR`]).
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (a_norm, b_norm) = (norm(a), norm(b));
    if a_norm < FLOOR || b_norm < FLOOR { 0.0 } else { (dot(a, b) / (a_norm * b_norm)).clamp(-1.0, 1.0) }
}

/// Brings every row of a table [N, D] to unit length and returns the numbers of the rows that have no direction (length below
/// [`FLOOR`], or not finite). Those are left as they are: what to do about them is the caller's decision, but no caller can
/// overlook them.
///
/// # Panics
/// If `dim` is 0 or does not divide the length.
#[must_use = "rows without direction have no neighbors and no cluster"]
pub fn normalize_rows(rows: &mut [f32], dim: usize) -> Vec<usize> {
    assert!(dim > 0 && rows.len().is_multiple_of(dim), "rows must be [N, D] with D > 0");
    rows.par_chunks_mut(ROWS * dim)
        .enumerate()
        .flat_map_iter(|(piece, rows)| {
            let mut without: Vec<usize> = Vec::new();
            for (row, vector) in rows.chunks_mut(dim).enumerate() {
                let length = norm(vector);
                if length.is_finite() && length >= FLOOR {
                    for x in vector {
                        *x = (f64::from(*x) / length) as f32;
                    }
                } else {
                    without.push(piece * ROWS + row);
                }
            }
            without
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_get_unit_length_and_zero_rows_are_named() {
        let mut rows = [3.0, 4.0, 0.0, 0.0, -1e-3, 0.0, f32::NAN, 1.0, 1e-20, 0.0, f32::MAX, f32::MAX];
        assert_eq!(normalize_rows(&mut rows, 2), [1, 3, 4]);
        let half = 0.5_f32.sqrt();
        for (got, want) in rows.iter().zip([0.6, 0.8, 0.0, 0.0, -1.0, 0.0, f32::NAN, 1.0, 1e-20, 0.0, half, half]) {
            assert!((got - want).abs() < 1e-7 || want.is_nan() && got.is_nan(), "{rows:?}");
        }
    }

    #[test]
    fn opposite_orthogonal_and_zero_vectors_have_their_cosines() {
        assert!((cosine(&[1.0, 2.0], &[-2.0, -4.0]) + 1.0).abs() < 1e-12);
        assert!(cosine(&[1.0, 0.0], &[0.0, 5.0]) == 0.0);
        assert!(cosine(&[0.0, 0.0], &[1.0, 0.0]) == 0.0);
    }

    proptest! {
        #[test]
        fn the_product_is_symmetric_to_the_bit_and_near_the_plain_sum(v in prop::collection::vec((-1_f32..1.0, -1_f32..1.0), 0..70)) {
            let (a, b): (Vec<f32>, Vec<f32>) = v.into_iter().unzip();
            prop_assert_eq!(dot(&a, &b).to_bits(), dot(&b, &a).to_bits());
            let plain: f64 = a.iter().zip(&b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            prop_assert!((dot(&a, &b) - plain).abs() < 1e-12);
        }

        #[test]
        fn a_second_normalization_changes_next_to_nothing(v in prop::collection::vec(-5_f32..5.0, 6..60)) {
            let mut once = v[..v.len() / 3 * 3].to_vec();
            let zero = normalize_rows(&mut once, 3);
            let mut twice = once.clone();
            prop_assert_eq!(normalize_rows(&mut twice, 3), zero);
            prop_assert!(once.iter().zip(&twice).all(|(x, y)| (x - y).abs() < 2e-7));
        }
    }
}
