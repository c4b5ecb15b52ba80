//! Repeated frames of a target, to be dropped: a camera that stands still must not weigh more than one that moves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::join::{self, Rows};
use crate::kmeans::Products;
use kinset_base::stop::{Stop, Stopped};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// In the order of the file: keep a frame, drop all later ones that are at least so similar to it.
    #[default]
    Greedy,
    /// As the fork of SCAN does, by an index that is off by one: drop *every* frame that has a similar one, so that whole
    /// sequences vanish and only frames that stand alone remain.
    Fork,
    None,
}

/// What became of each row.
#[derive(Clone, Debug, PartialEq)]
pub struct Repeats {
    /// `[N]`: true if it stays.
    pub kept: Vec<bool>,
    /// `[N]`: the row that stands for it, itself if it stays; under [`Rule::Fork`] the most similar row, kept or not.
    pub representative: Vec<u32>,
    /// `[N]`: its similarity to that row.
    pub similarity: Vec<f64>,
}

/// Finds repetitions: rows whose cosine is `least` or more.
///
/// # Errors
/// If it is asked to stop.
pub fn find(rows: &Rows, rule: Rule, least: f64, products: &impl Products, stop: &Stop) -> Result<Repeats, Stopped> {
    let n = rows.len();
    let mut found = Repeats { kept: vec![true; n], representative: (0..n as u32).collect(), similarity: vec![1.0; n] };
    match rule {
        Rule::None => Ok(()),
        // Pairs come by row: when a row's pairs come, nothing can drop it any more.
        Rule::Greedy => join::pairs(rows, rows, true, least, products, stop, |row, later, cosine| {
            if found.kept[row] && found.kept[later] {
                found.kept[later] = false;
                found.representative[later] = row as u32;
                found.similarity[later] = cosine;
            }
        }),
        Rule::Fork => join::pairs(rows, rows, true, least, products, stop, |row, later, cosine| {
            for (one, other) in [(row, later), (later, row)] {
                // The first of equals: pairs of a row come by column.
                if found.kept[one] || cosine > found.similarity[one] {
                    found.kept[one] = false;
                    found.representative[one] = other as u32;
                    found.similarity[one] = cosine;
                }
            }
        }),
    }?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cosine::normalize_rows;
    use crate::kmeans::Plain;

    fn angles(degrees: &[f64]) -> Vec<f32> {
        degrees.iter().map(|d| d.to_radians()).flat_map(|a| [a.cos() as f32, a.sin() as f32]).collect()
    }

    #[test]
    fn the_seven_angles_of_the_specification() {
        let degrees = [0.0, 1.0, 2.0, 90.0, 91.0, 180.0, 270.0];
        let values = angles(&degrees);
        let rows = Rows::new(&values, 2);
        let kept = |rule| {
            let found = find(&rows, rule, 0.98, &Plain, &Stop::default()).unwrap();
            degrees.iter().zip(found.kept).filter(|(_, kept)| *kept).map(|(d, _)| *d).collect::<Vec<f64>>()
        };
        assert_eq!(kept(Rule::Greedy), [0.0, 90.0, 180.0, 270.0]);
        assert_eq!(kept(Rule::Fork), [180.0, 270.0]);
        assert_eq!(kept(Rule::None), degrees);
        let greedy = find(&rows, Rule::Greedy, 0.98, &Plain, &Stop::default()).unwrap();
        assert_eq!(greedy.representative, [0, 0, 0, 3, 3, 5, 6]);
        assert!((greedy.similarity[2] - 2.0_f64.to_radians().cos()).abs() < 1e-6);
    }

    #[test]
    fn a_dropped_frame_drops_no_other() {
        // 0, 10 and 20 degrees at cos 11°: 10 goes for 0; 20 is near 10 only, and 10 is gone.
        let values = angles(&[0.0, 10.0, 20.0]);
        let found = find(&Rows::new(&values, 2), Rule::Greedy, 11.0_f64.to_radians().cos(), &Plain, &Stop::default()).unwrap();
        assert_eq!(found.kept, [true, false, true]);
    }

    #[test]
    fn the_threshold_itself_counts_and_exact_copies_are_repetitions() {
        let values = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        let rows = Rows::new(&values, 2);
        assert_eq!(find(&rows, Rule::Greedy, 1.0, &Plain, &Stop::default()).unwrap().kept, [true, true, false]);
        assert_eq!(find(&rows, Rule::Greedy, 0.0, &Plain, &Stop::default()).unwrap().kept, [true, false, false]);
        assert_eq!(find(&rows, Rule::Fork, 1.0, &Plain, &Stop::default()).unwrap().kept, [false, true, false]);
    }

    proptest! {
        #[test]
        fn greedy_leaves_no_pair_alike_and_drops_none_without_a_reason(
            flat in prop::collection::vec(-3_i8..=3, 4..400), least in 0.3_f64..1.0,
        ) {
            let mut values: Vec<f32> = flat[..flat.len() / 2 * 2].iter().map(|&x| f32::from(x)).collect();
            values.chunks_mut(2).filter(|row| row.iter().all(|x| *x == 0.0)).for_each(|row| row[0] = 1.0);
            prop_assert!(normalize_rows(&mut values, 2).is_empty());
            let rows = Rows::new(&values, 2);
            let found = find(&rows, Rule::Greedy, least, &Plain, &Stop::default()).unwrap();
            for row in 0..rows.len() {
                let near: Vec<usize> = (0..row).filter(|&r| found.kept[r] && rows.cosine(r, &rows, row) >= least).collect();
                prop_assert_eq!(found.kept[row], near.is_empty());
                prop_assert_eq!(found.representative[row] as usize, near.first().copied().unwrap_or(row));
            }
            let alone = find(&rows, Rule::Fork, least, &Plain, &Stop::default()).unwrap();
            for row in 0..rows.len() {
                let near = (0..rows.len()).any(|r| r != row && rows.cosine(r, &rows, row) >= least);
                prop_assert_eq!(alone.kept[row], !near);
            }
        }
    }
}
