//! Attributes of images: delimited text with a header, a name first and then a column per attribute.
//!
//! For reports only: `class`, `weather`, `time of day`. Values are texts; numbers that are all different are no attribute.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use super::records::{Record, Records};
use crate::error::Result;
use kinset_base::fs;

/// More different values make no distribution that anybody looks at.
pub const MOST_VALUES: usize = 1000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The columns, in the order of the file.
    pub columns: Vec<String>,
    /// Per column, its different values in the order of their first occurrence.
    pub values: Vec<Vec<String>>,
    /// Per image, the place of its value in each column.
    rows: BTreeMap<String, Vec<u32>>,
}

impl Attributes {
    /// Reads a file. `name` turns what the first column says into what images are asked for by.
    ///
    /// # Errors
    /// If it cannot be read, has no header or no image, or a record has not as many fields as the header; if a name comes
    /// twice; if a column has more than [`MOST_VALUES`] different values.
    pub fn open(path: &Path, name: impl Fn(&str) -> String) -> Result<Self> {
        Self::read(path, Box::new(fs::reader(path)?), name)
    }

    fn read(path: &Path, source: Box<dyn BufRead + Send>, name: impl Fn(&str) -> String) -> Result<Self> {
        // By the names of the columns: values may hold anything.
        let columns = |separator: u8, records: &[Record]| {
            let rank = b" \t;,".iter().position(|other| *other == separator).unwrap_or(0);
            records.first().filter(|first| rank > 0 && first.len() > 1).map_or(0, |first| first.len() * 4 + rank)
        };
        let mut csv = Records::open(path, source, None, columns)?;
        let wrong = |line: usize, problem: &str| super::records::wrong(path, &format!("line {line}"), problem);
        let fields = |record: &Record| -> Result<Vec<String>> {
            let text = |place: usize| std::str::from_utf8(record.field(place)).map(str::to_owned);
            (0..record.len())
                .map(text)
                .collect::<std::result::Result<_, _>>()
                .map_err(|_| wrong(record.line, "this is not UTF-8"))
        };
        let Some(first) = csv.read()? else { return Err(wrong(1, "the file has no header")) };
        let columns = fields(&first)?.split_off(1);
        if columns.is_empty() || columns.iter().any(String::is_empty) {
            let what = "a header was expected: a name for the names, then one for each attribute";
            return Err(wrong(first.line, what));
        }
        let mut places: Vec<BTreeMap<String, u32>> = vec![BTreeMap::new(); columns.len()];
        let mut found = Self { values: vec![Vec::new(); columns.len()], columns, rows: BTreeMap::new() };
        while let Some(record) = csv.read()? {
            let mut all = fields(&record)?;
            if all.len() != found.columns.len() + 1 {
                let what = format!("{} fields where the header has {}", all.len(), found.columns.len() + 1);
                return Err(wrong(record.line, &what));
            }
            let image = name(&all.remove(0));
            let mut row = Vec::with_capacity(all.len());
            for (column, value) in all.into_iter().enumerate() {
                let next = found.values[column].len() as u32;
                let place = *places[column].entry(value.clone()).or_insert(next);
                if place == next {
                    found.values[column].push(value);
                }
                row.push(place);
            }
            if let Some(column) = found.values.iter().position(|values| values.len() > MOST_VALUES) {
                let what = format!("`{}` has more than {MOST_VALUES} different values by here", found.columns[column]);
                return Err(wrong(record.line, &what));
            }
            if found.rows.insert(image.clone(), row).is_some() {
                return Err(wrong(record.line, &format!("`{image}` is named a second time")));
            }
        }
        if found.rows.is_empty() {
            return Err(wrong(first.line, "no image follows the header"));
        }
        Ok(found)
    }

    /// How often each value of each column occurs among images: `[columns][values]`; and how many images are not in the file.
    pub fn count(&self, images: impl IntoIterator<Item = impl AsRef<str>>) -> (Vec<Vec<usize>>, usize) {
        let mut counts: Vec<Vec<usize>> = self.values.iter().map(|values| vec![0; values.len()]).collect();
        let mut unknown = 0;
        for image in images {
            match self.rows.get(image.as_ref()) {
                None => unknown += 1,
                Some(row) => counts.iter_mut().zip(row).for_each(|(counts, &place)| counts[place as usize] += 1),
            }
        }
        (counts, unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Attributes> {
        let source = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
        Attributes::read(Path::new("a.csv"), source, |name| name.trim_end_matches(".png").to_owned())
    }

    #[test]
    fn values_are_counted_by_column_and_strangers_apart() {
        let found = read("name,class,\"time, of day\"\na.png,cat,day\nb,dog,\"night, late\"\nc,cat,day\n").unwrap();
        assert_eq!(found.columns, ["class", "time, of day"]);
        assert_eq!(found.values, [["cat", "dog"], ["day", "night, late"]]);
        let (counts, unknown) = found.count(["a", "b", "a", "z"]);
        assert_eq!(counts, [[2, 1], [2, 1]]);
        assert_eq!(unknown, 1);
    }

    #[test]
    fn tables_of_other_programs_are_read() {
        let wanted = read("name,class\na,cat\nb,dog\n").unwrap();
        for text in ["\u{feff}name;class\r\na;cat\r\nb;dog\r\n", "name\tclass\ra\tcat\rb\tdog"] {
            assert_eq!(read(text).unwrap(), wanted, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_table_of_attributes_is_refused_with_its_line() {
        let many = (0..1002).map(|row| format!("{row},{row}\n")).collect::<Vec<_>>().concat();
        for (text, said) in [
            ("", "line 1: the file has no header"),
            ("name\na\n", "line 1: a header was expected"),
            ("name,\na,b\n", "line 1: a header was expected"),
            ("name,class\n", "line 1: no image follows"),
            ("name,class\na,b\nc\n", "line 3: 1 fields where the header has 2"),
            ("name,class\na,b\na.png,c\n", "line 3: `a` is named a second time"),
            ("name,class\r\n\r\na,b\r\na.png,c\r\n", "line 4: `a` is named a second time"),
            (&format!("name,class\n{many}"), "more than 1000 different values"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
