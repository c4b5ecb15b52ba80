//! Curves: how a training went.

use std::path::Path;

use super::error::{ArtifactError, Result, display};
use super::meta::Meta;
use super::parquet::TableReader;
use super::table::{self, column};
use super::{Artifact, Draft, Stored};

const FILE: &str = "curve.parquet";

/// Numbers along a training, in a long Parquet table: `step`, `name`, `value`. Losses, entropies, learning rates; never
/// anything measured against labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// In the order they were measured.
    pub points: Vec<Point>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Epoch or step, from 0, as the stage counts.
    pub step: u32,
    /// What was measured: `loss`, `entropy`, `learning_rate`.
    pub name: String,
    /// Its value, finite.
    pub value: f64,
}

artifact!(Curve, "curve", [FILE], label_free);

impl Curve {
    pub fn push(&mut self, step: u32, name: impl Into<String>, value: f64) {
        self.points.push(Point { step, name: name.into(), value });
    }

    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (u32, f64)> + 'a {
        self.points.iter().filter(move |point| point.name == name).map(|point| (point.step, point.value))
    }

    /// The names there are, in the order they first appear.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for point in &self.points {
            if !names.contains(&point.name.as_str()) {
                names.push(&point.name);
            }
        }
        names
    }

    /// Writes `curve.parquet` into a folder. A curve without points is fine: a stage that was given no epochs has none.
    pub fn save(&self, dir: &Path) -> Result<Draft<Self>> {
        self.check(&dir.join(FILE))?;
        let file = table::save(dir, FILE, Meta::new(Self::KIND), self.points.len(), |r| {
            let points = &self.points[r];
            vec![
                ("step", column(points, |point| point.step)),
                ("name", column(points, |point| point.name.clone())),
                ("value", column(points, |point| point.value)),
            ]
        })?;
        Ok(Draft::new(vec![file]))
    }

    pub fn load(stored: &Stored<Self>) -> Result<Self> {
        let path = stored.file(FILE);
        let reader = TableReader::open(path, Self::KIND)?;
        let (steps, names, values): (Vec<u32>, _, _) =
            (reader.values("step")?, reader.values("name")?, reader.values("value")?);
        let points = steps.into_iter().zip(names).zip(values).map(|((step, name), value)| Point { step, name, value });
        let curve = Self { points: points.collect() };
        curve.check(path)?;
        Ok(curve)
    }

    fn check(&self, path: &Path) -> Result<()> {
        match self.points.iter().position(|point| !point.value.is_finite()) {
            Some(row) => Err(ArtifactError::NotFinite {
                path: display(path),
                column: "value".into(),
                row,
                value: format!("{} ({} at step {})", self.points[row].value, self.points[row].name, self.points[row].step),
            }),
            None => table::check_count(path, self.points.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    fn curve() -> Curve {
        let mut curve = Curve::default();
        for step in 0..3 {
            curve.push(step, "loss", 1.5 - f64::from(step));
            curve.push(step, "entropy", 2.0);
        }
        curve
    }

    #[test]
    fn curves_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        for curve in [curve(), Curve::default()] {
            assert_eq!(Curve::load(&stored(&curve.save(dir.path()).unwrap())).unwrap(), curve);
        }
        assert_eq!(curve().names(), ["loss", "entropy"]);
        assert_eq!(curve().values("loss").collect::<Vec<_>>(), [(0, 1.5), (1, 0.5), (2, -0.5)]);
    }

    #[test]
    fn a_loss_that_is_not_a_number_is_refused_with_its_step() {
        let dir = tempfile::tempdir().unwrap();
        let mut curve = curve();
        curve.push(7, "loss", f64::NAN);
        let text = curve.save(dir.path()).unwrap_err().to_string();
        assert!(text.contains("loss at step 7"), "{text}");
    }
}
