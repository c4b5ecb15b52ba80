//! The text of a pipeline file as a tree in which every key and value knows where it stands. The only file that knows TOML beside `dataset::names`.
//!
//! A tree of our own rather than serde's derive: deserializing stops at the first fault, and we owe all of them. Overlays
//! (profiles, `--set`) are merged tree by tree, so that a fault in a merged setting still points at the text it came from.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::fault::{Finding, Place, Source, SpecFault, quote};

/// Syntax faults reported; more of them have one cause.
const SYNTAX_FAULTS: usize = 100;

/// A value that knows its place.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where it stands. For a table with a header: the header.
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    /// Keys and values, in the order of the text.
    Table(Table),
    /// `[1, 2]`.
    List(Vec<Item>),
    /// `"text"`.
    Text(String),
    /// `7`; from the smallest `i64` to the largest `u64`.
    Whole(i128),
    /// `7.0`, finite.
    Real(f64),
    /// `true`.
    Flag(bool),
    /// Something no setting can be. It has been reported, so whoever meets it passes by in silence.
    Unfit,
}

/// Keys and values, in the order of the text.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Each key at most once.
    pub entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub name: String,
    /// Where the key stands.
    pub key: Place,
    pub item: Item,
}

impl Table {
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    pub fn take(&mut self, name: &str) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.name == name)?;
        Some(self.entries.remove(at))
    }

    /// Lays another table over this one: tables are merged key by key, everything else is replaced. New keys come last.
    pub fn overlay(&mut self, over: &Table) {
        let mine: BTreeMap<String, usize> =
            self.entries.iter().enumerate().map(|(index, entry)| (entry.name.clone(), index)).collect();
        for entry in &over.entries {
            match mine.get(&entry.name).and_then(|&index| self.entries.get_mut(index)) {
                None => self.entries.push(entry.clone()),
                Some(mine) => {
                    if let (Value::Table(mine), Value::Table(over)) = (&mut mine.item.value, &entry.item.value) {
                        mine.overlay(over);
                    } else {
                        mine.key = entry.key;
                        mine.item = entry.item.clone();
                    }
                }
            }
        }
    }

    /// Every key and value below, with its place.
    pub fn places(&self, into: &mut Vec<Place>) {
        for entry in &self.entries {
            into.push(entry.key);
            entry.item.places(into);
        }
    }
}

impl Item {
    fn places(&self, into: &mut Vec<Place>) {
        into.push(self.place);
        match &self.value {
            Value::Table(table) => table.places(into),
            Value::List(items) => items.iter().for_each(|item| item.places(into)),
            _ => {}
        }
    }

    /// What a person would call it.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Table(_) => "a table".into(),
            Value::List(items) if items.is_empty() => "an empty list".into(),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Text(text) => format!("the text {}", quote(text)),
            Value::Whole(number) => format!("`{number}`"),
            Value::Real(number) => format!("`{number:?}`"),
            Value::Flag(flag) => format!("`{flag}`"),
            Value::Unfit => "something else".into(),
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value as JSON; none if some of it is unfit.
    pub fn json(&self) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        Some(match &self.value {
            Value::Table(table) => {
                let pairs: Option<_> = table.entries.iter().map(|e| Some((e.name.clone(), e.item.json()?))).collect();
                Json::Object(pairs?)
            }
            Value::List(items) => Json::Array(items.iter().map(Self::json).collect::<Option<_>>()?),
            Value::Text(text) => Json::String(text.clone()),
            Value::Whole(number) => match (u64::try_from(*number), i64::try_from(*number)) {
                (Ok(number), _) => number.into(),
                (_, Ok(number)) => number.into(),
                _ => return None,
            },
            Value::Real(number) => Json::Number(serde_json::Number::from_f64(*number)?),
            Value::Flag(flag) => Json::Bool(*flag),
            Value::Unfit => return None,
        })
    }
}

/// Reads a text. What could be read comes back even if there are faults.
pub fn read(sources: &mut Vec<Source>, name: &str, text: &str, findings: &mut Vec<Finding>) -> Table {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = push(sources, name, text);
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { source, findings };
    let table = reader.table(tree.get_ref());
    reader.syntax(text, errors, &table);
    table
}

/// Reads a `--set` text, `stage.pretext.epochs=5`: TOML, or a bare word behind the `=`.
///
/// The part before the first `=` is a dotted key. What stands behind it is TOML if it can be read as such, else text, so that a
/// shell needs no second layer of quotes.
pub fn read_option(sources: &mut Vec<Source>, name: &str, text: &str, findings: &mut Vec<Finding>) -> Table {
    let source = push(sources, name, text);
    let (tree, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Reader { source, findings }.table(tree.get_ref());
    }
    let whole = Place { source, start: 0, end: text.len() as u32 };
    let Some((key, word)) = text.split_once('=') else {
        findings.push(Finding::at(
            whole,
            SpecFault::Syntax {
                message: format!("{} does not say what to set", quote(text)),
                hint: Some("write a path and a value: `stage.pretext.epochs=5`".into()),
            },
        ));
        return Table::default();
    };
    // Quotes, brackets and line ends were meant as TOML: its own complaint says more than a stage's about a strange text.
    let word = word.trim();
    let bare = !word.is_empty() && !word.contains(['"', '\'', '[', ']', '{', '}', '\n', '\r', '#']);
    let probe = format!("{key}= 0");
    let (tree, wrong_key) = DeTable::parse_recoverable(&probe);
    if bare && wrong_key.is_empty() && !key.contains('\n') {
        let mut table = Reader { source, findings }.table(tree.get_ref());
        let start = text.len() - text[key.len() + 1..].trim_start().len();
        let place = Place { source, start: start as u32, end: (start + word.len()) as u32 };
        replace_leaf(&mut table, &Item { place, value: Value::Text(word.to_owned()) });
        return table;
    }
    let mut reader = Reader { source, findings };
    let (tree, errors) = DeTable::parse_recoverable(text);
    let table = reader.table(tree.get_ref());
    reader.syntax(text, errors, &table);
    Table::default()
}

fn push(sources: &mut Vec<Source>, name: &str, text: &str) -> u32 {
    sources.push(Source { name: name.to_owned(), text: text.to_owned() });
    (sources.len() - 1) as u32
}

fn replace_leaf(table: &mut Table, leaf: &Item) {
    for entry in &mut table.entries {
        match &mut entry.item.value {
            Value::Table(inner) => replace_leaf(inner, leaf),
            _ => entry.item = leaf.clone(),
        }
    }
}

struct Reader<'a> {
    source: u32,
    findings: &'a mut Vec<Finding>,
}

impl Reader<'_> {
    fn place(&self, span: std::ops::Range<usize>) -> Place {
        Place { source: self.source, start: span.start as u32, end: span.end as u32 }
    }

    fn table(&mut self, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                name: key.get_ref().to_string(),
                key: self.place(key.span()),
                item: self.item(key.get_ref(), self.place(value.span()), value.get_ref()),
            })
            .collect();
        entries.sort_by_key(|entry| entry.key);
        Table { entries }
    }

    fn item(&mut self, name: &str, place: Place, value: &DeValue<'_>) -> Item {
        let value = match value {
            DeValue::Table(table) => Value::Table(self.table(table)),
            DeValue::Array(items) => {
                Value::List(items.iter().map(|item| self.item(name, self.place(item.span()), item.get_ref())).collect())
            }
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) if i128::from(i64::MIN) <= number && number <= i128::from(u64::MAX) => Value::Whole(number),
                _ => self.unfit(name, place, "an integer of at most 64 bits", number.as_str()),
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Real(number),
                _ => self.unfit(name, place, "a finite number", number.as_str()),
            },
            DeValue::Datetime(date) => self.unfit(name, place, "a text in quotes, a number, true or false", &date.to_string()),
        };
        Item { place, value }
    }

    fn unfit(&mut self, name: &str, place: Place, want: &str, found: &str) -> Value {
        self.findings.push(Finding::at(
            place,
            SpecFault::Value { what: quote(name), want: want.into(), found: quote(found), hint: None },
        ));
        Value::Unfit
    }

    /// The parser's complaints, one per line: what follows in the same line is mostly an echo.
    fn syntax(&mut self, text: &str, errors: Vec<toml::de::Error>, table: &Table) {
        let mut errors: Vec<_> = errors
            .iter()
            .map(|error| {
                let span = error.span().unwrap_or(0..0);
                (span.start.min(text.len()), span.end.min(text.len()), error.message())
            })
            .collect();
        errors.sort_unstable();
        let mut keys = Vec::new();
        let (mut line, mut counted, mut last_line, mut reported) = (0, 0, None, 0);
        for (start, end, message) in errors {
            line += line_ends(&text.as_bytes()[counted..start]);
            counted = start;
            if last_line == Some(line) {
                continue;
            }
            last_line = Some(line);
            reported += 1;
            if reported > SYNTAX_FAULTS {
                return;
            }
            let written = text.get(start..end).unwrap_or_default();
            let (message, hint) = plain_words(message, written);
            let mut place = self.place(start..end);
            if message == NEVER_CLOSED {
                // The parser noticed at the end of the file; the reader needs the beginning.
                place = unclosed(table, place).unwrap_or(place);
            }
            let mut finding = Finding::at(place, SpecFault::Syntax { message, hint });
            if written_twice(&finding) {
                if keys.is_empty() {
                    collect_keys(table, &mut keys);
                }
                let first = keys.iter().filter(|(name, key)| name == written && *key < place).max_by_key(|(_, key)| *key);
                finding.notes.extend(first.map(|(_, key)| (*key, "first given here".to_owned())));
            }
            self.findings.push(finding);
        }
    }
}

/// How many lines end in these bytes.
pub fn line_ends(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count() - 1
}

const NEVER_CLOSED: &str = "this text is never closed";

/// The text that ends where the parser gave up.
fn unclosed(table: &Table, end: Place) -> Option<Place> {
    let mut places = Vec::new();
    table.places(&mut places);
    places.into_iter().find(|place| place.end == end.start && place.start < place.end)
}

fn written_twice(finding: &Finding) -> bool {
    matches!(&finding.fault, SpecFault::Syntax { message, .. } if message.ends_with("is given twice"))
}

fn collect_keys(table: &Table, into: &mut Vec<(String, Place)>) {
    for entry in &table.entries {
        into.push((entry.name.clone(), entry.key));
        if let Value::Table(table) = &entry.item.value {
            collect_keys(table, into);
        }
    }
}

/// The parser speaks of tokens; people think of keys and values.
fn plain_words(message: &str, written: &str) -> (String, Option<String>) {
    match message {
        "duplicate key" => (format!("{} is given twice", quote(written)), None),
        "string values must be quoted, expected literal string" if written.is_empty() => {
            ("a value is missing here".into(), None)
        }
        "string values must be quoted, expected literal string" => {
            (format!("{} is not a value", quote(written)), Some("text stands in quotes".into()))
        }
        _ if message.starts_with("invalid multi-line") => {
            (NEVER_CLOSED.into(), Some("close it with the same three quotes".into()))
        }
        _ if message.starts_with("invalid basic string, expected `\"`")
            || message.starts_with("invalid literal string, expected `'`") =>
        {
            ("the closing quote is missing".into(), None)
        }
        _ if message.starts_with("unclosed table") => ("the header is not closed".into(), Some("a `]` is missing".into())),
        _ if message.starts_with("unclosed array") => ("the list is not closed".into(), Some("a `]` is missing".into())),
        _ if message.starts_with("missing comma between array") => {
            ("a comma or the end of the list is missing here".into(), None)
        }
        _ => (message.to_owned(), None),
    }
}
