//! The pictures of a selection, for whoever trains on them.

use kinset_artifact::images::{ImageSet, Images, ImagesInfo, ImagesWriter};
use kinset_artifact::selection::{Selection, SelectionTable};
use kinset_artifact::{Draft, Stored};
use kinset_stage::{Context, NoSettings, Parts, Stage, StageError};

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// `[N, H, W, C]`: the pool, in the shards the selection was made from, in the same order.
        images: Parts<Vec<Stored<Images>>>,
        /// Which of them.
        selection: Stored<Selection>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// In pool order, under the names they had.
        images: Draft<Images>,
    }
}

/// Taking pictures out of a pool.
#[derive(Debug)]
pub struct Subset;

impl Stage for Subset {
    const KIND: &'static str = "subset";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "extract the images of a selection from their pool, to train on them";

    type Config = NoSettings;
    type In = In;
    type Out = Out;

    fn run(_: &NoSettings, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let rows = SelectionTable::rows(&input.selection)?;
        if rows.is_empty() {
            return Err(StageError::Mismatch {
                what: format!("the selection of `{}` is empty", input.selection.origin()),
                hint: "raise `max_dist`, or lower what else drops images: `edges.parquet` lists why each pair counts or not"
                    .into(),
            });
        }
        let bar = cx.bar(rows.len() as u64, "images");
        let mut writer = ImagesWriter::create(&cx.out("images")?, &ImagesInfo::new("a selection"))?;
        let mut rows = rows.into_iter().peekable();
        let mut start = 0;
        for shard in input.images.iter() {
            // Read picture by picture: a selection is a small part of a pool.
            let set = ImageSet::open_within(shard, 0)?;
            let after = start + set.len();
            while let Some((id, row)) = rows.next_if(|(_, row)| (*row as usize) < after) {
                cx.check()?;
                let row = row as usize - start;
                if set.id(row) != id {
                    return Err(StageError::Mismatch {
                        what: format!("row {row} of `{}` is `{}`, the selection says `{id}`", shard.origin(), set.id(row)),
                        hint: "wire the images whose features the selection was made from, in the same order".into(),
                    });
                }
                writer.push_as(set.picture(row)?, id)?;
                bar.advance(1);
            }
            start = after;
        }
        if let Some((id, row)) = rows.next() {
            return Err(StageError::Mismatch {
                what: format!("the selection names `{id}` in row {row}, but there are {start} images"),
                hint: "wire all shards of the pool".into(),
            });
        }
        Ok(Out { images: writer.finish()?.0 })
    }
}
