//! The search over all pairs of rows: each pair once, from disk, in bounded memory.
//!
//! A *panel* of rows is held, with sketches of them; its rows are compared with each other, and then with all later rows, which stream by. The
//! next panel begins where this one ends. A scan over the sketches names candidates, and a cosine in double precision decides about each that
//! can still change something. Nothing is kept of a pair but who stands for whom and what sets share, so a pool that is all one image costs
//! no more memory than any other, and what was half done when a process was killed may be done again.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::sets::Sets;
use super::shared::{Found, Shared};
use kinset_kernel::near_pairs::{Directions, Room, STEP, Sketches};
use kinset_math::cosine;
use kinset_math::curate::groups::Link;
use kinset_math::curate::join::Rows;
use kinset_math::curate::owners::Owners;
use kinset_math::pca;
use kinset_stage::{Context, StageError};

/// Bytes of vectors in a panel.
const PANEL: usize = 384 << 20;
/// Rows of a panel that are compared by one task; those of a panel's own comparison are settled so many at a time.
const HIGH: usize = 480;
/// Columns of a task.
const WIDE: usize = 4080;
/// Rows that directions are found on, and candidates counted on.
const SAMPLE: usize = 2048;
/// Below this many pairs, directions would cost more than they spare.
const FEW: u64 = 200_000_000;
/// Numbers of directions that are tried.
const COUNTS: [usize; 5] = [7, 15, 31, 63, 127];
/// What a pair costs besides its products, in products of two pairs of numbers.
const FIXED: f64 = 6.0;
/// What a candidate costs in the same unit: two rows from anywhere in memory, and their cosine in double precision.
const CANDIDATE: f64 = 2000.0;

const _: () = assert!(HIGH.is_multiple_of(STEP) && WIDE.is_multiple_of(STEP));

/// What makes a group, and what is compared.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub least: f64,
    pub link: Link,
    /// Compare rows of one set with each other.
    pub within: bool,
}

/// Where a search is, for one that goes on.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    at: Place,
    owners: Vec<u32>,
    shared: Shared,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Place {
    /// The first row of the panel.
    panel: u32,
    /// Rows of the panel that are settled: compared with all of its later ones.
    settled: usize,
    /// The row at which the stream goes on.
    next: u32,
    /// Pairs that are done.
    pairs: u64,
}

/// What was found.
#[derive(Debug)]
pub struct Answer {
    /// `[N]`: the row that stands for each, never a later one.
    pub roots: Vec<u32>,
    pub shared: Shared,
}

/// Rows in memory: the first of each kind of exact copy.
struct Side<'a> {
    /// Their numbers, counted over all sets.
    numbers: &'a [u32],
    rows: Rows<'a>,
    sketches: Sketches,
}

impl<'a> Side<'a> {
    fn new(numbers: &'a [u32], values: &'a [f32], dim: usize, directions: Option<&Directions>) -> Self {
        let inverse: Vec<f64> = values.par_chunks_exact(dim).map(|row| 1.0 / cosine::norm(row)).collect();
        let sketches = Sketches::new(values, dim, &inverse, directions);
        Self { numbers, rows: Rows::new(values, dim), sketches }
    }

    fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The cosine of two rows; 1 of equal ones, which rounding may miss.
    fn cosine(&self, row: usize, other: &Self, column: usize) -> f64 {
        let cosine = self.rows.cosine(row, &other.rows, column);
        if cosine > 1.0 - 1e-9 && self.rows.row(row) == other.rows.row(column) { 1.0 } else { cosine }
    }
}

/// A search on its way.
struct Search<'a> {
    sets: &'a Sets,
    /// The first exact copy of each row.
    heads: &'a [u32],
    /// How many rows a head stands for.
    times: Vec<u32>,
    rule: Rule,
    directions: Option<Directions>,
    panel: usize,
    owners: Owners,
    shared: Shared,
    at: Place,
}

/// Compares all rows; `heads` are the first exact copies, as [`Sets::exact`] finds them.
///
/// # Errors
/// If rows cannot be read, or it is asked to stop: then it goes on from there another time.
pub fn search(sets: &Sets, heads: &[u32], rule: Rule, cx: &Context<'_>) -> Result<Answer, StageError> {
    let directions = if total(sets, heads, rule.within) < FEW { None } else { directions(sets, rule.least, cx)? };
    let panel = (PANEL / (4 * sets.dim())).next_multiple_of(HIGH);
    search_with(sets, heads, rule, directions, panel, cx)
}

fn search_with(
    sets: &Sets,
    heads: &[u32],
    rule: Rule,
    directions: Option<Directions>,
    panel: usize,
    cx: &Context<'_>,
) -> Result<Answer, StageError> {
    let unfinished = cx.unfinished("near_duplicates 1");
    let kept: Option<Saved> = unfinished.load()?.filter(|saved: &Saved| saved.owners.len() == sets.len());
    let (at, owners, shared) = match kept {
        Some(Saved { at, owners, shared }) => (at, Owners::from_saved(owners, rule.link), shared),
        None => (Place::default(), Owners::new(sets.len(), rule.link), Shared::default()),
    };
    let total = total(sets, heads, rule.within);
    if at.pairs > 0 {
        cx.note(format!("resuming after {:.0} % of all pairs", 100.0 * at.pairs as f64 / total.max(1) as f64));
    }
    let mut times = vec![0; sets.len()];
    for &head in heads {
        times[head as usize] += 1;
    }
    let mut search = Search { sets, heads, times, rule, directions, panel, owners, shared, at };
    let bar = cx.bar(total, "pairs");
    bar.advance(at.pairs);
    let mut shown = at.pairs;
    let done = search.go(cx, &mut |search| {
        bar.advance(search.at.pairs - shown);
        shown = search.at.pairs;
        if unfinished.is_due() { unfinished.save(&search.saved()) } else { Ok(()) }
    });
    if matches!(done, Err(StageError::Stopped)) {
        unfinished.save(&search.saved())?;
    }
    done?;
    Ok(Answer { roots: search.roots(), shared: search.shared })
}

/// Pairs of heads that are compared.
fn total(sets: &Sets, heads: &[u32], within: bool) -> u64 {
    let (mut before, mut pairs) = (0, 0);
    for set in sets.all() {
        let own = set.rows.clone().filter(|&row| heads[row as usize] == row).count() as u64;
        pairs += before * own + if within { own * own.saturating_sub(1) / 2 } else { 0 };
        before += own;
    }
    pairs
}

/// As many directions as make the search cheapest, by a count of candidates on some of the rows; none if whole rows are cheaper. Only speed depends on
/// it.
fn directions(sets: &Sets, least: f64, cx: &Context<'_>) -> Result<Option<Directions>, StageError> {
    let (dim, step) = (sets.dim(), sets.len().div_ceil(SAMPLE).max(1));
    let rows: Vec<u32> = (0..sets.len() as u32).step_by(step).collect();
    let values = sets.some(&rows)?;
    cx.check()?;
    let most = COUNTS.into_iter().filter(|count| 4 * (count + 1) <= 3 * dim).max();
    let Some(most) = most else { return Ok(None) };
    let ways = pca::longest(&values, dim, most);
    let cost = |directions: Option<&Directions>, numbers: usize| {
        let side = Side::new(&rows, &values, dim, directions);
        let starts: Vec<usize> = (0..side.len()).step_by(HIGH).collect();
        let candidates: usize = starts
            .into_par_iter()
            .map_init(Room::default, |room, first| {
                let (mut count, upto) = (0, (first + HIGH).min(side.len()));
                side.sketches.candidates(first..upto, &side.sketches, first..side.len(), least, room, |row, column| {
                    count += usize::from(row < column);
                });
                count
            })
            .sum();
        let pairs = (rows.len() * rows.len().saturating_sub(1) / 2).max(1);
        numbers as f64 / 2.0 + FIXED + CANDIDATE * candidates as f64 / pairs as f64
    };
    let mut best = (cost(None, dim), None);
    for count in COUNTS.into_iter().filter(|count| *count <= most) {
        cx.check()?;
        let directions = Directions::new(&ways[..count * dim], dim);
        let cost = cost(Some(&directions), count + 1);
        if cost < best.0 {
            best = (cost, Some(directions));
        }
    }
    Ok(best.1)
}

/// What hears of progress.
type Told<'a> = &'a mut dyn FnMut(&Search<'_>) -> Result<(), StageError>;

impl Search<'_> {
    fn saved(&self) -> Saved {
        Saved { at: self.at, owners: self.owners.saved(), shared: self.shared.clone() }
    }

    /// Copies go where the first of them went.
    fn roots(&self) -> Vec<u32> {
        let roots = self.owners.roots();
        self.heads.iter().map(|&head| roots[head as usize]).collect()
    }

    fn is_head(&self, row: u32) -> bool {
        self.heads[row as usize] == row
    }

    fn go(&mut self, cx: &Context<'_>, told: Told<'_>) -> Result<(), StageError> {
        let sets = self.sets;
        while (self.at.panel as usize) < sets.len() {
            let (set, _) = sets.place(self.at.panel);
            let (numbers, values) = self.load(set, self.at.panel, cx)?;
            let end = match numbers.last() {
                Some(last) if numbers.len() == self.panel => last + 1,
                _ => sets.all()[set].rows.end,
            };
            let directions = self.directions.take();
            let done = {
                let panel = Side::new(&numbers, &values, sets.dim(), directions.as_ref());
                let inside = if self.rule.within { self.inside(&panel, cx, told) } else { Ok(()) };
                inside.and_then(|()| self.stream(&panel, set, end, directions.as_ref(), cx, told))
            };
            self.directions = directions;
            done?;
            self.at = Place { panel: end, settled: 0, next: 0, pairs: self.at.pairs };
            told(self)?;
        }
        Ok(())
    }

    /// The heads of a set from a row on, as many as a panel holds.
    fn load(&self, set: usize, from: u32, cx: &Context<'_>) -> Result<(Vec<u32>, Vec<f32>), StageError> {
        let dim = self.sets.dim();
        let room = ((self.sets.all()[set].rows.end - from) as usize).min(self.panel);
        let (mut numbers, mut values) = (Vec::with_capacity(room), Vec::with_capacity(room * dim));
        let read = self.sets.blocks(set, from, |first, rows| {
            cx.check()?;
            for (number, row) in (first..).zip(rows.chunks_exact(dim)).filter(|(number, _)| self.is_head(*number)) {
                if numbers.len() < self.panel {
                    numbers.push(number);
                    values.extend_from_slice(row);
                }
            }
            // What comes after a full panel need not be read.
            if numbers.len() == self.panel { Err(StageError::Stopped) } else { Ok(()) }
        });
        if numbers.len() < self.panel {
            read?;
        }
        Ok((numbers, values))
    }

    /// Compares the rows of a panel with each other, in their order, so that it is known of every row whether it stands for itself when its later
    /// pairs come.
    fn inside(&mut self, panel: &Side<'_>, cx: &Context<'_>, told: Told<'_>) -> Result<(), StageError> {
        let (least, owners, stop) = (self.rule.least, &self.owners, &cx.stop);
        let number = |row: usize| panel.numbers[row];
        let mut room = Room::default();
        for first in (self.at.settled..panel.len()).step_by(HIGH) {
            cx.check()?;
            let upto = (first + HIGH).min(panel.len());
            let mut near: Vec<(u32, u32)> = Vec::new();
            panel.sketches.candidates(first..upto, &panel.sketches, first..upto, least, &mut room, |row, column| {
                if row < column && owners.matters(number(row), number(column)) && panel.cosine(row, panel, column) >= least {
                    near.push((number(row), number(column)));
                }
            });
            near.sort_unstable();
            for (row, column) in near {
                owners.join(row, column);
            }
            let tasks: Vec<usize> = (upto..panel.len()).step_by(WIDE).collect();
            tasks.into_par_iter().try_for_each_init(Room::default, |room, from| {
                stop.check()?;
                let columns = from..(from + WIDE).min(panel.len());
                panel.sketches.candidates(first..upto, &panel.sketches, columns, least, room, |row, column| {
                    let (one, other) = (number(row), number(column));
                    if owners.matters(one, other) && panel.cosine(row, panel, column) >= least {
                        owners.join(one, other);
                    }
                });
                Ok::<_, StageError>(())
            })?;
            self.at.settled = upto;
            self.at.pairs += (first..upto).map(|row| (panel.len() - 1 - row) as u64).sum::<u64>();
            told(self)?;
        }
        Ok(())
    }

    /// Compares a panel with all rows after its end, in its own set and in later ones.
    fn stream(
        &mut self,
        panel: &Side<'_>,
        set: usize,
        end: u32,
        directions: Option<&Directions>,
        cx: &Context<'_>,
        told: Told<'_>,
    ) -> Result<(), StageError> {
        let (sets, dim) = (self.sets, self.sets.dim());
        for (other, later) in sets.all().iter().enumerate().skip(set) {
            let begin = self.at.next.max(end).max(later.rows.start);
            if other == set && !self.rule.within || begin >= later.rows.end {
                continue;
            }
            sets.blocks(other, begin, |first, values| {
                cx.check()?;
                let all = first..first + (values.len() / dim) as u32;
                let numbers: Vec<u32> = all.clone().filter(|&row| self.is_head(row)).collect();
                // Most sets have few exact copies, or none.
                let kept: Vec<f32>;
                let values = if numbers.len() == all.len() {
                    values
                } else {
                    let row = |row: &u32| &values[(row - first) as usize * dim..][..dim];
                    kept = numbers.iter().flat_map(row).copied().collect();
                    &kept
                };
                let block = Side::new(&numbers, values, dim, directions);
                let found = self.cross(panel, &block, other != set, cx)?;
                let begin = sets.all()[set].rows.start;
                for found in found {
                    self.shared.add(other, set, begin, found);
                }
                self.at.next = all.end;
                self.at.pairs += panel.len() as u64 * block.len() as u64;
                told(self)
            })?;
        }
        Ok(())
    }

    /// Compares a panel with a block of later rows; `across` if these are of another set.
    fn cross(&self, panel: &Side<'_>, block: &Side<'_>, across: bool, cx: &Context<'_>) -> Result<Vec<Found>, StageError> {
        let (least, owners, stop) = (self.rule.least, &self.owners, &cx.stop);
        let columns = || (0..block.len()).step_by(WIDE);
        let tasks: Vec<(usize, usize)> =
            (0..panel.len()).step_by(HIGH).flat_map(|row| columns().map(move |column| (row, column))).collect();
        tasks
            .into_par_iter()
            .map_init(Room::default, |room, (first, from)| {
                stop.check()?;
                let (rows, columns) = (first..(first + HIGH).min(panel.len()), from..(from + WIDE).min(block.len()));
                let mut found = Found::default();
                panel.sketches.candidates(rows, &block.sketches, columns, least, room, |row, column| {
                    let (one, other) = (panel.numbers[row], block.numbers[column]);
                    // What sets share is said of every pair; of one set only what may still change a group.
                    if !across && !owners.matters(one, other) {
                        return;
                    }
                    let cosine = panel.cosine(row, block, column);
                    if cosine >= least {
                        owners.join(one, other);
                        if across {
                            found.take(one, self.times[one as usize], other, cosine);
                        }
                    }
                });
                Ok(found)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use kinset_artifact::Stored;
    use kinset_artifact::features::{Features, FeaturesWriter};
    use kinset_base::fs;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;
    use kinset_store::digest::Digest;

    #[test]
    fn panels_directions_and_threads_move_nothing() {
        let (dir, dim) = (tempfile::tempdir().unwrap(), 40);
        let mut rng = Seed::new(1).rng();
        let centers: Vec<f64> = (0..300 * dim).map(|_| rng.normal()).collect();
        let table = |name: &str, count: usize, rng: &mut kinset_base::seed::Rng| -> Stored<Features> {
            let mut values: Vec<f32> = (0..count)
                .flat_map(|_| {
                    let (center, spread) = (rng.below(300) * dim, 0.05 * (1 + rng.below(4)) as f64);
                    (center..center + dim).map(|at| (centers[at] + spread * rng.normal()) as f32).collect::<Vec<_>>()
                })
                .collect();
            assert!(cosine::normalize_rows(&mut values, dim).is_empty());
            let folder = dir.path().join(name);
            fs::create_folders(&folder).unwrap();
            let mut writer = FeaturesWriter::create(&folder, dim, true, "test", "test").unwrap();
            let ids: Vec<String> = (0..count).map(|row| format!("{name} {row}")).collect();
            writer.push(&ids, &values).unwrap();
            let draft = writer.finish().unwrap();
            Stored::new(vec![draft.files[0].path.clone()], Digest::of(name.as_bytes()), name)
        };
        let (pool, test) = (table("pool", 5000, &mut rng), table("test", 700, &mut rng));
        let open = || {
            Sets::open(vec![("pool".into(), std::slice::from_ref(&pool)), ("held_out[0]".into(), std::slice::from_ref(&test))])
        };
        let sets = open().unwrap();
        let heads = sets.exact(&Stop::default(), |_| {}).unwrap();
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let find = |name: &str, link, panel, count: usize, threads| {
            let work = dir.path().join(name);
            fs::create_folders(&work).unwrap();
            let cx = Context::new("near", Device::Cpu, Seed::new(1), &places, Stop::default(), work.clone(), work, &heard);
            let rule = Rule { least: 0.98, link, within: true };
            let sample = sets.some(&(0..1000).collect::<Vec<u32>>()).unwrap();
            let directions = (count > 0).then(|| Directions::new(&pca::longest(&sample, dim, count), dim));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| search_with(&sets, &heads, rule, directions, panel, &cx)).unwrap()
        };
        for link in [Link::Star, Link::Chain] {
            let first = find("a", link, 1 << 20, 0, 1);
            let groups = first.roots.iter().enumerate().filter(|(row, root)| *row != **root as usize).count();
            assert!((500..5500).contains(&groups), "{groups}");
            for (name, panel, count, threads) in [("b", 480, 0, 2), ("c", 960, 7, 3), ("d", 4800, 20, 2)] {
                let found = find(name, link, panel, count, threads);
                assert_eq!((&found.roots, &found.shared), (&first.roots, &first.shared), "{link:?}, {name}");
            }
            for name in ["a", "b", "c", "d"] {
                fs::remove_folder(&dir.path().join(name)).unwrap();
            }
        }
        let cx = Context::new("near", Device::Cpu, Seed::new(1), &places, Stop::default(), "".into(), "".into(), &heard);
        assert!(
            directions(&sets, 0.98, &cx).unwrap().is_some_and(|ways| ways.count() <= 31),
            "a sketch is cheaper than whole rows"
        );
    }
}
