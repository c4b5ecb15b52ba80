//! Exact nearest neighbors by cosine: of every row of a table ([`all_pairs`]), of some of its rows ([`stripe`]), or of queries in a pool
//! that is read in chunks ([`Search`]).
//!
//! The answer is *defined* in double precision: cosine of the rows as stored, descending, ties by row number ascending. So it
//! cannot depend on the number of threads, on the tile size, or on how a pool was cut into chunks.
//!
//! It is *found* in integers (`int16_scan.rs` beside this file). Tiles of products are compared with their rows' current
//! thresholds as they come, and only the few above are kept as candidates. A product differs from the true cosine by no more
//! than a known margin, so with a threshold two margins below the k-th best candidate no true neighbor can be missed. The
//! candidates that survive are scored again in double precision. Rows with more near-ties than the candidate list has room for
//! (dozens of copies of one image) are thinned by exact scores on the way, so memory stays bounded.
//!
//! Each pair of rows is multiplied once and serves both of its ends.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::int16_scan::{Hit, Int16Rows, ONE, Scan, WIDE};
use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::stop::{Stop, Stopped};
use kinset_math::cosine::{FLOOR, dot, norm};

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NeighborError {
    /// A row without direction has no cosine with anything.
    #[error("row `{row}` is all zeros, so its cosine similarity is undefined")]
    ZeroRow {
        /// Which, counted over the whole table.
        row: usize,
    },
    #[error("row `{row}` contains NaN or infinity")]
    NotFinite {
        /// Which, counted over the whole table.
        row: usize,
    },
    /// Rows must have been normalized.
    #[error("row `{row}` has length `{length}`, expected `1`")]
    NotUnit {
        /// Which, counted over the whole table.
        row: usize,
        length: f64,
    },
    #[error("`{k}` neighbors were requested, but there are only `{others}` rows to choose from")]
    TooFew {
        k: usize,
        /// Rows that could be a neighbor.
        others: usize,
    },
    #[error("`0` neighbors were requested")]
    NoneAsked,
    /// Row numbers are stored in 32 bits.
    #[error("`{rows}` rows exceed the limit of 32-bit row numbers")]
    TooMany { rows: usize },
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl Fault for NeighborError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::ZeroRow { .. } => Exit::Data
                .code("neighbors::zero-row")
                .hint("leave the image out, or find out why the encoder gives all zeros for it"),
            Self::NotFinite { .. } => {
                Exit::Data.code("neighbors::not-finite").hint("the encoder has diverged: look at its training curve")
            }
            Self::NotUnit { .. } => Exit::Data.code("neighbors::not-unit").hint("write the features with unit length"),
            Self::TooFew { others, .. } => {
                Exit::Pipeline.code("neighbors::too-few-rows").hint(format!("set k to {others} or less, or use more images"))
            }
            Self::NoneAsked => Exit::Pipeline.code("neighbors::none-asked").hint("set k to 1 or more"),
            Self::TooMany { .. } => Exit::Data.code("neighbors::too-many-rows").hint("split the table"),
            Self::Stopped(_) => Exit::Stopped.code("neighbors::stopped"),
        }
    }
}

pub type Result<T> = std::result::Result<T, NeighborError>;

/// For each row its nearest rows, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbors {
    /// M, how many for each row.
    pub k: usize,
    /// [N, M] row numbers.
    pub index: Vec<u32>,
    /// [N, M] cosines, −1 to 1.
    pub similarity: Vec<f32>,
}

/// How a table is cut. Only speed depends on it.
#[derive(Clone, Copy, Debug)]
struct Tiling {
    /// Rows that share a lock and a candidate list, a multiple of [`GROUP`]; best a multiple of [`WIDE`].
    block: usize,
    /// Tiles between two reports of progress.
    wave: usize,
}

const TILING: Tiling = Tiling { block: 480, wave: 512 };

/// Rows of a stripe, or a multiple …
const STRIPE: usize = 240;
/// … so that there are no more stripes than these.
const MOST_STRIPES: usize = 1024;

/// Pool rows in one task of a [`Search`].
const SEGMENT: usize = 85 * WIDE;

/// Lengths may be off by this much: far more than rounding, far less than forgetting to normalize.
const LENGTH_TOLERANCE: f64 = 1e-3;

/// The `k` nearest rows of every row of a table, itself excluded.
///
/// `progress` hears how many of how many pieces of work are done, now and then.
///
/// # Shapes
/// `rows` [N, D], of unit length.
///
/// # Errors
/// Rows that are zero, not finite or not of unit length; k of 0, or not below N; a request to stop.
///
/// # Panics
/// If `dim` is 0 or does not divide the length.
pub fn all_pairs(rows: &[f32], dim: usize, k: usize, stop: &Stop, progress: &mut dyn FnMut(usize, usize)) -> Result<Neighbors> {
    all_pairs_tiled(rows, dim, k, TILING, stop, progress)
}

/// The rows of a table of so many in stripes, each of which [`stripe`] can compute by itself. They depend on nothing else, so that whoever
/// takes some of them finds those of others.
pub fn stripes(rows: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    let height = rows.div_ceil(MOST_STRIPES).next_multiple_of(STRIPE).max(STRIPE);
    (0..rows.div_ceil(height)).map(move |number| number * height..((number + 1) * height).min(rows))
}

/// What [`all_pairs`] finds for some of the rows, bit by bit, with twice the products: none serves both of its ends.
///
/// # Shapes
/// `rows` [N, D], of unit length.
///
/// # Errors
/// As [`all_pairs`].
///
/// # Panics
/// If `dim` is 0 or does not divide the length, or if there are no such rows.
pub fn stripe(rows: &[f32], dim: usize, k: usize, which: Range<usize>, stop: &Stop) -> Result<Neighbors> {
    enough(k, (rows.len() / dim).saturating_sub(1))?;
    // One more, since each row is the nearest to itself, or as near as those before it.
    let mut search = Search::new(&rows[which.start * dim..which.end * dim], dim, k + 1, stop)?;
    search.feed(rows, 0)?;
    let found = search.finish()?;
    let mut others =
        Neighbors { k, index: Vec::with_capacity(which.len() * k), similarity: Vec::with_capacity(which.len() * k) };
    for ((row, index), similarity) in which.zip(found.index.chunks_exact(k + 1)).zip(found.similarity.chunks_exact(k + 1)) {
        let own = index.iter().position(|&other| other as usize == row).unwrap_or(k);
        others.index.extend(index[..own].iter().chain(&index[own + 1..]));
        others.similarity.extend(similarity[..own].iter().chain(&similarity[own + 1..]));
    }
    Ok(others)
}

fn all_pairs_tiled(
    rows: &[f32],
    dim: usize,
    k: usize,
    tiling: Tiling,
    stop: &Stop,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Neighbors> {
    let table = Table::new(rows, dim, 0)?;
    enough(k, table.len().saturating_sub(1))?;
    let grid = Int16Rows::new(rows, dim, &table.inverse);
    let margin = grid.margin(&grid);
    let blocks: Vec<Mutex<Shortlist>> = rows
        .chunks(tiling.block * dim)
        .map(|block| Mutex::new(Shortlist::new(vec![i32::MIN; block.len() / dim], k, margin)))
        .collect();
    let tiles = blocks.len() * (blocks.len() + 1) / 2;
    let mut done = 0;
    while done < tiles {
        let wave = done..(done + tiling.wave).min(tiles);
        done = wave.end;
        wave.into_par_iter().try_for_each_init(Scan::default, |scan, tile| {
            stop.check()?;
            // Blocks on a circle, paired with the block `step` further: every pair comes once, every block as often as the
            // others, and neighbors in this order rarely want the same lock.
            let (step, first) = (tile / blocks.len(), tile % blocks.len());
            cross(&table, &grid, &blocks, (first, (first + step) % blocks.len()), tiling, scan);
            Ok::<_, Stopped>(())
        })?;
        progress(done, tiles);
    }
    let best: Vec<Vec<Vec<Scored>>> = blocks
        .into_par_iter()
        .enumerate()
        .map(|(number, block)| {
            stop.check()?;
            let list = block.into_inner().unwrap_or_else(PoisonError::into_inner);
            let first = number * tiling.block;
            Ok(list.settle(|row, other| table.cosine(first + row, other as usize)).collect())
        })
        .collect::<std::result::Result<_, Stopped>>()?;
    Ok(collect(best.iter().flatten(), k))
}

/// One tile: the rows of one block with those of another (or with themselves), strip by strip.
fn cross(
    table: &Table,
    grid: &Int16Rows,
    blocks: &[Mutex<Shortlist>],
    (one, two): (usize, usize),
    tiling: Tiling,
    scan: &mut Scan,
) {
    let (first, second) = (one * tiling.block, two * tiling.block);
    let upto = (second + tiling.block).min(table.len());
    for from in (second..upto).step_by(WIDE) {
        scan.thresholds.clone_from(&lock(&blocks[one]).thresholds);
        scan.other_thresholds = [i32::MAX; WIDE];
        let columns = from..(from + WIDE).min(upto);
        // Both ends of a pair within one block meet in both halves of the tile.
        if one != two {
            let list = lock(&blocks[two]);
            scan.other_thresholds[..columns.len()]
                .copy_from_slice(&list.thresholds[columns.start - second..columns.end - second]);
        }
        grid.cross(first, grid, from, scan);
        let mut list = lock(&blocks[one]);
        for &Hit { row, column, value } in &scan.hits {
            let (row, column) = (row as usize, column as usize + from);
            if first + row != column && column < upto {
                list.offer(row, value, column as u32, |row, other| table.cosine(first + row, other as usize));
            }
        }
        drop(list);
        if one != two {
            let mut list = lock(&blocks[two]);
            for &Hit { row, column, value } in &scan.other_hits {
                let (row, column) = (row as usize + first, column as usize + from - second);
                list.offer(column, value, row as u32, |row, other| table.cosine(second + row, other as usize));
            }
        }
    }
}

/// A poisoned lock means that another thread panicked; that panic is on its way up already.
fn lock(block: &Mutex<Shortlist>) -> MutexGuard<'_, Shortlist> {
    block.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The nearest rows of a pool for each query, while the pool streams by: memory holds the queries, k scores for each, and one
/// chunk. How the pool is cut and in which order the chunks come does not change a bit of the result.
#[derive(Debug)]
pub struct Search<'q> {
    queries: Table<'q>,
    grid: Int16Rows,
    k: usize,
    tiling: Tiling,
    /// The best so far of each query, at most k, in order.
    best: Vec<Vec<Scored>>,
    seen: usize,
    stop: Stop,
}

impl<'q> Search<'q> {
    /// Prepares to look for the `k` nearest rows of each query.
    ///
    /// # Shapes
    /// `queries` [Q, D], of unit length.
    ///
    /// # Errors
    /// Queries that are zero, not finite or not of unit length; k of 0.
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the length.
    pub fn new(queries: &'q [f32], dim: usize, k: usize, stop: &Stop) -> Result<Self> {
        let queries = Table::new(queries, dim, 0)?;
        enough(k, usize::MAX)?;
        let best = vec![Vec::new(); queries.len()];
        let grid = Int16Rows::new(queries.rows, dim, &queries.inverse);
        Ok(Self { queries, grid, k, tiling: TILING, best, seen: 0, stop: stop.clone() })
    }

    /// Looks at the next chunk of the pool, whose first row has the number `first_row` in the whole pool. Each row of the pool
    /// must be fed once.
    ///
    /// # Shapes
    /// `pool` [P, D], of unit length.
    ///
    /// # Errors
    /// Rows that are zero, not finite or not of unit length, or whose number does not fit 32 bits: the search is unchanged then.
    /// A request to stop: then it is of no more use.
    ///
    /// # Panics
    /// If D does not divide the length.
    pub fn feed(&mut self, pool: &[f32], first_row: usize) -> Result<()> {
        let pool = Table::new(pool, self.queries.dim, first_row)?;
        let (queries, k, tiling) = (&self.queries, self.k, self.tiling);
        let (grid, other) = (&self.grid, Int16Rows::new(pool.rows, pool.dim, &pool.inverse));
        let margin = grid.margin(&other);
        let blocks = queries.len().div_ceil(tiling.block);
        // Few queries must keep many cores busy, many queries must not need many lists.
        let segments = (64 / blocks.max(1)).max(1);
        let mut from = 0;
        while from < pool.len() && blocks > 0 {
            let upto = (from + segments * SEGMENT).min(pool.len());
            let tasks: Vec<(usize, usize)> =
                (0..blocks).flat_map(|block| (from..upto).step_by(SEGMENT).map(move |segment| (block, segment))).collect();
            let (best, stop) = (&self.best, &self.stop);
            let found: Vec<Vec<Vec<Scored>>> = tasks
                .par_iter()
                .map_init(Scan::default, |scan, &(block, segment)| {
                    stop.check()?;
                    let first = block * tiling.block;
                    let last = (first + tiling.block).min(queries.len());
                    let thresholds = best[first..last].iter().map(|best| threshold_below(best, k, margin)).collect();
                    let mut list = Shortlist::new(thresholds, k, margin);
                    let exact = |row: usize, other: u32| queries.cosine_with(first + row, &pool, other as usize);
                    let end = (segment + SEGMENT).min(upto);
                    for from in (segment..end).step_by(WIDE) {
                        scan.thresholds.clone_from(&list.thresholds);
                        grid.cross(first, &other, from, scan);
                        for &Hit { row, column, value } in &scan.hits {
                            let column = column as usize + from;
                            if column < end {
                                list.offer(row as usize, value, column as u32, exact);
                            }
                        }
                    }
                    Ok(list.settle(exact).collect())
                })
                .collect::<std::result::Result<_, Stopped>>()?;
            for (&(block, _), lists) in tasks.iter().zip(found) {
                for (best, list) in self.best[block * tiling.block..].iter_mut().zip(lists) {
                    best.extend(list.into_iter().map(|s| Scored { row: s.row + first_row as u32, ..s }));
                }
            }
            self.best.par_iter_mut().for_each(|best| keep_best(best, k));
            from = upto;
        }
        self.seen += pool.len();
        Ok(())
    }

    /// The neighbors in the whole pool.
    ///
    /// # Errors
    /// A pool of fewer than k rows.
    pub fn finish(self) -> Result<Neighbors> {
        enough(self.k, self.seen)?;
        Ok(collect(self.best.iter(), self.k))
    }
}

/// The `k` nearest rows of a pool for each query, all pool rows numbered from 0.
pub fn nearest(queries: &[f32], pool: &[f32], dim: usize, k: usize, stop: &Stop) -> Result<Neighbors> {
    let mut search = Search::new(queries, dim, k, stop)?;
    search.feed(pool, 0)?;
    search.finish()
}

pub(super) fn enough(k: usize, others: usize) -> Result<()> {
    match k {
        0 => Err(NeighborError::NoneAsked),
        k if k > others => Err(NeighborError::TooFew { k, others }),
        _ => Ok(()),
    }
}

fn collect<'a>(best: impl Iterator<Item = &'a Vec<Scored>> + Clone, k: usize) -> Neighbors {
    let index = best.clone().flatten().map(|s| s.row).collect();
    let similarity = best.flatten().map(|s| s.cosine.clamp(-1.0, 1.0) as f32).collect();
    Neighbors { k, index, similarity }
}

/// Unit rows with what is known of their lengths.
#[derive(Debug)]
pub(super) struct Table<'a> {
    pub(super) rows: &'a [f32],
    pub(super) dim: usize,
    /// 1 / length of each row.
    pub(super) inverse: Vec<f64>,
}

impl<'a> Table<'a> {
    pub(super) fn new(rows: &'a [f32], dim: usize, first_row: usize) -> Result<Self> {
        assert!(dim > 0 && rows.len().is_multiple_of(dim), "rows must be [N, D] with D > 0");
        let count = rows.len() / dim;
        if first_row.saturating_add(count) > u32::MAX as usize {
            return Err(NeighborError::TooMany { rows: first_row.saturating_add(count) });
        }
        let lengths: Vec<f64> = rows.par_chunks(dim).map(norm).collect();
        for (row, &length) in lengths.iter().enumerate() {
            let row = first_row + row;
            if !length.is_finite() {
                return Err(NeighborError::NotFinite { row });
            }
            if length < FLOOR {
                return Err(NeighborError::ZeroRow { row });
            }
            if (length - 1.0).abs() > LENGTH_TOLERANCE {
                return Err(NeighborError::NotUnit { row, length });
            }
        }
        let inverse = lengths.into_iter().map(|length| 1.0 / length).collect();
        Ok(Self { rows, dim, inverse })
    }

    pub(super) fn len(&self) -> usize {
        self.inverse.len()
    }

    pub(super) fn rows_of(&self, from: usize, to: usize) -> &'a [f32] {
        &self.rows[from * self.dim..to * self.dim]
    }

    pub(super) fn cosine(&self, row: usize, other: usize) -> f64 {
        self.cosine_with(row, self, other)
    }

    /// The same bits from both ends; exact copies get the same bits as each other.
    fn cosine_with(&self, row: usize, table: &Table, other: usize) -> f64 {
        let product = dot(self.rows_of(row, row + 1), table.rows_of(other, other + 1));
        // `+ 0.0` makes one zero of the two.
        product * (self.inverse[row] * table.inverse[other]) + 0.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scored {
    pub(super) cosine: f64,
    pub(super) row: u32,
}

impl Scored {
    fn rank(&self, other: &Self) -> Ordering {
        other.cosine.total_cmp(&self.cosine).then(self.row.cmp(&other.row))
    }
}

fn keep_best(scored: &mut Vec<Scored>, k: usize) {
    scored.sort_unstable_by(Scored::rank);
    scored.truncate(k);
}

/// What a product must reach to stand for a cosine that could enter a full list of exact scores.
fn threshold_below(best: &[Scored], k: usize, margin: i32) -> i32 {
    best.get(k - 1).map_or(i32::MIN, |last| below(last.cosine, margin))
}

/// What the product of a pair with this cosine reaches at least.
fn below(cosine: f64, margin: i32) -> i32 {
    ((cosine * ONE).floor() as i32).saturating_sub(margin)
}

/// The candidates of some rows.
#[derive(Debug)]
pub(super) struct Shortlist {
    k: usize,
    room: usize,
    margin: i32,
    /// What a product must reach to be a candidate of each row.
    pub(super) thresholds: Vec<i32>,
    counts: Vec<u32>,
    /// [rows, room] product and row number.
    candidates: Vec<(i32, u32)>,
}

impl Shortlist {
    pub(super) fn new(thresholds: Vec<i32>, k: usize, margin: i32) -> Self {
        // Room beyond k is what makes thinning out rare.
        let room = k + (k / 2).max(32);
        Self {
            k,
            room,
            margin,
            counts: vec![0; thresholds.len()],
            candidates: vec![(0, 0); thresholds.len() * room],
            thresholds,
        }
    }

    /// Takes a candidate if it reaches the threshold; thins the row out when it is full.
    #[inline]
    pub(super) fn offer(&mut self, row: usize, value: i32, other: u32, exact: impl Fn(usize, u32) -> f64) {
        if value < self.thresholds[row] {
            return;
        }
        let count = self.counts[row] as usize;
        self.candidates[row * self.room + count] = (value, other);
        self.counts[row] += 1;
        if count + 1 == self.room {
            self.thin(row, exact);
        }
    }

    /// Drops what cannot be among the k best of this row.
    fn thin(&mut self, row: usize, exact: impl Fn(usize, u32) -> f64) {
        let (k, margin) = (self.k, self.margin);
        let list = &mut self.candidates[row * self.room..][..self.counts[row] as usize];
        let (_, last, _) = list.select_nth_unstable_by(k - 1, |a, b| b.0.cmp(&a.0));
        // k candidates have a cosine of at least `last − margin`; whoever is two margins below `last` has less.
        let cut = last.0.saturating_sub(2 * margin);
        let mut kept = k;
        for i in k..list.len() {
            if list[i].0 >= cut {
                list.swap(kept, i);
                kept += 1;
            }
        }
        let mut threshold = cut;
        if kept > k.midpoint(self.room) {
            // A crowd of near-ties: let exact scores decide now, so that the list cannot overflow.
            let mut scored: Vec<(Scored, i32)> =
                list[..kept].iter().map(|&(value, row_)| (Scored { cosine: exact(row, row_), row: row_ }, value)).collect();
            scored.sort_unstable_by(|a, b| a.0.rank(&b.0));
            scored.truncate(k);
            threshold = threshold.max(below(scored[k - 1].0.cosine, margin));
            for (slot, (scored, value)) in list.iter_mut().zip(scored) {
                *slot = (value, scored.row);
            }
            kept = k;
        }
        self.counts[row] = kept as u32;
        self.thresholds[row] = self.thresholds[row].max(threshold);
    }

    /// The k best of each row by exact cosine, fewer where fewer were offered.
    pub(super) fn settle(mut self, exact: impl Fn(usize, u32) -> f64 + Copy) -> impl Iterator<Item = Vec<Scored>> {
        (0..self.thresholds.len()).map(move |row| {
            if self.counts[row] as usize > self.k {
                self.thin(row, exact);
            }
            let list = &self.candidates[row * self.room..][..self.counts[row] as usize];
            let mut scored = list.iter().map(|&(_, other)| Scored { cosine: exact(row, other), row: other }).collect();
            keep_best(&mut scored, self.k);
            scored
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::int16_scan::GROUP;
    use super::*;
    use kinset_base::seed::Seed;
    use kinset_math::cosine::normalize_rows;

    fn unit(mut rows: Vec<f32>, dim: usize) -> Vec<f32> {
        assert!(normalize_rows(&mut rows, dim).is_empty());
        rows
    }

    fn random(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
        let mut rng = Seed::new(seed).rng();
        unit((0..rows * dim).map(|_| rng.normal() as f32).collect(), dim)
    }

    /// The definition: every cosine in double precision, sorted.
    fn brute(queries: &[f32], pool: &[f32], dim: usize, k: usize, itself: bool) -> Neighbors {
        let (mut index, mut similarity) = (Vec::new(), Vec::new());
        for (q, query) in queries.chunks(dim).enumerate() {
            let mut all: Vec<(f64, u32)> = pool
                .chunks(dim)
                .enumerate()
                .filter(|&(p, _)| itself || p != q)
                .map(|(p, row)| (dot(query, row) * ((1.0 / norm(query)) * (1.0 / norm(row))), p as u32))
                .collect();
            all.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap().then(a.1.cmp(&b.1)));
            index.extend(all[..k].iter().map(|a| a.1));
            similarity.extend(all[..k].iter().map(|a| a.0.clamp(-1.0, 1.0) as f32));
        }
        Neighbors { k, index, similarity }
    }

    fn all_pairs(rows: &[f32], dim: usize, k: usize) -> Result<Neighbors> {
        all_pairs_tiled(rows, dim, k, TILING, &Stop::default(), &mut |_, _| {})
    }

    fn in_chunks(queries: &[f32], pool: &[f32], dim: usize, k: usize, chunk: usize) -> Neighbors {
        let mut search = Search::new(queries, dim, k, &Stop::default()).unwrap();
        for (number, rows) in pool.chunks(chunk * dim).enumerate() {
            search.feed(rows, number * chunk).unwrap();
        }
        search.finish().unwrap()
    }

    #[test]
    fn the_neighbors_of_points_on_a_circle_are_the_nearest_angles() {
        let angles = [0.0_f64, 10.0, 25.0, 180.0, 10.0];
        let rows: Vec<f32> = angles.iter().flat_map(|a| [a.to_radians().cos() as f32, a.to_radians().sin() as f32]).collect();
        let found = all_pairs(&rows, 2, 2).unwrap();
        assert_eq!(found.index, [1, 4, 4, 0, 1, 4, 2, 1, 1, 0]);
        assert!((found.similarity[2] - 1.0).abs() < f32::EPSILON, "a copy has cosine 1");
        assert!((found.similarity[0] - 10_f32.to_radians().cos()).abs() < 1e-6);
    }

    #[test]
    fn several_blocks_of_random_rows_equal_brute_force() {
        for (n, dim, k) in [(1300, 16, 20), (515, 3, 1), (600, 70, 599)] {
            let rows = random(n, dim, n as u64);
            assert_eq!(all_pairs(&rows, dim, k).unwrap(), brute(&rows, &rows, dim, k, false), "{n} rows");
        }
    }

    #[test]
    fn hundreds_of_copies_are_ordered_by_row() {
        // Far more ties than a candidate list has room for, spread over several blocks, and a second crowd a rounding away.
        let mut rows = random(1200, 24, 5);
        for row in (0..1200).filter(|r| r % 3 != 0) {
            let copy: Vec<f32> = rows[..24].to_vec();
            rows[row * 24..(row + 1) * 24].copy_from_slice(&copy);
            if row % 3 == 2 {
                rows[row * 24 + row % 24] *= 1.0 + f32::EPSILON;
            }
        }
        assert_eq!(all_pairs(&rows, 24, 7).unwrap(), brute(&rows, &rows, 24, 7, false));
        assert_eq!(in_chunks(&rows[..600], &rows, 24, 7, 100), brute(&rows[..600], &rows, 24, 7, true));
    }

    #[test]
    fn stripes_are_what_all_pairs_find_with_copies_too() {
        let mut rng = Seed::new(5).rng();
        let mut rows: Vec<f32> = (0..700 * 6).map(|_| rng.normal() as f32).collect();
        // More copies of one row than neighbors that are asked for: the row itself is not always among the first.
        for copy in (0..700).step_by(20) {
            rows.copy_within(0..6, copy * 6);
        }
        let rows = unit(rows, 6);
        let all = all_pairs(&rows, 6, 9).unwrap();
        let mut joined = Neighbors { k: 9, index: Vec::new(), similarity: Vec::new() };
        for which in stripes(700) {
            let found = stripe(&rows, 6, 9, which, &Stop::default()).unwrap();
            joined.index.extend(found.index);
            joined.similarity.extend(found.similarity);
        }
        assert_eq!(joined, all);
        assert!(matches!(stripe(&rows, 6, 700, 0..1, &Stop::default()), Err(NeighborError::TooFew { .. })));
        for rows in [1, 240, 241, 1_281_167, 50_000_000] {
            let found: Vec<Range<usize>> = stripes(rows).collect();
            assert!(found.len() <= MOST_STRIPES && found[0].start == 0 && found[found.len() - 1].end == rows);
            assert!(found.windows(2).all(|two| two[0].end == two[1].start && !two[1].is_empty()));
        }
    }

    #[test]
    fn the_bits_depend_on_neither_threads_nor_tiles_nor_chunks() {
        let rows = random(900, 33, 8);
        let run = |threads, block, wave| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let tiling = Tiling { block, wave };
            let found = pool.install(|| all_pairs_tiled(&rows, 33, 10, tiling, &Stop::default(), &mut |_, _| {})).unwrap();
            (found.index, found.similarity.iter().map(|s| s.to_bits()).collect::<Vec<_>>())
        };
        let first = run(1, 480, 512);
        for (threads, block, wave) in [(2, 480, 512), (3, 64, 5), (4, 96, 1), (2, 912, 1), (1, 16, 50_000)] {
            assert_eq!(run(threads, block, wave), first, "{threads} threads, blocks of {block}");
        }
        let once = in_chunks(&rows[..33 * 70], &rows, 33, 10, 900);
        for chunk in [1, 64, 333] {
            assert_eq!(in_chunks(&rows[..33 * 70], &rows, 33, 10, chunk), once, "chunks of {chunk}");
        }
        assert_eq!(once, brute(&rows[..33 * 70], &rows, 33, 10, true));
    }

    #[test]
    fn the_order_of_chunks_does_not_matter() {
        let (queries, pool) = (random(30, 5, 1), random(9000, 5, 2));
        let mut search = Search::new(&queries, 5, 4, &Stop::default()).unwrap();
        search.feed(&pool[5000 * 5..], 5000).unwrap();
        search.feed(&pool[..5000 * 5], 0).unwrap();
        assert_eq!(search.finish().unwrap(), brute(&queries, &pool, 5, 4, true));
    }

    #[test]
    fn rows_without_direction_and_impossible_numbers_are_refused() {
        let find = |rows: &[f32], k| all_pairs(rows, 2, k);
        assert_eq!(find(&[1.0, 0.0, 0.0, 0.0], 1), Err(NeighborError::ZeroRow { row: 1 }));
        assert_eq!(find(&[1.0, 0.0, 0.0, f32::NAN], 1), Err(NeighborError::NotFinite { row: 1 }));
        assert_eq!(find(&[0.0, 2.0, 1.0, 0.0], 1), Err(NeighborError::NotUnit { row: 0, length: 2.0 }));
        assert_eq!(find(&[1.0, 0.0, 0.0, 1.0], 2), Err(NeighborError::TooFew { k: 2, others: 1 }));
        assert_eq!(find(&[], 1), Err(NeighborError::TooFew { k: 1, others: 0 }));
        assert_eq!(find(&[1.0, 0.0, 0.0, 1.0], 0), Err(NeighborError::NoneAsked));
        let mut search = Search::new(&[1.0, 0.0], 2, 2, &Stop::default()).unwrap();
        assert_eq!(search.feed(&[0.0, 1.0, 0.0, 0.0], 10), Err(NeighborError::ZeroRow { row: 11 }));
        assert!(matches!(search.feed(&[0.0, 1.0], u32::MAX as usize), Err(NeighborError::TooMany { .. })));
        search.feed(&[0.0, 1.0], 10).unwrap();
        assert_eq!(search.finish(), Err(NeighborError::TooFew { k: 2, others: 1 }));
    }

    #[test]
    fn progress_counts_up_to_the_total_and_every_tile_can_be_the_last() {
        let rows = random(300, 4, 3);
        let tiling = Tiling { block: 32, wave: 7 };
        let (mut heard, never) = (Vec::new(), Stop::after(u64::MAX));
        all_pairs_tiled(&rows, 4, 3, tiling, &never, &mut |done, total| heard.push((done, total))).unwrap();
        assert!(heard.windows(2).all(|w| w[0].0 < w[1].0));
        assert_eq!(heard.last(), Some(&(55, 55)));
        assert!(never.looks() >= 55, "{}", never.looks());
        for looks in [0, 9, 60] {
            let mut done = 0;
            let stopped = all_pairs_tiled(&rows, 4, 3, tiling, &Stop::after(looks), &mut |tiles, _| done = tiles);
            assert_eq!(stopped, Err(NeighborError::Stopped(Stopped)));
            assert!(done <= looks as usize, "{done} tiles after {looks} looks");
        }
    }

    #[test]
    fn a_search_stops_inside_a_chunk() {
        let (queries, pool) = (random(30, 5, 1), random(9000, 5, 2));
        let mut search = Search::new(&queries, 5, 4, &Stop::after(1)).unwrap();
        assert_eq!(search.feed(&pool, 0), Err(NeighborError::Stopped(Stopped)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn rows_on_a_grid_full_of_ties_and_copies_equal_brute_force(
            (dim, flat) in (1_usize..5).prop_flat_map(|d| (Just(d), prop::collection::vec(-2_i8..=2, 2 * d..60 * d))),
            k in 1_usize..40,
            groups in 1_usize..4,
            chunk in 1_usize..30,
        ) {
            let mut rows: Vec<f32> = flat[..flat.len() / dim * dim].iter().map(|&x| f32::from(x)).collect();
            rows.chunks_mut(dim).filter(|row| row.iter().all(|x| *x == 0.0)).for_each(|row| row[0] = 1.0);
            let rows = unit(rows, dim);
            let n = rows.len() / dim;
            let k = k.min(n - 1);
            let tiling = Tiling { block: groups * GROUP, wave: 3 };
            let found = all_pairs_tiled(&rows, dim, k, tiling, &Stop::default(), &mut |_, _| {}).unwrap();
            prop_assert_eq!(found, brute(&rows, &rows, dim, k, false));
            prop_assert_eq!(in_chunks(&rows, &rows, dim, k, chunk), brute(&rows, &rows, dim, k, true));
        }
    }
}
