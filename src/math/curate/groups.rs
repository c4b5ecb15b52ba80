//! Groups of near-duplicates: which images of a pool are one image, more or less.
//!
//! Exact copies are collapsed first: a thousand of them are one row of work. Then a *chain* joins whatever is connected by pairs
//! above a threshold, as near-duplicate tools do; it may join strangers over many small steps, and the diameter of a group tells.
//! A *star* joins only rows that are near its first row, so no two of them are farther apart than two steps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::join::{self, Rows, distance};
use crate::kmeans::Products;
use kinset_base::stop::{Stop, Stopped};

/// What makes a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// Near the group's first row.
    #[default]
    Star,
    /// Near any row of the group: connected components.
    Chain,
}

/// Rows in groups. The first row of a group stands for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// `[N]`: the row that stands for each row.
    pub representative: Vec<u32>,
    /// `[N]`: its similarity to that row.
    pub similarity: Vec<f64>,
    /// Groups of two rows or more.
    pub groups: Vec<Group>,
}

/// A group of two rows or more.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its rows, ascending.
    pub members: Vec<u32>,
    /// The largest distance of two members, 0 to 2; of groups above [`MEASURED`] rows, of the first row and the rest only.
    pub diameter: f64,
}

/// Groups of more rows are measured from their first row only.
pub const MEASURED: usize = 2048;

/// Groups rows whose cosine is `least` or more. Earlier rows come first: order them by what shall stand for a group.
///
/// # Errors
/// If it is asked to stop.
pub fn find(rows: &Rows, link: Link, least: f64, products: &impl Products, stop: &Stop) -> Result<Groups, Stopped> {
    let n = rows.len();
    let mut root: Vec<u32> = copies(rows);
    let heads: Vec<usize> = (0..n).filter(|&row| root[row] as usize == row).collect();
    let values: Vec<f32> = heads.iter().flat_map(|&row| rows.row(row).iter().copied()).collect();
    if let Some(&first) = heads.first() {
        let few = Rows::new(&values, rows.row(first).len());
        let mut owner: Vec<usize> = (0..heads.len()).collect();
        join::pairs(&few, &few, true, least, products, stop, |one, other, _| match link {
            Link::Star => {
                if owner[one] == one && owner[other] == other {
                    owner[other] = one;
                }
            }
            Link::Chain => {
                let (a, b) = (leader(&mut owner, one), leader(&mut owner, other));
                owner[a.max(b)] = a.min(b);
            }
        })?;
        for (place, &row) in heads.iter().enumerate() {
            root[row] = heads[leader(&mut owner, place)] as u32;
        }
        // A copy goes where its original went, which is always an earlier row.
        for row in 0..n {
            root[row] = root[root[row] as usize];
        }
    }
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); n];
    for (row, &root) in root.iter().enumerate() {
        members[root as usize].push(row as u32);
    }
    let groups = members.into_iter().filter(|group| group.len() > 1);
    let measured = |members: Vec<u32>| {
        stop.check()?;
        Ok(Group { diameter: diameter(rows, &members), members })
    };
    let groups = groups.map(measured).collect::<Result<_, Stopped>>()?;
    let similarity = (0..n).map(|row| if root[row] as usize == row { 1.0 } else { rows.cosine(row, rows, root[row] as usize) });
    Ok(Groups { similarity: similarity.collect(), representative: root, groups })
}

/// For each row the first row with the same numbers.
fn copies(rows: &Rows) -> Vec<u32> {
    let bits = |row: usize| rows.row(row).iter().map(|x| x.to_bits());
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_unstable_by(|&a, &b| bits(a).cmp(bits(b)).then(a.cmp(&b)));
    let mut root: Vec<u32> = (0..rows.len() as u32).collect();
    for pair in order.windows(2) {
        if bits(pair[0]).eq(bits(pair[1])) {
            root[pair[1]] = root[pair[0]];
        }
    }
    root
}

/// The first row of a group, with shorter ways for the next who asks.
fn leader(owner: &mut [usize], mut row: usize) -> usize {
    while owner[row] != row {
        owner[row] = owner[owner[row]];
        row = owner[row];
    }
    row
}

fn diameter(rows: &Rows, members: &[u32]) -> f64 {
    let from = if members.len() > MEASURED { &members[..1] } else { members };
    let far = |&a: &u32| members.iter().map(move |&b| distance(rows.cosine(a as usize, rows, b as usize)));
    from.iter().flat_map(far).fold(0.0, f64::max)
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
    fn a_chain_joins_strangers_and_its_diameter_tells_a_star_does_not() {
        let values = angles(&[0.0, 10.0, 20.0, 30.0, 180.0]);
        let rows = Rows::new(&values, 2);
        let least = 11.0_f64.to_radians().cos();
        let chain = find(&rows, Link::Chain, least, &Plain, &Stop::default()).unwrap();
        assert_eq!(chain.representative, [0, 0, 0, 0, 4]);
        assert_eq!(chain.groups.len(), 1);
        assert!((chain.groups[0].diameter - (1.0 - 30.0_f64.to_radians().cos())).abs() < 1e-6);
        let star = find(&rows, Link::Star, least, &Plain, &Stop::default()).unwrap();
        assert_eq!(star.representative, [0, 0, 2, 2, 4]);
        let widest = star.groups.iter().map(|group| group.diameter).fold(0.0, f64::max);
        assert!((widest - (1.0 - 10.0_f64.to_radians().cos())).abs() < 1e-6);
    }

    #[test]
    fn copies_are_one_row_of_work_and_one_group() {
        let values = angles(&[50.0, 0.0, 50.0, 0.0, 50.0, 90.0]);
        let found = find(&Rows::new(&values, 2), Link::Star, 0.999, &Plain, &Stop::default()).unwrap();
        assert_eq!(found.representative, [0, 1, 0, 1, 0, 5]);
        assert_eq!(found.groups.iter().map(|g| g.members.clone()).collect::<Vec<_>>(), [vec![0, 2, 4], vec![1, 3]]);
        assert!(found.similarity.iter().all(|s| (s - 1.0).abs() < 1e-7));
        assert_eq!(find(&Rows::new(&[], 2), Link::Chain, 0.5, &Plain, &Stop::default()).unwrap().groups, []);
    }

    proptest! {
        #[test]
        fn chains_are_the_connected_components(flat in prop::collection::vec(-3_i8..=3, 4..200), least in 0.5_f64..1.0) {
            let mut values: Vec<f32> = flat[..flat.len() / 2 * 2].iter().map(|&x| f32::from(x)).collect();
            values.chunks_mut(2).filter(|row| row.iter().all(|x| *x == 0.0)).for_each(|row| row[0] = 1.0);
            prop_assert!(normalize_rows(&mut values, 2).is_empty());
            let rows = Rows::new(&values, 2);
            let n = rows.len();
            // By flooding; exact copies belong together whatever rounding says of their cosine.
            let near = |a: usize, b: usize| rows.row(a) == rows.row(b) || rows.cosine(a, &rows, b) >= least;
            let mut label: Vec<usize> = (0..n).collect();
            loop {
                let before = label.clone();
                for a in 0..n {
                    for b in 0..n {
                        if near(a, b) {
                            label[a] = label[a].min(label[b]);
                        }
                    }
                }
                if label == before {
                    break;
                }
            }
            let found = find(&rows, Link::Chain, least, &Plain, &Stop::default()).unwrap();
            prop_assert_eq!(found.representative.iter().map(|&r| r as usize).collect::<Vec<_>>(), label);
        }
    }
}
