//! Summaries of a handful of numbers: seeds, timings, similarities.

/// Arithmetic mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation of a sample (divisor n − 1): the spread to print beside a mean over seeds. 0 for a single value, NaN of
/// nothing.
pub fn std(values: &[f64]) -> f64 {
    match values.len() {
        0 => f64::NAN,
        1 => 0.0,
        n => (squares(values) / (n - 1) as f64).sqrt(),
    }
}

/// Standard deviation of a whole population (divisor n), NumPy's default and what most papers print; NaN of nothing.
pub fn std_population(values: &[f64]) -> f64 {
    (squares(values) / values.len() as f64).sqrt()
}

fn squares(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|x| (x - mean) * (x - mean)).sum()
}

/// Quantile by linear interpolation between order statistics (NumPy's default); NaN of nothing.
///
/// # Panics
/// If `q` is outside 0–1.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    assert!((0.0..=1.0).contains(&q), "a quantile is named by a number from 0 to 1");
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = q * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Middle value; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// How many values fall into each of `bins` equal intervals of `[low, high]`: closed on the left, the last one on both sides.
/// Values outside, NaN among them, are not counted.
///
/// # Panics
/// If there are no bins or `low < high` does not hold.
pub fn histogram(values: &[f64], low: f64, high: f64, bins: usize) -> Vec<u64> {
    assert!(bins > 0 && low < high, "a histogram needs bins and a range");
    let mut counts = vec![0; bins];
    for &x in values {
        if (low..=high).contains(&x) {
            let bin = ((x - low) / (high - low) * bins as f64) as usize;
            counts[bin.min(bins - 1)] += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_deviations_differ_by_their_divisor() {
        let v = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert!((mean(&v) - 5.0).abs() < 1e-12);
        assert!((std_population(&v) - 2.0).abs() < 1e-12);
        assert!((std(&v) - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn one_value_has_no_spread_and_nothing_has_no_mean() {
        assert!(std(&[3.0]) == 0.0 && std_population(&[3.0]) == 0.0);
        assert!(mean(&[]).is_nan() && std(&[]).is_nan() && median(&[]).is_nan());
    }

    #[test]
    fn quantiles_interpolate_like_numpy() {
        let v = [4.0, 1.0, 3.0, 2.0];
        for (q, want) in [(0.0, 1.0), (0.25, 1.75), (0.5, 2.5), (0.9, 3.7), (1.0, 4.0)] {
            assert!((quantile(&v, q) - want).abs() < 1e-12, "{q}");
        }
    }

    #[test]
    fn a_histogram_closes_its_last_bin_and_drops_strangers() {
        assert_eq!(histogram(&[0.0, 0.49, 0.5, 1.0, 1.01, -0.1, f64::NAN], 0.0, 1.0, 2), [2, 2]);
    }
}
