//! CIFAR's Python version, which is what torchvision keeps on disk: per file a pickled dictionary with `data`, `[images, 3072]`
//! bytes of red, green and blue planes, and `labels` (CIFAR-10) or `fine_labels` and `coarse_labels` (CIFAR-100).
//!
//! The numbers are those of the binary version, in the same order. Nothing in a file is executed (`base/pickle`).
//!
//! Source: A. Krizhevsky, "The CIFAR-10 and CIFAR-100 data sets", section "Python version".

use super::cifar::{Cifar, SIDE};
use super::error::{DatasetError, Result};
use super::fixed_size_records::{Order, color};
use super::reader::{Record, checked_label, open_lazily};
use kinset_base::fs;
use kinset_base::pickle::value::{Pickled, Value};
use kinset_base::raw_file::RawFile;

/// A file has 50,000 images at most; twice that is none of CIFAR's.
const LARGEST: u64 = 1 << 28;
/// Bytes of an image.
const IMAGE: usize = 3 * SIDE * SIDE;

/// The images of a file. It is read when its turn has come: there is never more than one in memory.
pub(super) fn records(form: Cifar, file: RawFile, count: u64, classes: usize) -> impl Iterator<Item = Result<Record>> + Send {
    open_lazily(move || {
        let (planes, labels) = read(form, &file, count)?;
        Ok((0..).zip(labels).map(move |(row, label)| {
            let label = checked_label(&file.path.display().to_string(), row as u64, label, classes)?;
            let planes = &planes[row * IMAGE..(row + 1) * IMAGE];
            Ok(Record::raw(color(planes, SIDE, Order::Rows), Some(label)))
        }))
    })
}

/// All planes and labels of a file.
fn read(form: Cifar, file: &RawFile, count: u64) -> Result<(Vec<u8>, Vec<i64>)> {
    let wrong = |problem: String| DatasetError::Content { file: file.path.display().to_string(), problem };
    let bytes = fs::read_at_most(&file.path, LARGEST)?;
    let pickled = Pickled::read(&bytes).map_err(|error| wrong(error.to_string()))?;
    drop(bytes);
    let entry = |wanted: &str| {
        let mut entries = pickled.entries(pickled.root).ok_or_else(|| wrong("it contains no dictionary".into()))?;
        entries.find(|(name, _)| *name == wanted).map(|(_, id)| id).ok_or_else(|| wrong(format!("it has no `{wanted}`")))
    };
    let Value::Array(array) = pickled.get(entry("data")?) else { return Err(wrong("`data` is not an array".into())) };
    let planes = array.data.and_then(|at| pickled.bytes(at)).unwrap_or_default();
    if array.shape != [count, IMAGE as u64] || array.code != "u1" || array.fortran || planes.len() != count as usize * IMAGE {
        let found = format!("{:?} of `{}`, {} bytes", array.shape, array.code, planes.len());
        return Err(wrong(format!("`data` should be [{count}, {IMAGE}] bytes, found {found}")));
    }
    let key = form.key;
    let (Value::List(ids) | Value::Tuple(ids)) = pickled.get(entry(key)?) else {
        return Err(wrong(format!("`{key}` is not a list")));
    };
    let label = |&id: &u32| match pickled.get(id) {
        Value::Int(label) => Ok(*label),
        _ => Err(wrong(format!("`{key}` contains a value that is not an integer"))),
    };
    let labels = ids.iter().map(label).collect::<Result<Vec<i64>>>()?;
    if labels.len() as u64 != count {
        return Err(wrong(format!("`{key}` has {} entries for {count} images", labels.len())));
    }
    Ok((planes.to_vec(), labels))
}

#[cfg(test)]
mod tests {
    use super::super::cifar::{HUNDRED, TEN, TWENTY};
    use super::*;
    use crate::reader::Content;

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

    fn read(form: Cifar, bytes: &[u8], count: u64, classes: usize) -> Result<Vec<Record>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data_batch_1");
        fs::write_atomic(&path, bytes).unwrap();
        let file = RawFile { name: "data_batch_1".into(), path, bytes: bytes.len() as u64, identity: None, quiet: false };
        records(form, file, count, classes).collect()
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
        assert_eq!(read(TWENTY, &hundred, 2, 20).unwrap()[0].label, Some(7));
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
