//! The check of vectors, one by one and in a whole file.

use std::path::Path;

use super::open::{Options, Vectors};
use crate::error::Result;
use kinset_base::reading::Reading;

/// Problems that are told one by one.
const TOLD: usize = 1000;

/// A vector that is unfit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 0.
    pub row: usize,
    pub name: String,
    pub what: String,
}

/// What a file of vectors holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VectorsReport {
    pub reading: Reading,
    pub rows: usize,
    /// Numbers per vector.
    pub dim: usize,
    /// How many vectors are unfit, or named like one before.
    pub broken: usize,
    /// The first thousand of them, by row.
    pub problems: Vec<Problem>,
}

/// Why a vector is none, if it is not: it has no name, no finite numbers, or no direction.
pub fn fault(name: &str, vector: &[f32]) -> Option<String> {
    if name.is_empty() {
        return Some("the name is empty".to_owned());
    }
    if let Some(number) = vector.iter().position(|value| !value.is_finite()) {
        let (dim, value) = (vector.len(), vector[number]);
        let why = if value.is_nan() { "" } else { ", or beyond what float32 holds" };
        return Some(format!("number {} of {dim} is {value}{why}; finite numbers were expected", number + 1));
    }
    vector
        .iter()
        .all(|value| *value == 0.0)
        .then(|| "all numbers are 0, or too small for float32, so the cosine similarity is undefined".to_owned())
}

/// Rows whose name an earlier row has, each with the first row of that name; both rise.
pub fn repeated(names: &[String]) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_unstable_by(|&a, &b| names[a].cmp(&names[b]).then(a.cmp(&b)));
    let mut found: Vec<(usize, usize)> =
        order.chunk_by(|a, b| names[*a] == names[*b]).flat_map(|run| run[1..].iter().map(|row| (*row, run[0]))).collect();
    found.sort_unstable();
    found
}

/// Reads a file through. What is unfit in it is in the report.
///
/// # Errors
/// If it cannot be read as vectors at all.
pub fn check(path: &Path, options: &Options) -> Result<VectorsReport> {
    let mut vectors = Vectors::open(path, options)?;
    let (mut names, mut report) = (Vec::new(), VectorsReport::default());
    while let Some(batch) = vectors.batch()? {
        report.dim = vectors.dim().unwrap_or(0);
        for (number, (name, vector)) in batch.ids.iter().zip(batch.values.chunks_exact(report.dim.max(1))).enumerate() {
            if let Some(what) = fault(name, vector) {
                report.add(Problem { row: names.len() + number, name: name.clone(), what });
            }
        }
        names.extend(batch.ids);
    }
    for (row, first) in repeated(&names) {
        report.add(Problem { row, name: names[row].clone(), what: format!("the name is already in row {first}") });
    }
    report.problems.sort_by_key(|problem| problem.row);
    report.rows = names.len();
    report.reading = vectors.reading().clone();
    Ok(report)
}

impl VectorsReport {
    fn add(&mut self, problem: Problem) {
        self.broken += 1;
        if self.problems.len() < TOLD {
            self.problems.push(problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::fs;

    #[test]
    fn a_file_is_read_through_and_all_its_faults_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.csv");
        fs::write_atomic(&path, b"name,f0,f1\na,1,2\nb,0,0\na,nan,1\nc,1e39,1\n").unwrap();
        let report = check(&path, &Options::default()).unwrap();
        assert_eq!((report.rows, report.dim, report.broken), (4, 2, 4));
        let rows: Vec<(usize, &str)> = report.problems.iter().map(|found| (found.row, &found.what[..12])).collect();
        assert_eq!(rows, [(1, "all numbers "), (2, "number 1 of "), (2, "the name is "), (3, "number 1 of ")]);
        assert!(report.problems[3].what.contains("beyond what float32 holds"));
        assert!(report.reading.line().starts_with("4 vectors of 2 numbers, header: line 1, names: column `name`"));
    }
}
