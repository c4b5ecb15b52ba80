//! The exact nearest images of a pool for every image of a target, while the pool streams by.
//!
//! Memory holds the target, k candidates for each of its images, and one row group of the pool; the cost is pool × target. Each
//! row group is searched by itself, so what was found is kept after every one, and neither a kill nor the way a pool is cut
//! changes a bit of the result. One stage per shard of a pool: a new shard costs only itself.

use super::progress::{Candidate, Progress, keep};
use kinset_artifact::features::{FeatureReader, FeatureTable, Features};
use kinset_artifact::matches::{MatchTable, Matches};
use kinset_artifact::{Draft, Stored};
use kinset_kernel::gemm::Gemm;
use kinset_kernel::neighbors::{NeighborError, Search};
use kinset_math::cosine;
use kinset_math::curate::choose::Edge;
use kinset_math::curate::join::Rows;
use kinset_math::curate::repeats::{self, Rule};
use kinset_stage::{Context, Stage, StageError, Stop};

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Images of the pool per image of the target.
        k: usize = 20, min 1;
        /// How repetitions in the target are left out before the search.
        dedup: Rule = Rule::Greedy;
        /// Target images whose cosine is this or more repeat each other (the fork's `dist_thr`).
        dedup_sim: f64 = 0.98, within -1..=1, because "it is a cosine similarity";
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// `[T, D]`: what shall be looked like.
        target: Stored<Features>,
        /// `[N, D]`: what is chosen from, or one shard of it.
        pool: Stored<Features>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// `[T, k]`.
        matches: Draft<Matches>,
    }
}

/// The search.
#[derive(Debug)]
pub struct Retrieve;

impl Stage for Retrieve {
    const KIND: &'static str = "retrieve";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "find the exact nearest pool images of every target image; the pool is streamed";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let target = load_target(&input.target)?;
        let pool = FeatureReader::open(&input.pool)?;
        same_dim(target.dim, TARGET, &pool, input.pool.origin())?;
        if config.dedup != Rule::None && config.dedup_sim < 0.5 {
            cx.warn(format!(
                "dedup_sim is {}: target images above this similarity count as near-duplicates; it is a similarity, not a distance",
                config.dedup_sim
            ));
        }
        let repeats = repeats::find(&Rows::new(&target.values, target.dim), config.dedup, config.dedup_sim, &Gemm, &cx.stop)?;
        let kept: Vec<u32> = (0..target.len() as u32).filter(|&row| repeats.kept[row as usize]).collect();
        if kept.is_empty() {
            return Err(StageError::Mismatch {
                what: format!("every one of {} target images has a near-duplicate", target.len()),
                hint: "use `dedup = \"greedy\"`, which keeps one of each, or raise `dedup_sim`".into(),
            });
        }
        if kept.len() < target.len() {
            cx.note(format!(
                "{} of {} target images are searched for, the others are near-duplicates",
                kept.len(),
                target.len()
            ));
        }
        if pool.len() < config.k {
            cx.warn(format!("the pool has {} images, fewer than `k`, which is {}", pool.len(), config.k));
        }
        let queries: Vec<f32> = kept.iter().flat_map(|&row| target.row(row as usize).iter().copied()).collect();
        let best = search(&queries, &pool, config.k, cx)?;
        let edges = kept.iter().zip(&best).flat_map(|(&target, list)| {
            (1..).zip(list).map(move |(rank, &(cosine, pool))| Edge { target, pool, rank, cosine })
        });
        let table = MatchTable {
            repeats,
            k: config.k,
            pool: pool.len(),
            edges: edges.collect(),
            targets: target.ids,
            target_digest: input.target.digest().hex(),
            pool_digest: input.pool.digest().hex(),
        };
        Ok(Out { matches: table.save(&cx.out("matches")?, |row| &pool.ids()[row as usize])? })
    }
}

/// A target in memory, of unit length.
///
/// # Errors
/// If it cannot be read, or an image has no direction.
pub fn load_target(stored: &Stored<Features>) -> Result<FeatureTable, StageError> {
    let mut target = FeatureTable::load(stored)?;
    if !target.normalized {
        target.normalized = cosine::normalize_rows(&mut target.values, target.dim).is_empty();
    }
    let zero = (0..target.len()).find(|&row| cosine::norm(target.row(row)) < cosine::FLOOR);
    match zero {
        None => Ok(target),
        Some(row) => Err(StageError::Mismatch {
            what: format!("the features of `{}` are all 0 in row {row}, `{}`", stored.origin(), target.ids[row]),
            hint: "the cosine similarity with a zero vector is undefined; leave this image out".into(),
        }),
    }
}

/// The word for a target whose dimension others must have.
pub const TARGET: &str = "the target";

/// Refuses features of another dimension than `whose`.
pub fn same_dim(dim: usize, whose: &str, other: &FeatureReader, origin: &str) -> Result<(), StageError> {
    if dim == other.dim() {
        return Ok(());
    }
    Err(StageError::Mismatch {
        what: format!("{whose} has features of {dim} numbers, those of `{origin}` have {}", other.dim()),
        hint: "features are comparable only if one encoder made both: embed all images with the same one".into(),
    })
}

/// The vectors of a row group, of unit length.
///
/// # Errors
/// If they cannot be read, or one has no direction.
pub fn unit_group(pool: &FeatureReader, group: usize, first: usize) -> Result<Vec<f32>, StageError> {
    let mut values = pool.group(group, first)?;
    if !pool.normalized()
        && let Some(&row) = cosine::normalize_rows(&mut values, pool.dim()).first()
    {
        return Err(StageError::other(NeighborError::ZeroRow { row: first + row }));
    }
    Ok(values)
}

/// The `k` best pool images of each query, all if there are fewer.
fn search(queries: &[f32], pool: &FeatureReader, k: usize, cx: &Context<'_>) -> Result<Vec<Vec<Candidate>>, StageError> {
    let rows = Rows::new(queries, pool.dim());
    let unfinished = cx.unfinished("retrieve 1");
    let kept: Option<Progress> = unfinished.load()?.filter(|progress: &Progress| progress.best.len() == rows.len());
    let mut progress = kept.unwrap_or_else(|| Progress::new(rows.len()));
    if progress.groups > 0 {
        cx.note(format!("resuming at row {} of {}", progress.rows, pool.len()));
    }
    let bar = cx.bar(pool.len() as u64, "pool images");
    bar.advance(progress.rows as u64);
    let read = |group: usize, first: usize| {
        if group < pool.groups() { unit_group(pool, group, first) } else { Ok(Vec::new()) }
    };
    let mut values = read(progress.groups, progress.rows)?;
    while progress.groups < pool.groups() {
        unfinished.save_when_stopped(cx.check(), &progress)?;
        let (group, first, count) = (progress.groups, progress.rows, values.len() / pool.dim());
        let best = &mut progress.best;
        // The next row group is read while this one is searched.
        let (found, next) =
            rayon::join(|| search_group(&rows, queries, &values, first, k, best, &cx.stop), || read(group + 1, first + count));
        unfinished.save_when_stopped(found.map_err(StageError::other), &progress)?;
        progress.groups += 1;
        progress.rows += count;
        values = next?;
        bar.advance(count as u64);
        if progress.groups < pool.groups() {
            unfinished.save_when_due(&progress)?;
        }
    }
    Ok(progress.best)
}

/// Adds the nearest of one row group, whose first row is `first`, to the best so far; these stay as they are if it is asked to stop.
fn search_group(
    rows: &Rows,
    queries: &[f32],
    values: &[f32],
    first: usize,
    k: usize,
    best: &mut [Vec<Candidate>],
    stop: &Stop,
) -> Result<(), NeighborError> {
    let dim = queries.len() / rows.len();
    let each = k.min(values.len() / dim);
    if each == 0 {
        return Ok(());
    }
    let mut search = Search::new(queries, dim, each, stop)?;
    search.feed(values, first)?;
    let found = search.finish()?;
    // The search rounds its cosines; to compare row groups they are needed as they are.
    let group = Rows::new(values, dim);
    for (query, best) in best.iter_mut().enumerate() {
        let near = found.index[query * each..(query + 1) * each].iter();
        best.extend(near.map(|&row| (rows.cosine(query, &group, row as usize - first), row)));
        keep(best, k);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::features::FeaturesWriter;
    use kinset_base::fs;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_stage::Settings;
    use kinset_stage::testing::Heard;
    use kinset_store::digest::Digest;

    fn random(n: usize, dim: usize, seed: u64) -> Vec<f32> {
        let mut rng = Seed::new(seed).rng();
        let mut rows: Vec<f32> = (0..n * dim).map(|_| rng.below(5) as f32 - 2.0).collect();
        rows.chunks_mut(dim).filter(|row| row.iter().all(|x| *x == 0.0)).for_each(|row| row[0] = 1.0);
        assert!(cosine::normalize_rows(&mut rows, dim).is_empty());
        rows
    }

    fn stored(folder: &Path, values: &[f32], dim: usize) -> Stored<Features> {
        fs::create_folders(folder).unwrap();
        let mut writer = FeaturesWriter::create(folder, dim, true, "test", "test").unwrap();
        for (piece, values) in values.chunks(1000 * dim).enumerate() {
            let ids: Vec<String> = (0..values.len() / dim).map(|i| format!("{:07}", piece * 1000 + i)).collect();
            writer.push(&ids, values).unwrap();
        }
        let draft = writer.finish().unwrap();
        Stored::new(vec![draft.files[0].path.clone()], Digest::of(b"test"), "test")
    }

    /// One run in a folder.
    fn run(
        dir: &Path,
        config: &Config,
        target: &Stored<Features>,
        pool: &Stored<Features>,
        stop: &Stop,
    ) -> Result<(MatchTable, Vec<String>), StageError> {
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let (work, out) = (dir.join("work"), dir.join("out"));
        fs::create_folders(&work).unwrap();
        let cx = Context::new("matches", Device::Cpu, Seed::new(1), &places, stop.clone(), work, out, &heard);
        let input = In { target: target.clone(), pool: pool.clone() };
        let found = Retrieve::run(config, input, &cx)?;
        let stored = Stored::new(found.matches.files.iter().map(|file| file.path.clone()).collect(), Digest::of(b"m"), "m");
        let heard = heard.texts();
        Ok((MatchTable::load(&stored).unwrap(), heard))
    }

    #[test]
    fn matches_equal_brute_force_in_double_precision_with_ties_and_copies() {
        let dir = tempfile::tempdir().unwrap();
        let (dim, k) = (3, 7);
        let (target, pool) = (random(40, dim, 1), random(70_000, dim, 2));
        let (t, p) = (stored(&dir.path().join("t"), &target, dim), stored(&dir.path().join("p"), &pool, dim));
        let config = Config { k, dedup: Rule::None, ..Config::default() };
        let (found, _) = run(dir.path(), &config, &t, &p, &Stop::default()).unwrap();
        let (a, b) = (Rows::new(&target, dim), Rows::new(&pool, dim));
        for query in 0..40 {
            let mut all: Vec<Candidate> = (0..70_000).map(|row| (a.cosine(query, &b, row), row as u32)).collect();
            keep(&mut all, k);
            let edges = &found.edges[query * k..(query + 1) * k];
            assert_eq!(edges.iter().map(|e| (e.cosine, e.pool)).collect::<Vec<_>>(), all, "query {query}");
            assert_eq!(edges.iter().map(|e| e.rank).collect::<Vec<_>>(), (1..=k as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_pool_that_is_the_target_matches_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = Seed::new(5).rng();
        let mut rows: Vec<f32> = (0..300 * 16).map(|_| rng.normal() as f32).collect();
        assert!(cosine::normalize_rows(&mut rows, 16).is_empty());
        let both = stored(&dir.path().join("t"), &rows, 16);
        let config = Config { k: 1, dedup: Rule::None, ..Config::default() };
        let (found, _) = run(dir.path(), &config, &both, &both, &Stop::default()).unwrap();
        for (row, edge) in found.edges.iter().enumerate() {
            assert_eq!((edge.target, edge.pool), (row as u32, row as u32));
            assert!(edge.distance() <= 1e-6);
        }
    }

    #[test]
    fn a_stopped_search_goes_on_to_the_same_matches() {
        let dir = tempfile::tempdir().unwrap();
        let (target, pool) = (random(10, 2, 1), random(140_000, 2, 2));
        let (t, p) = (stored(&dir.path().join("t"), &target, 2), stored(&dir.path().join("p"), &pool, 2));
        let config = Config { k: 5, dedup: Rule::None, ..Config::default() };
        let never = Stop::after(u64::MAX);
        let (expected, _) = run(&dir.path().join("whole"), &config, &t, &p, &never).unwrap();
        // Of three row groups, each with some looks.
        let each = never.looks() / 3;
        let halved = dir.path().join("halved");
        for attempt in 0..2 {
            let stopped = run(&halved, &config, &t, &p, &Stop::after(each + each / 2));
            assert!(matches!(stopped, Err(StageError::Stopped)), "attempt {attempt}");
        }
        let (found, heard) = run(&halved, &config, &t, &p, &Stop::default()).unwrap();
        assert_eq!(found, expected);
        assert!(heard.iter().any(|text| text.contains("resuming at row 131072 of 140000")), "{heard:?}");
    }

    #[test]
    fn repetitions_are_not_searched_for_and_a_threshold_in_the_wrong_unit_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let target = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        let (t, p) = (stored(&dir.path().join("t"), &target, 2), stored(&dir.path().join("p"), &random(50, 2, 3), 2));
        let (found, heard) = run(dir.path(), &Config { k: 2, ..Config::default() }, &t, &p, &Stop::default()).unwrap();
        assert_eq!(found.edges.iter().map(|edge| edge.target).collect::<Vec<_>>(), [0, 0, 2, 2]);
        assert_eq!(found.repeats.representative, [0, 0, 2]);
        assert!(heard.iter().any(|text| text.contains("2 of 3 target images")), "{heard:?}");
        let (_, heard) =
            run(dir.path(), &Config { dedup_sim: 0.1, k: 90, ..Config::default() }, &t, &p, &Stop::default()).unwrap();
        assert!(heard.iter().any(|text| text.contains("not a distance")), "{heard:?}");
        assert!(heard.iter().any(|text| text.contains("fewer than `k`")), "{heard:?}");
        let copies = stored(&dir.path().join("c"), &target[..4], 2);
        let refused =
            run(dir.path(), &Config { dedup: Rule::Fork, ..Config::default() }, &copies, &p, &Stop::default()).unwrap_err();
        assert!(refused.to_string().contains("has a near-duplicate"), "{refused}");
        let other = stored(&dir.path().join("o"), &random(5, 3, 3), 3);
        let refused = run(dir.path(), &Config::default(), &other, &p, &Stop::default()).unwrap_err();
        assert!(refused.to_string().contains("features of 3 numbers, those of `test` have 2"), "{refused}");
        let complaints = Config { k: 0, dedup_sim: 98.0, ..Config::default() }.check();
        assert_eq!(complaints.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["k", "dedup_sim"]);
    }
}
