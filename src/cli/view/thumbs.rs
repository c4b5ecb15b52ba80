//! Pictures for the page: small squares for the grid, and whole ones to look at. They are read when they are asked for, and not kept.

use crate::artifact::error::ArtifactError;
use crate::artifact::image_codec::{encode_jpeg, encode_png};
use crate::artifact::pixels::Pixels;
use crate::augment::crop::Window;
use crate::augment::planes::Planes;
use crate::augment::resize::{Scratch, crop_resize};
use crate::cli::pictures::Pictures;

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

/// The pictures of a table's rows, to be shown.
#[derive(Debug)]
pub(super) struct Thumbs(pub(super) Pictures);

impl Thumbs {
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
        let Some(place) = self.0.place(row) else { return Ok(None) };
        let (small, size) = self.0.set.show(place as usize, |picture| {
            let (window, size) = cut(picture);
            let (mut scratch, mut planes) = (Scratch::default(), Planes::default());
            crop_resize(picture, window, size, false, &mut scratch, &mut planes);
            (planes.to_pixels(), size)
        })?;
        let name = self.0.set.id(place as usize);
        Ok(Some(if size.0 * size.1 <= EXACT {
            ("image/png", encode_png(name, &small)?)
        } else {
            ("image/jpeg", encode_jpeg(name, &small, QUALITY)?)
        }))
    }
}
