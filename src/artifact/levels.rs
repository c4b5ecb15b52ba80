//! Levels: the clusters that a pool was divided into before a balanced part of it was taken, and how evenly.

use std::path::Path;

use super::error::{ArtifactError, Result, display};
use super::meta::Meta;
use super::parquet::TableReader;
use super::table::{self, column};
use super::{Artifact, Draft, Stored};

const FILE: &str = "levels.parquet";
const CLUSTERS: &str = "clusters.parquet";

/// The levels of a hierarchical clustering of a pool, in two Parquet tables.
///
/// - `levels.parquet`, one row per level, that of images first: `level` (from 1), `clusters` (that hold something), `smallest` and
///   `largest` (images in one), `effective` (effective number of clusters, exp of the entropy, of the pool's images),
///   `effective_selected` and `effective_random` (of those taken, and of as many random ones), `nearest` (mean distance, 1 − cosine, of
///   a center to the nearest other one), `within` (mean Euclidean distance of an image, or of a center of the level below, to its center).
///   Metadata: `nearest_selected` and `nearest_random`, the mean distance of an image of the selection to the nearest other one of it,
///   and the same among as many random ones.
/// - `clusters.parquet`, one row per cluster: `level`, `cluster`, `parent` (its cluster in the next level; −1 in the highest),
///   `images`, `selected`.
#[derive(Debug)]
pub enum Levels {}

artifact!(Levels, "levels", [FILE, CLUSTERS], label_free);

#[derive(Clone, Debug, PartialEq)]
pub struct LevelTable {
    /// That of images first.
    pub levels: Vec<LevelRow>,
    /// By level, then by number.
    pub clusters: Vec<ClusterRow>,
    /// Mean distance of an image taken to the nearest other one taken; nothing where fewer than two were taken.
    pub nearest_selected: Option<f64>,
    /// The same among as many random images.
    pub nearest_random: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelRow {
    /// From 1, that of images.
    pub level: u32,
    pub clusters: u32,
    pub smallest: u32,
    pub largest: u32,
    /// Effective number of clusters, 1 to `clusters`.
    pub effective: f64,
    pub effective_selected: f64,
    pub effective_random: f64,
    /// Mean distance of a center to the nearest other one; 0 where there is one only.
    pub nearest: f64,
    /// Mean distance of what is in a cluster to its center.
    pub within: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterRow {
    /// From 1.
    pub level: u32,
    /// From 0.
    pub cluster: u32,
    /// −1 in the highest level.
    pub parent: i32,
    /// Of the pool.
    pub images: u32,
    /// Of these, taken.
    pub selected: u32,
}

impl LevelTable {
    /// Writes both tables into a folder.
    ///
    /// # Errors
    /// If the tables contradict each other or a number is not finite, or a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<Draft<Levels>> {
        self.check(&dir.join(FILE))?;
        let meta =
            Meta::new(Levels::KIND).with("nearest_selected", self.nearest_selected).with("nearest_random", self.nearest_random);
        let levels = table::save(dir, FILE, meta, self.levels.len(), |r| {
            let rows = &self.levels[r];
            vec![
                ("level", column(rows, |row| row.level)),
                ("clusters", column(rows, |row| row.clusters)),
                ("smallest", column(rows, |row| row.smallest)),
                ("largest", column(rows, |row| row.largest)),
                ("effective", column(rows, |row| row.effective)),
                ("effective_selected", column(rows, |row| row.effective_selected)),
                ("effective_random", column(rows, |row| row.effective_random)),
                ("nearest", column(rows, |row| row.nearest)),
                ("within", column(rows, |row| row.within)),
            ]
        })?;
        let clusters = table::save(dir, CLUSTERS, Meta::new(Levels::KIND), self.clusters.len(), |r| {
            let rows = &self.clusters[r];
            vec![
                ("level", column(rows, |row| row.level)),
                ("cluster", column(rows, |row| row.cluster)),
                ("parent", column(rows, |row| row.parent)),
                ("images", column(rows, |row| row.images)),
                ("selected", column(rows, |row| row.selected)),
            ]
        })?;
        Ok(Draft::new(vec![levels, clusters]))
    }

    pub fn load(stored: &Stored<Levels>) -> Result<Self> {
        let path = stored.file(FILE);
        let reader = TableReader::open(path, Levels::KIND)?;
        let counts = |name: &str| reader.values::<u32>(name);
        let numbers = |name: &str| reader.values::<f64>(name);
        let (level, clusters, smallest, largest) =
            (counts("level")?, counts("clusters")?, counts("smallest")?, counts("largest")?);
        let (effective, nearest, within) = (numbers("effective")?, numbers("nearest")?, numbers("within")?);
        let (selected, random) = (numbers("effective_selected")?, numbers("effective_random")?);
        let levels = (0..level.len())
            .map(|row| LevelRow {
                level: level[row],
                clusters: clusters[row],
                smallest: smallest[row],
                largest: largest[row],
                effective: effective[row],
                effective_selected: selected[row],
                effective_random: random[row],
                nearest: nearest[row],
                within: within[row],
            })
            .collect();
        let meta = |field| reader.meta().get(path, field, "a distance or nothing");
        let (nearest_selected, nearest_random) = (meta("nearest_selected")?, meta("nearest_random")?);
        let reader = TableReader::open(stored.file(CLUSTERS), Levels::KIND)?;
        let counts = |name: &str| reader.values::<u32>(name);
        let (level, cluster, images, selected) = (counts("level")?, counts("cluster")?, counts("images")?, counts("selected")?);
        let clusters = reader.values::<i32>("parent")?.into_iter().enumerate().map(|(row, parent)| ClusterRow {
            level: level[row],
            cluster: cluster[row],
            parent,
            images: images[row],
            selected: selected[row],
        });
        let table = Self { levels, clusters: clusters.collect(), nearest_selected, nearest_random };
        table.check(path)?;
        Ok(table)
    }

    fn check(&self, path: &Path) -> Result<()> {
        if self.levels.is_empty() {
            return Err(ArtifactError::Empty { path: display(path), what: "levels" });
        }
        table::check_count(path, self.levels.len())?;
        for (at, row) in self.levels.iter().enumerate() {
            let numbers = [row.effective, row.effective_selected, row.effective_random, row.nearest, row.within];
            if let Some(value) = numbers.iter().find(|number| !number.is_finite()) {
                let (column, value) = ("effective".into(), value.to_string());
                return Err(ArtifactError::NotFinite { path: display(path), column, row: at, value });
            }
            let (here, above) = (self.of(row.level), self.levels.get(at + 1));
            let top = above.map_or(0, |above| above.clusters as i32);
            let numbered = here.iter().enumerate().all(|(number, cluster)| cluster.cluster as usize == number);
            let parents =
                here.iter().all(|cluster| if top == 0 { cluster.parent == -1 } else { (0..top).contains(&cluster.parent) });
            if row.level as usize != at + 1 || here.len() != row.clusters as usize || !numbered || !parents {
                let what = format!(
                    "level {} declares {} clusters with parents in the next level, and does not have them",
                    at + 1,
                    row.clusters
                );
                return Err(ArtifactError::Contradiction { path: display(path), what });
            }
            if let Some(cluster) = here.iter().find(|cluster| cluster.selected > cluster.images) {
                let what =
                    format!("{} of {} images of cluster {} were taken", cluster.selected, cluster.images, cluster.cluster);
                return Err(ArtifactError::Contradiction { path: display(path), what });
            }
        }
        Ok(())
    }

    /// The clusters of a level.
    pub fn of(&self, level: u32) -> &[ClusterRow] {
        let from = self.clusters.partition_point(|cluster| cluster.level < level);
        let here = self.clusters[from..].partition_point(|cluster| cluster.level == level);
        &self.clusters[from..from + here]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::stored;

    /// Three clusters of images in two.
    pub(crate) fn table() -> LevelTable {
        let level = |level, clusters, smallest, largest| LevelRow {
            level,
            clusters,
            smallest,
            largest,
            effective: 0.1 + 0.2,
            effective_selected: 1.5,
            effective_random: 1.25,
            nearest: 0.5,
            within: 0.0,
        };
        let cluster = |level, cluster, parent, images| ClusterRow { level, cluster, parent, images, selected: 1 };
        LevelTable {
            levels: vec![level(1, 3, 1, 5), level(2, 2, 4, 5)],
            clusters: vec![
                cluster(1, 0, 1, 5),
                cluster(1, 1, 0, 1),
                cluster(1, 2, 0, 3),
                cluster(2, 0, -1, 4),
                cluster(2, 1, -1, 5),
            ],
            nearest_selected: Some(0.25),
            nearest_random: None,
        }
    }

    #[test]
    fn levels_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(LevelTable::load(&stored(&table().save(dir.path()).unwrap())).unwrap(), table());
        assert_eq!(table().of(2), &table().clusters[3..]);
    }

    #[test]
    fn what_is_no_hierarchy_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |change: fn(&mut LevelTable)| {
            let mut table = table();
            change(&mut table);
            table.save(dir.path()).unwrap_err().to_string()
        };
        assert!(refuse(|t| t.levels.clear()).contains("no levels"));
        assert!(refuse(|t| t.levels[1].within = f64::NAN).contains("NaN"));
        assert!(refuse(|t| t.clusters[0].parent = 2).contains("level 1 declares 3 clusters"));
        assert!(refuse(|t| t.clusters[3].parent = 0).contains("level 2 declares"));
        assert!(refuse(|t| t.clusters.truncate(4)).contains("level 2 declares"));
        assert!(refuse(|t| t.clusters[1].selected = 2).contains("2 of 1 images of cluster 1"));
    }
}
