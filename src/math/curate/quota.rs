//! Quotas: how many images are taken for each part of the target.
//!
//! A budget in the order of ranks follows the target's parts as they are: a rare one gets little. Quotas give each part a share
//! of `size^power`: with power 1 as the target has them, with 0 all the same, between them something between.

/// Whole shares of a budget, one for each size; a part of size 0 gets nothing. Rounded by largest remainders, equal ones by
/// lower index, so that they sum to the budget.
pub fn shares(sizes: &[usize], power: f64, budget: usize) -> Vec<usize> {
    let weights: Vec<f64> = sizes.iter().map(|&size| if size == 0 { 0.0 } else { (size as f64).powf(power) }).collect();
    let total: f64 = weights.iter().sum();
    if total <= 0.0 {
        return vec![0; sizes.len()];
    }
    let exact: Vec<f64> = weights.iter().map(|weight| weight / total * budget as f64).collect();
    let mut shares: Vec<usize> = exact.iter().map(|share| share.floor() as usize).collect();
    let mut order: Vec<usize> = (0..sizes.len()).filter(|&part| sizes[part] > 0).collect();
    order.sort_by(|&a, &b| (exact[b] - exact[b].floor()).total_cmp(&(exact[a] - exact[a].floor())).then(a.cmp(&b)));
    let left = budget.saturating_sub(shares.iter().sum());
    for &part in order.iter().cycle().take(left) {
        shares[part] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_sizes_by_their_power_and_sum_to_the_budget() {
        assert_eq!(shares(&[90, 10, 0], 1.0, 50), [45, 5, 0]);
        assert_eq!(shares(&[90, 10, 0], 0.0, 50), [25, 25, 0]);
        assert_eq!(shares(&[100, 25, 0, 1], 0.5, 16), [10, 5, 0, 1]);
        assert_eq!(shares(&[1, 1, 1], 1.0, 5), [2, 2, 1], "remainders go to the first of equals");
        assert_eq!(shares(&[0, 0], 1.0, 5), [0, 0]);
        assert_eq!(shares(&[3, 4], 1.0, 0), [0, 0]);
        for budget in 0..40 {
            assert_eq!(shares(&[7, 3, 5, 11], 0.7, budget).iter().sum::<usize>(), budget);
        }
    }
}
