//! Parts of a data set in many files, each read as a data set of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Result;
use super::source::Source;

/// One of the parts into which the files of a source are cut, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Which, from 0.
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// Files in each, fewer in the last; unset, all parts have the same number, or one more.
    #[serde(default)]
    pub files: Option<usize>,
}

impl Part {
    /// What is wrong with it, whatever files there are.
    pub(super) fn problem(&self) -> Option<&'static str> {
        match self {
            Self { files: Some(0), .. } => Some("must have 1 file or more"),
            Self { number, of, .. } if number >= of => Some("must have a `number` below `of`"),
            _ => None,
        }
    }
}

impl Source {
    /// The files of the wanted part, of all in their order.
    ///
    /// # Errors
    /// If so many files do not make so many parts.
    pub(super) fn part_of<T>(&self, mut files: Vec<T>) -> Result<Vec<T>> {
        let Some(Part { number, of, files: each }) = self.part else { return Ok(files) };
        let all = files.len();
        let there = if all == 1 { "there is 1 file".to_owned() } else { format!("there are {all} files") };
        let (from, to) = match each {
            None if all < of => {
                return Err(
                    self.fault("part", format!("is one of {of}, and {there}: set `parts` of `[shard]` to {all} or less"))
                );
            }
            None => (share(number, of, all), share(number + 1, of, all)),
            Some(each) => {
                let parts = all.div_ceil(each);
                if parts != of {
                    let problem =
                        format!("is one of {of} with {each} files each, and {there}: set `parts` of `[shard]` to {parts}");
                    return Err(self.fault("part", problem));
                }
                (number * each, ((number + 1) * each).min(all))
            }
        };
        files.truncate(to);
        Ok(files.split_off(from))
    }
}

/// Where the part of a number begins, if all parts are as long as each other.
fn share(number: usize, of: usize, all: usize) -> usize {
    (number as u128 * all as u128 / of as u128) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(number: usize, of: usize, files: Option<usize>, all: usize) -> std::result::Result<Vec<usize>, String> {
        let source = Source { part: Some(Part { number, of, files }), ..Source::named("tar") };
        source.part_of((0..all).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn parts_follow_each_other_and_leave_no_file_out() {
        for (of, files, all) in [(1, None, 1), (3, None, 3), (3, None, 11), (7, None, 20), (3, Some(4), 11), (2, Some(9), 18)] {
            let parts: Vec<Vec<usize>> = (0..of).map(|number| cut(number, of, files, all).unwrap()).collect();
            assert_eq!(parts.concat(), (0..all).collect::<Vec<_>>(), "{of} {files:?} {all}");
            let lengths: Vec<usize> = parts.iter().map(Vec::len).collect();
            match files {
                None => assert!(lengths.iter().all(|length| length.abs_diff(all / of) <= 1 && *length > 0), "{lengths:?}"),
                Some(files) => assert!(lengths[..of - 1].iter().all(|length| *length == files), "{lengths:?}"),
            }
        }
    }

    #[test]
    fn a_further_file_changes_no_earlier_part() {
        for number in 0..5 {
            assert_eq!(cut(number, 5, None, 5), cut(number, 6, None, 6), "a file each");
        }
        for number in 0..2 {
            assert_eq!(cut(number, 3, Some(4), 10), cut(number, 3, Some(4), 11), "into the last part");
            assert_eq!(cut(number, 3, Some(4), 12), cut(number, 4, Some(4), 13), "a part of its own");
        }
    }

    #[test]
    fn a_number_of_parts_that_does_not_fit_is_told_with_one_that_does() {
        assert_eq!(
            cut(0, 4, None, 3).unwrap_err(),
            "`part` of `tar` is one of 4, and there are 3 files: set `parts` of `[shard]` to 3 or less"
        );
        assert_eq!(
            cut(0, 2, Some(4), 9).unwrap_err(),
            "`part` of `tar` is one of 2 with 4 files each, and there are 9 files: set `parts` of `[shard]` to 3"
        );
        assert!(Part { number: 2, of: 2, files: None }.problem().is_some());
        assert!(Part { number: 0, of: 2, files: Some(0) }.problem().is_some());
    }
}
