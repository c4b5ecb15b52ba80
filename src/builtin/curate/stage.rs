//! A balanced part of a pool: images taken in turn from the clusters of a hierarchy, so that what is rare is not drowned.
//!
//! The clusters of the lowest level take the place of a target: each is named after the image nearest to its center, and every image
//! taken has an edge to its own. So whoever reads a selection reads this one.

use std::collections::BTreeMap;

use super::config::{Config, Pick, Within};
use super::measure;
use crate::similar::pick;
use crate::similar::report::{self, Measure};
use crate::similar::shards::Shards;
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::levels::Levels;
use kinset_artifact::selection::{Chosen, Counts, Judged, Report, Selection, SelectionTable};
use kinset_artifact::{Draft, Stored};
use kinset_base::seed::Seed;
use kinset_base::unit;
use kinset_kernel::gemm::Gemm;
use kinset_math::curate::balanced;
use kinset_math::curate::choose::{Edge, Reason};
use kinset_math::curate::hierarchy::{self, Hierarchy, Level, Points, Take, members};
use kinset_math::curate::join::Rows;
use kinset_math::curate::repeats::Repeats;
use kinset_math::kmeans;
use kinset_stage::{Context, Parts, Stage, StageError};

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// `[N, D]`: what is chosen from, in one shard or several.
        pool: Parts<Vec<Stored<Features>>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The images; each beside the typical image of its cluster.
        selection: Draft<Selection>,
        /// The clusters of each level, and how many of each were taken.
        levels: Draft<Levels>,
    }
}

/// Curation without a target.
#[derive(Debug)]
pub struct Curate;

impl Stage for Curate {
    const KIND: &'static str = "curate";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "select a balanced part of a pool, by hierarchical k-means with resampling; it is streamed";
    const SEEDED: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn fits(config: &Config, images: usize) -> Result<(), StageError> {
        StageError::enough_for_clusters("clusters", config.levels(images)[0], images)
    }

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let pool = Shards::open(&input.pool, None)?;
        cx.read(pool.reading());
        Self::fits(config, pool.len())?;
        let budget = config.budget.unwrap_or(pool.len().div_ceil(10));
        if budget >= pool.len() {
            cx.warn(format!(
                "the pool has {}, and the budget is {budget}: all are taken",
                unit::counted(pool.len() as u64, "image")
            ));
        }
        let mut levels = cluster(config, &pool, cx)?;
        let even = if config.clusters.is_some() { levels.len() } else { measure::even(&levels, pool.dim()) };
        if even < levels.len() {
            let left = unit::counted(levels[even].clusters(pool.dim()) as u64, "cluster");
            cx.chose(format!("levels 1 to {even}: most images are in few of the {left} of the next; `clusters` names levels to use all the same"));
            levels.truncate(even);
        }
        let mut leaves = members(&levels[0].labels, levels[0].clusters(pool.dim()));
        // Of an image that is in two shards the first is there to be taken, in the same leaf.
        for rows in leaves.iter_mut().filter(|rows| rows.iter().any(|&row| !pool.is_copy(row))) {
            rows.retain(|&row| !pool.is_copy(row));
        }
        let order = order(config, &pool, &levels, &leaves, budget, cx)?;
        cx.check()?;
        let table = select(config, &input, &pool, &levels, &leaves, &order, cx)?;
        let selected: Vec<u32> = table.chosen.iter().map(|chosen| chosen.best.pool).collect();
        let random = pick::random(&pool, selected.len(), cx.seed.branch("beside"));
        let levels = measure::table(&levels, &pool, (&selected, &random), cx.seed.branch("levels"), &cx.stop)?;
        let first = &levels.levels[0];
        // Among features without structure k-means leaves most in one cluster, and single ones beside it are given as much.
        if levels.levels.len() > 1 && first.effective_selected < first.effective_random {
            cx.warn(format!(
                "what was taken comes from {:.1} clusters of images in effect, as many random images from {:.1}: the higher levels do not divide \
                 these features evenly; name fewer levels in `clusters`, such as [{}]",
                first.effective_selected, first.effective_random, first.clusters
            ));
        }
        cx.note(format!(
            "{} of {} images, from {}; effective number of clusters {:.1}, of as many random images {:.1}",
            selected.len(),
            pool.len(),
            unit::counted(u64::from(first.clusters), "cluster"),
            first.effective_selected,
            first.effective_random
        ));
        Ok(Out { selection: table.save(&cx.out("selection")?)?, levels: levels.save(&cx.out("levels")?)? })
    }
}

/// The levels, from where a killed run stopped.
fn cluster(config: &Config, pool: &Shards, cx: &Context<'_>) -> Result<Vec<Level>, StageError> {
    let resamples = if config.pick == Pick::Hierarchical { config.resamples } else { 0 };
    let method = Hierarchy {
        clusters: config.levels(pool.len()),
        resamples,
        nearest: config.nearest,
        iterations: config.iterations,
        passes: config.passes,
    };
    let unfinished = cx.unfinished("curate 1");
    let (mut progress, mut sample): (hierarchy::Progress, kmeans::Progress) = unfinished.load()?.unwrap_or_default();
    if progress != hierarchy::Progress::default() || sample != kmeans::Progress::default() {
        cx.note(format!("resuming in level {} of {}", progress.levels.len() + 1, method.clusters.len()));
    }
    let bar = cx.bar((method.clusters.len() * (resamples + 1)) as u64, "clusterings");
    let mut shown = 0;
    let seed = cx.seed.branch("clusters");
    let at = (&mut progress, &mut sample);
    let levels = method.go_on(&Pool(pool), &Gemm, seed, &cx.stop, at, |progress, sample| {
        let over = progress.levels.len() * (resamples + 1) + progress.rounds();
        bar.advance((over - shown) as u64);
        shown = over;
        unfinished.save_when_due(&(progress, sample))
    });
    unfinished.save_when_stopped(levels, &(&progress, &sample))
}

/// What is taken, in the order in which it is.
fn order(
    config: &Config,
    pool: &Shards,
    levels: &[Level],
    leaves: &[Vec<u32>],
    budget: usize,
    cx: &Context<'_>,
) -> Result<Vec<u32>, StageError> {
    let seed = cx.seed.branch(config.pick.word());
    let shuffled = |mut rows: Vec<u32>, seed: Seed| {
        seed.branch("order").rng().shuffle(&mut rows);
        rows
    };
    Ok(match config.pick {
        Pick::Random => shuffled(pick::random(pool, budget, seed), seed),
        Pick::Farthest => pick::farthest(pool, budget, seed, &cx.stop)?,
        Pick::Hierarchical | Pick::Flat => {
            let squares = &levels[0].squares;
            let leaves = leaves.iter().enumerate().map(|(leaf, rows)| match config.within {
                Within::Random => shuffled(rows.clone(), seed.branch("leaf").at(leaf as u64)),
                Within::Nearest => nearest_first(rows.clone(), squares),
            });
            let above: Vec<&[u32]> = levels[1..].iter().map(|level| &level.labels[..]).collect();
            balanced::order(leaves.collect(), &above, budget, seed)
        }
    })
}

fn nearest_first(mut rows: Vec<u32>, squares: &[f32]) -> Vec<u32> {
    rows.sort_by(|&a, &b| squares[a as usize].total_cmp(&squares[b as usize]).then(a.cmp(&b)));
    rows
}

/// What was taken as a selection: the target are the images nearest to the centers of the lowest level.
fn select(
    config: &Config,
    input: &In,
    pool: &Shards,
    levels: &[Level],
    leaves: &[Vec<u32>],
    order: &[u32],
    cx: &Context<'_>,
) -> Result<SelectionTable, StageError> {
    let labels = &levels[0].labels;
    // Leaves hold something, and no image is in two.
    let typical: Vec<u32> = leaves.iter().map(|rows| nearest_first(rows.clone(), &levels[0].squares)[0]).collect();
    let target = FeatureTable {
        ids: typical.iter().map(|&row| pool.id(row).into_owned()).collect(),
        dim: pool.dim(),
        values: in_any_order(pool, &typical)?,
        normalized: true,
        encoder: String::new(),
        layer: String::new(),
    };
    let top = |image: u32| levels[1..].iter().fold(labels[image as usize], |below, level| level.labels[below as usize]);
    let mut selected = vec![0_u32; leaves.len()];
    let mut chosen: Vec<Chosen> = (0..)
        .zip(order)
        .map(|(place, &row)| {
            let leaf = labels[row as usize];
            let rank = &mut selected[leaf as usize];
            *rank += 1;
            let best = Edge { target: leaf, pool: row, rank: *rank, cosine: 0.0 };
            Chosen { id: pool.id(row).into_owned(), order: place, best, targets: 1, copies: 0, cluster: top(row) as i32 }
        })
        .collect();
    chosen.sort_unstable_by_key(|chosen| chosen.best.pool);
    let rows: Vec<u32> = chosen.iter().map(|chosen| chosen.best.pool).collect();
    let targets = Rows::new(&target.values, target.dim);
    pool.stream(&rows, |first, values| {
        let images = Rows::new(values, target.dim);
        for (place, chosen) in chosen[first..first + images.len()].iter_mut().enumerate() {
            chosen.best.cosine = targets.cosine(chosen.best.target as usize, &images, place);
        }
        Ok(())
    })?;
    cx.check()?;
    let kept: Vec<u32> = (0..target.len() as u32).collect();
    let measure = Measure::new(&target, &kept, pool, None, cx.seed.branch("measure"), &cx.stop)?;
    let random = pick::random(pool, rows.len(), cx.seed.branch("beside"));
    let mut edges: Vec<Judged> = chosen
        .iter()
        .map(|chosen| Judged { edge: chosen.best, pool_id: chosen.id.clone(), reason: Reason::Ok, duplicate_of: String::new() })
        .collect();
    edges.sort_by_key(|judged| (judged.edge.target, judged.edge.rank));
    let most = selected.iter().copied().max().unwrap_or(0) as usize;
    let report = Report {
        pick: config.pick.word().into(),
        inputs: BTreeMap::from([("pool".to_owned(), input.pool.iter().map(|stored| stored.digest().hex()).collect())]),
        dim: pool.dim(),
        k: most,
        counts: Counts {
            target: target.len(),
            target_kept: target.len(),
            pool: pool.len(),
            candidates: pool.len(),
            selected: rows.len(),
            uncovered: selected.iter().filter(|count| **count == 0).count(),
        },
        edges: BTreeMap::from([(Reason::Ok.word().to_owned(), edges.len())]),
        ..report::compare(&measure, &rows, &random, None)?.report
    };
    let repeats = Repeats { kept: vec![true; kept.len()], similarity: vec![1.0; kept.len()], representative: kept };
    Ok(SelectionTable {
        pick: config.pick.word().into(),
        k: most,
        chosen,
        edges,
        targets: target.ids,
        repeats,
        selected,
        report,
    })
}

/// Some vectors, of unit length, in the order asked for.
fn in_any_order(pool: &Shards, rows: &[u32]) -> Result<Vec<f32>, StageError> {
    let mut sorted = rows.to_vec();
    sorted.sort_unstable();
    let values = pool.rows(&sorted)?;
    let place = |row: &u32| sorted.partition_point(|other| other < row) * pool.dim();
    Ok(rows.iter().flat_map(|row| &values[place(row)..place(row) + pool.dim()]).copied().collect())
}

/// A pool as the points of the lowest level.
struct Pool<'a>(&'a Shards);

impl Points for Pool<'_> {
    type Error = StageError;

    fn count(&self) -> usize {
        self.0.len()
    }

    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn some(&self, rows: &[u32]) -> Result<Vec<f32>, StageError> {
        self.0.rows(rows)
    }

    fn blocks(&self, from: usize, take: Take<'_, StageError>) -> Result<(), StageError> {
        self.0.blocks(from, hierarchy::BLOCK, take)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::Artifact;
    use kinset_artifact::features::FeaturesWriter;
    use kinset_artifact::levels::LevelTable;
    use kinset_base::fs;
    use kinset_base::search_path::DataPaths;
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;
    use kinset_store::digest::Digest;

    /// Directions of a plane: many around one, few around each of three others. The name of an image tells around which.
    fn uneven(sizes: [usize; 4]) -> (Vec<String>, Vec<f32>) {
        let mut rng = Seed::new(1).rng();
        let mut rows: Vec<(String, [f32; 2])> = Vec::new();
        for (place, size) in sizes.into_iter().enumerate() {
            for number in 0..size {
                let angle = 1.5 * place as f64 + 0.1 * rng.normal();
                rows.push((format!("{place} {number}"), [angle.cos() as f32, angle.sin() as f32]));
            }
        }
        rng.shuffle(&mut rows);
        (rows.iter().map(|(id, _)| id.clone()).collect(), rows.into_iter().flat_map(|(_, row)| row).collect())
    }

    fn stored(folder: &Path, ids: &[String], values: &[f32]) -> Stored<Features> {
        fs::create_folders(folder).unwrap();
        let mut writer = FeaturesWriter::create(folder, 2, false, "test", "test").unwrap();
        for (ids, values) in ids.chunks(1000).zip(values.chunks(2000)) {
            writer.push(ids, values).unwrap();
        }
        let draft = writer.finish().unwrap();
        Stored::new(vec![draft.files[0].path.clone()], Digest::of(folder.as_os_str().as_encoded_bytes()), "test")
    }

    /// One run in a folder.
    fn run(
        dir: &Path,
        config: &Config,
        pool: &[Stored<Features>],
        stop: &Stop,
    ) -> Result<(SelectionTable, LevelTable), StageError> {
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let (work, out) = (dir.join("work"), dir.join("out"));
        fs::create_folders(&work).unwrap();
        let cx = Context::new("balanced", Device::Cpu, Seed::new(1), &places, stop.clone(), work, out, &heard);
        let out = Curate::run(config, In { pool: Parts(pool.to_vec()) }, &cx)?;
        let paths = |files: &[kinset_artifact::DraftFile]| files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
        assert_eq!(out.selection.files.len(), Selection::FILES.len());
        let selection = Stored::new(paths(&out.selection.files), Digest::of(b"s"), "s");
        let levels = Stored::new(paths(&out.levels.files), Digest::of(b"l"), "l");
        Ok((SelectionTable::load(&selection).unwrap(), LevelTable::load(&levels).unwrap()))
    }

    fn config(pick: Pick) -> Config {
        Config { pick, budget: Some(80), clusters: Some(vec![24, 8, 4]), resamples: 3, ..Config::default() }
    }

    /// Images taken around each direction.
    fn around(table: &SelectionTable) -> [usize; 4] {
        let mut counts = [0; 4];
        table.chosen.iter().for_each(|chosen| counts[usize::from(chosen.id.as_bytes()[0] - b'0')] += 1);
        counts
    }

    #[test]
    fn what_is_rare_is_taken_as_often_as_what_is_frequent() {
        let dir = tempfile::tempdir().unwrap();
        let (ids, values) = uneven([4000, 60, 60, 60]);
        let pool = [stored(&dir.path().join("p"), &ids, &values)];
        let of = |pick: Pick| run(&dir.path().join(pick.word()), &config(pick), &pool, &Stop::default()).unwrap();
        let (hierarchical, levels) = of(Pick::Hierarchical);
        let counts = around(&hierarchical);
        assert!(counts.iter().all(|&count| (12..=32).contains(&count)), "{counts:?}");
        assert!(around(&of(Pick::Random).0)[0] > 65);
        assert!(around(&of(Pick::Flat).0)[0] > counts[0]);
        assert!(around(&of(Pick::Farthest).0).iter().all(|&count| count > 0));
        assert_eq!(levels.levels.len(), 3);
        for row in &levels.levels {
            let taken: u32 = levels.of(row.level).iter().map(|cluster| cluster.selected).sum();
            let images: u32 = levels.of(row.level).iter().map(|cluster| cluster.images).sum();
            assert_eq!((taken, images), (80, 4180), "level {}", row.level);
            assert!(row.effective_selected > row.effective_random, "{row:?}");
        }
        assert!(levels.nearest_selected > levels.nearest_random);
        // Every image is beside the typical image of its own cluster, and none is its own target twice.
        assert!(hierarchical.edges.iter().all(|judged| judged.edge.cosine > 0.8));
        assert_eq!(hierarchical.selected.iter().sum::<u32>(), 80);
    }

    #[test]
    fn a_smaller_budget_is_the_beginning_of_a_larger() {
        let dir = tempfile::tempdir().unwrap();
        let (ids, values) = uneven([900, 50, 50, 50]);
        let pool = [stored(&dir.path().join("p"), &ids, &values)];
        for within in [Within::Random, Within::Nearest] {
            let of = |budget| {
                let config = Config { budget: Some(budget), within, ..config(Pick::Hierarchical) };
                let mut chosen =
                    run(&dir.path().join(format!("{within:?}{budget}")), &config, &pool, &Stop::default()).unwrap().0.chosen;
                chosen.sort_by_key(|chosen| chosen.order);
                chosen.into_iter().map(|chosen| chosen.id).collect::<Vec<_>>()
            };
            assert_eq!(of(30), of(200)[..30]);
        }
    }

    #[test]
    fn neither_shards_nor_stops_change_what_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        // More than a block, more than a row group, and more than a sample.
        let (ids, values) = uneven([69_000, 900, 900, 900]);
        let config =
            Config { clusters: Some(vec![40, 6]), resamples: 2, passes: 2, iterations: 4, ..config(Pick::Hierarchical) };
        let whole = [stored(&dir.path().join("p"), &ids, &values)];
        let never = Stop::after(u64::MAX);
        let expected = run(&dir.path().join("whole"), &config, &whole, &never).unwrap();
        let cut = 30_001;
        let shards = [
            stored(&dir.path().join("a"), &ids[..cut], &values[..2 * cut]),
            stored(&dir.path().join("b"), &ids[cut..], &values[2 * cut..]),
        ];
        let in_shards = run(&dir.path().join("shards"), &config, &shards, &Stop::default()).unwrap();
        assert_eq!(in_shards.0.chosen, expected.0.chosen);
        assert_eq!(in_shards.1, expected.1);
        let stopped = dir.path().join("stopped");
        for attempt in 1..=4 {
            let stop = Stop::after(never.looks() / 5);
            assert!(matches!(run(&stopped, &config, &whole, &stop), Err(StageError::Stopped)), "attempt {attempt}");
        }
        assert_eq!(run(&stopped, &config, &whole, &Stop::default()).unwrap(), expected);
    }

    #[test]
    fn what_does_not_fit_a_pool_is_refused_or_said() {
        let dir = tempfile::tempdir().unwrap();
        let (ids, values) = uneven([9, 3, 3, 3]);
        let pool = [stored(&dir.path().join("p"), &ids, &values)];
        let refused = run(dir.path(), &config(Pick::Hierarchical), &pool, &Stop::default()).unwrap_err();
        assert!(refused.to_string().contains("clusters"), "{refused}");
        let all = Config { clusters: Some(vec![5, 2]), ..config(Pick::Hierarchical) };
        assert_eq!(run(dir.path(), &all, &pool, &Stop::default()).unwrap().0.chosen.len(), 18);
        let tenth = Config::default();
        assert_eq!(run(&dir.path().join("tenth"), &tenth, &pool, &Stop::default()).unwrap().0.chosen.len(), 2);
    }
}
