//! The images of a pool that look like a target: edges of the search, filtered, capped and cut to a budget, each with its reason.

use std::collections::BTreeMap;

use serde::Serialize;

use super::clusters::Clusters;
use super::config::{Config, Pick};
use super::missed::{self, Selected};
use super::pick;
use super::report::{self, Measure};
use super::shards::{self, Shards};
use crate::retrieve::stage::{TARGET, load_target, same_dim};
use kinset_artifact::assignments::Assignments;
use kinset_artifact::features::{FeatureReader, FeatureTable, Features};
use kinset_artifact::matches::{MatchTable, Matches};
use kinset_artifact::selection::{Chosen, Counts, Duplicates, Judged, Report, Selection, SelectionTable};
use kinset_artifact::{Draft, Stored};
use kinset_base::fs::{self, At};
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;
use kinset_dataset::vectors::files;
use kinset_dataset::vectors::open::names;
use kinset_kernel::gemm::Gemm;
use kinset_math::curate::choose::{Edge, Edges, Limits, Order, Reason, Shares};
use kinset_math::curate::groups;
use kinset_math::curate::join::{self, Rows};
use kinset_math::curate::repeats::Repeats;
use kinset_math::curate::sampling;
use kinset_stage::{Context, Parts, RawFiles, Stage, StageError, Stop};

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// `[T, D]`: what shall be looked like.
        target: Stored<Features>,
        /// `[N, D]`: what is chosen from, in one shard or several.
        pool: Parts<Vec<Stored<Features>>>,
        /// What `retrieve` found in each shard, in the same order.
        matches: Parts<Vec<Stored<Matches>>>,
        /// Images that must not be in the selection, not even nearly: a test set.
        held_out: Parts<Option<Vec<Stored<Features>>>>,
        /// Clusters of the pool's images for `order = "clusters"`, shard by shard in the same order, as a classifier gave them.
        assignments: Parts<Option<Vec<Stored<Assignments>>>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The images, and why each.
        selection: Draft<Selection>,
    }
}

/// Curation.
#[derive(Debug)]
pub struct Similar;

impl Stage for Similar {
    const KIND: &'static str = "similar";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "select the pool images that make a training set like a target";
    const SEEDED: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn raw_files(config: &Config, places: &DataPaths) -> Result<RawFiles, StageError> {
        let Some(list) = &config.exclude else { return Ok(RawFiles::default()) };
        let path = places.file(list);
        // Before it is opened, which waits for ever at a pipe.
        files(&path)?;
        let found = fs::open(&path)?.metadata().at("look at", &path)?;
        Ok(vec![RawFile::new("exclude", path, &found)].into())
    }

    /// Where the list of exclusions lies is no part of the key; what it says is.
    fn key_settings(config: &Config) -> Result<impl Serialize, StageError> {
        Ok(Config { exclude: None, ..config.clone() })
    }

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        for doubt in config.doubts() {
            cx.warn(doubt);
        }
        let target = load_target(&input.target)?;
        let pool = Shards::open(&input.pool, Some(target.dim))?;
        cx.read(pool.reading());
        let (repeats, found) = merge(config, &input, &pool)?;
        let kept: Vec<u32> = (0..target.len() as u32).filter(|&row| repeats.kept[row as usize]).collect();
        cx.check()?;
        let measure = Measure::new(&target, &kept, &pool, config.quotas, cx.seed.branch("measure"), &cx.stop)?;
        let edges = match config.pick {
            Pick::Nearest => found.clone(),
            Pick::Dissimilar => pick::dissimilar(config, &target, &kept, &pool, cx.seed.branch("dissimilar"), &cx.stop)?,
            Pick::Random | Pick::Diverse => {
                let count = config.budget.unwrap_or_else(|| Edges::new(found.clone(), config.k).picks().len());
                let rows = match config.pick {
                    Pick::Random => pick::random(&pool, count, cx.seed.branch("random")),
                    _ => pick::diverse(&pool, count, cx.seed.branch("diverse"), &cx.stop)?,
                };
                pick::edges(&target, &kept, &pool, &rows, &cx.stop)?
            }
        };
        cx.check()?;
        // Whoever picks without a search has as many edges per target as it has.
        let k = if matches!(config.pick, Pick::Random | Pick::Diverse) { usize::MAX } else { config.k };
        let unwanted = unwanted(config, &pool, cx)?;
        let judge = |edges: Edges| {
            let mut edges = edges.in_order_of(config.order);
            drop_rows(&mut edges, &unwanted, Reason::Excluded);
            edges.limit(Limits { max: config.max_dist, min: config.min_dist });
            hold_out(config, &input, &target, &pool, &mut edges, &cx.stop)?;
            cx.check()?;
            let (duplicate_of, duplicates) = collapse(config, &pool, &mut edges, &cx.stop)?;
            edges.cap(config.per_image, config.per_target);
            Ok::<_, StageError>((edges, duplicate_of, duplicates))
        };
        let mut judged = judge(Edges::new(edges.iter().copied(), k))?;
        if config.refill.is_some() && config.budget.is_some_and(|budget| judged.0.picks().len() < budget) {
            judged = judge(Edges::refilled(edges, k))?;
        }
        let (mut edges, duplicate_of, duplicates) = judged;
        let part = by_row(&measure, target.len());
        let clusters = clusters(config, &input, &edges, &part, &pool, cx)?;
        if let Some(clusters) = &clusters {
            edges = edges.weighing(clusters.votes());
        }
        let quotas = |budget: usize| match (&clusters, config.quotas) {
            (Some(clusters), _) => Some(clusters.quotas(budget)),
            (None, Some(quotas)) => Some(measure.quotas(quotas, budget)),
            (None, None) => None,
        };
        let of = |edge: &Edge| match (&clusters, config.quotas) {
            (Some(clusters), _) => clusters.cluster(edge),
            (None, quotas) => quotas.map(|_| part[edge.target as usize]),
        };
        let unspent = edges.clone();
        let spend = |edges: &mut Edges, budget: usize| {
            let quotas = quotas(budget);
            edges.spend(budget, quotas.as_deref().map(|quotas| Shares { quotas, of: &of }));
        };
        if let Some(budget) = config.budget {
            spend(&mut edges, budget);
        }
        edges.tell_refills();
        let candidates = distinct(edges.edges.iter().map(|edge| edge.pool));
        let chosen = chosen(&edges, &pool, &duplicate_of, &of);
        let selected = edges.per_target(target.len());
        let uncovered: Vec<&str> =
            kept.iter().filter(|row| selected[**row as usize] == 0).map(|row| target.ids[*row as usize].as_str()).collect();
        if !uncovered.is_empty() {
            let (n, of, first) = (uncovered.len(), kept.len(), uncovered[0]);
            cx.warn(format!("{n} of {of} target images have no selected image; the first is `{first}`"));
        }
        cx.check()?;
        let rows: Vec<u32> = chosen.iter().map(|chosen| chosen.best.pool).collect();
        if let Some(budget) = config.budget.filter(|budget| rows.len() < *budget) {
            let hint = match config.refill {
                _ if config.pick != Pick::Nearest || config.depth() >= pool.len() => "",
                Some(_) => "; raise `refill`, and `k` of `retrieve`, to look farther",
                None => "; `refill` goes on beyond `k`",
            };
            cx.warn(format!("{} of the budget of {budget} images were taken{hint}", rows.len()));
        }
        let refills = chosen.iter().filter(|chosen| edges.refills(&chosen.best)).count();
        if refills > 0 {
            cx.note(format!("{} by the first {k}, {refills} beyond", rows.len() - refills));
        }
        let random = pick::random(&pool, rows.len(), cx.seed.branch("beside"));
        let shares = config.quotas.zip(config.budget).map(|(quotas, budget)| measure.quotas(quotas, budget));
        let compared = report::compare(&measure, &rows, &random, shares.as_deref())?;
        let missed = missed::missed(
            &Selected {
                measure: &measure,
                compared: &compared,
                edges: &edges,
                unspent: &unspent,
                rows: &rows,
                found: &found,
                targets: &target.ids,
            },
            &spend,
        )?;
        let report = Report {
            pick: config.pick.word().into(),
            inputs: inputs(&input),
            dim: target.dim,
            k: config.k,
            counts: Counts {
                target: target.len(),
                target_kept: kept.len(),
                pool: pool.len(),
                candidates: candidates.len(),
                selected: rows.len(),
                uncovered: uncovered.len(),
            },
            edges: by_reason(&edges),
            rank_distance: rank_distance(&edges),
            duplicates,
            missed,
            ..compared.report
        };
        if let Some(missed) = report.missed.as_ref().filter(|missed| missed.uncovered > 0) {
            cx.note(format!(
                "{} of {} target images have no selected image within a distance of {:.3}; for {} of them the pool has one that may be taken",
                missed.uncovered,
                kept.len(),
                missed.near,
                missed.in_pool
            ));
        }
        let mmd = |name: &str| report.difference.get(name).map_or(0.0, |found| found.mmd2);
        cx.note(format!(
            "{} of {} pool images for {} target images; MMD² {:.4}, of as many random ones {:.4}",
            rows.len(),
            pool.len(),
            kept.len(),
            mmd("selection"),
            mmd("random")
        ));
        let edges = edges.edges.iter().zip(&edges.reasons).map(|(edge, reason)| Judged {
            edge: *edge,
            pool_id: pool.id(edge.pool).into_owned(),
            reason: *reason,
            duplicate_of: duplicate_of.get(&edge.pool).map(|row| pool.id(*row).into_owned()).unwrap_or_default(),
        });
        let table = SelectionTable {
            pick: config.pick.word().into(),
            k: config.k,
            chosen,
            edges: edges.collect(),
            targets: target.ids,
            repeats,
            selected,
            report,
        };
        Ok(Out { selection: table.save(&cx.out("selection")?)? })
    }
}

/// The edges of all shards as those of one pool: the first of each target image.
fn merge(config: &Config, input: &In, pool: &Shards) -> Result<(Repeats, Vec<Edge>), StageError> {
    if input.matches.len() != input.pool.len() {
        return Err(StageError::Mismatch {
            what: format!("there are {} shards of the pool and {} of matches", input.pool.len(), input.matches.len()),
            hint: "wire the matches of every shard, in the order of the shards".into(),
        });
    }
    let mut repeats: Option<Repeats> = None;
    let mut edges: Vec<Edge> = Vec::new();
    for (shard, (matches, features)) in input.matches.iter().zip(input.pool.iter()).enumerate() {
        let table = MatchTable::load(matches)?;
        let stranger = |what: &str, stored: &str| StageError::Mismatch {
            what: format!("the matches of `{}` were not made with {what} `{stored}`", matches.origin()),
            hint: "wire the features that `retrieve` read, shards and matches in one order".into(),
        };
        if table.target_digest != input.target.digest().hex() {
            return Err(stranger("the target", input.target.origin()));
        }
        if table.pool_digest != features.digest().hex() {
            return Err(stranger("the pool", features.origin()));
        }
        if table.k < config.depth() {
            let field = if config.refill.is_some() { "refill" } else { "k" };
            return Err(StageError::Mismatch {
                what: format!("{field} is {}, but `{}` looked for {} images only", config.depth(), matches.origin(), table.k),
                hint: format!("raise `k` of `retrieve`, or lower `{field}` here"),
            });
        }
        if repeats.as_ref().is_some_and(|repeats| *repeats != table.repeats) {
            return Err(StageError::Mismatch {
                what: format!("the matches of `{}` leave out other near-duplicates than those before", matches.origin()),
                hint: "give all `retrieve` stages of a pool the same `dedup` and `dedup_sim`".into(),
            });
        }
        repeats = Some(table.repeats);
        let start = pool.start(shard) as u32;
        let edges_here = table.edges.into_iter().map(|edge| Edge { pool: edge.pool + start, ..edge });
        // What is in two shards counts once; each shard has as many of the nearest as are needed without.
        edges.extend(edges_here.filter(|edge| !pool.is_copy(edge.pool)));
    }
    let Some(repeats) = repeats else { unreachable!("a port of many has one at least") };
    edges.sort_by(|a, b| a.target.cmp(&b.target).then(b.cosine.total_cmp(&a.cosine)).then(a.pool.cmp(&b.pool)));
    let mut last = (u32::MAX, 0);
    for edge in &mut edges {
        last = if last.0 == edge.target { (edge.target, last.1 + 1) } else { (edge.target, 1) };
        edge.rank = last.1;
    }
    edges.retain(|edge| edge.rank as usize <= config.depth());
    Ok((repeats, edges))
}

fn distinct(rows: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut rows: Vec<u32> = rows.collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Pool images with an edge that counts, ascending.
fn standing(edges: &Edges) -> Vec<u32> {
    let left = edges.edges.iter().zip(&edges.reasons).filter(|(_, reason)| reason.counts());
    distinct(left.map(|(edge, _)| edge.pool))
}

/// A name without the ending of a picture file.
pub fn stem(name: &str) -> &str {
    let known = |ending: &str| {
        ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"].iter().any(|known| ending.eq_ignore_ascii_case(known))
    };
    match name.rsplit_once('.') {
        Some((stem, ending)) if known(ending) && !stem.is_empty() => stem,
        _ => name,
    }
}

/// Rows of the images that are on the list of those never to take.
fn unwanted(config: &Config, pool: &Shards, cx: &Context<'_>) -> Result<Vec<u32>, StageError> {
    let Some(list) = &config.exclude else { return Ok(Vec::new()) };
    let list = names(&cx.places.file(list))?;
    let mut unwanted: Vec<&str> = list.iter().map(|name| stem(name)).collect();
    unwanted.sort_unstable();
    unwanted.dedup();
    let mut seen = vec![false; unwanted.len()];
    let mut rows = Vec::new();
    for row in 0..pool.len() as u32 {
        if let Ok(place) = unwanted.binary_search(&stem(&pool.id(row))) {
            seen[place] = true;
            rows.push(row);
        }
    }
    let strangers = seen.iter().filter(|seen| !**seen).count();
    if strangers > 0 {
        let first = seen.iter().position(|seen| !seen).map_or("", |place| unwanted[place]);
        cx.warn(format!("{strangers} of {} names to exclude are not in the pool; the first is `{first}`", unwanted.len()));
    }
    Ok(rows)
}

/// The clusters that the budget is divided by, in that order of it.
fn clusters(
    config: &Config,
    input: &In,
    edges: &Edges,
    part: &[u32],
    pool: &Shards,
    cx: &Context<'_>,
) -> Result<Option<Clusters>, StageError> {
    let idle = |what: &str| {
        let hint = "leave out `assignments`, or `pool_clusters`, or set `order = \"clusters\"`".into();
        Err(StageError::Mismatch { what: what.into(), hint })
    };
    match (config.order == Order::Clusters, &*input.assignments) {
        (false, None) => Ok(None),
        (false, Some(_)) => idle("`assignments` are for `order = \"clusters\"`"),
        (true, Some(_)) if config.pool_clusters.is_some() => idle("`assignments` say how many clusters there are"),
        (true, Some(given)) => Clusters::given(edges, part, pool, given).map(Some),
        (true, None) => {
            let count = config.pool_clusters.unwrap_or(sampling::CLUSTERS);
            Clusters::find(edges, part, pool, count, cx.seed.branch("sampling"), &cx.stop).map(Some)
        }
    }
}

/// Drops candidates that nearly equal an image of the target or of a held-out set.
fn hold_out(
    config: &Config,
    input: &In,
    target: &FeatureTable,
    pool: &Shards,
    edges: &mut Edges,
    stop: &Stop,
) -> Result<(), StageError> {
    if let Some(least) = config.target_sim {
        let rows = standing(edges);
        let mut near = Vec::new();
        let targets = Rows::new(&target.values, target.dim);
        pool.stream(&rows, |first, values| {
            let images = Rows::new(values, target.dim);
            let take = |place: usize, _: usize, _: f64| near.push(rows[first + place]);
            Ok(join::pairs(&images, &targets, false, least, &Gemm, stop, take)?)
        })?;
        drop_rows(edges, &near, Reason::TargetCopy);
    }
    for held_out in input.held_out.iter().flatten() {
        let reader = FeatureReader::open(held_out)?;
        same_dim(target.dim, TARGET, &reader, held_out.origin())?;
        let rows = standing(edges);
        let values = pool.rows(&rows)?;
        let images = Rows::new(&values, target.dim);
        let mut near = Vec::new();
        shards::all(&reader, |_, values| {
            let others = Rows::new(values, target.dim);
            let take = |place: usize, _: usize, _: f64| near.push(rows[place]);
            Ok(join::pairs(&images, &others, false, config.held_out_sim, &Gemm, stop, take)?)
        })?;
        drop_rows(edges, &near, Reason::HeldOut);
    }
    Ok(())
}

fn drop_rows(edges: &mut Edges, rows: &[u32], reason: Reason) {
    let rows = distinct(rows.iter().copied());
    edges.drop_where(|edge| rows.binary_search(&edge.pool).is_ok().then_some(reason));
}

/// Drops candidates that nearly equal a better one; returns which stands for which.
fn collapse(
    config: &Config,
    pool: &Shards,
    edges: &mut Edges,
    stop: &Stop,
) -> Result<(BTreeMap<u32, u32>, Option<Duplicates>), StageError> {
    let Some(least) = config.pool_sim else { return Ok((BTreeMap::new(), None)) };
    // Best first, so that the best of a group stands for it.
    let order: Vec<u32> = edges.picks().iter().map(|pick| pick.best.pool).collect();
    let rows = distinct(order.iter().copied());
    let values = pool.rows(&rows)?;
    let dim = pool.dim();
    let place = |row: &u32| rows.partition_point(|r| r < row);
    let ordered: Vec<f32> = order.iter().flat_map(|row| &values[place(row) * dim..(place(row) + 1) * dim]).copied().collect();
    drop(values);
    let found = groups::find(&Rows::new(&ordered, dim), config.link, least, &Gemm, stop)?;
    let stands = found.representative.iter().enumerate().filter(|(place, root)| *place != **root as usize);
    let duplicate_of: BTreeMap<u32, u32> = stands.map(|(place, root)| (order[place], order[*root as usize])).collect();
    edges.drop_where(|edge| duplicate_of.contains_key(&edge.pool).then_some(Reason::Duplicate));
    let duplicates = Duplicates {
        compared: order.len(),
        groups: found.groups.len(),
        dropped: duplicate_of.len(),
        largest: found.groups.iter().map(|group| group.members.len()).max().unwrap_or(0),
        widest: found.groups.iter().map(|group| group.diameter).fold(0.0, f64::max),
    };
    Ok((duplicate_of, Some(duplicates)))
}

/// The part of each target row; 0 for those that repeat others.
fn by_row(measure: &Measure<'_>, targets: usize) -> Vec<u32> {
    let mut part = vec![0; targets];
    for (place, &row) in measure.kept.iter().enumerate() {
        part[row as usize] = measure.part[place];
    }
    part
}

/// What is taken, in pool order.
fn chosen(edges: &Edges, pool: &Shards, duplicate_of: &BTreeMap<u32, u32>, part: &dyn Fn(&Edge) -> Option<u32>) -> Vec<Chosen> {
    let mut copies: BTreeMap<u32, u32> = BTreeMap::new();
    for row in duplicate_of.values() {
        *copies.entry(*row).or_default() += 1;
    }
    let mut chosen: Vec<Chosen> = (0..)
        .zip(edges.picks())
        .map(|(order, pick)| Chosen {
            id: pool.id(pick.best.pool).into_owned(),
            order,
            best: pick.best,
            targets: pick.targets,
            copies: copies.get(&pick.best.pool).copied().unwrap_or(0),
            cluster: part(&pick.best).map_or(-1, |part| part as i32),
        })
        .collect();
    chosen.sort_unstable_by_key(|chosen| chosen.best.pool);
    chosen
}

fn inputs(input: &In) -> BTreeMap<String, Vec<String>> {
    let digests = |stored: &[Stored<Features>]| stored.iter().map(|stored| stored.digest().hex()).collect::<Vec<_>>();
    let mut inputs =
        BTreeMap::from([("target".to_owned(), vec![input.target.digest().hex()]), ("pool".to_owned(), digests(&input.pool))]);
    if let Some(held_out) = &*input.held_out {
        inputs.insert("held_out".to_owned(), digests(held_out));
    }
    inputs
}

fn by_reason(edges: &Edges) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for reason in &edges.reasons {
        *counts.entry(reason.word().to_owned()).or_default() += 1;
    }
    counts
}

/// Mean distance of the edges that count, by rank.
fn rank_distance(edges: &Edges) -> Vec<Option<f64>> {
    let mut sums: Vec<(f64, usize)> = Vec::new();
    for (edge, _) in edges.edges.iter().zip(&edges.reasons).filter(|(_, reason)| reason.counts()) {
        let place = edge.rank as usize - 1;
        if sums.len() <= place {
            sums.resize(place + 1, (0.0, 0));
        }
        sums[place].0 += edge.distance();
        sums[place].1 += 1;
    }
    sums.into_iter().map(|(sum, count)| (count > 0).then(|| sum / count as f64)).collect()
}
