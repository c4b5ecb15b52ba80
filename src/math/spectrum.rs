//! The lowest eigenvalues of a symmetric matrix. All of them exist and none is missed, however often it comes.
//!
//! Householder's reflections make the matrix tridiagonal; Sturm's sequence counts the eigenvalues below a number, and bisection
//! finds each (Golub and Van Loan 2013, "Matrix Computations", sections 8.3.1 and 8.4.1). Unlike Lanczos' method it does not
//! lose copies of an eigenvalue, and a graph in pieces has 0 as often as it has pieces.

use rayon::prelude::*;

use super::eigen::dot;
use kinset_base::stop::{Stop, Stopped};

/// The `count` smallest eigenvalues, ascending; all of them if there are fewer. Exact to about 1e-12 of the matrix's norm.
///
/// # Shapes
/// `matrix` [N, N], symmetric; it is overwritten.
///
/// # Errors
/// If it is asked to stop.
///
/// # Panics
/// If the matrix is not square.
pub fn smallest(matrix: &mut [f64], size: usize, count: usize, stop: &Stop) -> Result<Vec<f64>, Stopped> {
    assert_eq!(matrix.len(), size * size, "the matrix must be [N, N]");
    let (diagonal, beside) = tridiagonal(matrix, size, stop)?;
    // Gershgorin's circles hold all eigenvalues.
    let radius = |i: usize| if i > 0 { beside[i - 1].abs() } else { 0.0 } + beside.get(i).map_or(0.0, |b| b.abs());
    let low = (0..size).map(|i| diagonal[i] - radius(i)).fold(f64::INFINITY, f64::min);
    let high = (0..size).map(|i| diagonal[i] + radius(i)).fold(f64::NEG_INFINITY, f64::max);
    Ok((0..count.min(size)).into_par_iter().map(|nth| bisect(&diagonal, &beside, nth, low, high)).collect())
}

/// Diagonal and sub-diagonal of a similar tridiagonal matrix.
fn tridiagonal(matrix: &mut [f64], size: usize, stop: &Stop) -> Result<(Vec<f64>, Vec<f64>), Stopped> {
    let (mut diagonal, mut beside) = (Vec::with_capacity(size), Vec::with_capacity(size));
    for k in 0..size {
        stop.check()?;
        diagonal.push(matrix[k * size + k]);
        if k + 1 == size {
            break;
        }
        // The row right of the diagonal, which is the column below it.
        let mut v: Vec<f64> = matrix[k * size + k + 1..(k + 1) * size].to_vec();
        let tail: f64 = v[1..].iter().map(|x| x * x).sum();
        if tail <= f64::MIN_POSITIVE {
            beside.push(v[0]);
            continue;
        }
        let length = (v[0] * v[0] + tail).sqrt();
        let alpha = if v[0] > 0.0 { -length } else { length };
        beside.push(alpha);
        v[0] -= alpha;
        let scale = 2.0 / v.iter().map(|x| x * x).sum::<f64>();
        let rest = &mut matrix[(k + 1) * size..];
        let mut w: Vec<f64> = rest.par_chunks(size).with_min_len(16).map(|row| scale * dot(&row[k + 1..], &v)).collect();
        let half = scale / 2.0 * dot(&w, &v);
        w.iter_mut().zip(&v).for_each(|(w, v)| *w -= half * v);
        rest.par_chunks_mut(size).with_min_len(16).enumerate().for_each(|(i, row)| {
            let (vi, wi) = (v[i], w[i]);
            for ((x, v), w) in row[k + 1..].iter_mut().zip(&v).zip(&w) {
                *x -= vi * w + wi * v;
            }
        });
    }
    Ok((diagonal, beside))
}

/// How many eigenvalues lie below a number.
fn below(diagonal: &[f64], beside: &[f64], number: f64) -> usize {
    let mut count = 0;
    let mut ratio = 1.0_f64;
    for (i, &d) in diagonal.iter().enumerate() {
        let coupled = if i > 0 { beside[i - 1] * beside[i - 1] / ratio } else { 0.0 };
        ratio = d - number - coupled;
        if ratio.abs() < f64::MIN_POSITIVE {
            ratio = -f64::MIN_POSITIVE;
        }
        count += usize::from(ratio < 0.0);
    }
    count
}

fn bisect(diagonal: &[f64], beside: &[f64], nth: usize, mut low: f64, mut high: f64) -> f64 {
    let enough = f64::EPSILON * (low.abs() + high.abs()).max(f64::MIN_POSITIVE);
    while high - low > enough {
        let middle = low.midpoint(high);
        if middle <= low || middle >= high {
            break;
        }
        if below(diagonal, beside, middle) > nth {
            high = middle;
        } else {
            low = middle;
        }
    }
    low.midpoint(high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hand_values() {
        let mut two = [2.0, 1.0, 1.0, 2.0];
        let found = smallest(&mut two, 2, 9, &Stop::default()).unwrap();
        assert!((found[0] - 1.0).abs() < 1e-12 && (found[1] - 3.0).abs() < 1e-12, "{found:?}");
        assert_eq!(smallest(&mut [5.0], 1, 1, &Stop::default()).unwrap().len(), 1);
        assert!(smallest(&mut [], 0, 3, &Stop::default()).unwrap().is_empty());
    }

    #[test]
    fn an_eigenvalue_that_comes_three_times_is_found_three_times() {
        // Three separate triangles: Laplacians with 0, 3, 3 each.
        let mut matrix = vec![0.0; 81];
        for i in 0..9 {
            for j in 0..9 {
                if i / 3 == j / 3 {
                    matrix[i * 9 + j] = if i == j { 2.0 } else { -1.0 };
                }
            }
        }
        let found = smallest(&mut matrix, 9, 9, &Stop::default()).unwrap();
        for (found, expected) in found.iter().zip([0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]) {
            assert!((found - expected).abs() < 1e-12, "{found}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn sum_and_sum_of_squares_are_kept(values in prop::collection::vec(-3.0_f64..3.0, 1..200)) {
            let n = (values.len() as f64).sqrt() as usize;
            let mut matrix: Vec<f64> = (0..n * n).map(|i| values[i] + values[i % n * n + i / n]).collect();
            let trace: f64 = (0..n).map(|i| matrix[i * n + i]).sum();
            let squares: f64 = matrix.iter().map(|x| x * x).sum();
            let found = smallest(&mut matrix, n, n, &Stop::default()).unwrap();
            prop_assert!(found.windows(2).all(|pair| pair[0] <= pair[1] + 1e-9));
            prop_assert!((found.iter().sum::<f64>() - trace).abs() < 1e-9 * (1.0 + trace.abs()) * n as f64);
            prop_assert!((found.iter().map(|x| x * x).sum::<f64>() - squares).abs() < 1e-9 * (1.0 + squares) * n as f64);
        }
    }
}
