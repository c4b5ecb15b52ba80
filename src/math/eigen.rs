//! Bases of a few vectors: making them orthonormal, turning them, and the eigenvectors of small symmetric matrices.
//!
//! What subspace iterations need between two products with a large matrix. Vectors lie one after the other, `[width, N]`.

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    for (x, y) in a.chunks(8).zip(b.chunks(8)) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    lanes.iter().sum()
}

/// Gram–Schmidt, twice: once loses what it should keep when vectors are nearly alike. A vector that vanishes becomes an axis.
pub(super) fn orthonormalize(vectors: &mut [f64], dim: usize) {
    for place in 0..vectors.len() / dim {
        let (done, rest) = vectors.split_at_mut(place * dim);
        let vector = &mut rest[..dim];
        let scale = dot(vector, vector).sqrt();
        for _ in 0..2 {
            for other in done.chunks_exact(dim) {
                let shared = dot(vector, other);
                vector.iter_mut().zip(other).for_each(|(x, y)| *x -= shared * y);
            }
        }
        let length = dot(vector, vector).sqrt();
        if length > 1e-12 * scale.max(f64::MIN_POSITIVE) {
            for x in vector {
                *x /= length;
            }
        } else {
            vector.fill(0.0);
        }
    }
}

/// `[width, width]`: products of the columns of a table [N, width].
pub(super) fn gram(table: &[f64], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width * width];
    for row in table.chunks_exact(width) {
        for (sums, x) in sums.chunks_exact_mut(width).zip(row) {
            sums.iter_mut().zip(row).for_each(|(sum, y)| *sum += x * y);
        }
    }
    sums
}

/// Eigenvalues, falling, and eigenvectors (rows of the second result) of a small symmetric matrix: Jacobi's rotations (Golub and
/// Van Loan 2013, section 8.5).
pub(super) fn eigen(mut matrix: Vec<f64>, size: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; size * size];
    for i in 0..size {
        vectors[i * size + i] = 1.0;
    }
    let norm: f64 = matrix.iter().map(|x| x * x).sum();
    for _ in 0..60 {
        let off: f64 = (0..size).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| matrix[i * size + j].powi(2)).sum();
        if off <= 1e-28 * norm {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                let beside = matrix[p * size + q];
                if beside.abs() <= f64::MIN_POSITIVE {
                    continue;
                }
                let theta = (matrix[q * size + q] - matrix[p * size + p]) / (2.0 * beside);
                let sign = if theta < 0.0 { -1.0 } else { 1.0 };
                let tangent = sign / (theta.abs() + (theta * theta + 1.0).sqrt());
                let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
                let sine = tangent * cosine;
                for k in 0..size {
                    let (a, b) = (matrix[k * size + p], matrix[k * size + q]);
                    matrix[k * size + p] = cosine * a - sine * b;
                    matrix[k * size + q] = sine * a + cosine * b;
                }
                for k in 0..size {
                    let (a, b) = (matrix[p * size + k], matrix[q * size + k]);
                    matrix[p * size + k] = cosine * a - sine * b;
                    matrix[q * size + k] = sine * a + cosine * b;
                }
                for k in 0..size {
                    let (a, b) = (vectors[p * size + k], vectors[q * size + k]);
                    vectors[p * size + k] = cosine * a - sine * b;
                    vectors[q * size + k] = sine * a + cosine * b;
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| matrix[b * size + b].total_cmp(&matrix[a * size + a]).then(a.cmp(&b)));
    let values = order.iter().map(|&i| matrix[i * size + i]).collect();
    let vectors = order.iter().flat_map(|&i| vectors[i * size..(i + 1) * size].to_vec()).collect();
    (values, vectors)
}

/// The basis turned by a rotation whose rows are the new directions.
pub(super) fn rotated(basis: &[f64], rotation: &[f64], width: usize, dim: usize) -> Vec<f64> {
    let mut turned = vec![0.0; width * dim];
    for (turned, weights) in turned.chunks_exact_mut(dim).zip(rotation.chunks_exact(width)) {
        for (vector, weight) in basis.chunks_exact(dim).zip(weights) {
            turned.iter_mut().zip(vector).for_each(|(sum, x)| *sum += weight * x);
        }
    }
    turned
}
