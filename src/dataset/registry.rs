//! The one list of data sets. Help texts, checks and errors loop over it; a new set of a known format is one more entry.

use std::path::Path;

use super::error::{DatasetError, Result};
use super::record::{Ignored, Located};
use super::source::{self, Source};
use super::{cifar, fetch, folder, idx, parquet, stl, svhn, synthetic, tar};
use kinset_base::hint::nearest;
use kinset_base::search_path::DataPaths;

/// A data set, or a format for the user's own.
#[derive(Debug)]
pub struct Entry {
    /// Its name in a pipeline file.
    pub name: &'static str,
    /// What it is, in a line.
    pub title: &'static str,
    /// Under which terms it may be used.
    pub license: &'static str,
    /// How to get it.
    pub advice: &'static str,
    /// The format.
    pub kind: Kind,
    /// Its parts in the published order; empty where the user names them.
    pub splits: &'static [Split],
    /// Height and width of every image, where the data set fixes them.
    pub shape: Option<(usize, usize)>,
    /// The names of its classes by label; empty where the files or nobody names them.
    pub classes: &'static [&'static str],
    /// Where operating systems install it.
    pub system: &'static [&'static str],
}

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MNIST's arrays of bytes.
    Idx,
    /// CIFAR's binary version.
    Cifar(cifar::Form),
    /// STL-10's binary files.
    Stl,
    /// SVHN's MATLAB files.
    Svhn,
    /// A folder of image files.
    Folder,
    /// ImageNet's folders by split and class, all of them or those of a list.
    ImageNet {
        /// The list that goes with the data set, beside the splits.
        list: Option<&'static str>,
    },
    /// A table of image files.
    Parquet,
    /// Tar shards of image files.
    Tar,
    /// Nothing on disk.
    Synthetic,
}

/// A part of a data set.
#[derive(Debug)]
pub struct Split {
    /// Its name.
    pub name: &'static str,
    /// The file of images, without `.gz`; several files with blanks between; empty where there is none.
    pub images: &'static str,
    /// The file of labels, likewise.
    pub labels: &'static str,
    /// How many images were published.
    pub count: Option<u64>,
}

const fn mnist(train: u64, test: u64) -> [Split; 2] {
    [
        Split { name: "train", images: "train-images-idx3-ubyte", labels: "train-labels-idx1-ubyte", count: Some(train) },
        Split { name: "test", images: "t10k-images-idx3-ubyte", labels: "t10k-labels-idx1-ubyte", count: Some(test) },
    ]
}

const NUMERALS: &[&str] = &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

const CLOTHES: &[&str] =
    &["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

const THINGS: &[&str] = &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// CIFAR-100's coarse classes.
const SUPERCLASSES: &[&str] = &[
    "aquatic_mammals",
    "fish",
    "flowers",
    "food_containers",
    "fruit_and_vegetables",
    "household_electrical_devices",
    "household_furniture",
    "insects",
    "large_carnivores",
    "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores",
    "medium_mammals",
    "non-insect_invertebrates",
    "people",
    "reptiles",
    "small_mammals",
    "trees",
    "vehicles_1",
    "vehicles_2",
];

const CIFAR100: &[Split] = &[
    Split { name: "train", images: "train.bin", labels: "", count: Some(50_000) },
    Split { name: "test", images: "test.bin", labels: "", count: Some(10_000) },
];

const CIFAR_ADVICE: &str = "unpack the binary or the Python version from https://www.cs.toronto.edu/~kriz/cifar.html there";

const IMAGENET: &[Split] =
    &[Split { name: "train", images: "", labels: "", count: None }, Split { name: "val", images: "", labels: "", count: None }];

/// ImageNet, or a subset by the list that goes with it.
const fn imagenet(name: &'static str, title: &'static str, list: Option<&'static str>) -> Entry {
    Entry {
        name,
        title,
        license: "for research, see https://www.image-net.org/download",
        advice: "put ILSVRC 2012's images there as `train/n01440764/…` and `val/n01440764/…`; for a subset also its list, one \
                 folder name per line: SCAN's repository has `imagenet_50.txt`, `imagenet_100.txt` and `imagenet_200.txt`",
        kind: Kind::ImageNet { list },
        splits: IMAGENET,
        shape: None,
        classes: &[],
        system: &[],
    }
}

static ENTRIES: &[Entry] = &[
    Entry {
        name: "digits",
        title: "UCI optical digits, test part: 1,797 gray images, 8×8",
        license: "CC BY 4.0",
        advice: "it is part of kinset's repository: copy `data/digits` from there",
        kind: Kind::Idx,
        splits: &[Split { name: "all", images: "images-idx3-ubyte", labels: "labels-idx1-ubyte", count: Some(1797) }],
        shape: Some((8, 8)),
        classes: NUMERALS,
        system: &[],
    },
    Entry {
        name: "fashion-mini",
        title: "the first 5,000 + 1,000 images of Fashion-MNIST: gray, 28×28",
        license: "MIT",
        advice: "it is part of kinset's repository: copy `data/fashion-mini` from there",
        kind: Kind::Idx,
        splits: &mnist(5_000, 1_000),
        shape: Some((28, 28)),
        classes: CLOTHES,
        system: &[],
    },
    Entry {
        name: "fashion-mnist",
        title: "Zalando's clothes: 60,000 + 10,000 gray images, 28×28",
        license: "MIT",
        advice: "on Debian and Ubuntu `apt install dataset-fashion-mnist`; else put the four files of \
                 https://github.com/zalandoresearch/fashion-mnist there",
        kind: Kind::Idx,
        splits: &mnist(60_000, 10_000),
        shape: Some((28, 28)),
        classes: CLOTHES,
        system: &["/usr/share/datasets/fashion-mnist"],
    },
    Entry {
        name: "mnist",
        title: "handwritten digits: 60,000 + 10,000 gray images, 28×28",
        license: "CC BY-SA 3.0",
        advice: "put its four published files (`train-images-idx3-ubyte.gz` …) there",
        kind: Kind::Idx,
        splits: &mnist(60_000, 10_000),
        shape: Some((28, 28)),
        classes: NUMERALS,
        system: &[],
    },
    Entry {
        name: "cifar10",
        title: "50,000 + 10,000 color images of things and animals, 32×32",
        license: "none stated",
        advice: CIFAR_ADVICE,
        kind: Kind::Cifar(cifar::TEN),
        splits: &[
            Split {
                name: "train",
                images: "data_batch_1.bin data_batch_2.bin data_batch_3.bin data_batch_4.bin data_batch_5.bin",
                labels: "",
                count: Some(50_000),
            },
            Split { name: "test", images: "test_batch.bin", labels: "", count: Some(10_000) },
        ],
        shape: Some((32, 32)),
        classes: THINGS,
        system: &[],
    },
    Entry {
        name: "cifar20",
        title: "CIFAR-100 by its 20 coarse classes: 50,000 + 10,000 color images, 32×32",
        license: "none stated",
        advice: CIFAR_ADVICE,
        kind: Kind::Cifar(cifar::TWENTY),
        splits: CIFAR100,
        shape: Some((32, 32)),
        classes: SUPERCLASSES,
        system: &[],
    },
    Entry {
        name: "cifar100",
        title: "CIFAR-100 by its 100 fine classes: 50,000 + 10,000 color images, 32×32",
        license: "none stated",
        advice: CIFAR_ADVICE,
        kind: Kind::Cifar(cifar::HUNDRED),
        splits: CIFAR100,
        shape: Some((32, 32)),
        classes: &[],
        system: &[],
    },
    Entry {
        name: "stl10",
        title: "5,000 + 8,000 color images and 100,000 without labels, 96×96",
        license: "that of ImageNet, where the images are from",
        advice: "unpack `stl10_binary.tar.gz` from https://cs.stanford.edu/~acoates/stl10 there",
        kind: Kind::Stl,
        splits: &[
            Split { name: "train", images: "train_X.bin", labels: "train_y.bin", count: Some(5_000) },
            Split { name: "test", images: "test_X.bin", labels: "test_y.bin", count: Some(8_000) },
            Split { name: "unlabeled", images: "unlabeled_X.bin", labels: "", count: Some(100_000) },
        ],
        shape: Some((96, 96)),
        classes: &["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"],
        system: &[],
    },
    Entry {
        name: "svhn",
        title: "house numbers, cropped digits: 73,257 + 26,032 color images and 531,131 extra, 32×32",
        license: "for non-commercial use",
        advice: "put `train_32x32.mat` and `test_32x32.mat` from http://ufldl.stanford.edu/housenumbers there",
        kind: Kind::Svhn,
        splits: &[
            Split { name: "train", images: "train_32x32.mat", labels: "", count: Some(73_257) },
            Split { name: "test", images: "test_32x32.mat", labels: "", count: Some(26_032) },
            Split { name: "extra", images: "extra_32x32.mat", labels: "", count: Some(531_131) },
        ],
        shape: Some((32, 32)),
        classes: NUMERALS,
        system: &[],
    },
    imagenet("imagenet", "ILSVRC 2012: 1,281,167 + 50,000 color images of 1,000 classes", None),
    imagenet("imagenet-50", "50 classes of ImageNet, as SCAN's list has them", Some("imagenet_50.txt")),
    imagenet("imagenet-100", "100 classes of ImageNet, as SCAN's list has them", Some("imagenet_100.txt")),
    imagenet("imagenet-200", "200 classes of ImageNet, as SCAN's list has them", Some("imagenet_200.txt")),
    Entry {
        name: "idx",
        title: "your own arrays in MNIST's format: `images-idx3-ubyte`, or `SPLIT-images-idx3-ubyte`; labels likewise",
        license: "yours",
        advice: "name their folder with `root = \"DIR\"`",
        kind: Kind::Idx,
        splits: &[],
        shape: None,
        classes: &[],
        system: &[],
    },
    Entry {
        name: "folder",
        title: "your own PNG, JPEG and WebP files; subfolders, if every image is in one, are classes",
        license: "yours",
        advice: "name the folder with `root = \"DIR\"`",
        kind: Kind::Folder,
        splits: &[],
        shape: None,
        classes: &[],
        system: &[],
    },
    Entry {
        name: "parquet",
        title: "your own Parquet file or folder of shards: a column of images in Hugging Face's layout, perhaps `label`",
        license: "yours",
        advice: "name the file or its folder with `root = \"PATH\"`",
        kind: Kind::Parquet,
        splits: &[],
        shape: None,
        classes: &[],
        system: &[],
    },
    Entry {
        name: "tar",
        title: "your own tar shards in WebDataset's layout: `0042.jpg`, perhaps `0042.cls`",
        license: "yours",
        advice: "name the file or the folder of shards with `root = \"PATH\"`",
        kind: Kind::Tar,
        splits: &[],
        shape: None,
        classes: &[],
        system: &[],
    },
    Entry {
        name: "synthetic",
        title: "drawn shapes and textures, for tests: nothing is read",
        license: "none needed",
        advice: "",
        kind: Kind::Synthetic,
        splits: &[
            Split { name: "train", images: "", labels: "", count: None },
            Split { name: "test", images: "", labels: "", count: None },
        ],
        shape: None,
        classes: &[],
        system: &[],
    },
];

/// All data sets, in the order in which they are listed to people.
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

/// The data set of this name.
///
/// # Errors
/// If there is none.
pub fn find(name: &str) -> Result<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name).ok_or_else(|| DatasetError::Unknown {
        name: name.to_owned(),
        nearest: nearest(name, ENTRIES.iter().map(|entry| entry.name)),
    })
}

impl Entry {
    /// The folder it lies in, where several data sets share one.
    pub(super) fn home(&self) -> &'static str {
        match self.kind {
            Kind::Cifar(form) if form.labels == 2 => "cifar100",
            Kind::ImageNet { .. } => "imagenet",
            _ => self.name,
        }
    }

    /// What to do where it is missing: the one command that fetches it, and what to do by hand.
    pub(super) fn way(&self, source: &Source, places: &DataPaths) -> String {
        match fetch::catalog::supply(self, false) {
            fetch::Supply::Files(_) => {
                let all = if self.split("extra").is_some() && source.split.contains("extra") { " --all" } else { "" };
                let place = match &source.root {
                    Some(root) => format!(" --root {}", quoted(&places.file(root))),
                    None if places.data() == Path::new("data") => String::new(),
                    None => format!(" --data {}", quoted(places.data())),
                };
                format!("`kinset data fetch {}{all}{place}` gets it; or {}", self.name, self.advice)
            }
            _ => self.advice.to_owned(),
        }
    }

    /// True if every source of it must say where it lies.
    pub fn needs_root(&self) -> bool {
        self.splits.is_empty()
    }

    /// The names of the parts that a split asks for.
    ///
    /// # Errors
    /// A part that the data set does not have, twice the same, or none.
    pub fn parts(&self, split: &str) -> Result<Vec<String>> {
        let known = || {
            let mut known: Vec<_> = self.splits.iter().map(|part| format!("`{}`", part.name)).collect();
            if self.splits.is_empty() {
                known.push("`all` or names of your own".to_owned());
            } else if self.splits.len() > 1 {
                known.push("`all`".to_owned());
            }
            known
        };
        if split == "all" && !self.splits.is_empty() {
            return Ok(self.splits.iter().map(|part| part.name.to_owned()).collect());
        }
        let unknown =
            |split: &str| DatasetError::UnknownSplit { dataset: self.name.to_owned(), split: split.to_owned(), known: known() };
        let parts = source::parts(split).ok_or_else(|| unknown(split))?;
        for part in &parts {
            let fits = if self.splits.is_empty() {
                // A name of the user's own becomes part of a path.
                (part != "all" || parts.len() == 1) && !part.contains(['/', '\\']) && part != ".." && part != "."
            } else {
                self.splits.iter().any(|split| split.name == part)
            };
            if !fits {
                return Err(unknown(part));
            }
        }
        Ok(parts)
    }

    /// The part of this name.
    pub(super) fn split(&self, name: &str) -> Option<&Split> {
        self.splits.iter().find(|split| split.name == name)
    }

    /// Checks a source's settings, without a look at the disk.
    ///
    /// # Errors
    /// A setting that this data set does not have, or a value it cannot take.
    pub fn check(&self, source: &Source) -> Result<()> {
        self.parts(&source.split)?;
        if source.limit == Some(0) {
            return Err(source.fault("limit", "must be 1 or more, found 0"));
        }
        let of_folders = matches!(self.kind, Kind::Folder | Kind::ImageNet { .. });
        if source.class_list.is_some() && !of_folders {
            return Err(source.fault("class_list", "applies to folders of images only"));
        }
        if source.skip_broken && !of_folders && !matches!(self.kind, Kind::Parquet | Kind::Tar) {
            return Err(source.fault("skip_broken", "does not apply: its images are not files that may be broken one by one"));
        }
        if self.kind != Kind::Parquet {
            let columns = [("image_column", &source.image_column), ("label_column", &source.label_column)];
            if let Some((setting, _)) = columns.iter().find(|(_, column)| column.is_some()) {
                return Err(source.fault(setting, "applies to `parquet` only"));
            }
        }
        if self.kind == Kind::Synthetic {
            if source.root.is_some() {
                return Err(source.fault("root", "does not apply: nothing is read"));
            }
            synthetic::Settings::of(source)?;
        } else {
            let drawn = [
                ("images", source.images.is_some()),
                ("classes", source.classes.is_some()),
                ("size", source.size.is_some()),
                ("channels", source.channels.is_some()),
                ("seed", source.seed.is_some()),
            ];
            if let Some((setting, _)) = drawn.iter().find(|(_, set)| *set) {
                return Err(source.fault(setting, "applies to `synthetic` only"));
            }
            if self.needs_root() && source.root.is_none() {
                return Err(source.fault("root", "is needed: where the data lie"));
            }
        }
        Ok(())
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_alphanumeric() || "/._-~+".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Finds the raw files of a source: lists folders and looks at sizes, reads nothing.
///
/// # Errors
/// An unknown data set, split or setting; files that are nowhere, with every place looked at.
pub fn locate(source: &Source, places: &DataPaths) -> Result<Located> {
    let entry = find(&source.dataset)?;
    entry.check(source)?;
    let parts = entry.parts(&source.split)?;
    let mut located = match entry.kind {
        Kind::Idx => idx::locate(entry, source, &parts, places)?,
        Kind::Cifar(form) => cifar::locate(entry, form, source, &parts, places)?,
        Kind::Stl => stl::locate(entry, source, &parts, places)?,
        Kind::Svhn => svhn::locate(entry, source, &parts, places)?,
        Kind::Folder => folder::locate(entry, None, source, &parts, places)?,
        Kind::ImageNet { list } => folder::locate(entry, list, source, &parts, places)?,
        Kind::Parquet => parquet::locate(entry, source, &parts, places)?,
        Kind::Tar => tar::locate(entry, source, &parts, places)?,
        Kind::Synthetic => Located {
            files: Vec::new(),
            root: None,
            ignored: Ignored::default(),
            reader: Box::new(synthetic::Settings::of(source)?.parts(parts)),
            limit: None,
        },
    };
    located.limit = source.limit;
    Ok(located)
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::file_digest;
    use crate::{Labels, check};
    use kinset_base::fs;
    use kinset_base::hint::Fault;

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
            assert_eq!(entries().iter().filter(|other| other.name == entry.name).count(), 1);
            assert!(entry.classes.is_empty() || entry.shape.is_some());
        }
        let error = find("fashion_minst").unwrap_err();
        assert_eq!(error.to_string(), "no data set is called `fashion_minst`");
        assert_eq!(error.hint().unwrap(), "did you mean `fashion-mnist`? `kinset data list` names them all");
    }

    #[test]
    fn the_committed_sets_are_whole() {
        let digest = &mut file_digest;
        let digits = check(&Source::named("digits"), &here(), digest).unwrap();
        assert_eq!((digits.images, digits.gray, digits.largest), (1797, 1797, (8, 8)));
        assert_eq!(digits.per_class, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180], "as UCI counts its test part");
        let mini = check(&Source::named("fashion-mini"), &here(), digest).unwrap();
        assert_eq!((mini.images, mini.smallest, mini.largest), (6000, (28, 28), (28, 28)));
        assert_eq!(mini.labels, Labels::Named(CLOTHES.iter().map(|&name| name.to_owned()).collect()));
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
        let fault = |source: Source| find(&source.dataset).unwrap().check(&source).unwrap_err().to_string();
        assert_eq!(
            fault(Source { limit: Some(0), ..Source::named("digits") }),
            "`limit` of `digits` must be 1 or more, found 0"
        );
        assert_eq!(
            fault(Source { size: Some(8), ..Source::named("digits") }),
            "`size` of `digits` applies to `synthetic` only"
        );
        assert!(fault(Source { skip_broken: true, ..Source::named("digits") }).starts_with("`skip_broken` of `digits`"));
        assert!(fault(Source::named("folder")).starts_with("`root` of `folder` is needed"));
        assert_eq!(
            fault(Source { label_column: Some("y".into()), ..Source::named("folder").root("x") }),
            "`label_column` of `folder` applies to `parquet` only"
        );
        assert!(fault(Source::named("synthetic").root("x")).starts_with("`root` of `synthetic` does not apply"));
    }

    #[test]
    fn the_identity_has_no_place_and_no_gaps() {
        let a = Source::named("fashion-mnist").root("/a").identity().unwrap();
        let b = Source::named("fashion-mnist").split("train+test").identity().unwrap();
        assert_eq!(a, Source::named("fashion-mnist").split("train+test"));
        assert_eq!(a, b);
        let drawn = Source { classes: Some(4), ..Source::named("synthetic") };
        assert_eq!(drawn.identity().unwrap(), Source::named("synthetic").identity().unwrap());
        assert!(Source { split: "x".into(), ..a }.identity().is_err());
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
