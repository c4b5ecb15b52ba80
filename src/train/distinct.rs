//! Distinct rows of features, and the warning if there are fewer than clusters.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use kinset_stage::Context;

/// How many rows [N, D] differ from each other, counted up to `enough`.
pub fn distinct_rows(values: &[f32], dim: usize, enough: usize) -> usize {
    let mut seen: BTreeSet<Vec<u32>> = BTreeSet::new();
    for row in values.chunks_exact(dim.max(1)) {
        // `+ 0.0` makes one zero of the two.
        seen.insert(row.iter().map(|x| (x + 0.0).to_bits()).collect());
        if seen.len() >= enough {
            break;
        }
    }
    seen.len()
}

/// Warns if fewer images differ from each other than clusters are asked for, the fewest to the most.
pub fn warn_of_equal_images(values: &[f32], dim: usize, clusters: RangeInclusive<usize>, cx: &Context<'_>) {
    let most = *clusters.end();
    let distinct = distinct_rows(values, dim, most);
    if distinct >= most {
        return;
    }
    let asked = match *clusters.start() {
        fewest if fewest == most => format!("{most} clusters requested: {} stay empty", most - distinct),
        fewest => format!("{fewest} to {most} clusters requested: beyond {distinct} some stay empty"),
    };
    cx.warn(format!("{} images, {distinct} of them distinct; {asked}", values.len() / dim.max(1)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_count_once_and_counting_ends_where_it_is_enough() {
        let rows = [1.0, 2.0, 0.0, -0.0, 1.0, 2.0, -0.0, 0.0, 3.0, 2.0];
        assert_eq!(distinct_rows(&rows, 2, 9), 3);
        assert_eq!(distinct_rows(&rows, 2, 2), 2);
        assert_eq!(distinct_rows(&[], 2, 2), 0);
    }
}
