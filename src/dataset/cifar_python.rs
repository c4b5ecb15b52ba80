//! CIFAR's Python version, which is what torchvision keeps on disk: per file a pickled dictionary with `data`, `[images, 3072]`
//! bytes of red, green and blue planes, and `labels` (CIFAR-10) or `fine_labels` and `coarse_labels` (CIFAR-100).
//!
//! The numbers are those of the binary version, in the same order. Nothing in a file is executed (`base/pickle`).
//!
//! Source: A. Krizhevsky, "The CIFAR-10 and CIFAR-100 data sets", section "Python version".

use super::cifar::{Form, SIDE};
use super::error::{DatasetError, Result};
use super::planes::{Order, color, shown};
use super::record::{Content, DigestOf, Labels, Opened, Reader, Record, Records};
use kinset_artifact::pixels::Pixels;
use kinset_base::fs;
use kinset_base::pickle::value::{Pickled, Value};
use kinset_base::raw_file::RawFile;

/// A file has 50,000 images at most; twice that is none of CIFAR's.
const LARGEST: u64 = 1 << 28;

/// How the files are to be read.
pub(super) struct Plan {
    pub(super) form: Form,
    pub(super) names: Labels,
    /// How many classes there are.
    pub(super) classes: usize,
    /// Images per file, as published.
    pub(super) counts: Vec<u64>,
}

impl Reader for Plan {
    fn open(&self, files: &[RawFile], _: &mut DigestOf) -> Result<Opened> {
        let count = self.counts.iter().sum::<u64>() as usize;
        let ahead: Vec<(RawFile, u64)> = files.iter().cloned().zip(self.counts.iter().copied()).rev().collect();
        let records = Cifar { ahead, form: self.form, classes: self.classes, open: None };
        Ok(Opened { labels: self.names.clone(), count, records: Box::new(records) })
    }
}

/// The records of several files, the first one last in the list.
struct Cifar {
    ahead: Vec<(RawFile, u64)>,
    form: Form,
    classes: usize,
    open: Option<Batch>,
}

/// A file in memory, and how much of it was given.
struct Batch {
    name: String,
    planes: Vec<u8>,
    labels: Vec<i64>,
    row: usize,
}

impl Batch {
    fn read(file: &RawFile, form: Form, count: u64) -> Result<Self> {
        let name = shown(&file.path);
        let wrong = |problem: String| DatasetError::Content { file: name.clone(), problem };
        let bytes = fs::read_at_most(&file.path, LARGEST)?;
        let pickled = Pickled::read(&bytes).map_err(|error| wrong(error.to_string()))?;
        drop(bytes);
        let key = match (form.labels, form.label) {
            (1, _) => "labels",
            (_, 0) => "coarse_labels",
            _ => "fine_labels",
        };
        let entry = |wanted: &str| {
            let mut entries = pickled.entries(pickled.root).ok_or_else(|| wrong("it holds no dictionary".into()))?;
            entries.find(|(name, _)| *name == wanted).map(|(_, id)| id).ok_or_else(|| wrong(format!("it has no `{wanted}`")))
        };
        let area = 3 * SIDE * SIDE;
        let Value::Array(array) = pickled.get(entry("data")?) else { return Err(wrong("`data` is no array".into())) };
        let planes = array.data.and_then(|at| pickled.bytes(at)).unwrap_or_default();
        if array.shape != [count, area as u64] || array.code != "u1" || array.fortran || planes.len() != count as usize * area {
            let found = format!("{:?} of `{}`, {} bytes", array.shape, array.code, planes.len());
            return Err(wrong(format!("`data` should be [{count}, {area}] bytes, found {found}")));
        }
        let (Value::List(ids) | Value::Tuple(ids)) = pickled.get(entry(key)?) else {
            return Err(wrong(format!("`{key}` is no list")));
        };
        let label = |&id: &u32| match pickled.get(id) {
            Value::Int(label) => Ok(*label),
            _ => Err(wrong(format!("`{key}` holds what is no whole number"))),
        };
        let labels = ids.iter().map(label).collect::<Result<Vec<i64>>>()?;
        if labels.len() as u64 != count {
            return Err(wrong(format!("`{key}` has {} entries for {count} images", labels.len())));
        }
        let planes = planes.to_vec();
        Ok(Self { name, planes, labels, row: 0 })
    }

    fn next(&mut self, classes: usize) -> Result<Option<(Pixels, i32)>> {
        let Some(&label) = self.labels.get(self.row) else { return Ok(None) };
        let row = self.row;
        self.row += 1;
        let fits = i32::try_from(label).ok().filter(|&label| usize::try_from(label).is_ok_and(|label| label < classes));
        let Some(fits) = fits else {
            return Err(DatasetError::Label { file: self.name.clone(), row: row as u64, found: label, classes });
        };
        let area = 3 * SIDE * SIDE;
        Ok(Some((color(&self.planes[row * area..(row + 1) * area], SIDE, Order::Rows), fits)))
    }
}

impl Cifar {
    fn step(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some(batch) = &mut self.open
                && let Some((pixels, label)) = batch.next(self.classes)?
            {
                let (content, label) = (Content::Raw(pixels), Some(label));
                return Ok(Some(Record { content, width: SIDE, height: SIDE, channels: 3, path: None, label }));
            }
            // The next file is read when the one before has gone: there is never more than one in memory.
            self.open = None;
            let Some((file, count)) = self.ahead.pop() else { return Ok(None) };
            self.open = Some(Batch::read(&file, self.form, count)?);
        }
    }
}

impl Iterator for Cifar {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.step();
        if result.is_err() {
            (self.open, self.ahead) = (None, Vec::new());
        }
        result.transpose()
    }
}

impl Records for Cifar {}

#[cfg(test)]
mod tests {
    use super::super::cifar::{HUNDRED, TEN};
    use super::*;
    use crate::file_digest;

    /// What `pickle.dumps(…, protocol=2)` writes of CIFAR's dictionary, in Python 2's way.
    fn pickled(rows: u32, data: &[u8], lists: &[(&str, &[u8])]) -> Vec<u8> {
        let text = |text: &str| [b"U", &[text.len() as u8][..], text.as_bytes()].concat();
        let mut bytes = b"\x80\x02}q\x01(".to_vec();
        bytes.extend(text("batch_label"));
        bytes.extend(text("training batch 1 of 5"));
        for (name, labels) in lists {
            bytes.extend(text(name));
            bytes.extend(b"](");
            labels.iter().for_each(|&label| bytes.extend([b'K', label]));
            bytes.push(b'e');
        }
        bytes.extend(text("data"));
        bytes.extend(b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R(K\x01J");
        bytes.extend(rows.to_le_bytes());
        bytes.extend(
            b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T",
        );
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(data);
        bytes.extend(b"tbu.");
        bytes
    }

    fn image(number: u8) -> Vec<u8> {
        (0..3).flat_map(|channel| vec![number + channel; SIDE * SIDE]).collect()
    }

    fn read(form: Form, bytes: &[u8], count: u64, classes: usize) -> Result<Vec<Record>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data_batch_1");
        fs::write_atomic(&path, bytes).unwrap();
        let file = RawFile { name: "data_batch_1".into(), path, bytes: bytes.len() as u64 };
        let plan = Plan { form, names: Labels::Numbered, classes, counts: vec![count] };
        plan.open(&[file], &mut file_digest)?.records.collect()
    }

    #[test]
    fn images_and_the_labels_that_are_asked_for_come_out() {
        let data = [image(200), image(10)].concat();
        let ten = read(TEN, &pickled(2, &data, &[("labels", &[3, 0])]), 2, 10).unwrap();
        assert_eq!(ten.iter().map(|record| record.label).collect::<Vec<_>>(), [Some(3), Some(0)]);
        let Content::Raw(pixels) = &ten[0].content else { panic!("pixels come raw") };
        assert_eq!(pixels.data[..4], [200, 201, 202, 200]);
        let hundred = pickled(2, &data, &[("fine_labels", &[77, 5]), ("coarse_labels", &[7, 1])]);
        assert_eq!(read(HUNDRED, &hundred, 2, 100).unwrap()[0].label, Some(77));
        assert_eq!(read(super::super::cifar::TWENTY, &hundred, 2, 20).unwrap()[0].label, Some(7));
    }

    #[test]
    fn what_is_not_the_published_file_is_refused_in_words() {
        let data = [image(200), image(10)].concat();
        let said = |bytes: &[u8], count| read(TEN, bytes, count, 10).map(|_| ()).unwrap_err().to_string();
        let whole = pickled(2, &data, &[("labels", &[3, 0])]);
        assert!(said(&whole, 3).contains("[3, 3072] bytes"), "{}", said(&whole, 3));
        assert!(said(&pickled(2, &data[1..], &[("labels", &[3, 0])]), 2).contains("6143 bytes"));
        assert!(said(&pickled(2, &data, &[("labels", &[3])]), 2).contains("1 entries for 2 images"));
        assert!(said(&pickled(2, &data, &[("labels", &[3, 10])]), 2).contains("10"));
        assert!(said(&pickled(2, &data, &[]), 2).contains("no `labels`"));
        assert!(said(b"cos\nsystem\n(S'true'\ntR.", 2).contains("`os.system`"));
        for length in (0..whole.len()).step_by(97) {
            assert!(read(TEN, &whole[..length], 2, 10).is_err(), "{length}");
        }
    }
}
