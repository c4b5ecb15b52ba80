//! The stack machine that builds the values a pickle describes.
//!
//! A pickle is a program for a stack machine, and Python's runs whatever it names. This one builds tensors, storages, arrays,
//! numbers, texts and plain containers; any other name it meets is an error that repeats it, or, where the reader can do without what
//! it stands for, a value with nothing in it. Nothing is ever called.
//!
//! Nothing here recurses: values lie in one list and name each other by place, so neither nesting, nor cycles, nor a value that is
//! used a million times costs more than the bytes that say so. Every operation takes at least one byte and makes at most one
//! value; what is copied is counted against [`MOST`].
//!
//! Source: Python's `pickletools`, which documents each operation of protocols 0 to 5.

use std::collections::BTreeMap;

use super::error::PickleError;
use super::value::{Array, Id, Known, Pickled, Storage, Tensor, Value, is_hostile, known, scalar};

type Result<T> = std::result::Result<T, PickleError>;

/// The most values, and the most copied items, that are accepted; a checkpoint of ResNet-50 has some thousand.
const MOST: usize = 1 << 23;

impl Pickled {
    /// Reads the pickle at the beginning of some bytes.
    ///
    /// # Errors
    /// A pickle that is damaged, ends early, is too large, or names what is never built.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        Self::run(bytes, false)
    }

    /// As [`Pickled::read`], but what a name that is not known stands for becomes a [`Value::Stranger`], in which nothing is. Names
    /// that only an attack has are errors all the same.
    ///
    /// # Errors
    /// A pickle that is damaged, ends early, is too large, or is hostile.
    pub fn read_around_strangers(bytes: &[u8]) -> Result<Self> {
        Self::run(bytes, true)
    }

    fn run(bytes: &[u8], around: bool) -> Result<Self> {
        let mut machine = Machine {
            bytes,
            around,
            strangers: BTreeMap::new(),
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
            copied: 0,
            encoded: 0,
        };
        let root = machine.run()?;
        let mut strangers: Vec<(String, u32)> = machine.strangers.into_iter().collect();
        strangers.sort_unstable_by_key(|(_, place)| *place);
        let strangers = strangers.into_iter().map(|(name, _)| name).collect();
        Ok(Self { values: machine.values, strangers, root, length: machine.at })
    }
}

/// The most bytes that are made of texts, which is how newer Pythons write an array for older ones.
const MOST_ENCODED: usize = 1 << 28;

/// The most names that are not known; a checkpoint of Lightning has some dozen.
const MOST_STRANGERS: usize = 512;

struct Machine<'a> {
    bytes: &'a [u8],
    /// Names that are not known are no errors.
    around: bool,
    /// By name, each with its place.
    strangers: BTreeMap<String, u32>,
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Id>,
    copied: usize,
    encoded: usize,
}

impl Machine<'_> {
    fn damaged(&self, what: impl Into<String>) -> PickleError {
        PickleError::Damaged { at: self.at, what: what.into() }
    }

    fn take(&mut self, count: u64) -> Result<&[u8]> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = usize::try_from(count).ok().and_then(|count| rest.get(..count)) else {
            return Err(PickleError::Truncated { at: self.bytes.len(), what: "a pickle" });
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A line without its end.
    fn line(&mut self) -> Result<String> {
        let Some(length) = self.bytes[self.at..].iter().position(|&byte| byte == b'\n') else {
            return Err(PickleError::Truncated { at: self.bytes.len(), what: "a line of a pickle" });
        };
        let line = String::from_utf8_lossy(self.take(length as u64)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    fn text(&mut self, length: u64) -> Result<Value> {
        // Lone surrogates, which Python can write, name no tensor of ours.
        Ok(Value::Text(String::from_utf8_lossy(self.take(length)?).into_owned()))
    }

    /// A string of Python 2, which may be a text or just bytes.
    fn string(&mut self, length: u64) -> Result<Value> {
        let bytes = self.take(length)?;
        Ok(match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(bytes.to_vec()),
        })
    }

    fn store(&mut self, value: Value) -> Result<Id> {
        if self.values.len() >= MOST {
            return Err(PickleError::TooLarge { what: "the number of its values".into(), most: MOST as u64 });
        }
        self.values.push(value);
        Ok(self.values.len() as Id - 1)
    }

    fn push(&mut self, value: Value) -> Result<()> {
        let id = self.store(value)?;
        self.stack.push(id);
        Ok(())
    }

    /// Counts what is copied from value to value.
    fn copies(&mut self, items: usize) -> Result<()> {
        self.copied = self.copied.saturating_add(items);
        if self.copied > MOST {
            return Err(PickleError::TooLarge { what: "what its pickle copies".into(), most: MOST as u64 });
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(self.damaged("the stack is empty"));
        }
        self.stack.pop().ok_or_else(|| self.damaged("the stack is empty"))
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or_else(|| self.damaged("the stack is empty"))
    }

    /// What lies above the last mark.
    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let Some(mark) = self.marks.pop() else { return Err(self.damaged("there is no mark")) };
        Ok(self.stack.split_off(mark))
    }

    fn value(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    fn int(&self, id: Id) -> Result<u64> {
        match self.value(id) {
            Value::Int(number) => u64::try_from(*number).map_err(|_| self.damaged(format!("{number} where a size is wanted"))),
            _ => Err(self.damaged("a size that is not a number")),
        }
    }

    fn ints(&self, id: Id) -> Result<Vec<u64>> {
        match self.value(id) {
            Value::Tuple(items) | Value::List(items) if items.len() <= 8 => items.iter().map(|&item| self.int(item)).collect(),
            _ => Err(self.damaged("an invalid shape")),
        }
    }

    fn run(&mut self) -> Result<Id> {
        loop {
            let operation = self.byte()?;
            match operation {
                b'.' => return self.pop(),
                0x80 => {
                    let protocol = self.byte()?;
                    if protocol > 5 {
                        return Err(self.damaged(format!("protocol {protocol}")));
                    }
                }
                0x95 => drop(self.u64()?), // a frame: a hint for buffering
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.since_mark()?),
                b'2' => self.stack.push(self.top()?),
                _ if self.simple(operation)? || self.container(operation)? || self.remembered(operation)? => {}
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.named(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (self.value(module), self.value(name)) else {
                        return Err(self.damaged("a name that is not text"));
                    };
                    if module.len() + name.len() > 512 {
                        return Err(self.damaged("a name of more than 512 letters"));
                    }
                    let (module, name) = (module.clone(), name.clone());
                    self.named(&module, &name)?;
                }
                b'R' | 0x81 => {
                    let (arguments, callee) = (self.pop()?, self.pop()?);
                    let value = self.call(callee, arguments)?;
                    self.stack.push(value);
                }
                b'b' => {
                    let (state, target) = (self.pop()?, self.top()?);
                    self.build(target, state)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push(storage)?;
                }
                b'i' | b'o' | 0x92 if self.around => {
                    let value = self.object(operation)?;
                    self.stack.push(value);
                }
                b'P' | 0x82..=0x84 | b'i' | b'o' | 0x92 | 0x97 | 0x98 => {
                    let name = match operation {
                        b'P' => "a persistent id that is a line",
                        b'i' | b'o' | 0x92 => "an object of a class",
                        0x97 | 0x98 => "a buffer from outside",
                        _ => "a name from the registry of extensions",
                    };
                    return Err(PickleError::Refused { name: name.to_owned() });
                }
                other => return Err(self.damaged(format!("no operation is called {other:#04x}"))),
            }
        }
    }

    fn simple(&mut self, operation: u8) -> Result<bool> {
        let value = match operation {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            0x8a => {
                let length = self.byte()?;
                self.long(length.into())?
            }
            0x8b => {
                let length = self.u32()?;
                self.long(length.into())?
            }
            b'I' => match self.line()?.as_str() {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                digits => Value::Int(digits.trim().parse().map_err(|_| self.damaged("an invalid number"))?),
            },
            b'L' => {
                let line = self.line()?;
                match line.trim().trim_end_matches('L').parse() {
                    Ok(number) => Value::Int(number),
                    Err(_) => Value::Unread,
                }
            }
            b'F' => Value::Float(self.line()?.trim().parse().map_err(|_| self.damaged("an invalid number"))?),
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            b'S' => {
                let line = self.line()?;
                let inner = line.trim().strip_prefix(['\'', '"']).and_then(|rest| rest.strip_suffix(['\'', '"']));
                Value::Text(inner.ok_or_else(|| self.damaged("a text without quotes"))?.to_owned())
            }
            b'V' => Value::Text(self.line()?),
            b'U' => {
                let length = self.byte()?;
                self.string(length.into())?
            }
            b'T' => {
                let length = self.u32()?;
                self.string(length.into())?
            }
            0x8c => {
                let length = self.byte()?;
                self.text(length.into())?
            }
            b'X' => {
                let length = self.u32()?;
                self.text(length.into())?
            }
            0x8d => {
                let length = self.u64()?;
                self.text(length)?
            }
            b'C' => {
                let length = self.byte()?;
                Value::Bytes(self.take(length.into())?.to_vec())
            }
            b'B' => {
                let length = self.u32()?;
                Value::Bytes(self.take(length.into())?.to_vec())
            }
            0x8e | 0x96 => {
                let length = self.u64()?;
                Value::Bytes(self.take(length)?.to_vec())
            }
            _ => return Ok(false),
        };
        self.push(value)?;
        Ok(true)
    }

    /// A whole number of any length; what does not fit 64 bits is no size and no head.
    fn long(&mut self, length: u64) -> Result<Value> {
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            return Ok(Value::Unread);
        }
        let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut all = [sign; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(all)))
    }

    fn container(&mut self, operation: u8) -> Result<bool> {
        match operation {
            b']' | 0x8f => self.push(Value::List(Vec::new()))?,
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b'l' | 0x91 => {
                let items = self.since_mark()?;
                self.push(Value::List(items))?;
            }
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items))?;
            }
            0x85..=0x87 => {
                let mut items = (0x85..=operation).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
                items.reverse();
                self.push(Value::Tuple(items))?;
            }
            b'd' => {
                let items = self.since_mark()?;
                let entries = self.pairs(&items)?;
                self.push(Value::Dict(entries))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(vec![(key, value)])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                let entries = self.pairs(&items)?;
                self.insert(entries)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>> {
        let (pairs, rest) = items.as_chunks::<2>();
        if rest.is_empty() {
            Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
        } else {
            Err(self.damaged("a key without a value"))
        }
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => list.extend(items),
            Value::Unread | Value::Stranger(_) => {}
            _ => return Err(self.damaged("an item for a value that is not a list")),
        }
        Ok(())
    }

    fn insert(&mut self, entries: Vec<(Id, Id)>) -> Result<()> {
        let dict = self.top()?;
        match &mut self.values[dict as usize] {
            Value::Dict(dict) => dict.extend(entries),
            Value::Unread | Value::Stranger(_) => {}
            _ => return Err(self.damaged("an entry for a value that is not a dictionary")),
        }
        Ok(())
    }

    /// The memo.
    fn remembered(&mut self, operation: u8) -> Result<bool> {
        let place = match operation {
            b'p' | b'g' => self.line()?.trim().parse().map_err(|_| self.damaged("a memo index that is not a number"))?,
            b'q' | b'h' => self.byte()?.into(),
            b'r' | b'j' => self.u32()?.into(),
            0x94 => self.memo.len() as u64,
            _ => return Ok(false),
        };
        if matches!(operation, b'g' | b'h' | b'j') {
            let Some(&id) = self.memo.get(&place) else { return Err(self.damaged(format!("place {place} was never filled"))) };
            self.stack.push(id);
        } else {
            self.memo.insert(place, self.top()?);
        }
        Ok(true)
    }

    fn named(&mut self, module: &str, name: &str) -> Result<()> {
        if let Some(known) = known(module, name) {
            return self.push(Value::Known(known));
        }
        let name_in_full: String = format!("{module}.{name}").chars().take(120).collect();
        if !self.around || is_hostile(module, name) {
            return Err(PickleError::Refused { name: name_in_full });
        }
        let next = self.strangers.len();
        let place = *self.strangers.entry(name_in_full).or_insert(next as u32);
        if self.strangers.len() > MOST_STRANGERS {
            return Err(PickleError::TooLarge { what: "the number of its classes".into(), most: MOST_STRANGERS as u64 });
        }
        self.push(Value::Stranger(place))
    }

    /// An object of a class: what stands above the mark, or a class and two kinds of arguments. Of a class that is not known there is
    /// nothing in it.
    fn object(&mut self, operation: u8) -> Result<Id> {
        let class = match operation {
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                self.since_mark()?;
                self.named(&module, &name)?;
                self.pop()?
            }
            b'o' => match self.since_mark()?.first() {
                Some(&class) => class,
                None => return Err(self.damaged("an object without a class")),
            },
            _ => {
                let (_named, _arguments) = (self.pop()?, self.pop()?);
                self.pop()?
            }
        };
        match *self.value(class) {
            Value::Stranger(place) => self.store(Value::Stranger(place)),
            _ => Err(PickleError::Refused { name: "an object of a class".to_owned() }),
        }
    }

    fn call(&mut self, callee: Id, arguments: Id) -> Result<Id> {
        if let Value::Stranger(place) = *self.value(callee) {
            return self.store(Value::Stranger(place));
        }
        let &Value::Known(known) = self.value(callee) else { return Err(self.damaged("a call of a value that is not a name")) };
        let Value::Tuple(items) = self.value(arguments) else { return Err(self.damaged("a call without arguments")) };
        if items.len() > 16 {
            return Err(self.damaged(format!("a call with {} arguments", items.len())));
        }
        let items = items.clone();
        // What needs numbers and gets something without any has none either.
        let needy = matches!(known, Known::Tensor | Known::Scalar | Known::Dtype | Known::Encode | Known::Dict);
        let stranger = items
            .iter()
            .take(2)
            .find_map(|&item| if let Value::Stranger(place) = *self.value(item) { Some(place) } else { None });
        if let (true, Some(place)) = (needy, stranger) {
            return self.store(Value::Stranger(place));
        }
        let value = match (known, items.as_slice()) {
            (Known::Dict, []) => Value::Dict(Vec::new()),
            (Known::Dict, &[pairs]) => {
                let (Value::List(pairs) | Value::Tuple(pairs)) = self.value(pairs) else {
                    return Err(self.damaged("a dictionary of a value that is not a list"));
                };
                let mut entries = Vec::new();
                for &pair in pairs {
                    let (Value::List(pair) | Value::Tuple(pair)) = self.value(pair) else {
                        return Err(self.damaged("an entry that is not a pair"));
                    };
                    let &[key, value] = pair.as_slice() else { return Err(self.damaged("an entry that is not a pair")) };
                    entries.push((key, value));
                    if self.copied + entries.len() > MOST {
                        break; // `copies` says so
                    }
                }
                self.copies(entries.len())?;
                Value::Dict(entries)
            }
            (Known::Same, []) => Value::List(Vec::new()),
            (Known::Same | Known::Parameter, &[same, ..]) => return Ok(same),
            (Known::Encode, &[text, ..]) => {
                let Value::Text(text) = &self.values[text as usize] else {
                    return Err(self.damaged("bytes of a value that is not text"));
                };
                self.encoded = self.encoded.saturating_add(text.len());
                if self.encoded > MOST_ENCODED {
                    return Err(PickleError::TooLarge { what: "what its pickle encodes".into(), most: MOST_ENCODED as u64 });
                }
                let bytes: Option<Vec<u8>> = text.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect();
                bytes.map_or(Value::Unread, Value::Bytes)
            }
            (Known::Tensor, &[storage, offset, shape, strides, ..]) => {
                if !matches!(self.value(storage), Value::Storage(_)) {
                    return Err(self.damaged("a tensor without a storage"));
                }
                let (offset, shape, strides) = (self.int(offset)?, self.ints(shape)?, self.ints(strides)?);
                if shape.len() != strides.len() {
                    return Err(self.damaged("a shape that does not fit its strides"));
                }
                Value::Tensor(Box::new(Tensor { storage, offset, shape, strides }))
            }
            (Known::Dtype, &[code, ..]) => match self.value(code) {
                Value::Text(code) if code.len() <= 8 => Value::Dtype(code.clone(), false),
                _ => Value::Unread,
            },
            (Known::Scalar, &[dtype, bytes]) => match (self.value(dtype), self.value(bytes)) {
                (Value::Dtype(code, large_end), Value::Bytes(bytes)) => scalar(code, *large_end, bytes),
                _ => Value::Unread,
            },
            (Known::Array, _) => Value::Array(Box::default()),
            (Known::Unread, _) => Value::Unread,
            (known, _) => return Err(self.damaged(format!("{known:?} takes other arguments"))),
        };
        self.store(value)
    }

    /// `__setstate__`: the byte order of a NumPy type, the numbers of a NumPy array.
    fn build(&mut self, target: Id, state: Id) -> Result<()> {
        match self.value(target) {
            Value::Dtype(..) => {
                let order = match self.value(state) {
                    Value::Tuple(items) => items.get(1).map(|&order| self.value(order)),
                    _ => None,
                };
                let large = matches!(order, Some(Value::Text(order)) if order == ">");
                if let Value::Dtype(_, large_end) = &mut self.values[target as usize] {
                    *large_end = large;
                }
            }
            Value::Array(_) => {
                let array = self.array_of(state).map_or(Value::Unread, |array| Value::Array(Box::new(array)));
                self.values[target as usize] = array;
            }
            // A state dict's `_metadata`.
            Value::Dict(_) | Value::Unread | Value::Stranger(_) => {}
            _ => return Err(PickleError::Refused { name: "a state for what has none".to_owned() }),
        }
        Ok(())
    }

    /// `(version, shape, dtype, Fortran order, bytes)`; any other state is of an array that nobody here reads.
    fn array_of(&self, state: Id) -> Option<Array> {
        let Value::Tuple(items) = self.value(state) else { return None };
        let &[_version, shape, dtype, fortran, data] = items.as_slice() else { return None };
        let Value::Dtype(code, _) = self.value(dtype) else { return None };
        let fortran = !matches!(self.value(fortran), Value::Bool(false) | Value::Int(0));
        Some(Array { shape: self.ints(shape).ok()?, code: code.clone(), fortran, data: Some(data) })
    }

    /// `('storage', type, key, location, length, view)`.
    fn storage(&self, id: Id) -> Result<Value> {
        let wrong = || self.damaged("a persistent id that is not a storage");
        let Value::Tuple(items) = self.value(id) else { return Err(wrong()) };
        let &[tag, kind, key, _location, length, ref view @ ..] = items.as_slice() else { return Err(wrong()) };
        if let Value::Stranger(place) = *self.value(kind) {
            return Ok(Value::Stranger(place));
        }
        let (Value::Text(tag), Value::Known(Known::Storage(number)), Value::Text(key)) =
            (self.value(tag), self.value(kind), self.value(key))
        else {
            return Err(wrong());
        };
        if tag != "storage" || key.len() > 256 {
            return Err(wrong());
        }
        let part = match view.first().map(|&view| self.value(view)) {
            None | Some(Value::None) => None,
            Some(Value::Tuple(view)) if view.len() == 3 => Some((self.int(view[1])?, self.int(view[2])?)),
            Some(_) => return Err(wrong()),
        };
        Ok(Value::Storage(Box::new(Storage { key: key.clone(), number: *number, length: self.int(length)?, part })))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat()
    }

    fn fault(bytes: &[u8]) -> PickleError {
        Pickled::read(bytes).unwrap_err()
    }

    #[test]
    fn plain_values_of_old_and_new_protocols_are_read() {
        let root = |bytes: &[u8]| {
            let pickled = Pickled::read(bytes).unwrap();
            assert_eq!(pickled.length, bytes.len());
            pickled.get(pickled.root).clone()
        };
        assert_eq!(root(b"\x80\x02K\x07."), Value::Int(7));
        assert_eq!(root(b"I-12\n."), Value::Int(-12));
        assert_eq!(root(b"I01\n."), Value::Bool(true));
        assert_eq!(root(b"L5L\n."), Value::Int(5));
        assert_eq!(root(b"F1.5\n."), Value::Float(1.5));
        assert_eq!(root(b"S'abc'\n."), Value::Text("abc".into()));
        assert_eq!(root(b"\x8a\x01\xff."), Value::Int(-1));
        assert_eq!(root(b"\x8a\x02\xff\x00."), Value::Int(255));
        assert_eq!(root(b"\x8a\x00."), Value::Int(0));
        assert_eq!(root(b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00K\x07."), Value::Int(7));
        assert_eq!(root(b"C\x02ab."), Value::Bytes(b"ab".to_vec()));
        assert!(matches!(root(b"(K\x01K\x02\x86."), Value::Tuple(items) if items.len() == 2));
        assert!(matches!(root(b"}q\x00(X\x01\x00\x00\x00aK\x01u."), Value::Dict(entries) if entries.len() == 1));
        assert!(matches!(root(b"ccollections\nOrderedDict\n)R."), Value::Dict(entries) if entries.is_empty()));
    }

    #[test]
    fn every_name_but_a_few_is_refused_however_it_is_written() {
        for call in [&b"cos\nsystem\n."[..], b"\x80\x04\x8c\x02os\x8c\x06system\x93.", b"c__builtin__\neval\n(S'1'\ntR."] {
            assert!(matches!(fault(call), PickleError::Refused { .. }), "{:?}", fault(call));
        }
        assert!(fault(b"cos\nsystem\n.").to_string().contains("`os.system`"));
        for operation in [&b"(S'x'\nios\nsystem\n."[..], b"(NoN.", b"\x82\x01.", b"P1\n.", b"NN}\x92."] {
            assert!(matches!(fault(operation), PickleError::Refused { .. }), "{:?}", fault(operation));
        }
        assert!(matches!(fault(b"ctorch\nQuantStorage\n."), PickleError::Refused { .. }));
        // A name that is known is still not called with anything.
        assert!(matches!(fault(b"ctorch._utils\n_rebuild_tensor_v2\n)R."), PickleError::Damaged { .. }));
        assert!(matches!(fault(b"K\x01)R."), PickleError::Damaged { .. }));
    }

    #[test]
    fn a_reader_that_can_do_without_strangers_gets_nothing_in_their_place() {
        let read = |bytes: &[u8]| Pickled::read_around_strangers(bytes);
        // An object with a state beside a number, written in each of the ways there are.
        let ways: [&[u8]; 6] = [
            b"cargparse\nNamespace\n)\x81}X\x02\x00\x00\x00lrK\x01sb",
            b"cargparse\nNamespace\n)R}X\x02\x00\x00\x00lrK\x01sb",
            b"\x8c\x08argparse\x8c\x09Namespace\x93)\x81}b",
            b"(K\x01iargparse\nNamespace\n",
            b"(cargparse\nNamespace\nK\x01o",
            b"cargparse\nNamespace\n)}\x92",
        ];
        for way in ways {
            let bytes = [b"}X\x01\x00\x00\x00a", way, b"sX\x01\x00\x00\x00bK\x05s."].concat();
            assert!(matches!(fault(&bytes), PickleError::Refused { .. }), "the strict reader: {way:?}");
            let pickled = read(&bytes).unwrap();
            let entries: Vec<_> = pickled.entries(pickled.root).unwrap().collect();
            assert_eq!(pickled.stranger(entries[0].1), Some("argparse.Namespace"), "{way:?}");
            assert_eq!(*pickled.get(entries[1].1), Value::Int(5), "what is beside it is whole");
        }
        // Items, entries and calls of what is not known leave nothing either, and nothing that needs numbers is made of it.
        for bytes in [
            &b"cm\nC\n)RK\x01aK\x02K\x03s)R."[..],
            b"ctorch._utils\n_rebuild_tensor_v2\n(cm\nC\nK\x00))tR.",
            b"(X\x07\x00\x00\x00storagectorch\nQuantStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
            b"ccollections\nOrderedDict\ncm\nC\n\x85R.",
        ] {
            let pickled = read(bytes).unwrap();
            assert!(pickled.stranger(pickled.root).is_some(), "{bytes:?}");
        }
        for hostile in
            ["cos\nsystem\n.", "cposix\nsystem\n.", "csubprocess\nPopen\n.", "c__builtin__\neval\n.", "cbuiltins\nexec\n."]
        {
            assert!(matches!(read(hostile.as_bytes()), Err(PickleError::Refused { .. })), "{hostile}");
        }
        for refused in [&b"P1\n."[..], b"\x82\x01.", b"\x97.", b"(NoN.", b"ctorch\nSize\n)}\x92."] {
            assert!(matches!(read(refused), Err(PickleError::Refused { .. })), "{refused:?}");
        }
        let many: Vec<u8> =
            (0..=MOST_STRANGERS).flat_map(|number| format!("cm\nC{number}\n0").into_bytes()).chain(*b"N.").collect();
        assert!(matches!(read(&many), Err(PickleError::TooLarge { .. })));
        let one = [b"cm\nC\n0".repeat(10 * MOST_STRANGERS).as_slice(), b"N."].concat();
        assert_eq!(read(&one).unwrap().strangers.len(), 1);
    }

    #[test]
    fn an_array_of_numpy_keeps_its_shape_type_and_bytes_in_old_and_new_pickles() {
        // pickle.dumps(numpy.array([[1, 2], [250, 4]], "u1"), protocol=2) of Python 2 …
        let start = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85U\x01b\x87R(K\x01K\x02K\x02\x86";
        let dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89";
        let old = [&start[..], dtype, b"U\x04\x01\x02\xfa\x04tb."].concat();
        // … and of Python 3, which writes bytes for Python 2 as a text.
        let new =
            [&start[..], dtype, b"c_codecs\nencode\nX\x05\x00\x00\x00\x01\x02\xc3\xba\x04X\x06\x00\x00\x00latin1\x86Rtb."]
                .concat();
        for bytes in [old, new] {
            let pickled = Pickled::read(&bytes).unwrap();
            let Value::Array(array) = pickled.get(pickled.root) else { panic!("{:?}", pickled.get(pickled.root)) };
            assert_eq!((array.shape.as_slice(), array.code.as_str(), array.fortran), (&[2, 2][..], "u1", false));
            assert_eq!(array.data.and_then(|at| pickled.bytes(at)), Some(&[1, 2, 250, 4][..]));
        }
        // A text that is encoded again and again is counted.
        let mut bomb = b"(X\x00\x00\x10\x00".to_vec();
        bomb.extend(vec![b'a'; 1 << 20]);
        bomb.extend(b"q\x00");
        bomb.extend(b"c_codecs\nencode\nh\x00N\x86R".repeat(300));
        bomb.extend(b"t.");
        assert!(matches!(fault(&bomb), PickleError::TooLarge { .. }));
    }

    #[test]
    fn sizes_that_cannot_be_take_no_memory() {
        for huge in [
            &b"X\xff\xff\xff\xffabc"[..],
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc",
            b"B\xff\xff\xff\xff",
            b"\x96\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x8b\xff\xff\xff\xff",
            b"T\xff\xff\xff\xff",
        ] {
            assert!(matches!(fault(huge), PickleError::Truncated { .. }), "{huge:?}");
        }
    }

    #[test]
    fn deep_nests_cycles_and_bombs_cost_no_more_than_their_bytes() {
        // A million lists within lists: nothing recurses, not even when they are dropped.
        let mut deep = vec![b']'; 1_000_000];
        deep.extend(vec![b'a'; 999_999]);
        deep.push(b'.');
        assert!(Pickled::read(&deep).is_ok());
        // A list that holds itself.
        assert!(Pickled::read(b"]q\x00h\x00a.").is_ok());
        // Each tuple holds the one before twice: 2^1000 leaves, a thousand values.
        let mut doubled = b")".to_vec();
        doubled.extend(b"2\x86".repeat(1000));
        doubled.push(b'.');
        assert!(Pickled::read(&doubled).is_ok());
        // A long list, and dictionaries of it without end: what is copied is counted.
        let mut bomb = b"](".to_vec();
        bomb.extend(b"NN\x86".repeat(10_000));
        bomb.extend(b"eq\x00");
        bomb.extend(b"ccollections\nOrderedDict\nh\x00\x85R".repeat(10_000));
        bomb.push(b'.');
        assert!(matches!(fault(&bomb), PickleError::TooLarge { .. }));
        // More values than are accepted.
        let mut many = vec![b'N'; MOST + 1];
        many.push(b'.');
        assert!(matches!(fault(&many), PickleError::TooLarge { .. }));
    }

    #[test]
    fn a_pickle_cut_anywhere_is_an_error() {
        let mut whole = b"\x80\x02}q\x00(".to_vec();
        whole.extend(text("a"));
        whole.extend(b"K\x05");
        whole.extend(text("b"));
        whole.extend(b"ccollections\nOrderedDict\n)Ru.");
        assert!(Pickled::read(&whole).is_ok());
        for length in 0..whole.len() {
            assert!(Pickled::read(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn stacks_and_memos_that_lack_something_are_damaged() {
        for bytes in [
            &b"."[..],
            b"0.",
            b"2.",
            b"a.",
            b"t.",
            b"(u.",
            b"]u.",
            b"h\x00.",
            b"g7\n.",
            b"(.",
            b"\x80\x09.",
            b"\xffN.",
            b"NNs.",
            b"}(Nu.",
            b"b.",
        ] {
            assert!(matches!(fault(bytes), PickleError::Damaged { .. }), "{bytes:?}: {:?}", fault(bytes));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Pickled::read(&bytes);
            let _ = Pickled::read_around_strangers(&bytes);
        }

        #[test]
        fn no_operations_make_it_panic(operations in prop::collection::vec(0_usize..33, 0..200)) {
            const PARTS: [&[u8]; 33] = [
                b"N", b"(", b"0", b"1", b"2", b"K\x03", b"X\x01\x00\x00\x00k", b"]", b")", b"}", b"l", b"t", b"d", b"a", b"e", b"s", b"u",
                b"\x85", b"\x87", b"q\x01", b"h\x01", b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"R", b"b",
                b"ctorch\nFloatStorage\n", b"Q", b"\x94", b"cm\nC\n", b"\x81", b"\x92", b"im\nC\n", b"o",
            ];
            let bytes: Vec<u8> = operations.into_iter().flat_map(|at| PARTS[at].iter().copied()).chain(*b".").collect();
            let _ = Pickled::read(&bytes);
            let _ = Pickled::read_around_strangers(&bytes);
        }
    }
}
