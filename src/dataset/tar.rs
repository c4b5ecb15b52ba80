//! Tar shards in WebDataset's layout: files of a shard that share a name up to the first dot of their last part are one sample,
//! `0042.jpg` with `0042.cls`.
//!
//! A sample's picture is its `jpg`, `jpeg`, `png`, `webp`, `gif`, `bmp`, `tif` or `tiff`, its label what its `cls` contains: `image_column` and `label_column` name
//! others by what follows that first dot, `input.jpg`. Labels are whole numbers from 0, or else texts, which are numbered in their
//! order. Either every sample has a label or none is taken for labeled. Hard links are what they lead to. Whatever else a shard
//! holds is counted, not read. Files and splits are as in `shards`; the order is that of the shards. Compressed archives are not
//! read: pictures are compressed already.
//!
//! Each shard's headers are read first for the number of pictures and all labels, wherever they stand, and once more when its
//! turn has come: the names of one shard are in memory, not those of all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use ::tar::{Archive, EntryType};

use super::entry::{Entry, Format, Request};
use super::error::{DatasetError, FaultyFiles, Result};
use super::labels_by_name::{Classes, LabelScan};
use super::reader::{DatasetFiles, DatasetReader, DigestOf, Ignored, Record, open_lazily};
use super::shards::{Form, Shards};
use super::skip_broken::{SkipBroken, Tried, try_chunks};
use kinset_artifact::image_codec::Look;
use kinset_artifact::parquet::pictures::FoundLabel;
use kinset_base::file_kind::kind_of;
use kinset_base::fs;
use kinset_base::name::{Name, without_mark};
use kinset_base::raw_file::RawFile;
use kinset_base::reading::Reading;
use kinset_base::unit::count;

/// The kind of file that is read, in the words of `file_kind`.
const WANTED: &str = "a tar archive";
const FORM: Form = Form { endings: &["tar"], what: "tar file", alone: "data.tar" };
/// Pictures that are decoded together. Fixed, so that the thread count decides nothing …
const CHUNK: usize = 64;
/// … or fewer, if they have so many bytes.
const CHUNK_BYTES: u64 = 64 << 20;
/// A picture is not longer.
const LONGEST_PICTURE: u64 = 1 << 28;
/// A label is not longer.
const LONGEST_LABEL: u64 = 256;
/// Members that are a sample's picture, if no other is asked for.
const PICTURES: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];
/// The member that is its label.
const LABEL: &str = "cls";
/// Other kinds of members that are told apart.
const MOST_KINDS: usize = 64;
/// Links that lead to links.
const MOST_LINKS: usize = 8;
/// Blocks of zeros after an archive: writers fill up to a multiple of these bytes.
const PADDING: u64 = 1 << 20;
const BLOCK: u64 = 512;
/// Zeros that mark the end of an archive: two blocks.
const END: usize = 1024;
/// How members are counted whose names begin with a dot: macOS's attributes.
const HIDDEN: &str = "hidden";

pub(super) static DATASETS: &[Entry] = &[Entry::new(
    "tar",
    "your own tar shards in WebDataset's layout: `0042.jpg`, perhaps `0042.cls`",
    "name the file or the folder of shards with `root = \"PATH\"`",
    &Tar,
)];

#[derive(Debug)]
struct Tar;

impl Format for Tar {
    fn name(&self) -> &'static str {
        "tar"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["part", "skip_broken", "orientation", "background", "image_column", "label_column"]
    }

    fn locate(&self, request: &Request<'_>) -> Result<DatasetFiles> {
        let Shards { root, files, ignored } = Shards::find(request, &FORM)?;
        let files = request.source.part_of(files)?;
        let (place, skip_broken) = (root.display().to_string(), request.source.skip_broken);
        let wanted = Wanted::new(request.source.image_column.as_deref(), request.source.label_column.as_deref());
        let look = request.source.look()?;
        let with_labels = request.source.labels != Some(false);
        let open = move |files: &Arc<[RawFile]>, _: &mut DigestOf| {
            let Found { pictures, labels: classes, left, doubts } = look_through(files, &wanted, with_labels)?;
            if pictures == 0 {
                return Err(DatasetError::NoMembers { file: place.clone(), others: left.summary("other members") });
            }
            let (labels, classes) = (classes.labels(), Arc::new(classes));
            let shards: Vec<(RawFile, Wanted)> = files.iter().map(|file| (file.clone(), wanted.clone())).collect();
            let chunks = shards.into_iter().flat_map(move |(file, wanted)| {
                let classes = Arc::clone(&classes);
                open_lazily(move || Shard::open(file, &wanted, &classes))
            });
            let left = left.endings.iter().map(|(kind, number)| format!("{} × {kind}", count(*number as u64))).collect();
            let records = SkipBroken::new(try_chunks(chunks, move |raw| Ok(attempt(raw, look))), place.clone(), skip_broken)
                .looking(look)
                .saying(Reading { left, doubts, ..Reading::default() });
            Ok(DatasetReader { labels, count: pictures, records: Box::new(records) })
        };
        Ok(DatasetFiles { ignored, labels_from: "by member", ..DatasetFiles::new(files, Some(root), open) })
    }
}

/// Which members are pictures and labels, by what follows the first dot of their names, in small letters.
#[derive(Clone)]
struct Wanted {
    pictures: Vec<String>,
    label: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    Picture,
    Label,
    /// Not read.
    Other(&'a [u8]),
}

impl Wanted {
    fn new(picture: Option<&str>, label: Option<&str>) -> Self {
        let plain = |ending: &str| ending.trim_start_matches('.').to_lowercase();
        let pictures = match picture {
            Some(picture) => vec![plain(picture)],
            None => PICTURES.map(str::to_owned).to_vec(),
        };
        Self { pictures, label: plain(label.unwrap_or(LABEL)) }
    }

    /// The sample's name, and the part of it that a member is.
    fn part<'a>(&self, path: &'a [u8]) -> (&'a [u8], Part<'a>) {
        let file = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let dot = path[file..].iter().position(|&byte| byte == b'.').map_or(path.len(), |dot| file + dot);
        let ending = path.get(dot + 1..).unwrap_or_default();
        let is = |wanted: &String| !wanted.is_empty() && ending.eq_ignore_ascii_case(wanted.as_bytes());
        let part = match dot > file {
            true if self.pictures.iter().any(is) => Part::Picture,
            true if is(&self.label) => Part::Label,
            _ => Part::Other(ending),
        };
        (&path[..dot], part)
    }
}

/// What the headers of all shards say.
struct Found {
    pictures: usize,
    labels: Classes,
    left: Ignored,
    doubts: Vec<String>,
}

/// Reads the headers and labels of all shards.
///
/// # Errors
/// Shards that are damaged, all of them in one error.
fn look_through(files: &[RawFile], wanted: &Wanted, with_labels: bool) -> Result<Found> {
    let mut found = Found { pictures: 0, labels: Classes::Numbered, left: Ignored::default(), doubts: Vec::new() };
    let (mut labelled, mut scan) = (0_usize, LabelScan::default());
    let (mut lone, mut lone_endings, mut ends) = (0, BTreeSet::new(), 0_usize);
    let mut faulty = FaultyFiles::default();
    let (mut endless, mut repeated, mut several) = (0, (0, None), (0, None));
    for file in files {
        let Some(index) = faulty.take(Index::read(file, wanted))? else { continue };
        found.pictures += index.pictures.len();
        labelled += index.pictures.iter().filter(|picture| picture.label.is_some()).count();
        if with_labels {
            index.labels.into_iter().for_each(|text| scan.see(&FoundLabel::Text(text)));
        }
        for (kind, number) in index.left.endings {
            found.left.count_as(&kind, number);
        }
        lone += index.lone;
        lone_endings.extend(index.lone_endings.into_iter().take(2));
        ends += usize::from(index.goes_on);
        endless += usize::from(index.endless);
        for (all, one) in [(&mut repeated, index.repeated), (&mut several, index.several)] {
            all.0 += one.0;
            all.1 = all.1.take().or(one.1);
        }
    }
    faulty.finish()?;
    let none = |why: String| Classes::None { why };
    found.labels = match labelled {
        _ if !with_labels => none("`labels = false`".to_owned()),
        0 => none(format!("no sample has a label in a member `.{}`", wanted.label)),
        some if some < found.pictures => {
            none(format!("only {some} of {} pictures have a label in a member `.{}`", found.pictures, wanted.label))
        }
        _ => scan.finish(&format!("the member `.{}`", wanted.label)),
    };
    if let Some(ending) = lone_endings.first() {
        let remedy = match lone_endings.len() {
            1 => format!("`image_column = \"{ending}\"` reads them instead"),
            _ => format!("rename them (one ends in `.{ending}`)"),
        };
        found.doubts.push(format!(
            "{} not read, because a sample's name ends at the first dot and these have more than one: {remedy}",
            if lone == 1 { "1 picture is".to_owned() } else { format!("{} pictures are", count(lone as u64)) },
        ));
    }
    if ends > 0 {
        found.doubts.push(format!(
            "{} after the end-of-archive marker, as if joined with `cat`; it is not read: unpack with `tar -i` and pack again",
            if ends == 1 { "1 archive has data".to_owned() } else { format!("{} archives have data", count(ends as u64)) }
        ));
    }
    if endless > 0 {
        found.doubts.push(format!(
            "{} without the end-of-archive marker, as if cut off: if pictures are missing, pack or download again",
            if endless == 1 { "1 archive is".to_owned() } else { format!("{} archives are", count(endless as u64)) }
        ));
    }
    if let (number, Some(name)) = repeated {
        found.doubts.push(format!(
            "{} the name of an earlier one in its archive, such as `{name}`: all pictures are read, and of labels the last",
            if number == 1 { "1 member has".to_owned() } else { format!("{} members have", count(number as u64)) }
        ));
    }
    if let (number, Some(name)) = several {
        found.doubts.push(format!(
            "{} more than one picture, such as `{name}`, and each is an image of its own: name the one to read with `image_column`",
            if number == 1 { "1 sample has".to_owned() } else { format!("{} samples have", count(number as u64)) }
        ));
    }
    Ok(found)
}

fn damaged(path: &Path, source: Error) -> DatasetError {
    let place = path.display().to_string();
    match kind_of(path) {
        Some(kind) if kind != WANTED => DatasetError::OtherKind { file: place, wanted: WANTED, kind },
        _ => DatasetError::Archive { file: place, source },
    }
}

/// A picture that is to be read: its name, where its bytes lie, the label of its sample.
struct Place {
    path: Box<[u8]>,
    at: u64,
    size: u64,
    label: Option<usize>,
}

/// What the headers of a shard say.
struct Index {
    /// In the order of the shard.
    pictures: Vec<Place>,
    /// The texts of labels, each once.
    labels: Vec<String>,
    left: Ignored,
    /// Pictures by their last ending whose sample has no other.
    lone: usize,
    /// What follows the first dot of their names; a few.
    lone_endings: BTreeSet<String>,
    /// Something stands behind the archive's end.
    goes_on: bool,
    /// There is no mark of its end.
    endless: bool,
    /// Members with the name of an earlier one, and such a name.
    repeated: (usize, Option<String>),
    /// Samples with several pictures, and one of their names.
    several: (usize, Option<String>),
}

/// Where a member's bytes lie: known, or elsewhere in the shard.
enum Lies {
    At(u64, u64),
    Linked(Box<[u8]>),
}

impl Index {
    fn read(file: &RawFile, wanted: &Wanted) -> Result<Self> {
        let wrong = |error| damaged(&file.path, error);
        let mut pictures: Vec<(Box<[u8]>, Lies)> = Vec::new();
        let mut labels: BTreeMap<Box<[u8]>, Lies> = BTreeMap::new();
        let mut repeated = (0, None);
        let (mut left, mut dotted) = (Ignored::default(), BTreeMap::<Box<[u8]>, (usize, BTreeSet<String>)>::new());
        let mut end = 0;
        each_member(&file.path, |path, kind, lies, stop| {
            end = stop;
            let known = match kind {
                EntryType::Regular | EntryType::Continuous | EntryType::Link => true,
                EntryType::Directory | EntryType::XGlobalHeader => return,
                EntryType::Symlink => return left.count_as("symbolic link", 1),
                EntryType::GNUSparse => return left.count_as("sparse file", 1),
                _ => false,
            };
            if !known {
                return left.count_as("device or pipe", 1);
            }
            match wanted.part(path) {
                (_, Part::Picture) => pictures.push((path.into(), lies)),
                (sample, Part::Label) => {
                    if labels.insert(sample.into(), lies).is_some() {
                        note(&mut repeated, path);
                    }
                }
                (sample, Part::Other(ending)) => {
                    let kind = member_kind(path, ending, &left);
                    left.count_as(&kind, 1);
                    let ending = Name::from_bytes(ending).to_lowercase();
                    let picture = ending.rsplit_once('.').is_some_and(|(_, last)| PICTURES.contains(&last));
                    if picture && kind != HIDDEN {
                        let (number, endings) = dotted.entry(sample.into()).or_default();
                        *number += 1;
                        // Two tell that there are several.
                        if endings.len() < 2 {
                            endings.insert(ending);
                        }
                    }
                }
            }
        })?;
        let targets = follow_links(&file.path, pictures.iter().map(|(_, lies)| lies).chain(labels.values()))?;
        let place = |lies: &Lies| targets.of(lies);
        let mut index = Self {
            pictures: Vec::with_capacity(pictures.len()),
            labels: Vec::new(),
            left,
            lone: 0,
            lone_endings: BTreeSet::new(),
            goes_on: false,
            endless: false,
            repeated: (0, None),
            several: (0, None),
        };
        let mut source = fs::open(&file.path)?;
        let (mut numbers, mut texts) = (BTreeMap::new(), BTreeMap::new());
        for (sample, lies) in &labels {
            let Some((at, size)) = place(lies) else { continue };
            source.seek(SeekFrom::Start(at)).map_err(wrong)?;
            let mut text = Vec::new();
            source.by_ref().take(size.min(LONGEST_LABEL)).read_to_end(&mut text).map_err(wrong)?;
            let text = Name::from_bytes(without_mark(&text).trim_ascii()).into_string();
            if size > LONGEST_LABEL || text.is_empty() {
                index.left.count_as(&format!(".{} empty or longer than {LONGEST_LABEL} bytes", wanted.label), 1);
            } else {
                let next = texts.len();
                numbers.insert(&sample[..], *texts.entry(text).or_insert(next));
            }
        }
        for (path, lies) in pictures {
            let Some((at, size)) = place(&lies) else {
                index.left.count_as("link to nothing", 1);
                continue;
            };
            let label = numbers.get(wanted.part(&path).0).copied();
            index.pictures.push(Place { path, at, size, label });
        }
        let mut samples: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        for path in index.pictures.iter().map(|picture| &picture.path) {
            let sample = wanted.part(path).0;
            match samples.insert(sample, path) {
                Some(earlier) if *earlier == **path => note(&mut repeated, path),
                Some(_) => note(&mut index.several, sample),
                None => {}
            }
        }
        index.repeated = repeated;
        let alone = labels.keys().filter(|sample| !samples.contains_key(&sample[..])).count();
        index.left.count_as(&format!(".{} without a picture", wanted.label), alone);
        for (_, (number, endings)) in dotted.into_iter().filter(|(sample, _)| !samples.contains_key(&sample[..])) {
            index.lone += number;
            if index.lone_endings.len() < 2 {
                index.lone_endings.extend(endings);
            }
        }
        index.labels = vec![String::new(); texts.len()];
        for (text, number) in texts {
            index.labels[number] = text;
        }
        source.seek(SeekFrom::Start(end)).map_err(wrong)?;
        let mut rest = Vec::new();
        source.take(PADDING).read_to_end(&mut rest).map_err(wrong)?;
        index.goes_on = rest.iter().any(|&byte| byte != 0);
        index.endless = rest.len() < END;
        Ok(index)
    }
}

/// Counts one more, and keeps the name of the first.
fn note((number, first): &mut (usize, Option<String>), name: &[u8]) {
    *number += 1;
    first.get_or_insert_with(|| Name::from_bytes(name).into_string());
}

/// Passes every member of an archive on: its name, its type, where it lies and where it ends.
fn each_member(path: &Path, mut take: impl FnMut(&[u8], EntryType, Lies, u64)) -> Result<()> {
    let wrong = |error| damaged(path, error);
    let length = fs::metadata(path)?.map_or(0, |found| found.len());
    let mut archive = Archive::new(fs::open(path)?);
    for entry in archive.entries_with_seek().map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let (kind, at, size) = (entry.header().entry_type(), entry.raw_file_position(), entry.size());
        let end = size.checked_next_multiple_of(BLOCK).and_then(|size| at.checked_add(size));
        let end = end.ok_or_else(|| wrong(Error::new(ErrorKind::InvalidData, "a member is longer than any file can be")))?;
        if end > length {
            return Err(wrong(Error::new(ErrorKind::UnexpectedEof, "it ends within a member")));
        }
        let lies = match (kind, entry.link_name_bytes()) {
            (EntryType::Link, Some(target)) => Lies::Linked(plain(&target).into()),
            _ => Lies::At(at, size),
        };
        take(&entry.path_bytes(), kind, lies, end);
    }
    Ok(())
}

/// A file in an archive.
pub(super) struct Member {
    pub(super) name: Name,
    pub(super) at: u64,
    /// Bytes.
    pub(super) size: u64,
}

/// The files in an archive, in its order, and how many other members there are but folders. Hard links are what they lead to.
///
/// # Errors
/// If it cannot be read, is damaged or no archive.
pub(super) fn members(path: &Path) -> Result<(Vec<Member>, usize)> {
    let (mut found, mut others) = (Vec::new(), 0);
    each_member(path, |name, kind, lies, _| match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::Link => found.push((Name::from_bytes(name), lies)),
        EntryType::Directory | EntryType::XGlobalHeader => {}
        _ => others += 1,
    })?;
    let targets = follow_links(path, found.iter().map(|(_, lies)| lies))?;
    let mut members = Vec::with_capacity(found.len());
    for (name, lies) in found {
        match targets.of(&lies) {
            Some((at, size)) => members.push(Member { name, at, size }),
            None => others += 1,
        }
    }
    Ok((members, others))
}

/// `./a/b` is `a/b`.
fn plain(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"./").unwrap_or(path)
}

/// Where members lie, by name: first byte and length.
#[derive(Default)]
struct Places(BTreeMap<Box<[u8]>, (u64, u64)>);

impl Places {
    fn of(&self, lies: &Lies) -> Option<(u64, u64)> {
        match lies {
            Lies::At(at, size) => Some((*at, *size)),
            Lies::Linked(target) => self.0.get(target).copied(),
        }
    }
}

/// Where the members lie that some hard links lead to.
fn follow_links<'a>(file: &Path, lies: impl Iterator<Item = &'a Lies>) -> Result<Places> {
    let mut wanted: BTreeSet<Box<[u8]>> = BTreeSet::new();
    for lies in lies {
        if let Lies::Linked(target) = lies {
            wanted.insert(target.clone());
        }
    }
    let mut places = Places::default();
    if wanted.is_empty() {
        return Ok(places);
    }
    let mut further: BTreeMap<Box<[u8]>, Box<[u8]>> = BTreeMap::new();
    for _ in 0..MOST_LINKS {
        let mut more = BTreeSet::new();
        each_member(file, |path, kind, lies, _| {
            let path = plain(path);
            if !wanted.contains(path) {
                return;
            }
            match lies {
                Lies::At(at, size) if matches!(kind, EntryType::Regular | EntryType::Continuous) => {
                    places.0.insert(path.into(), (at, size));
                }
                Lies::At(..) => {}
                Lies::Linked(target) => {
                    more.insert(target.clone());
                    further.insert(path.into(), target);
                }
            }
        })?;
        if more.is_empty() {
            break;
        }
        wanted = more;
    }
    for _ in 0..MOST_LINKS {
        for (path, target) in &further {
            if let Some(&place) = places.0.get(target) {
                places.0.insert(path.clone(), place);
            }
        }
    }
    Ok(places)
}

/// How a member that is not read is counted.
fn member_kind(path: &[u8], ending: &[u8], known: &Ignored) -> String {
    let file = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    if file.starts_with(b".") {
        return HIDDEN.to_owned();
    }
    if ending.is_empty() {
        return "without ending".to_owned();
    }
    let kind = format!(".{}", Name::from_bytes(ending).to_lowercase());
    let known = known.endings.len() < MOST_KINDS || known.endings.iter().any(|(other, _)| *other == kind);
    if known { kind } else { "of other kinds".to_owned() }
}

/// A picture as it lies in a shard.
struct Raw {
    name: String,
    path: String,
    bytes: std::result::Result<Vec<u8>, String>,
    label: Option<i32>,
}

/// A shard whose pictures are read one after the other.
struct Shard {
    file: RawFile,
    source: fs::File,
    pictures: std::vec::IntoIter<Place>,
    /// The number of each of the index's label texts.
    labels: Vec<Option<i32>>,
}

impl Shard {
    fn open(file: RawFile, wanted: &Wanted, classes: &Classes) -> Result<Self> {
        let Index { pictures, labels, .. } = Index::read(&file, wanted)?;
        let source = fs::open(&file.path)?;
        let number = |text| classes.number(Some(&FoundLabel::Text(text)));
        let known = !matches!(classes, Classes::None { .. });
        let labels = labels.into_iter().map(|text| known.then(|| number(text))).collect();
        Ok(Self { file, source, pictures: pictures.into_iter(), labels })
    }

    fn read(&mut self, picture: &Place) -> Result<Raw> {
        let wrong = |error| damaged(&self.file.path, error);
        let path = Name::from_bytes(&picture.path).into_string();
        let name = format!("{}: {path}", self.file.name);
        let label = picture.label.and_then(|text| self.labels.get(text).copied().flatten());
        if picture.size > LONGEST_PICTURE {
            return Ok(Raw { name, path, bytes: Err(format!("it is longer than {LONGEST_PICTURE} bytes")), label });
        }
        self.source.seek(SeekFrom::Start(picture.at)).map_err(wrong)?;
        let mut bytes = vec![0; picture.size as usize];
        self.source.read_exact(&mut bytes).map_err(wrong)?;
        Ok(Raw { name, path, bytes: Ok(bytes), label })
    }
}

impl Iterator for Shard {
    type Item = Result<Vec<Raw>>;

    /// The next pictures with their labels.
    fn next(&mut self) -> Option<Self::Item> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < CHUNK && bytes < CHUNK_BYTES {
            let Some(picture) = self.pictures.next() else { break };
            bytes += picture.size;
            match self.read(&picture) {
                Ok(raw) => chunk.push(raw),
                Err(error) => return Some(Err(error)),
            }
        }
        (!chunk.is_empty()).then_some(Ok(chunk))
    }
}

fn attempt(raw: Raw, look: Look) -> Tried {
    let Raw { name, path, bytes, label } = raw;
    let result = bytes.and_then(|bytes| Record::encoded(bytes, None, Some(path), label, look).map_err(|why| why.to_string()));
    (name, result)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tar::{Builder, Header};

    use super::*;
    use crate::file_digest;
    use crate::reader::{Content, Labels};
    use crate::{Source, registry};
    use kinset_artifact::image_codec::encode_png;
    use kinset_artifact::pixels::Pixels;
    use kinset_base::search_path::DataPaths;
    use kinset_store::digest::Digest;

    fn png(value: u8) -> Vec<u8> {
        encode_png("x", &Pixels::new(3, 2, 1, vec![value; 6])).unwrap()
    }

    fn shard(path: &Path, files: &[(String, Vec<u8>)]) {
        let mut builder = Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        fs::create_folders(path.parent().unwrap()).unwrap();
        fs::write_atomic(path, &builder.into_inner().unwrap()).unwrap();
    }

    #[test]
    fn long_names_do_not_get_lost_where_a_chunk_ends() {
        let dir = tempfile::tempdir().unwrap();
        let long = "n".repeat(150);
        let files: Vec<_> = (0..200).map(|row| (format!("{long}/{row:03}.png"), png(row))).collect();
        shard(&dir.path().join("a.tar"), &files);
        let records = read(&Source::named("tar").root(dir.path())).unwrap().2;
        let paths: Vec<_> = records.into_iter().map(|record| record.path.unwrap()).collect();
        assert_eq!(paths, files.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
    }

    fn samples(rows: std::ops::Range<u8>) -> Vec<(String, Vec<u8>)> {
        rows.flat_map(|row| {
            // The label stands before the picture or after it, and something else between them.
            let label = (format!("set/{row:03}.cls"), format!("{}\n", row % 7).into_bytes());
            let picture = (format!("set/{row:03}.PNG"), png(row));
            let other = (format!("set/{row:03}.json"), b"{}".to_vec());
            if row % 2 == 0 { [label, other, picture] } else { [picture, other, label] }
        })
        .collect()
    }

    fn read(source: &Source) -> Result<(Labels, usize, Vec<Record>)> {
        let opened = registry::locate(source, &DataPaths::new("", None, None))?.open(&mut file_digest)?;
        Ok((opened.labels, opened.count, opened.records.collect::<Result<_>>()?))
    }

    #[test]
    fn samples_come_in_order_with_their_labels_and_splits_by_shard() {
        let dir = tempfile::tempdir().unwrap();
        shard(&dir.path().join("train-000001.tar"), &samples(150..200));
        shard(&dir.path().join("train-000000.tar"), &samples(0..150));
        shard(&dir.path().join("test.tar"), &samples(200..203));
        let (labels, count, records) = read(&Source::named("tar").root(dir.path()).split("train")).unwrap();
        assert_eq!((labels, count, records.len()), (Labels::Numbered, 200, 200));
        for (row, record) in records.iter().enumerate() {
            assert_eq!(record.label, Some(row as i32 % 7), "{row}");
            assert_eq!(
                record.content,
                Content::Encoded { digest: Digest::of(&png(row as u8)), bytes: png(row as u8), damaged: false },
                "{row}"
            );
            assert_eq!(record.path.as_deref(), Some(format!("set/{row:03}.PNG").as_str()));
        }
        assert_eq!(read(&Source::named("tar").root(dir.path().join("test.tar"))).unwrap().1, 3);
        assert_eq!(read(&Source::named("tar").root(dir.path())).unwrap().1, 203);
    }

    #[test]
    fn without_a_label_for_each_there_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::named("tar").root(dir.path());
        let mut files = samples(0..3);
        let _ = files.remove(6);
        shard(&dir.path().join("a.tar"), &files);
        let (labels, count, records) = read(&source).unwrap();
        assert_eq!(labels, Labels::Absent { why: "only 2 of 3 pictures have a label in a member `.cls`".into() });
        assert_eq!((count, records[0].label), (3, None));
        files.retain(|(name, _)| !name.contains("cls"));
        shard(&dir.path().join("a.tar"), &files);
        assert!(matches!(read(&source).unwrap().0, Labels::Absent { why } if why.starts_with("no sample")));
    }

    #[test]
    fn what_is_broken_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = Source::named("tar").root(dir.path());
        let path = dir.path().join("a.tar");
        assert!(read(&source).unwrap_err().to_string().ends_with("(no tar file)"));
        let mut files = samples(0..80);
        files[3].1.truncate(20);
        shard(&path, &files);
        let error = read(&source).unwrap_err().to_string();
        assert!(error.contains("1 of 80 images") && error.contains("`a.tar: set/001.PNG`"), "{error}");
        source.skip_broken = true;
        assert_eq!(read(&source).unwrap().2.len(), 79);
        shard(&path, &samples(0..5));
        let whole = fs::read(&path).unwrap();
        for length in (1..whole.len() - 1024).step_by(301) {
            fs::write_atomic(&path, &whole[..length]).unwrap();
            // Cut between two files a shard is a shorter one; cut within one it is damaged.
            let _ = read(&source);
        }
        fs::write_atomic(&path, &whole[..700]).unwrap();
        assert!(read(&source).is_err());
        fs::write_atomic(&dir.path().join("b.tar"), &whole[..700]).unwrap();
        let error = read(&source).unwrap_err().to_string();
        assert!(
            error.starts_with("2 files cannot be read: ")
                && ["a.tar`: ", "; ", "b.tar`: it ends within a member"].iter().all(|part| error.contains(part)),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_tar_archive_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let zip = [b"PK\x03\x04".as_slice(), &[7; 600]].concat();
        let gzip = [b"\x1f\x8b".as_slice(), &[7; 600]].concat();
        let page = b"<!DOCTYPE html><p>Sign in".to_vec();
        for (bytes, kind, hint) in [
            (&zip, "is not a tar archive, but a zip archive", "unpack it and name what comes out"),
            (&gzip, "is not a tar archive, but a gzip file", "unpack it and name what comes out"),
            (&page, "is not a tar archive, but an HTML page", "download it again"),
        ] {
            fs::write_atomic(&path, bytes).unwrap();
            for root in [dir.path(), &path] {
                let error = read(&Source::named("tar").root(root)).unwrap_err();
                assert!(error.to_string().contains(kind), "{error}");
                assert!(kinset_base::fault::Fault::hint(&error).unwrap().contains(hint), "{kind}");
            }
        }
        fs::write_atomic(&path, &zip).unwrap();
        let told = read(&Source::named("folder").root(&path)).unwrap_err().to_string();
        assert!(told.contains("(not a folder, but a zip archive: unpack it and name what comes out)"), "{told}");
        shard(&path, &samples(0..3));
        let told = read(&Source::named("folder").root(&path)).unwrap_err().to_string();
        assert!(told.contains("(not a folder, but a tar archive: `dataset = \"tar\"` reads it)"), "{told}");
        fs::write_atomic(&path, &zip).unwrap();
        fs::write_atomic(&dir.path().join("b.tar"), &gzip).unwrap();
        let told = read(&Source::named("tar").root(dir.path())).unwrap_err().to_string();
        assert!(told.starts_with("2 files cannot be read: ") && told.contains("but a zip archive; "), "{told}");
    }

    /// What a reading says, after all of it was read.
    fn reading(source: &Source) -> Reading {
        let located = registry::locate(source, &DataPaths::new("", None, None)).unwrap();
        let mut opened = located.open(&mut file_digest).unwrap();
        let images = opened.records.by_ref().map(Result::unwrap).count();
        located.reading(images, &opened.labels, &*opened.records)
    }

    #[test]
    fn labels_are_found_wherever_they_stand_in_their_shard() {
        let dir = tempfile::tempdir().unwrap();
        let pictures = (0..200_u8).map(|row| (format!("{row:04}.png"), png(row)));
        let labels = (0..200_u8).map(|row| (format!("{row:04}.cls"), (row % 2).to_string().into_bytes()));
        shard(&dir.path().join("a.tar"), &pictures.chain(labels).collect::<Vec<_>>());
        let (labels, count, records) = read(&Source::named("tar").root(dir.path())).unwrap();
        assert_eq!((labels, count), (Labels::Numbered, 200));
        assert!(records.iter().enumerate().all(|(row, record)| record.label == Some(row as i32 % 2)));
    }

    #[test]
    fn labels_that_are_texts_are_numbered_by_name_and_can_be_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for (row, label) in ["\u{feff}dog", "cat\n", "-1", "dog"].into_iter().enumerate() {
            files.push((format!("{row}.png"), png(row as u8)));
            files.push((format!("{row}.cls"), label.as_bytes().to_vec()));
        }
        shard(&dir.path().join("a.tar"), &files);
        let mut source = Source::named("tar").root(dir.path());
        let (labels, _, records) = read(&source).unwrap();
        assert_eq!(labels, Labels::Named(vec!["cat".into(), "dog".into()]));
        assert_eq!(records.iter().map(|record| record.label.unwrap()).collect::<Vec<_>>(), [1, 0, -1, 1]);
        source.labels = Some(false);
        let (labels, _, records) = read(&source).unwrap();
        assert_eq!((labels, records[0].label), (Labels::unwanted(), None));
    }

    #[test]
    fn members_that_are_not_read_are_counted_and_can_be_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = Source::named("tar").root(dir.path());
        let mut files: Vec<_> = (0..4_u8).map(|row| (format!("photo.v2.{row:04}.png"), png(row))).collect();
        files.extend((0..4_u8).map(|row| (format!("{row:04}.png"), png(100 + row))));
        files.extend((0..4_u8).map(|row| (format!("{row:04}.mask.png"), png(200 + row))));
        files.push(("9.cls".into(), b"1".to_vec()));
        files.push(("._0.png".into(), b"x".to_vec()));
        shard(&dir.path().join("a.tar"), &files);
        let said = reading(&source);
        assert!(said.line().starts_with("4 images (PNG, gray), no labels: no sample has a label"), "{}", said.line());
        let left = ["1 × .cls without a picture", "4 × .mask.png", "1 × .v2.0000.png"];
        assert!(left.iter().all(|kind| said.left.iter().any(|left| left == kind)), "{:?}", said.left);
        assert!(said.left.contains(&"1 × hidden".to_owned()), "{:?}", said.left);
        assert!(
            said.doubts[0].starts_with("4 pictures are not read") && said.doubts[0].contains("rename them"),
            "{:?}",
            said.doubts
        );

        let files: Vec<_> = (0..4_u8).map(|row| (format!("s{row:04}.input.jpg"), png(row))).collect();
        shard(&dir.path().join("a.tar"), &files);
        let error = read(&source).unwrap_err();
        assert!(error.to_string().ends_with("contains no pictures (4 other members: 4 .input.jpg)"), "{error}");
        assert!(kinset_base::fault::Fault::hint(&error).unwrap().contains("image_column"));
        source.image_column = Some("input.jpg".to_owned());
        assert_eq!(read(&source).unwrap().1, 4);
    }

    #[test]
    fn hard_links_are_what_they_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = Builder::new(Vec::new());
        let mut add = |name: &str, target: Option<&str>, bytes: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            match target {
                None => builder.append_data(&mut header, name, bytes).unwrap(),
                Some(target) => {
                    header.set_entry_type(EntryType::Link);
                    builder.append_link(&mut header, name, target).unwrap();
                }
            }
        };
        add("pool/ab12", None, &png(7));
        add("pool/one", None, b"1");
        add("0.png", Some("pool/ab12"), b"");
        add("0.cls", Some("pool/one"), b"");
        add("1.png", Some("0.png"), b"");
        add("1.cls", Some("0.cls"), b"");
        add("2.png", Some("nowhere"), b"");
        fs::write_atomic(&dir.path().join("a.tar"), &builder.into_inner().unwrap()).unwrap();
        let source = Source::named("tar").root(dir.path());
        let (labels, count, records) = read(&source).unwrap();
        assert_eq!((labels, count), (Labels::Numbered, 2));
        for record in &records {
            assert!(matches!(&record.content, Content::Encoded { bytes, .. } if *bytes == png(7)));
            assert_eq!(record.label, Some(1));
        }
        assert!(reading(&source).left.contains(&"1 × link to nothing".to_owned()));
    }

    #[test]
    fn archives_behind_an_end_mark_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        shard(&path, &samples(0..2));
        let mut twice = fs::read(&path).unwrap();
        let source = Source::named("tar").root(dir.path());
        assert!(reading(&source).doubts.is_empty());
        twice.extend_from_within(..);
        fs::write_atomic(&path, &twice).unwrap();
        let said = reading(&source);
        assert!(said.doubts[0].starts_with("1 archive has data after"), "{:?}", said.doubts);
    }

    #[test]
    fn a_missing_end_mark_and_names_that_stand_twice_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let source = Source::named("tar").root(dir.path());
        let mut files = samples(0..2);
        shard(&path, &files);
        let whole = fs::read(&path).unwrap();
        fs::write_atomic(&path, &whole[..whole.len() - 1024]).unwrap();
        let said = reading(&source).doubts;
        assert!(said.len() == 1 && said[0].starts_with("1 archive is without the end-of-archive marker"), "{said:?}");

        files.extend(samples(1..2));
        files.push(("set/000.jpg".to_owned(), png(9)));
        shard(&path, &files);
        let said = reading(&source).doubts;
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].starts_with("2 members have the name of an earlier one in its archive, such as `set/001.cls`"),
            "{said:?}"
        );
        assert!(said[1].starts_with("1 sample has more than one picture, such as `set/000`"), "{said:?}");
    }

    #[test]
    fn names_say_what_a_file_is() {
        let wanted = Wanted::new(None, None);
        assert_eq!(wanted.part(b"a/b.c/0001.JPG"), (&b"a/b.c/0001"[..], Part::Picture));
        assert_eq!(wanted.part(b"0001.cls"), (&b"0001"[..], Part::Label));
        for other in ["0001.seg.png", "0001", ".jpg", "a/.png", "x.txt"] {
            assert!(matches!(wanted.part(other.as_bytes()).1, Part::Other(_)), "{other}");
        }
        let wanted = Wanted::new(Some(".seg.PNG"), Some("json"));
        assert_eq!(wanted.part(b"0001.seg.png"), (&b"0001"[..], Part::Picture));
        assert_eq!(wanted.part(b"0001.json").1, Part::Label);
        assert_eq!(wanted.part(b"0001.jpg").1, Part::Other(b"jpg"));
    }
}
