//! Features: one vector per image.

use std::path::Path;

use super::error::{ArtifactError, Result, display};
use super::meta::Meta;
use super::parquet::{Column, ColumnKind, TableReader, TableWriter};
use super::{Artifact, Draft, DraftFile, Stored, table};

const FILE: &str = "features.parquet";
/// Unit vectors may be so far from unit length, squared: well above what f32 sums over thousands of dimensions miss.
const UNIT_TOLERANCE: f64 = 1e-3;

/// One vector per image, in Parquet: `id`, `row`, `embedding` (a fixed-size list of `f32`).
#[derive(Debug)]
pub enum Features {}

artifact!(Features, "features", [FILE], label_free);

#[derive(Clone, Debug, PartialEq)]
pub struct FeatureTable {
    /// Names of the images, N.
    pub ids: Vec<String>,
    /// Dimension, D.
    pub dim: usize,
    /// `[N, D]`, finite.
    pub values: Vec<f32>,
    /// True if every row has length 1 (or is all zeros, where there was nothing to scale).
    pub normalized: bool,
    /// The encoder they come from: its digest, hexadecimal, or another name.
    pub encoder: String,
    /// The layer of it that they are: `backbone`, `projection`, or the name of an inner one.
    pub layer: String,
}

impl FeatureTable {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The vector of an image, `[D]`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..(row + 1) * self.dim]
    }

    /// Writes `features.parquet` into a folder.
    pub fn save(&self, dir: &Path) -> Result<Draft<Features>> {
        let path = dir.join(FILE);
        table::check_ids(&path, &self.ids, "features")?;
        self.check(&path)?;
        let dim = self.dim;
        let meta = meta(dim, self.normalized, &self.encoder, &self.layer);
        let file = table::save_images(dir, FILE, meta, &self.ids, |r| {
            vec![("embedding", Column::Vectors { width: dim, values: self.values[r.start * dim..r.end * dim].to_vec() })]
        })?;
        Ok(Draft::new(vec![file]))
    }

    pub fn load(stored: &Stored<Features>) -> Result<Self> {
        Self::open(stored.file(FILE))
    }

    pub fn open(path: &Path) -> Result<Self> {
        let reader = TableReader::open(path, Features::KIND)?;
        let ids = table::read_ids(&reader, "features")?;
        let (dim, values) = reader.vectors("embedding")?;
        let normalized = reader.meta().get(path, "normalized", "true or false")?;
        let encoder = reader.meta().get(path, "encoder", "a digest or a name")?;
        let layer = reader.meta().get(path, "layer", "the name of a layer")?;
        let table = Self { ids, dim, values, normalized, encoder, layer };
        table.check(path)?;
        Ok(table)
    }

    fn check(&self, path: &Path) -> Result<()> {
        if self.dim == 0 {
            let what = "vectors of dimension 0 have no values".into();
            return Err(ArtifactError::Contradiction { path: display(path), what });
        }
        table::check_length(path, "embedding", self.values.len(), self.ids.len().saturating_mul(self.dim))?;
        check_vectors(path, 0, self.dim, &self.values, self.normalized)
    }
}

fn meta(dim: usize, normalized: bool, encoder: &str, layer: &str) -> Meta {
    Meta::new(Features::KIND).with("dim", dim).with("normalized", normalized).with("encoder", encoder).with("layer", layer)
}

/// Checks that vectors are finite and, if they are meant to be, of unit length.
fn check_vectors(path: &Path, first: usize, dim: usize, values: &[f32], normalized: bool) -> Result<()> {
    table::check_finite(path, "embedding", dim, values).map_err(|e| match e {
        ArtifactError::NotFinite { path, column, row, value } => {
            ArtifactError::NotFinite { path, column, row: first + row, value }
        }
        other => other,
    })?;
    if normalized {
        for (row, vector) in values.chunks_exact(dim).enumerate() {
            let square: f64 = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            if (square - 1.0).abs() > UNIT_TOLERANCE && square > 0.0 {
                let found = format!("a vector of length {:.4}", square.sqrt());
                return Err(table::out_of_range(path, "embedding", first + row, found, "length 1"));
            }
        }
    }
    Ok(())
}

/// Features on disk, row group by row group, for pools that do not fit memory. Only the names are held.
#[derive(Debug)]
pub struct FeatureReader {
    table: TableReader,
    ids: Vec<String>,
    dim: usize,
    normalized: bool,
}

impl FeatureReader {
    /// Opens features and reads their names.
    pub fn open(stored: &Stored<Features>) -> Result<Self> {
        let path = stored.file(FILE);
        let table = TableReader::open(path, Features::KIND)?;
        let dim = table.vector_width("embedding")?;
        let ids = table::read_ids(&table, "features")?;
        let normalized = table.meta().get(path, "normalized", "true or false")?;
        Ok(Self { table, ids, dim, normalized })
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if there is none; open features always have some.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    pub fn normalized(&self) -> bool {
        self.normalized
    }

    pub fn groups(&self) -> usize {
        self.table.groups()
    }

    pub fn group_rows(&self, group: usize) -> usize {
        self.table.group_rows(group)
    }

    /// The vectors of a group, `[rows, D]`. `first` is the row it begins with, for messages.
    pub fn group(&self, group: usize, first: usize) -> Result<Vec<f32>> {
        let Some(Column::Vectors { values, .. }) = self.table.read_group(group, &["embedding"])?.pop() else {
            unreachable!("a reader yields the kinds it was asked for")
        };
        check_vectors(self.table.path(), first, self.dim, &values, self.normalized)?;
        Ok(values)
    }

    /// Some vectors, `[rows, D]`, in the order asked for. Only the groups they lie in are read, one at a time.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn rows(&self, wanted: &[u32]) -> Result<Vec<f32>> {
        let mut found = vec![0.0; wanted.len() * self.dim];
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_unstable_by_key(|&place| wanted[place]);
        let mut order = order.into_iter().peekable();
        let mut first = 0;
        for group in 0..self.groups() {
            let after = first + self.group_rows(group);
            if order.peek().is_some_and(|&place| (wanted[place] as usize) < after) {
                let values = self.group(group, first)?;
                while let Some(place) = order.next_if(|&place| (wanted[place] as usize) < after) {
                    let row = wanted[place] as usize - first;
                    found[place * self.dim..(place + 1) * self.dim]
                        .copy_from_slice(&values[row * self.dim..(row + 1) * self.dim]);
                }
            }
            first = after;
        }
        assert!(order.next().is_none(), "a row beyond the {} of the table", self.len());
        Ok(found)
    }
}

/// Streams features to disk, for sets that are embedded batch by batch.
pub struct FeaturesWriter {
    table: TableWriter,
    path: std::path::PathBuf,
    dim: usize,
    normalized: bool,
}

impl FeaturesWriter {
    /// Starts `features.parquet` in a folder.
    pub fn create(dir: &Path, dim: usize, normalized: bool, encoder: &str, layer: &str) -> Result<Self> {
        let path = dir.join(FILE);
        let meta = meta(dim, normalized, encoder, layer);
        let schema = [("id", ColumnKind::Text), ("row", ColumnKind::U32), ("embedding", ColumnKind::Vectors { width: dim })];
        Ok(Self { table: TableWriter::create(&path, &schema, meta)?, path, dim, normalized })
    }

    /// Takes the features of the next images: `values` is `[B, D]`.
    ///
    /// # Errors
    /// If a value is not finite or a vector is not of the declared length, or the file cannot be written.
    pub fn push(&mut self, ids: &[String], values: &[f32]) -> Result<()> {
        let first = self.table.rows() as usize;
        table::check_length(&self.path, "embedding", values.len(), ids.len().saturating_mul(self.dim))?;
        check_vectors(&self.path, first, self.dim, values, self.normalized)?;
        self.table.write(vec![
            Column::Text(ids.to_vec()),
            table::row_numbers(first..first + ids.len()),
            Column::Vectors { width: self.dim, values: values.to_vec() },
        ])
    }

    pub fn finish(self) -> Result<Draft<Features>> {
        let digest = self.table.finish()?;
        Ok(Draft::new(vec![DraftFile { name: FILE, path: self.path, logical: Some(digest) }]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;
    use crate::tests::refused;

    fn table() -> FeatureTable {
        FeatureTable {
            ids: vec!["a".into(), "b".into(), "c".into()],
            dim: 2,
            values: vec![0.6, 0.8, -1.0, 0.0, 0.0, 0.0],
            normalized: true,
            encoder: "pixels".into(),
            layer: "backbone".into(),
        }
    }

    #[test]
    fn features_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let one = FeatureTable { ids: vec!["a".into()], values: vec![5.0, 7.0], normalized: false, ..table() };
        for table in [table(), one] {
            assert_eq!(FeatureTable::load(&stored(&table.save(dir.path()).unwrap())).unwrap(), table);
        }
        assert_eq!(table().row(1), [-1.0, 0.0]);
    }

    #[test]
    fn streaming_says_the_same_as_saving() {
        let dir = tempfile::tempdir().unwrap();
        let table = table();
        let saved = table.save(dir.path()).unwrap().files[0].logical;
        let mut writer = FeaturesWriter::create(dir.path(), 2, true, "pixels", "backbone").unwrap();
        writer.push(&table.ids[..1], &table.values[..2]).unwrap();
        writer.push(&table.ids[1..], &table.values[2..]).unwrap();
        assert_eq!(writer.finish().unwrap().files[0].logical, saved);
    }

    #[test]
    fn a_reader_gives_groups_and_any_rows() {
        let dir = tempfile::tempdir().unwrap();
        let n = 70_000;
        let values: Vec<f32> = (0..n).flat_map(|i| [i as f32, -(i as f32)]).collect();
        let ids = (0..n).map(|i| format!("i{i}")).collect();
        let table = FeatureTable { ids, dim: 2, values, normalized: false, ..table() };
        let stored = stored(&table.save(dir.path()).unwrap());
        let reader = FeatureReader::open(&stored).unwrap();
        assert_eq!((reader.len(), reader.dim(), reader.groups()), (n, 2, 2));
        assert_eq!(reader.ids()[69_999], "i69999");
        assert_eq!(reader.group(1, reader.group_rows(0)).unwrap(), table.values[reader.group_rows(0) * 2..]);
        assert_eq!(reader.rows(&[69_999, 0, 5, 5]).unwrap(), [69_999.0, -69_999.0, 0.0, -0.0, 5.0, -5.0, 5.0, -5.0]);
        assert_eq!(reader.rows(&[]).unwrap(), [0.0_f32; 0]);
    }

    #[test]
    fn what_is_no_feature_is_refused_with_its_row() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |change: fn(&mut FeatureTable)| {
            let mut table = table();
            change(&mut table);
            table.save(dir.path()).unwrap_err().to_string()
        };
        assert!(refuse(|t| t.values[3] = f32::NAN).contains("`NaN` in row 1"));
        assert!(refuse(|t| t.values[0] = 3.0).contains("length 1"));
        assert!(refuse(|t| t.values.truncate(5)).contains("5 values where 6"));
        assert!(refuse(|t| t.ids[2] = "a".into()).contains("`a` twice, in rows 0 and 2"));
        assert!(refuse(|t| t.dim = 0).contains("dimension 0"));
        assert!(refuse(|t| (t.ids, t.values) = (vec![], vec![])).contains("contains no features"));
        let mut writer = FeaturesWriter::create(dir.path(), 1, false, "pixels", "backbone").unwrap();
        writer.push(&["a".into()], &[1.0]).unwrap();
        assert!(writer.push(&["b".into()], &[f32::INFINITY]).unwrap_err().to_string().contains("row 1"));
    }

    #[test]
    fn tables_written_by_others_are_not_believed() {
        let meta = || Meta::new(Features::KIND).with("normalized", false).with("encoder", "pixels").with("layer", "backbone");
        let text = |ids: &[&str]| ("id", Column::Text(ids.iter().map(|id| (*id).to_owned()).collect()));
        let vectors = |values: &[f32]| ("embedding", Column::Vectors { width: 1, values: values.to_vec() });
        let refuse = |meta, columns| refused(FeatureTable::load, meta, columns);
        let rows = |rows: &[u32]| ("row", Column::U32(rows.to_vec()));
        assert!(refuse(meta(), vec![text(&["a"]), rows(&[0])]).contains("no column `embedding`"));
        assert!(refuse(meta(), vec![text(&["a"]), rows(&[1]), vectors(&[1.0])]).contains("column `row`"));
        assert!(refuse(meta(), vec![text(&["a", "a"]), rows(&[0, 1]), vectors(&[1.0, 2.0])]).contains("twice"));
        assert!(refuse(meta(), vec![text(&["a"]), rows(&[0]), vectors(&[f32::NAN])]).contains("`NaN`"));
        assert!(refuse(meta(), vec![text(&[]), rows(&[]), vectors(&[])]).contains("contains no features"));
        let numbers = ("embedding", Column::F32(vec![1.0]));
        assert!(refuse(meta(), vec![text(&["a"]), rows(&[0]), numbers]).contains("is float32; fixed-size lists"));
        let bare = Meta::new(Features::KIND);
        assert!(refuse(bare, vec![text(&["a"]), rows(&[0]), vectors(&[1.0])]).contains("metadata field `normalized`"));
    }
}
