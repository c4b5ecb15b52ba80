//! Prototypes: the image that stands for its cluster.
//!
//! SCAN's procedure (Van Gansbeke et al. 2020, section 4.3): take the most confident members, average their features, and show
//! the member closest to that mean. The authors pad clusters of fewer than ten with foreign samples; here only real members count.

use super::topk::rank;

/// How many confident members the mean is taken over, as the authors have it.
pub const TOP: usize = 10;

/// The row that stands for each of K clusters; `None` for an empty one.
///
/// Of each cluster the `top` rows of highest confidence are kept (ties: lower row), their features averaged, and the kept row
/// closest to the mean in Euclidean distance is the prototype (ties: higher confidence). Features are the encoder's, not
/// normalized.
///
/// # Shapes
/// `cluster` and `confidence` `[N]`, `features` [N, D].
///
/// # Panics
/// If lengths disagree, `top` or `dim` is 0, or a cluster is not below `clusters`.
pub fn prototypes(
    cluster: &[i32],
    confidence: &[f32],
    features: &[f32],
    dim: usize,
    clusters: usize,
    top: usize,
) -> Vec<Option<usize>> {
    assert!(top > 0 && dim > 0, "a mean needs members and features");
    assert!(
        cluster.len() == confidence.len() && features.len() == cluster.len() * dim,
        "one confidence and D features per row"
    );
    let mut members = vec![Vec::new(); clusters];
    for (row, &c) in cluster.iter().enumerate() {
        if let Ok(c) = usize::try_from(c) {
            members[c].push(row);
        }
    }
    let feature = |row: usize| &features[row * dim..(row + 1) * dim];
    members
        .into_iter()
        .map(|mut rows| {
            rows.sort_unstable_by(|&a, &b| rank((confidence[a], a), (confidence[b], b)));
            rows.truncate(top);
            let mut mean = vec![0.0; dim];
            for &row in &rows {
                mean.iter_mut().zip(feature(row)).for_each(|(m, &x)| *m += f64::from(x) / rows.len() as f64);
            }
            let distance =
                |row: usize| -> f64 { feature(row).iter().zip(&mean).map(|(&x, m)| (f64::from(x) - m).powi(2)).sum() };
            rows.iter().copied().min_by(|&a, &b| distance(a).total_cmp(&distance(b)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{softmax::softmax_rows, topk::argmax};

    #[test]
    fn the_reference_picks_the_same_rows() {
        let logits: Vec<f32> = (0..90)
            .map(|f| ((f / 3) as f64, (f % 3) as f64))
            .map(|(i, c)| (2.0 * (0.37 * i * (c + 1.0) + c).sin()) as f32)
            .collect();
        let features: Vec<f32> =
            (0..120).map(|f| ((f / 4) as f64, (f % 4) as f64)).map(|(i, d)| (0.21 * i + 0.5 * d * d).cos() as f32).collect();
        let p = softmax_rows(&logits, 3);
        let cluster: Vec<i32> = p.chunks(3).map(|row| argmax(row).unwrap() as i32).collect();
        let confidence: Vec<f32> = p.chunks(3).zip(&cluster).map(|(row, &c)| row[c as usize]).collect();
        assert_eq!(prototypes(&cluster, &confidence, &features, 4, 3, 5), [Some(3), Some(26), Some(16)]);
    }

    #[test]
    fn a_small_cluster_is_not_padded_and_an_empty_one_has_no_prototype() {
        let found = prototypes(&[0, 2, -1, 0], &[0.9, 0.2, 1.0, 0.8], &[0.0, 5.0, 9.0, 1.0], 1, 3, TOP);
        assert_eq!(found, [Some(0), None, Some(1)]);
    }
}
