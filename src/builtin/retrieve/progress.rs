//! What a killed search goes on from: the best so far of each query, and how many row groups of the pool they come from.
//!
//! One file, replaced as a whole, with a digest at its end. One that is not whole does not count: then the search begins again,
//! which is slow but right.

use std::path::{Path, PathBuf};

use kinset_base::fs;
use kinset_store::digest::Digest;

const NAME: &str = "search.bin";
const MAGIC: &[u8; 8] = b"kinsearc";
/// Bytes of a candidate: cosine and row.
const CANDIDATE: usize = 12;
/// Bytes of the digest at the end.
const DIGEST: usize = 32;

/// A pool image that may be among the nearest: its cosine, and its row.
pub type Candidate = (f64, u32);

/// Where a search is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Row groups that were searched.
    pub groups: usize,
    /// Rows that were searched.
    pub rows: usize,
    /// For each query its best so far, in order.
    pub best: Vec<Vec<Candidate>>,
}

/// Brings candidates into the order of neighbors – cosine falling, ties by row – and keeps `k`.
pub fn keep(best: &mut Vec<Candidate>, k: usize) {
    best.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    best.truncate(k);
}

fn place(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

impl Progress {
    pub fn new(queries: usize) -> Self {
        Self { best: vec![Vec::new(); queries], ..Self::default() }
    }

    /// Writes it into a folder, in place of what was there.
    pub fn save(&self, folder: &Path) -> fs::Result<()> {
        let size = self.best.iter().map(|list| 4 + list.len() * CANDIDATE).sum::<usize>();
        let mut bytes = Vec::with_capacity(32 + size + DIGEST);
        bytes.extend(MAGIC);
        for number in [self.groups, self.rows, self.best.len()] {
            bytes.extend((number as u64).to_le_bytes());
        }
        for list in &self.best {
            bytes.extend((list.len() as u32).to_le_bytes());
            for (cosine, row) in list {
                bytes.extend(cosine.to_bits().to_le_bytes());
                bytes.extend(row.to_le_bytes());
            }
        }
        let digest = Digest::of(&bytes).hex();
        bytes.extend(&digest.as_bytes()[..DIGEST]);
        fs::write_atomic(&place(folder), &bytes)
    }

    /// Reads it; none if there is none that is whole and for so many queries.
    ///
    /// # Errors
    /// If there is one and it cannot be read.
    pub fn load(folder: &Path, queries: usize) -> fs::Result<Option<Self>> {
        let path = place(folder);
        if !fs::exists(&path) {
            return Ok(None);
        }
        Ok(Self::decode(&fs::read(&path)?).filter(|progress| progress.best.len() == queries))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
        if Digest::of(body).hex().as_bytes()[..DIGEST] != *digest {
            return None;
        }
        let mut rest = body.strip_prefix(MAGIC)?;
        let mut take = |count: usize| {
            let (head, tail) = rest.split_at_checked(count)?;
            rest = tail;
            Some(head)
        };
        let mut number = || Some(u64::from_le_bytes(take(8)?.try_into().ok()?) as usize);
        let (groups, rows, queries) = (number()?, number()?, number()?);
        let mut best = Vec::new();
        for _ in 0..queries {
            let count = u32::from_le_bytes(take(4)?.try_into().ok()?) as usize;
            let list = take(count.checked_mul(CANDIDATE)?)?.as_chunks::<CANDIDATE>().0.iter().map(|c| {
                let cosine = f64::from_bits(u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]));
                (cosine, u32::from_le_bytes([c[8], c[9], c[10], c[11]]))
            });
            best.push(list.collect());
        }
        Some(Self { groups, rows, best })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_comes_back_to_the_bit_and_a_damaged_one_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Progress::load(dir.path(), 2).unwrap(), None);
        let progress = Progress { groups: 3, rows: 77, best: vec![vec![(0.1 + 0.2, 9), (-0.5, 4)], vec![]] };
        progress.save(dir.path()).unwrap();
        assert_eq!(Progress::load(dir.path(), 2).unwrap(), Some(progress));
        assert_eq!(Progress::load(dir.path(), 3).unwrap(), None, "of another search");
        let path = place(dir.path());
        let whole = fs::read(&path).unwrap();
        for damage in [whole.len() - 1, 20, 0] {
            fs::write_atomic(&path, &whole[..damage]).unwrap();
            assert_eq!(Progress::load(dir.path(), 2).unwrap(), None);
        }
        let mut flipped = whole;
        flipped[40] ^= 1;
        fs::write_atomic(&path, &flipped).unwrap();
        assert_eq!(Progress::load(dir.path(), 2).unwrap(), None);
    }

    #[test]
    fn the_best_stand_in_order_with_ties_by_row() {
        let mut best = vec![(0.5, 9), (0.7, 3), (0.5, 2), (0.1, 0)];
        keep(&mut best, 3);
        assert_eq!(best, [(0.7, 3), (0.5, 2), (0.5, 9)]);
    }
}
