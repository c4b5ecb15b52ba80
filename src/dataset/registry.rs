//! The list of all data sets, and the way from a source to its files.

use super::FORMATS;
use super::entry::{Entry, Request};
use super::error::{DatasetError, Result};
use super::part::Part;
use super::reader::DatasetFiles;
use super::source::Source;
use kinset_base::fault::{Fault, nearest};
use kinset_base::search_path::DataPaths;
use kinset_stage::{Complaint, Settings};

/// All data sets, in the order in which they are listed to people.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    FORMATS.iter().copied().flatten()
}

pub fn find(name: &str) -> Result<&'static Entry> {
    entries().find(|entry| entry.name == name).ok_or_else(|| DatasetError::Unknown {
        name: name.to_owned(),
        nearest: nearest(name, entries().map(|entry| entry.name)),
    })
}

/// Finds the raw files of a source: lists folders and looks at sizes, reads no pictures.
///
/// # Errors
/// An unknown data set, split or setting; files that are nowhere, with every place looked at.
pub fn locate(source: &Source, paths: &DataPaths) -> Result<DatasetFiles> {
    let entry = find(&source.dataset)?;
    let source = &complete(entry, source)?;
    let parts = entry.parts(&source.split)?;
    let mut files = entry.format.locate(&Request { entry, source, parts: &parts, paths })?;
    files.limit = source.limit;
    files.with_labels = source.labels != Some(false);
    Ok(files)
}

/// What of a source belongs into a key, beside the digests and names of its raw files: everything but the place, with defaults
/// filled in and `all` written out.
pub fn identity(source: &Source) -> Result<Source> {
    let entry = find(&source.dataset)?;
    let source = complete(entry, source)?;
    let split = entry.parts(&source.split)?.join("+");
    // A list of classes is one of the raw files: what it says counts, not where it lies.
    // So it is with a part: which files it has, the raw files say.
    // Labels are wanted unless it is said that they are not.
    let labels = source.labels.filter(|wanted| !wanted);
    Source { split, root: None, part: None, class_list: None, labels, ..source }.with_plain_look()
}

/// Checks a source's settings without a look at the disk, and fills in the defaults of its format.
fn complete(entry: &Entry, source: &Source) -> Result<Source> {
    entry.parts(&source.split)?;
    if source.limit == Some(0) {
        return Err(source.fault("limit", "must be 1 or more, found 0"));
    }
    if let Some(setting) = source.special().find(|setting| !entry.format.settings().contains(setting)) {
        let formats = FORMATS.iter().filter_map(|entries| entries.first()).map(|entry| entry.format);
        let with: Vec<_> =
            formats.filter(|format| format.settings().contains(&setting)).map(|f| format!("`{}`", f.name())).collect();
        return Err(source.fault(setting, format!("applies to {} only", with.join(", "))));
    }
    if let Some(problem) = source.part.as_ref().and_then(Part::problem) {
        return Err(source.fault("part", problem));
    }
    source.look()?;
    if entry.needs_root() && source.root.is_none() {
        return Err(source.fault("root", "is needed: where the data lie"));
    }
    entry.format.complete(source)
}

impl Settings for Source {
    fn check(&self) -> Vec<Complaint> {
        match identity(self) {
            Ok(_) => Vec::new(),
            Err(error) => {
                vec![Complaint { path: setting_of(&error).to_owned(), message: error.to_string(), hint: error.hint() }]
            }
        }
    }
}

/// The setting that an error of a source is about.
fn setting_of(error: &DatasetError) -> &'static str {
    match error {
        DatasetError::Setting { setting, .. } => setting,
        DatasetError::UnknownSplit { .. } => "split",
        _ => "dataset",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fetch::Remote;
    use crate::{Labels, check, file_digest};
    use kinset_base::fault::Fault;
    use kinset_base::fs;

    /// The data sets in the repository.
    fn here() -> DataPaths {
        DataPaths::new("", Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")), None)
    }

    fn say(source: &Source, places: &DataPaths) -> (String, Option<String>) {
        let error = locate(source, places).unwrap_err();
        (error.to_string(), error.hint())
    }

    #[test]
    fn names_are_unique_and_found_or_corrected() {
        for entry in entries() {
            assert_eq!(find(entry.name).unwrap().name, entry.name);
            assert_eq!(entries().filter(|other| other.name == entry.name).count(), 1);
            assert!(entry.classes.is_empty() || entry.shape.is_some());
        }
        let error = find("fashion_minst").unwrap_err();
        assert_eq!(error.to_string(), "unknown data set `fashion_minst`");
        assert_eq!(error.hint().unwrap(), "did you mean `fashion-mnist`? `kinset data list` lists them all");
    }

    #[test]
    fn every_published_file_has_whole_addresses_and_a_checksum() {
        let mut offered = Vec::new();
        for entry in entries().filter(|entry| !entry.downloads.is_empty()) {
            offered.push(entry.name);
            for file in entry.downloads.iter().map(Remote::from) {
                let (_, digits) = file.sum.parts();
                assert!(digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{}", file.name);
                assert!(!file.urls.is_empty() && file.most > 0);
                for url in &file.urls {
                    assert!(url.starts_with("http") && url.ends_with(&file.name), "{url}");
                }
                assert_eq!(file.unpacked.is_some(), file.name.ends_with(".tar.gz"), "{}", file.name);
            }
        }
        assert_eq!(offered, ["fashion-mnist", "mnist", "cifar10", "cifar20", "cifar100", "stl10", "svhn"]);
    }

    #[test]
    fn the_committed_sets_are_whole() {
        let digest = &mut file_digest;
        let digits = check(&Source::named("digits"), &here(), digest).unwrap();
        assert_eq!((digits.images, digits.gray, digits.largest), (1797, 1797, (8, 8)));
        assert_eq!(digits.per_class, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180], "as UCI counts its test part");
        let mini = check(&Source::named("fashion-mini"), &here(), digest).unwrap();
        assert_eq!((mini.images, mini.smallest, mini.largest), (6000, (28, 28), (28, 28)));
        assert_eq!(mini.labels, Labels::of_classes(find("fashion-mini").unwrap().classes));
        assert_eq!(mini.per_class.iter().sum::<usize>(), 6000);
        assert_eq!(locate(&Source::named("digits"), &here()).unwrap().root.unwrap(), here().data().join("digits"));
        let test = check(&Source::named("fashion-mini").split("test"), &here(), digest).unwrap();
        assert_eq!((test.images, test.files.len()), (1000, 2));
        assert_eq!(test.files[0].0, "t10k-images-idx3-ubyte.gz");
    }

    #[test]
    fn a_missing_set_names_every_place_and_the_way_to_get_it() {
        let empty = tempfile::tempdir().unwrap();
        let (text, hint) = say(&Source::named("mnist"), &DataPaths::new("", Some(empty.path().to_owned()), None));
        let place = empty.path().join("mnist").display().to_string();
        assert_eq!(text, format!("cannot find the data set `mnist`: `{place}` (no such folder)"));
        assert!(hint.unwrap().contains("train-images-idx3-ubyte.gz"));

        let one = empty.path().join("mnist/train-images-idx3-ubyte");
        fs::create_folders(one.parent().unwrap()).unwrap();
        fs::write_atomic(&one, b"").unwrap();
        let (text, _) = say(&Source::named("mnist"), &DataPaths::new("", Some(empty.path().to_owned()), None));
        assert_eq!(text, format!("cannot find the data set `mnist`: `{place}` (lacks `t10k-images-idx3-ubyte.gz`)"));

        let (text, hint) = say(&Source::named("fashion-mnist").root("elsewhere"), &DataPaths::new(empty.path(), None, None));
        assert!(text.ends_with("elsewhere` (no such folder)") && text.matches('`').count() == 4, "only the root: {text}");
        assert!(hint.unwrap().contains("apt install dataset-fashion-mnist"));
    }

    #[test]
    fn splits_are_checked_and_joined() {
        let fashion = find("fashion-mnist").unwrap();
        assert_eq!(fashion.parts("all").unwrap(), ["train", "test"]);
        assert_eq!(fashion.parts("test + train").unwrap(), ["test", "train"]);
        assert_eq!(find("digits").unwrap().parts("all").unwrap(), ["all"]);
        for wrong in ["trian", "train+", "", "train+train", "all+train"] {
            assert!(fashion.parts(wrong).is_err(), "{wrong}");
        }
        let error = fashion.parts("valid").unwrap_err();
        assert_eq!(error.to_string(), "`fashion-mnist` has no split `valid`");
        assert_eq!(error.hint().unwrap(), "it has `train`, `test`, `all`; join several with `+`");
        let idx = find("idx").unwrap();
        assert_eq!(idx.parts("letters").unwrap(), ["letters"]);
        for wrong in ["../x", "..", "a/b", "all+a"] {
            assert!(idx.parts(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_that_do_not_apply_are_refused() {
        let fault = |source: Source| identity(&source).unwrap_err().to_string();
        assert_eq!(
            fault(Source { limit: Some(0), ..Source::named("digits") }),
            "`limit` of `digits` must be 1 or more, found 0"
        );
        assert_eq!(
            fault(Source { size: Some(8), ..Source::named("digits") }),
            "`size` of `digits` applies to `synthetic` only"
        );
        assert!(
            fault(Source { skip_broken: true, ..Source::named("digits") })
                .ends_with("applies to `folder`, `parquet`, `tar` only")
        );
        assert!(fault(Source::named("folder")).starts_with("`root` of `folder` is needed"));
        assert_eq!(
            fault(Source { label_column: Some("y".into()), ..Source::named("folder").root("x") }),
            "`label_column` of `folder` applies to `parquet`, `tar` only"
        );
        assert_eq!(
            fault(Source { class_list: Some("x".into()), ..Source::named("tar").root("x") }),
            "`class_list` of `tar` applies to `folder` only"
        );
        assert!(fault(Source::named("synthetic").root("x")).starts_with("`root` of `synthetic` does not apply"));
    }

    #[test]
    fn the_identity_has_no_place_and_no_gaps() {
        let a = identity(&Source::named("fashion-mnist").root("/a")).unwrap();
        let b = identity(&Source::named("fashion-mnist").split("train+test")).unwrap();
        assert_eq!(a, Source::named("fashion-mnist").split("train+test"));
        assert_eq!(a, b);
        let drawn = Source { classes: Some(4), ..Source::named("synthetic") };
        assert_eq!(identity(&drawn).unwrap(), identity(&Source::named("synthetic")).unwrap());
        assert!(identity(&Source { split: "x".into(), ..a }).is_err());
    }

    #[test]
    fn unknown_keys_of_a_source_are_refused() {
        let parse = toml::from_str::<Source>;
        assert_eq!(parse("dataset = \"digits\"").unwrap(), Source::named("digits"));
        assert!(parse("dataset = \"digits\"\nlimits = 3").is_err());
    }

    #[test]
    #[ignore = "needs Debian's package dataset-fashion-mnist; takes a second"]
    fn the_full_fashion_mnist_is_whole_and_begins_like_the_mini() {
        let digest = &mut file_digest;
        let source = Source::named("fashion-mnist");
        let report = check(&source, &here(), digest).unwrap();
        assert_eq!((report.images, report.per_class), (70_000, vec![7000; 10]));
        let mut first = |name: &str| {
            let located = locate(&Source { limit: Some(5000), ..Source::named(name).split("train") }, &here()).unwrap();
            located.open(digest).unwrap().records.map(|record| record.unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(first("fashion-mnist"), first("fashion-mini"));
    }
}
