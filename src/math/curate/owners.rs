//! Representatives of near-duplicates, while pairs of near rows come from many threads: one number per row, however many pairs there are.
//!
//! The answer does not depend on the order in which pairs come, only on which there are. So the same pair may come twice, as it does where
//! a killed search goes on.

use std::sync::atomic::{AtomicU32, Ordering};

use super::groups::Link;

/// The row that stands for each row: never a later one.
#[derive(Debug)]
pub struct Owners {
    link: Link,
    of: Vec<AtomicU32>,
}

impl Owners {
    /// Each row stands for itself.
    pub fn new(rows: usize, link: Link) -> Self {
        Self::from_saved((0..rows as u32).collect(), link)
    }

    /// What [`Owners::saved`] gave.
    pub fn from_saved(of: Vec<u32>, link: Link) -> Self {
        Self { link, of: of.into_iter().map(AtomicU32::new).collect() }
    }

    /// The state, from which it goes on.
    pub fn saved(&self) -> Vec<u32> {
        self.of.iter().map(|owner| owner.load(Ordering::Relaxed)).collect()
    }

    /// False of a pair that changes nothing any more, whatever its cosine: most, where many rows are one image.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn matters(&self, first: u32, second: u32) -> bool {
        match self.link {
            Link::Star => self.stands(first) && self.load(second) > first,
            Link::Chain => self.root(first) != self.root(second),
        }
    }

    /// Joins two rows that are near each other, the earlier one first. A *chain* joins whatever is connected; the first row of all stands for
    /// it. To a *star* belongs what is near to the row that stands for it: the first such row. There all pairs of earlier rows with the first
    /// must have come before.
    ///
    /// # Panics
    /// If there is no such row, or the second is not the later one.
    pub fn join(&self, first: u32, second: u32) {
        assert!(first < second, "pairs come with the earlier row first");
        match self.link {
            Link::Star => {
                if self.stands(first) {
                    self.of[second as usize].fetch_min(first, Ordering::Relaxed);
                }
            }
            Link::Chain => {
                let (mut a, mut b) = (self.root(first), self.root(second));
                // The larger root is hung below the smaller one, unless somebody else has hung it elsewhere meanwhile.
                while a != b {
                    let (low, high) = (a.min(b), a.max(b));
                    if self.of[high as usize].compare_exchange(high, low, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                        return;
                    }
                    (a, b) = (self.root(low), self.root(high));
                }
            }
        }
    }

    fn load(&self, row: u32) -> u32 {
        self.of[row as usize].load(Ordering::Relaxed)
    }

    fn stands(&self, row: u32) -> bool {
        self.load(row) == row
    }

    fn root(&self, mut row: u32) -> u32 {
        loop {
            let owner = self.load(row);
            if owner == row {
                return row;
            }
            // Half of the way is saved for the next (Tarjan and van Leeuwen 1984).
            let next = self.load(owner);
            let _ = self.of[row as usize].compare_exchange(owner, next, Ordering::Relaxed, Ordering::Relaxed);
            row = next;
        }
    }

    /// `[N]`: the row that stands for each row, once all pairs have come.
    pub fn roots(&self) -> Vec<u32> {
        (0..self.of.len() as u32).map(|row| self.root(row)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rayon::prelude::*;

    use super::*;
    use crate::cosine::normalize_rows;
    use crate::curate::groups;
    use crate::curate::join::Rows;
    use crate::kmeans::Plain;
    use kinset_base::seed::Seed;
    use kinset_base::stop::Stop;

    proptest! {
        /// Blocks of rows in their order, the pairs of a block with later rows in any order and from several threads.
        #[test]
        fn blocks_of_pairs_in_any_order_give_the_groups_of_all_pairs(
            grid in prop::collection::vec(-2_i8..=2, 6..180), least in 0.3_f64..1.0, block in 1_usize..9, seed: u64,
        ) {
            let mut values: Vec<f32> = grid[..grid.len() / 3 * 3].iter().map(|&x| f32::from(x)).collect();
            values.chunks_mut(3).filter(|row| row.iter().all(|x| *x == 0.0)).for_each(|row| row[0] = 1.0);
            prop_assert!(normalize_rows(&mut values, 3).is_empty());
            let rows = Rows::new(&values, 3);
            let n = rows.len();
            for link in [Link::Star, Link::Chain] {
                let owners = Owners::new(n, link);
                let near = |one: usize, other: usize| rows.cosine(one, &rows, other) >= least;
                for begin in (0..n).step_by(block) {
                    let end = (begin + block).min(n);
                    for (one, other) in (begin..end).flat_map(|one| (one + 1..end).map(move |other| (one, other))) {
                        if near(one, other) {
                            owners.join(one as u32, other as u32);
                        }
                    }
                    let mut pairs: Vec<(usize, usize)> =
                        (begin..end).flat_map(|one| (end..n).map(move |other| (one, other))).collect();
                    Seed::new(seed).rng().shuffle(&mut pairs);
                    pairs.par_iter().for_each(|&(one, other)| {
                        if owners.matters(one as u32, other as u32) && near(one, other) {
                            owners.join(one as u32, other as u32);
                        }
                    });
                }
                let expected = groups::find(&rows, link, least, &Plain, &Stop::default()).unwrap();
                prop_assert_eq!(&owners.roots(), &expected.representative, "{:?}", link);
                prop_assert_eq!(Owners::from_saved(owners.saved(), link).roots(), expected.representative);
            }
        }
    }
}
