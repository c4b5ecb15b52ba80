//! A share drawn from a beta distribution: how much of each of two images MixUp takes.

use kinset_base::seed::Rng;

/// Gamma distributed with this shape and scale 1.
///
/// # Paper
/// Marsaglia & Tsang 2000, "A simple method for generating gamma variables"; section 6 for shapes below 1.
fn gamma(shape: f64, rng: &mut Rng) -> f64 {
    if shape < 1.0 {
        // 1 − u lies in (0, 1]: its root is never of zero.
        let smaller = (1.0 - rng.unit()).powf(1.0 / shape);
        return gamma(shape + 1.0, rng) * smaller;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = rng.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// Beta distributed with shapes `a` and `b`, 0 to 1.
///
/// # Panics
/// If a shape is not positive.
pub fn beta(a: f64, b: f64, rng: &mut Rng) -> f64 {
    assert!(a > 0.0 && b > 0.0, "the shapes of a beta distribution are positive");
    let (x, y) = (gamma(a, rng), gamma(b, rng));
    // Shapes near 0 may underflow both.
    if x + y > 0.0 { x / (x + y) } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::seed::Seed;

    /// Mean and variance of draws.
    fn moments(draw: impl FnMut() -> f64) -> (f64, f64) {
        let values: Vec<f64> = std::iter::repeat_with(draw).take(40_000).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64)
    }

    #[test]
    fn mean_and_variance_are_those_of_the_distribution() {
        let mut rng = Seed::new(1).rng();
        for (a, b) in [(4.0, 4.0), (1.0, 1.0), (0.5, 0.5), (2.0, 5.0)] {
            let (mean, variance) = moments(|| beta(a, b, &mut rng));
            assert!((mean - a / (a + b)).abs() < 0.005, "{a} {b}: {mean}");
            let expected = a * b / ((a + b) * (a + b) * (a + b + 1.0));
            assert!((variance / expected - 1.0).abs() < 0.04, "{a} {b}: {variance}");
        }
    }

    #[test]
    fn the_larger_share_of_the_papers_mixup_is_637_thousandths() {
        // methods/ruc.md section 6.5: the mean of max(l, 1 − l) with l ~ Beta(4, 4).
        let mut rng = Seed::new(2).rng();
        let (mean, _) = moments(|| {
            let share = beta(4.0, 4.0, &mut rng);
            share.max(1.0 - share)
        });
        assert!((mean - 0.637).abs() < 0.003, "{mean}");
    }

    #[test]
    fn tiny_shapes_stay_within_0_and_1() {
        let mut rng = Seed::new(3).rng();
        assert!((0..1000).all(|_| (0.0..=1.0).contains(&beta(1e-3, 1e-3, &mut rng))));
    }
}
