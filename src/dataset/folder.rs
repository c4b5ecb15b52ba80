//! A folder of image files.
//!
//! **Which files.** Everything below the root but hidden names, folders of file servers and what kinset itself wrote (`list_files`).
//! Files with an ending of PNG, JPEG, WebP, GIF, BMP or TIFF are taken for images,
//! and if one of them is none, that is an error that names it; other files are taken if their first bytes say that they are
//! images, else counted and left alone. Links are followed, but not back to a folder they lie in.
//!
//! **Names** are bytes: those that are no UTF-8 are shown escaped, and stay apart.
//!
//! **Labels.** If every image lies in a subfolder, the first subfolder's name is its class, and classes are numbered in the order
//! of their names. If no image does, there are no labels. If some do and some don't, there are none either, because classes
//! cannot be told from unsorted images; [`Labels::Absent`] then names the image that lies outside.
//!
//! With `labels = false` there are none. Folders whose names look like no classes ([`super::class_names`]) are doubted.
//!
//! A list of classes ([`super::class_list`]) takes only the folders it names, and numbers them.
//!
//! **Splits.** `all` is the root itself. Any other name is a subfolder of the root which is read as if it were the root
//! (`train/cat/1.jpg`); several are joined, with one numbering of all classes.
//!
//! **Order.** By the digest of the bytes, then by path. In order of paths the classes would stand one after the other, and every
//! method that sees row numbers would see labels. It also makes `limit` a fair sample.
//!
//! A folder with one image is read; stages that need more say so themselves.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io::Read;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rayon::prelude::*;

use super::class_list::ClassList;
use super::class_names;
use super::entry::{Entry, Format, Request, Split};
use super::error::{DatasetError, FaultyFiles, Result, Searched};
use super::guarded_decode::ImageFormat;
use super::list_files::FileList;
use super::reader::{DatasetFiles, DatasetReader, DigestOf, Ignored, Labels, Record};
use super::skip_broken::{SkipBroken, Tried};
use kinset_artifact::image_codec::Look;
use kinset_base::fault::{Exit, Fault};
use kinset_base::file_kind;
use kinset_base::fs::{self, At};
use kinset_base::name::Name;
use kinset_base::raw_file::RawFile;
use kinset_base::unit::counted;
use kinset_store::digest::Digest;

/// Endings that promise an image.
const ENDINGS: [&str; 12] = ["png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "dib", "tif", "tiff"];

/// Longer files are refused: nothing that a camera writes in our formats comes near.
const MAX_FILE: u64 = 1 << 28;

/// How many files are read and checked together. Nothing of this depends on the thread count.
#[derive(Clone, Copy)]
struct Limits {
    /// In the first chunk, so that whoever takes a few does not read thousands; the others are as long as all before.
    first: usize,
    most: usize,
    /// A chunk ends when its files hold so many bytes …
    bytes: u64,
    /// … but not before it has so many, which keep threads busy.
    least: usize,
}

const LIMITS: Limits = Limits { first: 64, most: 1024, bytes: 32 << 20, least: 16 };

/// Chunks that are tried while another is written, as long as their files hold no more than `AHEAD_BYTES`. A table is written in pushes,
/// during which more than one is done.
const AHEAD: usize = 6;
const AHEAD_BYTES: u64 = 64 << 20;

/// Missing folders that an error names.
const MOST_NAMED: usize = 5;

const IMAGENET: &[Split] = &[Split::named("train"), Split::named("val")];

/// ImageNet, or a subset by the list that goes with it.
const fn imagenet(name: &'static str, title: &'static str, format: &'static Folder) -> Entry {
    let advice = "put ILSVRC 2012's images there as `train/n01440764/…` and `val/n01440764/…`; for a subset also its list, one \
                  folder name per line: SCAN's repository has `imagenet_50.txt`, `imagenet_100.txt` and `imagenet_200.txt`";
    Entry {
        license: "for research, see https://www.image-net.org/download",
        splits: IMAGENET,
        folder: Some("imagenet"),
        ..Entry::new(name, title, advice, format)
    }
}

pub(super) static DATASETS: &[Entry] = &[
    imagenet("imagenet", "ILSVRC 2012: 1,281,167 + 50,000 color images of 1,000 classes", &Folder { list: None }),
    imagenet("imagenet-50", "50 classes of ImageNet, as SCAN's list has them", &Folder { list: Some("imagenet_50.txt") }),
    imagenet("imagenet-100", "100 classes of ImageNet, as SCAN's list has them", &Folder { list: Some("imagenet_100.txt") }),
    imagenet("imagenet-200", "200 classes of ImageNet, as SCAN's list has them", &Folder { list: Some("imagenet_200.txt") }),
    Entry::new(
        "folder",
        "your own PNG, JPEG, WebP, GIF, BMP and TIFF files; subfolders, if every image is in one, are classes",
        "name the folder with `root = \"DIR\"`",
        &Folder { list: None },
    ),
];

#[derive(Debug)]
struct Folder {
    /// The list of classes that goes with the data set, beside the splits.
    list: Option<&'static str>,
}

impl Format for Folder {
    fn name(&self) -> &'static str {
        "folder"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["part", "class_list", "skip_broken", "orientation", "background"]
    }

    fn locate(&self, request: &Request<'_>) -> Result<DatasetFiles> {
        locate(self, request)
    }
}

fn locate(format: &Folder, request: &Request<'_>) -> Result<DatasetFiles> {
    // One place as things are: where it is told to be, or below the data.
    let root = request.candidates().remove(0);
    let mut found = FileList::default();
    let mut searched = Vec::new();
    let list = match request.source.class_list.clone().or(format.list.map(PathBuf::from)) {
        None => None,
        Some(path) => {
            let list = ClassList::read(&root.join(&path))?;
            if list.is_none() {
                searched.push(Searched::new(&root, &[format!("`{}`", path.display())]));
            }
            list
        }
    };
    let whole = request.entry.needs_root() && request.parts == ["all"];
    for part in request.parts {
        let (folder, prefix) =
            if whole { (root.clone(), Name::default()) } else { (root.join(part), format!("{part}/").into()) };
        let inside: Vec<(PathBuf, Name)> = match &list {
            None => vec![(folder, prefix)],
            Some(list) => {
                let place = |class: &Name| (folder.join(Name::path(class)), prefix.below(class).below(&"/".into()));
                list.classes.iter().map(|(class, _)| place(class)).collect()
            }
        };
        for (folder, prefix) in inside {
            if fs::metadata(&folder)?.is_some_and(|found| found.is_dir()) {
                found.add(&folder, &prefix)?;
            } else if searched.len() < MOST_NAMED {
                searched.push(Searched::new(&folder, &[]));
            }
        }
    }
    if !searched.is_empty() {
        return Err(request.missing(searched));
    }
    let mut ignored = found.ignored;
    let mut files = Vec::with_capacity(found.files.len());
    let images: Vec<_> = found.files.par_iter().map(|file| is_image(&file.path)).collect();
    for (file, image) in found.files.into_iter().zip(images) {
        match image {
            Ok(false) => ignored.add(&file.path),
            Ok(true) => files.push(file),
            // Named with all others when it is digested.
            Err(error) if error.exit() == Exit::Data => files.push(file),
            Err(error) => return Err(error),
        }
    }
    if files.is_empty() {
        let told = std::iter::once(ignored.summary("other files")).chain(unread_pictures(&ignored));
        return Err(DatasetError::Empty { folder: root.display().to_string(), others: told.collect::<Vec<_>>().join("; ") });
    }
    let skip = usize::from(!whole);
    if request.source.part.is_some() {
        // Parts follow the order of names, which is that of the classes.
        let labelled = request.source.labels != Some(false) && (list.is_some() || number_classes(&files, skip).is_ok());
        if labelled {
            let problem = "would put one class after the other, since its subfolders are classes: set `labels = false`";
            return Err(request.source.fault("part", problem));
        }
        files = request.source.part_of(files)?;
    }
    let mut doubts = Vec::new();
    doubts.extend(unread_pictures(&ignored));
    let classes = match &list {
        _ if request.source.labels == Some(false) => Err("`labels = false`".to_owned()),
        None => number_classes(&files, skip),
        Some(list) => Ok(number_by_list(list, &files, skip)),
    };
    let mut classes_doubted = false;
    if let (Ok((_, names)), None) = (&classes, &list) {
        let exported =
            "the folder was exported by kinset, so its classes are clusters: leave them unread with `labels = false`";
        let doubt = if found.from_export { Some(exported.to_owned()) } else { class_names::doubt(names) };
        classes_doubted = doubt.is_some();
        doubts.extend(doubt);
    }
    let look = request.source.look()?;
    let (images, skip_broken, place) = (files.len(), request.source.skip_broken, root.display().to_string());
    // Pictures are compared with their digests when they are read; the list is read before its digest is taken.
    let checked = list.is_none();
    // What the list says decides labels and rows, so it is one of the raw files.
    files.extend(list.map(|list| list.file));
    let open = move |files: &Arc<[RawFile]>, digest_of: &mut DigestOf| {
        let waiting = in_order_of_digests(&files[..images], classes.as_ref().ok().map(|(numbers, _)| &numbers[..]), digest_of)?;
        let pictures = Pictures::new(Arc::clone(files), waiting, LIMITS, look);
        let labels = match &classes {
            Ok((_, names)) => Labels::Named(names.clone()),
            Err(why) => Labels::Absent { why: why.clone() },
        };
        let records = SkipBroken::new(pictures, place.clone(), skip_broken).looking(look).by_name();
        Ok(DatasetReader { labels, count: images, records: Box::new(records) })
    };
    let labels_from = "by folder";
    Ok(DatasetFiles { ignored, labels_from, doubts, classes_doubted, checked, ..DatasetFiles::new(files, Some(root), open) })
}

/// Says of pictures in formats that are not read how many there are, and what to do with them.
pub(super) fn unread_pictures(ignored: &Ignored) -> impl Iterator<Item = String> {
    let mut kinds: BTreeMap<&str, (usize, Vec<&str>)> = BTreeMap::new();
    for (ending, number) in &ignored.endings {
        if let Some(kind) = ending.strip_prefix('.').and_then(file_kind::unread_picture) {
            let (all, endings) = kinds.entry(kind).or_default();
            *all += number;
            endings.push(ending);
        }
    }
    kinds.into_iter().map(|(kind, (number, endings))| {
        let (number, endings) = (counted(number as u64, "picture"), endings.join(", "));
        format!("{number} not read ({endings}): {}", file_kind::remedy(kind).unwrap_or("convert them to PNG"))
    })
}

/// Numbers the classes as a list does. All files lie in its folders.
fn number_by_list(list: &ClassList, files: &[RawFile], skip: usize) -> (Vec<i32>, Vec<String>) {
    let places: BTreeMap<&str, i32> = list.classes.iter().map(|(folder, _)| folder.as_str()).zip(0..).collect();
    let class = |file: &RawFile| file.name.split('/').nth(skip).and_then(|folder| places.get(folder)).copied();
    let numbers = files.iter().map(|file| class(file).unwrap_or(-1)).collect();
    (numbers, list.classes.iter().map(|(_, name)| name.clone()).collect())
}

/// Numbers the classes in the order of their names. A file's class is the first folder of its name after `skip` others.
fn number_classes(files: &[RawFile], skip: usize) -> std::result::Result<(Vec<i32>, Vec<String>), String> {
    let class = |file: &'_ RawFile| -> Option<String> {
        let mut names = file.name.split('/').skip(skip);
        let first = names.next();
        names.next().and(first).map(str::to_owned)
    };
    let classes: Vec<Option<String>> = files.iter().map(class).collect();
    let mut names: Vec<String> = classes.iter().flatten().cloned().collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err("the images lie in no subfolders that could be classes".to_owned());
    }
    let mut numbers = Vec::with_capacity(files.len());
    for (file, class) in files.iter().zip(&classes) {
        match class.as_ref().and_then(|class| names.binary_search(class).ok()) {
            Some(number) => numbers.push(number as i32),
            None => return Err(format!("`{}` lies in no subfolder, so the subfolders are not taken for classes", file.name)),
        }
    }
    Ok((numbers, names))
}

/// Trusts the usual endings, and looks into the other files, unless their ending promises a format that is not read: many cameras' raw
/// files look like TIFF.
pub(super) fn is_image(path: &Path) -> Result<bool> {
    let unread = |ending: &OsStr| file_kind::unread_picture(&ending.to_string_lossy().to_lowercase()).is_some();
    if path.extension().is_some_and(unread) {
        return Ok(false);
    }
    if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known))) {
        return Ok(true);
    }
    let mut begin = Vec::new();
    fs::open(path)?.take(12).read_to_end(&mut begin).at("read", path)?;
    Ok(ImageFormat::sniff(&begin).is_some())
}

fn in_order_of_digests(files: &[RawFile], numbers: Option<&[i32]>, digest_of: &mut DigestOf) -> Result<Vec<Waiting>> {
    let (mut order, mut faulty) = (Vec::with_capacity(files.len()), FaultyFiles::default());
    for (index, file) in files.iter().enumerate() {
        order.extend(faulty.take(digest_of(file).map_err(DatasetError::File))?.map(|digest| (digest, index)));
    }
    faulty.finish()?;
    // Files stand in the order of their names, so the index settles ties.
    order.sort_unstable();
    let waiting = |(digest, file): (Digest, usize)| Waiting { file, digest, label: numbers.map(|numbers| numbers[file]) };
    Ok(order.into_iter().map(waiting).collect())
}

struct Waiting {
    /// Its place among the files.
    file: usize,
    digest: Digest,
    label: Option<i32>,
}

/// The pictures of a folder, in the order of digests.
struct Pictures {
    files: Arc<[RawFile]>,
    waiting: Arc<[Waiting]>,
    look: Look,
    limits: Limits,
    /// The first file that nobody has begun with.
    next: usize,
    /// Pictures that were tried, the next one last.
    ready: Vec<Result<Tried>>,
    /// The chunks after them, which are being tried while they are written.
    ahead: VecDeque<Ahead>,
}

/// A chunk that is being tried.
struct Ahead {
    bytes: u64,
    attempts: Receiver<Attempts>,
}

/// A chunk of pictures that were tried, or the panic that it ended in.
type Attempts = std::thread::Result<Vec<Result<Tried>>>;

impl Pictures {
    fn new(files: Arc<[RawFile]>, waiting: Vec<Waiting>, limits: Limits, look: Look) -> Self {
        Self { files, waiting: waiting.into(), look, limits, next: 0, ready: Vec::new(), ahead: VecDeque::new() }
    }

    /// The files of the next chunk.
    fn chunk(&mut self) -> Range<usize> {
        let Limits { first: few, most, bytes: full, least } = self.limits;
        let (first, mut bytes) = (self.next, 0);
        let most = first.clamp(few, most);
        while let Some(waiting) = self.waiting.get(self.next)
            && self.next - first < most
            && (bytes < full || self.next - first < least)
        {
            bytes += self.files[waiting.file].bytes;
            self.next += 1;
        }
        first..self.next
    }

    /// Begins with the next chunks.
    fn go_ahead(&mut self) {
        // A thread of the pool must not wait for the pool: it may be the only one. (Whoever begins to read goes on to read.)
        let room =
            |ahead: &VecDeque<Ahead>| ahead.len() < AHEAD && ahead.iter().map(|chunk| chunk.bytes).sum::<u64>() < AHEAD_BYTES;
        while room(&self.ahead) && self.next < self.waiting.len() && rayon::current_thread_index().is_none() {
            let (chunk, files, waiting, look) = (self.chunk(), Arc::clone(&self.files), Arc::clone(&self.waiting), self.look);
            let (sender, attempts) = std::sync::mpsc::sync_channel(1);
            let bytes = waiting[chunk.clone()].iter().map(|waiting| files[waiting.file].bytes).sum();
            self.ahead.push_back(Ahead { bytes, attempts });
            rayon::spawn(move || {
                let attempts = catch_unwind(AssertUnwindSafe(|| attempt(&files, &waiting[chunk], look)));
                // Nobody waits where a run was stopped.
                let _ = sender.send(attempts);
            });
        }
    }
}

fn attempt(files: &[RawFile], waiting: &[Waiting], look: Look) -> Vec<Result<Tried>> {
    waiting.par_iter().map(|waiting| waiting.attempt(&files[waiting.file], look)).collect()
}

impl Iterator for Pictures {
    type Item = Result<Tried>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            self.ready = match self.ahead.pop_front().map(|ahead| ahead.attempts.recv()) {
                Some(Ok(attempts)) => attempts.unwrap_or_else(|panic| resume_unwind(panic)),
                Some(Err(_)) => unreachable!("a chunk that was begun with is sent"),
                None => {
                    let chunk = self.chunk();
                    attempt(&self.files, &self.waiting[chunk], self.look)
                }
            };
            self.ready.reverse();
            self.go_ahead();
        }
        self.ready.pop()
    }
}

impl Waiting {
    /// Reads the file through. One that was quiet when it was found, before its digest was taken, and still is what it was, has that digest;
    /// of any other it is taken again.
    fn attempt(&self, file: &RawFile, look: Look) -> Result<Tried> {
        let name = file.name.to_string();
        if file.bytes > MAX_FILE {
            return Ok((name, Err(format!("longer than {}", kinset_base::unit::bytes(MAX_FILE)))));
        }
        let (bytes, identity) = fs::read_again(&file.path, file.bytes, MAX_FILE)?;
        let same = file.quiet && identity == file.identity && bytes.len() as u64 == file.bytes;
        if !same && Digest::of(&bytes) != self.digest {
            return Err(DatasetError::Changed { file: file.path.display().to_string() });
        }
        let record = Record::encoded(bytes, Some(self.digest), Some(name.clone()), self.label, look);
        Ok((name, record.map_err(|why| why.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use image::ImageEncoder;
    use image::codecs::png::PngEncoder;

    use super::*;
    use crate::file_digest;
    use crate::reader::Content;
    use crate::source::Orientation;
    use crate::{Source, registry};
    use kinset_base::search_path::DataPaths;

    /// A gray picture of one value.
    fn png(value: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(&[value; 6], 3, 2, image::ExtendedColorType::L8).unwrap();
        bytes
    }

    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            fs::create_folders(path.parent().unwrap()).unwrap();
            fs::write_atomic(&path, bytes).unwrap();
        }
        dir
    }

    fn source(dir: &tempfile::TempDir) -> Source {
        Source::named("folder").root(dir.path())
    }

    fn open(source: &Source) -> Result<DatasetReader> {
        registry::locate(source, &DataPaths::new("", None, None))?.open(&mut file_digest)
    }

    fn read(source: &Source) -> Result<(Labels, Vec<Record>)> {
        let opened = open(source)?;
        Ok((opened.labels, opened.records.collect::<Result<_>>()?))
    }

    fn paths(records: &[Record]) -> Vec<&str> {
        records.iter().map(|record| record.path.as_deref().unwrap()).collect()
    }

    #[test]
    fn all_files_that_cannot_be_read_are_named() {
        let dir = folder(&[("a.png", png(1)), ("b.png", png(2)), ("c.png", png(3))]);
        let located = registry::locate(&source(&dir), &DataPaths::new("", None, None)).unwrap();
        for gone in ["a.png", "c.png"] {
            fs::remove(&dir.path().join(gone)).unwrap();
        }
        let error = located.open(&mut file_digest).err().unwrap();
        let told = error.to_string();
        assert!(told.starts_with("2 files cannot be read: ") && !told.contains("b.png"), "{told}");
        assert!(told.contains("a.png`") && told.contains("c.png`"), "{told}");
        assert_eq!(error.exit(), Exit::Data);
        fs::write_atomic(&dir.path().join("a.png"), &png(1)).unwrap();
        let told = located.open(&mut file_digest).err().unwrap();
        assert!(matches!(told, DatasetError::File(_)), "of one file its own error: {told}");
    }

    #[test]
    fn class_folders_give_labels_and_digests_the_order() {
        let files: Vec<_> =
            (0..40_u8).map(|i| (format!("{}/{i:02}.png", if i < 20 { "cat" } else { "ant" }), png(i))).collect();
        let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        let dir = folder(&files);
        let (labels, records) = read(&source(&dir)).unwrap();
        assert_eq!(labels, Labels::Named(vec!["ant".into(), "cat".into()]));
        assert_eq!(records.len(), 40);
        for record in &records {
            let path = record.path.as_ref().unwrap();
            assert_eq!(record.label, Some(i32::from(path.starts_with("cat"))));
            let bytes = fs::read(&dir.path().join(path)).unwrap();
            assert_eq!(record.content, Content::Encoded { digest: Digest::of(&bytes), bytes, damaged: false });
            assert_eq!((record.width, record.height, record.channels), (3, 2, 1));
        }
        let digests: Vec<_> = records
            .iter()
            .map(|record| match &record.content {
                Content::Encoded { bytes, .. } => Digest::of(bytes),
                Content::Raw(_) => panic!("files come as they are"),
            })
            .collect();
        assert!(digests.is_sorted());
        let changes = records.windows(2).filter(|pair| pair[0].label != pair[1].label).count();
        assert!(changes > 5, "classes are mixed, not one after the other: {changes} changes");
    }

    #[test]
    fn a_list_chooses_classes_and_numbers_them_by_line() {
        let dir = folder(&[
            ("train/n1/1.png", png(1)),
            ("train/n2/2.png", png(2)),
            ("train/n3/3.png", png(3)),
            ("val/n1/4.png", png(4)),
            ("val/n3/5.png", png(5)),
            ("two.txt", b"n3 sea lion\nn1 tench\n".to_vec()),
        ]);
        let imagenet = |list: &str| {
            let list = Some(list.into());
            Source { class_list: list, ..Source::named("imagenet").root(dir.path()) }
        };
        let (labels, records) = read(&imagenet("two.txt").split("train")).unwrap();
        assert_eq!(labels, Labels::Named(vec!["sea lion".into(), "tench".into()]));
        let mut found: Vec<_> = paths(&records).into_iter().zip(records.iter().map(|record| record.label.unwrap())).collect();
        found.sort_unstable();
        assert_eq!(found, [("train/n1/1.png", 1), ("train/n3/3.png", 0)]);
        assert_eq!(read(&imagenet("two.txt")).unwrap().1.len(), 4, "`all` is both splits");
        let located = registry::locate(&imagenet("two.txt"), &DataPaths::new("", None, None)).unwrap();
        assert_eq!(located.files.last().unwrap().name, "two.txt", "what it says belongs into the key");
        assert_eq!(read(&Source::named("imagenet").split("val").root(dir.path())).unwrap().1.len(), 2, "no list: all classes");
        let own = Source { class_list: Some("../two.txt".into()), ..Source::named("folder").root(dir.path().join("train")) };
        assert_eq!(read(&own).unwrap().1.len(), 2);

        let error = read(&imagenet("none.txt")).unwrap_err();
        assert!(error.to_string().contains("lacks `none.txt`"), "{error}");
        let error = read(&Source::named("imagenet-50").root(dir.path())).unwrap_err();
        assert!(error.to_string().contains("lacks `imagenet_50.txt`"), "{error}");
        assert!(error.hint().unwrap().contains("train/n01440764"));
        fs::write_atomic(&dir.path().join("more.txt"), b"n1\nn9\n").unwrap();
        let error = read(&imagenet("more.txt").split("val")).unwrap_err();
        assert!(error.to_string().contains("val/n9` (no such folder)"), "{error}");
    }

    #[test]
    fn names_of_folders_do_not_move_rows() {
        let contents = |dir: &tempfile::TempDir| {
            read(&source(dir)).unwrap().1.into_iter().map(|record| record.content).collect::<Vec<_>>()
        };
        let a = folder(&[("x/1.png", png(1)), ("y/2.png", png(2)), ("x/3.png", png(3))]);
        let b = folder(&[("b/9.png", png(1)), ("a/8.png", png(2)), ("c/7.png", png(3))]);
        assert_eq!(contents(&a), contents(&b));
    }

    #[test]
    fn deeper_folders_belong_to_the_first_and_equal_images_keep_the_order_of_their_names() {
        let dir = folder(&[("b/deep/er/1.png", png(1)), ("a/2.png", png(1)), ("a/1.png", png(1))]);
        let (labels, records) = read(&source(&dir)).unwrap();
        assert_eq!(labels, Labels::Named(vec!["a".into(), "b".into()]));
        assert_eq!(paths(&records), ["a/1.png", "a/2.png", "b/deep/er/1.png"]);
    }

    #[test]
    fn flat_and_mixed_folders_have_no_labels_and_say_why() {
        let why = |files: &[(&str, Vec<u8>)]| match read(&source(&folder(files))).unwrap() {
            (Labels::Absent { why }, records) => {
                assert!(records.iter().all(|record| record.label.is_none()));
                why
            }
            (labels, _) => panic!("{labels:?}"),
        };
        assert_eq!(why(&[("1.png", png(1))]), "the images lie in no subfolders that could be classes");
        assert_eq!(
            why(&[("a/1.png", png(1)), ("stray.png", png(2)), ("b/3.png", png(3))]),
            "`stray.png` lies in no subfolder, so the subfolders are not taken for classes"
        );
    }

    #[test]
    #[cfg(unix)]
    fn class_folders_whose_names_are_no_utf8_stay_two_classes() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        for (class, value) in [(&b"cl\xe9"[..], 1), (b"cl\xe8", 2), ("clé".as_bytes(), 3)] {
            let class = dir.path().join(OsStr::from_bytes(class));
            fs::create_folders(&class).unwrap();
            fs::write_atomic(&class.join("1.png"), &png(value)).unwrap();
        }
        fs::write_atomic(&dir.path().join("list.txt"), b"\xef\xbb\xbfcl\xe9 caf\xe9\r\ncl\xe8\n").unwrap();
        let (labels, records) = read(&source(&dir)).unwrap();
        assert_eq!(labels, Labels::Named(["cl\\xe8", "cl\\xe9", "clé"].map(str::to_owned).to_vec()));
        for record in records {
            let path = Name::path(record.path.as_deref().unwrap());
            let Content::Encoded { bytes, .. } = record.content else { panic!("files come as they are") };
            assert_eq!(fs::read(&dir.path().join(path)).unwrap(), bytes, "the way back to the file");
        }
        let listed = Source { class_list: Some("list.txt".into()), ..source(&dir) };
        let (labels, records) = read(&listed).unwrap();
        assert_eq!((labels, records.len()), (Labels::Named(vec!["caf\\xe9".into(), "cl\\xe8".into()]), 2));
    }

    #[test]
    fn folders_are_no_classes_where_it_is_said_and_doubted_where_they_look_like_none() {
        let dir = folder(&[("train/cat/1.png", png(1)), ("test/dog/2.png", png(2)), ("x.HEIC", vec![1])]);
        let source = source(&dir);
        let reading = |source: &Source| {
            let located = registry::locate(source, &DataPaths::new("", None, None)).unwrap();
            let mut opened = located.open(&mut file_digest).unwrap();
            let images = opened.records.by_ref().map(Result::unwrap).count();
            located.reading(images, &opened.labels, &*opened.records)
        };
        let said = reading(&source);
        assert_eq!(said.line(), "2 images (PNG, gray), 2 classes by folder: test, train; not read: 1 × .heic");
        assert!(said.doubts[0].contains(".heic") && said.doubts[1].contains("split = \"test+train\""), "{:?}", said.doubts);
        let off = Source { labels: Some(false), ..source.clone() };
        let said = reading(&off);
        assert_eq!(said.line(), "2 images (PNG, gray), no labels: `labels = false`; not read: 1 × .heic");
        assert_eq!(said.doubts.len(), 1);
        assert!(read(&off).unwrap().1.iter().all(|record| record.label.is_none()));
        let on = Source { labels: Some(true), ..source.clone() };
        assert_eq!(registry::identity(&on).unwrap(), registry::identity(&source).unwrap(), "that is what happens anyway");
        assert_ne!(registry::identity(&off).unwrap(), registry::identity(&source).unwrap());
    }

    #[test]
    fn formats_that_are_not_read_are_named_with_what_to_do() {
        let tiff = fs::read(&golden("rgb.tif")).unwrap();
        let dir = folder(&[
            ("1.png", png(1)),
            ("2.heic", vec![1]),
            ("3.HEIF", vec![1]),
            ("4.svg", vec![1]),
            // Raw files begin like TIFF, with a preview.
            ("5.nef", tiff),
        ]);
        let located = registry::locate(&source(&dir), &DataPaths::new("", None, None)).unwrap();
        assert_eq!(located.files.len(), 1);
        let told = &located.doubts;
        assert!(told[0].starts_with("2 pictures not read (.heic, .heif): convert them, `heif-convert"), "{told:?}");
        assert!(told[1].starts_with("1 picture not read (.nef): develop them"), "{told:?}");
        assert!(told[2].starts_with("1 picture not read (.svg): draw them") && told.len() == 3, "{told:?}");
    }

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/dataset").join(name)
    }

    #[test]
    fn a_source_says_how_its_pictures_look_and_only_that_moves_a_key() {
        let files = ["turned.jpg", "rgba.png", "gray_alpha.tif", "animated.gif", "rgb.bmp"];
        let files: Vec<_> = files.iter().map(|&name| (name, fs::read(&golden(name)).unwrap())).collect();
        let dir = folder(&files);
        let with = |orientation, background: Option<&str>| Source {
            orientation,
            background: background.map(str::to_owned),
            ..source(&dir)
        };
        let seen = |source: &Source| {
            let located = registry::locate(source, &DataPaths::new("", None, None)).unwrap();
            let mut opened = located.open(&mut file_digest).unwrap();
            let mut records: Vec<Record> = opened.records.by_ref().map(Result::unwrap).collect();
            records.sort_by(|a, b| a.path.cmp(&b.path));
            (located.reading(5, &opened.labels, &*opened.records).line(), records)
        };
        let (usual, plain) = seen(&source(&dir));
        let words = "1 PNG, 1 JPEG, 1 GIF, 1 BMP, 1 TIFF, 1 gray, 2 with transparency, laid over white, 1 turned by EXIF, 1 with several \
                     frames or pages, of which the first is read";
        assert_eq!(usual, format!("5 images ({words}), no labels: the images lie in no subfolders that could be classes"));
        let key = |source: &Source| registry::identity(source).unwrap();
        for same in [with(Some(Orientation::Apply), None), with(None, Some("white")), with(None, Some("#FFFFFF"))] {
            assert_eq!((key(&same), seen(&same).1), (key(&source(&dir)), plain.clone()), "what happens anyway");
        }
        let (said, other) = seen(&with(Some(Orientation::Ignore), Some("#0000ff")));
        assert!(said.contains("2 with transparency, laid over #0000ff, 1 not turned as EXIF says"), "{said}");
        for (a, b) in plain.iter().zip(&other) {
            let (Content::Encoded { bytes, digest: now, .. }, Content::Encoded { digest: before, .. }) =
                (&b.content, &a.content)
            else {
                panic!("files come as they are")
            };
            let path = a.path.as_deref().unwrap();
            let picture = crate::guarded_decode::decode(bytes).unwrap();
            assert_eq!((picture.width, picture.height, picture.channels), (b.width, b.height, b.channels), "{path}");
            assert_eq!(now == before, matches!(path, "animated.gif" | "rgb.bmp"), "{path}");
            match path {
                "turned.jpg" => assert_eq!((b.width, b.height), (a.height, a.width)),
                "gray_alpha.tif" => assert_eq!((a.channels, b.channels, &picture.data[..3]), (1, 3, &[0, 0, 255][..])),
                _ => {}
            }
        }
        assert_eq!(key(&with(None, Some("#00F00a"))), key(&with(None, Some("#00f00A"))));
        assert_ne!(key(&with(None, Some("black"))), key(&source(&dir)));
        let error = registry::identity(&with(None, Some("#12"))).unwrap_err();
        assert_eq!(error.to_string(), "`background` of `folder` must be `white`, `black` or `#rrggbb`, found `#12`");
    }

    #[test]
    fn content_decides_and_other_files_are_counted() {
        let dir = folder(&[
            ("photo.JPG", png(1)),
            ("no_ending", png(2)),
            ("image.dat", png(3)),
            ("notes.txt", b"hello".to_vec()),
            ("more.txt", vec![]),
            ("README", b"x".to_vec()),
            (".hidden.png", png(4)),
            (".cache/5.png", png(5)),
        ]);
        let located = registry::locate(&source(&dir), &DataPaths::new("", None, None)).unwrap();
        let names: Vec<_> = located.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["image.dat", "no_ending", "photo.JPG"]);
        let ignored = [(".txt".to_owned(), 2), ("hidden".to_owned(), 2), ("without ending".to_owned(), 1)];
        assert_eq!(located.ignored.endings, ignored);
        assert_eq!(read(&source(&dir)).unwrap().1.len(), 3);
    }

    #[test]
    fn a_folder_without_images_says_what_it_holds() {
        let error = read(&source(&folder(&[("a.heic", vec![]), ("b.heic", vec![]), ("c.txt", vec![])]))).unwrap_err();
        let said = error.to_string();
        let others = "(3 other files: 2 .heic, 1 .txt; 2 pictures not read (.heic): convert them, `heif-convert";
        assert!(said.contains(&format!("no PNG, JPEG, WebP, GIF, BMP or TIFF image {others}")), "{said}");
        let error = read(&source(&folder(&[]))).unwrap_err();
        assert!(error.to_string().ends_with("(it is empty)"), "{error}");
        let nowhere = tempfile::tempdir().unwrap();
        let error = read(&Source::named("folder").root(nowhere.path().join("x"))).unwrap_err();
        assert!(error.to_string().ends_with("x` (no such folder)"), "{error}");
    }

    #[test]
    fn all_broken_images_are_named_at_once_or_left_out() {
        let mut files: Vec<(String, Vec<u8>)> = (0..200_u8).map(|i| (format!("{i:03}.png"), png(i))).collect();
        for i in [3, 50, 70, 110, 150, 190, 199] {
            files[i].1.truncate(40);
        }
        files.push(("text.jpg".to_owned(), b"<html>".to_vec()));
        let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        let dir = folder(&files);
        let error = read(&source(&dir)).unwrap_err();
        let DatasetError::Broken { broken, images, .. } = &error else { panic!("{error}") };
        assert_eq!((broken.count, *images, broken.all.len()), (8, 201, 8));
        assert!(broken.all.is_sorted_by_key(|broken| broken.name.clone()), "people look for names");
        assert!(error.to_string().contains("8 of 201 images in"), "{error}");
        assert!(error.to_string().ends_with("and 3 more"), "{error}");
        assert!(error.hint().unwrap().contains("skip_broken = true"));

        let mut source = source(&dir);
        source.skip_broken = true;
        let mut opened = open(&source).unwrap();
        assert_eq!(opened.count, 201);
        let records: Vec<_> = opened.records.by_ref().map(Result::unwrap).collect();
        assert_eq!(records.len(), 193);
        let skipped = opened.records.skipped();
        assert_eq!((skipped.count, skipped.all.len()), (8, 8));
        source.limit = Some(10);
        assert_eq!(read(&source).unwrap().1, records[..10]);
    }

    /// Folder and files of a reading in chunks of 4, then 8 and 16.
    fn in_chunks(dir: &tempfile::TempDir) -> Pictures {
        let mut names: Vec<String> =
            fs::list(dir.path()).unwrap().iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        let files: Vec<_> =
            names.into_iter().map(|name| RawFile::find(name.clone(), dir.path().join(name)).unwrap().unwrap()).collect();
        let waiting =
            |(file, raw): (usize, &RawFile)| Waiting { file, digest: Digest::of_file(&raw.path).unwrap(), label: None };
        let waiting = files.iter().enumerate().map(waiting).collect();
        Pictures::new(files.into(), waiting, Limits { first: 4, most: 16, bytes: 1 << 20, least: 2 }, Look::default())
    }

    #[test]
    fn chunks_that_are_read_ahead_come_in_order_with_all_their_faults() {
        let files: Vec<_> = (0..100_u8).map(|i| (format!("{i:03}.png"), png(i))).collect();
        let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        let dir = folder(&files);
        fs::write_atomic(&dir.path().join("050.png"), b"none").unwrap();
        let names = |folder: Pictures| {
            folder
                .map(|tried| match tried {
                    Ok((name, Ok(_))) => name,
                    Ok((name, Err(_))) => format!("broken {name}"),
                    Err(error) => error.to_string(),
                })
                .collect::<Vec<_>>()
        };
        let ahead = names(in_chunks(&dir));
        assert_eq!(ahead.len(), 100);
        assert_eq!((ahead[3].as_str(), ahead[50].as_str(), ahead[99].as_str()), ("003.png", "broken 050.png", "099.png"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| names(in_chunks(&dir))), ahead, "in the pool nothing is read ahead");
        // Whoever goes away leaves chunks behind that nobody waits for.
        let mut folder = in_chunks(&dir);
        assert!(folder.next().unwrap().is_ok());
        assert_eq!((folder.next, folder.ready.len(), folder.ahead.len()), (80, 3, AHEAD));
        drop(folder);
        let folder = in_chunks(&dir);
        fs::write_atomic(&dir.path().join("070.png"), &png(0)).unwrap();
        assert!(names(folder)[70].contains("070.png"), "changed since it was digested");
    }

    #[test]
    fn large_files_make_short_chunks() {
        let dir = folder(&["a.png", "b.png", "c.png", "d.png"].map(|name| (name, png(1))));
        let mut folder = in_chunks(&dir);
        folder.limits.bytes = 1;
        assert_eq!([folder.chunk(), folder.chunk(), folder.chunk()], [0..2, 2..4, 4..4]);
    }

    #[test]
    fn damaged_jpegs_are_taken_and_named() {
        let whole = fs::read(&golden("subsampled.jpg")).unwrap();
        let mut damaged = whole.clone();
        let end = damaged.len();
        damaged[end - 60..end - 2].fill(0);
        let dir = folder(&[("a.jpg", whole), ("b.jpg", damaged), ("c.png", png(1))]);
        let mut opened = open(&source(&dir)).unwrap();
        assert_eq!(opened.records.by_ref().map(Result::unwrap).count(), 3);
        let damaged = opened.records.damaged();
        assert_eq!((damaged.count, damaged.all[0].name.as_str()), (1, "b.jpg"));
        assert_eq!(opened.records.skipped().count, 0);
    }

    #[test]
    fn a_folder_of_nothing_but_broken_images_is_an_error_even_if_they_are_skipped() {
        let dir = folder(&[("a.png", vec![]), ("b.png", b"x".to_vec())]);
        let source = Source { skip_broken: true, ..source(&dir) };
        assert!(matches!(read(&source), Err(DatasetError::Broken { broken, images: 2, .. }) if broken.count == 2));
    }

    #[test]
    fn a_file_that_changes_between_hashing_and_reading_is_noticed() {
        let dir = folder(&[("a.png", png(1))]);
        let opened = open(&source(&dir)).unwrap();
        fs::write_atomic(&dir.path().join("a.png"), &png(2)).unwrap();
        let results: Vec<_> = opened.records.collect();
        assert!(matches!(results[..], [Err(DatasetError::Changed { .. })]));
    }

    #[test]
    fn the_digest_of_a_file_that_was_quiet_and_is_the_same_is_not_taken_again() {
        let dir = folder(&[("a.png", png(1))]);
        let path = dir.path().join("a.png");
        let found = RawFile::find("a.png", path.clone()).unwrap().unwrap();
        let changed = |file: &RawFile, digest| {
            let waiting = Waiting { file: 0, digest, label: None };
            matches!(waiting.attempt(file, Look::default()), Err(DatasetError::Changed { .. }))
        };
        let (right, wrong) = (Digest::of(&png(1)), Digest::of(b"another"));
        let quiet = RawFile { quiet: true, ..found.clone() };
        assert!(!changed(&quiet, right) && !changed(&quiet, wrong));
        let restless = RawFile { quiet: false, ..found };
        assert!(!changed(&restless, right) && changed(&restless, wrong));
        fs::write_atomic(&path, &png(2)).unwrap();
        assert!(changed(&quiet, right));
    }

    #[test]
    fn splits_are_subfolders_with_one_numbering() {
        let dir =
            folder(&[("train/a/1.png", png(1)), ("train/c/2.png", png(2)), ("test/b/3.png", png(3)), ("test/c/4.png", png(4))]);
        let (labels, records) = read(&source(&dir).split("train+test")).unwrap();
        assert_eq!(labels, Labels::Named(vec!["a".into(), "b".into(), "c".into()]));
        let mut seen: Vec<_> = records.iter().map(|record| (record.path.clone().unwrap(), record.label.unwrap())).collect();
        seen.sort_unstable();
        let wanted = [("test/b/3.png", 1), ("test/c/4.png", 2), ("train/a/1.png", 0), ("train/c/2.png", 2)];
        assert_eq!(seen, wanted.map(|(path, label)| (path.to_owned(), label)));
        let (labels, _) = read(&source(&dir)).unwrap();
        assert_eq!(labels, Labels::Named(vec!["test".into(), "train".into()]), "`all` is the root itself");
        let error = read(&source(&dir).split("valid")).unwrap_err();
        assert!(error.to_string().ends_with("valid` (no such folder)"), "{error}");
    }

    #[test]
    fn the_thread_count_changes_nothing() {
        let files: Vec<_> = (0..150_u8).map(|i| (format!("{i:03}.png"), png(i))).collect();
        let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        let dir = folder(&files);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| read(&source(&dir)).unwrap())
        };
        assert_eq!(with(1), with(5));
    }
}
