//! Nearest neighbors on features of a whole set.

use kinset_artifact::neighbors::NeighborTable;
use kinset_kernel::neighbors::{self, NeighborError, all_pairs};
use kinset_math::{cosine, euclid};
use kinset_stage::{StageError, Stop};

/// Candidates among which the nearest image is decided in double precision, beyond the image itself.
const SPARE: usize = 8;

/// The `k` nearest images of each by cosine.
pub(super) fn mine(
    mut features: Vec<f32>,
    dim: usize,
    k: usize,
    ids: &[String],
    stop: &Stop,
) -> Result<NeighborTable, StageError> {
    let without = cosine::normalize_rows(&mut features, dim);
    if let Some(&first) = without.first() {
        return Err(StageError::Degenerate {
            code: "nnm::zero-features",
            what: format!(
                "the encoder gives {} images features that are all 0 or not finite; the first is `{}`",
                without.len(),
                ids[first]
            ),
            hint: "the cosine similarity with a zero vector is undefined: if these images are black or empty, leave them out; else \
                   take another encoder"
                .into(),
        });
    }
    let found = all_pairs(&features, dim, k, stop, &mut |_, _| {}).map_err(StageError::other)?;
    Ok(NeighborTable {
        ids: ids.to_vec(),
        k,
        index: found.index,
        similarity: found.similarity,
        metric: "cosine".into(),
        exact: true,
        recall: None,
    })
}

/// The nearest other image of each, by Euclidean distance of features as they are.
///
/// # Shapes
/// `features` `[N, D]`. Returns `[N]`.
///
/// # Errors
/// Features that are no numbers; a request to stop.
pub fn nearest_in_set(features: &[f32], dim: usize, stop: &Stop) -> Result<Vec<u32>, StageError> {
    if let Some(at) = features.iter().position(|value| !value.is_finite()) {
        return Err(StageError::other(NeighborError::NotFinite { row: at / dim }));
    }
    let n = features.len() / dim;
    let width = (SPARE + 1).min(n);
    let lifted = euclid::lift(features, dim);
    let found = neighbors::nearest(&lifted.queries, &lifted.pool, lifted.dim, width, stop).map_err(StageError::other)?;
    Ok(euclid::nearest_of(features, dim, &found.index, width))
}

/// Which image's answer each image is matched with: that of its own nearest image; or, if `visited` says in which order images
/// were visited, row r holds the nearest of the r-th visited, as in the authors' code.
pub fn matched_rows(nearest: &[u32], visited: Option<&[usize]>) -> Vec<u32> {
    match visited {
        None => nearest.to_vec(),
        Some(visited) => visited.iter().map(|&image| nearest[image]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::seed::Seed;

    #[test]
    fn mixed_up_rows_are_those_of_the_authors_loader() {
        // methods/nnm.md, section 5: with every item its own nearest, row r held these.
        let visited = [6, 11, 8, 10, 4, 9, 7, 1, 0, 3, 5, 2];
        let own: Vec<u32> = (0..12).collect();
        assert_eq!(matched_rows(&own, Some(&visited)), visited.map(|row| row as u32));
        let nearest: Vec<u32> = (0..12).map(|row| (row + 5) % 12).collect();
        assert_eq!(matched_rows(&nearest, Some(&visited))[..3], [11, 4, 1]);
        assert_eq!(matched_rows(&nearest, None), nearest);
    }

    #[test]
    fn the_nearest_in_a_set_is_the_nearest_of_all_pairs() {
        let mut rng = Seed::new(4).rng();
        let (n, dim) = (1500, 7);
        let mut features: Vec<f32> = (0..n * dim).map(|_| (3.0 + rng.normal()) as f32).collect();
        // A crowd of copies, larger than the list of candidates.
        for row in (0..n).step_by(40) {
            features.copy_within(0..dim, row * dim);
        }
        assert_eq!(nearest_in_set(&features, dim, &Stop::default()).unwrap(), euclid::nearest_other(&features, dim));
        assert_eq!(nearest_in_set(&[1.0, 2.0, 5.0], 1, &Stop::default()).unwrap(), [1, 0, 1]);
        assert_eq!(nearest_in_set(&[0.0; 6], 2, &Stop::default()).unwrap(), [1, 0, 0], "all alike");
        features[8] = f32::NAN;
        assert!(nearest_in_set(&features, dim, &Stop::default()).unwrap_err().to_string().contains("row `1`"));
    }
}
