//! Matches: for every image of a target, the most similar images of a pool.

use std::path::Path;

use super::error::{ArtifactError, Result, shown};
use super::meta::Meta;
use super::parquet::{Column, ColumnKind, TableReader, TableWriter};
use super::{Artifact, Draft, DraftFile, LabelFree, Stored, rows};
use kinset_math::curate::choose::Edge;
use kinset_math::curate::repeats::Repeats;

const EDGES: &str = "edges.parquet";
const TARGETS: &str = "targets.parquet";
/// Edges that are written at a time.
const STEP: usize = 1 << 16;

/// For every image of a target its nearest images of a pool, in two Parquet tables: `edges.parquet` (`target_id`, `target`,
/// `pool_id`, `pool`, `rank`, `similarity`) and `targets.parquet` (`id`, `row`, `kept`, `representative`, `similarity`), which
/// says of each target image whether it was searched for, or which other one stands for it.
#[derive(Debug)]
pub enum Matches {}

impl Artifact for Matches {
    const KIND: &'static str = "matches";
    const FILES: &'static [&'static str] = &[EDGES, TARGETS];
    const LABEL_FREE: bool = true;
}

impl LabelFree for Matches {}

/// Matches in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchTable {
    /// Names of the target's images, T.
    pub targets: Vec<String>,
    /// Which of them repeat others.
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
    ///
    /// # Errors
    /// If the table does not keep its promises, or a file cannot be written.
    pub fn save<'a>(&self, dir: &Path, name: impl Fn(u32) -> &'a str) -> Result<Draft<Matches>> {
        let path = dir.join(EDGES);
        rows::check_ids(&path, &self.targets, "images")?;
        self.check(&path)?;
        let meta = Meta::new(Matches::KIND)
            .with("k", self.k)
            .with("pool_rows", self.pool)
            .with("metric", "cosine")
            .with("exact", true)
            .with("target", self.target_digest.as_str())
            .with("pool", self.pool_digest.as_str());
        let mut writer = TableWriter::create(&path, &SCHEMA, meta)?;
        for edges in self.edges.chunks(STEP) {
            writer.write(vec![
                Column::Text(edges.iter().map(|edge| self.targets[edge.target as usize].clone()).collect()),
                Column::U32(edges.iter().map(|edge| edge.target).collect()),
                Column::Text(edges.iter().map(|edge| name(edge.pool).to_owned()).collect()),
                Column::U32(edges.iter().map(|edge| edge.pool).collect()),
                Column::U32(edges.iter().map(|edge| edge.rank).collect()),
                Column::F64(edges.iter().map(|edge| edge.cosine).collect()),
            ])?;
        }
        let edges = DraftFile { name: EDGES, path, logical: Some(writer.finish()?) };
        let path = dir.join(TARGETS);
        let mut writer = TableWriter::create(&path, &TARGET_SCHEMA, Meta::new(Matches::KIND))?;
        let repeats = &self.repeats;
        rows::write(&mut writer, &self.targets, |r| {
            vec![
                Column::Bool(repeats.kept[r.clone()].to_vec()),
                Column::U32(repeats.representative[r.clone()].to_vec()),
                Column::F64(repeats.similarity[r].to_vec()),
            ]
        })?;
        let targets = DraftFile { name: TARGETS, path, logical: Some(writer.finish()?) };
        Ok(Draft::new(vec![edges, targets]))
    }

    /// Reads matches.
    ///
    /// # Errors
    /// If a file cannot be read, is damaged, or does not keep its promises.
    pub fn load(stored: &Stored<Matches>) -> Result<Self> {
        let reader = TableReader::open(stored.file(TARGETS), Matches::KIND)?;
        let targets = rows::read_ids(&reader, "images")?;
        reader.require(&TARGET_SCHEMA)?;
        let mut columns = reader.read(&["kept", "representative", "similarity"])?.into_iter();
        let (Some(Column::Bool(kept)), Some(Column::U32(representative)), Some(Column::F64(similarity))) =
            (columns.next(), columns.next(), columns.next())
        else {
            unreachable!("a reader yields the kinds it was asked for")
        };
        let repeats = Repeats { kept, representative, similarity };
        let path = stored.file(EDGES);
        let reader = TableReader::open(path, Matches::KIND)?;
        reader.require(&SCHEMA)?;
        let mut columns = reader.read(&["target", "pool", "rank", "similarity"])?.into_iter();
        let (Some(Column::U32(target)), Some(Column::U32(pool)), Some(Column::U32(rank)), Some(Column::F64(cosine))) =
            (columns.next(), columns.next(), columns.next(), columns.next())
        else {
            unreachable!("a reader yields the kinds it was asked for")
        };
        let edges = target.into_iter().zip(pool).zip(rank).zip(cosine);
        let edges = edges.map(|(((target, pool), rank), cosine)| Edge { target, pool, rank, cosine }).collect();
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
        rows::check_count(path, self.edges.len())?;
        for (row, &representative) in self.repeats.representative.iter().enumerate() {
            if representative as usize >= targets {
                return Err(rows::out_of_range(path, "representative", row, representative, format!("a row below {targets}")));
            }
        }
        let wanted = self.k.min(self.pool);
        let mut edges = self.edges.iter().enumerate().peekable();
        for target in (0..targets as u32).filter(|&target| self.repeats.kept[target as usize]) {
            let mut last: Option<&Edge> = None;
            for rank in 1..=wanted as u32 {
                let Some((row, edge)) = edges.next() else {
                    let what = format!("target {target} has {} matches where {wanted} were expected", rank - 1);
                    return Err(ArtifactError::Contradiction { path: shown(path), what });
                };
                if (edge.target, edge.rank) != (target, rank) {
                    let found = format!("rank {} of target {}", edge.rank, edge.target);
                    return Err(rows::out_of_range(path, "rank", row, found, format!("rank {rank} of target {target}")));
                }
                if edge.pool as usize >= self.pool {
                    return Err(rows::out_of_range(path, "pool", row, edge.pool, format!("a row below {}", self.pool)));
                }
                if !(-1.0..=1.0).contains(&edge.cosine) {
                    return Err(rows::out_of_range(path, "similarity", row, edge.cosine, "a cosine from -1 to 1"));
                }
                if last.is_some_and(|last| last.cosine < edge.cosine || last.cosine <= edge.cosine && last.pool >= edge.pool) {
                    return Err(rows::out_of_range(path, "similarity", row, edge.cosine, "falling similarities, ties by row"));
                }
                last = Some(edge);
            }
        }
        match edges.next() {
            None => Ok(()),
            Some((row, edge)) => Err(rows::out_of_range(path, "target", row, edge.target, "no further match")),
        }
    }
}

const SCHEMA: [(&str, ColumnKind); 6] = [
    ("target_id", ColumnKind::Text),
    ("target", ColumnKind::U32),
    ("pool_id", ColumnKind::Text),
    ("pool", ColumnKind::U32),
    ("rank", ColumnKind::U32),
    ("similarity", ColumnKind::F64),
];

const TARGET_SCHEMA: [(&str, ColumnKind); 5] = [
    ("id", ColumnKind::Text),
    ("row", ColumnKind::U32),
    ("kept", ColumnKind::Bool),
    ("representative", ColumnKind::U32),
    ("similarity", ColumnKind::F64),
];

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
