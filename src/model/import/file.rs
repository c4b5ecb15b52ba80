//! Containers of weights, and where the numbers lie in them: PyTorch's zip, its legacy stream, safetensors.
//!
//! - **Zip** (PyTorch from 1.6): `…/data.pkl` and one stored entry `…/data/KEY` per storage.
//! - **Legacy stream** (before, and what the authors' files are): the pickles of a magic number, of 1001 and of the machine's
//!   byte order; the pickle of the object; the pickle of a list of keys; then per key a count (8 bytes) and raw numbers.
//! - **Safetensors**: a JSON header, then raw numbers.
//!
//! Memory: the file, the values of its pickle (which are counted), and the numbers of one network.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use zip::{CompressionMethod, ZipArchive};

use super::error::ImportError;
use kinset_artifact::encoder::Weights;
use kinset_base::file_kind::{BEGINNING, file_kind};
use kinset_base::pickle::PickleError;
use kinset_base::pickle::value::{Number, Pickled, Storage, Tensor, Value};

type Result<T> = std::result::Result<T, ImportError>;

/// The pickle of 0x1950a86a20f9469cfc6c, with which the legacy stream begins.
const MAGIC: [u8; 15] = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// The longest pickle that is accepted.
const LONGEST_PICKLE: u64 = 1 << 26;

/// A file that was opened, its numbers still where they were.
#[derive(Debug)]
pub(super) enum Opened<'a> {
    /// What a pickle says.
    Pickled(Checkpoint<'a>),
    Named(SafeTensors<'a>),
}

impl<'a> Opened<'a> {
    /// Tells the format by the first bytes, and reads all but the numbers.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self> {
        if bytes.starts_with(b"PK\x03\x04") {
            return Ok(Self::Pickled(Checkpoint::from_zip(bytes)?));
        }
        if bytes.starts_with(&MAGIC) {
            return Ok(Self::Pickled(Checkpoint::from_stream(bytes)?));
        }
        // A header's length, then JSON.
        if bytes.get(8) == Some(&b'{') {
            return SafeTensors::deserialize(bytes).map(Self::Named).map_err(|error| ImportError::Header(error.to_string()));
        }
        if let Some(kind) = file_kind(&bytes[..bytes.len().min(BEGINNING)]) {
            return Err(ImportError::OtherKind { kind: kind.to_owned() });
        }
        let first: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let found = if first.is_empty() { "nothing: it is empty".to_owned() } else { format!("`{}`", first.join(" ")) };
        Err(ImportError::Foreign { found })
    }
}

/// A pickle and the storages it names.
#[derive(Debug)]
pub(super) struct Checkpoint<'a> {
    pub(super) pickled: Pickled,
    numbers: Numbers<'a>,
    /// Bytes that may still be read: honest files name each storage once.
    left: u64,
}

enum Numbers<'a> {
    Zip { archive: Box<ZipArchive<Cursor<&'a [u8]>>>, prefix: String },
    Stream(BTreeMap<String, &'a [u8]>),
}

impl std::fmt::Debug for Numbers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Zip { .. }) { "Zip" } else { "Stream" })
    }
}

impl<'a> Checkpoint<'a> {
    fn from_zip(bytes: &'a [u8]) -> Result<Self> {
        let broken = |error: zip::result::ZipError| ImportError::Archive(error.to_string());
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
        let name = archive
            .file_names()
            .flatten()
            .filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"))
            .min_by_key(|name| name.len())
            .map(std::borrow::Cow::into_owned);
        let Some(name) = name else {
            let kind = match file_kind(&bytes[..bytes.len().min(BEGINNING)]) {
                Some(kind) if !kind.contains("PyTorch") => kind,
                _ => "a zip archive",
            };
            return Err(ImportError::OtherKind { kind: format!("{kind} without the entry `data.pkl` that PyTorch writes") });
        };
        let prefix = name.trim_end_matches("data.pkl").to_owned();
        if archive.index_for_name(&format!("{prefix}constants.pkl")).is_some() {
            return Err(ImportError::Script);
        }
        if archive.index_for_name(&format!("{prefix}byteorder")).is_some() {
            let order = entry(&mut archive, &format!("{prefix}byteorder"), 16)?;
            if order != b"little" {
                return Err(ImportError::Archive("its numbers run from the large end".into()));
            }
        }
        let pickled = Pickled::read_around_strangers(&entry(&mut archive, &name, LONGEST_PICKLE)?)?;
        let numbers = Numbers::Zip { archive: Box::new(archive), prefix };
        Ok(Self { pickled, numbers, left: allowance(bytes) })
    }

    fn from_stream(bytes: &'a [u8]) -> Result<Self> {
        let mut at = MAGIC.len();
        let mut next = || -> Result<Pickled> {
            let rest = &bytes[at..];
            let pickled = Pickled::read_around_strangers(&rest[..rest.len().min(LONGEST_PICKLE as usize)])?;
            at += pickled.length;
            Ok(pickled)
        };
        let wrong = |what: &str| ImportError::Pickle(PickleError::Damaged { at: MAGIC.len(), what: what.to_owned() });
        let (version, machine, pickled, keys) = (next()?, next()?, next()?, next()?);
        if *version.get(version.root) != Value::Int(1001) {
            return Err(wrong("the stream's version is not 1001"));
        }
        let little = machine.entries(machine.root).into_iter().flatten().find(|(name, _)| *name == "little_endian");
        if little.is_some_and(|(_, value)| *machine.get(value) != Value::Bool(true)) {
            return Err(wrong("its numbers run from the large end"));
        }
        let mut known: BTreeMap<&str, &Storage> = BTreeMap::new();
        for storage in pickled.storages() {
            known.insert(&storage.key, storage);
        }
        let (Value::List(keys_in_order) | Value::Tuple(keys_in_order)) = keys.get(keys.root) else {
            return Err(wrong("there is no list of storages"));
        };
        let mut found = BTreeMap::new();
        for &key in keys_in_order {
            let Some(key) = keys.text(key) else { return Err(wrong("the name of a storage is not text")) };
            let bad = |what: String| ImportError::Storage { key: key.to_owned(), what };
            let Some(storage) = known.get(key) else { return Err(bad("is there, and nothing names it".into())) };
            let cut = ImportError::Pickle(PickleError::Truncated { at: bytes.len(), what: "a storage" });
            let Some(count) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else { return Err(cut) };
            let count = u64::from_le_bytes(*count);
            if count != storage.length {
                return Err(bad(format!("has {count} numbers, and its pickle declares {}", storage.length)));
            }
            at += 8;
            let size = count.checked_mul(storage.number.size() as u64).and_then(|size| usize::try_from(size).ok());
            let end = size.and_then(|size| at.checked_add(size));
            let Some(numbers) = end.and_then(|end| bytes.get(at..end)) else { return Err(cut) };
            at += numbers.len();
            found.insert(key.to_owned(), numbers);
        }
        Ok(Self { pickled, numbers: Numbers::Stream(found), left: allowance(bytes) })
    }

    /// The numbers of a tensor. `name` is for messages.
    pub(super) fn weights(&mut self, name: &str, tensor: &Tensor) -> Result<Weights> {
        let bad = |what: String| ImportError::Tensor { name: name.to_owned(), what };
        let Value::Storage(storage) = self.pickled.get(tensor.storage) else {
            return Err(bad("has no storage".into()));
        };
        let (begin, length) = storage.part.unwrap_or((0, storage.length));
        let count = tensor.shape.iter().try_fold(1_u64, |all, &side| all.checked_mul(side));
        let Some(count) = count.filter(|&count| count <= length) else {
            return Err(bad(format!("claims the shape {:?}, and its storage has {length} numbers", tensor.shape)));
        };
        let reach =
            tensor.shape.iter().zip(&tensor.strides).try_fold(tensor.offset, |reach, (&side, &stride)| {
                reach.checked_add(side.saturating_sub(1).checked_mul(stride)?)
            });
        let whole = begin.checked_add(length).is_some_and(|end| end <= storage.length);
        if count > 0 && (!whole || reach.is_none_or(|reach| reach >= length)) {
            return Err(bad("reaches beyond its storage".into()));
        }
        let size = storage.length.saturating_mul(storage.number.size() as u64);
        let Some(left) = self.left.checked_sub(size) else {
            return Err(PickleError::TooLarge { what: "what its tensors share of each other".into(), most: self.left }.into());
        };
        self.left = left;
        let (number, key) = (storage.number, storage.key.clone());
        let owned;
        let bytes: &[u8] = match &mut self.numbers {
            Numbers::Zip { archive, prefix } => {
                owned = entry(archive, &format!("{prefix}data/{key}"), size)?;
                &owned
            }
            Numbers::Stream(found) => match found.get(&key) {
                Some(numbers) => numbers,
                None => return Err(ImportError::Storage { key, what: "is not in the file".into() }),
            },
        };
        if bytes.len() as u64 != size {
            let what = format!("has {} bytes, and its pickle declares {size}", bytes.len());
            return Err(ImportError::Storage { key, what });
        }
        // All of these lie within the bytes that are there, so they fit.
        let shape: Vec<usize> = tensor.shape.iter().map(|&side| side as usize).collect();
        let strides: Vec<usize> = tensor.strides.iter().map(|&stride| stride as usize).collect();
        let first = begin.saturating_add(tensor.offset) as usize;
        let places = Places::new(&shape, &strides, count as usize).map(|place| first + place);
        let values =
            read(number, bytes, places).ok_or_else(|| bad(format!("has type {number:?}, but weights must be floats")))?;
        Ok(Weights { shape, values })
    }
}

/// Bytes that tensors may read in all: somewhat more than the file has, for tensors that share a storage.
fn allowance(bytes: &[u8]) -> u64 {
    8 * bytes.len() as u64 + (1 << 20)
}

fn entry(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str, most: u64) -> Result<Vec<u8>> {
    let broken = |what: String| ImportError::Archive(format!("`{name}`: {what}"));
    let found = archive.by_name(name).map_err(|error| broken(error.to_string()))?;
    if found.compression() != CompressionMethod::Stored {
        return Err(broken("it is packed, and PyTorch packs nothing".into()));
    }
    if found.size() > most {
        return Err(broken(format!("it has {} bytes, and {most} are the most that fit", found.size())));
    }
    let mut bytes = Vec::new();
    found.take(most + 1).read_to_end(&mut bytes).map_err(|error| broken(error.to_string()))?;
    Ok(bytes)
}

/// The places of a tensor's numbers in its storage, last axis fastest.
struct Places<'a> {
    shape: &'a [usize],
    strides: &'a [usize],
    index: Vec<usize>,
    place: usize,
    left: usize,
}

impl<'a> Places<'a> {
    fn new(shape: &'a [usize], strides: &'a [usize], count: usize) -> Self {
        Self { shape, strides, index: vec![0; shape.len()], place: 0, left: count }
    }
}

impl Iterator for Places<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let place = self.place;
        for axis in (0..self.shape.len()).rev() {
            self.index[axis] += 1;
            // An axis of one entry may have any stride: it is added and taken away again.
            self.place = self.place.wrapping_add(self.strides[axis]);
            if self.index[axis] < self.shape[axis] {
                break;
            }
            self.place = self.place.wrapping_sub(self.strides[axis].wrapping_mul(self.shape[axis]));
            self.index[axis] = 0;
        }
        Some(place)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Floats of any width as `f32`; nothing for whole numbers.
fn read(number: Number, bytes: &[u8], places: impl Iterator<Item = usize>) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], places: impl Iterator<Item = usize>, value: fn([u8; N]) -> f32) -> Vec<f32> {
        let (numbers, _) = bytes.as_chunks::<N>();
        places.map(|place| value(numbers[place])).collect()
    }
    Some(match number {
        Number::F64 => each(bytes, places, |bytes| f64::from_le_bytes(bytes) as f32),
        Number::F32 => each(bytes, places, f32::from_le_bytes),
        Number::F16 => each(bytes, places, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Number::Bf16 => each(bytes, places, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        Number::I64 | Number::I32 | Number::I16 | Number::I8 | Number::U8 | Number::Bool => return None,
    })
}

/// The numbers of a tensor of a safetensors file.
pub(super) fn named(file: &SafeTensors<'_>, name: &str) -> Result<Weights> {
    let bad = |what: String| ImportError::Tensor { name: name.to_owned(), what };
    let view = file.tensor(name).map_err(|error| bad(error.to_string()))?;
    let number = match view.dtype() {
        Dtype::F64 => Number::F64,
        Dtype::F32 => Number::F32,
        Dtype::F16 => Number::F16,
        Dtype::BF16 => Number::Bf16,
        other => return Err(bad(format!("has type {other:?}, but weights must be floats"))),
    };
    let count = view.data().len() / number.size();
    let values = read(number, view.data(), 0..count).unwrap_or_default();
    Ok(Weights { shape: view.shape().to_vec(), values })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A legacy stream with one storage of six floats and one tensor of it.
    fn stream(shape: &[u8], strides: &[u8], offset: u8, claimed: u8, count: u64) -> Vec<u8> {
        let tuple = |numbers: &[u8]| {
            let mut bytes = b"(".to_vec();
            for &number in numbers {
                bytes.extend([b'K', number]);
            }
            bytes.push(b't');
            bytes
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(b"\x80\x02M\xe9\x03.");
        bytes.extend(b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.");
        bytes.extend(b"\x80\x02}X\x0c\x00\x00\x00conv1.weightctorch._utils\n_rebuild_tensor_v2\n(");
        bytes.extend(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x007X\x03\x00\x00\x00cpu");
        bytes.extend([b'K', claimed, b'N', b't', b'Q', b'K', offset]);
        bytes.extend([tuple(shape), tuple(strides)].concat());
        bytes.extend(b"\x89N");
        bytes.extend(b"tRs.\x80\x02]X\x01\x00\x00\x007a.");
        bytes.extend(count.to_le_bytes());
        for value in [0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0] {
            bytes.extend(value.to_le_bytes());
        }
        bytes
    }

    fn weights(bytes: &[u8]) -> Result<Weights> {
        let Opened::Pickled(mut checkpoint) = Opened::open(bytes)? else { panic!("it is a stream") };
        let (_, id) = checkpoint.pickled.entries(checkpoint.pickled.root).unwrap().next().unwrap();
        let Value::Tensor(tensor) = checkpoint.pickled.get(id).clone() else { panic!("it is a tensor") };
        checkpoint.weights("conv1.weight", &tensor)
    }

    #[test]
    fn tensors_of_any_strides_are_read_row_by_row() {
        let values = |shape: &[u8], strides: &[u8], offset| weights(&stream(shape, strides, offset, 6, 6)).unwrap().values;
        assert_eq!(values(&[2, 3], &[3, 1], 0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(values(&[3, 2], &[1, 3], 0), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0], "a transposed one");
        assert_eq!(values(&[2], &[2], 3), [3.0, 5.0], "a part of a larger one");
        assert_eq!(values(&[1, 2], &[255, 1], 4), [4.0, 5.0], "an axis of one may have any stride");
        assert_eq!(values(&[], &[], 5), [5.0], "a scalar");
        assert_eq!(values(&[0, 3], &[3, 1], 0), [0.0; 0], "none");
    }

    #[test]
    fn tensors_and_storages_that_claim_what_is_not_there_are_refused() {
        let fault = |bytes: Vec<u8>| weights(&bytes).unwrap_err().to_string();
        assert!(fault(stream(&[2, 3], &[3, 1], 1, 6, 6)).contains("reaches beyond its storage"));
        assert!(fault(stream(&[3], &[3], 0, 6, 6)).contains("reaches beyond its storage"));
        assert!(fault(stream(&[255, 255, 255], &[0, 0, 0], 0, 6, 6)).contains("claims the shape"), "no bomb of strides 0");
        assert!(fault(stream(&[6], &[1], 0, 7, 6)).contains("has 6 numbers, and its pickle declares 7"));
        assert!(fault(stream(&[6], &[1], 0, 200, 200)).contains("in the middle of a storage"));
        let mut huge = stream(&[6], &[1], 0, 6, u64::MAX);
        assert!(fault(huge.clone()).contains("has 18446744073709551615 numbers"));
        huge.truncate(20);
        assert!(Opened::open(&huge).is_err());
    }

    #[test]
    fn floats_of_every_width_become_f32_and_whole_numbers_do_not() {
        let half = [0x00_u8, 0x3c, 0x00, 0xc0];
        assert_eq!(read(Number::F16, &half, 0..2).unwrap(), [1.0, -2.0]);
        assert_eq!(read(Number::Bf16, &[0x80, 0x3f, 0x00, 0xc0], 0..2).unwrap(), [1.0, -2.0]);
        assert_eq!(read(Number::F64, &0.5_f64.to_le_bytes(), 0..1).unwrap(), [0.5]);
        for number in [Number::I64, Number::U8, Number::Bool] {
            assert!(read(number, &[0; 8], 0..1).is_none());
        }
    }
}
