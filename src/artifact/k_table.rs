//! K tables: comparisons of clusterings with different numbers of clusters, without labels.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{ArtifactError, Result, display};
use super::meta::Meta;
use super::parquet::TableReader;
use super::table::{self, column};
use super::{Artifact, Draft, Stored};

const FILE: &str = "k_table.parquet";

/// What was measured at each number of clusters, in a long Parquet table ready to be plotted: `k`, `seed`, `criterion`, `value`.
/// Its metadata name the chosen K, the rule that chose it, and what each estimator voted.
#[derive(Debug)]
pub enum KTable {}

artifact!(KTable, "k_table", [FILE], label_free);

#[derive(Clone, Debug, PartialEq)]
pub struct KSweep {
    /// In the order they were measured.
    pub points: Vec<KPoint>,
    /// The number of clusters that is recommended.
    pub chosen: usize,
    pub rule: String,
    /// The choice of each estimator, if there are several.
    pub votes: BTreeMap<String, usize>,
}

/// One number about one clustering.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KPoint {
    pub k: u32,
    /// Which of the clusterings with that number, from 0.
    pub seed: u32,
    /// What was measured: `silhouette`, `balance`, `ari`.
    pub criterion: String,
    /// Its value, finite.
    pub value: f64,
}

impl KSweep {
    /// K and value of one criterion, in the order they were measured.
    pub fn values<'a>(&'a self, criterion: &'a str) -> impl Iterator<Item = (u32, f64)> + 'a {
        self.points.iter().filter(move |point| point.criterion == criterion).map(|point| (point.k, point.value))
    }

    /// How many estimators voted for the chosen number.
    pub fn named_by(&self) -> usize {
        self.votes.values().filter(|&&vote| vote == self.chosen).count()
    }

    /// False if there were votes, and half of them or fewer are for the chosen number: then nothing speaks for it but a rule.
    pub fn is_agreed(&self) -> bool {
        self.votes.len() < 2 || 2 * self.named_by() > self.votes.len()
    }

    /// Writes `k_table.parquet` into a folder.
    ///
    /// # Errors
    /// If there is nothing in it or a value is not finite, or the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<Draft<KTable>> {
        let path = dir.join(FILE);
        self.check(&path)?;
        let votes = serde_json::to_value(&self.votes)
            .map_err(|e| ArtifactError::Encode { path: display(&path), detail: e.to_string() })?;
        let meta = Meta::new(KTable::KIND).with("chosen", self.chosen).with("rule", self.rule.as_str()).with("votes", votes);
        let file = table::save(dir, FILE, meta, self.points.len(), |r| {
            let points = &self.points[r];
            vec![
                ("k", column(points, |point| point.k)),
                ("seed", column(points, |point| point.seed)),
                ("criterion", column(points, |point| point.criterion.clone())),
                ("value", column(points, |point| point.value)),
            ]
        })?;
        Ok(Draft::new(vec![file]))
    }

    pub fn load(stored: &Stored<KTable>) -> Result<Self> {
        let path = stored.file(FILE);
        let reader = TableReader::open(path, KTable::KIND)?;
        let (k, seed): (Vec<u32>, Vec<u32>) = (reader.values("k")?, reader.values("seed")?);
        let (criterion, value): (Vec<String>, Vec<f64>) = (reader.values("criterion")?, reader.values("value")?);
        let points = k.into_iter().zip(seed).zip(criterion).zip(value);
        let points = points.map(|(((k, seed), criterion), value)| KPoint { k, seed, criterion, value }).collect();
        let chosen = reader.meta().get(path, "chosen", "a number of clusters")?;
        let rule = reader.meta().get(path, "rule", "a rule in words")?;
        let votes = reader.meta().get(path, "votes", "numbers by name")?;
        let table = Self { points, chosen, rule, votes };
        table.check(path)?;
        Ok(table)
    }

    fn check(&self, path: &Path) -> Result<()> {
        if self.points.is_empty() {
            return Err(ArtifactError::Empty { path: display(path), what: "measurements" });
        }
        if self.chosen == 0 {
            return Err(ArtifactError::Contradiction {
                path: display(path),
                what: "the chosen number of clusters is 0".into(),
            });
        }
        match self.points.iter().position(|point| !point.value.is_finite()) {
            Some(row) => {
                let KPoint { k, criterion, value, .. } = &self.points[row];
                let (column, value) = ("value".into(), format!("{value} ({criterion} at K {k})"));
                Err(ArtifactError::NotFinite { path: display(path), column, row, value })
            }
            None => table::check_count(path, self.points.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    fn table() -> KSweep {
        let point = |k, seed, criterion: &str, value| KPoint { k, seed, criterion: criterion.into(), value };
        KSweep {
            points: vec![point(2, 0, "silhouette", 0.25), point(2, 1, "silhouette", 0.75), point(3, 0, "ari", -0.5)],
            chosen: 2,
            rule: "the highest silhouette".into(),
            votes: BTreeMap::from([("silhouette".to_owned(), 2)]),
        }
    }

    #[test]
    fn tables_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(KSweep::load(&stored(&table().save(dir.path()).unwrap())).unwrap(), table());
        assert_eq!(table().values("silhouette").collect::<Vec<_>>(), [(2, 0.25), (2, 0.75)]);
    }

    #[test]
    fn the_chosen_number_is_agreed_on_by_more_than_half() {
        let of = |votes: &[usize], chosen| {
            let votes = votes.iter().enumerate().map(|(by, &k)| (by.to_string(), k)).collect();
            let table = KSweep { chosen, votes, ..table() };
            (table.named_by(), table.is_agreed())
        };
        assert_eq!(of(&[17, 37, 21, 2, 50], 2), (1, false));
        assert_eq!(of(&[2, 37, 21, 2, 50], 2), (2, false));
        assert_eq!(of(&[2, 37, 2, 2, 50], 2), (3, true));
        assert_eq!((of(&[7], 7), of(&[], 7)), ((1, true), (0, true)), "one alone, and a rule without votes");
    }

    #[test]
    fn what_is_no_measurement_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |change: fn(&mut KSweep)| {
            let mut table = table();
            change(&mut table);
            table.save(dir.path()).unwrap_err().to_string()
        };
        assert!(refuse(|t| t.points[2].value = f64::NAN).contains("ari at K 3"));
        assert!(refuse(|t| t.points.clear()).contains("no measurements"));
        assert!(refuse(|t| t.chosen = 0).contains("is 0"));
    }
}
