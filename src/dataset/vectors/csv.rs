//! Vectors from delimited text: which columns are the name and the numbers, and every record checked against that.
//!
//! **Without a header** a record is its name, then its numbers. The fork of SCAN writes two flavors. In one the name came from a
//! list *with* its line's end, so it stands in quotes over two lines. In the other names hold commas, unquoted: a record is split
//! from the right, by the number of numbers. That number is what all of the first records agree on; if they do not, it must be
//! given. Where all fields are numbers, all are the vector and rows are named by their number, as NumPy's `savetxt` writes; but a
//! first column of whole numbers, all different, beside broken ones is a name.
//!
//! **A header** is a first record without any number, or one that numbers its columns, as pandas does: `name,0,1,2`. By its names
//! columns are chosen as in Parquet. What may be either is refused until `header` says which.

use std::collections::{BTreeSet, VecDeque};
use std::io::BufRead;
use std::path::Path;

use super::open::{Batch, Options};
use super::records::{Record, Records, shown, wrong};
use crate::error::{DatasetError, Result};
use kinset_artifact::parquet::usual_names::{IDS, likely, numbered, usual};
use kinset_base::reading::Reading;
use kinset_base::unit::counted;

/// Records that are looked at to find the columns.
const LOOKED_AT: usize = 256;
/// And no more than so many bytes of them.
const LOOKED_AT_BYTES: usize = 1 << 26;
/// Records of a batch.
const BATCH: usize = 4096;
/// A vector as short as this may be `0, 1, 2` by chance.
const SHORT: usize = 8;
/// Columns that describe images, and are no part of a vector.
const NO_NUMBERS: [&str; 3] = ["cluster", "index", "row"];
/// And those of which a word, between `_`, `-` and blanks, is one of these.
const DESCRIBING: [&str; 12] =
    ["label", "labels", "class", "cls", "target", "category", "species", "gt", "true", "truth", "split", "fold"];
/// Classes at most, by which a last column of whole numbers is doubted.
const FEW: usize = 20;

pub struct Csv {
    records: Records,
    layout: Layout,
    /// Read ahead to find the layout.
    ahead: VecDeque<Record>,
    reading: Reading,
}

/// Where a record holds what.
#[derive(Clone, Debug, PartialEq)]
struct Layout {
    name: Name,
    /// The fields that are the vector; of [`Name::Leading`] the last ones.
    columns: Vec<usize>,
    /// How many fields a record has; none if names hold separators.
    width: Option<usize>,
    /// Every record's last field is empty: a separator stands behind each.
    trailing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Name {
    /// None: rows are numbered.
    Row,
    Column(usize),
    /// All fields before the numbers. `exact`: their number was given, so nothing more is asked of a record.
    Leading {
        exact: bool,
    },
}

/// A number as text writes it; with a decimal comma where commas do not stand between fields.
fn number(field: &[u8], separator: u8) -> Option<f32> {
    let text = std::str::from_utf8(field).ok()?.trim();
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) if is_comma_number(text, separator) => text.replace(',', ".").parse().ok(),
        Err(_) => None,
    }
}

fn is_comma_number(text: &str, separator: u8) -> bool {
    matches!(separator, b';' | b'\t') && !text.contains('.') && text.bytes().filter(|byte| *byte == b',').count() == 1
}

fn is_whole(field: &[u8]) -> bool {
    !field.is_empty() && field.iter().all(u8::is_ascii_digit)
}

/// Digits behind a zero: a name, since nobody writes numbers so.
fn is_padded(field: &[u8]) -> bool {
    field.len() > 1 && field[0] == b'0' && is_whole(field)
}

/// Doubts the last column of a vector if it has a few whole numbers, and others have fractions: labels, perhaps.
fn doubt_labels(reading: &mut Reading, records: &[Record], columns: &[usize], shown: impl Fn(usize) -> String) {
    let Some((&last, others)) = columns.split_last() else { return };
    let fractions = |record: &Record| others.iter().any(|place| !is_whole(record.field(*place)));
    let seen: BTreeSet<&[u8]> = records.iter().map(|record| record.field(last)).collect();
    if records.iter().all(|record| is_whole(record.field(last)))
        && records.iter().any(fractions)
        && seen.len() <= FEW
        && seen.len() * 2 <= records.len()
    {
        let column = shown(last);
        reading.doubt(format!(
            "column {column} has few different whole numbers, and may hold labels: if so, leave it out of the file"
        ));
    }
}

/// The fields of a record without an empty one at its end.
fn filled(record: &Record) -> usize {
    record.len() - usize::from(record.len() > 1 && record.field(record.len() - 1).is_empty())
}

/// How many of the last fields are numbers; the first never is, it is the name.
fn trailing(record: &Record, separator: u8) -> usize {
    (1..filled(record)).rev().take_while(|place| number(record.field(*place), separator).is_some()).count()
}

/// What most records have; of equals the larger.
fn most_common(counts: impl Iterator<Item = usize>) -> usize {
    let mut counts: Vec<usize> = counts.collect();
    counts.sort_unstable();
    let runs = counts.chunk_by(|a, b| a == b).map(|run| (run.len(), run[0]));
    runs.max().map_or(0, |(_, count)| count)
}

/// The separator that a setting names: one character, or a word for what is hard to type.
pub fn byte_of(separator: &str) -> Option<u8> {
    match separator {
        "\\t" | "tab" => Some(b'\t'),
        "blank" | "space" => Some(b' '),
        text => match text.as_bytes() {
            [one] if !one.is_ascii_alphanumeric() => Some(*one),
            _ => None,
        },
    }
}

impl Csv {
    /// Opens a file and finds its columns, unless they are given.
    ///
    /// # Errors
    /// If the file cannot be read or is empty; if its first records hold no numbers, do not agree, or may be read in two ways.
    pub fn open(path: &Path, source: Box<dyn BufRead + Send>, options: &Options) -> Result<Self> {
        let separator = match options.separator.as_deref() {
            None => None,
            Some(text) => match byte_of(text) {
                Some(byte) => Some(byte),
                None => return Err(wrong(path, "`separator`", "one character was expected, such as `;`, or `tab` or `blank`")),
            },
        };
        let score = |separator: u8, records: &[Record]| {
            let body = if records.len() > 1 { &records[1..] } else { records };
            most_common(body.iter().map(|record| trailing(record, separator)))
        };
        let mut records = Records::open(path, source, separator, score)?;
        let mut ahead = VecDeque::new();
        let mut bytes = 0;
        while ahead.len() < LOOKED_AT && bytes < LOOKED_AT_BYTES {
            let Some(record) = records.read()? else { break };
            bytes += record.fields.as_slice().len();
            ahead.push_back(record);
        }
        let mut reading = Reading::default();
        let first = ahead.make_contiguous();
        if first.is_empty() {
            return Err(records.wrong("line 1", "the file has no record"));
        }
        let find = Find { path, options, separator: records.separator() };
        let layout = if find.has_header(first)? {
            let layout = find.with_header(&first[0], &first[1..], &mut reading)?;
            ahead.pop_front();
            layout
        } else {
            let layout = find.without_header(first, &mut reading)?;
            doubt_labels(&mut reading, first, &layout.columns, |last| (last + 1).to_string());
            layout
        };
        reading.took(format!("separator {}", shown(records.separator())));
        if records.comments() > 0 {
            reading.left(format!("{} of comment", counted(records.comments(), "line")));
        }
        let decimal = |record: &Record| {
            layout.places(record).any(|place| std::str::from_utf8(record.field(place)).is_ok_and(|text| text.contains(',')))
        };
        if records.separator() != b',' && ahead.iter().any(decimal) {
            reading.took("decimal commas");
        }
        Ok(Self { records, layout, ahead, reading })
    }

    /// Numbers of a record, D.
    pub fn dim(&self) -> usize {
        self.layout.columns.len()
    }

    /// The columns that were found, and how.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Some thousand records, named by their row from `first` on where they have no name; none at the end.
    ///
    /// # Errors
    /// A record with more or fewer numbers than the others, or with something else where a number belongs.
    pub fn batch(&mut self, first: usize) -> Result<Option<Batch>> {
        let mut batch = Batch::default();
        while batch.ids.len() < BATCH {
            let record = match self.ahead.pop_front() {
                Some(record) => Some(record),
                None => self.records.read()?,
            };
            let Some(record) = record else { break };
            self.take(&record, first + batch.ids.len(), &mut batch)?;
        }
        Ok((!batch.ids.is_empty()).then_some(batch))
    }

    fn take(&self, record: &Record, row: usize, batch: &mut Batch) -> Result<()> {
        let (separator, dim) = (self.records.separator(), self.dim());
        let fields = self.layout.fields(record);
        let line = format!("line {}", record.line);
        let counted = |count: usize| if count == 1 { "1 field".to_owned() } else { format!("{count} fields") };
        let ragged = |wanted: String| {
            let lines = record.fields.as_slice().contains(&b'\n');
            let quote = if lines { " (it spans several lines: a closing quote may be missing)" } else { "" };
            self.records.wrong(&line, &format!("{}{quote} where {wanted}", counted(fields)))
        };
        match (self.layout.name, self.layout.width) {
            (Name::Leading { .. }, _) if fields <= dim => {
                return Err(ragged(format!("a name and {dim} numbers were expected")));
            }
            (Name::Leading { exact: false }, width) if width != Some(fields) => {
                let numbers = trailing(record, separator);
                if numbers != dim {
                    let others = width.map_or(format!("a name and {dim} numbers were expected"), |width| {
                        format!("the lines before have {width}; if names contain {}, set `dim`", shown(separator))
                    });
                    return Err(ragged(others));
                }
            }
            (Name::Row | Name::Column(_), Some(width)) if width != fields => {
                return Err(ragged(format!("{width} were expected")));
            }
            _ => {}
        }
        for (count, place) in self.layout.places(record).enumerate() {
            let Some(value) = number(record.field(place), separator) else {
                let (line, what) = (format!("{line}, column {}", place + 1), record.shown(place));
                let found = if what.is_empty() { "the cell is empty".to_owned() } else { format!("`{what}`") };
                return Err(self.records.wrong(&line, &format!("{found} where number {} of {dim} was expected", count + 1)));
            };
            batch.values.push(value);
        }
        let name = match self.layout.name {
            Name::Row => row.to_string(),
            Name::Column(place) => self.name(record, place..place + 1, &line)?,
            Name::Leading { .. } => self.name(record, 0..fields - dim, &line)?,
        };
        batch.ids.push(name);
        Ok(())
    }

    fn name(&self, record: &Record, places: std::ops::Range<usize>, line: &str) -> Result<String> {
        let empty = || self.records.wrong(line, "the name is empty");
        let parts: Vec<&[u8]> = places.map(|place| record.fields.get(place).unwrap_or_default()).collect();
        let name = parts.join(&self.records.separator());
        let name = std::str::from_utf8(&name).map_err(|_| self.records.wrong(line, "the name is not UTF-8"))?.trim();
        if name.is_empty() { Err(empty()) } else { Ok(name.to_owned()) }
    }
}

impl Layout {
    /// The fields of a record, without an empty one at its end where all have one.
    fn fields(&self, record: &Record) -> usize {
        if self.trailing { filled(record) } else { record.len() }
    }

    /// Where the numbers of a record stand.
    fn places<'a>(&'a self, record: &Record) -> impl Iterator<Item = usize> + 'a {
        let shift = match self.name {
            Name::Leading { .. } => self.fields(record).saturating_sub(self.columns.len()),
            _ => 0,
        };
        self.columns.iter().enumerate().map(move |(count, place)| if shift > 0 { shift + count } else { *place })
    }
}

/// Finds the columns.
struct Find<'a> {
    path: &'a Path,
    options: &'a Options,
    separator: u8,
}

impl Find<'_> {
    fn wrong(&self, line: usize, problem: &str) -> DatasetError {
        wrong(self.path, &format!("line {line}"), problem)
    }

    fn is_number(&self, record: &Record, place: usize) -> bool {
        number(record.field(place), self.separator).is_some()
    }

    /// Whether the first record has the names of columns.
    fn has_header(&self, records: &[Record]) -> Result<bool> {
        if let Some(header) = self.options.header {
            return Ok(header);
        }
        let [first, body @ ..] = records else { return Ok(false) };
        let Some(next) = body.first() else { return Ok(false) };
        let numbers: Vec<usize> = (0..first.len()).filter(|place| self.is_number(first, *place)).collect();
        let Some(&start) = numbers.first() else { return Ok((0..next.len()).any(|place| self.is_number(next, place))) };
        // Numbers that count up, side by side, from 0 or 1.
        let from = first.field(start);
        let from = usize::from(from != b"0");
        let counts_up = numbers
            .iter()
            .enumerate()
            .all(|(i, place)| *place == start + i && first.field(*place) == (from + i).to_string().as_bytes());
        if !counts_up || numbers.len() < 2 {
            return Ok(false);
        }
        if numbers.len() >= SHORT {
            return Ok(true);
        }
        // A short one is told by its name.
        if start > 0 {
            let name = first.shown(0);
            let ending = |name: &str| Path::new(name).extension().map(std::ffi::OsStr::to_ascii_lowercase);
            if name.is_empty()
                || name == "index"
                || name.starts_with("Unnamed:")
                || usual(&IDS, &[name.as_str()], |_| true).is_some()
            {
                return Ok(true);
            }
            if ending(&name).is_some() && ending(&name) == ending(&next.shown(0)) {
                return Ok(false);
            }
            if ending(&name).is_none() && body.iter().all(|record| ending(&record.shown(0)).is_some()) {
                return Ok(true);
            }
        }
        // Few programs number columns from 1, and many people try things with 1, 2, 3.
        if from == 1 {
            return Ok(false);
        }
        Err(self.wrong(first.line, "this may be a header or a vector; choose one with `header = true` or `header = false`"))
    }

    /// The layout by the names of columns.
    fn with_header(&self, header: &Record, body: &[Record], reading: &mut Reading) -> Result<Layout> {
        let Some(first) = body.first() else {
            return Err(self.wrong(header.line, "no record follows the header"));
        };
        let mut names: Vec<String> = Vec::with_capacity(header.len());
        for place in 0..header.len() {
            let name = std::str::from_utf8(header.field(place));
            names.push(name.map_err(|_| self.wrong(header.line, "the header is not UTF-8"))?.to_owned());
        }
        let width = most_common(body.iter().map(Record::len));
        if width == names.len() + 1 {
            // R leaves out the name of the names.
            names.insert(0, String::new());
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let listed = || names.iter().take(8).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        if body.iter().all(|record| record.len() != names.len()) {
            let problem = format!("{} fields, but line {} names {} columns", first.len(), header.line, names.len());
            return Err(self.wrong(first.line, &problem));
        }
        let any_number = |place: usize| body.iter().any(|record| self.is_number(record, place));
        let any_text =
            |place: usize| body.iter().any(|record| !record.field(place).is_empty() && !self.is_number(record, place));
        let runs = numbered(&names, any_number);
        let run = match &self.options.column {
            Some(stem) => Some(runs.iter().find(|run| run.stem == *stem).ok_or_else(|| {
                self.wrong(
                    header.line,
                    &format!("no columns are called `{stem}0`, `{stem}1` and so on; there are {}", listed()),
                )
            })?),
            None => likely(&runs),
        };
        if let (None, false, None) = (run, runs.is_empty(), self.options.dim) {
            let stems = runs.iter().map(|run| format!("`{}`", run.stem)).collect::<Vec<_>>().join(", ");
            let problem =
                format!("several columns may hold the vectors: those that begin with {stems}; name one with `column`");
            return Err(self.wrong(header.line, &problem));
        }
        let in_run = |place: usize| run.is_some_and(|run| run.columns.contains(&place));
        let texts: Vec<usize> =
            (0..names.len()).filter(|place| !in_run(*place) && any_text(*place) && !any_number(*place)).collect();
        let name = match self.options.id_column.as_deref() {
            _ if self.options.names.is_some() => None,
            Some("") => None,
            Some(wanted) => {
                Some(names.iter().position(|name| *name == wanted).ok_or_else(|| {
                    self.wrong(header.line, &format!("no column is called `{wanted}`; there are {}", listed()))
                })?)
            }
            None => match usual(&IDS, &names, |place| !in_run(place)) {
                Some(place) => Some(place),
                None if !in_run(0) && (names[0].is_empty() || names[0].starts_with("Unnamed:") || any_text(0)) => Some(0),
                None if texts.is_empty() => {
                    let whole = |record: &Record| is_whole(record.field(0));
                    let fractions = |record: &Record| (1..names.len()).any(|place| !is_whole(record.field(place)));
                    let beside = run.is_some() || body.iter().any(fractions);
                    let named = body.iter().any(|record| is_padded(record.field(0))) || distinct(body) && beside;
                    (!in_run(0) && body.iter().all(whole) && named).then_some(0)
                }
                None => match &texts[..] {
                    [one] => Some(*one),
                    several => {
                        let several = several.iter().map(|place| format!("`{}`", names[*place])).collect::<Vec<_>>().join(", ");
                        let problem = format!("several columns may hold the names: {several}; name one with `id_column`");
                        return Err(self.wrong(header.line, &problem));
                    }
                },
            },
        };
        let describes = |place: usize| {
            let name = names[place].to_ascii_lowercase();
            NO_NUMBERS.contains(&&*name) || name.split(['_', '-', ' ']).any(|word| DESCRIBING.contains(&word))
        };
        let columns: Vec<usize> = match (run, self.options.dim) {
            (Some(run), dim) if dim.is_none_or(|dim| dim == run.columns.len()) => run.columns.clone().collect(),
            (_, Some(dim)) if dim <= names.len() && name.is_none_or(|name| name < names.len() - dim) => {
                (names.len() - dim..names.len()).collect()
            }
            (_, Some(dim)) => {
                let problem = format!("{} columns are named here, so a vector cannot have {dim} numbers", names.len());
                return Err(self.wrong(header.line, &problem));
            }
            _ => (0..names.len()).filter(|place| Some(*place) != name && any_number(*place) && !describes(*place)).collect(),
        };
        let (Some(&from), Some(&to)) = (columns.first(), columns.last()) else {
            return Err(self.wrong(first.line, "a name and then numbers were expected"));
        };
        reading.took(format!("header: line {}", header.line));
        reading.took(match name {
            None => "names: row numbers".to_owned(),
            Some(place) if names[place].is_empty() => format!("names: column {}", place + 1),
            Some(place) => format!("names: column `{}`", names[place]),
        });
        reading.took(format!("vectors: columns `{}` to `{}`", names[from], names[to]));
        if run.is_none() {
            doubt_labels(reading, body, &columns, |last| format!("`{}`", names[last]));
        }
        let left: Vec<usize> = (0..names.len()).filter(|place| Some(*place) != name && !columns.contains(place)).collect();
        if !left.is_empty() {
            let shown: Vec<String> = left.iter().take(8).map(|place| format!("`{}`", names[*place])).collect();
            let more = if left.len() > 8 { format!(" and {} more", left.len() - 8) } else { String::new() };
            reading.left(format!("column {}{more}", shown.join(", ")));
        }
        let plain = name == Some(0) && columns.len() + 1 == names.len();
        let name = match name {
            None => Name::Row,
            // Names may hold separators where nothing else stands before the numbers.
            Some(0) if plain => Name::Leading { exact: self.options.dim.is_some() },
            Some(place) => Name::Column(place),
        };
        Ok(Layout { name, columns, width: Some(names.len()), trailing: false })
    }

    /// The layout by what the first records agree on.
    fn without_header(&self, records: &[Record], reading: &mut Reading) -> Result<Layout> {
        reading.took("no header");
        let first = &records[0];
        let trailing_empty = records.iter().all(|record| filled(record) < record.len());
        let fields = |record: &Record| record.len() - usize::from(trailing_empty);
        let width = Some(fields(first)).filter(|width| records.iter().all(|record| fields(record) == *width));
        let numbers = |record: &Record| (0..fields(record)).all(|place| self.is_number(record, place));
        let layout = |name: Name, columns: std::ops::Range<usize>| Layout {
            name,
            columns: columns.collect(),
            width,
            trailing: trailing_empty,
        };
        let expected = |line: usize| {
            self.wrong(line, &format!("a name and then numbers were expected, separated by {}", shown(self.separator)))
        };
        // Names from a list: what is no number beside them is left.
        let column = if self.options.names.is_some() { Some("") } else { self.options.id_column.as_deref() };
        if let Some(column) = column {
            let common = most_common(records.iter().map(fields));
            let all = |name: Name, columns: Vec<usize>| Layout { name, columns, width: Some(common), trailing: trailing_empty };
            let any_number = |place: &usize| records.iter().any(|record| self.is_number(record, *place));
            if column.is_empty() {
                reading.took("names: row numbers");
                let columns: Vec<usize> = (0..common).filter(any_number).collect();
                let dim = self.options.dim.unwrap_or(columns.len()).min(common);
                return match columns.len() {
                    0 => Err(expected(first.line)),
                    found if found < dim => Ok(all(Name::Row, (common - dim..common).collect())),
                    found => Ok(all(Name::Row, columns[found - dim..].to_vec())),
                };
            }
            let Some(place) = column.parse::<usize>().ok().filter(|place| (1..=common).contains(place)) else {
                let problem =
                    format!("`id_column = \"{column}\"` is none of the columns, which are numbered from 1 to {common}");
                return Err(self.wrong(first.line, &format!("{problem}, as there is no header")));
            };
            reading.took(format!("names: column {place}"));
            let columns: Vec<usize> = (0..common).filter(|other| *other != place - 1).filter(any_number).collect();
            return if columns.is_empty() { Err(expected(first.line)) } else { Ok(all(Name::Column(place - 1), columns)) };
        }
        if let Some(dim) = self.options.dim {
            if width == Some(dim) && numbers(first) {
                reading.took("names: row numbers");
                return Ok(layout(Name::Row, 0..dim));
            }
            reading.took("names: all before the numbers");
            return Ok(layout(Name::Leading { exact: true }, 1..dim + 1));
        }
        let Some(width) = width else {
            let common = most_common(records.iter().map(|record| trailing(record, self.separator)));
            let odd = records.iter().find(|record| trailing(record, self.separator) != common);
            return match odd {
                Some(record) => {
                    let (found, comma) = (trailing(record, self.separator), shown(self.separator));
                    let gap = (filled(record) - found).saturating_sub(1);
                    let empty = gap > 0 && record.field(gap).is_empty();
                    let empty = if empty { format!(" (column {} is empty)", gap + 1) } else { String::new() };
                    let problem = format!("{found} numbers at its end{empty} where other lines have {common}");
                    Err(self.wrong(record.line, &format!("{problem}; if names contain {comma} and numbers, set `dim`")))
                }
                None if common == 0 => Err(expected(first.line)),
                None => {
                    reading.took("names: all before the numbers");
                    reading.doubt(format!(
                        "names are taken to contain {}, as lines differ in length and all end in {common} numbers; set `dim` if that is wrong",
                        shown(self.separator)
                    ));
                    Ok(layout(Name::Leading { exact: false }, 1..common + 1))
                }
            };
        };
        let all = |place: usize| records.iter().all(|record| self.is_number(record, place));
        let none = |place: usize| !records.iter().any(|record| self.is_number(record, place));
        match (0..width).rev().find(|place| none(*place)) {
            Some(last) if last + 1 == width => Err(expected(first.line)),
            // Texts that are part of the name, where it holds separators.
            Some(last) => {
                let columns = if last > 0 { format!("columns 1 to {}, as one", last + 1) } else { "column 1".to_owned() };
                reading.took(format!("names: {columns}"));
                Ok(layout(Name::Leading { exact: false }, last + 1..width))
            }
            None if width < 2 => Err(expected(first.line)),
            None if !all(0) => {
                let broken = records.iter().any(|record| self.is_number(record, 0) && !is_whole(record.field(0)));
                let odd = |record: &&Record| !self.is_number(record, 0) && (broken || record.field(0).is_empty());
                if let Some(odd) = records.iter().find(odd) {
                    let what = odd.shown(0);
                    let what = if what.is_empty() { "the cell is empty".to_owned() } else { format!("`{what}`") };
                    let problem =
                        format!("{what} where other lines have a number; if column 1 is the name, set `dim = {}`", width - 1);
                    return Err(wrong(self.path, &format!("line {}, column 1", odd.line), &problem));
                }
                reading.took("names: column 1");
                Ok(layout(Name::Leading { exact: false }, 1..width))
            }
            None => {
                let whole = |place: usize| records.iter().all(|record| is_whole(record.field(place)));
                if whole(0) && records.iter().any(|record| is_padded(record.field(0))) {
                    reading.took("names: column 1, numbers with leading zeros");
                    return Ok(layout(Name::Leading { exact: false }, 1..width));
                }
                let could_be_names = whole(0) && distinct(records);
                match (could_be_names, (1..width).all(whole)) {
                    (true, true) => {
                        let problem = format!(
                            "all columns are whole numbers: set `dim = {}` if the first is the name, `dim = {width}` if it is part of the vector",
                            width - 1
                        );
                        Err(self.wrong(first.line, &problem))
                    }
                    (true, false) => {
                        reading.took("names: column 1, whole numbers that are all different");
                        Ok(layout(Name::Leading { exact: false }, 1..width))
                    }
                    (false, _) => {
                        reading.took("names: row numbers, as all columns are numbers");
                        Ok(layout(Name::Row, 0..width))
                    }
                }
            }
        }
    }
}

/// Whether the first fields are all different.
fn distinct(records: &[Record]) -> bool {
    let mut fields: Vec<&[u8]> = records.iter().map(|record| record.field(0)).collect();
    fields.sort_unstable();
    fields.windows(2).all(|pair| pair[0] != pair[1])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(text: &str, options: &Options) -> Result<Csv> {
        let source = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
        Csv::open(Path::new("f.csv"), source, options)
    }

    fn read_with(text: &str, options: &Options) -> Result<(usize, Vec<String>, Vec<f32>)> {
        let mut csv = open(text, options)?;
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        while let Some(batch) = csv.batch(ids.len())? {
            ids.extend(batch.ids);
            values.extend(batch.values);
        }
        Ok((csv.dim(), ids, values))
    }

    fn read(text: &str, dim: Option<usize>) -> Result<(usize, Vec<String>, Vec<f32>)> {
        read_with(text, &Options { dim, ..Options::default() })
    }

    fn refuse(text: &str, dim: Option<usize>) -> String {
        read(text, dim).unwrap_err().to_string()
    }

    fn said(text: &str) -> String {
        open(text, &Options::default()).unwrap().reading().line()
    }

    /// Sixty rows of twelve numbers, as pandas and NumPy write them.
    fn sixty(separator: &str, names: bool, number: impl Fn(usize, usize) -> String) -> Vec<String> {
        let row = |row: usize| {
            let name = names.then(|| format!("n{row}"));
            let cells: Vec<String> = name.into_iter().chain((0..12).map(|column| number(row, column))).collect();
            cells.join(separator)
        };
        (0..60).map(row).collect()
    }

    fn point(row: usize, column: usize) -> String {
        format!("{}.{column}", row % 7)
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
    fn a_first_column_of_whole_numbers_is_a_name_beside_broken_ones() {
        assert_eq!(read("1,0.5,1\n2,0.25,2\n", None).unwrap().1, ["1", "2"]);
        assert!(said("1,0.5,1\n2,0.25,2\n").contains("names: column 1, whole numbers that are all different"));
        assert!(refuse("1,7,0.5,1\n2,0.25,2\n", None).contains("line 2: 2 numbers at its end where other lines have 3"));
        assert_eq!(read("1,7,0.5,1\n2,8,0.25,2\n", Some(2)).unwrap().1, ["1,7", "2,8"]);
        let whole = "4,5,7\n9,6,5\n";
        assert!(refuse(whole, None).contains("set `dim = 2` if the first is the name, `dim = 3`"));
        assert_eq!(read(whole, Some(2)).unwrap(), (2, vec!["4".into(), "9".into()], vec![5.0, 7.0, 6.0, 5.0]));
        assert_eq!(read(whole, Some(3)).unwrap().1, ["0", "1"]);
    }

    #[test]
    fn numbers_alone_are_all_of_the_vector() {
        let text = sixty(",", false, |row, column| format!("{:.18e}", row as f64 + column as f64 / 3.0)).join("\n");
        let (dim, ids, values) = read(&text, None).unwrap();
        assert_eq!((dim, ids.len(), &ids[59][..], values[12]), (12, 60, "59", 1.0));
        assert_eq!(said(&text), "no header, names: row numbers, as all columns are numbers, separator `,`");
        let blanks = text.replace(',', " ");
        assert_eq!(read(&blanks, None).unwrap().0, 12);
        let first = read_with(&text, &Options { id_column: Some("1".into()), ..Options::default() }).unwrap();
        assert_eq!((first.0, &first.1[0][..]), (11, "0.000000000000000000e0"));
        let none = read_with("7,0.5\n8,0.25\n", &Options { id_column: Some(String::new()), ..Options::default() }).unwrap();
        assert_eq!(none, (2, vec!["0".into(), "1".into()], vec![7.0, 0.5, 8.0, 0.25]));
    }

    #[test]
    fn a_header_is_found_or_refused_but_never_a_vector() {
        assert_eq!(read("name,f0,f1\na,1,2\n", None).unwrap().1, ["a"]);
        let rows = sixty(",", true, point);
        for first in ["name", "", "index", "Unnamed: 0", "whatever"] {
            let header: Vec<String> = std::iter::once(first.to_owned()).chain((0..12).map(|i| i.to_string())).collect();
            let text = format!("{}\n{}", header.join(","), rows.join("\n"));
            let (dim, ids, _) = read(&text, None).unwrap();
            assert_eq!((dim, ids.len(), &ids[0][..]), (12, 60, "n0"), "{first}");
            assert!(said(&text).contains("header: line 1"), "{first}");
            // Its dimension does not hide it.
            assert_eq!(read(&text, Some(12)).unwrap().1.len(), 60);
        }
        let short = "name,0,1\na,0.5,1\nb,1,0.5\n";
        assert_eq!(read(short, None).unwrap().1, ["a", "b"]);
        let either = "x,0,1\na,0.5,1\nb,1,0.5\n";
        assert!(refuse(either, None).contains("line 1: this may be a header or a vector"));
        let header = |yes: bool| Options { header: Some(yes), ..Options::default() };
        assert_eq!(read_with(either, &header(true)).unwrap().1, ["a", "b"]);
        assert_eq!(read_with(either, &header(false)).unwrap().1, ["x", "a", "b"]);
        assert_eq!(read("x,1,2\na,0.5,1\n", None).unwrap().1, ["x", "a"]);
        assert_eq!(read("x.png,0,1\na.png,0.5,1\n", None).unwrap().1, ["x.png", "a.png"]);
        assert_eq!(read("x,0,1\na.png,0.5,1\n", None).unwrap().1, ["a.png"]);
        assert!(refuse("0,1\n0.5,0.25\n", None).contains("choose one with `header = true` or `header = false`"));
    }

    #[test]
    fn comments_before_the_records_are_left_out_and_said() {
        for text in ["# made by me\nname,f0,f1\na,1,2\n", "# made by me\na,1,2\n", "#\n# name,f0,f1\na,1,2\n"] {
            let (dim, ids, _) = read(text, None).unwrap();
            assert_eq!((dim, &ids[..]), (2, &["a".to_owned()][..]), "{text:?}");
            assert!(said(text).contains("not read: 1 line of comment"), "{}", said(text));
        }
        let numbered = "# seed, 1, 5\nname,f0,f1\na,1,2\n";
        assert!(read(numbered, None).is_err(), "what may be a record is not dropped");
        assert!(refuse("# made by me\na,1,2\nb,x,2\n", None).contains("line 3"), "lines are those of the file");
    }

    #[test]
    fn columns_are_chosen_by_the_names_of_a_header() {
        let text = "split,path,label,emb_0,emb_1\ntrain,a.jpg,3,0.5,1\ntest,b.jpg,4,2,-1\n";
        assert_eq!(read(text, None).unwrap(), (2, vec!["a.jpg".into(), "b.jpg".into()], vec![0.5, 1.0, 2.0, -1.0]));
        let line = said(text);
        assert!(line.contains("names: column `path`, vectors: columns `emb_0` to `emb_1`"), "{line}");
        assert!(line.ends_with("not read: column `split`, `label`"), "{line}");
        let plain = "file,label,alpha,beta\na,1,0.5,2\nb,2,0.25,4\n";
        assert_eq!(read(plain, None).unwrap(), (2, vec!["a".into(), "b".into()], vec![0.5, 2.0, 0.25, 4.0]));
        let two = "one,two,f0,f1\na,b,1,2\nc,d,3,4\n";
        assert_eq!(read(two, None).unwrap().1, ["a", "c"], "the first column of texts, as without a header");
        let id = Options { id_column: Some("two".into()), ..Options::default() };
        assert_eq!(read_with(two, &id).unwrap().1, ["b", "d"]);
        let id = Options { id_column: Some("three".into()), ..Options::default() };
        assert!(read_with(two, &id).unwrap_err().to_string().contains("no column is called `three`; there are `one`, `two`"));
        let runs = "id,a0,a1,b0,b1\nx,1,2,3,4\ny,5,6,7,8\n";
        assert!(refuse(runs, None).contains("begin with `a`, `b`; name one with `column`"));
        let column = Options { column: Some("b".into()), ..Options::default() };
        assert_eq!(read_with(runs, &column).unwrap().2, [3.0, 4.0, 7.0, 8.0]);
        // R names one column less than there are.
        assert_eq!(read("V1,V2\na,1,2\nb,3,4\n", None).unwrap(), (2, vec!["a".into(), "b".into()], vec![1.0, 2.0, 3.0, 4.0]));
    }

    #[test]
    fn an_empty_cell_or_a_missing_number_is_refused_with_its_place() {
        for names in [true, false] {
            for row in [0, 9, 59] {
                let rows = sixty(",", names, point);
                let change = |new: &str| {
                    let mut rows = rows.clone();
                    let mut cells: Vec<&str> = rows[row].split(',').collect();
                    cells[5] = new;
                    cells.retain(|cell| *cell != "-");
                    rows[row] = cells.join(",");
                    refuse(&rows.join("\n"), None)
                };
                let (empty, line) = (change(""), row + 1);
                assert!(empty.contains(&format!("line {line}, column 6: the cell is empty where number")), "{empty}");
                let text = change("n/a");
                assert!(text.contains(&format!("line {line}, column 6: `n/a` where number")), "{text}");
                let missing = change("-");
                assert!(
                    missing.contains(&format!("line {line}: ")) && missing.contains("numbers at its end where"),
                    "{missing}"
                );
            }
        }
        let bare = refuse("0.5,1.5\n,2.5\n0.25,1.5\n", None);
        assert!(bare.contains("line 2, column 1: the cell is empty"), "{bare}");
    }

    #[test]
    fn what_comes_late_is_checked_like_what_comes_first() {
        let mut many: Vec<String> = (0..300).map(|i| format!("n{i},1.5,2,3")).collect();
        let mut refuse = |last: &str| {
            many.truncate(300);
            many.push(last.to_owned());
            read(&many.join("\n"), None).unwrap_err().to_string()
        };
        assert!(refuse("late,9").contains("line 301: 2 fields where a name and 3 numbers were expected"));
        assert!(
            refuse("late,9,8,7,6")
                .contains("line 301: 5 fields where the lines before have 4; if names contain `,`, set `dim`")
        );
        assert!(refuse("late,9,,7").contains("line 301, column 3: the cell is empty"));
        assert!(refuse("late,x,9,,7").contains("line 301: 5 fields where the lines before have 4"));
    }

    #[test]
    fn semicolons_with_decimal_commas_are_read() {
        let rows = sixty(";", true, |row, column| format!("{},{column}", row % 7));
        let (dim, ids, values) = read(&rows.join("\n"), None).unwrap();
        assert_eq!((dim, ids.len(), values[12 * 3 + 4]), (12, 60, 3.4));
        assert_eq!(said(&rows.join("\n")), "no header, names: column 1, separator `;`, decimal commas");
        let header: Vec<String> = std::iter::once("name".to_owned()).chain((0..12).map(|i| i.to_string())).collect();
        assert_eq!(read(&format!("{}\n{}", header.join(";"), rows.join("\n")), None).unwrap().1.len(), 60);
        assert_eq!(read("a\t0,5\t1\nb\t2\t3,5\n", None).unwrap().2, [0.5, 1.0, 2.0, 3.5]);
        assert!(refuse("a;1,5\nb;2,5\n", None).contains("choose one with `separator`"));
        let semicolon = Options { separator: Some(";".into()), ..Options::default() };
        assert_eq!(read_with("a;1,5\nb;2,5\n", &semicolon).unwrap().2, [1.5, 2.5]);
        let pipe = Options { separator: Some("|".into()), ..Options::default() };
        assert_eq!(read_with("a|1.5|2\n", &pipe).unwrap().2, [1.5, 2.0]);
    }

    #[test]
    fn old_line_ends_marks_and_separators_at_the_end_are_read() {
        let rows = sixty(",", true, point);
        let wanted = read(&rows.join("\n"), None).unwrap();
        assert_eq!(read(&rows.join("\r"), None).unwrap(), wanted);
        assert_eq!(read(&rows.join("\r\n"), None).unwrap(), wanted);
        assert_eq!(read(&format!("\u{feff}{}", rows.join("\n")), None).unwrap(), wanted);
        assert_eq!(read(&format!("{},\n", rows.join(",\n")), None).unwrap(), wanted);
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_line() {
        assert!(refuse("", None).contains("has no record"));
        assert!(refuse("\n \n", None).contains("has no record"));
        assert!(refuse("a,b,c\n", None).contains("line 1: a name and then numbers"));
        assert!(refuse("a,0.1,2\nb,1\n", Some(2)).contains("line 2: 2 fields where a name and 2 numbers"));
        assert!(refuse("a,0.1,2\n\"b\n\",1,x\n", Some(2)).contains("line 2, column 3: `x` where number 2 of 2"));
        assert!(refuse(" ,1,2\n", Some(2)).contains("name is empty"));
        let open = refuse("a,0.5,1\n\"b,0.5,1\nc,0.5,1\n", None);
        assert!(open.contains("line 2"), "{open}");
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
            let options = Options { dim: Some(3), separator: Some(",".into()), ..Options::default() };
            let (dim, ids, values) = read_with(&text, &options).unwrap();
            prop_assert_eq!(dim, 3);
            prop_assert_eq!(ids, rows.iter().map(|(name, _)| name.trim().to_owned()).collect::<Vec<_>>());
            prop_assert_eq!(values, rows.iter().flat_map(|(_, values)| values.clone()).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(prop::sample::select(b"a1.,;\t\"\n\r 0e-".to_vec()), 0..60)) {
            let _ = read(&String::from_utf8(bytes).unwrap(), None);
        }
    }

    #[test]
    fn numbers_with_leading_zeros_are_names_and_labels_are_no_coordinates() {
        let default = Options::default();
        let (dim, ids, values) = read_with("photo,x,y\n0000,0.5,1.5\n0001,2.5,3.5\n", &default).unwrap();
        assert_eq!((dim, ids, values), (2, vec!["0000".to_owned(), "0001".into()], vec![0.5, 1.5, 2.5, 3.5]));
        let (dim, ids, _) = read_with("007,1,2\n008,3,4\n", &default).unwrap();
        assert_eq!((dim, ids), (2, vec!["007".to_owned(), "008".into()]));
        for label in ["species", "y_true", "fine_label", "Class Label", "gt", "cls"] {
            let (dim, _, _) = read_with(&format!("img,x,y,{label}\na.png,0.5,1.5,0\nb.png,2.5,3.5,1\n"), &default).unwrap();
            assert_eq!(dim, 2, "{label}");
        }
        let rows: Vec<String> = (0..8).map(|row| format!("{row}.png,{row}.5,0.25,{}\n", row % 2)).collect();
        assert!(
            open(&rows.concat(), &default).unwrap().reading().doubts[0].contains("column 4"),
            "without a header it is only doubted"
        );
    }
}
