//! Features that somebody else made, from Parquet, `.npy` or CSV, into kinset's own table: checked, named, of unit length.

use std::path::{Path, PathBuf};

use serde::Serialize;

use kinset_artifact::Draft;
use kinset_artifact::features::{Features, FeaturesWriter};
use kinset_base::fs;
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;
use kinset_dataset::DatasetError;
use kinset_dataset::vectors::{Batch, Options, Vectors};
use kinset_math::cosine;
use kinset_stage::{Complaint, Context, Stage, StageError};

/// A length this near to 1 counts as 1.
const UNIT: f64 = 1e-3;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// The file, relative to the pipeline's: `.parquet`, `.npy` or `.csv`.
        file: PathBuf = "features.parquet".into();
        /// The column of names (Parquet); none: `id`, `name` or another usual one, else row numbers.
        id_column: Option<String> = None;
        /// The column of vectors (Parquet); none: `embedding` or another usual one, else the first list of floats.
        column: Option<String> = None;
        /// A list of names, one a line (`.npy`); none: row numbers.
        names: Option<PathBuf> = None;
        /// Numbers per vector (CSV); none: as many as the first records agree on.
        dim: Option<usize> = None, min 1;
        /// Whether features are brought to unit length.
        normalize: bool = true;
    }
    and form
}

impl Config {
    fn form(&self) -> Option<Complaint> {
        let known = ["parquet", "pq", "npy", "csv", "txt"].contains(&self.ending().as_str());
        (!known).then(|| {
            Complaint::new("file", format!("is `{}`, whose ending names no form", self.file.display()))
                .with_hint("features come as .parquet, .npy or .csv")
        })
    }

    fn ending(&self) -> String {
        self.file.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
    }
}

kinset_stage::ports! {
    /// It reads nothing from the store.
    pub struct In {}
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// `[N, D]`.
        features: Draft<Features>,
    }
}

/// Reading features from elsewhere.
#[derive(Debug)]
pub struct ImportFeatures;

impl Stage for ImportFeatures {
    const KIND: &'static str = "import_features";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "read precomputed features: Parquet, NumPy or CSV";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn raw_files(config: &Config, places: &DataPaths) -> Result<Vec<RawFile>, StageError> {
        let mut files = vec![raw(format!("features.{}", config.ending()), &places.file(&config.file))?];
        if let Some(names) = &config.names {
            files.push(raw("names".into(), &places.file(names))?);
        }
        Ok(files)
    }

    /// Where the files lie is no part of the key; what they say is.
    fn key_settings(config: &Config) -> Result<impl Serialize, StageError> {
        Ok(Config { file: PathBuf::new(), names: None, ..config.clone() })
    }

    fn run(config: &Config, _: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let path = cx.places.file(&config.file);
        let options = Options {
            id_column: config.id_column.clone(),
            column: config.column.clone(),
            names: config.names.as_ref().map(|names| cx.places.file(names)),
            dim: config.dim,
        };
        let mut source = Vectors::open(&path, &options)?;
        let bar = cx.bar(source.total().unwrap_or(0) as u64, "vectors");
        let folder = cx.out("features")?;
        let (mut writer, mut ids, mut unit) = (None, Vec::new(), true);
        while let Some(Batch { ids: names, mut values }) = source.batch()? {
            cx.check()?;
            let Some(dim) = source.dim().filter(|dim| *dim > 0) else {
                return Err(wrong(&path, "row 0", "a vector of dimension 0 has no values").into());
            };
            unit &= check(&path, ids.len(), &names, &values, dim)?;
            if config.normalize {
                let _ = cosine::normalize_rows(&mut values, dim);
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                none => none.insert(FeaturesWriter::create(&folder, dim, config.normalize, "imported", "imported")?),
            };
            writer.push(&names, &values)?;
            bar.advance(names.len() as u64);
            ids.extend(names);
        }
        let Some(writer) = writer else {
            return Err(wrong(&path, "row 0", "the file has no vectors").into());
        };
        distinct(&path, &ids)?;
        cx.note(match (unit, config.normalize) {
            (true, _) => format!("{} vectors, already of unit length", ids.len()),
            (false, true) => format!("{} vectors, normalized to unit length", ids.len()),
            (false, false) => format!("{} vectors, not normalized", ids.len()),
        });
        Ok(Out { features: writer.finish()? })
    }
}

fn raw(name: String, path: &Path) -> Result<RawFile, StageError> {
    let Some(found) = fs::metadata(path)?.filter(fs::Metadata::is_file) else {
        // Opened, so that what is missing is said in the words of the file system.
        return Err(fs::open(path).err().map_or_else(|| wrong(path, "it", "is no file").into(), StageError::from));
    };
    let bytes = found.len();
    Ok(RawFile { name, path: path.to_owned(), bytes })
}

fn wrong(path: &Path, place: &str, problem: impl Into<String>) -> DatasetError {
    DatasetError::Vectors { file: path.display().to_string(), place: place.to_owned(), problem: problem.into() }
}

/// Refuses what has no direction; true if all lengths are 1.
fn check(path: &Path, first: usize, names: &[String], values: &[f32], dim: usize) -> Result<bool, DatasetError> {
    let mut unit = true;
    for (row, (name, vector)) in names.iter().zip(values.chunks_exact(dim)).enumerate() {
        let place = || format!("row {} (`{name}`)", first + row);
        if name.is_empty() {
            return Err(wrong(path, &place(), "the name is empty"));
        }
        if let Some(number) = vector.iter().position(|value| !value.is_finite()) {
            let problem = format!("number {} of {dim} is {}; finite numbers were expected", number + 1, vector[number]);
            return Err(wrong(path, &place(), problem));
        }
        let length = cosine::norm(vector);
        if length < cosine::FLOOR {
            return Err(wrong(path, &place(), "all numbers are 0, so the cosine similarity is undefined"));
        }
        unit &= (length - 1.0).abs() <= UNIT;
    }
    Ok(unit)
}

fn distinct(path: &Path, ids: &[String]) -> Result<(), DatasetError> {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_unstable_by(|&a, &b| ids[a].cmp(&ids[b]).then(a.cmp(&b)));
    match order.windows(2).find(|pair| ids[pair[0]] == ids[pair[1]]) {
        None => Ok(()),
        Some(pair) => {
            let problem = format!("the name `{}` is already in row {}", ids[pair[1]], pair[0]);
            Err(wrong(path, &format!("row {}", pair[1]), problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_stage::Settings;

    #[test]
    fn vectors_without_direction_and_names_that_come_twice_are_refused_with_their_row() {
        let path = Path::new("f.csv");
        let names = ["a", "b"].map(String::from);
        let refuse = |values: &[f32]| check(path, 10, &names, values, 2).unwrap_err().to_string();
        assert!(refuse(&[1.0, 0.0, f32::NAN, 1.0]).contains("row 11 (`b`): number 1 of 2 is NaN"));
        assert!(refuse(&[1.0, 0.0, 0.0, 0.0]).contains("row 11 (`b`): all numbers are 0"));
        assert!(check(path, 0, &names, &[1.0, 0.0, 0.6, 0.8], 2).unwrap());
        assert!(!check(path, 0, &names, &[1.0, 0.0, 3.0, 4.0], 2).unwrap());
        let twice = ["a", "b", "a"].map(String::from);
        assert!(distinct(path, &twice).unwrap_err().to_string().contains("row 2: the name `a` is already in row 0"));
        assert!(distinct(path, &names).is_ok());
    }

    #[test]
    fn an_ending_that_names_no_form_is_complained_about() {
        let complaints = Config { file: "x.pkl".into(), dim: Some(0), ..Config::default() }.check();
        assert_eq!(complaints.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["dim", "file"]);
    }
}
