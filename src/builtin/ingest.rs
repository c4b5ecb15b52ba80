//! Raw data, read once, into images and separate labels. Every `[data.NAME]` table is one of these.

use std::sync::Arc;

use serde::Serialize;

use kinset_artifact::Draft;
use kinset_artifact::image_codec::Header;
use kinset_artifact::images::{Images, ImagesInfo, ImagesWriter, KnownFile, Picture};
use kinset_artifact::labels::{LabelTable, Labels};
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;
use kinset_dataset::{self as dataset, Content, DatasetFiles, Source};
use kinset_stage::{Context, RawFiles, Stage, StageError};

kinset_stage::ports! {
    /// A source reads nothing from the store.
    pub struct In {}
}

kinset_stage::outputs! {
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
    const VERSION: u32 = 4;
    const SUMMARY: &'static str = "read a data set: images, and labels apart from them";

    type Config = Source;
    type In = In;
    type Out = Out;

    fn raw_files(config: &Source, places: &DataPaths) -> Result<RawFiles, StageError> {
        let located = dataset::locate(config, places)?;
        Ok(RawFiles::with(Arc::clone(&located.files), located))
    }

    /// Where the data lie is no part of the key; what they are called inside their root, and what they say, is.
    fn key_settings(config: &Source) -> Result<impl Serialize, StageError> {
        Ok(dataset::identity(config)?)
    }

    fn run(config: &Source, _: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let found: Option<DatasetFiles> = cx.found();
        // The engine's digests are of what it found, before it was read.
        let listed_first = found.is_some();
        let located = found.map_or_else(|| dataset::locate(config, cx.places), Ok)?;
        let mut digest_of = |file: &RawFile| cx.raw_digest(file).map_or_else(|| dataset::file_digest(file), Ok);
        let opened = located.open(&mut digest_of)?;
        let bar = cx.bar(opened.count as u64, "images");
        let names = match &opened.labels {
            dataset::Labels::Named(names) => Some(names.clone()),
            dataset::Labels::Numbered => Some(Vec::new()),
            dataset::Labels::Absent { .. } => None,
        };
        let info = ImagesInfo::new(format!("{} {}", config.dataset, config.split));
        let mut writer = ImagesWriter::create(&cx.out("images")?, &info)?;
        let mut labels = Vec::new();
        let mut records = opened.records;
        for record in records.by_ref() {
            let record = record?;
            let picture = match record.content {
                Content::Raw(pixels) => Picture::Raw(pixels),
                Content::Encoded { bytes, digest, .. } => {
                    let header = Header { width: record.width, height: record.height, channels: record.channels };
                    let path = record.path.unwrap_or_default();
                    Picture::File { bytes, path, known: Some(KnownFile { header, digest }) }
                }
            };
            writer.push(picture)?;
            labels.push(record.label.unwrap_or(-1));
            bar.advance(1);
            cx.check()?;
        }
        if located.checked && listed_first {
            cx.mark_raw_checked();
        }
        cx.read(&located.reading(labels.len(), &opened.labels, &*records));
        let skipped = records.skipped();
        if skipped.count > 0 {
            cx.warn(format!("{} images cannot be decoded and are left out: {}", skipped.count, skipped.few()));
        }
        let damaged = records.damaged();
        if damaged.count > 0 {
            cx.warn(format!("{} JPEGs are corrupt and decode only partly: {}", damaged.count, damaged.few()));
        }
        let (images, ids) = writer.finish()?;
        let labels = match names {
            Some(names) => Some(LabelTable { ids, labels, names }.save(&cx.out("labels")?)?),
            None => None,
        };
        Ok(Out { images, labels })
    }
}
