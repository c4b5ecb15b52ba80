//! Records of delimited text: comma, semicolon, tab or blanks between fields, any line ends, quotes as in RFC 4180.

use std::io::{self, BufRead, Cursor, Read};
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder, Terminator};

use crate::error::{DatasetError, Result};
use kinset_base::file_kind::{BEGINNING, file_kind, is_utf16, with_remedy};
use kinset_base::fs::At;

/// What may stand between fields, the likeliest first.
pub(super) const SEPARATORS: [u8; 4] = *b",;\t ";
/// Bytes that are looked at to find what stands between fields, and where lines end.
const HEAD: u64 = 1 << 22;
/// Records that are looked at for that.
const LOOKED_AT: usize = 64;
/// A record longer than this is no record: a quote that never closes.
const LONGEST: usize = 1 << 26;

/// A record: its fields, and the line it begins on.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) fields: ByteRecord,
    pub(super) line: usize,
}

impl Record {
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// A field without the blanks around it; nothing where the record is too short.
    pub(super) fn field(&self, place: usize) -> &[u8] {
        self.fields.get(place).unwrap_or_default().trim_ascii()
    }

    /// A field for messages.
    pub(super) fn shown(&self, place: usize) -> String {
        String::from_utf8_lossy(self.field(place)).chars().take(40).collect()
    }
}

/// The records of a file, one after the other.
pub(super) struct Records {
    path: PathBuf,
    reader: csv::Reader<Source<'static>>,
    separator: u8,
    /// Lines of comment that stood before everything else.
    comments: u64,
}

impl Records {
    /// Opens a file. Without a separator, `score` says how well the first records go with each, and the best is taken.
    ///
    /// # Errors
    /// If the file cannot be read or is no text, or two separators go equally well with it.
    pub(super) fn open(
        path: &Path,
        mut source: Box<dyn BufRead + Send>,
        separator: Option<u8>,
        score: impl Fn(u8, &[Record]) -> usize,
    ) -> Result<Self> {
        let mut head = Vec::new();
        source.by_ref().take(HEAD).read_to_end(&mut head).at("read", path)?;
        let whole = (head.len() as u64) < HEAD;
        if head.starts_with(b"\xef\xbb\xbf") {
            head.drain(..3);
        }
        not_text(&head).map_or(Ok(()), |problem| Err(wrong(path, "beginning", &problem)))?;
        let cr = !head.contains(&b'\n') && head.contains(&b'\r');
        let comments = skip_comments(&mut head, separator);
        let separator = match separator {
            Some(separator) => separator,
            None => sniff(path, &head, whole, cr, score)?,
        };
        let source = Source { inner: Box::new(Cursor::new(head).chain(source)), cr, last: b'\n', left: LONGEST };
        Ok(Self { path: path.to_owned(), reader: reader(separator, source), separator, comments })
    }

    pub(super) fn separator(&self) -> u8 {
        self.separator
    }

    pub(super) fn comments(&self) -> u64 {
        self.comments
    }

    /// The next record that is not blank.
    ///
    /// # Errors
    /// If it cannot be read or is longer than 64 MiB.
    pub(super) fn read(&mut self) -> Result<Option<Record>> {
        loop {
            self.reader.get_mut().left = LONGEST;
            let mut fields = ByteRecord::new();
            let before = self.comments + self.reader.position().line();
            let more = self.reader.read_byte_record(&mut fields).map_err(|error| match error.into_kind() {
                csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                    let problem = "a record longer than 64 MiB begins here: a closing quote may be missing";
                    wrong(&self.path, &format!("line {before}"), problem)
                }
                csv::ErrorKind::Io(error) => kinset_base::fs::FileError::new("read", &self.path, error).into(),
                other => wrong(&self.path, &format!("line {before}"), &format!("the record cannot be read: {other:?}")),
            })?;
            if !more {
                return Ok(None);
            }
            if let Some(record) = cleaned(fields, self.separator, before..self.comments + self.reader.position().line()) {
                return Ok(Some(record));
            }
        }
    }

    pub(super) fn wrong(&self, place: &str, problem: &str) -> DatasetError {
        wrong(&self.path, place, problem)
    }
}

pub(super) fn wrong(path: &Path, place: &str, problem: &str) -> DatasetError {
    DatasetError::Vectors { file: path.display().to_string(), place: place.to_owned(), problem: problem.to_owned() }
}

/// A separator for messages.
pub(super) fn shown(separator: u8) -> &'static str {
    match separator {
        b',' => "`,`",
        b';' => "`;`",
        b'\t' => "tab",
        _ => "blank",
    }
}

fn reader<R: Read>(separator: u8, source: R) -> csv::Reader<R> {
    ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        // The parser would end a record at CR and count the line at LF.
        .terminator(Terminator::Any(b'\n'))
        .buffer_capacity(1 << 16)
        .from_reader(source)
}

/// A record as it was read among some lines; nothing if it is blank.
fn cleaned(mut fields: ByteRecord, separator: u8, lines: std::ops::Range<u64>) -> Option<Record> {
    // Blank lines may stand before it, and a quote that never closes makes the last record end without a line's end.
    let inside = fields.as_slice().split(|byte| *byte == b'\n').count().saturating_sub(1) as u64;
    let line = lines.end.saturating_sub(1 + inside).max(lines.start) as usize;
    if separator == b' ' {
        fields = fields.iter().filter(|field| !field.trim_ascii().is_empty()).collect();
    }
    let blank = fields.len() < 2 && fields.iter().all(|field| field.trim_ascii().is_empty());
    (!blank).then_some(Record { fields, line })
}

/// Drops lines of comment from the beginning of a text, and returns how many they were: lines that begin with `#` and hold no
/// numbers as records do. One that has as many fields as the record below it is a header, `# name,x,y` of
/// `numpy.savetxt`, and only loses its mark.
fn skip_comments(head: &mut Vec<u8>, separator: Option<u8>) -> u64 {
    if !head.starts_with(b"#") {
        return 0;
    }
    let ends: Vec<usize> =
        (0..head.len()).filter(|&at| head[at] == b'\n' || (head[at] == b'\r' && head.get(at + 1) != Some(&b'\n'))).collect();
    let line = |number: usize| {
        let start = number.checked_sub(1).map_or(0, |before| ends.get(before).map_or(head.len(), |end| end + 1));
        (start, head[start..ends.get(number).copied().unwrap_or(head.len()).max(start)].trim_ascii())
    };
    let is_number = |field: &[u8]| str::from_utf8(field.trim_ascii()).is_ok_and(|field| field.parse::<f64>().is_ok());
    let numbers = |line: &[u8], between: u8| line.split(|byte| *byte == between).filter(|field| is_number(field)).count();
    let is_comment = |line: &[u8]| {
        let words = line.split(|byte| *byte == b' ').count();
        line.starts_with(b"#") && b",;\t".iter().all(|&between| numbers(line, between) == 0) && numbers(line, b' ') * 2 < words
    };
    let comments = (0..=ends.len()).take_while(|&number| is_comment(line(number).1)).count();
    let Some(last) = comments.checked_sub(1) else { return 0 };
    let (start, header) = line(last);
    let (next, record) = line(comments);
    let names = header.strip_prefix(b"# ");
    let known = |other: &u8| {
        separator.map_or(*other != b' ' || !record.iter().any(|byte| b",;\t".contains(byte)), |separator| separator == *other)
    };
    let fields = |line: &[u8], between: u8| {
        line.trim_ascii().split(|byte| *byte == between).filter(|field| between != b' ' || !field.is_empty()).count()
    };
    let is_header = |between: &u8| {
        let number = fields(record, *between);
        number > 1 && number == fields(names.unwrap_or(header), *between)
    };
    if separator.iter().chain(&SEPARATORS).filter(|other| known(other)).any(is_header) {
        let kept = start + names.map_or(0, |_| 2);
        head.drain(..kept);
        return last as u64;
    }
    head.drain(..next);
    comments as u64
}

/// Why a beginning is not that of a text, if it is not.
pub(crate) fn not_text(head: &[u8]) -> Option<String> {
    let begin = &head[..head.len().min(BEGINNING)];
    let binary = head.iter().take(1 << 12).any(|byte| matches!(byte, 0..=8 | 14..=26));
    // A first name may be `PAR1`, but no name looks like a page, and a pointer has lines.
    let page = begin.trim_ascii_start().starts_with(b"<") || begin.starts_with(b"version https://git-lfs");
    match file_kind(begin).filter(|_| binary || page || is_utf16(begin)) {
        Some(kind) => Some(format!("this is {}", with_remedy(kind))),
        None if head.iter().take(1 << 12).any(|byte| *byte == 0) => Some("this is not text: it contains zero bytes".to_owned()),
        None => None,
    }
}

/// What stands between fields.
fn sniff(path: &Path, head: &[u8], whole: bool, cr: bool, score: impl Fn(u8, &[Record]) -> usize) -> Result<u8> {
    let scores = SEPARATORS.map(|separator| {
        let source = Source { inner: Box::new(Cursor::new(head)), cr, last: b'\n', left: LONGEST };
        let mut reader = reader(separator, source);
        let mut records = Vec::new();
        let mut fields = ByteRecord::new();
        let mut cut = false;
        while records.len() < LOOKED_AT && reader.read_byte_record(&mut fields).unwrap_or(false) {
            cut = reader.position().byte() >= head.len() as u64;
            records.extend(cleaned(fields.clone(), separator, 0..reader.position().line()));
        }
        // The last record may go on behind the head.
        if cut && !whole && records.len() > 1 {
            records.pop();
        }
        score(separator, &records)
    });
    let best = scores.iter().copied().max().unwrap_or(0);
    let mut likely =
        SEPARATORS.iter().zip(scores).filter(|(_, score)| *score == best && best > 0).map(|(separator, _)| *separator);
    match (likely.next(), likely.next()) {
        (None, _) => Ok(SEPARATORS[0]),
        (Some(one), None) => Ok(one),
        (Some(one), Some(other)) => {
            let both = format!("{} and {} could both be the field separator", shown(one), shown(other));
            Err(wrong(path, "line 1", &format!("{both}; choose one with `separator`")))
        }
    }
}

/// A file for the parser: line ends as it wants them, one behind the last record too, and an end to records without one.
struct Source<'a> {
    inner: Box<dyn BufRead + Send + 'a>,
    /// Lines end in CR alone.
    cr: bool,
    /// The last byte that was given.
    last: u8,
    /// Bytes of a record that may still be read.
    left: usize,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let room = buffer.len().min(self.left);
        let mut read = self.inner.read(&mut buffer[..room])?;
        if read == 0 && room > 0 && self.last != b'\n' {
            (buffer[0], read) = (b'\n', 1);
        }
        if self.cr {
            buffer[..read].iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        }
        self.last = buffer[..read].last().copied().unwrap_or(self.last);
        self.left -= read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], separator: Option<u8>) -> Result<Vec<(usize, Vec<String>)>> {
        let widest = |_: u8, records: &[Record]| records.iter().map(Record::len).min().unwrap_or(0);
        let mut records = Records::open(Path::new("f.csv"), Box::new(Cursor::new(text.to_vec())), separator, widest)?;
        let mut all = Vec::new();
        while let Some(record) = records.read()? {
            all.push((record.line, (0..record.len()).map(|place| record.shown(place)).collect()));
        }
        Ok(all)
    }

    #[test]
    fn lines_are_counted_whatever_ends_them() {
        for text in ["a,b\n\n\"c\nd\",e\nf,g", "a,b\r\n\r\n\"c\r\nd\",e\r\nf,g\r\n", "a,b\r\r\"c\rd\",e\rf,g\r"] {
            let found = read(text.as_bytes(), None).unwrap();
            assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 5], "{text:?}");
            assert_eq!((&found[0].1[..], &found[2].1[..]), (&["a".into(), "b".into()][..], &["f".into(), "g".into()][..]));
            assert_eq!(found[1].1.len(), 2);
        }
    }

    #[test]
    fn marks_blanks_and_quotes_are_taken_off() {
        assert_eq!(read(b"\xef\xbb\xbf\"a\",1\n", None).unwrap(), [(1, vec!["a".into(), "1".into()])]);
        assert_eq!(read(b"a   1 2 \n", Some(b' ')).unwrap(), [(1, vec!["a".into(), "1".into(), "2".into()])]);
        assert_eq!(
            read(b"a\tb c\n", None).unwrap_err().to_string(),
            "`f.csv`, line 1: tab and blank could both be the field separator; choose one with `separator`"
        );
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for (bytes, why) in [
            (&b"\xff\xfea\x00"[..], "UTF-16"),
            (b"PK\x03\x04\x00", "this is a zip archive; unpack it"),
            (b"n\0a\0m\0e\0,\x001\0", "this is UTF-16 text: save it"),
            (b"a,\0", "not text"),
            (b" <!DOCTYPE html>", "HTML page"),
        ] {
            let error = read(bytes, None).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn comments_before_the_header_are_left_out_and_counted() {
        let first = |text: &str| {
            let source = Box::new(Cursor::new(text.to_owned().into_bytes()));
            let mut records = Records::open(Path::new("f.csv"), source, None, |_, records| records[0].len()).unwrap();
            let record = records.read().unwrap().unwrap();
            let fields: Vec<String> = (0..record.len()).map(|place| record.shown(place)).collect();
            (records.comments(), record.line, fields.join("|"))
        };
        assert_eq!(first("name,x\na,1\n"), (0, 1, "name|x".to_owned()));
        assert_eq!(first("# made by me\n#\nname,x\na,1\n"), (2, 3, "name|x".to_owned()));
        assert_eq!(first("# of 2024, \"x\r\nname;x\r\na;1\r\n"), (1, 2, "name|x".to_owned()));
        assert_eq!(first("# made by me\n# name,x\na,1\n"), (1, 2, "name|x".to_owned()), "`numpy.savetxt` marks its header");
        assert_eq!(first("#name,x\na,1\n"), (0, 1, "#name|x".to_owned()), "a name may begin so");
        for names in ["#1,0.5,cat\n#2,1,dog\n", "#1;0.5;cat\n", "#1 0.5 0.5 cat\n"] {
            assert_eq!(first(names).0, 0, "{names:?}");
        }
        assert_eq!(first("# name x y\na 1 2\n"), (0, 1, "name|x|y".to_owned()));
        assert_eq!(first("# all\ra,1\rb,2"), (1, 2, "a|1".to_owned()));
    }

    #[test]
    fn a_record_without_end_is_refused_before_it_fills_the_memory() {
        let endless = Cursor::new(b"a,1\n\"b,2\n".to_vec()).chain(io::repeat(b'x').take(1 << 27));
        let mut records =
            Records::open(Path::new("f.csv"), Box::new(io::BufReader::new(endless)), Some(b','), |_, _| 0).unwrap();
        assert_eq!(records.read().unwrap().unwrap().line, 1);
        let error = records.read().unwrap_err().to_string();
        assert!(error.contains("line 2: a record longer than 64 MiB begins here"), "{error}");
    }
}
