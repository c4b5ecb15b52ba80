//! What to do with pictures that cannot be decoded: say all of them at once, or leave them out and say so.

use super::error::{DatasetError, Result};
use super::record::{Content, Faulty, Record, Records};

/// A picture that was tried: its name, and the record or why there is none.
pub(super) type Tried = (String, std::result::Result<Record, String>);

/// Passes records on. Once a picture is broken and must not be, the others are only tried, so that one error names them all.
pub(super) struct Sieve<I> {
    /// Nothing after an error.
    tried: Option<I>,
    place: String,
    skip_broken: bool,
    seen: usize,
    broken: Faulty,
    damaged: Faulty,
}

impl<I: Iterator<Item = Result<Tried>>> Sieve<I> {
    /// `place` is for the error: the folder or file they come from.
    pub(super) fn new(tried: I, place: String, skip_broken: bool) -> Self {
        Self { tried: Some(tried), place, skip_broken, seen: 0, broken: Faulty::default(), damaged: Faulty::default() }
    }

    fn step(&mut self) -> Result<Option<Record>> {
        while let Some(tried) = self.tried.as_mut().and_then(Iterator::next) {
            let (name, result) = tried?;
            self.seen += 1;
            match result {
                Ok(record) if self.skip_broken || self.broken.count == 0 => {
                    if matches!(record.content, Content::Encoded { damaged: true, .. }) {
                        self.damaged.push(&name, "its codes make no sense from some place on".to_owned());
                    }
                    return Ok(Some(record));
                }
                Ok(_) => {}
                Err(why) => self.broken.push(&name, why),
            }
        }
        // Nothing but broken pictures is an error even where they may be skipped.
        if self.tried.is_some() && self.broken.count > 0 && (!self.skip_broken || self.broken.count == self.seen) {
            return Err(DatasetError::Broken {
                place: self.place.clone(),
                broken: self.broken.count,
                images: self.seen,
                first: self.broken.first.clone(),
            });
        }
        Ok(None)
    }
}

impl<I: Iterator<Item = Result<Tried>>> Iterator for Sieve<I> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.step();
        if result.is_err() {
            self.tried = None;
        }
        result.transpose()
    }
}

impl<I: Iterator<Item = Result<Tried>> + Send> Records for Sieve<I> {
    fn skipped(&self) -> Faulty {
        if self.skip_broken { self.broken.clone() } else { Faulty::default() }
    }

    fn damaged(&self) -> Faulty {
        self.damaged.clone()
    }
}
