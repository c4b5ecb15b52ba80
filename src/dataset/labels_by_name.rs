//! Labels as data sets of others write them, numbers or texts, made into classes.
//!
//! If all are numbers of classes, they stay what they are. Otherwise they are numbered in the order of their bytes, and are the names
//! of the classes. −1 and empty texts are no label. What cannot be classes, fractions or another text for each of a million images,
//! costs the labels and not the images.

use std::collections::BTreeSet;

use super::reader::Labels;
use kinset_artifact::parquet::pictures::FoundLabel;
use kinset_base::unit::count;

/// More are no classes but, say, names of products. The largest published sets have some 360,000.
pub(super) const MAX_CLASSES: usize = 1 << 19;
/// Longer names, all together, are none of classes either.
const MAX_BYTES: usize = 32 << 20;

/// The labels of a data set before the first one gets its number: all of them are seen once.
#[derive(Debug, Default)]
pub(super) struct LabelScan {
    names: BTreeSet<String>,
    bytes: usize,
    /// Some are no numbers of classes.
    words: bool,
    fraction: Option<f64>,
}

/// What labels are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Classes {
    Numbered,
    /// In the order of their bytes.
    Named(Vec<String>),
    None {
        why: String,
    },
}

impl LabelScan {
    pub(super) fn see(&mut self, label: &FoundLabel) {
        if let FoundLabel::Fraction(value) = label {
            self.fraction.get_or_insert(*value);
        } else if let Some(name) = name_of(label)
            && !self.is_full()
            && !self.names.contains(&name)
        {
            self.words |= !name.parse().is_ok_and(|number| (0..MAX_CLASSES).contains(&number));
            self.bytes += name.len();
            self.names.insert(name);
        }
    }

    fn is_full(&self) -> bool {
        self.names.len() > MAX_CLASSES || self.bytes > MAX_BYTES
    }

    /// `place` is for people: "the column `label`".
    pub(super) fn finish(self, place: &str) -> Classes {
        let none = |why: String| Classes::None { why: format!("{place} {why}") };
        match self.fraction {
            Some(value) => none(format!("holds numbers such as {value}, which cannot be classes")),
            None if self.is_full() => none(format!("holds more than {} names", count(self.names.len() as u64 - 1))),
            None if self.names.is_empty() => none("has no value for any image".to_owned()),
            None if self.words => Classes::Named(self.names.into_iter().collect()),
            None => Classes::Numbered,
        }
    }
}

impl Classes {
    pub(super) fn labels(&self) -> Labels {
        match self {
            Self::Numbered => Labels::Numbered,
            Self::Named(names) => Labels::Named(names.clone()),
            Self::None { why } => Labels::Absent { why: why.clone() },
        }
    }

    /// The number of a label: −1 if it is none.
    pub(super) fn number(&self, label: Option<&FoundLabel>) -> i32 {
        let found = label.and_then(name_of).and_then(|name| match self {
            Self::Numbered => name.parse().ok(),
            Self::Named(names) => names.binary_search(&name).ok(),
            Self::None { .. } => None,
        });
        found.map_or(-1, |number| i32::try_from(number).unwrap_or(-1))
    }
}

/// A label as a text; nothing if there is none. `007` is the number 7.
fn name_of(label: &FoundLabel) -> Option<String> {
    match label {
        FoundLabel::Number(-1) | FoundLabel::Fraction(_) => None,
        FoundLabel::Number(number) => Some(number.to_string()),
        FoundLabel::Text(text) => match text.trim() {
            "" | "-1" => None,
            text => Some(text.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: i64) -> FoundLabel {
        FoundLabel::Number(value)
    }

    fn text(text: &str) -> FoundLabel {
        FoundLabel::Text(text.to_owned())
    }

    /// What they are, and the number of each.
    fn classes(labels: &[FoundLabel]) -> (Classes, Vec<i32>) {
        let mut scan = LabelScan::default();
        for label in labels {
            scan.see(label);
        }
        let classes = scan.finish("the column `label`");
        let numbers = labels.iter().map(|label| classes.number(Some(label))).collect();
        (classes, numbers)
    }

    fn named(names: &[&str]) -> Classes {
        Classes::Named(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn numbers_stay_and_texts_are_numbered_by_name() {
        assert_eq!(classes(&[number(3), number(-1), number(0)]), (Classes::Numbered, vec![3, -1, 0]));
        assert_eq!(classes(&[text("dog"), text("cat"), text(" dog\n"), text("")]), (named(&["cat", "dog"]), vec![1, 0, 1, -1]));
        assert_eq!(classes(&[text("7"), text("007"), text("-1")]), (Classes::Numbered, vec![7, 7, -1]));
        assert_eq!(classes(&[text("cat"), number(3)]), (named(&["3", "cat"]), vec![1, 0]));
        assert_eq!(classes(&[text("true"), text("false")]), (named(&["false", "true"]), vec![1, 0]));
        assert_eq!(classes(&[number(i64::MAX), number(-2)]).0, named(&["-2", "9223372036854775807"]));
        assert_eq!(Classes::Numbered.number(None), -1);
    }

    #[test]
    fn what_cannot_be_classes_says_why() {
        let why = |labels: &[FoundLabel]| match classes(labels) {
            (Classes::None { why }, numbers) => {
                assert!(numbers.iter().all(|number| *number == -1));
                why
            }
            (other, _) => panic!("{other:?}"),
        };
        assert_eq!(
            why(&[number(1), FoundLabel::Fraction(0.37)]),
            "the column `label` holds numbers such as 0.37, which cannot be classes"
        );
        assert_eq!(why(&[number(-1), text("")]), "the column `label` has no value for any image");
        let mut scan = LabelScan::default();
        (0..=MAX_CLASSES + 5).for_each(|i| scan.see(&text(&format!("n{i}"))));
        assert_eq!(scan.names.len(), MAX_CLASSES + 1, "no more are kept");
        let Classes::None { why } = scan.finish("the files `.cls`") else { panic!() };
        assert_eq!(why, "the files `.cls` holds more than 524,288 names");
    }
}
