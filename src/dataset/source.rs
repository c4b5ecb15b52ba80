//! A data source as a pipeline file describes it: the table `[data.NAME]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{DatasetError, Result};
use super::part::Part;
use super::picture_kind::color_name;
use kinset_artifact::image_codec::Look;
use kinset_base::search_path::DataPaths;

/// A data source as written in a pipeline file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The name of the data set: `fashion-mnist`, `folder` …
    #[schemars(extend("enum" = super::registry::entries().map(|entry| entry.name).collect::<Vec<_>>()))]
    pub dataset: String,
    /// Its part, or several joined with `+`; `all` is every part, in the published order.
    #[serde(default = "all")]
    pub split: String,
    /// Where it lies, if not in the usual place.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// Only the first so many images.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Only one part of its files, which `[shard]` cuts; then `limit` counts the images of each part (folders, Parquet, tar).
    #[serde(default)]
    pub part: Option<Part>,
    /// Only the classes of this list, one folder name per line, numbered by line (folders). Relative to the data's root.
    #[serde(default)]
    pub class_list: Option<PathBuf>,
    /// False leaves labels unread: the subfolders are no classes. Unset, they are read where there are some.
    #[serde(default)]
    pub labels: Option<bool>,
    /// Leaves images out that cannot be decoded (folders, Parquet, tar), and says which; without it they are an error. JPEGs that decode
    /// only partly are kept, and a warning names them.
    #[serde(default)]
    pub skip_broken: bool,
    /// `ignore` leaves pictures as they lie in their files, as torchvision reads them; unset and with `apply` they are turned as their
    /// EXIF data say (folders, Parquet, tar).
    #[serde(default)]
    pub orientation: Option<Orientation>,
    /// What lies under transparency: `white` if unset, `black` or `#rrggbb` (folders, Parquet, tar).
    #[serde(default)]
    pub background: Option<String>,
    /// The column of pictures, if not `image`, `img` or the first that can be one (Parquet); the members that are pictures, by what
    /// follows the first dot of their names, `input.jpg` (tar).
    #[serde(default)]
    pub image_column: Option<String>,
    /// The column of labels, if not `label` (Parquet); the members that are labels, if not `cls` (tar).
    #[serde(default)]
    pub label_column: Option<String>,
    /// Images per split (synthetic).
    #[serde(default)]
    pub images: Option<usize>,
    /// Classes (synthetic).
    #[serde(default)]
    pub classes: Option<usize>,
    /// Pixels per side (synthetic).
    #[serde(default)]
    pub size: Option<usize>,
    /// 1 gray, 3 color (synthetic).
    #[serde(default)]
    pub channels: Option<usize>,
    /// The seed of the drawings (synthetic); not the pipeline's, so that repeats over seeds see the same data.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// What is done with the orientation that EXIF data name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Orientation {
    Apply,
    Ignore,
}

fn all() -> String {
    "all".to_owned()
}

impl Default for Source {
    /// No data set yet: its name must be given.
    fn default() -> Self {
        Self::named("")
    }
}

impl Source {
    /// All of a data set in its usual place.
    pub fn named(dataset: &str) -> Self {
        Self {
            dataset: dataset.to_owned(),
            split: all(),
            root: None,
            limit: None,
            part: None,
            class_list: None,
            labels: None,
            skip_broken: false,
            orientation: None,
            background: None,
            image_column: None,
            label_column: None,
            images: None,
            classes: None,
            size: None,
            channels: None,
            seed: None,
        }
    }

    /// A part of it.
    pub fn split(mut self, split: &str) -> Self {
        split.clone_into(&mut self.split);
        self
    }

    /// In another place.
    pub fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// The settings that only some formats have, if they are given.
    pub(super) fn special(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("part", self.part.is_some()),
            ("class_list", self.class_list.is_some()),
            ("skip_broken", self.skip_broken),
            ("orientation", self.orientation.is_some()),
            ("background", self.background.is_some()),
            ("image_column", self.image_column.is_some()),
            ("label_column", self.label_column.is_some()),
            ("images", self.images.is_some()),
            ("classes", self.classes.is_some()),
            ("size", self.size.is_some()),
            ("channels", self.channels.is_some()),
            ("seed", self.seed.is_some()),
        ];
        given.into_iter().filter_map(|(name, given)| given.then_some(name))
    }

    /// How its pictures look.
    ///
    /// # Errors
    /// A background that is no color.
    pub fn look(&self) -> Result<Look> {
        let background = match self.background.as_deref() {
            None => Look::default().background,
            Some(name) => color(name)
                .ok_or_else(|| self.fault("background", format!("must be `white`, `black` or `#rrggbb`, found `{name}`")))?,
        };
        Ok(Look { turned: self.orientation != Some(Orientation::Ignore), background })
    }

    /// The settings of its look in one spelling, and none of them where it is the usual one.
    pub(super) fn with_plain_look(self) -> Result<Self> {
        let (look, usual) = (self.look()?, Look::default());
        let orientation = (look.turned != usual.turned).then_some(Orientation::Ignore);
        let background = (look.background != usual.background).then(|| color_name(look.background));
        Ok(Self { orientation, background, ..self })
    }

    /// The root of a source that must have one.
    pub(super) fn required_root(&self, paths: &DataPaths) -> Result<PathBuf> {
        match &self.root {
            Some(root) => Ok(paths.file(root)),
            None => Err(self.fault("root", "is needed: where the data lie")),
        }
    }

    /// An error about one of its settings.
    pub(super) fn fault(&self, setting: &'static str, problem: impl Into<String>) -> DatasetError {
        DatasetError::Setting { dataset: self.dataset.clone(), setting, problem: problem.into() }
    }
}

/// A color by its name in a source.
fn color(name: &str) -> Option<[u8; 3]> {
    match name {
        "white" => Some([255; 3]),
        "black" => Some([0; 3]),
        _ => {
            let digits = name.strip_prefix('#').filter(|digits| digits.len() == 6)?;
            // `from_str_radix` would take a sign.
            let number =
                digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())??;
            let [_, red, green, blue] = number.to_be_bytes();
            Some([red, green, blue])
        }
    }
}
