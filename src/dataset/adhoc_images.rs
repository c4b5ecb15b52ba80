//! Ad-hoc images: files, folders, lists, tar archives and Parquet tables that are looked at once, from front to back, and not kept.
//!
//! Unlike a [`Source`](super::Source) these are no data set: nothing is hashed first, the order is that of the names, labels are not
//! looked at, and a picture that cannot be read is an answer like any other. In memory is one chunk of encoded pictures, and where
//! the pictures of an archive lie.

use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::error::{DatasetError, Result};
use super::folder;
use super::guarded_decode::ImageFormat;
use super::list_files::FileList;
use super::reader::Ignored;
use super::table_paths::beside;
use super::tar::{self, Member};
use super::vectors::not_text;
use kinset_artifact::parquet::pictures::{FoundPicture, PictureFile, Pictures};
use kinset_base::fs::{self, At};
use kinset_base::name::{Name, without_mark};
use kinset_base::reading::Reading;
use kinset_base::unit;

/// Pictures of a chunk at most …
const CHUNK: usize = 256;
/// … and their bytes, unless the first one alone has more.
const CHUNK_BYTES: u64 = 64 << 20;
/// Longer files are no pictures.
const MAX_FILE: u64 = 1 << 28;
/// Longer lists are none.
const MAX_LIST: u64 = 1 << 30;

#[derive(Clone, Debug)]
pub struct AdhocImage {
    /// The file as it was named or found; of an archive `ARCHIVE#MEMBER`; of a table the picture's path there, or `TABLE#ROW`.
    pub name: String,
    /// Its bytes, or why there are none.
    pub bytes: std::result::Result<Vec<u8>, String>,
}

#[derive(Debug)]
enum Place {
    File(Part),
    Table(PathBuf, Box<PictureFile>),
}

/// A file, or a member of an archive.
#[derive(Debug)]
struct Part {
    path: Arc<Path>,
    /// The member's name, and where it begins.
    member: Option<(Name, u64)>,
    bytes: u64,
}

/// What a path that was handed in is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Picture,
    Table,
    Archive,
    List,
}

impl Kind {
    fn of(path: &Path) -> Self {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("parquet" | "arrow") => Self::Table,
            Some("tar") => Self::Archive,
            Some("txt") => Self::List,
            _ => Self::Picture,
        }
    }
}

pub struct AdhocImages {
    places: VecDeque<Place>,
    open: Option<(PathBuf, usize, Pictures)>,
    count: usize,
    reading: Reading,
}

impl std::fmt::Debug for AdhocImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdhocImages").field("count", &self.count).finish_non_exhaustive()
    }
}

impl AdhocImages {
    /// Looks for pictures. A folder is searched for image files, tables and archives; a file that ends in `.parquet` or `.arrow` is a table, in
    /// `.tar` an archive, in `.txt` a list of paths, one a line, relative to the current folder; any other is a picture.
    ///
    /// # Errors
    /// A path where nothing is; a folder or archive without pictures; a table without a column of pictures; a damaged archive.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut images = Self { places: VecDeque::new(), open: None, count: 0, reading: Reading::default() };
        for path in paths {
            images.add(path, true)?;
        }
        Ok(images)
    }

    fn add(&mut self, path: &Path, lists: bool) -> Result<()> {
        let found = fs::metadata(path)?.ok_or_else(|| {
            let gone = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file or folder");
            fs::FileError::new("look for pictures at", path, gone)
        })?;
        if found.is_dir() {
            return self.add_folder(path);
        }
        match Kind::of(path) {
            Kind::List if lists => self.add_list(path),
            kind => self.add_file(path.to_owned(), kind, found.len(), true),
        }
    }

    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let mut inside = FileList::default();
        inside.add(folder, &Name::default())?;
        let (all, before, mut ignored) = (inside.files.len(), self.places.len(), Ignored::default());
        for file in inside.files {
            let kind = Kind::of(&file.path);
            if matches!(kind, Kind::Table | Kind::Archive) || folder::is_image(&file.path)? {
                self.add_file(file.path, kind, file.bytes, false)?;
            } else {
                ignored.add(&file.path);
            }
        }
        let unread: Vec<String> = folder::unread_pictures(&ignored).collect();
        self.reading.doubts.extend(unread.iter().cloned());
        if self.places.len() == before {
            let told = std::iter::once(format!("{} other files", unit::count(all as u64))).chain(unread);
            let others = told.collect::<Vec<_>>().join("; ");
            return Err(DatasetError::Empty { folder: folder.display().to_string(), others });
        }
        Ok(())
    }

    /// Lists in lists are not read: they could name each other.
    fn add_list(&mut self, list: &Path) -> Result<()> {
        let bytes = fs::read_at_most(list, MAX_LIST)?;
        if let Some(problem) = not_text(&bytes) {
            return Err(DatasetError::Content { file: list.display().to_string(), problem });
        }
        for line in without_mark(&bytes).split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                self.add(&as_path(line), false)?;
            }
        }
        Ok(())
    }

    /// `named`: it was handed in, and not found in a folder.
    fn add_file(&mut self, path: PathBuf, kind: Kind, bytes: u64, named: bool) -> Result<()> {
        match kind {
            Kind::Table => {
                let table = PictureFile::open(&path, None)?;
                let (column, holds) = table.image_column();
                self.reading.took(format!("`{}`: column `{column}` ({holds})", path.display()));
                self.count += table.rows();
                self.places.push_back(Place::Table(path, Box::new(table)));
            }
            Kind::Archive => self.add_archive(&path, named)?,
            Kind::Picture | Kind::List => {
                self.count += 1;
                self.places.push_back(Place::File(Part { path: path.into(), member: None, bytes }));
            }
        }
        Ok(())
    }

    /// Finds the members of an archive that are pictures, by their first bytes.
    fn add_archive(&mut self, path: &Path, named: bool) -> Result<()> {
        let (members, mut others) = tar::members(path)?;
        let (mut archive, shared, mut pictures) = (fs::open(path)?, Arc::from(path), 0);
        for Member { name, at, size } in members {
            let mut begin = Vec::new();
            archive.seek(SeekFrom::Start(at)).at("read", path)?;
            archive.by_ref().take(size.min(12)).read_to_end(&mut begin).at("read", path)?;
            if ImageFormat::sniff(&begin).is_none() {
                others += 1;
                continue;
            }
            self.places.push_back(Place::File(Part { path: Arc::clone(&shared), member: Some((name, at)), bytes: size }));
            pictures += 1;
        }
        if pictures == 0 && named {
            let others = format!("{} other files", unit::count(others as u64));
            return Err(DatasetError::Empty { folder: path.display().to_string(), others });
        }
        self.count += pictures;
        self.reading.took(format!("`{}`: {} images", path.display(), unit::count(pictures as u64)));
        if others > 0 {
            self.reading.left(format!("{} other files in `{}`", unit::count(others as u64), path.display()));
        }
        Ok(())
    }

    /// How many pictures will come.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Which columns of tables are read, and what of archives.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The next pictures; none after the last one.
    pub fn next_chunk(&mut self) -> Result<Vec<AdhocImage>> {
        loop {
            if let Some((path, row, pictures)) = &mut self.open {
                let mut chunk = Vec::new();
                let mut bytes = 0;
                while chunk.len() < CHUNK && bytes < CHUNK_BYTES {
                    let Some(picture) = pictures.next() else { break };
                    let image = from_table(path, *row, picture?);
                    *row += 1;
                    bytes += image.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                    chunk.push(image);
                }
                if !chunk.is_empty() {
                    return Ok(chunk);
                }
                self.open = None;
            }
            let mut files = Vec::new();
            let mut bytes = 0;
            while let Some(Place::File(part)) = self.places.front() {
                bytes += part.bytes;
                if files.len() >= CHUNK || (bytes > CHUNK_BYTES && !files.is_empty()) {
                    break;
                }
                if let Some(Place::File(part)) = self.places.pop_front() {
                    files.push(part);
                }
            }
            if !files.is_empty() {
                return files.into_par_iter().map(Part::read).collect();
            }
            match self.places.pop_front() {
                Some(Place::Table(path, table)) => self.open = Some((path, 0, table.pictures()?)),
                _ => return Ok(Vec::new()),
            }
        }
    }
}

impl Part {
    fn read(self) -> Result<AdhocImage> {
        let path = &*self.path;
        match self.member {
            None => {
                let bytes = unless_of_machine(fs::read_at_most(path, MAX_FILE))?;
                Ok(AdhocImage { name: Name::of(path).into_string(), bytes })
            }
            Some((member, at)) => {
                let read = || {
                    let mut archive = fs::open(path)?;
                    archive.seek(SeekFrom::Start(at)).at("read", path)?;
                    let mut bytes = Vec::new();
                    archive.take(self.bytes).read_to_end(&mut bytes).at("read", path)?;
                    Ok(bytes)
                };
                let bytes = if self.bytes > MAX_FILE {
                    Err(format!("longer than {}", unit::bytes(MAX_FILE)))
                } else {
                    unless_of_machine(read())?
                };
                Ok(AdhocImage { name: format!("{}#{member}", Name::of(path)), bytes })
            }
        }
    }
}

/// What was read, or why not. If the machine fails, not the picture, to leave it out would be wrong.
fn unless_of_machine(read: fs::Result<Vec<u8>>) -> Result<std::result::Result<Vec<u8>, String>> {
    match read {
        Err(error) if error.is_of_machine() => Err(error.into()),
        read => Ok(read.map_err(|error| error.source.to_string())),
    }
}

fn from_table(table: &Path, row: usize, picture: FoundPicture) -> AdhocImage {
    let FoundPicture { bytes, path, .. } = picture;
    let bytes = match (bytes.is_empty(), path.is_empty()) {
        (false, _) => Ok(bytes),
        (true, true) => Err("the row has no image".to_owned()),
        (true, false) => {
            beside(table, &path).and_then(|path| fs::read_at_most(&path, MAX_FILE).map_err(|error| error.source.to_string()))
        }
    };
    let name = if path.is_empty() { format!("{}#{row}", Name::of(table)) } else { path };
    AdhocImage { name, bytes }
}

#[cfg(unix)]
fn as_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn as_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use ::tar::{Builder, Header};

    use super::*;
    use kinset_artifact::image_codec::encode_png;
    use kinset_artifact::images::{ImagesInfo, ImagesWriter, Picture};
    use kinset_artifact::meta::Meta;
    use kinset_artifact::parquet::{Column, ColumnKind, TableWriter};
    use kinset_artifact::pixels::Pixels;

    fn all(paths: &[PathBuf]) -> Vec<(String, usize)> {
        let mut images = AdhocImages::open(paths).unwrap();
        let (count, mut found) = (images.count(), Vec::new());
        loop {
            let chunk = images.next_chunk().unwrap();
            assert!(chunk.len() <= CHUNK);
            if chunk.is_empty() {
                break;
            }
            found.extend(chunk.into_iter().map(|image| (image.name, image.bytes.map_or(0, |bytes| bytes.len()))));
        }
        assert_eq!(found.len(), count);
        found
    }

    #[test]
    fn files_folders_and_tables_come_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, bytes) in [("b/2.png", 2), ("b/a/1.jpg", 1), ("b/notes.txt", 9), ("b/.hidden.png", 9), ("c.bin", 3)] {
            fs::create_folders(at(name).parent().unwrap()).unwrap();
            fs::write_atomic(&at(name), &vec![7; bytes]).unwrap();
        }
        fs::create_folders(&at("t")).unwrap();
        let mut writer = ImagesWriter::create(&at("t"), &ImagesInfo::new("")).unwrap();
        for shade in 0..300_u32 {
            writer.push(Picture::Raw(Pixels::new(2, 1, 1, vec![shade as u8, (shade / 256) as u8]))).unwrap();
        }
        writer.finish().unwrap();
        let table = at("t/images.parquet");
        let found = all(&[at("c.bin"), at("b"), table.clone(), at("c.bin")]);
        assert_eq!(found.len(), 304);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.rsplit('/').next().unwrap()).collect();
        assert_eq!(names[..4], ["c.bin", "2.png", "1.jpg", "images.parquet#0"]);
        assert_eq!((names[303], found[0].1, found[2].1), ("c.bin", 3, 1));
        assert!(found[3..303].iter().all(|(_, bytes)| *bytes > 40), "pictures of a table are files");
    }

    #[test]
    fn an_archive_gives_its_pictures_by_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let png = |value: u8| encode_png("x", &Pixels::new(2, 1, 1, vec![value; 2])).unwrap();
        let long = format!("{}/1.png", "a".repeat(150));
        let path = dir.path().join("x.tar");
        let mut archive = Builder::new(fs::create_new(&path).unwrap());
        for (name, bytes) in
            [(long.as_str(), png(1)), ("1.cls", b"cat".to_vec()), ("no ending", png(2)), ("b.png", b"x".to_vec())]
        {
            let mut header = Header::new_gnu();
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(::tar::EntryType::Link);
        header.set_size(0);
        archive.append_link(&mut header, "linked.png", "no ending").unwrap();
        archive.into_inner().unwrap();
        let mut images = AdhocImages::open(std::slice::from_ref(&path)).unwrap();
        assert_eq!((images.count(), images.reading().left.len()), (3, 1));
        assert!(images.reading().left[0].starts_with("2 other files"));
        let chunk = images.next_chunk().unwrap();
        let found: Vec<_> = chunk.iter().map(|image| (image.name.as_str(), image.bytes.clone().unwrap())).collect();
        let name = |member: &str| format!("{}#{member}", path.display());
        let [first, second, linked] = [long.as_str(), "no ending", "linked.png"].map(name);
        assert_eq!(found, [(first.as_str(), png(1)), (second.as_str(), png(2)), (linked.as_str(), png(2))]);
        assert!(images.next_chunk().unwrap().is_empty());
        // As one of many in a folder; and without any picture.
        assert_eq!(all(&[dir.path().to_owned()]).len(), 3);
        fs::write_atomic(&path, &[0; 1024]).unwrap();
        assert!(matches!(AdhocImages::open(std::slice::from_ref(&path)), Err(DatasetError::Empty { .. })));
        fs::write_atomic(&path, &[b"PK\x03\x04".as_slice(), &[7; 600]].concat()).unwrap();
        assert!(matches!(AdhocImages::open(&[path]), Err(DatasetError::OtherKind { kind: "a zip archive", .. })));
        let list = dir.path().join("list.txt");
        fs::write_atomic(&list, b"a\0.\0p\0n\0g\0").unwrap();
        assert!(AdhocImages::open(&[list]).unwrap_err().to_string().contains("UTF-16 text: save it as UTF-8"));
    }

    #[test]
    fn a_list_names_paths_and_a_table_needs_no_labels() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let png = encode_png("x", &Pixels::new(2, 1, 1, vec![7; 2])).unwrap();
        fs::write_atomic(&at("1.png"), &png).unwrap();
        let columns = [("image", ColumnKind::Text), ("label", ColumnKind::F64)];
        let mut writer = TableWriter::create(&at("t.parquet"), &columns, Meta::new("x")).unwrap();
        let paths = ["1.png", "gone.png", ""].map(str::to_owned).to_vec();
        writer.write(vec![Column::Text(paths), Column::F64(vec![0.5, f64::NAN, 7.0])]).unwrap();
        writer.finish().unwrap();
        let list = format!("\u{feff}{}\r\n\n{}\n", at("1.png").display(), at("t.parquet").display());
        fs::write_atomic(&at("list.txt"), list.as_bytes()).unwrap();
        let mut images = AdhocImages::open(&[at("list.txt")]).unwrap();
        assert_eq!(images.count(), 4);
        let found = [images.next_chunk().unwrap(), images.next_chunk().unwrap()].concat();
        let read: Vec<bool> = found.iter().map(|image| image.bytes.as_ref().is_ok_and(|bytes| *bytes == png)).collect();
        assert_eq!(read, [true, true, false, false]);
        assert_eq!(found[1].name, "1.png");
        assert_eq!(found[3].bytes, Err("the row has no image".to_owned()));
        assert!(images.reading().took[0].ends_with("column `image` (text)"));
    }

    #[test]
    fn nothing_there_and_no_pictures_are_errors_and_a_lost_file_is_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let error = AdhocImages::open(&[dir.path().join("x")]).unwrap_err();
        assert!(error.to_string().contains("look for pictures"));
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no such file or folder");
        fs::write_atomic(&dir.path().join("a.txt"), b"x").unwrap();
        assert!(matches!(AdhocImages::open(&[dir.path().to_owned()]), Err(DatasetError::Empty { .. })));
        let lost = dir.path().join("b.png");
        fs::write_atomic(&lost, b"x").unwrap();
        let mut images = AdhocImages::open(std::slice::from_ref(&lost)).unwrap();
        fs::remove(&lost).unwrap();
        assert!(images.next_chunk().unwrap()[0].bytes.is_err());
    }
}
