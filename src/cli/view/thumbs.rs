//! Pictures for the page: small squares for the grid, and whole ones to look at. They are read when they are asked for, and not kept.

use crate::artifact::Stored;
use crate::artifact::error::ArtifactError;
use crate::artifact::image_codec::{encode_jpeg, encode_png};
use crate::artifact::images::{ImageSet, Images};
use crate::artifact::pixels::Pixels;
use crate::augment::crop::Window;
use crate::augment::planes::Planes;
use crate::augment::resize::{Scratch, crop_resize};

/// The side of a square in the grid, in pixels; some screens show two for each of the page's.
const SQUARE: usize = 192;
/// The longest side of a whole picture.
const LONGEST: usize = 1600;
/// Pictures of this many pixels at most are sent as they are: of small ones every pixel is seen.
const EXACT: usize = 64 * 64;
/// Quality of JPEGs, 1–100.
const QUALITY: u8 = 84;

/// A file for the page: its MIME type and its bytes.
pub(super) type Picture = (&'static str, Vec<u8>);

/// The pictures of a table's rows.
#[derive(Debug)]
pub(super) struct Thumbs {
    set: ImageSet,
    /// Where the picture of each row lies in the set.
    place: Vec<Option<u32>>,
}

impl Thumbs {
    /// Finds the pictures of these images, by their ids or, where those are names of files, by their paths.
    ///
    /// # Errors
    /// If the table of pictures cannot be read.
    pub(super) fn open(images: &Stored<Images>, ids: &[String]) -> Result<Self, ArtifactError> {
        let set = ImageSet::open_within(images, 0)?;
        let mut place = rows_of(ids, set.ids());
        if place.iter().all(Option::is_none) {
            place = rows_of(ids, &set.paths()?);
        }
        Ok(Self { set, place })
    }

    /// The path of each row's picture; empty for arrays, and where there is none.
    ///
    /// # Errors
    /// If the table of pictures cannot be read.
    pub(super) fn paths(&self) -> Result<Vec<String>, ArtifactError> {
        let paths = self.set.paths()?;
        Ok(self.place.iter().map(|place| place.map(|place| paths[place as usize].clone()).unwrap_or_default()).collect())
    }

    /// The middle of a picture, as a square.
    ///
    /// # Errors
    /// If the picture cannot be read.
    pub(super) fn square(&self, row: usize) -> Result<Option<Picture>, ArtifactError> {
        self.shown(row, |picture| {
            let side = picture.width.min(picture.height);
            (Window::centre(picture.width, picture.height, side), (side.min(SQUARE), side.min(SQUARE)))
        })
    }

    /// A picture, whole.
    ///
    /// # Errors
    /// If the picture cannot be read.
    pub(super) fn whole(&self, row: usize) -> Result<Option<Picture>, ArtifactError> {
        self.shown(row, |picture| {
            let longest = picture.width.max(picture.height).max(LONGEST);
            let fit = |side: usize| (side * LONGEST / longest).max(1);
            let size =
                if longest == LONGEST { (picture.width, picture.height) } else { (fit(picture.width), fit(picture.height)) };
            (Window::whole(picture.width, picture.height), size)
        })
    }

    fn shown(
        &self,
        row: usize,
        cut: impl FnOnce(&Pixels) -> (Window, (usize, usize)),
    ) -> Result<Option<Picture>, ArtifactError> {
        let Some(place) = self.place.get(row).copied().flatten() else { return Ok(None) };
        let picture = self.set.get(place as usize)?;
        let (window, size) = cut(&picture);
        let (mut scratch, mut planes) = (Scratch::default(), Planes::default());
        crop_resize(&picture, window, size, false, &mut scratch, &mut planes);
        let (small, name) = (planes.to_pixels(), self.set.id(place as usize));
        Ok(Some(if size.0 * size.1 <= EXACT {
            ("image/png", encode_png(name, &small)?)
        } else {
            ("image/jpeg", encode_jpeg(name, &small, QUALITY)?)
        }))
    }
}

/// Where each of some names stands among others; nothing for one that is not there, or there twice.
pub(super) fn rows_of(names: &[String], among: &[String]) -> Vec<Option<u32>> {
    if names == among {
        return (0..names.len() as u32).map(Some).collect();
    }
    let mut order: Vec<u32> = (0..among.len() as u32).collect();
    order.sort_unstable_by_key(|&row| &among[row as usize]);
    let find = |name: &String| {
        let first = order.partition_point(|&row| among[row as usize] < *name);
        let is = |at: usize| order.get(at).is_some_and(|&row| among[row as usize] == *name);
        (is(first) && !is(first + 1)).then(|| order[first])
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_name_and_never_by_number() {
        let names = |of: &[&str]| of.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(rows_of(&names(&["a", "b"]), &names(&["a", "b"])), [Some(0), Some(1)]);
        assert_eq!(
            rows_of(&names(&["c", "x", "a", "b"]), &names(&["b", "c", "a", "b"])),
            [Some(1), None, Some(2), None],
            "one that is there twice is neither"
        );
    }
}
