//! Ad-hoc images: files, folders and Parquet tables that are looked at once, from front to back, and not kept.
//!
//! Unlike a [`Source`](super::Source) these are no data set: nothing is hashed first, the order is that of the names, and a picture
//! that cannot be read is an answer like any other. In memory is one chunk of encoded pictures.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::error::{DatasetError, Result};
use super::folder;
use super::list_files::FileList;
use kinset_artifact::parquet::pictures::{FoundPicture, PictureFile, Pictures};
use kinset_base::fs;

/// Pictures of a chunk at most …
const CHUNK: usize = 256;
/// … and their bytes, unless the first one alone has more.
const CHUNK_BYTES: u64 = 64 << 20;
/// Longer files are no pictures.
const MAX_FILE: u64 = 1 << 28;

#[derive(Clone, Debug)]
pub struct AdhocImage {
    /// The file as it was named or found; of a table the picture's path there, or the table and the row.
    pub name: String,
    /// Its bytes, or why there are none.
    pub bytes: std::result::Result<Vec<u8>, String>,
}

#[derive(Debug)]
enum Place {
    File(PathBuf, u64),
    Table(PathBuf, Box<PictureFile>),
}

pub struct AdhocImages {
    places: VecDeque<Place>,
    open: Option<(PathBuf, usize, Pictures)>,
    count: usize,
}

impl std::fmt::Debug for AdhocImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdhocImages").field("count", &self.count).finish_non_exhaustive()
    }
}

impl AdhocImages {
    /// Looks for pictures: a folder is searched for image files and Parquet tables, a file that ends in `.parquet` is a table, any
    /// other is a picture.
    ///
    /// # Errors
    /// A path where nothing is; a folder without pictures; a table without a column of pictures.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut places = VecDeque::new();
        let mut count = 0;
        let mut add = |path: PathBuf, bytes: u64| -> Result<()> {
            if is_table(&path) {
                let table = PictureFile::open(&path, None, None)?;
                count += table.rows();
                places.push_back(Place::Table(path, Box::new(table)));
            } else {
                count += 1;
                places.push_back(Place::File(path, bytes));
            }
            Ok(())
        };
        for path in paths {
            match fs::metadata(path)? {
                None => {
                    let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
                    return Err(fs::FileError::new("look for pictures at", path, gone).into());
                }
                Some(found) if found.is_dir() => {
                    let mut inside = FileList::default();
                    inside.add(path, "")?;
                    let before = inside.files.len();
                    let mut taken = 0;
                    for file in inside.files {
                        if is_table(&file.path) || folder::is_image(&file.path)? {
                            add(file.path, file.bytes)?;
                            taken += 1;
                        }
                    }
                    if taken == 0 {
                        let others = format!("{before} other files");
                        return Err(DatasetError::Empty { folder: path.display().to_string(), others });
                    }
                }
                Some(found) => add(path.clone(), found.len())?,
            }
        }
        Ok(Self { places, open: None, count })
    }

    /// How many pictures will come.
    pub fn count(&self) -> usize {
        self.count
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
            while let Some(Place::File(_, length)) = self.places.front() {
                bytes += length;
                if files.len() >= CHUNK || (bytes > CHUNK_BYTES && !files.is_empty()) {
                    break;
                }
                if let Some(Place::File(path, _)) = self.places.pop_front() {
                    files.push(path);
                }
            }
            if !files.is_empty() {
                return Ok(files.par_iter().map(|path| read_file(path)).collect());
            }
            match self.places.pop_front() {
                Some(Place::Table(path, table)) => self.open = Some((path, 0, table.pictures()?)),
                _ => return Ok(Vec::new()),
            }
        }
    }
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet"))
}

fn read_file(path: &Path) -> AdhocImage {
    let bytes = fs::read_at_most(path, MAX_FILE).map_err(|error| error.source.to_string());
    AdhocImage { name: path.display().to_string(), bytes }
}

fn from_table(path: &Path, row: usize, picture: FoundPicture) -> AdhocImage {
    let name = if picture.path.is_empty() { format!("{}#{row}", path.display()) } else { picture.path };
    let bytes = if picture.bytes.is_empty() { Err("the table has no bytes of it".to_owned()) } else { Ok(picture.bytes) };
    AdhocImage { name, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_artifact::images::{ImagesInfo, ImagesWriter, Picture};
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
    fn nothing_there_and_no_pictures_are_errors_and_a_lost_file_is_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        assert!(AdhocImages::open(&[dir.path().join("x")]).unwrap_err().to_string().contains("look for pictures"));
        fs::write_atomic(&dir.path().join("a.txt"), b"x").unwrap();
        assert!(matches!(AdhocImages::open(&[dir.path().to_owned()]), Err(DatasetError::Empty { .. })));
        let lost = dir.path().join("b.png");
        fs::write_atomic(&lost, b"x").unwrap();
        let mut images = AdhocImages::open(std::slice::from_ref(&lost)).unwrap();
        fs::remove(&lost).unwrap();
        assert!(images.next_chunk().unwrap()[0].bytes.is_err());
    }
}
