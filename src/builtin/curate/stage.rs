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
use kinset_stage::{Context, Stage, StageError};

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// `[N, D]`: what is chosen from, in one shard or several.
        pool: Vec<Stored<Features>>,
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
    const VERSION: u32 = 1;
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
        let levels = cluster(config, &pool, cx)?;
        let leaves = members(&levels[0].labels, levels[0].clusters(pool.dim()));
        let order = order(config, &pool, &levels, &leaves, budget, cx)?;
        cx.check()?;
        let table = select(config, &input, &pool, &levels, &leaves, &order, cx)?;
        let selected: Vec<u32> = table.chosen.iter().map(|chosen| chosen.best.pool).collect();
        let random = pick::random(&pool, selected.len(), cx.seed.branch("beside"));
        let levels = measure::table(&levels, &pool, (&selected, &random), cx.seed.branch("levels"), &cx.stop)?;
        let first = &levels.levels[0];
        cx.note(format!(
            "{} of {} images, from {} clusters; effective number of clusters {:.1}, of as many random images {:.1}",
            selected.len(),
            pool.len(),
            first.clusters,
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
        ..report::compare(&measure, &rows, &random, None)?
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
