//! The pictures of a page: found by name, cut to small squares, put on sheets; and whole ones, for a closer look.
//!
//! A page names the images it shows; only these are read, some hundred at a time, and only small copies stay in memory. A sheet is
//! one picture with many cells, so that a page of a thousand clusters is not ten thousand files.
//!
//! The rows of a page are those of the result it shows. Features that were brought along may be of some of the images only, or of all in
//! another order, so a row never leads to a picture by itself: the name in it does. Without that name there is no picture.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::gather::page::{Page, Shot, Sight};
use kinset_artifact::Stored;
use kinset_artifact::error::ArtifactError;
use kinset_artifact::image_codec;
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::pixels::Pixels;
use kinset_augment::crop::Window;
use kinset_augment::planes::Planes;
use kinset_augment::resize::{Scratch, crop_resize};
use kinset_base::fault::chain;
use kinset_base::fs;
use kinset_dataset::guarded_decode::decode;

/// Pictures in memory at a time, before they are made small.
const AT_ONCE: usize = 128;
/// What is around a picture that is smaller than its cell.
const AROUND: u8 = 128;

/// The side of a prototype's cell, in pixels.
pub fn prototype(clusters: usize) -> usize {
    match clusters {
        0..=30 => 96,
        31..=100 => 64,
        _ => 40,
    }
}
/// The side of a neighbor's cell.
pub const NEIGHBOR: usize = 48;
/// The side of a cell on a page about one result.
pub const CONTACT: usize = 56;
/// The side of a cell on the map.
pub const ON_MAP: usize = 28;

/// The side of a contact sheet's cell.
pub fn contact(clusters: usize) -> usize {
    match clusters {
        0..=12 => 96,
        13..=30 => 64,
        31..=100 => 40,
        101..=300 => 32,
        _ => 28,
    }
}

/// Images of a page that can be looked at whole, at most.
const WHOLES: usize = 1200;
/// Bytes around the URI of a whole picture on a page, at most.
const AROUND_WHOLE: usize = 12;
/// JPEG quality of whole pictures.
const WHOLE_QUALITY: u8 = 72;

/// The longest side of a whole picture, in pixels, if there are so many.
const fn whole_side(count: usize) -> usize {
    match count {
        0..=200 => 256,
        201..=450 => 192,
        _ => 144,
    }
}

/// Small copies of the images of a page.
#[derive(Debug, Default)]
pub struct Album {
    /// By name and side.
    cells: BTreeMap<String, BTreeMap<usize, Pixels>>,
    paths: BTreeMap<String, String>,
    /// The largest square that can be cut from any picture: its side in pixels.
    native: usize,
    /// Images that can be looked at whole, by name; what is seen first on the page has the lowest number.
    numbers: BTreeMap<String, usize>,
    /// Whole pictures as data URIs, by number; none where a cell shows as much.
    wholes: BTreeMap<usize, String>,
    /// Of other sets than that of the rows; all of one size.
    glimpses: BTreeMap<Sight, Pixels>,
    fault: Option<String>,
}

/// A picture with many cells.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// `data:image/…`.
    pub uri: String,
    /// Cells side by side.
    pub columns: usize,
    /// Cells below each other.
    pub rows: usize,
    /// Pixels along the side of a cell.
    pub side: usize,
}

/// Names, each with the sizes it is wanted at.
type Wishes<'a> = BTreeMap<&'a str, BTreeSet<usize>>;

/// Which images at which size a page needs.
fn wishes<'a>(page: &'a Page) -> Wishes<'a> {
    let mut wishes = Wishes::new();
    let mut wish = |shots: &'a [Shot], side: usize| {
        for shot in shots {
            wishes.entry(&shot.id).or_default().insert(side);
        }
    };
    if let Some(clusters) = page.clusters.shown() {
        let side = contact(clusters.each.len());
        for cluster in &clusters.each {
            wish(cluster.prototype.as_slice(), prototype(clusters.each.len()));
            for shots in [&cluster.most, &cluster.least, &cluster.random] {
                wish(shots, side);
            }
        }
    }
    for shown in page.neighbors.shown().into_iter().flat_map(|neighbors| &neighbors.shown) {
        wish(std::slice::from_ref(&shown.query), NEIGHBOR);
        wish(&shown.neighbors, NEIGHBOR);
    }
    page.duplicates.iter().flat_map(|copies| &copies.shown).for_each(|group| wish(group, NEIGHBOR));
    page.outliers.iter().for_each(|unusual| wish(&unusual.shown, NEIGHBOR));
    for point in page.map.shown().into_iter().flat_map(|map| &map.points) {
        wish(std::slice::from_ref(&point.shot), ON_MAP);
    }
    wishes
}

/// Images that a reader may want to see whole, what is seen first in front.
fn numbers(page: &Page) -> BTreeMap<String, usize> {
    let clusters = || page.clusters.shown().into_iter().flat_map(|clusters| &clusters.each);
    let hoods = page.neighbors.shown().into_iter().flat_map(|neighbors| &neighbors.shown);
    let shots = clusters()
        .flat_map(|cluster| &cluster.most)
        .chain(clusters().flat_map(|cluster| &cluster.least))
        .chain(clusters().flat_map(|cluster| &cluster.random))
        .chain(page.duplicates.iter().flat_map(|copies| copies.shown.iter().flatten()))
        .chain(page.outliers.iter().flat_map(|unusual| &unusual.shown))
        .chain(hoods.flat_map(|shown| std::iter::once(&shown.query).chain(&shown.neighbors)));
    let mut numbers = BTreeMap::new();
    for shot in shots {
        let next = numbers.len();
        if next < WHOLES {
            numbers.entry(shot.id.clone()).or_insert(next);
        }
    }
    numbers
}

/// Where the pictures of some images lie in their set: by row, with the names that lead there. They are found by name, or where the names are those of
/// files, by path; a path that stands there twice leads to neither.
fn places<'a>(set: &ImageSet, wishes: &Wishes<'a>) -> Result<BTreeMap<usize, Vec<&'a str>>, ArtifactError> {
    let mut found: BTreeMap<&str, Vec<usize>> = wishes.keys().map(|&name| (name, Vec::new())).collect();
    let mut search = |names: &[String]| {
        let open: BTreeSet<&str> = found.iter().filter(|(_, places)| places.is_empty()).map(|(&name, _)| name).collect();
        for (place, name) in names.iter().enumerate().filter(|(_, name)| open.contains(name.as_str())) {
            if let Some(places) = found.get_mut(name.as_str()) {
                places.push(place);
            }
        }
        found.values().any(Vec::is_empty)
    };
    if search(set.ids()) {
        search(&set.paths()?);
    }
    let mut by_row: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (name, places) in found {
        if let [place] = places[..] {
            by_row.entry(place).or_default().push(name);
        }
    }
    Ok(by_row)
}

impl Album {
    /// Reads the pictures of a page. What cannot be read is left out, and [`Album::fault`] says why. `images_of` has the images
    /// of the other stages.
    pub fn of(page: &Page, images: Option<&Stored<Images>>, images_of: impl Fn(usize) -> Option<Stored<Images>>) -> Self {
        let mut album = Self { numbers: numbers(page), ..Self::default() };
        let wishes = wishes(page);
        if let Some(images) = images.filter(|_| !wishes.is_empty())
            && let Err(error) = album.read(images, &wishes)
        {
            album.fault = Some(chain(&error));
        }
        album.catch(page.sights().collect(), images_of);
        album
    }

    /// Reads some images for cells of [`CONTACT`].
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>, images: &Stored<Images>) -> Self {
        let mut album = Self::default();
        let wishes = names.into_iter().map(|name| (name, BTreeSet::from([CONTACT]))).collect();
        if let Err(error) = album.read(images, &wishes) {
            album.fault = Some(chain(&error));
        }
        album
    }

    /// Why pictures are missing, if some are.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The file that a picture came from; nothing for arrays.
    pub fn path(&self, name: &str) -> Option<&str> {
        self.paths.get(name).map(String::as_str).filter(|path| !path.is_empty())
    }

    /// The number of an image that can be looked at whole.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    /// Whole pictures as data URIs, by number: as many of the first as fit into so many bytes.
    pub fn wholes(&self, bytes: usize) -> BTreeMap<usize, &str> {
        let mut used = 0;
        let mut fits = |uri: &str| {
            used += uri.len() + AROUND_WHOLE;
            used <= bytes
        };
        self.wholes.iter().map(|(&number, uri)| (number, uri.as_str())).take_while(|(_, uri)| fits(uri)).collect()
    }

    fn read(&mut self, images: &Stored<Images>, wishes: &Wishes<'_>) -> Result<(), ArtifactError> {
        let set = ImageSet::open_within(images, 0)?;
        let places = places(&set, wishes)?;
        let missing = wishes.len() - places.values().map(Vec::len).sum::<usize>();
        if missing > 0 {
            let (all, origin) = (wishes.len(), images.origin());
            self.fault =
                Some(format!("{missing} of {all} images that are shown are not in `{origin}`, neither by name nor by path"));
        }
        let rows: Vec<usize> = places.keys().copied().collect();
        self.native = rows.iter().map(|&row| set.size(row)).map(|(width, height)| width.min(height)).max().unwrap_or(1);
        let longest = whole_side(self.numbers.len());
        let (mut scratch, mut planes) = (Scratch::default(), Planes::default());
        for rows in rows.chunks(AT_ONCE) {
            for (row, (picture, path)) in rows.iter().zip(set.glance(rows)?) {
                for &name in places.get(row).into_iter().flatten() {
                    let cells = self.cells.entry(name.to_owned()).or_default();
                    for &side in wishes.get(name).into_iter().flatten() {
                        let side = side.min(self.native);
                        cells.entry(side).or_insert_with(|| small(&picture, side, &mut scratch, &mut planes));
                    }
                    let seen = cells.keys().copied().max().unwrap_or(0);
                    if let Some(&number) = self.numbers.get(name)
                        && (picture.width, picture.height) != (seen, seen)
                        && let Some(uri) = whole(&picture, longest, &mut scratch, &mut planes)
                    {
                        self.wholes.insert(number, uri);
                    }
                    self.paths.insert(name.to_owned(), path.clone());
                }
            }
        }
        Ok(())
    }

    /// Reads pictures of other sets; those that cannot be read stay away, and are empty cells.
    fn catch(&mut self, sights: BTreeSet<&Sight>, images_of: impl Fn(usize) -> Option<Stored<Images>>) {
        let mut pictures: Vec<(Sight, Pixels)> = Vec::new();
        let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for sight in sights {
            match sight {
                Sight::Table { node, row } => rows.entry(*node).or_default().push(*row),
                Sight::File(path) => {
                    let picture = fs::read(path).ok().and_then(|bytes| decode(&bytes).ok());
                    pictures.extend(picture.map(|picture| (sight.clone(), picture)));
                }
                Sight::Nowhere => {}
            }
        }
        for (node, rows) in rows {
            let Some(set) = images_of(node).and_then(|images| ImageSet::open_within(&images, 0).ok()) else { continue };
            let rows: Vec<usize> = rows.into_iter().filter(|&row| row < set.len()).collect();
            let Ok(found) = set.glance(&rows) else { continue };
            pictures.extend(rows.iter().zip(found).map(|(&row, (picture, _))| (Sight::Table { node, row }, picture)));
        }
        let native = pictures.iter().map(|(_, picture)| picture.width.min(picture.height)).max().unwrap_or(1);
        let (mut scratch, mut planes) = (Scratch::default(), Planes::default());
        let side = CONTACT.min(native);
        self.glimpses =
            pictures.into_iter().map(|(sight, picture)| (sight, small(&picture, side, &mut scratch, &mut planes))).collect();
    }

    /// Pictures side by side on a sheet; one that is missing is an empty cell. Nothing if all are. `quality`: 1–100.
    pub fn sheet(&self, names: &[&str], side: usize, columns: usize, quality: u8) -> Option<Sheet> {
        packed(&self.together(names, side, columns)?, side.min(self.native), quality)
    }

    /// As [`Album::sheet`], before it is packed.
    pub fn together(&self, names: &[&str], side: usize, columns: usize) -> Option<Pixels> {
        let side = side.min(self.native);
        laid_out(&names.iter().map(|&name| self.cells.get(name)?.get(&side)).collect::<Vec<_>>(), side, columns)
    }

    /// Pictures of other sets on a sheet; nothing for a place without one.
    pub fn sheet_of(&self, sights: &[Option<&Sight>], columns: usize, quality: u8) -> Option<Sheet> {
        let cells: Vec<Option<&Pixels>> = sights.iter().map(|sight| self.glimpses.get((*sight)?)).collect();
        let side = cells.iter().flatten().next()?.width;
        packed(&laid_out(&cells, side, columns)?, side, quality)
    }
}

/// A picture with cells as a sheet.
fn packed(picture: &Pixels, side: usize, quality: u8) -> Option<Sheet> {
    let (columns, rows) = (picture.width / side, picture.height / side);
    Some(Sheet { uri: uri(picture, quality)?, columns, rows, side })
}

/// Cells in lines. Nothing if all are empty.
fn laid_out(cells: &[Option<&Pixels>], side: usize, columns: usize) -> Option<Pixels> {
    let channels = cells.iter().flatten().map(|cell| cell.channels).max()?;
    let columns = columns.clamp(1, cells.len());
    let lines = cells.len().div_ceil(columns);
    let width = columns * side;
    let mut data = vec![AROUND; width * lines * side * channels];
    for (place, cell) in cells.iter().enumerate() {
        let Some(cell) = cell else { continue };
        let cell = image_codec::with_channels((*cell).clone(), channels);
        let (left, top) = (place % columns * side, place / columns * side);
        for (y, line) in cell.data.chunks_exact(side * channels).enumerate() {
            let at = ((top + y) * width + left) * channels;
            data[at..at + line.len()].copy_from_slice(line);
        }
    }
    Some(Pixels::new(width, lines * side, channels, data))
}

/// A picture as a data URI; nothing if it is too large for any format.
pub(super) fn uri(picture: &Pixels, quality: u8) -> Option<String> {
    let (kind, bytes) = image_codec::encode_for_page("a sheet", picture, quality).ok()?;
    Some(format!("data:{kind};base64,{}", STANDARD.encode(bytes)))
}

/// A whole picture as a data URI, its longest side at most so long; nothing if it cannot be encoded.
fn whole(picture: &Pixels, longest: usize, scratch: &mut Scratch, planes: &mut Planes) -> Option<String> {
    let window = Window::whole(picture.width, picture.height);
    let scaled = scaled(picture, window, longest, scratch, planes);
    let bytes = image_codec::encode_jpeg("a picture", &scaled, WHOLE_QUALITY).ok()?;
    Some(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)))
}

/// A part of a picture, its longest side at most so long; never larger than it is.
fn scaled(picture: &Pixels, window: Window, longest: usize, scratch: &mut Scratch, planes: &mut Planes) -> Pixels {
    let now = window.width.max(window.height);
    if now <= longest && (window.width, window.height) == (picture.width, picture.height) {
        return picture.clone();
    }
    let longest = longest.min(now);
    let fit = |length: usize| ((length * longest) as f64 / now as f64).round().max(1.0) as usize;
    crop_resize(picture, window, (fit(window.width), fit(window.height)), false, scratch, planes);
    planes.to_pixels()
}

/// The centered square of a picture, as large as it is or smaller.
fn small(picture: &Pixels, side: usize, scratch: &mut Scratch, planes: &mut Planes) -> Pixels {
    let window = Window::centre(picture.width, picture.height, picture.width.min(picture.height));
    let scaled = scaled(picture, window, side, scratch, planes);
    if (scaled.width, scaled.height) == (side, side) {
        return scaled;
    }
    let channels = scaled.channels;
    let mut data = vec![AROUND; side * side * channels];
    let (left, top) = ((side - scaled.width) / 2, (side - scaled.height) / 2);
    for (y, line) in scaled.data.chunks_exact(scaled.width * channels).enumerate() {
        let at = ((top + y) * side + left) * channels;
        data[at..at + line.len()].copy_from_slice(line);
    }
    Pixels::new(side, side, channels, data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_artifact::images::{ImagesInfo, ImagesWriter, Picture};
    use kinset_store::digest::Digest;

    fn album(cells: &[(&str, u8)]) -> Album {
        let cell = |&(name, gray): &(&str, u8)| (name.to_owned(), BTreeMap::from([(2, Pixels::new(2, 2, 1, vec![gray; 4]))]));
        Album { cells: cells.iter().map(cell).collect(), native: 2, ..Album::default() }
    }

    #[test]
    fn a_picture_is_found_by_its_name_or_its_path_and_never_by_its_row() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = ImagesWriter::create(dir.path(), &ImagesInfo::new("a test")).unwrap();
        let path = |gray: u8| if gray > 30 { "twice.png".to_owned() } else { format!("cat/{gray}.png") };
        for gray in [10, 20, 30, 40, 50] {
            let bytes = image_codec::encode_png("x", &Pixels::new(4, 4, 1, vec![gray; 16])).unwrap();
            writer.push(Picture::file(bytes, path(gray))).unwrap();
        }
        let (draft, ids) = writer.finish().unwrap();
        let stored = Stored::new(draft.files.iter().map(|file| file.path.clone()).collect(), Digest::of(b"x"), "photos");
        let shown = |names: &[&str]| {
            let album = Album::of_names(names.iter().copied(), &stored);
            let gray = |name: &&str| Some(album.cells.get(*name)?.get(&4)?.data[0]);
            (names.iter().map(gray).collect::<Vec<_>>(), album.fault)
        };
        let all: Vec<&str> = ids.iter().map(String::as_str).collect();
        assert_eq!(shown(&all).0, [10, 20, 30, 40, 50].map(Some));
        assert_eq!(shown(&[all[2], all[0]]), (vec![Some(30), Some(10)], None), "some of them, in another order");
        assert_eq!(shown(&["cat/20.png", "cat/10.png"]), (vec![Some(20), Some(10)], None), "by path");
        assert_eq!(shown(&[all[0], "cat/10.png"]), (vec![Some(10), Some(10)], None), "one picture by both");
        let (grays, fault) = shown(&["dog/20.png", all[1], "twice.png"]);
        assert_eq!(grays, [None, Some(20), None]);
        assert!(fault.unwrap().contains("2 of 3 images that are shown are not in `photos`"));
    }

    #[test]
    fn a_sheet_has_its_pictures_in_their_places() {
        let sheet = album(&[("g", 10), ("c", 200), ("e", 90)]).sheet(&["g", "c", "", "e"], 64, 3, 80).unwrap();
        assert_eq!((sheet.columns, sheet.rows, sheet.side), (3, 2, 2));
        let bytes = STANDARD.decode(sheet.uri.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let picture = image_codec::decode("sheet", &bytes, 1).unwrap();
        assert_eq!(&picture.data[..6], [10, 10, 200, 200, AROUND, AROUND]);
        assert_eq!(&picture.data[12..18], [90, 90, AROUND, AROUND, AROUND, AROUND]);
        assert_eq!(album(&[]).sheet(&["a"], 8, 1, 80), None, "nothing to show is no picture");
    }

    #[test]
    fn pictures_of_other_sets_have_one_size_and_what_is_nowhere_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut album = Album::default();
        let file = |name: &str, width: usize, height: usize| {
            let bytes = image_codec::encode_png(name, &Pixels::new(width, height, 1, vec![40; width * height])).unwrap();
            let path = dir.path().join(name);
            fs::write_atomic(&path, &bytes).unwrap();
            Sight::File(path)
        };
        let (large, little) = (file("a.png", 90, 60), file("b.png", 8, 8));
        let gone = Sight::File(dir.path().join("c.png"));
        album.catch(BTreeSet::from([&large, &little, &gone, &Sight::Nowhere]), |_| None);
        assert_eq!(album.sheet_of(&[Some(&gone), None, Some(&Sight::Nowhere)], 3, 80), None);
        let sheet = album.sheet_of(&[Some(&little), Some(&gone), Some(&large), None], 2, 80).unwrap();
        assert_eq!((sheet.columns, sheet.rows, sheet.side), (2, 2, CONTACT));
    }

    #[test]
    fn cells_are_centred_squares_and_small_pictures_are_not_blown_up() {
        let (mut scratch, mut planes) = (Scratch::default(), Planes::default());
        // Its upper and lower quarters are black, the square between them is white.
        let band = |y: usize| if (8..24).contains(&y) { 255 } else { 0 };
        let tall = Pixels::new(16, 32, 1, (0..512).map(|at| band(at / 16)).collect());
        let cell = small(&tall, 8, &mut scratch, &mut planes);
        assert_eq!((cell.width, cell.height, cell.data), (8, 8, vec![255; 64]), "the middle, and nothing around it");
        let tiny = small(&Pixels::new(2, 2, 1, vec![9; 4]), 4, &mut scratch, &mut planes);
        assert_eq!(tiny.data, [128, 128, 128, 128, 128, 9, 9, 128, 128, 9, 9, 128, 128, 128, 128, 128]);
    }

    #[test]
    fn whole_pictures_keep_their_shape_and_the_first_ones_fit() {
        let (mut scratch, mut planes) = (Scratch::default(), Planes::default());
        let uri = whole(&Pixels::new(40, 10, 1, vec![7; 400]), 20, &mut scratch, &mut planes).unwrap();
        let bytes = STANDARD.decode(uri.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let header = image_codec::probe("whole", &bytes).unwrap();
        assert_eq!((header.width, header.height), (20, 5));
        let wholes = [(0, "a".repeat(100)), (1, "b".repeat(300)), (2, "c".into())].into();
        let album = Album { wholes, ..Album::default() };
        let numbers = |bytes: usize| album.wholes(bytes).into_keys().collect::<Vec<_>>();
        assert_eq!(
            (numbers(1000), numbers(200), numbers(50)),
            (vec![0, 1, 2], vec![0], vec![]),
            "none before one that does not fit"
        );
    }
}
