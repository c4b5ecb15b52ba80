//! Raw data, read once, into images and – apart from them – labels. Every `[data.NAME]` table is one of these.

use serde_json::Value;

use crate::artifact::images::{Images, ImagesInfo, ImagesWriter, Picture};
use crate::artifact::labels::{LabelTable, Labels};
use crate::artifact::Draft;
use crate::base::fs::FileError;
use crate::dataset::{self, Content, Places, RawFile, Source};
use crate::stage::{Complaint, Context, Settings, Stage, StageError};

impl Settings for Source {
    fn check(&self) -> Vec<Complaint> {
        match self.identity() {
            Ok(_) => Vec::new(),
            Err(error) => vec![Complaint { path: error.setting().to_owned(), message: error.to_string(), hint: error.advice() }],
        }
    }
}

crate::ports! {
    /// A source reads nothing from the store.
    pub struct In {}
}

crate::outputs! {
    /// What it writes.
    pub struct Out {
        /// `[N, H, W, C]`, in an order that labels do not decide.
        images: Draft<Images>,
        /// The ground truth, if there is any: `data.NAME.labels`.
        labels: Option<Draft<Labels>>,
    }
}

/// Reading raw data.
#[derive(Debug)]
pub struct Ingest;

impl Stage for Ingest {
    const KIND: &'static str = "ingest";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "read a data set: images, and labels apart from them";

    type Config = Source;
    type In = In;
    type Out = Out;

    fn raw_files(config: &Source, places: &Places) -> Result<Vec<RawFile>, StageError> {
        Ok(dataset::locate(config, places)?.files)
    }

    /// Where the data lie is no part of the key; what they are called inside their root, and what they say, is.
    fn key_settings(config: &Source) -> Result<Value, StageError> {
        let identity = config.identity()?;
        serde_json::to_value(identity).map_err(|source| StageError::Settings { kind: Self::KIND, source })
    }

    fn run(config: &Source, _: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let located = dataset::locate(config, cx.places)?;
        if located.ignored.count() > 0 {
            let endings: Vec<String> = located.ignored.endings.iter().map(|(e, n)| format!("{n} × {e}")).collect();
            cx.note(format!("{} files that are no images are not read: {}", located.ignored.count(), endings.join(", ")));
        }
        let mut digest_of = |file: &RawFile| cx.raw_digest(file).map_or_else(|| digest(file), Ok);
        let opened = located.open(&mut digest_of)?;
        let bar = cx.bar(opened.count as u64, "images");
        let names = match &opened.labels {
            dataset::Labels::Named(names) => Some(names.clone()),
            dataset::Labels::Numbered => Some(Vec::new()),
            dataset::Labels::Absent { why } => {
                cx.note(format!("no labels: {why}"));
                None
            }
        };
        let mut writer = ImagesWriter::create(&cx.out("images")?, &ImagesInfo { dataset: config.dataset.clone() })?;
        let mut labels = LabelTable { names: names.clone().unwrap_or_default(), ..LabelTable::default() };
        let mut records = opened.records;
        for record in records.by_ref() {
            let record = record?;
            let picture = match record.content {
                Content::Raw(pixels) => Picture::Raw(pixels),
                Content::Encoded(bytes) => Picture::Encoded {
                    bytes,
                    path: record.path.unwrap_or_default(),
                    width: record.width,
                    height: record.height,
                    channels: record.channels,
                },
            };
            let id = writer.push(picture)?;
            if let Some(label) = record.label {
                labels.ids.push(id);
                labels.labels.push(label);
            }
            bar.advance(1);
            cx.check()?;
        }
        let skipped = records.skipped();
        if skipped.count > 0 {
            let first: Vec<String> = skipped.first.iter().map(|b| format!("`{}` ({})", b.name, b.reason)).collect();
            cx.warn(format!("{} images cannot be decoded and are left out: {}", skipped.count, first.join(", ")));
        }
        let images = writer.finish()?;
        let labels = match names {
            Some(_) => Some(labels.save(&cx.out("labels")?)?),
            None => None,
        };
        Ok(Out { images, labels })
    }
}

fn digest(file: &RawFile) -> Result<crate::store::digest::Digest, FileError> {
    crate::store::digest::Digest::of_file(&file.path)
}
