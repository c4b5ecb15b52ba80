//! Names that the columns of features go by in tables of other programs.

use std::ops::Range;

/// Names a column of vectors goes by, the likeliest first.
pub const VECTORS: [&str; 6] = ["embedding", "embeddings", "feature", "features", "vector", "emb"];
/// Names a column of names goes by, the likeliest first.
pub const IDS: [&str; 11] =
    ["id", "name", "key", "image_path", "path", "file_name", "image", "image_id", "filename", "url", "file"];

/// The column that one of these names fits to, whatever its case; the first name that fits a column wins.
pub fn usual(usual: &[&str], names: &[&str], fits: impl Fn(usize) -> bool) -> Option<usize> {
    let place = |wanted: &&str| (0..names.len()).find(|&place| names[place].eq_ignore_ascii_case(wanted) && fits(place));
    usual.iter().find_map(place)
}

/// Columns side by side whose names count up: `0`, `1`, `2` or `f0`, `f1`, `f2` or `emb_001`, `emb_002`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// What stands before the numbers; nothing in `0`, `1`, `2`.
    pub stem: String,
    pub columns: Range<usize>,
}

/// All runs of two and more columns that count up from 0 or 1.
pub fn numbered(names: &[&str], fits: impl Fn(usize) -> bool) -> Vec<Numbered> {
    let mut found: Vec<Numbered> = Vec::new();
    let mut place = 0;
    while place < names.len() {
        let first = place;
        place += 1;
        let Some((stem, number)) = stem_and_number(names[first]).filter(|(_, number)| *number < 2 && fits(first)) else {
            continue;
        };
        while place < names.len()
            && fits(place)
            && stem_and_number(names[place]) == Some((stem, number + (place - first) as u64))
        {
            place += 1;
        }
        if place - first > 1 {
            found.push(Numbered { stem: stem.to_owned(), columns: first..place });
        }
    }
    found
}

/// The run that is the vectors, if there is one or one of them is called like vectors.
pub fn likely(runs: &[Numbered]) -> Option<&Numbered> {
    match runs {
        [one] => Some(one),
        several => VECTORS.iter().find_map(|name| {
            several.iter().find(|run| run.stem.trim_end_matches(['_', '-', '.', ' ']).eq_ignore_ascii_case(name))
        }),
    }
}

fn stem_and_number(name: &str) -> Option<(&str, u64)> {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (stem, number) = name.split_at(name.len() - digits);
    Some((stem, number.parse().ok().filter(|_| digits <= 9)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_count_up_are_found() {
        let run = |stem: &str, columns: Range<usize>| Numbered { stem: stem.into(), columns };
        let all = |names: &[&str]| numbered(names, |_| true);
        assert_eq!(all(&["name", "0", "1", "2"]), [run("", 1..4)]);
        assert_eq!(all(&["x1", "x2", "emb_00", "emb_01", "emb_02", "label"]), [run("x", 0..2), run("emb_", 2..5)]);
        assert_eq!(all(&["f0", "f2", "7", "8", "y1"]), []);
        assert_eq!(numbered(&["f0", "f1", "f2"], |place| place != 1), []);
        assert_eq!(likely(&all(&["x1", "x2", "emb_0", "emb_1"])), Some(&run("emb_", 2..4)));
        assert_eq!(likely(&all(&["x1", "x2", "y0", "y1"])), None);
        assert_eq!(usual(&IDS, &["Filename", "ID"], |_| true), Some(1));
    }
}
