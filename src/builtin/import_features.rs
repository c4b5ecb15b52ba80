//! Features that somebody else made, from Parquet, Arrow, `.npy` or CSV, into kinset's own table: checked, named, of unit length.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use kinset_artifact::features::{Features, FeaturesWriter};
use kinset_artifact::images::{self, Images};
use kinset_artifact::{Draft, Stored};
use kinset_base::fs;
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;
use kinset_dataset::DatasetError;
use kinset_dataset::vectors::open::ENDINGS;
use kinset_dataset::vectors::{Batch, Options, Vectors, fault, files, repeated};
use kinset_math::cosine;
use kinset_stage::{Complaint, Context, RawFiles, Stage, StageError};

/// Vectors that are written at a time.
const BATCH: usize = 4096;
/// A length this near to 1 counts as 1.
const UNIT: f64 = 1e-3;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// The file, relative to the pipeline's: `.parquet`, `.arrow`, `.npy`, `.csv`, `.tsv`; or a folder of `save_to_disk`.
        file: PathBuf = "features.parquet".into();
        /// The column of names; `""`: rows are numbered. Unset: `id`, `name` or another usual one, or the index of pandas.
        id_column: Option<String> = None;
        /// The column of vectors, or the prefix of numbered columns: `emb_`. Unset: `embedding` or another usual one, or the only
        /// one that can be meant.
        column: Option<String> = None;
        /// A list of names, one a line, in place of those in the file.
        names: Option<PathBuf> = None;
        /// Numbers per vector (CSV); unset: as many as the first records agree on.
        dim: Option<usize> = None, min 1;
        /// Whether the first line has the names of columns (CSV); unset: if it looks like that.
        header: Option<bool> = None;
        /// What stands between fields (CSV): a character, `tab` or `blank`; unset: what the first records agree on.
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
    /// What it reads.
    pub struct In {
        /// The images the vectors are of: they get these names and this order, joined by name, path or file name. Without them the
        /// file's own names stay.
        images: Option<Stored<Images>>,
    }
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

    fn raw_files(config: &Config, places: &DataPaths) -> Result<RawFiles, StageError> {
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
        Ok(raw_files.into())
    }

    /// Where the files lie is no part of the key; what they say is.
    fn key_settings(config: &Config) -> Result<impl Serialize, StageError> {
        Ok(Config { file: PathBuf::new(), names: None, ..config.clone() })
    }

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
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
        let mut joined = input.images.as_ref().map(|_| Vec::new());
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
            match &mut joined {
                Some(all) => all.extend_from_slice(&values),
                None => writer.push(&names, &values)?,
            }
            bar.advance(names.len() as u64);
            ids.extend(names);
        }
        let Some(mut writer) = writer else {
            return Err(wrong(&path, "row 0", "the file has no vectors").into());
        };
        distinct(&path, &ids)?;
        if let (Some(images), Some(values)) = (&input.images, joined) {
            let (names, paths) = images::names_and_paths(images)?;
            let join = Join::of(&ids, &names, &paths).map_err(|problem| StageError::Mismatch {
                what: format!(
                    "the vectors of `{}` and the images of `{}` do not fit: {problem}",
                    path.display(),
                    images.origin()
                ),
                hint: "name the vectors by the images' paths, with `id_column` or `names`; or connect other images".into(),
            })?;
            let dim = values.len() / ids.len().max(1);
            for (names, rows) in names.chunks(BATCH).zip(join.rows.chunks(BATCH)) {
                cx.check()?;
                let part: Vec<f32> = rows.iter().flat_map(|row| &values[row * dim..][..dim]).copied().collect();
                writer.push(names, &part)?;
            }
            let left = ids.len() - names.len();
            let left = if left == 0 { String::new() } else { format!("; {left} vectors are of no image and left out") };
            cx.note(format!("{} images found by {}{left}", names.len(), join.by));
        }
        cx.read(source.reading());
        cx.note(match (unit, config.normalize) {
            (true, _) => format!("{} vectors, already of unit length", ids.len()),
            (false, true) => format!("{} vectors, normalized to unit length", ids.len()),
            (false, false) => format!("{} vectors, not normalized", ids.len()),
        });
        Ok(Out { features: writer.finish()? })
    }
}

/// Which vector belongs to which image.
#[derive(Debug, PartialEq, Eq)]
struct Join {
    /// The row of the vector of each image.
    rows: Vec<usize>,
    /// What both have in common, in words.
    by: &'static str,
}

impl Join {
    /// By the first of names, paths, paths below the folder that all have in common, file names, file names without their endings
    /// under which every image has its vector and none has two.
    ///
    /// # Errors
    /// The images that are nearest to being found, in words.
    fn of(vectors: &[String], names: &[String], paths: &[String]) -> Result<Self, String> {
        fn plain(path: &str) -> String {
            path.replace('\\', "/").trim_start_matches("./").to_owned()
        }
        fn file(path: &str) -> String {
            plain(path).rsplit('/').next().unwrap_or_default().to_owned()
        }
        fn stem(path: &str) -> String {
            let file = file(path);
            file.rsplit_once('.').map_or(file.as_str(), |(stem, _)| stem).to_owned()
        }
        let each = |of: fn(&str) -> String| {
            let all = |names: &[String]| names.iter().map(|name| of(name)).collect::<Vec<_>>();
            (all(vectors), all(paths))
        };
        let (mut below, mut below_too) = each(plain);
        for all in [&mut below, &mut below_too] {
            let folder = common_folder(all);
            for path in all {
                path.drain(..folder);
            }
        }
        let ways = [
            ("id", (vectors.to_vec(), names.to_vec())),
            ("path", each(plain)),
            ("path below their folder", (below, below_too)),
            ("file name", each(file)),
            ("file name without ending", each(stem)),
        ];
        let mut nearest: (usize, String) = (0, String::new());
        for (by, (theirs, ours)) in ways {
            let at: BTreeMap<&str, usize> = theirs.iter().enumerate().map(|(row, name)| (name.as_str(), row)).collect();
            let distinct: BTreeSet<&str> = ours.iter().map(String::as_str).collect();
            // Two pictures of one file name in two folders are not told apart by it.
            if at.len() < theirs.len() || distinct.len() < ours.len() {
                continue;
            }
            let rows: Vec<Option<usize>> = ours.iter().map(|name| at.get(name.as_str()).copied()).collect();
            let found = rows.iter().flatten().count();
            if found == ours.len() {
                return Ok(Self { rows: rows.into_iter().flatten().collect(), by });
            }
            if found > nearest.0
                && let Some(missing) = rows.iter().position(Option::is_none)
            {
                let all = ours.len();
                nearest = (found, format!("by {by}, {found} of {all} images have a vector, and `{}` has none", ours[missing]));
            }
        }
        if nearest.0 > 0 {
            return Err(nearest.1);
        }
        let first = |all: &[String]| all.first().cloned().unwrap_or_default();
        Err(format!("a vector is called `{}`, an image `{}` (path `{}`)", first(vectors), first(names), first(paths)))
    }
}

/// Bytes of the folder that all paths lie in, with the `/` at its end.
fn common_folder(paths: &[String]) -> usize {
    let Some(first) = paths.first() else { return 0 };
    let folder = |path: &str| path.rfind('/').map_or(0, |at| at + 1);
    let mut common = &first[..folder(first)];
    for path in paths {
        while !path.starts_with(common) {
            common = &common[..folder(common.trim_end_matches('/'))];
        }
    }
    common.len()
}

fn raw(name: String, path: &Path) -> Result<RawFile, StageError> {
    let Some(found) = fs::metadata(path)?.filter(fs::Metadata::is_file) else {
        // Opened, so that what is missing is said in the words of the file system.
        return Err(fs::open(path).err().map_or_else(|| wrong(path, "it", "is not a file").into(), StageError::from));
    };
    Ok(RawFile::new(name, path.to_owned(), &found))
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
    fn vectors_find_their_images_by_id_path_or_file_name_and_the_rest_is_named() {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let (names, paths) = (list(&["6a", "7b", "8c"]), list(&["a/0.png", "a/1.png", "b/2.png"]));
        let of = |vectors: &[&str]| Join::of(&list(vectors), &names, &paths);
        let join = |by, rows: &[usize]| Ok(Join { rows: rows.to_vec(), by });
        assert_eq!(of(&["8c", "6a", "7b"]), join("id", &[1, 2, 0]));
        assert_eq!(of(&["./b/2.png", "x", "a\\1.png", "a/0.png"]), join("path", &[3, 2, 0]));
        assert_eq!(
            of(&["/my/photos/b/2.png", "/my/photos/a/1.png", "/my/photos/a/0.png"]),
            join("path below their folder", &[2, 1, 0])
        );
        assert_eq!(of(&["x/2.png", "y/1.png", "z/0.png"]), join("file name", &[2, 1, 0]));
        assert_eq!(of(&["0", "1", "2"]), join("file name without ending", &[0, 1, 2]));
        let text = of(&["a/0.png", "a/1.png", "c/3.png"]).unwrap_err();
        assert!(text.contains("2 of 3 images have a vector, and `b/2.png` has none"), "{text}");
        assert_eq!(of(&["row 0", "row 1"]).unwrap_err(), "a vector is called `row 0`, an image `6a` (path `a/0.png`)");
        // What a name does not tell apart is not joined by it.
        let twins = Join::of(&list(&["x/0.png", "y/0.png"]), &list(&["1", "2"]), &list(&["a/0.png", "b/0.png"]));
        assert!(twins.is_err(), "{twins:?}");
    }

    #[test]
    fn an_ending_that_names_no_form_is_complained_about() {
        let complaints = Config { file: "x.pkl".into(), dim: Some(0), ..Config::default() }.check();
        assert_eq!(complaints.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["dim", "file"]);
    }
}
