//! Arrow files: one file or stream, or the folder that `save_to_disk` of Hugging Face's `datasets` writes.
//!
//! `datasets` writes streams, pandas and pyarrow files, which are a mark, the same stream, and an index that is not needed to
//! read all of it. What is compressed inside is not read: `datasets` compresses nothing.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::root_as_message;

use super::batches::{BatchReader, guarded};
use crate::error::{ArtifactError, Result, display};
use kinset_base::file_kind::BEGINNING;
use kinset_base::fs::{self, At, File};

/// How a file begins that is not a stream.
const MARK: &[u8; 6] = b"ARROW1";
/// How a stream ends.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// What `save_to_disk` writes beside the data.
const STATE: &str = "state.json";
/// More zeros do not stand before the stream of a file.
const PADDING: u64 = 256;
/// A list of files, or the header of a message, is not longer.
const LONGEST_STATE: u64 = 1 << 26;

/// The files that are read for a path: itself, or what the folder of `save_to_disk` lists, in its order. None if it is a folder
/// of anything else.
///
/// # Errors
/// If the list cannot be read, or names files outside the folder, or an index of rows.
pub fn files(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    if !fs::metadata(path)?.is_some_and(|found| found.is_dir()) {
        return Ok(Some(vec![path.to_owned()]));
    }
    let state = path.join(STATE);
    if fs::metadata(&state)?.is_none() {
        return Ok(None);
    }
    let bad = |detail: String| ArtifactError::Json { path: display(&state), wanted: "saved data set", detail };
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read_at_most(&state, LONGEST_STATE)?).map_err(|e| bad(e.to_string()))?;
    if json["_indices_files"].as_array().is_some_and(|indices| !indices.is_empty()) {
        let what = "has an index of rows beside its data; save `dataset.flatten_indices()`".to_owned();
        return Err(ArtifactError::Unsupported { path: display(path), what });
    }
    let listed = json["_data_files"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Option<Vec<&str>> = listed.iter().map(|file| file["filename"].as_str()).collect();
    let names = names.filter(|names| !names.is_empty()).ok_or_else(|| bad("it lists no `_data_files`".to_owned()))?;
    if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        return Err(bad(format!("`{name}` is not the name of a file in its folder")));
    }
    Ok(Some(names.into_iter().map(|name| path.join(name)).collect()))
}

/// Arrow files of one schema, in order.
#[derive(Clone, Debug)]
pub(super) struct ArrowFiles {
    files: Vec<PathBuf>,
    schema: SchemaRef,
}

impl ArrowFiles {
    /// Opens the files of a path, see [`files`], and reads the schema of the first.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let Some(files) = files(path)? else {
            let what = format!("is a folder without `{STATE}`, so `save_to_disk` did not write it");
            return Err(ArtifactError::Unsupported { path: display(path), what });
        };
        let schema = start(&files[0], None)?.schema();
        Ok(Self { files, schema })
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The entry of the schema's metadata under a key: `huggingface`, `pandas`.
    pub(super) fn entry(&self, key: &str) -> Option<&str> {
        self.schema.metadata().get(key).map(String::as_str)
    }

    /// How many rows there are: of the messages only the headers are read.
    pub(super) fn rows(&self) -> Result<usize> {
        self.files.iter().map(|path| rows(path)).sum()
    }

    /// Begins to read some columns, by their ascending places, at most so many rows at a time.
    pub(super) fn columns(&self, places: Vec<usize>, rows: usize) -> BatchReader {
        let mut files = self.files.clone().into_iter();
        let schema = self.schema.clone();
        let mut open: Option<StreamReader<BufReader<File>>> = None;
        let mut rest: Option<RecordBatch> = None;
        let next = move || loop {
            if let Some(batch) = rest.take() {
                let now = batch.num_rows().min(rows);
                rest = (batch.num_rows() > now).then(|| batch.slice(now, batch.num_rows() - now));
                return Some(Ok(batch.slice(0, now)));
            }
            match open.as_mut().and_then(Iterator::next) {
                Some(Ok(batch)) => rest = Some(batch),
                Some(Err(e)) => return Some(Err(e)),
                None => {
                    let path = files.next()?;
                    let stream = match start(&path, Some(places.clone())) {
                        Ok(stream) => stream,
                        Err(e) => return Some(Err(ArrowError::ExternalError(Box::new(e)))),
                    };
                    let same = |(found, place): (&std::sync::Arc<arrow::datatypes::Field>, &usize)| {
                        let wanted = schema.field(*place);
                        (found.name(), found.data_type()) == (wanted.name(), wanted.data_type())
                    };
                    if !stream.schema().fields().iter().zip(&places).all(same) {
                        let detail = format!("the columns of `{}` are not those of the first file", display(&path));
                        return Some(Err(ArrowError::SchemaError(detail)));
                    }
                    open = Some(stream);
                }
            }
        };
        BatchReader::new(self.files.first().map_or(Path::new(""), PathBuf::as_path), std::iter::from_fn(next))
    }
}

/// The rows of a file or stream. A message is its length, a header of that length, and a body whose length the header says.
fn rows(path: &Path) -> Result<usize> {
    let mut file = fs::open(path)?;
    let bytes = file.metadata().at("look at", path)?.len();
    guarded(path, || {
        let cut = || io::Error::other("a message is longer than the file");
        let mut number = [0; 4];
        file.read_exact(&mut number)?;
        let mut at = 0;
        if number == MARK[..4] {
            // Zeros fill up to where the stream begins.
            let mut padding = Vec::new();
            file.seek(SeekFrom::Start(MARK.len() as u64))?;
            file.by_ref().take(PADDING).read_to_end(&mut padding)?;
            at = (MARK.len() + padding.iter().take_while(|byte| **byte == 0).count()) as u64;
        }
        let mut rows = 0;
        while at + 4 <= bytes {
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut number)?;
            at += 4;
            if number == [0xff; 4] {
                file.read_exact(&mut number)?;
                at += 4;
            }
            let length = u64::from(u32::from_le_bytes(number));
            if length == 0 {
                break;
            }
            let body = at.checked_add(length).filter(|body| *body <= bytes && length <= LONGEST_STATE).ok_or_else(cut)?;
            let mut header = vec![0; length as usize];
            file.read_exact(&mut header)?;
            let message = root_as_message(&header).map_err(|e| io::Error::other(e.to_string()))?;
            let batch = message.header_as_record_batch().map_or(0, |batch| batch.length());
            rows += usize::try_from(batch).map_err(io::Error::other)?;
            at = u64::try_from(message.bodyLength()).ok().and_then(|length| body.checked_add(length)).ok_or_else(cut)?;
        }
        Ok::<_, io::Error>(rows)
    })
}

/// Opens a file or stream and reads its schema.
fn start(path: &Path, places: Option<Vec<usize>>) -> Result<StreamReader<BufReader<File>>> {
    let mut file = fs::open(path)?;
    let mut mark = Vec::new();
    file.by_ref().take(BEGINNING as u64).read_to_end(&mut mark).at("read", path)?;
    let is_file = mark.starts_with(MARK);
    if !is_file && !mark.is_empty() && !mark.starts_with(&END[..4]) {
        return Err(ArtifactError::NotTheForm { path: display(path), form: "Arrow", what: super::footer::looks_like(&mark) });
    }
    // The decoder takes a stream that is cut between two batches for a whole one.
    let mut end = [0; END.len()];
    let length = file.metadata().at("look at", path)?.len();
    if length >= (MARK.len() + END.len()) as u64 {
        file.seek(SeekFrom::End(-(end.len() as i64))).and_then(|_| file.read_exact(&mut end)).at("read", path)?;
    }
    if !(is_file && end.ends_with(MARK) || !is_file && end == END) {
        let detail = "its end is missing: writing or downloading it was not completed".to_owned();
        return Err(ArtifactError::Damaged { path: display(path), detail });
    }
    file.seek(SeekFrom::Start(if is_file { MARK.len() as u64 } else { 0 })).at("read", path)?;
    let mut source = BufReader::with_capacity(1 << 18, file);
    if is_file {
        // Zeros fill up to where the stream begins.
        while source.fill_buf().at("read", path)?.first() == Some(&0) {
            source.consume(1);
        }
    }
    guarded(path, || StreamReader::try_new(source, places))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::ipc::writer::{FileWriter, StreamWriter};

    use super::*;

    fn batch(numbers: std::ops::Range<i64>) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
        RecordBatch::try_from_iter([("other", numbers.clone()), ("n", numbers)]).unwrap()
    }

    fn stream(batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
        }
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    }

    fn read(path: &Path) -> Result<Vec<i64>> {
        let mut reader = ArrowFiles::open(path)?.columns(vec![1], 3);
        let mut all = Vec::new();
        let take = |batch: &RecordBatch| {
            assert!(batch.num_rows() <= 3);
            let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            Ok(column.values().to_vec())
        };
        while let Some(rows) = reader.next(take)? {
            all.extend(rows);
        }
        Ok(all)
    }

    #[test]
    fn streams_files_and_saved_folders_are_read_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write_atomic(&path("a.arrow"), &stream(&[batch(0..4), batch(4..5)])).unwrap();
        fs::write_atomic(&path("b.arrow"), &stream(&[batch(5..7)])).unwrap();
        assert_eq!(read(&path("a.arrow")).unwrap(), (0..5).collect::<Vec<_>>());
        let mut writer = FileWriter::try_new(Vec::new(), &batch(0..1).schema()).unwrap();
        writer.write(&batch(0..9)).unwrap();
        writer.finish().unwrap();
        fs::write_atomic(&path("f.arrow"), &writer.into_inner().unwrap()).unwrap();
        assert_eq!(read(&path("f.arrow")).unwrap(), (0..9).collect::<Vec<_>>());
        assert!(read(dir.path()).unwrap_err().to_string().contains("without `state.json`"));
        let state = |text: &str| fs::write_atomic(&path("state.json"), text.as_bytes()).unwrap();
        state(r#"{"_data_files": [{"filename": "b.arrow"}, {"filename": "a.arrow"}]}"#);
        assert_eq!(read(dir.path()).unwrap(), [5, 6, 0, 1, 2, 3, 4]);
        state(r#"{"_data_files": [{"filename": "../b.arrow"}]}"#);
        assert!(read(dir.path()).unwrap_err().to_string().contains("`../b.arrow` is not the name of a file in its folder"));
        state(r#"{"_data_files": [{"filename": "b.arrow"}], "_indices_files": [{"filename": "i.arrow"}]}"#);
        assert!(read(dir.path()).unwrap_err().to_string().contains("flatten_indices"));
    }

    #[test]
    fn files_that_are_cut_or_changed_never_panic() {
        let dir = tempfile::tempdir().unwrap();
        let (path, whole) = (dir.path().join("x.arrow"), stream(&[batch(0..8)]));
        for place in (0..whole.len()).step_by(3) {
            fs::write_atomic(&path, &whole[..place]).unwrap();
            assert!(read(&path).is_err(), "cut at {place}");
            let mut flipped = whole.clone();
            flipped[place] ^= 1 << (place % 8);
            fs::write_atomic(&path, &flipped).unwrap();
            let _ = read(&path);
        }
        fs::write_atomic(&path, b"<!DOCTYPE html>").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("it is an HTML page"));
    }
}
