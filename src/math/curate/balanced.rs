//! Balanced sampling from a tree of clusters: each cluster the same share, and each of its parts the same share of that.
//!
//! Vo et al. 2024 (arXiv 2405.15613) give every cluster of the highest level the same number n of a budget, or all it has if that is
//! less, n as large as the budget allows, and divide each number among the cluster's parts by the same rule, down to the images. Taking
//! from clusters in turn, and within each from its parts in turn, is this rule for every budget at once: what was taken after any number
//! of turns is the sample of that size. So a larger budget adds images and drops none.

use super::hierarchy::members;
use kinset_base::seed::Seed;

/// The images that a budget takes, in the order in which it takes them.
///
/// `leaves` are the images of each cluster of the lowest level, each list in the order in which it shall be used; `above` says of the
/// clusters of each level but the highest to which of the next they belong. Clusters have their turns in random order.
pub fn order(leaves: Vec<Vec<u32>>, above: &[&[u32]], budget: usize, seed: Seed) -> Vec<u32> {
    let mut lists = leaves;
    for (level, parents) in above.iter().enumerate() {
        let seed = seed.branch("level").at(level as u64);
        let count = parents.iter().max().map_or(0, |most| *most as usize + 1);
        lists = members(parents, count)
            .into_iter()
            .enumerate()
            .map(|(parent, children)| {
                let parts = children.into_iter().map(|child| std::mem::take(&mut lists[child as usize])).collect();
                in_turn(parts, budget, seed.at(parent as u64))
            })
            .collect();
    }
    in_turn(lists, budget, seed.branch("top"))
}

/// One of each list in turn, for as long as there are some.
fn in_turn(mut lists: Vec<Vec<u32>>, most: usize, seed: Seed) -> Vec<u32> {
    seed.rng().shuffle(&mut lists);
    let total: usize = lists.iter().map(Vec::len).sum();
    let mut taken = Vec::with_capacity(total.min(most));
    for turn in 0.. {
        lists.retain(|list| turn < list.len());
        if lists.is_empty() || taken.len() >= most {
            break;
        }
        taken.extend(lists.iter().map(|list| list[turn]));
    }
    taken.truncate(most);
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Images 0, 1, 2, … in clusters of these sizes.
    fn leaves(sizes: &[usize]) -> Vec<Vec<u32>> {
        let mut next = 0..;
        sizes.iter().map(|&size| next.by_ref().take(size).collect()).collect()
    }

    /// How many of each cluster.
    fn taken(sizes: &[usize], above: &[&[u32]], budget: usize) -> Vec<usize> {
        let found = order(leaves(sizes), above, budget, Seed::new(3));
        leaves(sizes).iter().map(|leaf| leaf.iter().filter(|row| found.contains(row)).count()).collect()
    }

    #[test]
    fn clusters_get_the_same_number_or_all_they_have() {
        assert_eq!(taken(&[100, 2, 10, 0], &[], 22), [10, 2, 10, 0]);
        assert_eq!(taken(&[100, 2, 10], &[], 12), [5, 2, 5]);
        assert_eq!(taken(&[3, 2], &[], 99), [3, 2]);
        assert_eq!(taken(&[3, 2], &[], 0), [0, 0]);
    }

    #[test]
    fn the_highest_level_divides_first() {
        // Four leaves belong to one cluster and one to another: they share as two, not as five.
        assert_eq!(taken(&[50, 50, 50, 50, 50], &[&[0, 0, 0, 0, 1]], 40), [5, 5, 5, 5, 20]);
        assert_eq!(taken(&[50, 50, 50, 50, 50], &[], 40), [8; 5]);
        // What a cluster does not have goes to the others.
        assert_eq!(taken(&[50, 50, 4], &[&[0, 0, 1]], 40), [18, 18, 4]);
        // Three levels.
        assert_eq!(taken(&[90, 90, 90, 90], &[&[0, 0, 1, 2], &[0, 0, 1]], 80), [10, 10, 20, 40]);
    }

    #[test]
    fn leaves_are_used_in_their_order() {
        assert_eq!(order(vec![vec![7, 3, 5]], &[], 2, Seed::new(1)), [7, 3]);
    }

    proptest! {
        #[test]
        fn a_smaller_budget_is_the_beginning_of_a_larger_and_shares_are_level(
            sizes in prop::collection::vec(0_usize..30, 1..12),
            budget in 0_usize..150,
        ) {
            let above: Vec<u32> = (0..sizes.len() as u32).map(|leaf| leaf % 3).collect();
            for above in [&[][..], &[&above[..]][..]] {
                let whole = order(leaves(&sizes), above, usize::MAX, Seed::new(9));
                let part = order(leaves(&sizes), above, budget, Seed::new(9));
                prop_assert_eq!(&part[..], &whole[..budget.min(whole.len())]);
                let mut all = whole.clone();
                all.sort_unstable();
                prop_assert_eq!(all, (0..sizes.iter().sum::<usize>() as u32).collect::<Vec<_>>());
            }
            // Whoever is not used up has at most one less than anybody else.
            let taken = taken(&sizes, &[], budget);
            let most = taken.iter().copied().max().unwrap_or(0);
            prop_assert!(taken.iter().zip(&sizes).all(|(taken, size)| taken == size || taken + 1 >= most));
        }
    }
}
