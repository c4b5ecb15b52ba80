//! Labels: what the images really show. For measuring only; never for a method.

use std::path::Path;

use super::error::Result;
use super::meta::{Meta, hugging_face};
use super::parquet::{ColumnKind, TableReader, TableWriter};
use super::{Artifact, Draft, DraftFile, Stored, table};

const FILE: &str = "labels.parquet";

/// The class of each image, in Parquet: `id`, `row`, `label`. Not label-free, and nothing made from it is:
///
/// ```compile_fail,E0277
/// fn only_label_free<A: kinset_artifact::LabelFree>() {}
/// only_label_free::<kinset_artifact::labels::Labels>();
/// ```
#[derive(Debug)]
pub enum Labels {}

artifact!(Labels, "labels", [FILE], ground_truth);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelTable {
    /// Names of the images, N.
    pub ids: Vec<String>,
    /// `[N]`: classes from 0; −1 where the class is not known.
    pub labels: Vec<i32>,
    /// Names of the classes, in their order; empty if they have none.
    pub names: Vec<String>,
}

impl LabelTable {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How many classes there are: as many as have names, or as the highest label says.
    pub fn classes(&self) -> usize {
        let highest = self.labels.iter().copied().max().unwrap_or(-1);
        self.names.len().max(usize::try_from(highest + 1).unwrap_or(0))
    }

    /// Writes `labels.parquet` into a folder.
    pub fn save(&self, dir: &Path) -> Result<Draft<Labels>> {
        let path = dir.join(FILE);
        table::check_ids(&path, &self.ids, "labels")?;
        self.check(&path)?;
        let meta = Meta::new(Labels::KIND).with("names", self.names.clone());
        let class = if self.names.is_empty() {
            serde_json::json!({ "dtype": "int32", "_type": "Value" })
        } else {
            serde_json::json!({ "names": self.names, "_type": "ClassLabel" })
        };
        let schema = [("id", ColumnKind::Text), ("row", ColumnKind::U32), ("label", ColumnKind::I32)];
        let mut writer = TableWriter::create(&path, &schema, meta)?;
        writer.add_metadata("huggingface", hugging_face(&[("label", class)]));
        writer.write_all(self.len(), |rows| {
            vec![table::slice(&self.ids, &rows), table::row_numbers(rows.clone()), table::slice(&self.labels, &rows)]
        })?;
        let digest = writer.finish()?;
        Ok(Draft::new(vec![DraftFile { name: FILE, path, logical: Some(digest) }]))
    }

    pub fn load(stored: &Stored<Labels>) -> Result<Self> {
        let path = stored.file(FILE);
        let reader = TableReader::open(path, Labels::KIND)?;
        let ids = table::read_ids(&reader, "labels")?;
        let labels = reader.values("label")?;
        let names = reader.meta().get(path, "names", "a list of names")?;
        let table = Self { ids, labels, names };
        table.check(path)?;
        Ok(table)
    }

    fn check(&self, path: &Path) -> Result<()> {
        table::check_length(path, "label", self.labels.len(), self.ids.len())?;
        let limit = if self.names.is_empty() { i32::MAX } else { i32::try_from(self.names.len()).unwrap_or(i32::MAX) };
        match self.labels.iter().position(|label| *label < -1 || *label >= limit) {
            Some(row) => {
                let wanted = format!("a class from 0 to {}, or -1 for none", limit - 1);
                Err(table::out_of_range(path, "label", row, self.labels[row], wanted))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    fn table() -> LabelTable {
        let names = ["cat", "dog"].map(String::from).to_vec();
        LabelTable { ids: vec!["a".into(), "b".into(), "c".into()], labels: vec![1, -1, 0], names }
    }

    #[test]
    fn labels_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let unnamed = LabelTable { names: vec![], labels: vec![7, 0, -1], ..table() };
        for table in [table(), unnamed.clone()] {
            assert_eq!(LabelTable::load(&stored(&table.save(dir.path()).unwrap())).unwrap(), table);
        }
        assert_eq!((table().classes(), unnamed.classes()), (2, 8));
    }

    #[test]
    fn classes_without_a_name_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for label in [2, -2] {
            let text = LabelTable { labels: vec![0, label, 1], ..table() }.save(dir.path()).unwrap_err().to_string();
            assert!(text.contains(&format!("`{label}` in row 1")), "{text}");
        }
        let short = LabelTable { labels: vec![0], ..table() };
        assert!(short.save(dir.path()).unwrap_err().to_string().contains("1 values where 3"));
    }
}
