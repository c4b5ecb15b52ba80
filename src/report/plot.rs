//! Single drawings as files, under the names that the tools of the field write.

use maud::html;

use super::album::{Album, prototype};
use super::draw::figure::{Figure, num, short};
use super::draw::{matrix, reliability};
use super::error::ReportError;
use super::gather::page::{Clusters, Confusion, Page, Part};
use kinset_artifact::image_codec;

/// What can be drawn alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    Confusion,
    Prototypes,
    Calibration,
}

/// A file in memory, and how its name ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawing {
    pub bytes: Vec<u8>,
    /// `svg` or `png`.
    pub ending: &'static str,
}

impl Plot {
    pub fn word(self) -> &'static str {
        match self {
            Self::Confusion => "confusion",
            Self::Prototypes => "prototypes",
            Self::Calibration => "calibration",
        }
    }

    /// Its file, without the ending: as SCAN's, NNM's and RUC's tools call it.
    pub fn stem(self) -> &'static str {
        match self {
            Self::Confusion => "confusion_matrix",
            Self::Prototypes => "prototypes",
            Self::Calibration => "calibration",
        }
    }

    /// Draws it. `ending` is `svg` or, for prototypes, `png`; `stage` names what was measured.
    ///
    /// # Errors
    /// If there is nothing to draw, or it cannot be had in this form.
    pub fn draw(self, page: &Page, album: &Album, ending: &str, stage: Option<&str>) -> Result<Drawing, ReportError> {
        let plot = self.word();
        let nothing = |why: &str| ReportError::Nothing { plot, why: why.to_owned() };
        match (self, ending) {
            (Self::Prototypes, "png") => {
                let (names, side, columns) = grid(of(&page.clusters).map_err(nothing)?);
                let picture = album.together(&names, side, columns);
                let picture = picture.ok_or_else(|| nothing(album.fault().unwrap_or("the images were not found")))?;
                Ok(Drawing { bytes: image_codec::encode_png("the prototypes", &picture)?, ending: "png" })
            }
            (_, "svg") => {
                let figure = match self {
                    Self::Confusion => confusion(of(&page.confusions).map_err(nothing)?, stage).map_err(|why| nothing(&why))?,
                    Self::Calibration => reliability::reliability(of(&page.calibration).map_err(nothing)?),
                    Self::Prototypes => {
                        let clusters = of(&page.clusters).map_err(nothing)?;
                        prototypes(clusters, album)
                            .ok_or_else(|| nothing(album.fault().unwrap_or("the images were not found")))?
                    }
                };
                Ok(Drawing { bytes: figure.standalone().into_bytes(), ending: "svg" })
            }
            _ => Err(ReportError::Form { plot, name: format!("{}.{ending}", self.stem()) }),
        }
    }
}

fn of<T>(part: &Part<T>) -> Result<&T, &str> {
    match part {
        Part::Shown(value) => Ok(value),
        Part::Absent { absent } => Err(absent),
    }
}

/// The matrix of a stage, or the one to look at first; as a picture where it is too large for cells.
fn confusion(all: &[Confusion], stage: Option<&str>) -> Result<Figure, String> {
    let named = |one: &&Confusion| stage.is_none_or(|stage| one.stage == stage || one.measured_by == stage);
    let candidates = || all.iter().filter(named);
    // Of several judges the last: it usually measures on images that training did not see.
    let chosen = candidates().rfind(|one| one.main).or_else(|| candidates().next_back());
    let chosen = chosen.ok_or_else(|| format!("nothing called `{}` was measured", stage.unwrap_or_default()))?;
    if let Some(figure) = matrix::matrix(chosen) {
        return Ok(figure);
    }
    let picture = matrix::picture(chosen).ok_or("the matrix is empty")?;
    let uri = super::album::uri(&picture, 90).ok_or("the matrix is too large for a picture")?;
    let (width, height) = (720.0, 720.0 * picture.height as f64 / picture.width as f64);
    let label = format!("Confusion matrix of {} on {}, a pixel for each class and cluster.", chosen.stage, chosen.images);
    let body = html! { image href=(uri) width=(num(width)) height=(num(height)) style="image-rendering:pixelated" {} };
    Ok(Figure { width, height, label, body })
}

/// Names, side of a cell, and cells side by side of a grid of prototypes.
fn grid(clusters: &Clusters) -> (Vec<&str>, usize, usize) {
    let names: Vec<&str> = clusters.each.iter().map(|cluster| cluster.prototype.as_ref().map_or("", |shot| &shot.id)).collect();
    let columns = if names.len() <= 10 { 5 } else { (names.len() as f64).sqrt().ceil() as usize };
    (names, prototype(clusters.each.len()), columns)
}

fn prototypes(clusters: &Clusters, album: &Album) -> Option<Figure> {
    let (names, side, columns) = grid(clusters);
    let columns = columns.min(names.len());
    let (show, below) = (96.0, 22.0);
    let line = show + below;
    let body = html! {
        @for (place, cluster) in clusters.each.iter().enumerate() {
            @let (x, y) = ((place % columns) as f64 * (show + 8.0) + 4.0, (place / columns) as f64 * line + 4.0);
            @if let Some(sheet) = album.sheet(&names[place..=place], side, 1, 92) {
                image href=(sheet.uri) x=(num(x)) y=(num(y)) width=(num(show)) height=(num(show)) style="image-rendering:pixelated" {}
            }
            text.mid x=(num(x + show / 2.0)) y=(num(y + show + 13.0)) {
                (cluster.number) @if let Some(class) = &cluster.class { " " (short(class, 14)) }
            }
        }
    };
    album.together(&names, side, columns)?;
    let label = format!("Prototypes of the {} clusters of {}.", clusters.each.len(), clusters.stage);
    let height = names.len().div_ceil(columns) as f64 * line + 8.0;
    Some(Figure { width: columns as f64 * (show + 8.0), height, label, body })
}
