//! Features that somebody else made, from Parquet, Arrow, `.npy` or CSV, into kinset's own table: checked, named, of unit length.

use std::path::{Path, PathBuf};

use serde::Serialize;

use kinset_artifact::Draft;
use kinset_artifact::features::{Features, FeaturesWriter};
use kinset_base::fs;
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;
use kinset_dataset::DatasetError;
use kinset_dataset::vectors::open::ENDINGS;
use kinset_dataset::vectors::{Batch, Options, Vectors, fault, files, repeated};
use kinset_math::cosine;
use kinset_stage::{Complaint, Context, Stage, StageError};

/// A length this near to 1 counts as 1.
const UNIT: f64 = 1e-3;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// The file, relative to the pipeline's: `.parquet`, `.arrow`, `.npy`, `.csv`, `.tsv`; or a folder of `save_to_disk`.
        file: PathBuf = "features.parquet".into();
        /// The column of names; `""`: rows are numbered. None: `id`, `name` or another usual one, or the index of pandas.
        id_column: Option<String> = None;
        /// The column of vectors, or the prefix of numbered columns: `emb_`. None: `embedding` or another usual one, or the only
        /// one that can be meant.
        column: Option<String> = None;
        /// A list of names, one a line, in place of those in the file.
        names: Option<PathBuf> = None;
        /// Numbers per vector (CSV); none: as many as the first records agree on.
        dim: Option<usize> = None, min 1;
        /// Whether the first line has the names of columns (CSV); none: if it looks like that.
        header: Option<bool> = None;
        /// What stands between fields (CSV): a character, `tab` or `blank`; none: what the first records agree on.
        separator: Option<String> = None;
        /// Whether features are brought to unit length.
        normalize: bool = true;
    }
    and form
}

impl Config {
    fn form(&self) -> Option<Complaint> {
        let ending = self.ending();
        let known = ending.is_empty() || ENDINGS.contains(&ending.as_str());
        (!known).then(|| {
            Complaint::new("file", format!("is `{}`, whose ending names no form", self.file.display()))
                .with_hint("features come as .parquet, .arrow, .npy, .csv or .tsv, or in a folder of `save_to_disk`")
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
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "read precomputed features: Parquet, Arrow, NumPy or CSV";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn raw_files(config: &Config, places: &DataPaths) -> Result<Vec<RawFile>, StageError> {
        let path = places.file(&config.file);
        let mut raw_files = Vec::new();
        for (number, file) in files(&path)?.into_iter().enumerate() {
            let name = if file == path { format!("features.{}", config.ending()) } else { format!("features.{number}.arrow") };
            raw_files.push(raw(name, &file)?);
        }
        if let Some(names) = &config.names {
            let path = places.file(names);
            files(&path)?;
            raw_files.push(raw("names".into(), &path)?);
        }
        Ok(raw_files)
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
            header: config.header,
            separator: config.separator.clone(),
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
            unit &= check(&path, ids.len(), &names, &mut values, dim, config.normalize)?;
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
        cx.read(source.reading());
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
        return Err(fs::open(path).err().map_or_else(|| wrong(path, "it", "is not a file").into(), StageError::from));
    };
    let bytes = found.len();
    Ok(RawFile { name: name.into(), path: path.to_owned(), bytes })
}

fn wrong(path: &Path, place: &str, problem: impl Into<String>) -> DatasetError {
    DatasetError::Vectors { file: path.display().to_string(), place: place.to_owned(), problem: problem.into() }
}

/// Refuses what has no direction; true if all lengths are 1. Vectors so short that they count as zero elsewhere are brought to
/// unit length here if they shall be, and refused if not.
fn check(
    path: &Path,
    first: usize,
    names: &[String],
    values: &mut [f32],
    dim: usize,
    normalize: bool,
) -> Result<bool, DatasetError> {
    let mut unit = true;
    for (row, (name, vector)) in names.iter().zip(values.chunks_exact_mut(dim)).enumerate() {
        let place = || format!("row {} (`{name}`)", first + row);
        if let Some(problem) = fault(name, vector) {
            return Err(wrong(path, &place(), problem));
        }
        let length = cosine::norm(vector);
        unit &= (length - 1.0).abs() <= UNIT;
        if length < cosine::FLOOR {
            if !normalize {
                let problem =
                    format!("the vector has length {length:.1e}, too short to have a direction: set `normalize = true`");
                return Err(wrong(path, &place(), problem));
            }
            for value in vector {
                *value = (f64::from(*value) / length) as f32;
            }
        }
    }
    Ok(unit)
}

fn distinct(path: &Path, ids: &[String]) -> Result<(), DatasetError> {
    match repeated(ids).first() {
        None => Ok(()),
        Some(&(row, first)) => {
            let problem = format!("the name `{}` is already in row {first}", ids[row]);
            Err(wrong(path, &format!("row {row}"), problem))
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
        let check = |values: &[f32], normalize| check(path, 10, &names, &mut values.to_vec(), 2, normalize);
        let refuse = |values: &[f32]| check(values, true).unwrap_err().to_string();
        assert!(refuse(&[1.0, 0.0, f32::NAN, 1.0]).contains("row 11 (`b`): number 1 of 2 is NaN"));
        assert!(refuse(&[1.0, 0.0, 0.0, 0.0]).contains("row 11 (`b`): all numbers are 0"));
        assert!(check(&[1.0, 0.0, 0.6, 0.8], true).unwrap());
        assert!(!check(&[1.0, 0.0, 3.0, 4.0], true).unwrap());
        let short = check(&[1.0, 0.0, 3e-30, 4e-30], false).unwrap_err().to_string();
        assert!(
            short.contains("row 11 (`b`): the vector has length 5.0e-30") && short.contains("`normalize = true`"),
            "{short}"
        );
        let twice = ["a", "b", "a"].map(String::from);
        assert!(distinct(path, &twice).unwrap_err().to_string().contains("row 2: the name `a` is already in row 0"));
        assert!(distinct(path, &names).is_ok());
    }

    #[test]
    fn tiny_vectors_keep_their_direction() {
        for tiny in [1e-30_f32, 1e-40] {
            let mut values = vec![0.6, 0.8, 3.0 * tiny, -4.0 * tiny];
            assert!(!check(Path::new("f.npy"), 0, &["a", "b"].map(String::from), &mut values, 2, true).unwrap());
            assert!(cosine::normalize_rows(&mut values, 2).is_empty());
            for (found, wanted) in values.iter().zip([0.6, 0.8, 0.6, -0.8]) {
                assert!((found - wanted).abs() < 1e-4, "{values:?}");
            }
        }
    }

    #[test]
    fn an_ending_that_names_no_form_is_complained_about() {
        let complaints = Config { file: "x.pkl".into(), dim: Some(0), ..Config::default() }.check();
        assert_eq!(complaints.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["dim", "file"]);
    }
}
