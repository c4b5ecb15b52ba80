//! CSV without a header: a name, then its numbers.
//!
//! The fork of SCAN writes two flavors. In one the name came from a list *with* its line's end, so it stands in quotes over two
//! lines. In the other names hold commas, unquoted: a record is split from the right, by the number of numbers. That number is
//! what the first records agree on, unless it is given; only names that are numbers themselves, with commas between, need it.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::open::Batch;
use crate::error::{DatasetError, Result};
use kinset_base::fs::At;

/// Records that are looked at to find the number of numbers.
const LOOKED_AT: usize = 256;
/// Records of a batch.
const BATCH: usize = 4096;
/// A record longer than this is no record: a quote that never closes.
const LONGEST: usize = 1 << 26;

pub struct Csv {
    path: PathBuf,
    source: Box<dyn BufRead + Send>,
    /// Lines begun.
    line: usize,
    dim: usize,
    /// Read ahead to find the number of numbers.
    ahead: std::collections::VecDeque<Record>,
    rows: usize,
}

/// A record: its fields in one buffer, and the line it begins on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    text: Vec<u8>,
    ends: Vec<usize>,
    pub(super) line: usize,
}

impl Record {
    pub(super) fn fields(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        (0..self.ends.len()).map(|i| &self.text[if i > 0 { self.ends[i - 1] } else { 0 }..self.ends[i]])
    }

    /// How many of the last fields are numbers; the first never is, it is the name.
    fn numbers(&self) -> usize {
        let most = self.ends.len().saturating_sub(1);
        self.fields().rev().take(most).take_while(|field| number(field).is_some()).count()
    }
}

fn number(field: &[u8]) -> Option<f32> {
    std::str::from_utf8(field).ok()?.trim().parse().ok()
}

impl Csv {
    /// Opens a file whose records may hold anything.
    pub(super) fn records(path: &Path, source: Box<dyn BufRead + Send>) -> Self {
        Self { path: path.to_owned(), source, line: 0, dim: 0, ahead: std::collections::VecDeque::new(), rows: 0 }
    }

    /// Opens a file and finds how many numbers a record has, unless that is given.
    ///
    /// # Errors
    /// If the file cannot be read, is empty, or its first records hold no numbers.
    pub fn open(path: &Path, source: Box<dyn BufRead + Send>, dim: Option<usize>) -> Result<Self> {
        let mut csv = Self::records(path, source);
        while csv.ahead.len() < LOOKED_AT {
            let Some(record) = csv.read()? else { break };
            csv.ahead.push_back(record);
        }
        // A line of column names: no number in it, and numbers in the next.
        if csv.ahead.len() > 1 && csv.ahead[0].numbers() == 0 && csv.ahead[1].numbers() > 0 {
            csv.ahead.pop_front();
        }
        let Some(first) = csv.ahead.front() else {
            return Err(csv.wrong(1, "the file has no record"));
        };
        let line = first.line;
        csv.dim = dim.unwrap_or_else(|| csv.ahead.iter().map(Record::numbers).min().unwrap_or(0));
        if csv.dim == 0 {
            // Which record it is that spoils it.
            let line = csv.ahead.iter().find(|record| record.numbers() == 0).map_or(line, |record| record.line);
            return Err(csv.wrong(line, "a name and then numbers were expected, separated by commas"));
        }
        Ok(csv)
    }

    /// Numbers of a record, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Some thousand records; none at the end.
    ///
    /// # Errors
    /// A record with fewer numbers, or with something else where a number belongs.
    pub fn batch(&mut self) -> Result<Option<Batch>> {
        let mut batch = Batch::default();
        while batch.ids.len() < BATCH {
            let record = match self.ahead.pop_front() {
                Some(record) => Some(record),
                None => self.read()?,
            };
            let Some(record) = record else { break };
            self.take(&record, &mut batch)?;
        }
        self.rows += batch.ids.len();
        Ok((!batch.ids.is_empty()).then_some(batch))
    }

    fn take(&self, record: &Record, batch: &mut Batch) -> Result<()> {
        let names = record.ends.len().saturating_sub(self.dim);
        if names == 0 {
            let what = format!("{} fields where a name and {} numbers were expected", record.ends.len(), self.dim);
            return Err(self.wrong(record.line, &what));
        }
        let name: Vec<&[u8]> = record.fields().take(names).collect();
        let name = name.join(&b","[..]);
        let name = std::str::from_utf8(&name).map_err(|_| self.wrong(record.line, "the name is not UTF-8"))?.trim();
        if name.is_empty() {
            return Err(self.wrong(record.line, "the name is empty"));
        }
        for (place, field) in record.fields().skip(names).enumerate() {
            let Some(value) = number(field) else {
                let found = String::from_utf8_lossy(field);
                // A name with a comma where others have none looks like this too.
                let what = format!("`{found}` where number {} of {} was expected", place + 1, self.dim);
                return Err(self.wrong(record.line, &what));
            };
            batch.values.push(value);
        }
        batch.ids.push(name.to_owned());
        Ok(())
    }

    pub(super) fn wrong(&self, line: usize, problem: &str) -> DatasetError {
        let (file, place) = (self.path.display().to_string(), format!("line {line}"));
        DatasetError::Vectors { file, place, problem: problem.to_owned() }
    }

    /// The next record that is not blank.
    pub(super) fn read(&mut self) -> Result<Option<Record>> {
        let mut record = Record { line: self.line + 1, ..Record::default() };
        // Inside quotes; and whether the field began with one.
        let (mut quoted, mut was_quoted) = (false, false);
        loop {
            let (used, done) = {
                let bytes = self.source.fill_buf().at("read", &self.path)?;
                if bytes.is_empty() {
                    if quoted {
                        let line = record.line;
                        return Err(self.wrong(line, "a quote that begins here never ends"));
                    }
                    if record.ends.is_empty() && record.text.is_empty() && !was_quoted {
                        return Ok(None);
                    }
                    record.ends.push(record.text.len());
                    self.line += 1;
                    return Ok(Some(record));
                }
                let (mut used, mut done) = (0, false);
                for &byte in bytes {
                    used += 1;
                    let start = record.ends.last().copied().unwrap_or(0);
                    match byte {
                        b'"' if quoted => quoted = false,
                        b'"' if was_quoted => {
                            // Two in a row inside quotes are one.
                            record.text.push(b'"');
                            quoted = true;
                        }
                        b'"' if record.text[start..].iter().all(u8::is_ascii_whitespace) => {
                            record.text.truncate(start);
                            (quoted, was_quoted) = (true, true);
                        }
                        b',' if !quoted => {
                            record.ends.push(record.text.len());
                            was_quoted = false;
                        }
                        b'\n' if !quoted => {
                            self.line += 1;
                            if record.text[start..].last() == Some(&b'\r') {
                                record.text.pop();
                            }
                            let blank = record.ends.is_empty() && record.text.iter().all(u8::is_ascii_whitespace);
                            if blank && !was_quoted {
                                record = Record { line: self.line + 1, ..Record::default() };
                                continue;
                            }
                            record.ends.push(record.text.len());
                            done = true;
                            break;
                        }
                        other => {
                            self.line += usize::from(other == b'\n');
                            record.text.push(other);
                        }
                    }
                }
                (used, done)
            };
            self.source.consume(used);
            if done {
                return Ok(Some(record));
            }
            if record.text.len() > LONGEST {
                return Err(self.wrong(record.line, "a record longer than 64 MiB begins here: does a quote never end?"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, dim: Option<usize>) -> Result<(usize, Vec<String>, Vec<f32>)> {
        let mut csv = Csv::open(Path::new("f.csv"), Box::new(std::io::Cursor::new(text.as_bytes().to_vec())), dim)?;
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        while let Some(batch) = csv.batch()? {
            ids.extend(batch.ids);
            values.extend(batch.values);
        }
        Ok((csv.dim(), ids, values))
    }

    #[test]
    fn both_flavors_of_the_fork_are_read() {
        let plain = read("a.jpg,0.5,-1\nb.jpg,2e-1,3\n", None).unwrap();
        assert_eq!(plain, (2, vec!["a.jpg".into(), "b.jpg".into()], vec![0.5, -1.0, 0.2, 3.0]));
        let lines = read("\"clip one\n\",0.5,-1\n\"b \"\"x\"\"\n\",2e-1,3", None).unwrap();
        assert_eq!(lines.1, ["clip one", "b \"x\""]);
        let commas = read("clip,001.png,0.5,1\r\nclip,2,003.png,0.25,2\r\n\r\n", None).unwrap();
        assert_eq!(commas, (2, vec!["clip,001.png".into(), "clip,2,003.png".into()], vec![0.5, 1.0, 0.25, 2.0]));
    }

    #[test]
    fn names_that_are_numbers_are_names() {
        assert_eq!(read("1,0.5,1\n2,0.25,2\n", None).unwrap().1, ["1", "2"]);
        // Some with a comma: the records with fewest fields tell.
        assert_eq!(read("1,7,0.5,1\n2,0.25,2\n", None).unwrap().1, ["1,7", "2"]);
        assert_eq!(read("1,7,0.5,1\n2,8,0.25,2\n", Some(2)).unwrap().1, ["1,7", "2,8"]);
    }

    #[test]
    fn a_header_is_passed_over() {
        assert_eq!(read("name,f0,f1\na,1,2\n", None).unwrap().1, ["a"]);
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_line() {
        let refuse = |text: &str, dim| read(text, dim).unwrap_err().to_string();
        assert!(refuse("", None).contains("has no record"));
        assert!(refuse("\n \n", None).contains("has no record"));
        assert!(refuse("a,b,c\n", None).contains("line 1: a name and then numbers"));
        assert!(refuse("a,1,2\nb,1\n", Some(2)).contains("line 2: 2 fields where a name and 2 numbers"));
        assert!(refuse("a,1,2\n\"b\n\",1,x\n", Some(2)).contains("line 2: `x` where number 2 of 2"));
        assert!(refuse("\"a,1,2\n", None).contains("line 1: a quote that begins here never ends"));
        assert!(refuse(",1,2\n", None).contains("name is empty"));
    }

    #[test]
    fn the_number_of_numbers_is_that_of_the_first_records() {
        let mut many: Vec<String> = (0..300).map(|i| format!("n{i},1,2,3")).collect();
        many.push("late,9\n".to_owned());
        let text = many.join("\n");
        assert!(read(&text, None).unwrap_err().to_string().contains("line 301"));
    }

    proptest! {
        #[test]
        fn what_is_written_comes_back(
            rows in prop::collection::vec(("[a-z ,\"\n]{0,8}[a-z]", prop::collection::vec(-9_f32..9.0, 3)), 1..40), crlf: bool,
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let mut text = String::new();
            for (name, values) in &rows {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                text.push_str(&format!("\"{}\",{}{end}", name.replace('"', "\"\""), values.join(",")));
            }
            let (dim, ids, values) = read(&text, Some(3)).unwrap();
            prop_assert_eq!(dim, 3);
            prop_assert_eq!(ids, rows.iter().map(|(name, _)| name.trim().to_owned()).collect::<Vec<_>>());
            prop_assert_eq!(values, rows.iter().flat_map(|(_, values)| values.clone()).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(prop::sample::select(b"a1.,\"\n\r ".to_vec()), 0..60)) {
            let _ = read(&String::from_utf8(bytes).unwrap(), None);
        }
    }
}
