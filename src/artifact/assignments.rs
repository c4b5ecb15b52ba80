//! Assignments: which cluster each image fell into.

use std::path::Path;

use super::error::{ArtifactError, Result, display};
use super::meta::Meta;
use super::parquet::{Column, ColumnKind, TableReader, TableWriter};
use super::{Artifact, Draft, Stored, table};

const FILE: &str = "assignments.parquet";

/// The cluster of each image, in Parquet: `id`, `row`, `cluster`, `confidence`, `entropy`, `second_cluster`. Clusters have no
/// names: they were never matched with classes.
#[derive(Debug)]
pub enum Assignments {}

artifact!(Assignments, "assignments", [FILE], label_free);

#[derive(Clone, Debug, PartialEq)]
pub struct AssignmentTable {
    /// Names of the images, N.
    pub ids: Vec<String>,
    /// Clusters there are, K.
    pub clusters: usize,
    /// `[N]`: the cluster of each image, from 0; −1 where it belongs to none.
    pub cluster: Vec<i32>,
    /// `[N]`: its probability, 0–1.
    pub confidence: Vec<f32>,
    /// `[N]`: entropy of the probabilities, nats, from 0 to ln K.
    pub entropy: Vec<f32>,
    /// `[N]`: the runner-up; −1 where there is none.
    pub second_cluster: Vec<i32>,
}

impl AssignmentTable {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// `[K]`: images per cluster.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.clusters];
        for cluster in &self.cluster {
            if let Some(size) = usize::try_from(*cluster).ok().and_then(|cluster| sizes.get_mut(cluster)) {
                *size += 1;
            }
        }
        sizes
    }

    /// Writes `assignments.parquet` into a folder.
    pub fn save(&self, dir: &Path) -> Result<Draft<Assignments>> {
        let path = dir.join(FILE);
        table::check_ids(&path, &self.ids, "images")?;
        self.check(&path)?;
        let meta = Meta::new(Assignments::KIND).with("clusters", self.clusters);
        let file = table::save_images(dir, FILE, meta, &self.ids, |r| {
            vec![
                ("cluster", table::slice(&self.cluster, &r)),
                ("confidence", table::slice(&self.confidence, &r)),
                ("entropy", table::slice(&self.entropy, &r)),
                ("second_cluster", table::slice(&self.second_cluster, &r)),
            ]
        })?;
        Ok(Draft::new(vec![file]))
    }

    pub fn load(stored: &Stored<Assignments>) -> Result<Self> {
        let path = stored.file(FILE);
        let reader = TableReader::open(path, Assignments::KIND)?;
        let table = Self {
            ids: table::read_ids(&reader, "images")?,
            clusters: reader.meta().get(path, "clusters", "a number of clusters")?,
            cluster: reader.values("cluster")?,
            confidence: reader.values("confidence")?,
            entropy: reader.values("entropy")?,
            second_cluster: reader.values("second_cluster")?,
        };
        table.check(path)?;
        Ok(table)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let n = self.ids.len();
        let limit = i32::try_from(self.clusters).unwrap_or(i32::MAX);
        if limit == 0 {
            return Err(ArtifactError::Contradiction { path: display(path), what: "there are 0 clusters".into() });
        }
        for (column, values) in [("cluster", &self.cluster), ("second_cluster", &self.second_cluster)] {
            table::check_length(path, column, values.len(), n)?;
            if let Some(row) = values.iter().position(|cluster| *cluster < -1 || *cluster >= limit) {
                let wanted = format!("a cluster from 0 to {}, or -1 for none", limit - 1);
                return Err(table::out_of_range(path, column, row, values[row], wanted));
            }
        }
        for (column, values) in [("confidence", &self.confidence), ("entropy", &self.entropy)] {
            table::check_length(path, column, values.len(), n)?;
            table::check_finite(path, column, 1, values)?;
        }
        // Rounding may leave the last bits outside.
        if let Some(row) = self.confidence.iter().position(|p| !(-1e-6..=1.0 + 1e-5).contains(p)) {
            return Err(table::out_of_range(path, "confidence", row, self.confidence[row], "a probability from 0 to 1"));
        }
        if let Some(row) = self.entropy.iter().position(|h| *h < -1e-5) {
            return Err(table::out_of_range(path, "entropy", row, self.entropy[row], "nats from 0"));
        }
        Ok(())
    }
}

/// Streams assignments to a Parquet file, with the path of each picture, and its group where clusters have names. Memory: one row group.
pub struct AssignmentsWriter {
    table: TableWriter,
    named: bool,
}

impl std::fmt::Debug for AssignmentsWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AssignmentsWriter").field("rows", &self.table.rows()).finish_non_exhaustive()
    }
}

impl AssignmentsWriter {
    /// Starts a file; one that is there already is replaced. `named` says whether images have groups.
    pub fn create(path: &Path, clusters: usize, named: bool) -> Result<Self> {
        let mut schema = vec![
            ("id", ColumnKind::Text),
            ("row", ColumnKind::U32),
            ("path", ColumnKind::Text),
            ("cluster", ColumnKind::I32),
            ("confidence", ColumnKind::F32),
            ("entropy", ColumnKind::F32),
            ("second_cluster", ColumnKind::I32),
        ];
        if named {
            schema.push(("group", ColumnKind::Text));
        }
        let meta = Meta::new(Assignments::KIND).with("clusters", clusters);
        Ok(Self { table: TableWriter::create(path, &schema, meta)?, named })
    }

    /// Takes the next images, their paths and, where images have groups, these.
    ///
    /// # Errors
    /// If columns differ in length, or the file cannot be written.
    pub fn push(&mut self, images: AssignmentTable, paths: Vec<String>, groups: Vec<String>) -> Result<()> {
        let first = self.table.rows() as usize;
        let AssignmentTable { ids, clusters: _, cluster, confidence, entropy, second_cluster } = images;
        let mut columns = vec![
            Column::Text(ids),
            table::row_numbers(first..first + cluster.len()),
            Column::Text(paths),
            Column::I32(cluster),
            Column::F32(confidence),
            Column::F32(entropy),
            Column::I32(second_cluster),
        ];
        if self.named {
            columns.push(Column::Text(groups));
        }
        self.table.write(columns)
    }

    pub fn finish(self) -> Result<()> {
        self.table.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    fn table() -> AssignmentTable {
        AssignmentTable {
            ids: vec!["a".into(), "b".into(), "c".into()],
            clusters: 3,
            cluster: vec![0, 2, -1],
            confidence: vec![1.0, 0.5, 0.25],
            entropy: vec![0.0, 0.7, 1.0],
            second_cluster: vec![1, 0, -1],
        }
    }

    #[test]
    fn assignments_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(AssignmentTable::load(&stored(&table().save(dir.path()).unwrap())).unwrap(), table());
        assert_eq!(table().sizes(), [1, 0, 1]);
    }

    #[test]
    fn a_stream_of_assignments_is_a_table_of_them_with_paths() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut writer = AssignmentsWriter::create(&path, 3, true).unwrap();
        let other = AssignmentTable { ids: vec!["d".into(), "e".into(), "f".into()], ..table() };
        let texts = |of: [&str; 3]| of.map(str::to_owned).to_vec();
        writer.push(table(), texts(["1", "2", "3"]), texts(["a", "b", ""])).unwrap();
        writer.push(other, texts(["4", "5", "6"]), texts(["a", "a", "c"])).unwrap();
        writer.finish().unwrap();
        let read = TableReader::open(&path, Assignments::KIND).unwrap();
        assert_eq!(read.read(&["path"]).unwrap(), [Column::Text(["1", "2", "3", "4", "5", "6"].map(str::to_owned).to_vec())]);
        assert_eq!(read.read(&["group"]).unwrap(), [Column::Text(["a", "b", "", "a", "a", "c"].map(str::to_owned).to_vec())]);
        let stored = Stored::new(vec![path], kinset_store::digest::Digest::of(b""), "a test");
        assert_eq!(AssignmentTable::load(&stored).unwrap().cluster, [0, 2, -1, 0, 2, -1]);
    }

    #[test]
    fn what_is_no_cluster_or_probability_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |change: fn(&mut AssignmentTable)| {
            let mut table = table();
            change(&mut table);
            table.save(dir.path()).unwrap_err().to_string()
        };
        assert!(refuse(|t| t.cluster[1] = 3).contains("a cluster from 0 to 2"));
        assert!(refuse(|t| t.second_cluster[2] = -2).contains("`second_cluster`"));
        assert!(refuse(|t| t.confidence[0] = 1.5).contains("a probability"));
        assert!(refuse(|t| t.entropy[0] = -0.5).contains("nats"));
        assert!(refuse(|t| t.entropy[0] = f32::NAN).contains("`NaN`"));
        assert!(refuse(|t| t.clusters = 0).contains("0 clusters"));
        assert!(refuse(|t| t.entropy.clear()).contains("0 values where 3"));
    }
}
