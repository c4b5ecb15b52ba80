//! The assignment problem, solved exactly: who goes with whom at the least total cost.
//!
//! Shortest augmenting paths with potentials (Kuhn 1955, "The Hungarian method for the assignment problem"; in this form Jonker
//! and Volgenant 1987), O(n²m) for n ≤ m. Rows enter in order and the lowest column wins among equals, so the answer to a tie
//! is always the same one.

/// Assigns rows to columns one to one so that the sum of `cost` [rows, columns] over the pairs is least, and returns the column
/// of each row. With more rows than columns, the rows that fit worst get `None`.
///
/// # Panics
/// If the cost has not rows × columns entries or one that is not finite.
pub fn assign(cost: &[f64], rows: usize, columns: usize) -> Vec<Option<usize>> {
    assert_eq!(cost.len(), rows * columns, "the cost must be [rows, columns]");
    assert!(cost.iter().all(|c| c.is_finite()), "a cost that is not finite cannot be compared");
    if rows <= columns {
        let mut column_of = vec![None; rows];
        for (column, row) in owners(rows, columns, |r, c| cost[r * columns + c]).into_iter().enumerate() {
            if let Some(row) = row {
                column_of[row] = Some(column);
            }
        }
        column_of
    } else {
        owners(columns, rows, |c, r| cost[r * columns + c])
    }
}

/// Owner of each of the `m` columns when all `n ≤ m` rows are placed.
fn owners(n: usize, m: usize, cost: impl Fn(usize, usize) -> f64) -> Vec<Option<usize>> {
    // Column `m` is a stand-in that holds the row being placed; `price` and `rent` are the dual potentials.
    let mut owner: Vec<Option<usize>> = vec![None; m + 1];
    let (mut rent, mut price) = (vec![0.0; n], vec![0.0; m + 1]);
    for newcomer in 0..n {
        owner[m] = Some(newcomer);
        let mut slack = vec![f64::INFINITY; m];
        let mut came_from = vec![m; m];
        let mut visited = vec![false; m + 1];
        let mut at = m;
        while let Some(row) = owner[at] {
            visited[at] = true;
            let (mut step, mut next) = (f64::INFINITY, m);
            for column in 0..m {
                if visited[column] {
                    continue;
                }
                let reduced = cost(row, column) - rent[row] - price[column];
                if reduced < slack[column] {
                    slack[column] = reduced;
                    came_from[column] = at;
                }
                if slack[column] < step {
                    step = slack[column];
                    next = column;
                }
            }
            for column in 0..=m {
                if visited[column] {
                    if let Some(row) = owner[column] {
                        rent[row] += step;
                    }
                    price[column] -= step;
                } else if column < m {
                    slack[column] -= step;
                }
            }
            at = next;
        }
        // Walk the path back, handing each column to the row before it.
        while at != m {
            let before = came_from[at];
            owner[at] = owner[before];
            at = before;
        }
    }
    owner.truncate(m);
    owner
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Least cost over all ways to place the rows from `row` on, with at most `spare` of them left out.
    fn brute(cost: &[f64], rows: usize, columns: usize, row: usize, taken: u32, spare: usize) -> f64 {
        if row == rows {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        if spare > 0 {
            best = brute(cost, rows, columns, row + 1, taken, spare - 1);
        }
        for column in (0..columns).filter(|c| taken & (1 << c) == 0) {
            let rest = brute(cost, rows, columns, row + 1, taken | 1 << column, spare);
            best = best.min(cost[row * columns + column] + rest);
        }
        best
    }

    #[test]
    fn a_hand_case_comes_out_in_both_shapes() {
        let cost = [4.0, 1.0, 3.0, 2.0, 0.0, 5.0, 3.0, 2.0, 2.0];
        assert_eq!(assign(&cost, 3, 3), [Some(1), Some(0), Some(2)]);
        assert_eq!(assign(&cost[..6], 2, 3), [Some(1), Some(0)]);
        assert_eq!(assign(&[4.0, 1.0, 2.0], 3, 1), [None, Some(0), None]);
        assert!(assign(&[], 0, 3).is_empty());
        assert_eq!(assign(&[], 2, 0), [None, None]);
    }

    #[test]
    fn when_all_costs_are_equal_the_diagonal_wins() {
        assert_eq!(assign(&[1.0; 16], 4, 4), [Some(0), Some(1), Some(2), Some(3)]);
    }

    proptest! {
        #[test]
        fn no_other_assignment_is_cheaper(
            (rows, columns, cost) in (1_usize..=6, 1_usize..=6).prop_flat_map(|(r, c)| {
                (Just(r), Just(c), prop::collection::vec((-20_i32..20).prop_map(f64::from), r * c))
            })
        ) {
            let found = assign(&cost, rows, columns);
            let placed: Vec<(usize, usize)> = found.iter().enumerate().filter_map(|(r, c)| c.map(|c| (r, c))).collect();
            prop_assert_eq!(placed.len(), rows.min(columns));
            let mut used: Vec<usize> = placed.iter().map(|p| p.1).collect();
            used.sort_unstable();
            used.dedup();
            prop_assert_eq!(used.len(), placed.len(), "a column was given twice");
            let total: f64 = placed.iter().map(|&(r, c)| cost[r * columns + c]).sum();
            let best = brute(&cost, rows, columns, 0, 0, rows.saturating_sub(columns));
            prop_assert!((total - best).abs() < 1e-9, "{} instead of {}", total, best);
        }
    }
}
