//! Pictures that cannot be decoded: all of them are named in one error, or they are left out and counted.

use rayon::prelude::*;

use super::error::{DatasetError, FaultyFiles, FaultyImages, Result};
use super::picture_kind::KindCounts;
use super::reader::{Content, Record, Records};
use kinset_artifact::image_codec::Look;
use kinset_base::reading::Reading;

/// A picture that was tried: its name, and the record or why there is none.
pub(super) type Tried = (String, std::result::Result<Record, String>);

/// Tries pictures chunk by chunk, those of a chunk together.
pub(super) fn try_chunks<T: Send>(
    chunks: impl Iterator<Item = Result<Vec<T>>>,
    attempt: impl Fn(T) -> Result<Tried> + Sync,
) -> impl Iterator<Item = Result<Tried>> {
    chunks.flat_map(move |chunk| match chunk {
        Ok(chunk) => chunk.into_par_iter().map(&attempt).collect(),
        Err(error) => vec![Err(error)],
    })
}

/// Passes records on. Once a picture is broken and must not be, or a file cannot be read, the others are only tried, so that one
/// error names them all.
pub(super) struct SkipBroken<I> {
    /// Nothing after an error.
    tried: Option<I>,
    place: String,
    skip_broken: bool,
    by_name: bool,
    seen: usize,
    broken: FaultyImages,
    damaged: FaultyImages,
    kinds: KindCounts,
    said: Reading,
    /// Files that cannot be read at all.
    unread: FaultyFiles,
}

impl<I: Iterator<Item = Result<Tried>>> SkipBroken<I> {
    /// An error in `tried` must be the last of its file. `place` is for the error: the folder or file they come from.
    pub(super) fn new(tried: I, place: String, skip_broken: bool) -> Self {
        Self {
            tried: Some(tried),
            place,
            skip_broken,
            by_name: false,
            seen: 0,
            broken: FaultyImages::default(),
            damaged: FaultyImages::default(),
            kinds: KindCounts::default(),
            said: Reading::default(),
            unread: FaultyFiles::default(),
        }
    }

    /// Adds what the format says of itself.
    pub(super) fn saying(self, said: Reading) -> Self {
        Self { said, ..self }
    }

    /// Counts the kinds of pictures as they look.
    pub(super) fn looking(self, look: Look) -> Self {
        Self { kinds: KindCounts::new(look), ..self }
    }

    /// Faults are listed by name where the order of the records means nothing to people.
    pub(super) fn by_name(self) -> Self {
        Self { by_name: true, ..self }
    }

    fn listed(&self, faulty: &FaultyImages) -> FaultyImages {
        let mut faulty = faulty.clone();
        if self.by_name {
            faulty.all.sort_by(|a, b| a.name.cmp(&b.name));
        }
        faulty
    }

    fn step(&mut self) -> Result<Option<Record>> {
        while let Some(tried) = self.tried.as_mut().and_then(Iterator::next) {
            let Some((name, result)) = self.unread.take(tried)? else { continue };
            self.seen += 1;
            match result {
                Ok(record) if (self.skip_broken || self.broken.count == 0) && self.unread.is_empty() => {
                    if matches!(record.content, Content::Encoded { damaged: true, .. }) {
                        self.damaged.push(&name, "corrupt entropy-coded data".to_owned());
                    }
                    self.kinds.add(&record);
                    return Ok(Some(record));
                }
                Ok(_) => {}
                Err(why) => self.broken.push(&name, why),
            }
        }
        self.unread.finish()?;
        // Nothing but broken pictures is an error even where they may be skipped.
        if self.tried.is_some() && self.broken.count > 0 && (!self.skip_broken || self.broken.count == self.seen) {
            let broken = self.listed(&self.broken);
            return Err(DatasetError::Broken { place: self.place.clone(), broken, images: self.seen });
        }
        Ok(None)
    }
}

impl<I: Iterator<Item = Result<Tried>>> Iterator for SkipBroken<I> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.step();
        if result.is_err() {
            self.tried = None;
        }
        result.transpose()
    }
}

impl<I: Iterator<Item = Result<Tried>> + Send> Records for SkipBroken<I> {
    fn skipped(&self) -> FaultyImages {
        if self.skip_broken { self.listed(&self.broken) } else { FaultyImages::default() }
    }

    fn damaged(&self) -> FaultyImages {
        self.listed(&self.damaged)
    }

    fn reading(&self) -> Reading {
        let mut reading = self.said.clone();
        reading.took.splice(..0, self.kinds.words());
        reading.doubts.extend(self.kinds.doubts());
        reading
    }
}
