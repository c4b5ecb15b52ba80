//! Near copies across sets: of each image with a near copy in an earlier set the most similar one, and which images of the earlier set
//! those copies are. However many pairs there are, a line per image is kept, and a bit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The nearest image of another set, and how many are near.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nearest {
    pub cosine: f64,
    /// Counted over all sets; of equally similar ones the first.
    pub row: u32,
    pub copies: u32,
}

impl Nearest {
    fn with(self, other: Self) -> Self {
        let first = other.cosine.total_cmp(&self.cosine).then(self.row.cmp(&other.row)).is_le();
        let best = if first { self } else { other };
        Self { copies: self.copies.saturating_add(other.copies), ..best }
    }
}

/// What was found in one piece of a comparison of two sets.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By row of the later set.
    nearest: BTreeMap<u32, Nearest>,
    /// Rows of the earlier one.
    copies: Vec<u32>,
}

impl Found {
    /// Takes a near pair; the earlier row stands for so many.
    pub fn take(&mut self, earlier: u32, times: u32, later: u32, cosine: f64) {
        let found = Nearest { cosine, row: earlier, copies: times };
        self.nearest.entry(later).and_modify(|known| *known = known.with(found)).or_insert(found);
        self.copies.push(earlier);
        // A piece has few rows, and each of them may be near very many.
        if self.copies.len() >= 1 << 16 {
            self.copies.sort_unstable();
            self.copies.dedup();
        }
    }
}

/// Two sets, compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Pair {
    nearest: BTreeMap<u32, Nearest>,
    /// A bit for each row of the earlier set.
    copies: Vec<u64>,
}

/// All pairs of sets, the later one first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shared(BTreeMap<(usize, usize), Pair>);

impl Shared {
    /// Adds what was found in a piece, each piece once. `begin` is the first row of the earlier set.
    pub fn add(&mut self, later: usize, earlier: usize, begin: u32, found: Found) {
        if found.copies.is_empty() {
            return;
        }
        let pair = self.0.entry((later, earlier)).or_default();
        for (row, nearest) in found.nearest {
            pair.nearest.entry(row).and_modify(|known| *known = known.with(nearest)).or_insert(nearest);
        }
        for row in found.copies {
            let (word, bit) = ((row - begin) as usize / 64, (row - begin) % 64);
            if pair.copies.len() <= word {
                pair.copies.resize(word + 1, 0);
            }
            pair.copies[word] |= 1 << bit;
        }
    }

    /// The nearest image of the earlier set to a row of the later one, if one is near.
    pub fn nearest(&self, later: usize, earlier: usize, row: u32) -> Option<&Nearest> {
        self.0.get(&(later, earlier))?.nearest.get(&row)
    }

    /// True if a row of the earlier set, counted in it, is near one of the later.
    pub fn is_copy(&self, later: usize, earlier: usize, row: u32) -> bool {
        let word = self.0.get(&(later, earlier)).and_then(|pair| pair.copies.get(row as usize / 64));
        word.is_some_and(|word| word >> (row % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_give_the_nearest_the_count_and_every_copy_once() {
        let pairs = [(200_u32, 1, 1000, 0.98), (101, 3, 1000, 0.99), (170, 1, 1000, 0.99), (101, 3, 1001, 0.985)];
        let pieces = |order: &[usize]| {
            let mut shared = Shared::default();
            for &at in order {
                let (earlier, times, later, cosine) = pairs[at];
                let mut found = Found::default();
                found.take(earlier, times, later, cosine);
                shared.add(2, 0, 100, found);
            }
            shared
        };
        let shared = pieces(&[0, 1, 2, 3]);
        assert_eq!(shared, pieces(&[3, 2, 0, 1]));
        assert_eq!(shared.nearest(2, 0, 1000), Some(&Nearest { cosine: 0.99, row: 101, copies: 5 }));
        assert_eq!((shared.nearest(2, 0, 1002), shared.nearest(2, 1, 1000)), (None, None));
        let copies: Vec<u32> = (0..300).filter(|&row| shared.is_copy(2, 0, row)).collect();
        assert_eq!(copies, [1, 70, 100]);
        let mut whole = Found::default();
        (0..200_000).for_each(|at| whole.take(100 + at % 7, 1, 5000, 0.99));
        assert!(whole.copies.len() < 1 << 17, "copies of one piece stay few");
    }
}
