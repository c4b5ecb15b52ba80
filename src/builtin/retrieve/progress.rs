//! The saved progress of a search: the best so far of each query, and how many row groups of the pool they come from.

use serde::{Deserialize, Serialize};

/// A pool image that may be among the nearest: its cosine, and its row.
pub type Candidate = (f64, u32);

/// Where a search is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Row groups that were searched.
    pub groups: usize,
    /// Rows that were searched.
    pub rows: usize,
    /// For each query its best so far, in order.
    pub best: Vec<Vec<Candidate>>,
}

impl Progress {
    pub fn new(queries: usize) -> Self {
        Self { best: vec![Vec::new(); queries], ..Self::default() }
    }
}

/// Brings candidates into the order of neighbors – cosine falling, ties by row – and keeps `k`.
pub fn keep(best: &mut Vec<Candidate>, k: usize) {
    best.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    best.truncate(k);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_stand_in_order_with_ties_by_row() {
        let mut best = vec![(0.5, 9), (0.7, 3), (0.5, 2), (0.1, 0)];
        keep(&mut best, 3);
        assert_eq!(best, [(0.7, 3), (0.5, 2), (0.5, 9)]);
    }
}
