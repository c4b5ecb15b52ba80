//! Tar shards in WebDataset's layout: files that follow each other and share a name up to its first dot are one sample,
//! `0042.jpg` with `0042.cls`.
//!
//! A sample's picture is its `jpg`, `jpeg`, `png` or `webp`; its label is the whole number in its `cls`. Either every sample has a
//! label or none is taken for labelled. Whatever else a sample has is not read. Files and splits are as in `shards`; the order is
//! that of the shards. Compressed archives are not read: pictures are compressed already.
//!
//! Each shard is read twice: from header to header for the number of pictures, then from front to back.

use std::collections::BTreeMap;
use std::io::Read;

use tar::{Archive, EntryType};

use super::entry::{Entry, Format, Request};
use super::error::{DatasetError, Result};
use super::reader::{DatasetFiles, DatasetReader, DigestOf, Labels, Record};
use super::shards::{Form, Shards};
use super::skip_broken::{SkipBroken, Tried, try_chunks};
use kinset_base::fs;
use kinset_base::raw_file::RawFile;

const FORM: Form = Form { ending: "tar", what: "tar file", alone: "data.tar" };
/// Pictures that are decoded together. Fixed, so that the thread count decides nothing.
const CHUNK: usize = 64;
/// A picture is not longer.
const LONGEST_PICTURE: u64 = 1 << 28;
/// A label is not longer.
const LONGEST_LABEL: u64 = 32;
/// More classes than this are no classes.
const MAX_CLASSES: i64 = 1 << 20;

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
        &["skip_broken"]
    }

    fn locate(&self, request: &Request<'_>) -> Result<DatasetFiles> {
        let Shards { root, files, ignored } = Shards::find(request, &FORM)?;
        let (place, skip_broken) = (root.display().to_string(), request.source.skip_broken);
        let open = move |files: &[RawFile], _: &mut DigestOf| {
            let (labels, count) = look_through(files)?;
            let labelled = labels == Labels::Numbered;
            let shards: Vec<Shard> = files.iter().map(|file| Shard { file: file.clone(), at: 0 }).collect();
            let tried = try_chunks(shards.into_iter().flat_map(move |shard| shard.chunks(labelled)), |raw| Ok(attempt(raw)));
            Ok(DatasetReader { labels, count, records: Box::new(SkipBroken::new(tried, place.clone(), skip_broken)) })
        };
        Ok(DatasetFiles { ignored, ..DatasetFiles::new(files, Some(root), open) })
    }
}

/// What is known of the labels, and how many pictures there are.
fn look_through(files: &[RawFile]) -> Result<(Labels, usize)> {
    let (mut pictures, mut labelled) = (0_usize, 0_usize);
    for file in files {
        let (some, with) = count(file)?;
        (pictures, labelled) = (pictures + some, labelled + with);
    }
    let labels = match labelled {
        0 => Labels::Absent { why: "no sample has a file `.cls`".into() },
        all if all == pictures => Labels::Numbered,
        some => Labels::Absent { why: format!("only {some} of {pictures} samples have a file `.cls`") },
    };
    Ok((labels, pictures))
}

/// What a file of a sample is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Picture,
    Label,
}

/// The sample's name and the part that a file is; none for files that are not read.
fn part_of(path: &str) -> Option<(&str, Part)> {
    let file = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + path[file..].find('.')?;
    let part = match path[dot + 1..].to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" | "png" | "webp" => Part::Picture,
        "cls" => Part::Label,
        _ => return None,
    };
    (dot > file).then_some((&path[..dot], part))
}

fn damaged(file: &RawFile, source: std::io::Error) -> DatasetError {
    DatasetError::Archive { file: file.path.display().to_string(), source }
}

/// Pictures of a shard, and those of them whose sample has a label.
fn count(file: &RawFile) -> Result<(usize, usize)> {
    let mut archive = Archive::new(fs::open(&file.path)?);
    let mut parts: BTreeMap<String, (usize, bool)> = BTreeMap::new();
    for entry in archive.entries_with_seek().map_err(|error| damaged(file, error))? {
        let entry = entry.map_err(|error| damaged(file, error))?;
        if !is_file(entry.header().entry_type()) {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if let Some((sample, part)) = part_of(&path) {
            let found = parts.entry(sample.to_owned()).or_default();
            match part {
                Part::Picture => found.0 += 1,
                Part::Label => found.1 = true,
            }
        }
    }
    let labelled = parts.values().filter(|(_, label)| *label).map(|(pictures, _)| pictures).sum();
    Ok((parts.values().map(|(pictures, _)| pictures).sum(), labelled))
}

fn is_file(kind: EntryType) -> bool {
    matches!(kind, EntryType::Regular | EntryType::Continuous)
}

/// A picture as it lies in a shard.
struct Raw {
    name: String,
    path: String,
    bytes: std::result::Result<Vec<u8>, String>,
    label: Option<i32>,
}

/// A shard that is read from front to back. `tar` lends its entries, so the place is kept and the archive opened there again.
struct Shard {
    file: RawFile,
    at: u64,
}

impl Shard {
    /// Its pictures, chunk by chunk.
    fn chunks(mut self, labelled: bool) -> impl Iterator<Item = Result<Vec<Raw>>> {
        std::iter::from_fn(move || {
            let chunk = self.chunk(labelled);
            (!matches!(&chunk, Ok(pictures) if pictures.is_empty())).then_some(chunk)
        })
    }

    /// The next pictures with their labels; none at the end.
    fn chunk(&mut self, labelled: bool) -> Result<Vec<Raw>> {
        let wrong = |error| damaged(&self.file, error);
        let mut source = fs::open(&self.file.path)?;
        std::io::Seek::seek(&mut source, std::io::SeekFrom::Start(self.at)).map_err(wrong)?;
        let mut archive = Archive::new(std::io::BufReader::with_capacity(1 << 20, source));
        let (mut pictures, mut labels): (Vec<(String, Raw)>, BTreeMap<String, i32>) = (Vec::new(), BTreeMap::new());
        let (mut last, mut next) = (String::new(), self.at);
        for entry in archive.entries().map_err(wrong)? {
            let mut entry = entry.map_err(wrong)?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let begins = self.at + entry.raw_header_position();
            let kind = entry.header().entry_type();
            if kind == EntryType::GNUSparse {
                return Err(wrong(std::io::Error::other(format!("`{path}` is a sparse file"))));
            }
            let whole = part_of(&path).filter(|_| is_file(kind));
            if let Some((sample, part)) = whole {
                // A sample is never cut in two: its label may come before or after its picture.
                if pictures.len() >= CHUNK && sample != last {
                    // `next` is the end of the file before: a long name would stand between the two.
                    break;
                }
                sample.clone_into(&mut last);
                let most = if part == Part::Picture { LONGEST_PICTURE } else { LONGEST_LABEL };
                let mut bytes = Vec::new();
                entry.by_ref().take(most + 1).read_to_end(&mut bytes).map_err(wrong)?;
                let long = bytes.len() as u64 > most;
                match part {
                    Part::Label if labelled => drop(labels.insert(last.clone(), self.label(&path, &bytes, long)?)),
                    Part::Label => {}
                    Part::Picture => {
                        let bytes = if long { Err(format!("it is longer than {most} bytes")) } else { Ok(bytes) };
                        let name = format!("{}: {path}", self.file.name);
                        pictures.push((last.clone(), Raw { name, path, bytes, label: None }));
                    }
                }
            }
            next = begins + 512 + entry.size().next_multiple_of(512);
        }
        self.at = next;
        let with_label = |(sample, raw): (String, Raw)| Raw { label: labels.get(&sample).copied(), ..raw };
        Ok(pictures.into_iter().map(with_label).collect())
    }

    fn label(&self, path: &str, bytes: &[u8], long: bool) -> Result<i32> {
        let text = String::from_utf8_lossy(bytes);
        let found = text.trim().parse::<i64>().ok().filter(|label| !long && (0..MAX_CLASSES).contains(label));
        found.map(|label| label as i32).ok_or_else(|| DatasetError::Content {
            file: self.file.path.display().to_string(),
            problem: format!("`{path}` should contain an integer from 0, found `{}`", text.trim()),
        })
    }
}

fn attempt(raw: Raw) -> Tried {
    let Raw { name, path, bytes, label } = raw;
    let result = bytes.and_then(|bytes| Record::encoded(bytes, None, Some(path), label).map_err(|why| why.to_string()));
    (name, result)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tar::{Builder, Header};

    use super::*;
    use crate::file_digest;
    use crate::reader::Content;
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
        assert_eq!(labels, Labels::Absent { why: "only 2 of 3 samples have a file `.cls`".into() });
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
        let mut files = samples(0..2);
        files[0].1 = b"cat".to_vec();
        shard(&path, &files);
        let error = read(&source).unwrap_err().to_string();
        assert!(error.contains("`set/000.cls` should contain an integer from 0, found `cat`"), "{error}");
        shard(&path, &samples(0..5));
        let whole = fs::read(&path).unwrap();
        for length in (1..whole.len() - 1024).step_by(301) {
            fs::write_atomic(&path, &whole[..length]).unwrap();
            // Cut between two files a shard is a shorter one; cut within one it is damaged.
            let _ = read(&source);
        }
        fs::write_atomic(&path, &whole[..700]).unwrap();
        assert!(read(&source).is_err());
    }

    #[test]
    fn names_say_what_a_file_is() {
        assert_eq!(part_of("a/b.c/0001.jpg"), Some(("a/b.c/0001", Part::Picture)));
        assert_eq!(part_of("0001.cls"), Some(("0001", Part::Label)));
        for other in ["0001.seg.png", "0001", ".jpg", "a/.png", "x.txt"] {
            assert_eq!(part_of(other), None, "{other}");
        }
    }
}
