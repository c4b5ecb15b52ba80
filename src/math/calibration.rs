//! Calibration: whether a confidence of 0.9 is right nine times in ten.
//!
//! Expected calibration error (Guo et al. 2017, "On calibration of modern neural networks", eq. 3): predictions are put into
//! equal-width bins of confidence, and the gaps between mean confidence and accuracy are averaged, weighted by bin size.

/// The bins of the paper, and of nearly everyone since.
pub const BINS: usize = 15;

/// One interval of confidence, open on the left: `(low, high]`. The first also takes 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    pub low: f64,
    pub high: f64,
    /// Predictions in it.
    pub count: u64,
    /// Mean confidence of those; 0 if there are none.
    pub confidence: f64,
    /// Share of those that are right; 0 if there are none.
    pub accuracy: f64,
}

/// The reliability diagram as a table, and what it says in one number.
#[derive(Clone, Debug, PartialEq)]
pub struct Reliability {
    /// Expected calibration error, 0 to 1; NaN of nothing.
    pub error: f64,
    /// All bins, lowest confidence first, empty ones included.
    pub bins: Vec<Bin>,
}

/// Sorts predictions into `bins` equal bins of confidence and compares confidence with accuracy.
///
/// # Panics
/// If the two slices differ in length, there are no bins, or a confidence is outside 0–1 (a rounding error of 1e-5 is let
/// through).
pub fn reliability(confidence: &[f32], correct: &[bool], bins: usize) -> Reliability {
    assert_eq!(confidence.len(), correct.len(), "one verdict per confidence");
    assert!(bins > 0, "a reliability table needs bins");
    let (mut count, mut sum, mut right) = (vec![0_u64; bins], vec![0.0_f64; bins], vec![0_u64; bins]);
    for (&c, &correct) in confidence.iter().zip(correct) {
        assert!((-1e-5..=1.0 + 1e-5).contains(&c), "a confidence is a number from 0 to 1");
        let bin = ((f64::from(c) * bins as f64).ceil() - 1.0).clamp(0.0, bins as f64 - 1.0) as usize;
        count[bin] += 1;
        sum[bin] += f64::from(c);
        right[bin] += u64::from(correct);
    }
    let mut gaps = 0.0;
    let bins = (0..bins)
        .map(|b| {
            let n = count[b].max(1) as f64;
            gaps += (sum[b] - right[b] as f64).abs();
            let edge = |b: usize| b as f64 / count.len() as f64;
            Bin { low: edge(b), high: edge(b + 1), count: count[b], confidence: sum[b] / n, accuracy: right[b] as f64 / n }
        })
        .collect();
    Reliability { error: gaps / confidence.len() as f64, bins }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_table_comes_out() {
        let found = reliability(&[0.9, 0.8, 1.0, 0.3, 0.0], &[true, false, true, true, false], 2);
        assert_eq!(found.bins.iter().map(|b| b.count).collect::<Vec<_>>(), [2, 3]);
        assert!((found.bins[0].confidence - 0.15).abs() < 1e-7 && (found.bins[0].accuracy - 0.5).abs() < 1e-12);
        assert!((found.bins[1].confidence - 0.9).abs() < 1e-7 && (found.bins[1].accuracy - 2.0 / 3.0).abs() < 1e-12);
        assert!((found.error - (0.4 * 0.35 + 0.6 * (0.9 - 2.0 / 3.0))).abs() < 1e-7);
    }

    #[test]
    fn always_sure_and_always_right_is_calibrated_and_never_right_is_the_worst() {
        assert!(reliability(&[1.0; 9], &[true; 9], BINS).error == 0.0);
        assert!((reliability(&[1.0; 9], &[false; 9], BINS).error - 1.0).abs() < 1e-12);
        assert!(reliability(&[], &[], BINS).error.is_nan());
    }

    #[test]
    fn an_edge_belongs_to_the_bin_on_its_left() {
        let found = reliability(&[0.5, 0.25, 0.750_001], &[true; 3], 4);
        assert_eq!(found.bins.iter().map(|b| b.count).collect::<Vec<_>>(), [1, 1, 0, 1]);
    }
}
