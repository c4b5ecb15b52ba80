//! Approximate nearest neighbors of every row of a table that is too large to compare all pairs of.
//!
//! Rows are sorted into cells by the nearest of many centers (an inverted file: Sivic and Zisserman 2003, "Video Google"). A row is
//! compared with all rows of the cells that it *visits*: those whose centers are nearly as similar to it as the center of its own
//! cell. Of the rows that are visited no neighbor is missed, and the order and the ties are those of the exact search.
//!
//! How nearly is decided by rows whose true neighbors are known: a sample is searched for exactly, one half of it to choose by, the
//! other half to measure what came out.
//!
//! Everything that decides is an integer, or a sum in double precision in a fixed order: neither the number of threads nor the
//! instruction set changes a bit.

use std::ops::Range;

use rayon::prelude::*;

use super::int16_scan::{GROUP, Hit, Int16Rows, Scan, WIDE};
use super::neighbors::{Neighbors, Result, Scored, Search, Shortlist, Table, enough, nearest};
use kinset_base::seed::Seed;
use kinset_base::stop::{Stop, Stopped};
use kinset_math::cosine::{FLOOR, norm};

/// How a table is searched. Which neighbors are found depends on all of it.
#[derive(Clone, Copy, Debug)]
struct Method {
    /// Cells, as a multiple of the square root of the number of rows.
    cells: f64,
    /// Rows per center that the centers are fitted to.
    fitted: usize,
    /// Passes of k-means.
    passes: usize,
    /// Rows in each half of the sample whose true neighbors are known.
    known: usize,
}

const METHOD: Method = Method { cells: 2.0, fitted: 32, passes: 8, known: 1000 };

/// Most rows that are searched for together.
const BLOCK: usize = 20 * WIDE;
/// Blocks between two reports.
const WAVE: usize = 128;
/// Rows that are sorted into cells at once.
const CHUNK: usize = 1 << 16;
/// A place that fills up a group.
const NOBODY: u32 = u32::MAX;
/// Standard errors that the half of the sample to choose by must be above the wanted recall.
const SURE: f64 = 2.0;

/// A table whose rows are sorted into cells.
#[derive(Debug)]
pub struct Cells<'a> {
    table: Table<'a>,
    k: usize,
    /// The row at each place: cell after cell, each from a multiple of [`GROUP`] on.
    rows: Vec<u32>,
    /// The rows by place.
    grid: Int16Rows,
    centers: Int16Rows,
    /// The places of each cell.
    spans: Vec<Range<usize>>,
    /// The cell and the places of each block.
    blocks: Vec<(usize, Range<usize>)>,
    reach: Reach,
    work: f64,
    /// Rows to measure the recall by.
    measured: Known,
}

/// Rows with their true neighbors.
#[derive(Debug)]
struct Known {
    rows: Vec<u32>,
    neighbors: Neighbors,
}

/// How far rows look.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reach {
    /// A center may have a product so much smaller than the center of the row's own cell.
    slack: i32,
    /// Rows that a row is compared with, on average.
    visited: f64,
}

/// What was found so far, block after block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Rows that were searched for.
    pub rows: usize,
    /// [rows, k], of each its neighbors, best first.
    pub index: Vec<u32>,
    /// [rows, k], their cosines.
    pub similarity: Vec<f32>,
}

impl Found {
    /// Leaves the first rows, of `k` neighbors each.
    pub fn cut(&mut self, rows: usize, k: usize) {
        self.rows = rows;
        self.index.truncate(rows * k);
        self.similarity.truncate(rows * k);
    }
}

/// The share of true neighbors that were found, on rows that had no part in the choice of what is visited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recall {
    /// 0 to 1; a neighbor as similar as the last true one counts as found.
    pub share: f64,
    /// How many rows.
    pub rows: usize,
}

/// What a thread works with.
#[derive(Debug, Default)]
struct Desk {
    scan: Scan,
    /// Rows of a block that visit one cell.
    visitors: Int16Rows,
}

impl<'a> Cells<'a> {
    /// Sorts rows into cells, so that the `k` nearest of every row can be searched for with this `recall`, 0 to 1.
    ///
    /// # Shapes
    /// `rows` [N, D], of unit length.
    ///
    /// # Errors
    /// Rows that are zero, not finite or not of unit length; k of 0, or not below N; a request to stop.
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the length.
    pub fn new(rows: &'a [f32], dim: usize, k: usize, recall: f64, stop: &Stop) -> Result<Self> {
        Self::with(METHOD, rows, dim, k, recall, stop)
    }

    fn with(method: Method, rows: &'a [f32], dim: usize, k: usize, recall: f64, stop: &Stop) -> Result<Self> {
        let table = Table::new(rows, dim, 0)?;
        let n = table.len();
        enough(k, n.saturating_sub(1))?;
        let order = Seed::new(0).branch("neighbors").branch("cells").rng().permutation(n);
        let order: Vec<u32> = order.into_iter().map(|row| row as u32).collect();
        let count = ((n as f64).sqrt() * method.cells).ceil().min(n as f64 / 2.0).max(1.0) as usize;
        let sample = &order[..(count * method.fitted).min(n)];
        let centers = centers(&table, sample, count, method.passes, stop)?;
        let mut homes = Vec::with_capacity(n);
        for chunk in rows.chunks(CHUNK * dim) {
            homes.extend(nearest(chunk, &centers, dim, 1, stop)?.index);
        }
        let inverse: Vec<f64> = centers.par_chunks(dim).map(|center| 1.0 / norm(center)).collect();
        let centers = Int16Rows::new(&centers, dim, &inverse);
        let (places, spans) = arrange(&homes, count);
        let known = &order[n - (2 * method.known).min(n)..];
        let (choosing, measuring) = known.split_at(known.len() / 2);
        let choosing = Known::of(&table, choosing, k, stop)?;
        let measured = Known::of(&table, measuring, k, stop)?;
        let reach = choosing.reach(&table, &centers, &homes, &spans, recall, stop)?;
        // With the centers twice, to sort and to search.
        let products = (method.passes * sample.len() * count + n * (2 * count + known.len())) as f64 + reach.visited * n as f64;
        let work = products / (n as f64 * n as f64 / 2.0);
        let grid = Int16Rows::arranged(rows, dim, &table.inverse, &places);
        let blocks = spans.iter().enumerate().flat_map(|(cell, span)| {
            let size = span.len().div_ceil(span.len().div_ceil(BLOCK).max(1)).next_multiple_of(GROUP).max(GROUP);
            span.clone().step_by(size).map(move |from| (cell, from..(from + size).min(span.end)))
        });
        let blocks = blocks.collect();
        Ok(Self { table, k, rows: places, grid, centers, spans, blocks, reach, work, measured })
    }

    /// The products that all of it takes, as a share of those of the exact search; about, since the visits are extrapolated from a
    /// sample.
    pub fn work(&self) -> f64 {
        self.work
    }

    /// Into how many cells the rows are sorted.
    pub fn count(&self) -> usize {
        self.spans.len()
    }

    /// With which share of the rows a row is compared, about.
    pub fn visited(&self) -> f64 {
        self.reach.visited / self.table.len() as f64
    }

    /// Searches for the rows of some further blocks; nothing is added if it is asked to stop. False when nothing was left.
    ///
    /// # Errors
    /// A request to stop.
    ///
    /// # Panics
    /// If what was found does not end with a block.
    pub fn search(&self, found: &mut Found, stop: &Stop) -> Result<bool> {
        let Some(first) = self.next(found) else { panic!("what was found must end with a block of this table") };
        let wave = first..(first + WAVE).min(self.blocks.len());
        let more = self.blocks(wave.clone(), stop)?;
        found.rows += more.rows;
        found.index.extend(more.index);
        found.similarity.extend(more.similarity);
        Ok(!wave.is_empty())
    }

    /// How many pieces the search has that anybody can do by themselves.
    pub fn pieces(&self) -> usize {
        self.blocks.len().div_ceil(WAVE)
    }

    /// How many rows a piece searches for.
    pub fn rows_of(&self, piece: usize) -> usize {
        self.blocks[self.wave(piece)].iter().map(|(_, places)| places.len()).sum()
    }

    /// Searches for the rows of a piece. All pieces, one after the other, are what [`Cells::search`] finds.
    ///
    /// # Errors
    /// A request to stop.
    pub fn piece(&self, piece: usize, stop: &Stop) -> Result<Found> {
        self.blocks(self.wave(piece), stop)
    }

    fn wave(&self, piece: usize) -> Range<usize> {
        piece * WAVE..((piece + 1) * WAVE).min(self.blocks.len())
    }

    /// Searches for the rows of some blocks.
    fn blocks(&self, blocks: Range<usize>, stop: &Stop) -> Result<Found> {
        let wave = &self.blocks[blocks];
        let best: Vec<Vec<Vec<Scored>>> = wave
            .par_iter()
            .map_init(Desk::default, |desk, (cell, places)| self.block(*cell, places, desk, stop))
            .collect::<std::result::Result<_, Stopped>>()?;
        let mut found = Found { rows: wave.iter().map(|(_, places)| places.len()).sum(), ..Found::default() };
        for best in best.iter().flatten() {
            found.index.extend(best.iter().map(|s| s.row));
            found.similarity.extend(best.iter().map(|s| s.cosine.clamp(-1.0, 1.0) as f32));
        }
        Ok(found)
    }

    /// The number of the block with which the search goes on; nothing if this can not have been found in this table.
    pub fn next(&self, found: &Found) -> Option<usize> {
        let (mut block, mut rows) = (0, 0);
        while rows < found.rows {
            rows += self.blocks.get(block)?.1.len();
            block += 1;
        }
        let size = rows * self.k;
        (rows == found.rows && found.index.len() == size && found.similarity.len() == size).then_some(block)
    }

    /// The neighbors of the rows of one block among those of the cells that they visit.
    fn block(
        &self,
        cell: usize,
        places: &Range<usize>,
        desk: &mut Desk,
        stop: &Stop,
    ) -> std::result::Result<Vec<Vec<Scored>>, Stopped> {
        let exact = |at: usize, other: u32| self.table.cosine(self.rows[places.start + at] as usize, other as usize);
        let mut list = Shortlist::new(vec![i32::MIN; places.len()], self.k, self.grid.margin(&self.grid));
        for (visited, rows) in self.visits(cell, places, &mut desk.scan, stop)? {
            stop.check()?;
            let span = &self.spans[visited];
            let whole = rows.len() == places.len();
            if !whole {
                desk.visitors.copy(&self.grid, rows.iter().map(|&at| places.start + at as usize));
            }
            let (visitors, first) = if whole { (&self.grid, places.start) } else { (&desk.visitors, 0) };
            for from in span.clone().step_by(WIDE) {
                desk.scan.thresholds.clear();
                desk.scan.thresholds.extend(rows.iter().map(|&at| list.thresholds[at as usize]));
                visitors.cross(first, &self.grid, from, &mut desk.scan);
                for &Hit { row, column, value } in &desk.scan.hits {
                    let (at, other) = (rows[row as usize] as usize, from + column as usize);
                    if other < span.end && other != places.start + at {
                        list.offer(at, value, self.rows[other], exact);
                    }
                }
            }
        }
        Ok(list.settle(exact).collect())
    }

    /// The cells that rows of a block visit, with these rows, counted from the first of the block: their own cell first, then
    /// those that more rows visit.
    fn visits(
        &self,
        cell: usize,
        places: &Range<usize>,
        scan: &mut Scan,
        stop: &Stop,
    ) -> std::result::Result<Vec<(usize, Vec<u32>)>, Stopped> {
        let own: Vec<i32> = places.clone().map(|place| self.grid.product(place, &self.centers, cell)).collect();
        let mut slack = vec![self.reach.slack.max(0); places.len()];
        loop {
            stop.check()?;
            let mut visits: Vec<(usize, Vec<u32>)> = (0..self.spans.len()).map(|cell| (cell, Vec::new())).collect();
            let mut rows = vec![0; places.len()];
            scan.thresholds = own.iter().zip(&slack).map(|(own, slack)| own.saturating_sub(*slack)).collect();
            for from in (0..self.spans.len()).step_by(WIDE) {
                self.grid.cross(places.start, &self.centers, from, scan);
                for hit in &scan.hits {
                    let visited = from + hit.column as usize;
                    if self.spans.get(visited).is_some_and(|span| !span.is_empty()) {
                        visits[visited].1.push(hit.row);
                        rows[hit.row as usize] += self.spans[visited].len();
                    }
                }
            }
            let mut few = false;
            for (slack, _) in slack.iter_mut().zip(rows).filter(|(_, rows)| *rows <= self.k) {
                // Twice as far, from a thousandth of the whole on.
                *slack = slack.saturating_mul(2).max(1 << 20);
                few = true;
            }
            if !few {
                visits.retain(|(_, rows)| !rows.is_empty());
                visits.sort_by_key(|(visited, rows)| (*visited != cell, std::cmp::Reverse(rows.len())));
                return Ok(visits);
            }
        }
    }

    /// The neighbors of all rows in the order of the table, and which share of the true ones they are.
    ///
    /// # Panics
    /// If rows are left to search for.
    pub fn finish(&self, found: &Found) -> (Neighbors, Recall) {
        let (n, k) = (self.table.len(), self.k);
        assert_eq!(found.rows, n, "all rows must have been searched for");
        let (mut index, mut similarity) = (vec![0; n * k], vec![0.0; n * k]);
        let rows = self.spans.iter().flat_map(|span| &self.rows[span.clone()]);
        for (&row, (from, cosines)) in rows.zip(found.index.chunks(k).zip(found.similarity.chunks(k))) {
            let to = row as usize * k;
            index[to..to + k].copy_from_slice(from);
            similarity[to..to + k].copy_from_slice(cosines);
        }
        let known = self.measured.rows.iter().zip(self.measured.neighbors.similarity.chunks(k));
        let hits: usize =
            known.map(|(&row, truth)| similarity[row as usize * k..][..k].iter().filter(|&&s| s >= truth[k - 1]).count()).sum();
        let rows = self.measured.rows.len();
        (Neighbors { k, index, similarity }, Recall { share: hits as f64 / (rows * k) as f64, rows })
    }
}

impl Known {
    /// Searches for rows among all others, exactly.
    fn of(table: &Table, rows: &[u32], k: usize, stop: &Stop) -> Result<Self> {
        let queries = gather(table, rows);
        // A row finds itself as well, unless there are enough copies of it.
        let mut search = Search::new(&queries, table.dim, k + 1, stop)?;
        for (chunk, pool) in table.rows.chunks(CHUNK * table.dim).enumerate() {
            search.feed(pool, chunk * CHUNK)?;
        }
        let all = search.finish()?;
        let (mut index, mut similarity) = (Vec::with_capacity(rows.len() * k), Vec::with_capacity(rows.len() * k));
        for ((near, cosines), &row) in all.index.chunks(k + 1).zip(all.similarity.chunks(k + 1)).zip(rows) {
            let others = near.iter().zip(cosines).filter(|&(&other, _)| other != row).take(k);
            others.for_each(|(&other, &cosine)| {
                index.push(other);
                similarity.push(cosine);
            });
        }
        Ok(Self { rows: rows.to_vec(), neighbors: Neighbors { k, index, similarity } })
    }

    /// The shortest reach with which these rows find so many of their neighbors, surely.
    fn reach(
        &self,
        table: &Table,
        centers: &Int16Rows,
        homes: &[u32],
        spans: &[Range<usize>],
        recall: f64,
        stop: &Stop,
    ) -> std::result::Result<Reach, Stopped> {
        let (k, rows) = (self.neighbors.k, Int16Rows::arranged(table.rows, table.dim, &table.inverse, &self.rows));
        // [rows, C], what the product with a center lacks.
        let gaps: Vec<Vec<i32>> = (0..self.rows.len())
            .into_par_iter()
            .map(|at| {
                stop.check()?;
                let products: Vec<i32> = (0..spans.len()).map(|cell| rows.product(at, centers, cell)).collect();
                let own = products[homes[self.rows[at] as usize] as usize];
                Ok(products.into_iter().map(|product| own.saturating_sub(product)).collect())
            })
            .collect::<std::result::Result<_, _>>()?;
        let needed: Vec<i32> = gaps
            .iter()
            .zip(self.neighbors.index.chunks(k))
            .flat_map(|(gaps, near)| near.iter().map(|&other| gaps[homes[other as usize] as usize]))
            .collect();
        let surely = |slack: i32| {
            let shares = needed.chunks(k).map(|row| row.iter().filter(|&&gap| gap <= slack).count() as f64 / k as f64);
            let shares: Vec<f64> = shares.collect();
            let n = shares.len() as f64;
            let mean = shares.iter().sum::<f64>() / n;
            let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / n;
            mean - SURE * (variance / n).sqrt() >= recall
        };
        let mut sorted = needed.clone();
        sorted.sort_unstable();
        let first = sorted.partition_point(|&slack| !surely(slack));
        let slack = sorted[first.min(sorted.len() - 1)].max(0);
        let visited = gaps.iter().flat_map(|gaps| gaps.iter().zip(spans)).filter(|(gap, _)| **gap <= slack);
        Ok(Reach { slack, visited: visited.map(|(_, span)| span.len() as f64).sum::<f64>() / self.rows.len() as f64 })
    }
}

/// Centers [C, D] of unit length, the means of k-means on some rows by cosine. A center without rows stays where it is.
fn centers(table: &Table, sample: &[u32], count: usize, passes: usize, stop: &Stop) -> Result<Vec<f32>> {
    let dim = table.dim;
    let rows = gather(table, sample);
    let mut centers = rows[..count * dim].to_vec();
    for _ in 0..passes {
        let homes = nearest(&rows, &centers, dim, 1, stop)?.index;
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (row, &home) in homes.iter().enumerate() {
            members[home as usize].push(row);
        }
        centers.par_chunks_mut(dim).zip(&members).for_each(|(center, members)| {
            let mut sum = vec![0.0_f64; dim];
            for &row in members {
                sum.iter_mut().zip(&rows[row * dim..][..dim]).for_each(|(sum, &x)| *sum += f64::from(x));
            }
            let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
            if length >= FLOOR {
                center.iter_mut().zip(&sum).for_each(|(x, sum)| *x = (sum / length) as f32);
            }
        });
    }
    Ok(centers)
}

/// Rows [N, D], one after the other.
fn gather(table: &Table, rows: &[u32]) -> Vec<f32> {
    rows.iter().flat_map(|&row| table.rows_of(row as usize, row as usize + 1)).copied().collect()
}

/// The places of rows, cell after cell, and of each cell its own.
fn arrange(homes: &[u32], cells: usize) -> (Vec<u32>, Vec<Range<usize>>) {
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); cells];
    for (row, &home) in homes.iter().enumerate() {
        members[home as usize].push(row as u32);
    }
    let (mut places, mut spans) = (Vec::new(), Vec::with_capacity(cells));
    for rows in members {
        spans.push(places.len()..places.len() + rows.len());
        places.extend(rows);
        places.resize(places.len().next_multiple_of(GROUP), NOBODY);
    }
    (places, spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbors::{NeighborError, all_pairs};
    use kinset_math::cosine::normalize_rows;

    /// Many cells and a small sample, for few rows.
    const SMALL: Method = Method { cells: 1.0, fitted: 32, passes: 4, known: 400 };

    /// Rows around directions, `spread` of the length apart.
    fn around(directions: usize, rows: usize, dim: usize, spread: f64) -> Vec<f32> {
        let mut rng = Seed::new(1).rng();
        let centers: Vec<f64> = (0..directions * dim).map(|_| rng.normal()).collect();
        let mut rows: Vec<f32> = (0..rows)
            .flat_map(|row| centers[row % directions * dim..][..dim].to_vec())
            .map(|x| (x + spread * rng.normal()) as f32)
            .collect();
        assert!(normalize_rows(&mut rows, dim).is_empty());
        rows
    }

    fn exact(rows: &[f32], dim: usize, k: usize) -> Neighbors {
        all_pairs(rows, dim, k, &Stop::default(), &mut |_, _| {}).unwrap()
    }

    fn cells(rows: &[f32], dim: usize, k: usize, recall: f64) -> Cells<'_> {
        Cells::with(SMALL, rows, dim, k, recall, &Stop::default()).unwrap()
    }

    fn search(cells: &Cells<'_>) -> (Neighbors, Recall) {
        let mut found = Found::default();
        while cells.search(&mut found, &Stop::default()).unwrap() {}
        cells.finish(&found)
    }

    /// The share of rows of `found` that are among those of `truth`.
    fn common(found: &Neighbors, truth: &Neighbors) -> f64 {
        let rows = found.index.chunks(found.k).zip(truth.index.chunks(truth.k));
        let hits: usize = rows.map(|(found, truth)| found.iter().filter(|row| truth.contains(row)).count()).sum();
        hits as f64 / truth.index.len() as f64
    }

    #[test]
    fn nearly_all_neighbors_are_found_with_little_work_and_the_measured_recall_is_that_of_all_rows() {
        let (rows, k) = (around(60, 6000, 16, 0.2), 10);
        let cells = cells(&rows, 16, k, 0.95);
        assert!(cells.visited() < 0.25, "{}", cells.visited());
        let ((found, recall), truth) = (search(&cells), exact(&rows, 16, k));
        let share = common(&found, &truth);
        assert!((0.95..1.0).contains(&share), "{share}");
        assert_eq!(recall.rows, 400);
        assert!((recall.share - share).abs() < 0.02, "{recall:?} {share}");
        for (row, (near, cosines)) in found.index.chunks(k).zip(found.similarity.chunks(k)).enumerate() {
            assert!(!near.contains(&(row as u32)) && cosines.is_sorted_by(|a, b| a >= b), "{row}");
        }
    }

    #[test]
    fn a_higher_recall_is_more_work_and_all_of_it_is_the_exact_search() {
        let rows = around(20, 1500, 8, 0.5);
        let (some, most, all) = (cells(&rows, 8, 5, 0.5), cells(&rows, 8, 5, 0.95), cells(&rows, 8, 5, 1.0));
        assert!(some.work() < most.work() && most.work() < all.work());
        let everywhere = Cells { reach: Reach { slack: i32::MAX, visited: 1500.0 }, ..all };
        let (found, recall) = search(&everywhere);
        assert_eq!(found, exact(&rows, 8, 5));
        assert!((recall.share - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn rows_without_structure_are_as_much_work_as_the_exact_search() {
        let rows = around(1, 3000, 64, 50.0);
        assert!(cells(&rows, 64, 5, 0.99).work() > 1.0);
    }

    #[test]
    fn copies_are_neighbors_of_each_other_in_the_order_of_their_rows() {
        let rows: Vec<f32> = around(1, 1, 6, 1.0).repeat(300);
        let (found, recall) = search(&cells(&rows, 6, 3, 0.9));
        assert_eq!(found, exact(&rows, 6, 3));
        assert!((recall.share - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_row_whose_cells_hold_too_few_looks_further() {
        // 100 cells of about four rows that are alike: 20 neighbors are never in one of them.
        let rows = around(100, 400, 12, 0.01);
        let method = Method { cells: 5.0, ..SMALL };
        let mut cells = Cells::with(method, &rows, 12, 20, 0.5, &Stop::default()).unwrap();
        cells.reach.slack = 0;
        let (found, _) = search(&cells);
        assert_eq!(found.index.len(), 400 * 20);
        let truth = exact(&rows, 12, 20);
        assert!(found.index.chunks(20).zip(truth.index.chunks(20)).all(|(found, truth)| found[..3] == truth[..3]));
    }

    #[test]
    fn what_is_found_is_pinned_for_every_instruction_set() {
        // Moving this moves the results of `neighbors`: raise its VERSION.
        let rows = around(60, 3000, 16, 0.4);
        let cells = Cells::new(&rows, 16, 10, 0.9, &Stop::default()).unwrap();
        let (found, recall) = search(&cells);
        let digest =
            found.index.iter().fold(0_u64, |sum, &row| sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(row.into()));
        assert_eq!((cells.count(), cells.reach.slack, digest), PINNED);
        assert!(recall.share > 0.9 && recall.share < 1.0, "{recall:?}");
    }

    /// The number of cells, the slack, and a digest of the neighbors.
    const PINNED: (usize, i32, u64) = (110, 24_958_473, 14_673_930_186_766_940_110);

    #[test]
    fn two_rows_have_each_other_and_bad_rows_are_refused() {
        let (found, recall) = search(&cells(&[1.0, 0.0, 0.0, 1.0], 2, 1, 0.9));
        assert_eq!((found.index, recall), (vec![1, 0], Recall { share: 1.0, rows: 1 }));
        let refused = |rows: &[f32], k| Cells::new(rows, 2, k, 0.9, &Stop::default()).unwrap_err();
        assert_eq!(refused(&[1.0, 0.0, 0.0, f32::NAN], 1), NeighborError::NotFinite { row: 1 });
        assert_eq!(refused(&[1.0, 0.0, 0.0, 0.0], 1), NeighborError::ZeroRow { row: 1 });
        assert_eq!(refused(&[1.0, 0.0, 0.0, 1.0], 2), NeighborError::TooFew { k: 2, others: 1 });
        assert_eq!(refused(&[1.0, 0.0, 0.0, 1.0], 0), NeighborError::NoneAsked);
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads_and_large_cells_are_cut() {
        // 2,000 copies of one row are one cell, and three blocks.
        let mut rows = around(30, 1500, 10, 0.3);
        let copies = rows[..10].repeat(2000);
        rows.extend(copies);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let cells = cells(&rows, 10, 7, 0.9);
                let of = |cell: usize| cells.blocks.iter().filter(|block| block.0 == cell).count();
                assert_eq!((0..cells.count()).map(of).max(), Some(3));
                assert!(cells.blocks.iter().all(|(_, places)| places.len() <= BLOCK));
                let (found, recall) = search(&cells);
                (found.index, found.similarity.iter().map(|s| s.to_bits()).collect::<Vec<_>>(), recall)
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn a_search_that_is_stopped_goes_on_to_the_same_neighbors_and_only_with_its_own() {
        let rows = around(200, 4000, 4, 0.3);
        let cells = Cells::with(Method { cells: 4.0, ..SMALL }, &rows, 4, 5, 0.9, &Stop::default()).unwrap();
        assert!(cells.blocks.len() > WAVE);
        let (mut found, never) = (Found::default(), Stop::after(u64::MAX));
        assert!(cells.search(&mut found, &never).unwrap());
        assert!(never.looks() as usize >= WAVE);
        let one = found.clone();
        assert_eq!(cells.next(&one), Some(WAVE));
        assert_eq!(cells.search(&mut found, &Stop::after(3)), Err(NeighborError::Stopped(Stopped)));
        assert_eq!(found, one, "nothing was added");
        while cells.search(&mut found, &Stop::default()).unwrap() {}
        assert_eq!(cells.finish(&found), search(&cells));
        assert_eq!(cells.next(&Found { rows: one.rows - 1, ..one.clone() }), None);
        assert_eq!(cells.next(&Found { rows: 5000, ..one }), None);
        let stopped = Cells::new(&rows, 4, 5, 0.9, &Stop::after(20)).unwrap_err();
        assert_eq!(stopped, NeighborError::Stopped(Stopped));
    }
}
