//! Selections: which images of a pool were taken for a target, and why each.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::edges;
use super::error::{ArtifactError, Result, display};
use super::meta::{Meta, read_json, write_json};
use super::parquet::TableReader;
use super::table::{self, column, slice};
use super::{Artifact, Draft, DraftFile, Stored};
use kinset_math::curate::alike::Difference;
use kinset_math::curate::choose::{Edge, Reason};
use kinset_math::curate::repeats::Repeats;

const FILE: &str = "selection.parquet";
const EDGES: &str = "edges.parquet";
const TARGETS: &str = "targets.parquet";
const REPORT: &str = "report.json";

/// Which images of a pool were taken, in three Parquet tables and a report.
///
/// - `selection.parquet`, the images in pool order: `id`, `row`, `pool` (row in the pool, shards one after the other), `order`
///   (place in budget order, from 0: a prefix is the selection of a smaller budget), `target_id`, `target`, `rank`, `similarity`,
///   `distance` (of the best target), `targets` (how many chose it), `copies` (images dropped because they nearly equal it),
///   `cluster` (the part that the budget was divided by: of the best target, or of the candidates; −1 without), `reason` (how it was picked).
/// - `edges.parquet`, every pair that was looked at: `target_id`, `target`, `pool_id`, `pool`, `rank`, `similarity`, `distance`,
///   `kept`, `reason` (`ok`; `refill` beyond the first k; or why not), `duplicate_of` (the pool image that stands for it, or nothing).
/// - `targets.parquet`, every target image: `id`, `row`, `kept`, `representative` (the row that stands for it), `similarity` (to
///   that), `selected` (pool images taken for it), `covered`.
/// - `report.json`: does the selection look like the target? [`Report`].
#[derive(Debug)]
pub enum Selection {}

artifact!(Selection, "selection", [FILE, EDGES, TARGETS, REPORT], label_free);

#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    pub id: String,
    /// Its place in budget order, from 0.
    pub order: u32,
    /// The edge to its best target.
    pub best: Edge,
    /// How many targets chose it.
    pub targets: u32,
    /// Images dropped because they nearly equal it.
    pub copies: u32,
    /// The part that it was taken from: of the target by its best target, or of the candidates; −1 where none were made.
    pub cluster: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub edge: Edge,
    pub pool_id: String,
    pub reason: Reason,
    /// The pool image that stands for it; empty if none does.
    pub duplicate_of: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SelectionTable {
    /// How images were picked: `nearest`, `random`, `diverse`, `dissimilar`.
    pub pick: String,
    /// Images per target.
    pub k: usize,
    /// In pool order.
    pub chosen: Vec<Chosen>,
    /// By target, then by rank.
    pub edges: Vec<Judged>,
    /// Names of the target's images, T.
    pub targets: Vec<String>,
    pub repeats: Repeats,
    /// `[T]`: pool images taken for each.
    pub selected: Vec<u32>,
    pub report: Report,
}

/// Does a selection look like its target? Every number stands beside that of as many random images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    pub pick: String,
    /// Digests of what the features say: `target`, `pool`, `held_out`.
    pub inputs: BTreeMap<String, Vec<String>>,
    /// D.
    pub dim: usize,
    /// Images per target.
    pub k: usize,
    pub counts: Counts,
    pub edges: BTreeMap<String, usize>,
    /// Mean distance of the edges that count, by rank from 1; none where a rank has none.
    pub rank_distance: Vec<Option<f64>>,
    /// Share of target images with a selected (random) image nearer than a distance.
    pub coverage: Vec<Coverage>,
    /// Distance of each target image to its nearest one among others.
    pub nearest: Nearest,
    /// How selection, and as many random images, differ from the target.
    pub difference: BTreeMap<String, Difference>,
    /// Parts of the target (k-means), and their shares.
    pub clusters: Vec<Share>,
    /// Total variation distance of the shares of the selection (of random images) from those of the target, 0 to 1.
    pub total_variation: BTreeMap<String, f64>,
    /// Images that nearly equal others, if they were looked for.
    pub duplicates: Option<Duplicates>,
    /// What the selection leaves out, where it was chosen for a target.
    // Left out where there is none: reports of before keep their bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
}

/// What a selection leaves out, and what more of it would bring.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missed {
    /// The target is said to be covered where a selected image is at most so far: as far as half of the target's images are from their
    /// nearest other one.
    pub near: f64,
    /// Target images without repetitions that are not covered.
    pub uncovered: usize,
    /// Of these, those that an image of the pool would cover which may be taken: no copy of an image of the target or of a held-out one.
    pub in_pool: usize,
    /// Those that are farthest from what was taken.
    pub targets: Vec<Farthest>,
    /// Parts of the pool (k-means on a sample), those nearest to the target first.
    pub regions: Vec<Region>,
    /// By budget, rising: what was taken, and what less and more would have brought.
    pub budgets: Vec<Budget>,
}

/// A target image, and how far it is from what was taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Farthest {
    pub id: String,
    /// In the target.
    pub row: u32,
    /// To the nearest image that was taken; 2 if nothing was.
    pub distance: f64,
    /// To the nearest image of the pool that may be taken; if none may, to the nearest.
    pub in_pool: f64,
    /// That image.
    pub pool_id: String,
    pub pool: u32,
    /// Why it was not taken; `ok` if it was.
    pub reason: String,
}

/// A part of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// The image nearest to its center, of a sample of the pool.
    pub typical: String,
    pub pool: u32,
    /// Its share of the pool, 0 to 1.
    pub share: f64,
    /// Images taken from it.
    pub selected: usize,
    /// Mean distance of its images to the nearest one of the target.
    pub distance: f64,
}

/// What a budget brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    pub images: usize,
    /// Share of the target that is covered.
    pub coverage: f64,
    /// By as many random images.
    pub random_coverage: f64,
    /// Mean distance of target images to the nearest one taken.
    pub distance: f64,
    /// MMD² of what is taken and the target.
    pub mmd2: f64,
    pub random_mmd2: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// In the target.
    pub target: usize,
    /// Of these, left without repetitions.
    pub target_kept: usize,
    pub pool: usize,
    /// In the pool, with an edge.
    pub candidates: usize,
    pub selected: usize,
    /// Target images without repetitions for which nothing was taken.
    pub uncovered: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// Nearer than this.
    pub distance: f64,
    /// Share of the target with a selected image so near.
    pub selection: f64,
    /// Share with a random one.
    pub random: f64,
}

/// Histograms of nearest distances; bin i reaches from `edges[i]` to `edges[i + 1]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nearest {
    pub edges: Vec<f64>,
    /// To other target images.
    pub target: Vec<u64>,
    /// To the selection.
    pub selection: Vec<u64>,
    /// To random images.
    pub random: Vec<u64>,
    /// Means, in the same order.
    pub mean: BTreeMap<String, f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    pub cluster: usize,
    /// Its share of the target, 0 to 1.
    pub target: f64,
    /// Of the selection.
    pub selection: f64,
    /// Of random images.
    pub random: f64,
    /// Images it was to get, with quotas.
    pub quota: Option<usize>,
}

/// Images that nearly equal others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Duplicates {
    pub compared: usize,
    /// Groups of two images or more.
    pub groups: usize,
    /// Images dropped because another stands for them.
    pub dropped: usize,
    /// Images in the largest group.
    pub largest: usize,
    /// The largest distance within any group: far above the threshold if a chain has joined strangers.
    pub widest: f64,
}

impl SelectionTable {
    pub fn save(&self, dir: &Path) -> Result<Draft<Selection>> {
        let path = dir.join(FILE);
        self.check(&path)?;
        let ids: Vec<String> = self.chosen.iter().map(|chosen| chosen.id.clone()).collect();
        let meta = Meta::new(Selection::KIND).with("pick", self.pick.as_str()).with("k", self.k);
        let target = |edge: &Edge| self.targets[edge.target as usize].clone();
        let chosen = table::save_images(dir, FILE, meta, &ids, |r| {
            let all = &self.chosen[r];
            vec![
                ("pool", column(all, |c| c.best.pool)),
                ("order", column(all, |c| c.order)),
                ("target_id", column(all, |c| target(&c.best))),
                ("target", column(all, |c| c.best.target)),
                ("rank", column(all, |c| c.best.rank)),
                ("similarity", column(all, |c| c.best.cosine)),
                ("distance", column(all, |c| c.best.distance())),
                ("targets", column(all, |c| c.targets)),
                ("copies", column(all, |c| c.copies)),
                ("cluster", column(all, |c| c.cluster)),
                ("reason", column(all, |_| self.pick.clone())),
            ]
        })?;
        let edges = table::save(dir, EDGES, Meta::new(Selection::KIND), self.edges.len(), |r| {
            let all = &self.edges[r];
            let mut columns = edges::columns(all, |e| &e.edge, &self.targets, |e| e.pool_id.clone());
            columns.extend([
                ("distance", column(all, |e| e.edge.distance())),
                ("kept", column(all, |e| e.reason.counts())),
                ("reason", column(all, |e| e.reason.word().to_owned())),
                ("duplicate_of", column(all, |e| e.duplicate_of.clone())),
            ]);
            columns
        })?;
        let targets = table::save_images(dir, TARGETS, Meta::new(Selection::KIND), &self.targets, |r| {
            let mut columns = edges::repeats_columns(&self.repeats, &r);
            columns.push(("selected", slice(&self.selected, &r)));
            columns.push(("covered", column(&self.selected[r], |count| *count > 0)));
            columns
        })?;
        let path = dir.join(REPORT);
        write_json(&path, Selection::KIND, &self.report)?;
        Ok(Draft::new(vec![chosen, edges, targets, DraftFile { name: REPORT, path, logical: None }]))
    }

    pub fn load(stored: &Stored<Selection>) -> Result<Self> {
        let reader = TableReader::open(stored.file(TARGETS), Selection::KIND)?;
        let targets = table::read_ids(&reader, "images")?;
        let (repeats, selected) = (edges::read_repeats(&reader)?, reader.values("selected")?);
        let edges = Self::load_edges(stored)?;
        let path = stored.file(FILE);
        let reader = TableReader::open(path, Selection::KIND)?;
        let chosen = Self::load_chosen(&reader)?;
        let (pick, k) = (reader.meta().get(path, "pick", "a word")?, reader.meta().get(path, "k", "a number")?);
        let report = read_json(stored.file(REPORT), Selection::KIND)?;
        let table = Self { pick, k, chosen, edges, targets, repeats, selected, report };
        table.check(path)?;
        Ok(table)
    }

    /// Names and pool rows of the images that were taken, in pool order: all that a stage needs which works on them.
    pub fn rows(stored: &Stored<Selection>) -> Result<Vec<(String, u32)>> {
        let reader = TableReader::open(stored.file(FILE), Selection::KIND)?;
        Ok(Self::load_chosen(&reader)?.into_iter().map(|chosen| (chosen.id, chosen.best.pool)).collect())
    }

    pub fn report(stored: &Stored<Selection>) -> Result<Report> {
        read_json(stored.file(REPORT), Selection::KIND)
    }

    fn load_chosen(reader: &TableReader) -> Result<Vec<Chosen>> {
        let (ids, order): (Vec<String>, Vec<u32>) = (reader.values("id")?, reader.values("order")?);
        let (targets, copies): (Vec<u32>, Vec<u32>) = (reader.values("targets")?, reader.values("copies")?);
        let cluster: Vec<i32> = reader.values("cluster")?;
        let rows = ids.into_iter().zip(edges::read(reader)?).enumerate();
        let chosen = rows.map(|(row, (id, best))| Chosen {
            id,
            order: order[row],
            best,
            targets: targets[row],
            copies: copies[row],
            cluster: cluster[row],
        });
        Ok(chosen.collect())
    }

    fn load_edges(stored: &Stored<Selection>) -> Result<Vec<Judged>> {
        let path = stored.file(EDGES);
        let reader = TableReader::open(path, Selection::KIND)?;
        let edges = edges::read(&reader)?.into_iter().zip(reader.values::<String>("pool_id")?);
        let edges = edges.zip(reader.values::<String>("reason")?).zip(reader.values("duplicate_of")?).enumerate();
        edges
            .map(|(row, (((edge, pool_id), word), duplicate_of))| {
                let reason = Reason::ALL.into_iter().find(|reason| reason.word() == word);
                let reason = reason.ok_or_else(|| table::out_of_range(path, "reason", row, word, "a reason"))?;
                Ok(Judged { edge, pool_id, reason, duplicate_of })
            })
            .collect()
    }

    fn check(&self, path: &Path) -> Result<()> {
        table::check_ids(path, &self.targets, "images")?;
        let t = self.targets.len();
        table::check_count(path, self.edges.len())?;
        edges::check_repeats(path, &self.repeats, t)?;
        table::check_length(path, "selected", self.selected.len(), t)?;
        if !self.chosen.is_empty() {
            let ids: Vec<String> = self.chosen.iter().map(|chosen| chosen.id.clone()).collect();
            table::check_ids(path, &ids, "images")?;
        }
        if let Some(row) = self.chosen.windows(2).position(|pair| pair[0].best.pool >= pair[1].best.pool) {
            return Err(table::out_of_range(path, "pool", row + 1, self.chosen[row + 1].best.pool, "a later row of the pool"));
        }
        let edges = self.chosen.iter().map(|chosen| &chosen.best).chain(self.edges.iter().map(|judged| &judged.edge));
        for (row, edge) in edges.enumerate() {
            edges::check(path, row, edge, t)?;
        }
        let kept = self.edges.iter().filter(|judged| judged.reason.counts()).count();
        let counted: usize = self.chosen.iter().map(|chosen| chosen.targets as usize).sum();
        if kept != counted {
            let what = format!("{kept} edges count, but the images taken declare {counted}");
            return Err(ArtifactError::Contradiction { path: display(path), what });
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::stored;

    /// Three target images, one of them a repetition; two pool images taken, one dropped as a duplicate.
    pub(crate) fn table() -> SelectionTable {
        let edge = |target, pool, rank, cosine| Edge { target, pool, rank, cosine };
        let judged = |edge: Edge, reason, duplicate_of: &str| Judged {
            edge,
            pool_id: format!("p{}", edge.pool),
            reason,
            duplicate_of: duplicate_of.to_owned(),
        };
        let chosen = |edge: Edge, order, targets, copies| Chosen {
            id: format!("p{}", edge.pool),
            order,
            best: edge,
            targets,
            copies,
            cluster: -1,
        };
        SelectionTable {
            pick: "nearest".into(),
            k: 2,
            chosen: vec![chosen(edge(2, 0, 1, 0.25), 1, 1, 0), chosen(edge(0, 4, 1, 0.9), 0, 2, 1)],
            edges: vec![
                judged(edge(0, 4, 1, 0.9), Reason::Ok, ""),
                judged(edge(0, 1, 2, 0.3), Reason::Duplicate, "p4"),
                judged(edge(2, 0, 1, 0.25), Reason::Ok, ""),
                judged(edge(2, 4, 2, -0.5), Reason::Ok, ""),
            ],
            targets: vec!["a".into(), "b".into(), "c".into()],
            repeats: Repeats { kept: vec![true, false, true], representative: vec![0, 0, 2], similarity: vec![1.0, 0.99, 1.0] },
            selected: vec![1, 0, 2],
            report: Report { pick: "nearest".into(), rank_distance: vec![Some(0.1), None], ..Report::default() },
        }
    }

    #[test]
    fn selections_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let stored = stored(&table().save(dir.path()).unwrap());
        assert_eq!(SelectionTable::load(&stored).unwrap(), table());
        assert_eq!(SelectionTable::rows(&stored).unwrap(), [("p0".to_owned(), 0), ("p4".to_owned(), 4)]);
        let nothing = SelectionTable { chosen: vec![], edges: vec![], selected: vec![0; 3], ..table() };
        let stored = crate::testing::stored(&nothing.save(dir.path()).unwrap());
        assert_eq!(SelectionTable::load(&stored).unwrap(), nothing, "nothing may be near enough");
    }

    #[test]
    fn what_is_no_selection_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |change: fn(&mut SelectionTable)| {
            let mut table = table();
            change(&mut table);
            table.save(dir.path()).unwrap_err().to_string()
        };
        assert!(refuse(|t| t.chosen.swap(0, 1)).contains("a later row of the pool"));
        assert!(refuse(|t| t.chosen[0].id = "p4".into()).contains("twice"));
        assert!(refuse(|t| t.chosen[0].best.target = 3).contains("a row below 3"));
        assert!(refuse(|t| t.edges[0].edge.cosine = 2.0).contains("a cosine"));
        assert!(refuse(|t| t.edges[0].reason = Reason::Budget).contains("2 edges count"));
        assert!(refuse(|t| t.selected.truncate(2)).contains("`selected`"));
        assert!(refuse(|t| t.repeats.representative[1] = 7).contains("a row below 3"));
    }
}
