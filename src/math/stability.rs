//! Stability: the agreement of several clusterings of the same rows. If another seed sorts the images otherwise, the clusters are
//! not in the data.

use super::partition::{Classes, Clusters, Contingency};
use kinset_base::stop::{Stop, Stopped};

/// How one clustering agrees with the others: the means over them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Mean adjusted Rand index with the others: 0 is chance, 1 the same clusters.
    pub ari: f64,
    /// Mean normalized mutual information with the others, 0–1.
    pub nmi: f64,
}

/// The agreement of each clustering with all others. Their mean is the mean over all pairs. Nothing for fewer than two.
///
/// # Errors
/// If it is asked to stop.
///
/// # Panics
/// If they are not of the same rows.
pub fn agreements(labelings: &[&[i32]], stop: &Stop) -> Result<Vec<Agreement>, Stopped> {
    let count = labelings.len();
    if count < 2 {
        return Ok(Vec::new());
    }
    let mut sums = vec![Agreement { ari: 0.0, nmi: 0.0 }; count];
    for one in 0..count {
        for two in 0..one {
            stop.check()?;
            let table = Contingency::new(Clusters::up_to_highest(labelings[one]), Classes::up_to_highest(labelings[two]));
            let (ari, nmi) = (table.ari(), table.nmi());
            for of in [one, two] {
                sums[of].ari += ari;
                sums[of].nmi += nmi;
            }
        }
    }
    let others = (count - 1) as f64;
    Ok(sums.into_iter().map(|sum| Agreement { ari: sum.ari / others, nmi: sum.nmi / others }).collect())
}

#[cfg(test)]
mod tests {
    use super::super::silhouette::tests::golden;
    use super::*;

    #[test]
    fn the_mean_over_pairs_is_that_of_scikit_learn() {
        let golden = golden();
        let labelings: Vec<&[i32]> = golden.labelings.iter().map(Vec::as_slice).collect();
        let found = agreements(&labelings, &Stop::default()).unwrap();
        let mean = |of: fn(&Agreement) -> f64| found.iter().map(of).sum::<f64>() / found.len() as f64;
        assert!((mean(|a| a.ari) - golden.ari).abs() < 1e-9);
        assert!((mean(|a| a.nmi) - golden.nmi).abs() < 1e-9);
    }

    #[test]
    fn other_names_are_full_agreement_and_one_alone_agrees_with_nobody() {
        let found = agreements(&[&[0, 0, 1, 1], &[1, 1, 0, 0], &[0, 0, 1, 1]], &Stop::default()).unwrap();
        assert!(found.iter().all(|a| (a.ari - 1.0).abs() < 1e-12 && (a.nmi - 1.0).abs() < 1e-12));
        assert!(agreements(&[&[0, 1]], &Stop::default()).unwrap().is_empty());
        let stranger = agreements(&[&[0, 0, 1, 1], &[0, 0, 1, 1], &[0, 1, 0, 1]], &Stop::default()).unwrap();
        assert!(stranger[2].ari < stranger[0].ari, "{stranger:?}");
    }
}
