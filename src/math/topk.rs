//! The largest few of many, in one order everywhere: value descending, then index ascending; NaN after everything.

use std::cmp::Ordering;

/// The one order of ranked values: larger first, NaN last, equal values by lower index.
pub fn rank(a: (f32, usize), b: (f32, usize)) -> Ordering {
    let by_value = match (a.0.is_nan(), b.0.is_nan()) {
        (false, false) => b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal),
        (one, other) => one.cmp(&other),
    };
    by_value.then(a.1.cmp(&b.1))
}

/// Indices of the `k` largest values, largest first; all of them if there are fewer.
pub fn top_k(values: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let by_rank = |&a: &usize, &b: &usize| rank((values[a], a), (values[b], b));
    if k < order.len() {
        if k > 0 {
            order.select_nth_unstable_by(k - 1, by_rank);
        }
        order.truncate(k);
    }
    order.sort_unstable_by(by_rank);
    order
}

/// Index of the largest value, the first of equals; `None` of nothing.
pub fn argmax(values: &[f32]) -> Option<usize> {
    (0..values.len()).min_by(|&a, &b| rank((values[a], a), (values[b], b)))
}

/// Index of the largest value of each row of a table [N, K].
///
/// # Panics
/// If `width` is 0 or does not divide the length.
pub fn argmax_rows(values: &[f32], width: usize) -> Vec<usize> {
    assert!(width > 0 && values.len().is_multiple_of(width), "the table must be [N, K] with K > 0");
    values.chunks(width).map(|row| argmax(row).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_go_to_the_lower_index_and_nan_goes_last() {
        let v = [1.0, 3.0, f32::NAN, 3.0, f32::NEG_INFINITY];
        assert_eq!(top_k(&v, 3), [1, 3, 0]);
        assert_eq!(top_k(&v, 9), [1, 3, 0, 4, 2]);
        assert_eq!(top_k(&v, 0), [0_usize; 0]);
        assert_eq!(argmax(&v), Some(1));
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[0.0, -0.0]), Some(0), "the two zeros are equal");
        assert_eq!(argmax_rows(&[0.0, 1.0, 5.0, 5.0], 2), [1, 0]);
    }

    proptest! {
        #[test]
        fn the_top_is_the_start_of_the_sorted_whole(v in prop::collection::vec(-3_i8..3, 0..40), k in 0_usize..45) {
            let v: Vec<f32> = v.into_iter().map(f32::from).collect();
            let mut all: Vec<usize> = (0..v.len()).collect();
            all.sort_by(|&a, &b| v[b].total_cmp(&v[a]));
            all.truncate(k);
            prop_assert_eq!(top_k(&v, k), all);
        }
    }
}
