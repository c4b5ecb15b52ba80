//! Several sets of features as one table on disk: the pool first, then the target, then each held-out set. Rows are counted over all of them.

use std::ops::Range;

use rayon::prelude::*;

use crate::similar::shards::Shards;
use kinset_artifact::Stored;
use kinset_artifact::features::Features;
use kinset_kernel::neighbors::NeighborError;
use kinset_math::cosine;
use kinset_stage::{StageError, Stop};
use kinset_store::digest::Hasher;

/// Rows that are passed on at a time.
pub const BLOCK: usize = 1 << 15;
/// The bits of a digest that make room for a row.
const ROW: u128 = u32::MAX as u128;

/// A set of images.
#[derive(Debug)]
pub struct Set {
    /// `pool`, `target`, `held_out[0]`, …
    pub name: String,
    /// What its features say, shard by shard.
    pub features: Vec<String>,
    shards: Shards,
    /// Its rows, counted over all sets.
    pub rows: Range<u32>,
}

/// All of them.
#[derive(Debug)]
pub struct Sets(Vec<Set>);

impl Sets {
    /// Opens them; the first is the pool, in its shards.
    ///
    /// # Errors
    /// If one cannot be read, they are of different dimension, or are more rows than 32 bits can number.
    pub fn open(all: Vec<(String, &[Stored<Features>])>) -> Result<Self, StageError> {
        let mut sets: Vec<Set> = Vec::new();
        let mut begin = 0_usize;
        for (name, stored) in all {
            let shards = Shards::open(stored, None)?;
            if let Some(first) = sets.first().filter(|first| first.shards.dim() != shards.dim()) {
                let (dim, origin) = (first.shards.dim(), stored[0].origin());
                return Err(StageError::Mismatch {
                    what: format!("the pool has features of {dim} numbers, those of `{origin}` have {}", shards.dim()),
                    hint: "features are comparable only if one encoder made both: embed all images with the same one".into(),
                });
            }
            let end = begin + shards.len();
            if u32::try_from(end).is_err() {
                return Err(StageError::other(NeighborError::TooMany { rows: end }));
            }
            let features = stored.iter().map(|stored| stored.digest().hex()).collect();
            sets.push(Set { name, features, shards, rows: begin as u32..end as u32 });
            begin = end;
        }
        Ok(Self(sets))
    }

    pub fn all(&self) -> &[Set] {
        &self.0
    }

    /// Images in all of them.
    pub fn len(&self) -> usize {
        self.0.last().map_or(0, |set| set.rows.end as usize)
    }

    /// True if there is none; open sets always have some.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.0.first().map_or(1, |set| set.shards.dim())
    }

    /// The set of a row, and the row in it.
    pub fn place(&self, row: u32) -> (usize, u32) {
        let set = self.0.partition_point(|set| set.rows.end <= row);
        (set, row - self.0[set].rows.start)
    }

    /// The name of a row of a set.
    pub fn id(&self, set: usize, row: u32) -> String {
        self.0[set].shards.id(row).into_owned()
    }

    /// What was read instead of names.
    pub fn readings(&self) -> impl Iterator<Item = &kinset_base::reading::Reading> {
        self.0.iter().map(|set| set.shards.reading())
    }

    /// Passes on the vectors of a set from a row on, some thousand at a time, with the row of the first, counted over all sets.
    ///
    /// # Errors
    /// If they cannot be read, one has no direction, or `take` says so.
    pub fn blocks(
        &self,
        set: usize,
        from: u32,
        mut take: impl FnMut(u32, &[f32]) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let Set { shards, rows, .. } = &self.0[set];
        let begin = from.max(rows.start) - rows.start;
        if begin >= rows.end - rows.start {
            return Ok(());
        }
        shards.blocks(begin as usize, BLOCK, &mut |first, values| {
            let none = values.chunks_exact(self.dim()).position(|row| cosine::norm(row) < cosine::FLOOR);
            match none {
                Some(place) => Err(StageError::other(NeighborError::ZeroRow { row: first + place })),
                None => take(rows.start + first as u32, values),
            }
        })
    }

    /// Some vectors, `[rows, D]`. `rows`, counted over all sets, must ascend.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn some(&self, rows: &[u32]) -> Result<Vec<f32>, StageError> {
        let mut values = Vec::with_capacity(rows.len() * self.dim());
        let mut rest = rows;
        for set in &self.0 {
            let (here, after) = rest.split_at(rest.partition_point(|row| *row < set.rows.end));
            rest = after;
            if !here.is_empty() {
                let inside: Vec<u32> = here.iter().map(|row| row - set.rows.start).collect();
                values.extend(set.shards.rows(&inside)?);
            }
        }
        Ok(values)
    }

    /// `[N]`: the first row of its set with the same features, bit for bit; most often the row itself. Of a thousand copies one is compared.
    ///
    /// # Errors
    /// If they cannot be read, one has no direction, or it is asked to stop.
    pub fn exact(&self, stop: &Stop, mut told: impl FnMut(usize)) -> Result<Vec<u32>, StageError> {
        let mut heads: Vec<u32> = (0..self.len() as u32).collect();
        for (number, set) in self.0.iter().enumerate() {
            // A digest with the row in its last bits: sorted, copies stand together and the first of them in front.
            let mut seen: Vec<u128> = Vec::with_capacity(set.rows.len());
            self.blocks(number, 0, |first, values| {
                stop.check()?;
                let rows = values.par_chunks_exact(self.dim()).enumerate();
                seen.par_extend(rows.map(|(place, row)| digest(row) & !ROW | (u128::from(first) + place as u128)));
                told(values.len() / self.dim());
                Ok(())
            })?;
            seen.sort_unstable();
            for copies in seen.chunk_by(|a, b| a & !ROW == b & !ROW) {
                for row in copies {
                    heads[(row & ROW) as usize] = (copies[0] & ROW) as u32;
                }
            }
        }
        Ok(heads)
    }
}

fn digest(row: &[f32]) -> u128 {
    // `+ 0.0` makes one zero of the two.
    let bytes: Vec<u8> = row.iter().flat_map(|x| (x + 0.0).to_bits().to_le_bytes()).collect();
    let digest = Hasher::derived("kinset 2026-11 features of an image").update(&bytes).finish();
    digest.bytes()[..16].iter().fold(0, |number, &byte| number << 8 | u128::from(byte))
}
