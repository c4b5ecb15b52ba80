//! The distribution of known attributes: shares of every value of every attribute in the target, in the selection, and in the pool,
//! which is what random selection has.
//!
//! Counted after everything was chosen: no stage reads attributes, so no choice can follow them.

use serde::Serialize;

use crate::artifact::selection::SelectionTable;
use crate::builtin::similar::stage::stem;
use crate::dataset::vectors::attributes::Attributes;

/// How often values occur: `[columns][values]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    values: Vec<Vec<usize>>,
    unknown: usize,
}

impl Counts {
    pub fn none(known: &Attributes) -> Self {
        Self { values: known.values.iter().map(|values| vec![0; values.len()]).collect(), unknown: 0 }
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, (values, unknown): (Vec<Vec<usize>>, usize)) {
        for (all, more) in self.values.iter_mut().zip(values) {
            all.iter_mut().zip(more).for_each(|(all, more)| *all += more);
        }
        self.unknown += unknown;
    }

    /// The share of each value of a column; zeros where nothing is known.
    fn shares(&self, column: usize) -> Vec<f64> {
        let all: usize = self.values[column].iter().sum();
        self.values[column].iter().map(|&count| if all == 0 { 0.0 } else { count as f64 / all as f64 }).collect()
    }
}

/// An attribute's distribution in three sets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shift {
    pub attribute: String,
    /// Its values and their shares, 0–1, the most frequent in the target first.
    pub values: Vec<Share>,
    /// Total variation distance between target and selection, 0–1: the share that would have to change.
    pub selection_differs: f64,
    /// The same between target and pool.
    pub pool_differs: f64,
    /// Images of target, selection and pool that the file does not name.
    pub unknown: usize,
}

/// A value's share in three sets, 0–1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    pub value: String,
    pub target: f64,
    pub selection: f64,
    pub pool: f64,
}

pub fn compare(known: &Attributes, selection: &SelectionTable, pool: &Counts) -> Vec<Shift> {
    let count = |names: &mut dyn Iterator<Item = &str>| {
        let mut counts = Counts::none(known);
        counts.add(known.count(names));
        counts
    };
    let target = count(&mut selection.targets.iter().map(|name| stem(name)));
    let chosen = count(&mut selection.chosen.iter().map(|chosen| stem(&chosen.id)));
    (0..known.columns.len())
        .map(|column| {
            let [t, s, p] = [&target, &chosen, pool].map(|counts| counts.shares(column));
            let half = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0;
            let names = known.values[column].iter();
            let mut values: Vec<Share> = names
                .enumerate()
                .map(|(at, value)| Share { value: value.clone(), target: t[at], selection: s[at], pool: p[at] })
                .collect();
            values.sort_by(|a, b| b.target.total_cmp(&a.target).then_with(|| a.value.cmp(&b.value)));
            Shift {
                attribute: known.columns[column].clone(),
                values,
                selection_differs: half(&t, &s),
                pool_differs: half(&t, &p),
                unknown: target.unknown + chosen.unknown + pool.unknown,
            }
        })
        .collect()
}
