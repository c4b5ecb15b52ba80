//! Matches: for every image of a target, the most similar images of a pool.

use std::path::Path;

use super::edges;
use super::error::{ArtifactError, Result, display};
use super::meta::Meta;
use super::parquet::TableReader;
use super::table;
use super::{Artifact, Draft, Stored};
use kinset_math::curate::choose::Edge;
use kinset_math::curate::repeats::Repeats;

const EDGES: &str = "edges.parquet";
const TARGETS: &str = "targets.parquet";

/// For every image of a target its nearest images of a pool, in two Parquet tables: `edges.parquet` (`target_id`, `target`,
/// `pool_id`, `pool`, `rank`, `similarity`) and `targets.parquet` (`id`, `row`, `kept`, `representative`, `similarity`), which
/// says of each target image whether it was searched for, or which other one stands for it.
#[derive(Debug)]
pub enum Matches {}

artifact!(Matches, "matches", [EDGES, TARGETS], label_free);

#[derive(Clone, Debug, PartialEq)]
pub struct MatchTable {
    /// Names of the target's images, T.
    pub targets: Vec<String>,
    pub repeats: Repeats,
    /// Images asked for per target image; fewer only where the pool has fewer.
    pub k: usize,
    /// Images of the pool.
    pub pool: usize,
    /// By target, then by rank; ranks of a target run from 1 without gaps, similarities fall, ties stand by pool row.
    pub edges: Vec<Edge>,
    /// What the target's features say: their digest, hexadecimal.
    pub target_digest: String,
    /// What the pool's features say.
    pub pool_digest: String,
}

impl MatchTable {
    /// Writes both tables into a folder. `name` is the name of a pool row.
    pub fn save<'a>(&self, dir: &Path, name: impl Fn(u32) -> &'a str) -> Result<Draft<Matches>> {
        let path = dir.join(EDGES);
        table::check_ids(&path, &self.targets, "images")?;
        self.check(&path)?;
        let meta = Meta::new(Matches::KIND)
            .with("k", self.k)
            .with("pool_rows", self.pool)
            .with("metric", "cosine")
            .with("exact", true)
            .with("target", self.target_digest.as_str())
            .with("pool", self.pool_digest.as_str());
        let edges = table::save(dir, EDGES, meta, self.edges.len(), |r| {
            edges::columns(&self.edges[r], |edge| edge, &self.targets, |edge| name(edge.pool).to_owned())
        })?;
        let targets = table::save_images(dir, TARGETS, Meta::new(Matches::KIND), &self.targets, |r| {
            edges::repeats_columns(&self.repeats, &r)
        })?;
        Ok(Draft::new(vec![edges, targets]))
    }

    pub fn load(stored: &Stored<Matches>) -> Result<Self> {
        let reader = TableReader::open(stored.file(TARGETS), Matches::KIND)?;
        let targets = table::read_ids(&reader, "images")?;
        let repeats = edges::read_repeats(&reader)?;
        let path = stored.file(EDGES);
        let reader = TableReader::open(path, Matches::KIND)?;
        let edges = edges::read(&reader)?;
        let meta = reader.meta();
        let table = Self {
            targets,
            repeats,
            edges,
            k: meta.get(path, "k", "a number")?,
            pool: meta.get(path, "pool_rows", "a number of rows")?,
            target_digest: meta.get(path, "target", "a digest")?,
            pool_digest: meta.get(path, "pool", "a digest")?,
        };
        table.check(path)?;
        Ok(table)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let targets = self.targets.len();
        table::check_count(path, self.edges.len())?;
        edges::check_repeats(path, &self.repeats, targets)?;
        let wanted = self.k.min(self.pool);
        let mut edges = self.edges.iter().enumerate().peekable();
        for target in (0..targets as u32).filter(|&target| self.repeats.kept[target as usize]) {
            let mut last: Option<&Edge> = None;
            for rank in 1..=wanted as u32 {
                let Some((row, edge)) = edges.next() else {
                    let what = format!("target {target} has {} matches where {wanted} were expected", rank - 1);
                    return Err(ArtifactError::Contradiction { path: display(path), what });
                };
                if (edge.target, edge.rank) != (target, rank) {
                    let found = format!("rank {} of target {}", edge.rank, edge.target);
                    return Err(table::out_of_range(path, "rank", row, found, format!("rank {rank} of target {target}")));
                }
                if edge.pool as usize >= self.pool {
                    return Err(table::out_of_range(path, "pool", row, edge.pool, format!("a row below {}", self.pool)));
                }
                edges::check(path, row, edge, targets)?;
                if last.is_some_and(|last| last.cosine < edge.cosine || last.cosine <= edge.cosine && last.pool >= edge.pool) {
                    return Err(table::out_of_range(path, "similarity", row, edge.cosine, "falling similarities, ties by row"));
                }
                last = Some(edge);
            }
        }
        match edges.next() {
            None => Ok(()),
            Some((row, edge)) => Err(table::out_of_range(path, "target", row, edge.target, "no further match")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    fn table() -> MatchTable {
        let edge = |target, pool, rank, cosine| Edge { target, pool, rank, cosine };
        MatchTable {
            targets: vec!["a".into(), "b".into(), "c".into()],
            repeats: Repeats { kept: vec![true, false, true], representative: vec![0, 0, 2], similarity: vec![1.0, 0.99, 1.0] },
            k: 2,
            pool: 5,
            edges: vec![edge(0, 4, 1, 1.0), edge(0, 1, 2, 0.1 + 0.2), edge(2, 0, 1, -0.5), edge(2, 3, 2, -0.5)],
            target_digest: "aa".into(),
            pool_digest: "bb".into(),
        }
    }

    const NAMES: [&str; 5] = ["p0", "p1", "p2", "p3", "p4"];

    #[test]
    fn matches_come_back_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let draft = table().save(dir.path(), |row| NAMES[row as usize]).unwrap();
        assert_eq!(MatchTable::load(&stored(&draft)).unwrap(), table());
    }

    #[test]
    fn what_is_no_match_is_refused_with_its_row() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |change: fn(&mut MatchTable)| {
            let mut table = table();
            change(&mut table);
            table.save(dir.path(), |row| NAMES[row as usize]).unwrap_err().to_string()
        };
        assert!(refuse(|t| t.edges[1].pool = 5).contains("a row below 5"));
        assert!(refuse(|t| t.edges[1].cosine = 1.5).contains("a cosine"));
        assert!(refuse(|t| t.edges[1].cosine = f64::NAN).contains("a cosine"));
        assert!(refuse(|t| t.edges[3].cosine = 0.0).contains("falling"));
        assert!(refuse(|t| t.edges.swap(2, 3)).contains("rank 1 of target 2"));
        assert!(refuse(|t| t.edges.truncate(3)).contains("has 1 matches"));
        assert!(refuse(|t| t.edges.push(t.edges[0])).contains("no further match"));
        assert!(refuse(|t| t.repeats.representative[1] = 7).contains("a row below 3"));
    }
}
