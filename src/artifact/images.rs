//! Images, the input of every pipeline.
//!
//! The table follows Hugging Face's layout, so a viewer that knows it shows the pictures. Raw arrays are kept as PNG, files as
//! the bytes they are. A row is an image's number, its id never shifts: it is taken from the content.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::decode_memory::Share;
use super::error::{ArtifactError, Result, display};
use super::image_codec::{self, Header, Look};
use super::meta::{Meta, hugging_face};
use super::parquet::{Column, ColumnKind, TableReader, TableWriter};
use super::picture_facts::PictureFacts;
use super::pixels::Pixels;
use super::{Artifact, Draft, DraftFile, Stored, table};
use kinset_base::fs;
use kinset_base::id::Ids;
use kinset_base::memory;
use kinset_base::name::Name;
use kinset_store::digest::{Digest, Hasher};

const FILE: &str = "images.parquet";
/// Pictures are prepared in parallel in groups of so many …
const GROUP: usize = 1024;
/// … or so many bytes.
const GROUP_BYTES: usize = 32 << 20;
/// Decoded pictures are usually kept in memory up to this many bytes, unless another budget is named.
const USUAL_BUDGET: u64 = 2 << 30;
/// A picture file that was left outside may have at most so many bytes.
const LARGEST_FILE: u64 = 1 << 30;

/// Pictures in Parquet: `id`, `row`, `image` (struct of `bytes` and `path`), `width`, `height`.
#[derive(Debug)]
pub enum Images {}

artifact!(Images, "images", [FILE], label_free);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagesInfo {
    /// The source, for people: `stl10 train+unlabeled`. Not part of the digest.
    pub source: String,
    /// 1 or 3, or nothing: then color if any picture is in color.
    pub channels: Option<usize>,
    /// False to leave files where they are and keep their paths only; arrays are always kept.
    pub pack: bool,
}

impl ImagesInfo {
    /// Everything is packed; channels as the pictures have them.
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), channels: None, pack: true }
    }
}

/// A picture on its way into the table.
#[derive(Clone, Debug)]
pub enum Picture {
    Raw(Pixels),
    File {
        bytes: Vec<u8>,
        /// Where it lies; relative to the source, unless files are not packed: then as it is to be opened.
        path: String,
        /// What whoever hands it over knows of it.
        known: Option<KnownFile>,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct KnownFile {
    pub header: Header,
    pub digest: Digest,
}

impl Picture {
    /// A file that nobody looked into yet.
    pub fn file(bytes: Vec<u8>, path: impl Into<String>) -> Self {
        Self::File { bytes, path: path.into(), known: None }
    }
}

struct Prepared {
    header: Header,
    content: Digest,
    /// What it is called by: of what makes two pictures the same.
    name: Digest,
    is_file: bool,
    bytes: Vec<u8>,
    path: String,
}

/// Streams pictures into a table. Memory: some hundred pictures and one row group.
pub struct ImagesWriter {
    table: TableWriter,
    path: PathBuf,
    info: ImagesInfo,
    ids: Ids,
    names: Vec<String>,
    /// With the names of those that have one already.
    waiting: Vec<(Picture, Option<String>)>,
    waiting_bytes: usize,
    color: bool,
}

impl ImagesWriter {
    /// Starts `images.parquet` in a folder.
    pub fn create(dir: &Path, info: &ImagesInfo) -> Result<Self> {
        let path = dir.join(FILE);
        let schema = [
            ("id", ColumnKind::Text),
            ("row", ColumnKind::U32),
            ("image", ColumnKind::Images),
            ("width", ColumnKind::U32),
            ("height", ColumnKind::U32),
        ];
        let mut table = TableWriter::create(&path, &schema, Meta::new(Images::KIND).about("source", info.source.as_str()))?;
        let number = serde_json::json!({ "dtype": "uint32", "_type": "Value" });
        let features = [("image", serde_json::json!({ "_type": "Image" })), ("width", number.clone()), ("height", number)];
        table.add_metadata("huggingface", hugging_face(&features));
        Ok(Self {
            table,
            path,
            info: info.clone(),
            ids: Ids::default(),
            names: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            color: false,
        })
    }

    /// Takes the next picture. What is wrong with it may be reported only by a later call.
    pub fn push(&mut self, picture: Picture) -> Result<()> {
        self.wait(picture, None)
    }

    /// Takes the next picture under the name it has in the set it is taken from. Names must not be given to some and not to
    /// others: those that are made of content know nothing of those that are given.
    pub fn push_as(&mut self, picture: Picture, name: String) -> Result<()> {
        self.wait(picture, Some(name))
    }

    fn wait(&mut self, picture: Picture, name: Option<String>) -> Result<()> {
        self.waiting_bytes += match &picture {
            Picture::Raw(pixels) => pixels.data.len(),
            Picture::File { bytes, .. } => bytes.len(),
        };
        self.waiting.push((picture, name));
        if self.waiting.len() >= GROUP || self.waiting_bytes >= GROUP_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let first = self.table.rows() as usize;
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let (waiting, given): (Vec<Picture>, Vec<Option<String>>) = waiting.into_iter().unzip();
        // What is known needs no threads, and would only wait for those that make the next pictures known.
        let known = waiting.iter().all(|picture| matches!(picture, Picture::File { known: Some(_), .. }));
        let prepare = |(i, picture)| prepare(picture, first + i);
        let prepared: Vec<Result<Prepared>> = if known {
            waiting.into_iter().enumerate().map(prepare).collect()
        } else {
            waiting.into_par_iter().enumerate().map(prepare).collect()
        };
        let (mut ids, mut blobs, mut paths, mut widths, mut heights, mut contents) =
            (vec![], vec![], vec![], vec![], vec![], vec![]);
        for (picture, given) in prepared.into_iter().zip(given) {
            let Prepared { header, content, name, is_file, bytes, path } = picture?;
            self.color |= header.channels == 3;
            ids.push(given.unwrap_or_else(|| self.ids.named(name.bytes())));
            contents.push(content);
            widths.push(header.width as u32);
            heights.push(header.height as u32);
            let leave = !self.info.pack && is_file;
            blobs.push(if leave { Vec::new() } else { bytes });
            paths.push(path);
        }
        self.names.extend_from_slice(&ids);
        let numbers = table::row_numbers(first..first + ids.len());
        let images = Column::Images { bytes: blobs, paths };
        self.table
            .write_pictures(vec![Column::Text(ids), numbers, images, Column::U32(widths), Column::U32(heights)], &contents)
    }

    /// Ends the table. Also returns the ids, in the order the pictures came, for the labels beside them.
    ///
    /// # Errors
    /// If a picture is not readable, there was none, or the file cannot be written.
    pub fn finish(mut self) -> Result<(Draft<Images>, Vec<String>)> {
        self.flush()?;
        if self.names.is_empty() {
            return Err(ArtifactError::Empty { path: display(&self.path), what: "images" });
        }
        let channels = self.info.channels.unwrap_or(if self.color { 3 } else { 1 });
        let meta = self.table.meta_mut();
        meta.fields.insert("channels".into(), channels.into());
        let digest = self.table.finish()?;
        Ok((Draft::new(vec![DraftFile { name: FILE, path: self.path, logical: Some(digest) }]), self.names))
    }
}

/// Passes all pictures of a table on as they lie there, some hundred in memory at a time: row, id, bytes, path. Pictures that
/// were left outside have no bytes, arrays no path.
pub fn for_each<E: From<ArtifactError>>(
    stored: &Stored<Images>,
    mut take: impl FnMut(usize, &str, &[u8], &str) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let reader = TableReader::open(stored.file(FILE), Images::KIND)?;
    reader.require("id", ColumnKind::Text)?;
    reader.require("image", ColumnKind::Images)?;
    let mut row = 0;
    for batch in reader.batches(&["id", "image"])? {
        let mut columns = batch?.into_iter();
        let (Some(Column::Text(ids)), Some(Column::Images { bytes, paths })) = (columns.next(), columns.next()) else {
            unreachable!("a reader yields the kinds it was asked for")
        };
        for ((id, bytes), path) in ids.iter().zip(&bytes).zip(&paths) {
            take(row, id, bytes, path)?;
            row += 1;
        }
    }
    Ok(())
}

/// Names and paths of all pictures; arrays have no path.
pub fn names_and_paths(stored: &Stored<Images>) -> Result<(Vec<String>, Vec<String>)> {
    let reader = TableReader::open(stored.file(FILE), Images::KIND)?;
    Ok((table::read_ids(&reader, "images")?, reader.picture_paths("image")?))
}

/// Reads a picture that was left outside, if it is still the one of this name.
///
/// # Errors
/// If it cannot be read or has changed.
pub fn outside(path: &str, id: &str) -> Result<Vec<u8>> {
    let bytes = fs::read_at_most(&Name::path(path), LARGEST_FILE)?;
    let name = Ids::default().next(&bytes);
    if id.split('-').next() != Some(name.as_str()) {
        return Err(ArtifactError::ChangedPicture { path: path.to_owned(), id: id.to_owned() });
    }
    Ok(bytes)
}

fn prepare(picture: Picture, row: usize) -> Result<Prepared> {
    match picture {
        Picture::Raw(pixels) => {
            // Shape and pixels, not the PNG: another version of the encoder must not make another image.
            let mut raw = Vec::with_capacity(12 + pixels.data.len());
            for side in [pixels.width, pixels.height, pixels.channels] {
                raw.extend_from_slice(&(side as u32).to_le_bytes());
            }
            raw.extend_from_slice(&pixels.data);
            let content = Hasher::derived("kinset 2026-11 raw picture").update(&raw).finish();
            let bytes = image_codec::encode_png(&format!("row {row}"), &pixels)?;
            let header = Header { width: pixels.width, height: pixels.height, channels: pixels.channels };
            Ok(Prepared { header, content, name: Digest::of(&raw), is_file: false, bytes, path: String::new() })
        }
        Picture::File { bytes, path, known } => {
            let known = match known {
                Some(known) => known,
                None => KnownFile { header: image_codec::probe(&path, &bytes)?, digest: Digest::of(&bytes) },
            };
            let KnownFile { header, digest: name } = known;
            Ok(Prepared { header, content: as_shown(&bytes, name), name, is_file: true, bytes, path })
        }
    }
}

/// What counts as a file's content. Pixels that are turned, laid over white or rounded to 8 bits are other pixels than those an
/// earlier version showed of the same bytes: what was computed of them is not what would be computed now.
fn as_shown(file: &[u8], digest: Digest) -> Digest {
    match PictureFacts::of(file) {
        Some(facts) if !facts.is_plain() => {
            Hasher::derived("kinset 2026-11 picture turned, over white, in 8 bits").field(&digest.hex()).finish()
        }
        _ => digest,
    }
}

/// The pictures of a table, ready to be looked at in any order.
///
/// They are decoded up front, in parallel, while they fit the budget. If they do not, their files are kept in memory as they
/// are; if these do not fit either, a picture's page of the table is read each time.
#[derive(Debug)]
pub struct ImageSet {
    path: PathBuf,
    ids: Vec<String>,
    sizes: Vec<(u32, u32)>,
    channels: usize,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    Decoded(Vec<Pixels>),
    Files(Vec<Entry>),
    Table(Box<TableReader>),
}

#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
    path: String,
}

impl ImageSet {
    /// Opens the pictures of a table; at most 2 GiB are kept in memory, or what [`memory::share`] says.
    pub fn open(stored: &Stored<Images>) -> Result<Self> {
        Self::open_within(stored, memory::share(USUAL_BUDGET))
    }

    /// Opens the pictures of a table; at most `budget` bytes are kept in memory.
    pub fn open_within(stored: &Stored<Images>, budget: u64) -> Result<Self> {
        let path = stored.file(FILE);
        let reader = TableReader::open(path, Images::KIND)?;
        reader.require("image", ColumnKind::Images)?;
        let channels: usize = reader.meta().get(path, "channels", "1 or 3")?;
        if !matches!(channels, 1 | 3) {
            let what = format!("`channels` is {channels}; 1 or 3 was expected");
            return Err(ArtifactError::Contradiction { path: display(path), what });
        }
        let ids = table::read_ids(&reader, "images")?;
        let (widths, heights): (Vec<u32>, Vec<u32>) = (reader.values("width")?, reader.values("height")?);
        let sizes: Vec<(u32, u32)> = widths.into_iter().zip(heights).collect();
        for (row, (width, height)) in sizes.iter().enumerate() {
            for (column, side) in [("width", *width), ("height", *height)] {
                if !(1..=65_535).contains(&side) {
                    return Err(table::out_of_range(path, column, row, side, "1 to 65535 pixels"));
                }
            }
        }
        let mut set = Self { path: path.to_owned(), ids, sizes, channels, backing: Backing::Files(Vec::new()) };
        let area = |(w, h): &(u32, u32)| u64::from(*w) * u64::from(*h) * channels as u64;
        let decoded = set.sizes.iter().map(area).fold(0_u64, u64::saturating_add);
        let encoded = fs::open(path).and_then(|file| fs::At::at(file.metadata(), "look at", path))?.len();
        if decoded <= budget {
            let mut pictures = Vec::with_capacity(set.len());
            set.entries(&reader, |first, entries| {
                let decoded: Vec<Result<Pixels>> =
                    entries.par_iter().enumerate().map(|(i, entry)| set.decode(first + i, entry)).collect();
                decoded.into_iter().try_for_each(|picture| {
                    pictures.push(picture?);
                    Ok(())
                })
            })?;
            set.backing = Backing::Decoded(pictures);
        } else if encoded <= budget {
            let mut files = Vec::with_capacity(set.len());
            set.entries(&reader, |_, entries| {
                files.extend(entries);
                Ok(())
            })?;
            set.backing = Backing::Files(files);
        } else {
            set.backing = Backing::Table(Box::new(reader));
        }
        Ok(set)
    }

    /// Passes all entries on, some hundred at a time, each time with the row of the first.
    fn entries(&self, reader: &TableReader, mut take: impl FnMut(usize, Vec<Entry>) -> Result<()>) -> Result<()> {
        let mut row = 0;
        for batch in reader.batches(&["image"])? {
            let entries = entries_of(batch?);
            let count = entries.len();
            // A damaged file may hold more than its footer says.
            if row + count > self.len() {
                return Err(ArtifactError::Length {
                    path: display(&self.path),
                    what: "image".into(),
                    found: row + count,
                    wanted: self.len(),
                });
            }
            take(row, entries)?;
            row += count;
        }
        table::check_length(&self.path, "image", row, self.len())
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if there is none; an open set always has some.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub fn id(&self, row: usize) -> &str {
        &self.ids[row]
    }

    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// 1 or 3, for every picture of the set.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Width and height of a picture.
    pub fn size(&self, row: usize) -> (usize, usize) {
        let (width, height) = self.sizes[row];
        (width as usize, height as usize)
    }

    /// Width and height, if all pictures have the same.
    pub fn fixed_size(&self) -> Option<(usize, usize)> {
        let first = *self.sizes.first()?;
        self.sizes.iter().all(|size| *size == first).then_some((first.0 as usize, first.1 as usize))
    }

    /// Shows a picture, in the channels of the set. Any thread may ask, but not while it is shown another: large pictures are
    /// decoded and looked at one after the other, so that they fit memory together.
    ///
    /// # Errors
    /// If it is decoded only now and cannot be.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn show<R>(&self, row: usize, look: impl FnOnce(&Pixels) -> R) -> Result<R> {
        assert!(row < self.len(), "row {row} of {} images", self.len());
        let held = match &self.backing {
            Backing::Decoded(pictures) => return Ok(look(&pictures[row])),
            Backing::Files(files) => self.decode_held(row, &files[row])?,
            Backing::Table(reader) => {
                let (bytes, path) = reader.picture("image", row)?;
                self.decode_held(row, &Entry { bytes, path })?
            }
        };
        Ok(look(&held.0))
    }

    /// A few pictures with their paths (empty for arrays), decoded in parallel: only what is asked for is read, and nothing is kept.
    ///
    /// # Panics
    /// If the rows do not ascend, or there is no such row.
    pub fn glance(&self, rows: &[usize]) -> Result<Vec<(Pixels, String)>> {
        assert!(rows.last().is_none_or(|&row| row < self.len()), "row {:?} of {} images", rows.last(), self.len());
        let found = TableReader::open(&self.path, Images::KIND)?.pictures("image", rows)?;
        let pictures: Vec<Result<(Pixels, String)>> = rows
            .par_iter()
            .zip(found)
            .map(|(&row, (bytes, path))| {
                let entry = Entry { bytes, path };
                Ok((self.decode(row, &entry)?, entry.path))
            })
            .collect();
        pictures.into_iter().collect()
    }

    /// The paths of all pictures (empty for arrays), by row.
    pub fn paths(&self) -> Result<Vec<String>> {
        TableReader::open(&self.path, Images::KIND)?.picture_paths("image")
    }

    /// The picture's own file: PNG for arrays.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn file(&self, row: usize) -> Result<Vec<u8>> {
        Ok(self.bytes(row, &self.entry(row)?)?.into_owned())
    }

    /// The picture as it came: the pixels of an array, or a file with its path.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn picture(&self, row: usize) -> Result<Picture> {
        let entry = self.entry(row)?;
        let bytes = self.bytes(row, &entry)?.into_owned();
        if entry.path.is_empty() {
            // In its own channels, whatever the set shows it in.
            return Ok(Picture::Raw(image_codec::open(&self.ids[row], &bytes)?.decode()?));
        }
        Ok(Picture::file(bytes, entry.path))
    }

    fn entry(&self, row: usize) -> Result<Entry> {
        assert!(row < self.len(), "row {row} of {} images", self.len());
        let mut found = match &self.backing {
            Backing::Files(files) => return Ok(Entry { bytes: files[row].bytes.clone(), path: files[row].path.clone() }),
            Backing::Table(reader) => reader.pictures("image", &[row])?,
            Backing::Decoded(_) => TableReader::open(&self.path, Images::KIND)?.pictures("image", &[row])?,
        };
        let (bytes, path) = found.pop().unwrap_or_default();
        Ok(Entry { bytes, path })
    }

    fn bytes<'a>(&self, row: usize, entry: &'a Entry) -> Result<Cow<'a, [u8]>> {
        if !entry.bytes.is_empty() {
            return Ok(Cow::Borrowed(&entry.bytes));
        }
        if entry.path.is_empty() {
            return Err(ArtifactError::Null { path: display(&self.path), column: "image".into(), row });
        }
        outside(&entry.path, &self.ids[row]).map(Cow::Owned)
    }

    fn decode(&self, row: usize, entry: &Entry) -> Result<Pixels> {
        self.decode_held(row, entry).map(|(pixels, _)| pixels)
    }

    fn decode_held(&self, row: usize, entry: &Entry) -> Result<(Pixels, Share)> {
        let bytes = self.bytes(row, entry)?;
        let name = if entry.path.is_empty() { &self.ids[row] } else { &entry.path };
        let opened = image_codec::open(name, &bytes)?;
        let header = opened.header();
        let wanted = self.size(row);
        // Before decoding: the budget was computed from the sizes of the table.
        if (header.width, header.height) != wanted {
            let detail = format!(
                "it is {} × {} pixels, but `{}` says {} × {}",
                header.width,
                header.height,
                self.path.display(),
                wanted.0,
                wanted.1
            );
            return Err(ArtifactError::Picture { name: name.clone(), detail });
        }
        let (pixels, _, share) = opened.decode_held(Look::default())?;
        Ok((image_codec::with_channels(pixels, self.channels), share))
    }
}

fn entries_of(columns: Vec<Column>) -> Vec<Entry> {
    let Some(Column::Images { bytes, paths }) = columns.into_iter().next() else {
        unreachable!("a reader yields the kinds it was asked for")
    };
    bytes.into_iter().zip(paths).map(|(bytes, path)| Entry { bytes, path }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture_facts::tests::{exif, png_with};
    use crate::testing::stored;
    use crate::tests::refused;

    fn raw(i: usize) -> Pixels {
        Pixels::new(4, 3, 1, (0..12).map(|j| (i * 7 + j) as u8).collect())
    }

    fn file(i: usize) -> (Pixels, Vec<u8>) {
        let pixels = Pixels::new(2, 2 + i, 3, (0..6 * (2 + i)).map(|j| (i * 50 + j) as u8).collect());
        let bytes = image_codec::encode_png("x", &pixels).unwrap();
        (pixels, bytes)
    }

    fn save(dir: &Path, info: &ImagesInfo, pictures: Vec<Picture>) -> (Draft<Images>, Vec<String>) {
        let mut writer = ImagesWriter::create(dir, info).unwrap();
        for picture in pictures {
            writer.push(picture).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn arrays_come_back_as_they_were_within_any_budget() {
        let dir = tempfile::tempdir().unwrap();
        let (draft, ids) = save(dir.path(), &ImagesInfo::new("test"), (0..3000).map(|i| Picture::Raw(raw(i))).collect());
        for (budget, decoded) in [(USUAL_BUDGET, true), (3000 * 12, true), (3000 * 12 - 1, false), (0, false)] {
            let set = ImageSet::open_within(&stored(&draft), budget).unwrap();
            assert_eq!((set.len(), set.channels(), set.fixed_size()), (3000, 1, Some((4, 3))));
            assert_eq!((set.ids(), matches!(set.backing, Backing::Decoded(_))), (&ids[..], decoded));
            for row in [0, 1, 1023, 1024, 2999] {
                assert_eq!(set.show(row, Pixels::clone).unwrap(), raw(row), "row {row}, budget {budget}");
            }
            let rows = [0, 3, 4, 1023, 1024, 2048, 2998, 2999];
            let glance = set.glance(&rows).unwrap();
            assert_eq!(glance, rows.map(|row| (raw(row), String::new())), "only these are read, whatever else is in memory");
            assert_eq!([2999, 5, 5].map(|row| set.show(row, Pixels::clone).unwrap()), [2999, 5, 5].map(raw));
            assert_eq!(image_codec::decode("x", &set.file(7).unwrap(), 1).unwrap(), raw(7));
        }
    }

    #[test]
    fn pictures_keep_their_names_bytes_and_paths_in_another_set() {
        let dir = tempfile::tempdir().unwrap();
        let pictures = |i: usize| match i % 2 {
            0 => Picture::Raw(raw(i / 4)),
            _ => Picture::file(file(i).1, format!("a/{i}.png")),
        };
        let (draft, ids) = save(dir.path(), &ImagesInfo::new("test"), (0..8).map(pictures).collect());
        assert!(ids[2].ends_with("-1"), "the copy of the first: {ids:?}");
        let other = dir.path().join("other");
        fs::create_folders(&other).unwrap();
        let mut writer = ImagesWriter::create(&other, &ImagesInfo::new("test")).unwrap();
        for budget in [0, USUAL_BUDGET] {
            let set = ImageSet::open_within(&stored(&draft), budget).unwrap();
            for row in if budget == 0 { [2, 3, 5] } else { [4, 6, 7] } {
                match (set.picture(row).unwrap(), pictures(row)) {
                    (Picture::Raw(found), Picture::Raw(was)) => assert_eq!(found, was),
                    (Picture::File { bytes, path, .. }, Picture::File { bytes: was, path: from, .. }) => {
                        assert_eq!((bytes, path), (was, from));
                    }
                    (found, _) => panic!("{found:?}"),
                }
                writer.push_as(set.picture(row).unwrap(), ids[row].clone()).unwrap();
            }
        }
        let (_, names) = writer.finish().unwrap();
        assert_eq!(names, [2, 3, 5, 4, 6, 7].map(|row: usize| ids[row].clone()));
    }

    #[test]
    fn a_glance_at_few_of_many_pages_finds_them_and_their_paths() {
        let dir = tempfile::tempdir().unwrap();
        // Noise does not shrink: 600 pictures of 3 kB lie on some fifteen pages.
        let noise = |i: usize| {
            let mut rng = kinset_base::seed::Seed::new(i as u64).rng();
            Pixels::new(32, 32, 3, (0..3072).map(|_| rng.bits32() as u8).collect())
        };
        let picture = |i: usize| match i % 3 {
            0 => Picture::Raw(noise(i)),
            _ => Picture::file(image_codec::encode_png("x", &noise(i)).unwrap(), format!("a/{i}.png")),
        };
        let (draft, _) = save(dir.path(), &ImagesInfo::new("test"), (0..600).map(picture).collect());
        let set = ImageSet::open_within(&stored(&draft), 0).unwrap();
        for rows in [vec![], vec![0], vec![599], vec![7, 8, 300, 301, 302, 598], (0..600).collect::<Vec<_>>()] {
            let found = set.glance(&rows).unwrap();
            let path = |i: usize| if i.is_multiple_of(3) { String::new() } else { format!("a/{i}.png") };
            let wanted: Vec<(Pixels, String)> = rows.iter().map(|&i| (noise(i), path(i))).collect();
            assert_eq!(found, wanted, "{rows:?}");
        }
    }

    #[test]
    fn encoded_pictures_are_kept_in_memory_where_decoded_ones_do_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        let flat = || Picture::Raw(Pixels::new(500, 500, 1, vec![9; 250_000]));
        let (draft, _) = save(dir.path(), &ImagesInfo::new("test"), (0..4).map(|_| flat()).collect());
        let set = ImageSet::open_within(&stored(&draft), 100_000).unwrap();
        assert!(matches!(set.backing, Backing::Files(_)), "a megabyte of gray is some kilobytes of PNG");
        assert_eq!(set.show(3, Pixels::clone).unwrap().data, vec![9; 250_000]);
    }

    #[test]
    fn equal_pictures_have_names_of_their_own_and_order_does_not_name() {
        let dir = tempfile::tempdir().unwrap();
        let ids = |order: [usize; 3]| {
            save(dir.path(), &ImagesInfo::new("test"), order.iter().map(|i| Picture::Raw(raw(*i))).collect()).1
        };
        let (a, b) = (ids([0, 1, 0]), ids([1, 0, 0]));
        assert_eq!(a[2], format!("{}-1", a[0]));
        assert_eq!((&a[0], &a[1], &a[2]), (&b[1], &b[0], &b[2]));
    }

    #[test]
    fn files_keep_their_bytes_and_one_in_color_makes_a_set_of_color() {
        let dir = tempfile::tempdir().unwrap();
        let picture = |i| Picture::file(file(i).1, format!("cats/{i}.png"));
        let gray = image_codec::encode_png("x", &raw(0)).unwrap();
        let gray = Picture::file(gray, "gray.png");
        let (draft, _) = save(dir.path(), &ImagesInfo::new("test"), vec![gray, picture(1), picture(2)]);
        let set = ImageSet::open(&stored(&draft)).unwrap();
        assert_eq!((set.channels(), set.fixed_size(), set.size(1)), (3, None, (2, 3)));
        assert_eq!(set.file(2).unwrap(), file(2).1);
        assert_eq!(set.show(2, Pixels::clone).unwrap(), file(2).0);
        assert_eq!(set.show(0, Pixels::clone).unwrap().data[..4], [0, 0, 0, 1], "gray is repeated");
        assert_eq!(set.id(1), Ids::default().next(&file(1).1));
    }

    #[test]
    fn the_digest_is_of_pictures_and_not_of_folders() {
        let dir = tempfile::tempdir().unwrap();
        let digest = |source: &str, folder: &str| {
            let picture = Picture::file(file(1).1, format!("{folder}/1.png"));
            save(dir.path(), &ImagesInfo::new(source), vec![picture]).0.files[0].logical
        };
        assert_eq!(digest("here", "cats"), digest("there", "dogs"));
    }

    #[test]
    fn a_turned_picture_is_another_content_under_the_same_name_and_is_turned_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        let plain = image_codec::encode_png("x", &Pixels::new(3, 2, 1, vec![0, 1, 2, 3, 4, 5])).unwrap();
        let turned = png_with(&plain, 33, *b"eXIf", &exif(6, false));
        let save = |bytes: &[u8]| save(dir.path(), &ImagesInfo::new("test"), vec![Picture::file(bytes.to_vec(), "a.png")]);
        assert_eq!(save(&plain).0.files[0].logical, save(&plain).0.files[0].logical);
        let other = save(&[&turned[..], b"x"].concat()).0.files[0].logical;
        let (draft, ids) = save(&turned);
        assert_ne!(draft.files[0].logical, other);
        assert_eq!(ids, [Ids::default().next(&turned)], "its name is that of its bytes");
        for budget in [0, USUAL_BUDGET] {
            let set = ImageSet::open_within(&stored(&draft), budget).unwrap();
            let wanted = Pixels::new(2, 3, 1, vec![3, 0, 4, 1, 5, 2]);
            assert_eq!((set.size(0), set.show(0, Pixels::clone).unwrap()), ((2, 3), wanted.clone()));
            assert_eq!(set.glance(&[0]).unwrap(), [(wanted, "a.png".to_owned())]);
            assert_eq!(set.file(0).unwrap(), turned, "whoever exports it gets the file as it came");
        }
    }

    #[test]
    fn files_left_outside_are_opened_there_and_must_not_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outside.png");
        fs::write_atomic(&path, &file(1).1).unwrap();
        let info = ImagesInfo { pack: false, ..ImagesInfo::new("test") };
        let picture = Picture::file(file(1).1, display(&path));
        let (draft, _) = save(dir.path(), &info, vec![picture]);
        for budget in [0, USUAL_BUDGET] {
            let set = ImageSet::open_within(&stored(&draft), budget).unwrap();
            assert_eq!(set.show(0, Pixels::clone).unwrap(), file(1).0);
        }
        fs::write_atomic(&path, &file(2).1).unwrap();
        assert!(matches!(ImageSet::open(&stored(&draft)).unwrap_err(), ArtifactError::ChangedPicture { .. }));
        fs::remove(&path).unwrap();
        assert!(matches!(ImageSet::open(&stored(&draft)).unwrap_err(), ArtifactError::File(_)));
    }

    #[test]
    fn no_pictures_and_broken_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let writer = || ImagesWriter::create(dir.path(), &ImagesInfo::new("test")).unwrap();
        assert!(matches!(writer().finish().unwrap_err(), ArtifactError::Empty { what: "images", .. }));
        let mut broken = writer();
        broken.push(Picture::file(b"no picture".to_vec(), "cats/1.png")).unwrap();
        assert!(broken.finish().unwrap_err().to_string().contains("`cats/1.png`"));
    }

    #[test]
    fn tables_written_by_others_are_not_believed() {
        let meta = |channels: usize| Meta::new(Images::KIND).with("channels", channels);
        let columns = |bytes: Vec<u8>, width: u32| {
            vec![
                ("id", Column::Text(vec!["a".into()])),
                ("row", Column::U32(vec![0])),
                ("image", Column::Images { bytes: vec![bytes], paths: vec![String::new()] }),
                ("width", Column::U32(vec![width])),
                ("height", Column::U32(vec![3])),
            ]
        };
        let refuse = |meta, columns| refused(ImageSet::open, meta, columns);
        assert!(refuse(meta(2), columns(file(1).1, 2)).contains("`channels` is 2"));
        assert!(refuse(meta(3), columns(file(1).1, 0)).contains("column `width`"));
        assert!(refuse(meta(3), columns(file(1).1, 9)).contains("says 9 × 3"));
        assert!(refuse(meta(3), columns(vec![], 2)).contains("column `image`"));
        assert!(refuse(meta(3), columns(b"GIF89a".to_vec(), 2)).contains("`a`"));
    }
}
