//! Nearest neighbors of every image among the others, exactly or with a measured recall.

use std::ops::{Range, RangeInclusive};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::neighbors::{NeighborTable, Neighbors, Recall};
use kinset_artifact::{Draft, Stored};
use kinset_base::unit;
use kinset_kernel::cells::{Cells, Found};
use kinset_kernel::neighbors;
use kinset_math::{cosine, rerank};
use kinset_stage::{Complaint, Context, Share, Stage, StageError};

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Neighbors per image, M: 20 on small sets, 50 on ImageNet (SCAN).
        k: usize = 20, min 1;
        /// Which search. Unset: exact.
        search: Option<Choice> = None;
        /// The share of true neighbors that an approximate search must find. Unset: 0.99.
        recall: Option<f64> = None, within 0.5..=1.0, because "it is a share of the true neighbors";
        /// Order neighbors by how alike their neighborhoods are, not by cosine; unset: by cosine, as in all methods here.
        rerank: Option<Rerank> = None, nested;
    }
    and kinds
}

/// Which search finds the neighbors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// All pairs of images are compared, and no neighbor is missed.
    Exact,
    /// Images are compared with those of similar cells only, as many as the wanted `recall` takes; exact where that is less work.
    Approximate,
    /// Exact up to 500,000 images, approximate beyond.
    Auto,
}

/// The `recall` that is wanted unless another is set.
const RECALL: f64 = 0.99;
/// Images from which on `auto` is approximate.
const MANY: usize = 500_001;

impl Config {
    fn kinds(&self) -> Option<Complaint> {
        let idle = self.recall.is_some() && !matches!(self.search, Some(Choice::Approximate | Choice::Auto));
        idle.then(|| {
            Complaint::new("recall", "has no effect on an exact search, which finds all neighbors")
                .with_hint("set `search = \"approximate\"` or `\"auto\"`, or leave `recall` out")
        })
    }

    /// The recall that is wanted, if the search of so many images shall be approximate.
    fn wanted(&self, images: usize) -> Option<f64> {
        let approximate = match self.search {
            None | Some(Choice::Exact) => false,
            Some(Choice::Approximate) => true,
            Some(Choice::Auto) => images >= MANY,
        };
        approximate.then(|| self.recall.unwrap_or(RECALL))
    }
}

kinset_stage::settings! {
    /// k-reciprocal re-ranking (Zhong et al., CVPR 2017, without the blend with the original distance): the similarity is then
    /// 1 minus the Jaccard distance of two images' reciprocal neighbors. The defaults are those of the file that comes with
    /// NNM's code, which its runs do not use.
    #[derive(Copy, PartialEq, Eq)]
    pub struct Rerank {
        /// Images in a list of neighbors, the image itself among them.
        k1: usize = 20, min 2, because "the image and a neighbor";
        /// Images whose description is averaged into one's own, the image itself among them.
        k2: usize = 6;
    }
    and lists
}

impl Rerank {
    fn lists(&self) -> Option<Complaint> {
        let Self { k1, k2 } = *self;
        let fits = (1..=k1).contains(&k2);
        (!fits).then(|| Complaint::new("k2", format!("is {k2}, and must lie between 1 and `k1`, which is {k1}")))
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, D]`.
        features: Stored<Features>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// `[N, M]`.
        neighbors: Draft<Neighbors>,
    }
}

/// Neighbor mining.
#[derive(Debug)]
pub struct Mine;

/// As many neighbors as there may be: an image is none of itself.
fn others(images: usize) -> RangeInclusive<usize> {
    1..=images.saturating_sub(1)
}

impl Stage for Mine {
    const KIND: &'static str = "neighbors";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "find every image's nearest neighbors by cosine, exactly or with a measured recall";
    const SHARED: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn fits(config: &Config, images: usize) -> Result<(), StageError> {
        StageError::fitting("k", config.k, Config::default().k, &others(images), images).map(drop)
    }

    fn share(config: &Config, input: In, share: Share, cx: &Context<'_>) -> Result<(), StageError> {
        let Wanted { features, width, .. } = Wanted::of(config, &input, cx)?;
        if let Some(wanted) = config.wanted(features.len()) {
            let cells = Cells::new(&features.values, features.dim, width, wanted, &cx.stop).map_err(StageError::other)?;
            if cells.work() < 1.0 {
                return celled(&cells, width, share, cx).map(drop);
            }
        }
        striped(&features, width, share, cx).map(drop)
    }

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let Wanted { features, k, width, reach } = Wanted::of(config, &input, cx)?;
        let n = features.len();
        if config.search.is_none() && n >= MANY {
            let images = unit::count(n as u64);
            cx.note(format!("{images} images: `search = \"auto\"` takes a fraction of the time, with a measured recall"));
        }
        let (found, recall) = match config.wanted(n) {
            Some(wanted) => approximate(&features, width, wanted, cx)?,
            None => (exact(&features, width, cx)?, None),
        };
        let (index, similarity, metric) = match reach {
            None => (found.index, found.similarity, "cosine"),
            Some(reach) => {
                let (rows, dim) = (&features.values, features.dim);
                let (index, similarity) = rerank::nearest(rows, dim, &found.index, width, reach, k, &cx.stop)?;
                (index, similarity, "jaccard")
            }
        };
        let table =
            NeighborTable { ids: features.ids, k, index, similarity, metric: metric.into(), exact: recall.is_none(), recall };
        Ok(Out { neighbors: table.save(&cx.out("neighbors")?)? })
    }
}

/// What is searched, and for how many.
struct Wanted {
    /// Of unit length.
    features: FeatureTable,
    k: usize,
    /// Neighbors that are searched for: re-ranking looks at lists of its own length.
    width: usize,
    reach: Option<rerank::Reach>,
}

impl Wanted {
    fn of(config: &Config, input: &In, cx: &Context<'_>) -> Result<Self, StageError> {
        let mut features = FeatureTable::load(&input.features)?;
        let n = features.ids.len();
        let k = cx.fitting("k", config.k, Config::default().k, others(n), n)?;
        let reach = config.rerank.map(|Rerank { k1, k2 }| {
            let k1 = cx.fitting("rerank.k1", k1, Rerank::default().k1, k2.max(2)..=n, n)?;
            Ok::<_, StageError>(rerank::Reach { k1, k2 })
        });
        let reach = reach.transpose()?;
        let zero = cosine::normalize_rows(&mut features.values, features.dim);
        if let Some(&first) = zero.first() {
            return Err(StageError::Degenerate {
                code: "neighbors::zero-features",
                what: format!("{} images have features that are all 0; the first is `{}`", zero.len(), features.ids[first]),
                hint: "the cosine similarity with a zero vector is undefined: if these images are black or empty, leave them out; \
                       else take another encoder"
                    .into(),
            });
        }
        let width = reach.map_or(k, |reach| k.max(reach.k1 - 1));
        Ok(Self { features, k, width, reach })
    }
}

/// All of what several processes share.
const ALL: Share = Share { number: 0, of: 1 };

/// A piece of work, by its number among all, with the rows that it searches for.
type Piece = (usize, usize);

/// The lists of neighbors, of `k` each, of the pieces of a share, one after the other: those that somebody left, and the others. Nothing if
/// nobody shares.
fn together(
    form: &'static str,
    k: usize,
    pieces: &[Piece],
    cx: &Context<'_>,
    mut search: impl FnMut(usize) -> neighbors::Result<Part>,
) -> Result<Option<Part>, StageError> {
    let Some(shared) = cx.shared(form) else { return Ok(None) };
    let rows = pieces.iter().map(|(_, rows)| rows).sum::<usize>();
    let bar = cx.bar(rows as u64, "images");
    let mut all: Part = (Vec::with_capacity(rows * k), Vec::with_capacity(rows * k));
    for &(number, rows) in pieces {
        let fits = |(index, similarity): &Part| index.len() == rows * k && similarity.len() == index.len();
        let (index, similarity) = if let Some(part) = shared.part::<Part>(number)?.filter(fits) {
            part
        } else {
            let part = search(number).map_err(StageError::other)?;
            shared.add(number, &part)?;
            part
        };
        all.0.extend(index);
        all.1.extend(similarity);
        bar.advance(rows as u64);
        cx.check()?;
    }
    Ok(Some(all))
}

/// The exact neighbors of a share of all rows, if somebody shares them.
fn striped(
    features: &FeatureTable,
    k: usize,
    share: Share,
    cx: &Context<'_>,
) -> Result<Option<neighbors::Neighbors>, StageError> {
    let stripes: Vec<Range<usize>> = neighbors::stripes(features.len()).collect();
    let pieces: Vec<Piece> = share.pieces(stripes.len()).map(|number| (number, stripes[number].len())).collect();
    let found = together("neighbors of a stripe 1", k, &pieces, cx, |number| {
        let found = neighbors::stripe(&features.values, features.dim, k, stripes[number].clone(), &cx.stop)?;
        Ok((found.index, found.similarity))
    });
    Ok(found?.map(|(index, similarity)| neighbors::Neighbors { k, index, similarity }))
}

/// What a share of the cells finds, if somebody shares them.
fn celled(cells: &Cells<'_>, k: usize, share: Share, cx: &Context<'_>) -> Result<Option<Found>, StageError> {
    let pieces: Vec<Piece> = share.pieces(cells.pieces()).map(|number| (number, cells.rows_of(number))).collect();
    let rows = pieces.iter().map(|(_, rows)| rows).sum();
    let found = together("neighbors of some cells 1", k, &pieces, cx, |number| {
        let found = cells.piece(number, &cx.stop)?;
        Ok((found.index, found.similarity))
    });
    Ok(found?.map(|(index, similarity)| Found { rows, index, similarity }))
}

fn exact(features: &FeatureTable, k: usize, cx: &Context<'_>) -> Result<neighbors::Neighbors, StageError> {
    if let Some(found) = striped(features, k, ALL, cx)? {
        return Ok(found);
    }
    let pairs = features.len() as u64 * features.len() as u64;
    let bar = cx.bar(pairs, "pairs");
    let mut shown = 0;
    let found = neighbors::all_pairs(&features.values, features.dim, k, &cx.stop, &mut |done, total| {
        let now = (done as u128 * u128::from(pairs) / total.max(1) as u128) as u64;
        bar.advance(now - shown);
        shown = now;
    });
    found.map_err(StageError::other)
}

/// Of each image, the lists of neighbors that were found since they were last kept: rows, cosines.
type Part = (Vec<u32>, Vec<f32>);

/// The neighbors that cells find, and their recall; the exact ones, without, where cells are no less work.
fn approximate(
    features: &FeatureTable,
    k: usize,
    wanted: f64,
    cx: &Context<'_>,
) -> Result<(neighbors::Neighbors, Option<Recall>), StageError> {
    let cells = Cells::new(&features.values, features.dim, k, wanted, &cx.stop).map_err(StageError::other)?;
    if cells.work() >= 1.0 {
        cx.chose(format!(
            "exact search: a recall of {wanted} takes as much work with {} cells",
            unit::count(cells.count() as u64)
        ));
        return Ok((exact(features, k, cx)?, None));
    }
    let found = match celled(&cells, k, ALL, cx)? {
        Some(found) => found,
        None => search(&cells, features.len(), k, cx)?,
    };
    let (neighbors, recall) = cells.finish(&found);
    let recall = Recall { share: recall.share, images: recall.rows };
    cx.chose(format!(
        "approximate search: {:.1} % of the true neighbors found, measured on {} images; an image was compared with {:.2} % of all, in {} cells",
        100.0 * recall.share,
        unit::count(recall.images as u64),
        100.0 * cells.visited(),
        unit::count(cells.count() as u64),
    ));
    if recall.share < wanted {
        cx.warn(format!(
            "the recall of the neighbors is {:.4}, and {wanted} was wanted: set a higher `recall`, or `search = \"exact\"`",
            recall.share
        ));
    }
    Ok((neighbors, Some(recall)))
}

/// What all cells find, in this process.
fn search(cells: &Cells<'_>, images: usize, k: usize, cx: &Context<'_>) -> Result<Found, StageError> {
    let unfinished = cx.unfinished("neighbors 1");
    let (mut found, mut parts) = (Found::default(), 0);
    for (index, similarity) in unfinished.parts::<Part>()? {
        let whole = found.rows;
        found.rows += index.len() / k;
        found.index.extend(index);
        found.similarity.extend(similarity);
        if cells.next(&found).is_none() {
            found.cut(whole, k);
            break;
        }
        parts += 1;
    }
    let bar = cx.bar(images as u64, "images");
    if parts > 0 {
        cx.note(format!("resuming at image {} of {images}", found.rows));
        bar.advance(found.rows as u64);
    }
    let mut kept = found.rows;
    loop {
        let before = found.rows;
        let more = cells.search(&mut found, &cx.stop).map_err(StageError::other);
        bar.advance((found.rows - before) as u64);
        let stopped = matches!(more, Err(StageError::Stopped));
        if found.rows > kept && (stopped || unfinished.is_due()) {
            unfinished.add(parts, &(&found.index[kept * k..], &found.similarity[kept * k..]))?;
            (parts, kept) = (parts + 1, found.rows);
        }
        if !more? {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_stage::Settings;

    use std::path::Path;

    use candle_core::Device;
    use kinset_artifact::testing::stored;
    use kinset_base::fs;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;
    use kinset_store::digest::Digest;

    /// Features [N, 8] around 200 directions.
    fn features(rows: usize) -> FeatureTable {
        let mut rng = Seed::new(1).rng();
        let centers: Vec<f64> = (0..200 * 8).map(|_| rng.normal()).collect();
        let values = (0..rows).flat_map(|row| centers[row % 200 * 8..][..8].to_vec()).map(|x| (x + 0.2 * rng.normal()) as f32);
        let values = values.collect();
        let ids = (0..rows).map(|row| row.to_string()).collect();
        FeatureTable { ids, dim: 8, values, normalized: false, encoder: "test".into(), layer: "test".into() }
    }

    /// One run in a folder, with what it said, and what the record keeps of that.
    fn run(
        dir: &Path,
        config: &Config,
        features: &FeatureTable,
        stop: &Stop,
    ) -> Result<(NeighborTable, Vec<String>, String), StageError> {
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let (work, out, to) = (dir.join("work"), dir.join("out"), dir.join("features"));
        fs::create_folders(&work).unwrap();
        fs::create_folders(&to).unwrap();
        let input = In { features: stored(&features.save(&to).unwrap()) };
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, stop.clone(), work, out, &heard);
        let found = Mine::run(config, input, &cx)?;
        let files = found.neighbors.files.iter().map(|file| file.path.clone()).collect();
        let table = NeighborTable::load(&Stored::new(files, Digest::of(b"n"), "n")).unwrap();
        Ok((table, heard.texts(), cx.kept().remove("chosen").unwrap_or_default().join("; ")))
    }

    #[test]
    fn auto_is_exact_up_to_half_a_million_images_and_nothing_set_is_exact() {
        let of = |search, recall, images| Config { search, recall, ..Config::default() }.wanted(images);
        assert_eq!(of(None, None, 9_000_000), None);
        assert_eq!(of(Some(Choice::Exact), None, 9_000_000), None);
        assert_eq!(of(Some(Choice::Auto), None, 500_000), None);
        assert_eq!(of(Some(Choice::Auto), None, 500_001), Some(0.99));
        assert_eq!(of(Some(Choice::Approximate), Some(0.9), 10), Some(0.9));
        let complaints = |search, recall| Config { search, recall, ..Config::default() }.check();
        assert_eq!(complaints(Some(Choice::Auto), Some(0.9)), []);
        assert_eq!(complaints(None, Some(0.9))[0].path, "recall");
        assert_eq!(complaints(Some(Choice::Exact), Some(0.9))[0].path, "recall");
        assert!(complaints(Some(Choice::Auto), Some(99.0))[0].message.contains("between 0.5 and 1"));
    }

    #[test]
    fn an_approximate_search_says_its_recall_and_goes_on_where_it_was_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let features = features(20_000);
        let config = Config { search: Some(Choice::Approximate), recall: Some(0.9), ..Config::default() };
        let never = Stop::after(u64::MAX);
        let (expected, _, kept) = run(&dir.path().join("whole"), &config, &features, &never).unwrap();
        let recall = expected.recall.unwrap();
        assert!(!expected.exact && recall.images == 1000 && recall.share > 0.9 && recall.share < 1.0, "{recall:?}");
        assert!(
            kept.contains(&format!("{:.1} % of the true neighbors found, measured on 1,000 images", 100.0 * recall.share)),
            "{kept}"
        );
        let halved = dir.path().join("halved");
        let stopped = run(&halved, &config, &features, &Stop::after(never.looks() - 300));
        assert!(matches!(stopped, Err(StageError::Stopped)));
        let (found, heard, _) = run(&halved, &config, &features, &Stop::default()).unwrap();
        assert_eq!(found, expected);
        assert!(heard.iter().any(|text| text.contains("resuming at image") && text.contains("of 20000")), "{heard:?}");
        // Of the exact search nothing else is known than that it finds at least as similar ones.
        let (exact, _, _) = run(&dir.path().join("exact"), &Config::default(), &features, &Stop::default()).unwrap();
        assert!(exact.similarity.iter().zip(&expected.similarity).all(|(exact, found)| exact >= found));
    }

    #[test]
    fn where_cells_are_no_less_work_the_search_is_exact_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let features = features(600);
        let search = |search| run(dir.path(), &Config { search, ..Config::default() }, &features, &Stop::default()).unwrap();
        let (found, _, kept) = search(Some(Choice::Approximate));
        assert!(found.exact && kept.contains("exact search: a recall of 0.99 takes as much work"), "{kept}");
        assert_eq!(search(None), (found, vec![], String::new()));
    }

    /// The shares of a search, so many of them, and then the whole; with the pieces that are kept before that.
    fn shared(dir: &Path, config: &Config, features: &FeatureTable, done: Range<usize>, of: usize) -> (NeighborTable, usize) {
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let (folder, to) = (dir.join("shared"), dir.join("features"));
        fs::create_folders(&folder).unwrap();
        fs::create_folders(&to).unwrap();
        let draft = features.save(&to).unwrap();
        let cx = || {
            let (work, out) = (dir.join("work"), dir.join("out"));
            Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), work, out, &heard)
                .with_shared(Some(folder.clone()))
        };
        for number in done {
            Mine::share(config, In { features: stored(&draft) }, Share { number, of }, &cx()).unwrap();
        }
        let kept = fs::list(&folder).unwrap().len();
        let found = Mine::run(config, In { features: stored(&draft) }, &cx()).unwrap();
        assert!(heard.texts().iter().all(|text| !text.contains("damaged")), "{:?}", heard.texts());
        let files = found.neighbors.files.iter().map(|file| file.path.clone()).collect();
        (NeighborTable::load(&Stored::new(files, Digest::of(b"n"), "n")).unwrap(), kept)
    }

    #[test]
    fn any_number_of_shares_finds_what_one_process_finds() {
        let exact = Config { k: 9, rerank: Some(Rerank { k1: 12, k2: 3 }), ..Config::default() };
        let approximate = Config { search: Some(Choice::Approximate), recall: Some(0.9), ..Config::default() };
        for (config, rows, pieces) in [(exact, 1700, 8), (approximate, 20_000, 3)] {
            let features = features(rows);
            let dir = tempfile::tempdir().unwrap();
            let (expected, _, _) = run(&dir.path().join("whole"), &config, &features, &Stop::default()).unwrap();
            for of in [1, 2, 7, 20] {
                let (found, kept) = shared(&dir.path().join(of.to_string()), &config, &features, 0..of, of);
                assert!(found == expected, "{of} shares of {rows} rows");
                assert_eq!(kept, pieces, "each once");
            }
            // Three of seven are done: the others are computed by whoever puts them together.
            let dir = dir.path().join("killed");
            let (_, kept) = shared(&dir, &config, &features, 0..3, 7);
            assert!(kept > 0 && kept < pieces, "{kept}");
            let (found, kept) = shared(&dir, &config, &features, 0..0, 7);
            assert_eq!((found == expected, kept), (true, pieces));
        }
    }

    #[test]
    fn re_ranking_that_makes_no_sense_is_complained_about_by_path() {
        let complaints = |k1, k2| Config { k: 5, rerank: Some(Rerank { k1, k2 }), ..Config::default() }.check();
        assert_eq!(complaints(20, 6), []);
        assert_eq!(complaints(20, 20), []);
        for (k1, k2, path) in [(1, 1, "rerank.k1"), (20, 0, "rerank.k2"), (4, 5, "rerank.k2")] {
            assert_eq!(complaints(k1, k2)[0].path, path, "{k1} {k2}");
        }
        assert!(Config { k: 0, ..Config::default() }.check()[0].message.contains("at least 1"));
    }
}
